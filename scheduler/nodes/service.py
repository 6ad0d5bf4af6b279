"""How do nodes talk to this scheduler? The gRPC service of node.proto.

While this scheduler leads it has `NodeStreams` of its term; before and after, a node is told who
leads. What a node sends is refused in words when the contract does not allow it; the stream's end
alone says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc

from dray.addresses import HostPort, parse_host_port
from dray.api.v1 import node_pb2, node_pb2_grpc
from dray.clock import Clock
from dray.convert import from_proto
from dray.errors import (
    AmbiguousWrite,
    DrayError,
    InvalidRequest,
    NotLeader,
    PermissionDenied,
    Unavailable,
)
from dray.log import Logger
from dray.model import ContentRef, Epoch, NodeRecord, StoreRevision, WitnessEvidence
from dray.names import ClusterId, NodeId, SchedulerId, id_text
from scheduler.api.ports import Leadership
from scheduler.nodes import messages as m
from scheduler.nodes.parts import share_of
from scheduler.nodes.registry import Registration, refusal, registration
from scheduler.nodes.relays import RELAY_OPENS_WITHIN_S, Relays
from scheduler.nodes.streams import Link, NodeStreams
from scheduler.nodes.turns import Turns
from scheduler.nodes.wire import message_from_proto, message_to_proto
from scheduler.store.base import Conflict, Store, Txn
from scheduler.store.records import ContentRecord
from scheduler.store.snapshot import Snapshot

__all__ = ["HELLO_WITHIN_S", "NodeService", "SchedulerIdentity"]

HELLO_WITHIN_S: Final = 5.0
WRITE_WITHIN_S: Final = 30.0  # a node that does not read for so long is given up
CONFIGURE_EVERY_S: Final = 0.5
REGISTER_TRIES_MAX: Final = 5
ADMISSIONS_MAX: Final = 32  # nodes that are registered and welcomed at once
SEEDS_MAX: Final = 16
SCHEDULERS_MAX: Final = 16
REMOVED_MAX: Final = 1_000  # nodes that were removed in this term, told to gossip

ReadContent: TypeAlias = Callable[[str, ContentRef], Awaitable[ContentRecord]]
"""Reads the content of a project, opened: sealed ones in clear.

Raises `NotFound` when it is no longer kept.
"""
HearOfLeader: TypeAlias = Callable[[NodeId, WitnessEvidence, Epoch], None]
"""Takes what a node has seen of the host of the leader of that epoch."""


@dataclass(frozen=True, slots=True)
class SchedulerIdentity:
    """Who this scheduler is: its id, its version of dray, and the node that it runs on, if any."""

    scheduler_id: SchedulerId
    version: str
    node_id: NodeId | None = None


class NodeService(node_pb2_grpc.NodeServiceServicer):
    """Serves nodes. `begin` and `end` say when this scheduler leads."""

    def __init__(
        self,
        identity: SchedulerIdentity,
        *,
        store: Store,
        snapshot: Callable[[], Snapshot],
        wait_revision: Callable[[StoreRevision], Awaitable[None]],
        leadership: Leadership,
        read_content: ReadContent,
        hear_of_leader: HearOfLeader,
        random_bits: Callable[[int], int],
        clock: Clock,
        log: Logger,
    ) -> None:
        """Make the service of a scheduler that does not lead.

        Args:
            identity: Who this scheduler is.
            store: Where nodes are registered.
            snapshot: Returns the store as the mirror has it.
            wait_revision: Waits until the mirror holds what was committed at a revision.
            leadership: Who leads.
            read_content: Reads configs, secrets and credentials.
            hear_of_leader: Told what nodes have seen of the leader's host.
            random_bits: Source of relays' ids.
            clock: The clocks.
            log: The log.
        """
        self._identity = identity
        self._store = store
        self._snapshot = snapshot
        self._wait_revision = wait_revision
        self._leadership = leadership
        self._read_content = read_content
        self._hear_of_leader = hear_of_leader
        self._clock = clock
        self._log = log
        self._streams: NodeStreams | None = None
        self._known_cluster_id: ClusterId | None = None
        self._turns = Turns()
        self._admissions = asyncio.Semaphore(ADMISSIONS_MAX)
        self._nodes: Mapping[NodeId, NodeRecord] = {}
        self._registered: frozenset[NodeId] = frozenset()
        self._taken: set[int] = set()  # subnets, by position, of nodes that are being registered
        self.relays = Relays(self._current_streams, random_bits=random_bits, clock=clock)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register all calls with a server that is not started yet."""
        node_pb2_grpc.add_NodeServiceServicer_to_server(self, server)

    # ---- the term

    @property
    def streams(self) -> NodeStreams | None:
        """The streams of this scheduler's term; None: it does not lead."""
        return self._streams

    def begin(self, epoch: Epoch) -> NodeStreams:
        """Lead from now on: nodes may connect."""
        assert self._streams is None, "the last term has not ended"
        snapshot = self._snapshot()
        down = {
            node_id
            for node_id, verdict in snapshot.node_verdicts.items()
            if verdict.down_since_unix_s > 0
        }
        self._streams = NodeStreams(
            epoch,
            clock=self._clock,
            log=self._log,
            registered=self._registered_now,
            expected=frozenset(snapshot.nodes) - down,
        )
        return self._streams

    def _registered_now(self) -> frozenset[NodeId]:
        """Return the registered nodes; those that were, while the store is being read again."""
        with contextlib.suppress(Unavailable):
            nodes = self._snapshot().nodes
            if nodes is not self._nodes:
                self._nodes, self._registered = nodes, frozenset(nodes)
        return self._registered

    def end(self) -> None:
        """Lead no longer: every stream ends with the new leader's address, if it is known."""
        if self._streams is not None:
            self._streams.close(self._not_leader())
            self._streams = None
        self.relays.close()

    async def run(self, streams: NodeStreams) -> None:
        """Judge nodes and keep them informed, for as long as the term lasts; then is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(streams.run(), name="judge-nodes")
            group.create_task(self._configure(streams), name="configure-nodes")

    def _current_streams(self) -> NodeStreams:
        """Return the term's streams.

        Raises:
            NotLeader: Another scheduler leads.
        """
        if self._streams is None:
            leader = self._leadership.leader()
            context = {"leader": str(leader.address)} if leader else {}
            raise NotLeader("another scheduler leads", context=context)
        return self._streams

    # ---- sessions

    async def Session(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        """The node's stream; see node.proto."""
        del request_iterator  # read through the context
        try:
            self._snapshot()
        except Unavailable as error:  # it has just started: the node tries the next one
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        hello = await self._read_hello(context)
        if isinstance(hello, m.Refused):
            await self._write(context, hello, None)
            return
        self._take_evidence(hello)
        streams = self._streams
        if streams is None:
            await self._write(context, self._not_leader(), None)
            return
        async with self._admissions:
            opened = await self._opened(hello, streams)
        if not isinstance(opened, Link):
            await self._write(context, opened, None)
            return
        try:
            await self._carry(context, opened, streams)
        finally:
            streams.closed(opened)

    async def _opened(self, hello: m.Hello, streams: NodeStreams) -> Link | m.Refused | m.NotLeader:
        """Return the stream of a node that may connect, or what it is told instead."""
        try:
            admitted = await self._admit(hello, streams)
            if not isinstance(admitted, m.Refused | m.NotLeader):
                async with self._turns:
                    share = share_of(self._snapshot(), hello.info.node_id)
                    welcome = self._welcome(admitted, hello, streams)
                    return streams.open(hello, welcome, share)
        except Unavailable:  # the term has ended meanwhile, or the store is read again
            admitted = self._not_leader()
        self._log.info(
            "node refused",
            node=hello.info.name,
            node_id=hello.info.node_id,
            reason=admitted.reason.name if isinstance(admitted, m.Refused) else "NOT_LEADER",
        )
        return admitted

    async def _read_hello(self, context: Any) -> m.Hello | m.Refused:
        try:
            async with asyncio.timeout(HELLO_WITHIN_S):
                request = await context.read()
            hello = None if request is grpc.aio.EOF else message_from_proto(request)
        except TimeoutError:
            hello = None
        except InvalidRequest as error:
            return m.Refused(m.RefusedReason.PROTOCOL, str(error), retry_after_s=30.0)
        if isinstance(hello, m.Hello):
            return hello
        return m.Refused(m.RefusedReason.PROTOCOL, "the first message must be a Hello")

    async def _admit(
        self, hello: m.Hello, streams: NodeStreams
    ) -> Registration | m.Refused | m.NotLeader:
        """Return a node's entry, registered if it had to be, or why it may not connect."""
        for _ in range(REGISTER_TRIES_MAX):
            snapshot = self._snapshot()
            refused = refusal(hello, snapshot.cluster, streams.epoch, self._identity.version)
            now_unix_s = self._clock.unix_s()
            found = refused or registration(hello, snapshot, now_unix_s, taken=self._taken)
            if isinstance(found, m.Refused) or found.txn is None:
                return found
            try:
                with self._taking(found.subnet):
                    if await self._register(found.txn):
                        self._log.info(
                            "node registered", node=found.record.name, node_id=hello.info.node_id
                        )
                        return found
            except AmbiguousWrite:
                await self._clock.sleep(0.1)  # then the mirror shows whether it was applied
            except DrayError:
                return m.NotLeader()  # the store is away: the node tries again
        return m.NotLeader()

    async def _register(self, txn: Txn) -> bool:
        """Write an entry; return whether it was, once the mirror shows what is there."""
        outcome = await self._store.commit(txn)
        await self._catch_up(outcome.revision)
        return not isinstance(outcome, Conflict)

    @contextlib.contextmanager
    def _taking(self, subnet: int | None) -> Iterator[None]:
        """Keep a subnet from others that register meanwhile."""
        taken = set() if subnet is None else {subnet}
        self._taken |= taken
        try:
            yield
        finally:
            self._taken -= taken

    async def _catch_up(self, revision: StoreRevision) -> None:
        """Wait until the mirror has seen a revision, a bounded time."""
        try:
            async with asyncio.timeout(1.0):
                await self._wait_revision(revision)
        except TimeoutError:
            return

    async def _carry(self, context: Any, link: Link, streams: NodeStreams) -> None:
        """Carry messages both ways until one side ends the stream."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read_all(context, link, streams), name="read")
            await self._write_all(context, link, streams.epoch)
            reading.cancel()

    async def _read_all(self, context: Any, link: Link, streams: NodeStreams) -> None:
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                async with self._turns:
                    message = message_from_proto(request)
                    if message is not None:
                        streams.receive(link, message)
        except InvalidRequest as error:
            link.end(m.Refused(m.RefusedReason.PROTOCOL, str(error), retry_after_s=30.0))
            return
        streams.closed(link)

    async def _write_all(self, context: Any, link: Link, epoch: Epoch) -> None:
        while (message := await link.next()) is not None:
            is_last = isinstance(message, m.Refused | m.NotLeader)
            try:
                async with asyncio.timeout(WRITE_WITHIN_S):
                    await self._write(context, message, None if is_last else epoch)
            except TimeoutError:
                self._log.warning("node does not read", reason="its stream is ended")
                return

    async def _write(self, context: Any, message: m.Down, epoch: Epoch | None) -> None:
        cluster_id = self._snapshot().cluster.cluster_id
        response = message_to_proto(message, cluster_id, epoch)
        response.sent_unix_s = self._clock.unix_s()
        await context.write(response)

    def _take_evidence(self, hello: m.Hello) -> None:
        if hello.last_leader is not None and hello.last_leader_epoch is not None:
            node_id = hello.info.node_id
            self._hear_of_leader(node_id, hello.last_leader, hello.last_leader_epoch)

    def _not_leader(self) -> m.NotLeader:
        leader = self._leadership.leader()
        if leader is None or leader.scheduler_id == self._identity.scheduler_id:
            return m.NotLeader()
        return m.NotLeader(leader.address, leader.epoch)

    # ---- what nodes should know

    def _welcome(self, admitted: Registration, hello: m.Hello, streams: NodeStreams) -> m.Welcome:
        snapshot = self._snapshot()
        seeds = _seeds(streams, hello.info.node_id)
        config = m.NodeConfig(admitted.record, snapshot.keyring, seeds, _schedulers(snapshot))
        return m.Welcome(
            snapshot.cluster,
            config,
            self._identity.scheduler_id,
            self._identity.version,
            self._identity.node_id,
        )

    async def _configure(self, streams: NodeStreams) -> None:
        """Tell nodes when their entry, the keys of gossip or the schedulers change."""
        told: tuple[Snapshot, list[NodeId]] | None = None
        registered: frozenset[NodeId] = frozenset()
        removed: tuple[NodeId, ...] = ()
        while True:
            try:
                snapshot, connected = self._snapshot(), streams.connected()
            except Unavailable:  # the store is read again
                await self._clock.sleep(CONFIGURE_EVERY_S)
                continue
            if told is None or told[1] != connected or not _tells_the_same(told[0], snapshot):
                told = (snapshot, connected)
                gone = sorted(registered - snapshot.nodes.keys())
                removed = (*removed, *gone)[-REMOVED_MAX:]
                registered = frozenset(snapshot.nodes)
                schedulers = _schedulers(snapshot)
                for node_id in connected:
                    record = snapshot.nodes.get(node_id)
                    if record is not None:
                        config = m.NodeConfig(record, snapshot.keyring, (), schedulers, removed)
                        streams.configure(node_id, config)
            await self._clock.sleep(CONFIGURE_EVERY_S)

    # ---- contents and relays

    async def GetContent(self, request: Any, context: Any) -> node_pb2.GetContentResponse:
        """Return the content of a config or secret that the node's assignment refers to."""
        try:
            return await self._content(request)
        except DrayError as error:
            await context.abort(grpc.StatusCode(_status(error)), str(error))
            raise

    async def _content(self, request: node_pb2.GetContentRequest) -> node_pb2.GetContentResponse:
        streams = self._current_streams()
        node_id = NodeId(id_text(request.node_id))
        observations = streams.observations
        if not observations.is_up(node_id) or observations.life(node_id) != request.life:
            raise PermissionDenied(f"node {node_id} has no stream with life {request.life}")
        ref = from_proto(request.content, ContentRef, name="content")
        share = streams.share(node_id)
        allowed = {
            (parts.project, each)
            for parts in (share.projects if share else ())
            for each in parts.contents
        }
        if (request.project, ref) not in allowed:
            raise PermissionDenied(f"no task of node {node_id} uses {ref.key} of {request.project}")
        record = await self._read_content(request.project, ref)
        return node_pb2.GetContentResponse(content=record.content, salt=record.salt)

    async def Relay(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        """Carry one call of a user to the node; see node.proto."""
        del request_iterator
        try:
            async with asyncio.timeout(RELAY_OPENS_WITHIN_S):
                request = await context.read()
            if request is grpc.aio.EOF or request.WhichOneof("message") != "hello":
                raise InvalidRequest("the first message must be a RelayHello")
            relay = self.relays.claim(request.hello)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no RelayHello came")
        except DrayError as error:
            await context.abort(grpc.StatusCode(_status(error)), str(error))
        else:
            await relay.serve(context)


def _tells_the_same(one: Snapshot, other: Snapshot) -> bool:
    """Return whether nodes need not be told anything: snapshots share what did not change."""
    return (
        one.nodes is other.nodes
        and one.schedulers is other.schedulers
        and one.leader == other.leader
        and one.keyring == other.keyring
    )


def _status(error: DrayError) -> Any:
    return next(each.value for each in grpc.StatusCode if each.value[0] == error.code.value)


def _seeds(streams: NodeStreams, joining: NodeId) -> tuple[HostPort, ...]:
    """Return where a node joins gossip: connected members, those after it in the ring of ids."""
    ring = streams.connected_after(joining, SEEDS_MAX)
    infos = [streams.observations.info(node_id) for node_id in ring]
    return tuple(HostPort(info.advertise_address, info.gossip_port) for info in infos if info)


def _schedulers(snapshot: Snapshot) -> tuple[HostPort, ...]:
    """Return where the schedulers are, the leader's first."""
    addresses = [record.address for _, record in sorted(snapshot.schedulers.items())]
    if snapshot.leader is not None:
        addresses.insert(0, snapshot.leader.record.address)
    found = []
    for address in dict.fromkeys(addresses):
        try:
            found.append(parse_host_port(address))
        except InvalidRequest:
            continue  # one that a newer version wrote in its own way
    return tuple(found[:SCHEDULERS_MAX])
