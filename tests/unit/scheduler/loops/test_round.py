"""Does a leader's round carry its plan out once, whatever the store in memory answers?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from dray.clock import SystemClock
from dray.log import get_logger
from dray.model import (
    ClusterRecord,
    Dependency,
    DependencyCondition,
    Epoch,
    ProjectSpec,
    ServiceKey,
    ServiceSpec,
    StoreRevision,
    VolumeSpec,
)
from dray.names import RandomIds
from dray.views import RoundStatus
from scheduler.election.election import LeaderTerm
from scheduler.loops.round import Rounds
from scheduler.metrics import Metrics
from scheduler.nodes.messages import (
    AttemptReports,
    Hello,
    NodeConfig,
    NodeVolume,
    RemoveVolumes,
    VolumeReport,
    Welcome,
)
from scheduler.nodes.streams import Link, NodeStreams
from scheduler.store import keys
from scheduler.store.base import Committed, Compare, CompareField, Delete, Operation, Put, Txn
from scheduler.store.codec import encode
from scheduler.store.memory import CommitFault, MemoryData, MemoryStore
from scheduler.store.mirror import Mirror
from scheduler.store.records import LeaderRecord, ProjectRecord
from scheduler.store.snapshot import Snapshot
from tests.builders import (
    CLUSTER_ID,
    PROJECT,
    a_key,
    a_node,
    a_record,
    a_service,
    an_id,
    an_info,
    node_id,
    reserving,
)

DEADLINE_S = 20.0
NODES = 3


class World:
    """One leader over a store in memory, with nodes whose streams are up."""

    def __init__(self) -> None:
        self.clock, self.log = SystemClock(), get_logger(__name__)
        self.data = MemoryData(self.clock.monotonic_s)
        self.user, self.store = MemoryStore(self.data), MemoryStore(self.data)
        self.mirror = Mirror(self.store, clock=self.clock, rng=random.Random(1), log=self.log)
        self.rounds: list[RoundStatus] = []
        self.epoch = Epoch(1, 0)
        self.streams: NodeStreams | None = None
        self.links: list[Link] = []
        self.leading: Rounds | None = None

    async def write(self, *operations: Operation) -> StoreRevision:
        """Commit as a user would."""
        outcome = await self.user.commit(Txn((), operations))
        assert isinstance(outcome, Committed)
        return outcome.revision

    async def ask(self, replicas: int, revision: int = 1) -> None:
        """Ask for replicas of shop/web."""
        record = a_record(a_service(replicas=replicas), revision=revision)
        await self.write(
            Put(keys.service_key(a_key()), encode(record)),
            Put(keys.revision_key(a_key(), record.revision), encode(record)),
        )

    async def ask_for(self, spec: ServiceSpec, project: str = PROJECT) -> None:
        """Ask for a service."""
        record = a_record(spec, project=project)
        await self.write(Put(keys.service_key(a_key(spec.name, project)), encode(record)))

    def note(self, status: RoundStatus | None) -> None:
        """Keep what a round came to."""
        if status is not None:
            self.rounds.append(status)

    async def until(self, replicas: int) -> Snapshot:
        """Wait until so many tasks of the service are assigned, and return the snapshot."""
        snapshot = self.mirror.snapshot
        while count(snapshot, a_key()) != replicas:
            snapshot = await self.mirror.wait_changed(snapshot.revision)
        return snapshot


def count(snapshot: Snapshot, service: ServiceKey) -> int:
    """Return how many tasks of a service are assigned and not told to end."""
    tasks = [task for each in snapshot.assignments.values() for task in each.tasks]
    return sum(task.slot.service_key == service and not task.stop for task in tasks)


def connect(streams: NodeStreams, number: int) -> Link:
    """Let a node connect and say that it runs nothing, and has a volume of shop."""
    record = a_node(number)
    config = NodeConfig(record, (), (), ())
    welcome = Welcome(ClusterRecord(CLUSTER_ID), config, an_id(8), "0.1.0")  # type: ignore[arg-type]
    hello = Hello(an_info(number))
    link = streams.open(hello, welcome, None)
    streams.receive(link, AttemptReports(is_complete=True))
    volume = NodeVolume("shop", "data", "shop_data", "local", 5.0)
    streams.receive(link, VolumeReport(is_complete=True, volumes=(volume,)))
    return link


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """Lend a thread for planning."""
    with ThreadPoolExecutor(1) as lent:
        yield lent


@asynccontextmanager
async def leading(executor: ThreadPoolExecutor) -> AsyncIterator[World]:
    """Run a leader's rounds with nodes that are ready."""
    world = World()
    await world.write(
        Put(keys.CLUSTER, encode(ClusterRecord(CLUSTER_ID))),
        *(Put(keys.node_key(node_id(n)), encode(a_node(n))) for n in range(1, NODES + 1)),
    )
    leader = LeaderRecord(an_id(8), CLUSTER_ID, 1, "127.0.0.1:7400")  # type: ignore[arg-type]
    created = await world.write(Put(keys.LEADER, encode(leader)))
    world.epoch = Epoch(1, created)
    fence = Compare(keys.LEADER, CompareField.CREATE_REVISION, created)
    term = LeaderTerm(world.epoch, fence, 0.0, lambda: float("inf"))
    streams = NodeStreams(
        world.epoch,
        clock=world.clock,
        log=world.log,
        registered=lambda: frozenset(world.mirror.snapshot.nodes),
    )
    world.streams = streams
    rounds = Rounds(
        term,
        store=world.store,
        mirror=world.mirror,
        streams=streams,
        executor=executor,
        ids=RandomIds(random.Random(2).getrandbits),
        leader_name="127.0.0.1:7400",
        on_news=world.note,
        metrics=Metrics(),
        clock=world.clock,
        log=world.log,
    )
    world.leading = rounds
    tasks = {asyncio.create_task(world.mirror.run())}
    try:
        async with asyncio.timeout(DEADLINE_S):
            await world.mirror.wait_revision(created)
            for number in range(1, NODES + 1):
                world.links.append(connect(streams, number))
            tasks |= {asyncio.create_task(streams.run()), asyncio.create_task(rounds.run())}
            yield world
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_plan_is_carried_out_once_and_told(executor: ThreadPoolExecutor) -> None:
    """Three replicas are assigned apart, the round counts them, and events say so."""
    async with leading(executor) as world:
        await world.ask(3)
        snapshot = await world.until(3)
        assert all(len(each.tasks) < 3 for each in snapshot.assignments.values())
        assert {each.epoch for each in snapshot.assignments.values()} == {world.epoch}
        while "new slot" not in {
            event.reason for each in snapshot.events.values() for event in each
        }:
            snapshot = await world.mirror.wait_changed(snapshot.revision)
        while sum(status.created for status in world.rounds) != 3:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", list(CommitFault))
async def test_a_commit_that_fails_is_made_up_for(
    executor: ThreadPoolExecutor, fault: CommitFault
) -> None:
    """Lost, unanswered, refused: the next plan starts from what there is; nothing is done twice."""
    async with leading(executor) as world:
        await world.ask(2)
        await world.until(2)
        world.store.fail_next_commit(fault)
        await world.ask(3, revision=1)
        snapshot = await world.until(3)
        slots = [task.slot for each in snapshot.assignments.values() for task in each.tasks]
        assert len(slots) == len(set(slots)) == 3


async def test_what_waits_is_known_until_it_is_looked_at_again(
    executor: ThreadPoolExecutor,
) -> None:
    """A service waits for another; rounds about other projects leave that as it is."""
    async with leading(executor) as world:
        rounds = world.leading
        assert rounds is not None
        waiting = replace(
            a_service("app"), depends_on=(Dependency("web", DependencyCondition.HEALTHY),)
        )
        await world.ask(1)
        await world.ask_for(waiting)
        await world.until(1)
        while "shop/app" not in rounds.notes:
            await asyncio.sleep(0.01)
        assert "web" in rounds.notes["shop/app"]
        await world.ask_for(a_service("other"), project="elsewhere")
        while not count(world.mirror.snapshot, a_key("other", "elsewhere")):
            await asyncio.sleep(0.01)
        assert "shop/app" in rounds.notes
        await world.write(Delete(keys.service_key(a_key("app"))))
        while rounds.notes:
            await asyncio.sleep(0.01)


async def test_the_rounds_line_counts_what_was_committed(executor: ThreadPoolExecutor) -> None:
    """Of five slots three find room: the line says five planned, three created."""
    with capture_logs() as lines:
        async with leading(executor) as world:
            await world.ask_for(a_service(replicas=5, reservations=reserving(cpus=3)))
            await world.until(3)
            while not sum(status.created for status in world.rounds):
                await asyncio.sleep(0.01)
    rounds = [line for line in lines if line["event"] == "round" and line["created"]]
    assert [(line["planned"], line["created"]) for line in rounds] == [(5, 3)]


async def test_a_deposed_leader_writes_nothing(executor: ThreadPoolExecutor) -> None:
    """The key is gone when something is asked: that is left to the next leader."""
    async with leading(executor) as world:
        await world.ask(1)
        before = await world.until(1)
        while sum(status.created for status in world.rounds) != 1:
            await asyncio.sleep(0.01)
        rounds = len(world.rounds)
        record = a_record(a_service(replicas=3))
        await world.write(Delete(keys.LEADER), Put(keys.service_key(a_key()), encode(record)))
        while len(world.rounds) == rounds:
            await asyncio.sleep(0.01)
        assert world.mirror.snapshot.assignments == before.assignments
        assert world.rounds[-1].created == 0


async def asked_to_remove(link: Link) -> RemoveVolumes:
    """Return what a node is told about volumes."""
    while not isinstance(message := await link.next(), RemoveVolumes):
        pass
    return message


async def test_volumes_go_with_their_project(executor: ThreadPoolExecutor) -> None:
    """Every node that has one is told to remove it; when all are gone so is the project."""
    async with leading(executor) as world:
        spec = ProjectSpec("shop", volumes=(VolumeSpec("data", "shop_data"),))
        record = ProjectRecord(spec, is_removing=True, remove_volumes=True)
        await world.write(Put(keys.project_key("shop"), encode(record)))
        assert world.streams is not None
        for link in world.links:
            assert await asked_to_remove(link) == RemoveVolumes("shop", ("shop_data",))
        assert "shop" in world.mirror.snapshot.projects
        for link in world.links:
            world.streams.receive(link, VolumeReport(is_complete=False, gone=("shop_data",)))
        snapshot = world.mirror.snapshot
        while "shop" in snapshot.projects:
            snapshot = await world.mirror.wait_changed(snapshot.revision)


async def test_a_deposed_leader_removes_no_volume(executor: ThreadPoolExecutor) -> None:
    """What a later leader has let be made again is not its to remove."""
    async with leading(executor) as world:
        spec = ProjectSpec("shop", volumes=(VolumeSpec("data", "shop_data"),))
        record = ProjectRecord(spec, is_removing=True, remove_volumes=True)
        rounds = len(world.rounds)
        await world.write(Delete(keys.LEADER), Put(keys.project_key("shop"), encode(record)))
        while len(world.rounds) == rounds:
            await asyncio.sleep(0.01)
        for link in world.links:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asked_to_remove(link)
