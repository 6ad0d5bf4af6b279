"""Do the node's session and the scheduler's own service for nodes understand each other?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from dray.addresses import HostPort
from dray.api.v1 import node_pb2_grpc
from dray.clock import SystemClock
from dray.log import get_logger
from dray.model import (
    Assignment,
    AttemptState,
    ClusterRecord,
    Epoch,
    Member,
    NodeCapacity,
    NodeInfo,
    NodeUsage,
    Platform,
    ReachKind,
    StoreRevision,
    TaskUsage,
    WitnessEvidence,
)
from dray.names import NodeId, id_text
from dray.tls import server
from node.agent.agent import Agent, AgentParts, AgentSettings
from node.agent.alone import EmptyView, NoDiscovery, PlainNetwork
from node.agent.contents import ContentFiles
from node.agent.disk import Disk
from node.agent.faults import Faults
from node.agent.session.reports import Reports
from node.agent.session.stream import Session, SessionParts, SessionSettings
from node.agent.stored import NodeConfig
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine
from scheduler.nodes.parts import share_of
from scheduler.store import keys
from scheduler.store.base import Put, Txn
from scheduler.store.codec import encode
from tests.builders import CLUSTER_ID, a_key, a_record, a_service, a_slot, a_task, task_id
from tests.integration.test_node_streams import EPOCH, Cluster
from tests.node_agent import Contents

WAIT_S = 20.0
CAPACITY = NodeCapacity(2000, 1024**3)


class Figures:
    """Measures nothing."""

    def capacity(self) -> NodeCapacity:
        """Return what the machine has."""
        return CAPACITY

    def node_usage(self) -> NodeUsage:
        """Return what the machine uses."""
        return NodeUsage(memory_bytes=77)

    def task_usages(self) -> tuple[TaskUsage, ...]:
        """Return nothing."""
        return ()


@dataclass
class Daemon:
    """A node with its session, on the fake engine."""

    session: Session
    agent: Agent
    faults: Faults


@contextlib.asynccontextmanager
async def scheduler() -> AsyncIterator[tuple[Cluster, HostPort]]:
    """Run a scheduler's side that leads, on a port of its own."""
    cluster = Cluster()
    await cluster.store.commit(Txn((), (Put(keys.CLUSTER, encode(ClusterRecord(CLUSTER_ID))),)))
    bound = server(HostPort("127.0.0.1", 0), None)
    node_pb2_grpc.add_NodeServiceServicer_to_server(cluster.service, bound.server)
    mirroring = asyncio.create_task(cluster.mirror.run())
    await bound.server.start()
    await cluster.mirror.wait_revision(StoreRevision(2))
    running = asyncio.create_task(cluster.service.run(cluster.service.begin(EPOCH)))
    try:
        yield cluster, bound.address
    finally:
        running.cancel()
        await asyncio.wait({running})
        cluster.service.end()
        await bound.server.stop(None)
        mirroring.cancel()
        await asyncio.wait({mirroring})


LEADERS_HOST = id_text(b"l" * 16)


class Witness(NoDiscovery):
    """A `Discovery` to which the leader's host, a node at its address, is silent."""

    class View(EmptyView):
        """A view of that node alone."""

        def members(self) -> Iterator[Member]:
            """Yield it; only its id and address are looked at."""
            seen = SimpleNamespace(node_id=NodeId(LEADERS_HOST), address="127.0.0.1")
            yield cast("Member", seen)

    def view(self) -> EmptyView:
        """Return a view of one."""
        return self.View()

    def evidence(self) -> tuple[WitnessEvidence, ...]:
        """Return that it is silent."""
        target = NodeId(LEADERS_HOST)
        return (WitnessEvidence(NodeId(id_text(b"n" * 16)), target, 1, ReachKind.SILENT, 2.0),)


@contextlib.asynccontextmanager
async def daemon(
    folder: Path,
    engine: FakeEngine,
    addresses: tuple[HostPort, ...],
    discovery: NoDiscovery | None = None,
) -> AsyncIterator[Daemon]:
    """Run a node's agent and session; its end says goodbye."""
    disk, clock, log = Disk(folder), SystemClock(), get_logger("node")
    identity = await asyncio.to_thread(disk.open, lambda: id_text(b"n" * 16), clock.unix_s())
    config = await asyncio.to_thread(disk.read_config)
    runtime, faults = FakeRuntime(engine), Faults(clock, log)
    discovery = discovery or NoDiscovery()
    contents = ContentFiles(Contents(), folder, folder / "run")
    agent = Agent(
        AgentSettings(identity.node_id, "n1", "127.0.0.1"),
        AgentParts(disk, runtime, PlainNetwork(), discovery, contents, clock, log),
    )
    await agent.load()

    def info(life: int) -> NodeInfo:
        return NodeInfo(
            identity.node_id, "n1", life, "boot", "0.1.0", "127.0.0.1", 7401, Platform(), "24",
            CAPACITY,
        )  # fmt: skip

    async def configured(_: NodeConfig) -> None:
        return None

    parts = SessionParts(
        disk,
        agent,
        discovery,
        Reports(agent, discovery, runtime, Figures(), faults, clock),
        faults,
        clock,
        random.Random(1),
        log,
        info,
        configured,
        lambda message, connection: None,
    )
    session = Session(SessionSettings(addresses), parts, identity, config)
    tasks = [asyncio.create_task(session.run()), asyncio.create_task(agent.run())]
    try:
        yield Daemon(session, agent, faults)
    finally:
        for task in tasks:
            task.cancel()
            await asyncio.wait({task})
        await runtime.close()
        await asyncio.to_thread(disk.close)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def assign(cluster: Cluster, daemon: Daemon, *numbers: int) -> None:
    """Store an assignment, and push it as a round does."""
    node_id = daemon.session.identity.node_id
    record = a_record(a_service())
    await cluster.write(Put(keys.revision_key(a_key(), record.revision), encode(record)))
    tasks = tuple(a_task(number, a_slot(number), epoch=EPOCH) for number in numbers)
    stored = Assignment(CLUSTER_ID, node_id, EPOCH, StoreRevision(0), tasks)
    await cluster.write(Put(keys.assignment_key(node_id), encode(stored)))
    share = share_of(cluster.mirror.snapshot, node_id)
    assert share is not None
    await cluster.streams.push(node_id, share.assignment, share.projects)


@pytest.fixture
def engine() -> FakeEngine:
    """Return an engine that outlives daemons."""
    seconds = itertools.count(1_700_000_000)
    return FakeEngine(lambda: float(next(seconds)), images=["web:1"])


def attempt_state(cluster: Cluster, number: int) -> AttemptState | None:
    """Return what the leader knows of a task."""
    report = cluster.streams.observations.observed().attempts.get(task_id(number))
    return None if report is None else report.state


def condition(cluster: Cluster, daemon: Daemon) -> str:
    """Return what the leader holds a node to be."""
    nodes = cluster.streams.observations.observed().nodes
    return nodes[daemon.session.identity.node_id].condition.name


async def test_a_node_joins_runs_its_assignment_and_reports(
    tmp_path: Path, engine: FakeEngine
) -> None:
    """From nothing to running tasks that the leader knows of; unlisted ones are forgotten."""
    async with (
        scheduler() as (cluster, address),
        daemon(tmp_path / "n", engine, (address,)) as node,
    ):
        await until(lambda: node.session.connection is not None)
        assert node.session.config is not None
        assert node.session.config.record.subnet == "10.192.0.0/23"
        clock, check = SystemClock(), node.session.clock_check
        assert check.fault(clock.monotonic_s(), clock.unix_s()) == ""
        assert "ahead of" in check.fault(clock.monotonic_s(), clock.unix_s() + 3600.0)
        await assign(cluster, node, 1, 2)
        await until(lambda: attempt_state(cluster, 1) is AttemptState.RUNNING)
        await until(lambda: attempt_state(cluster, 2) is AttemptState.RUNNING)
        await until(lambda: condition(cluster, node) == "READY")
        await assign(cluster, node, 2)
        await until(lambda: attempt_state(cluster, 1) is None)
        assert attempt_state(cluster, 2) is AttemptState.RUNNING


async def test_a_new_daemon_resends_everything_with_a_higher_life(
    tmp_path: Path, engine: FakeEngine
) -> None:
    """The leader learns of what runs without anybody touching it."""
    async with scheduler() as (cluster, address):
        async with daemon(tmp_path / "n", engine, (address,)) as node:
            await until(lambda: node.session.connection is not None)
            await assign(cluster, node, 1)
            await until(lambda: attempt_state(cluster, 1) is AttemptState.RUNNING)
            life = node.session.identity.life
        async with daemon(tmp_path / "n", engine, (address,)) as node:
            await until(lambda: node.session.connection is not None)
            assert node.session.identity.life > life
            await until(lambda: attempt_state(cluster, 1) is AttemptState.RUNNING)
            assert len(engine.containers) == 1


async def test_a_scheduler_that_does_not_lead_sends_the_node_on(
    tmp_path: Path, engine: FakeEngine
) -> None:
    """It follows the redirection, and goes on looking when nobody is there."""
    async with scheduler() as (_, address):
        dead = HostPort("127.0.0.1", 9)
        async with daemon(tmp_path / "n", engine, (dead, address)) as node:
            await until(lambda: node.session.connection is not None)
            assert node.session.connection is not None
            assert node.session.connection.address == address


async def test_a_node_tells_that_the_last_leaders_host_is_silent(
    tmp_path: Path, engine: FakeEngine
) -> None:
    """Schedulers do not know the node that they run on: the node finds it by the address."""
    folder = tmp_path / "n"
    async with (
        scheduler() as (cluster, address),
        daemon(folder, engine, (address,), Witness()) as node,
    ):
        await until(lambda: node.session.connection is not None)
        cluster.service.end()
        await until(lambda: bool(cluster.heard))
        reporter, evidence, epoch = cluster.heard[0]
        assert reporter == node.session.identity.node_id
        assert (evidence.target, evidence.reach) == (LEADERS_HOST, ReachKind.SILENT)
        assert epoch == EPOCH


async def test_a_node_runs_on_while_the_leader_is_away(tmp_path: Path, engine: FakeEngine) -> None:
    """The end of a stream says nothing; the next leader hears all of it."""
    folder = tmp_path / "n"
    async with scheduler() as (cluster, address), daemon(folder, engine, (address,)) as node:
        await until(lambda: node.session.connection is not None)
        await assign(cluster, node, 1)
        await until(lambda: attempt_state(cluster, 1) is AttemptState.RUNNING)
        cluster.service.end()
        await until(lambda: node.session.connection is None)
        report = node.agent.book.reports[task_id(1)]
        assert report.state is AttemptState.RUNNING
        again = cluster.service.begin(Epoch(EPOCH.generation, EPOCH.create_revision + 1))
        running = asyncio.create_task(cluster.service.run(again))
        try:
            await until(lambda: attempt_state(cluster, 1) is AttemptState.RUNNING)
        finally:
            running.cancel()
            await asyncio.wait({running})


async def test_a_node_that_goes_away_waits_for_its_tasks_to_move(
    tmp_path: Path, engine: FakeEngine
) -> None:
    """The leader knows that it leaves; it obeys to the end, and does not connect again."""
    folder = tmp_path / "n"
    async with scheduler() as (cluster, address), daemon(folder, engine, (address,)) as node:
        await until(lambda: node.session.connection is not None)
        await assign(cluster, node, 1)
        await until(lambda: attempt_state(cluster, 1) is AttemptState.RUNNING)
        leaving = asyncio.create_task(node.session.leave(WAIT_S))
        node_id = node.session.identity.node_id
        await until(lambda: cluster.streams.observations.observed().nodes[node_id].is_leaving)
        assert not leaving.done()
        await assign(cluster, node)
        await asyncio.wait_for(leaving, WAIT_S)
        assert not [each for each in engine.containers.values() if each.is_running]
