"""Do nodes and the leader talk over real channels as node.proto says?"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from dray.addresses import HostPort
from dray.api.v1 import node_pb2, node_pb2_grpc, state_pb2, stream_pb2
from dray.clock import SystemClock
from dray.convert import from_proto, to_proto
from dray.errors import NotFound, NotLeader, Unavailable
from dray.log import get_logger
from dray.model import (
    Assignment,
    AttemptReport,
    AttemptState,
    ClusterRecord,
    ContentKind,
    ContentRef,
    Epoch,
    FileMount,
    NodeCondition,
    NodeRecord,
    ProjectSpec,
    StoreRevision,
    WitnessEvidence,
)
from dray.names import NodeId, SchedulerId, id_bytes
from dray.tls import client_channel, server
from dray.views import DnsAnswer, DnsQuery, LogLines, LogQuery
from scheduler.api.ports import LeaderInfo, LeaderMemory
from scheduler.nodes.parts import share_of
from scheduler.nodes.service import NodeService, SchedulerIdentity
from scheduler.nodes.streams import NodeStreams
from scheduler.store import keys
from scheduler.store.base import Committed, Put, Txn
from scheduler.store.codec import encode
from scheduler.store.memory import MemoryData, MemoryStore
from scheduler.store.mirror import Mirror
from scheduler.store.records import ContentRecord, ProjectRecord
from tests.builders import (
    CLUSTER_ID,
    a_key,
    a_record,
    a_service,
    a_slot,
    a_task,
    an_id,
    an_info,
    node_id,
    task_id,
)

EPOCH = Epoch(1, 2)
ANSWER_S = 10.0
OTHER_LEADER = LeaderInfo(SchedulerId(an_id(9)), Epoch(1, 7), HostPort("127.0.0.9", 7400))
SECRET = ContentRef(ContentKind.SECRET, "key", "shop_key", b"d" * 32, 5)


class Cluster:
    """One scheduler's side: a store in memory, its mirror, and the service for nodes."""

    def __init__(self) -> None:
        clock, log = SystemClock(), get_logger(__name__)
        self.store = MemoryStore(MemoryData(clock.monotonic_s))
        self.mirror = Mirror(self.store, clock=clock, rng=random.Random(1), log=log)
        self.heard: list[tuple[NodeId, WitnessEvidence, Epoch]] = []
        self.service = NodeService(
            SchedulerIdentity(SchedulerId(an_id(8)), "0.1.0"),
            store=self.store,
            snapshot=lambda: self.mirror.snapshot,
            wait_revision=self.mirror.wait_revision,
            leadership=self,
            read_content=self.read_content,
            hear_of_leader=lambda *heard: self.heard.append(heard),
            random_bits=random.Random(2).getrandbits,
            clock=clock,
            log=log,
        )

    def leader(self) -> LeaderInfo | None:
        """Return another scheduler while this one does not lead."""
        return None if self.service.streams else OTHER_LEADER

    def memory(self) -> LeaderMemory | None:
        """Return nothing: nobody asks here."""
        return None

    async def wait_memory(self, after: LeaderMemory | None) -> LeaderMemory | None:
        """Return nothing: nobody asks here."""
        return after

    async def remove_orphans(self, node_id: NodeId, task_ids: tuple[Any, ...]) -> None:
        """Do nothing: nobody asks here."""

    async def read_content(self, project: str, ref: ContentRef) -> ContentRecord:
        """Return the one secret that there is."""
        if (project, ref) != ("shop", SECRET):
            raise NotFound(f"no content {ref.key}")
        return ContentRecord(ref, b"hello", b"salt")

    async def write(self, *puts: Put) -> StoreRevision:
        """Commit, and wait until the mirror shows it."""
        outcome = await self.store.commit(Txn((), puts))
        assert isinstance(outcome, Committed)
        await self.mirror.wait_revision(outcome.revision)
        return outcome.revision

    @property
    def streams(self) -> NodeStreams:
        """The streams of the term."""
        assert self.service.streams is not None
        return self.service.streams


class Node:
    """A node's side of one stream."""

    def __init__(self, stub: Any, number: int, life: int = 1) -> None:
        self.number, self.life = number, life
        self.call = stub.Session()

    async def send(self, **message: Any) -> None:
        """Send one message."""
        await self.call.write(node_pb2.SessionRequest(cluster_id=id_bytes(CLUSTER_ID), **message))

    async def hello(self, **changes: Any) -> Any:
        """Say Hello; return the answer."""
        info = replace(an_info(self.number, life=self.life))
        said = node_pb2.Hello(node=to_proto(info, state_pb2.NodeInfo), is_new=True)
        for name, value in changes.items():
            getattr(said, name).CopyFrom(value)
        await self.send(hello=said)
        return await self.read()

    async def read(self) -> Any:
        """Return the next message."""
        async with asyncio.timeout(ANSWER_S):
            return await self.call.read()

    async def read_kind(self, kind: str) -> Any:
        """Return the next message, which is of that kind."""
        message = await self.read()
        assert message.WhichOneof("message") == kind, message
        return getattr(message, kind)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Cluster, Any]]:
    """Run a scheduler that does not lead yet, and a channel to it."""
    cluster = Cluster()
    await cluster.store.commit(Txn((), (Put(keys.CLUSTER, encode(ClusterRecord(CLUSTER_ID))),)))
    bound = server(HostPort("127.0.0.1", 0), None)
    node_pb2_grpc.add_NodeServiceServicer_to_server(cluster.service, bound.server)
    mirroring = asyncio.create_task(cluster.mirror.run())
    await bound.server.start()
    try:
        async with asyncio.timeout(ANSWER_S):
            await cluster.mirror.wait_revision(StoreRevision(2))
        async with client_channel(bound.address, None) as channel:
            yield cluster, node_pb2_grpc.NodeServiceStub(channel)
    finally:
        cluster.service.end()
        await bound.server.stop(None)
        mirroring.cancel()
        await asyncio.wait({mirroring})


@contextlib.asynccontextmanager
async def leading() -> AsyncIterator[tuple[Cluster, Any]]:
    """Run a scheduler that leads."""
    async with serving() as (cluster, stub):
        streams = cluster.service.begin(EPOCH)
        running = asyncio.create_task(cluster.service.run(streams))
        try:
            yield cluster, stub
        finally:
            running.cancel()
            await asyncio.wait({running})


async def until(condition: Any) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(ANSWER_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_node_is_registered_welcomed_and_reports() -> None:
    """It gets its entry, subnet and seeds; what it says is in the leader's memory."""
    async with leading() as (cluster, stub):
        first, second = Node(stub, 1), Node(stub, 2)
        welcome = (await first.hello()).welcome
        record = from_proto(welcome.config.record, NodeRecord)
        assert (record.name, record.subnet) == ("n1", "10.192.0.0/23")
        assert list(welcome.config.gossip_seeds) == []
        welcome = (await second.hello()).welcome
        assert from_proto(welcome.config.record, NodeRecord).subnet == "10.192.2.0/23"
        assert [seed.host for seed in welcome.config.gossip_seeds] == ["127.0.0.1"]
        report = AttemptReport(task_id(1), 1, AttemptState.RUNNING)
        listed = [to_proto(report, state_pb2.AttemptReport)]
        await first.send(attempts=node_pb2.AttemptReports(is_complete=True, attempts=listed))
        await cluster.streams.wait_changed()
        await until(lambda: task_id(1) in cluster.streams.observations.observed().attempts)
        await until(
            lambda: (
                cluster.streams.observations.observed().nodes[node_id(2)].condition
                is NodeCondition.READY
            )
        )


async def test_an_assignment_is_pushed_with_what_it_runs() -> None:
    """The newest one, complete; later ones without what the stream has carried."""
    async with leading() as (cluster, stub):
        node = Node(stub, 1)
        await node.hello()
        record = a_record(a_service())
        await cluster.write(Put(keys.revision_key(a_key(), record.revision), encode(record)))
        for number in (1, 2):
            tasks = (a_task(number, a_slot(number)),)
            stored = Assignment(CLUSTER_ID, node_id(1), EPOCH, StoreRevision(0), tasks)
            revision = await cluster.write(Put(keys.assignment_key(node_id(1)), encode(stored)))
            share = share_of(cluster.mirror.snapshot, node_id(1))
            assert share is not None
            await cluster.streams.push(node_id(1), share.assignment, share.projects)
            push = await node.read_kind("assignment")
            got = from_proto(push.assignment, Assignment)
            assert (got.mod_revision, got.tasks) == (revision, tasks)
            assert len(got.specs) == (1 if number == 1 else 0)
        again = Node(stub, 1, life=2)
        assert (await again.hello()).WhichOneof("message") == "welcome"
        push = await again.read_kind("assignment")
        assert len(push.assignment.specs) == 1


async def test_who_does_not_lead_names_the_leader_and_hears_of_its_host() -> None:
    """The stream ends; the evidence goes to the election."""
    async with serving() as (cluster, stub):
        seen = state_pb2.WitnessEvidence(
            reporter=id_bytes(node_id(1)),
            target=id_bytes(node_id(3)),
            target_life=4,
            reach=state_pb2.REACH_KIND_SILENT,
            since_s=1.5,
        )
        node = Node(stub, 1)
        epoch = state_pb2.Epoch(generation=1, create_revision=7)
        answer = await node.hello(last_leader=seen, last_leader_epoch=epoch)
        assert answer.not_leader.leader.host == "127.0.0.9"
        assert await node.read() is grpc.aio.EOF
        ((reporter, evidence, of),) = cluster.heard
        assert (reporter, evidence.target, of) == (node_id(1), node_id(3), Epoch(1, 7))


async def test_nodes_are_told_when_the_term_ends() -> None:
    """Every stream ends with NotLeader; a new term takes the nodes again."""
    async with leading() as (cluster, stub):
        node = Node(stub, 1)
        await node.hello()
        cluster.service.end()
        await node.read_kind("not_leader")
        assert await node.read() is grpc.aio.EOF
        cluster.service.begin(Epoch(1, 9))
        again = Node(stub, 1)
        assert (await again.hello()).epoch.create_revision == 9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": state_pb2.Epoch(generation=1, create_revision=99)}, "OLD_EPOCH"),
        ({"node": state_pb2.NodeInfo(node_id=b"short")}, "PROTOCOL"),
    ],
)
async def test_a_hello_that_is_refused(change: dict[str, Any], reason: str) -> None:
    """The reason is on the wire, with a sentence; the stream ends."""
    async with leading() as (_, stub):
        node = Node(stub, 1)
        refused = (await node.hello(**change)).refused
        assert node_pb2.RefusedReason.Name(refused.reason) == f"REFUSED_REASON_{reason}"
        assert refused.message
        assert await node.read() is grpc.aio.EOF


async def test_a_suspect_answers_a_ping() -> None:
    """A report of another node makes the leader ask, and the answer keeps it ready."""
    async with leading() as (cluster, stub):
        one, two = Node(stub, 1), Node(stub, 2)
        await one.hello()
        await two.hello()
        seen = state_pb2.WitnessEvidence(
            reporter=id_bytes(node_id(2)),
            target=id_bytes(node_id(1)),
            target_life=1,
            reach=state_pb2.REACH_KIND_SILENT,
        )
        await two.send(evidence=node_pb2.EvidenceReport(evidence=[seen]))
        ping = await one.read_kind("ping")
        await one.send(pong=node_pb2.Pong(sequence=ping.sequence))
        assert cluster.streams.observations.is_up(node_id(1))
        await until(lambda: not cluster.streams.observations.is_up(node_id(1)))  # the next one


async def test_a_node_is_told_what_changes_about_it() -> None:
    """A new label of its entry reaches it without a new stream."""
    async with leading() as (cluster, stub):
        node = Node(stub, 1)
        record = from_proto((await node.hello()).welcome.config.record, NodeRecord)
        await cluster.mirror.wait_revision(StoreRevision(3))
        changed = replace(record, labels=(("disk", "ssd"),))
        await cluster.write(Put(keys.node_key(node_id(1)), encode(changed)))
        config = await node.read_kind("config")
        assert from_proto(config.record, NodeRecord) == changed


async def test_content_is_for_nodes_that_use_it() -> None:
    """A secret goes to a node whose task mounts it, on its stream's life, and to nobody else."""
    async with leading() as (cluster, stub):
        node = Node(stub, 1)
        await node.hello()
        request = node_pb2.GetContentRequest(
            cluster_id=id_bytes(CLUSTER_ID),
            node_id=id_bytes(node_id(1)),
            life=1,
            project="shop",
            content=to_proto(SECRET, state_pb2.ContentRef),
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetContent(request, timeout=ANSWER_S)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        spec = a_service()
        container = replace(spec.task.container, secrets=(FileMount("key", "/run/key"),))
        record = a_record(replace(spec, task=replace(spec.task, container=container)))
        stored = Assignment(CLUSTER_ID, node_id(1), EPOCH, StoreRevision(0), (a_task(1),))
        await cluster.write(
            Put(keys.revision_key(a_key(), record.revision), encode(record)),
            Put(keys.project_key("shop"), encode(ProjectRecord(ProjectSpec("shop"), (SECRET,)))),
            Put(keys.assignment_key(node_id(1)), encode(stored)),
        )
        share = share_of(cluster.mirror.snapshot, node_id(1))
        assert share is not None
        await cluster.streams.push(node_id(1), share.assignment, share.projects)
        answer = await stub.GetContent(request, timeout=ANSWER_S)
        assert (answer.content, answer.salt) == (b"hello", b"salt")
        request.life = 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetContent(request, timeout=ANSWER_S)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def open_relay(stub: Any, node: Node, life: int = 1) -> Any:
    """Open the relay that the leader asks for; return the node's side of it."""
    asked = await node.read_kind("open_relay")
    call = stub.Relay()
    hello = node_pb2.RelayHello(
        cluster_id=id_bytes(CLUSTER_ID),
        node_id=id_bytes(node_id(node.number)),
        life=life,
        relay_id=asked.relay_id,
    )
    await call.write(node_pb2.RelayRequest(hello=hello))
    return call


async def test_a_relay_carries_a_call_to_the_node_and_its_answer_back() -> None:
    """Output until its end; an error of the node arrives as one."""
    async with leading() as (cluster, stub):
        node = Node(stub, 1)
        await node.hello()

        async def answer() -> None:
            call = await open_relay(stub, node)
            lines = node_pb2.LogLines(
                lines=[stream_pb2.LogLine(task_id=id_bytes(task_id(1)), line=b"hello")]
            )
            await call.write(node_pb2.RelayRequest(log_lines=lines))
            await call.write(node_pb2.RelayRequest(end=node_pb2.RelayEnd(copied_bytes=5)))
            await call.read()

        async with asyncio.timeout(ANSWER_S), asyncio.TaskGroup() as group:
            group.create_task(answer())
            async with cluster.service.relays.open(node_id(1), LogQuery("shop")) as relay:
                got = [item async for item in relay.output()]
                assert relay.copied_bytes == 5
        (lines,) = got
        assert isinstance(lines, LogLines)
        assert lines.lines[0].line == b"hello"


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_relay_that_is_lost_says_so(how: str) -> None:
    """What ends without its last message is not whole."""
    async with leading() as (cluster, stub):
        node = Node(stub, 1)
        await node.hello()
        seen = asyncio.Event()

        async def answer() -> None:
            call = await open_relay(stub, node)
            await call.write(node_pb2.RelayRequest(dns=node_pb2.DnsAnswer(name="web")))
            if how == "closed":
                await call.done_writing()
            else:
                await seen.wait()
                call.cancel()

        async with asyncio.timeout(ANSWER_S), asyncio.TaskGroup() as group:
            group.create_task(answer())
            async with cluster.service.relays.open(node_id(1), DnsQuery("web")) as relay:
                output = relay.output()
                assert await anext(output) == DnsAnswer("web")
                seen.set()
                with pytest.raises(Unavailable, match="not whole"):
                    await anext(output)


async def test_a_relay_needs_a_node_and_a_leader() -> None:
    """Without either it is refused at once."""
    async with leading() as (cluster, _):
        with pytest.raises(Unavailable, match="has no stream"):
            async with cluster.service.relays.open(node_id(1), LogQuery("shop")):
                raise AssertionError("opened")
        cluster.service.end()
        with pytest.raises(NotLeader):
            async with cluster.service.relays.open(node_id(1), LogQuery("shop")):
                raise AssertionError("opened")


async def test_a_relay_is_claimed_once_and_by_its_node() -> None:
    """A guess, another life, and a second claim are refused."""
    async with leading() as (cluster, stub):
        node = Node(stub, 1)
        await node.hello()

        async def ask() -> None:
            with contextlib.suppress(Unavailable):
                async with cluster.service.relays.open(node_id(1), LogQuery("shop")):
                    raise AssertionError("opened")

        asking = asyncio.create_task(ask())
        call = await open_relay(stub, node, life=7)
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        asking.cancel()
        await asyncio.wait({asking})
