"""How does the node find the leader, and keep its stream to it?

It asks one scheduler after another; whoever does not lead says who does. With the leader: Hello,
Welcome, then reports up and assignments down until the stream ends. A stream that ends says
nothing about anything: containers run on, and the node looks for the leader again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import grpc

from dray.addresses import HostPort
from dray.api.v1 import node_pb2, node_pb2_grpc, types_pb2
from dray.clock import Clock
from dray.convert import from_proto
from dray.errors import DeadlineExceeded, DrayError, InvalidRequest, PeerMisbehaved, Unavailable
from dray.log import Logger
from dray.model import (
    TERMINAL_ATTEMPT_STATES,
    ContentRef,
    Epoch,
    FaultKind,
    NodeInfo,
    StoreRevision,
    WitnessEvidence,
)
from dray.names import ClusterId, NodeId, TaskId, id_bytes, id_text
from dray.retry import Backoff
from dray.tls import Tls, client_channel
from node.agent.agent import Agent
from node.agent.assign import NotAccepted, Refusing
from node.agent.contents import Content
from node.agent.disk import Disk
from node.agent.faults import Faults
from node.agent.session.reports import Reports
from node.agent.session.wire import (
    Greeting,
    address_from_proto,
    assignment_from_proto,
    config_from_proto,
    content_request,
    hello_to_proto,
    merged,
    specs_from_proto,
    welcome_from_proto,
)
from node.agent.stored import Identity, NodeConfig
from node.ports import Discovery
from node.resources.clocks import ClockCheck

__all__ = ["GOODBYE_WAIT_S", "Session", "SessionParts", "SessionSettings"]

CONNECT_WITHIN_S: Final = 5.0  # s until a scheduler answers the Hello
WRITE_WITHIN_S: Final = 30.0  # s: a leader that does not read for so long is given up
CONTENT_WITHIN_S: Final = 10.0
UNSAVED_AGAIN_S: Final = 2.0  # s until an assignment that the disk did not take is tried again
GOODBYE_WAIT_S: Final = 2.0  # s that a goodbye before a restart waits for the stream's end
ADDRESSES_MAX: Final = 32
HOPS_MAX: Final = 2  # redirections in a row that are followed at once
REFUSED_WAIT_S: Final = 15.0
BACKOFF: Final = Backoff(first_s=0.25, max_s=5.0)

_Reason = node_pb2.RefusedReason
_Value = TypeVar("_Value")
OpenRelay = Callable[[node_pb2.OpenRelay, "Connection"], None]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How schedulers are reached.

    Attributes:
        schedulers: Where to begin looking.
        tls: Certificates, or None for plain text.
        insecure: Allow plain text beyond this machine.
    """

    schedulers: tuple[HostPort, ...]
    tls: Tls | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What the session speaks for."""

    disk: Disk
    agent: Agent
    discovery: Discovery
    reports: Reports
    faults: Faults
    clock: Clock
    rng: random.Random
    log: Logger
    info: Callable[[int], NodeInfo]
    """Returns who the node is, in this life."""
    configured: Callable[[NodeConfig], Awaitable[None]]
    """Told what the leader says about the node, before anything is run."""
    open_relay: OpenRelay


@dataclass(frozen=True, slots=True)
class Connection:
    """The leader that the node is connected to."""

    address: HostPort
    channel: grpc.aio.Channel
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a try ended: whom to ask next (None: go on in the list), after what pause (None: own)."""

    next: HostPort | None = None
    wait_s: float | None = None
    reason: str = ""


class Session:
    """The node's side of the stream. `run` under the supervisor; a `ContentSource` meanwhile."""

    def __init__(
        self,
        settings: SessionSettings,
        parts: SessionParts,
        identity: Identity,
        config: NodeConfig | None,
    ) -> None:
        """Make a session that is not connected.

        Args:
            settings: How schedulers are reached.
            parts: What it speaks for.
            identity: Who the node is, with its life.
            config: What a leader told it in an earlier life; None: it never joined.
        """
        self._settings = settings
        self._parts = parts
        self._agent = parts.agent
        self.identity = identity
        self.config = config
        self.connection: Connection | None = None
        self.clock_check = ClockCheck()
        self._call: Any = None
        self._reading: asyncio.Task[Any] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._is_joining = False
        self._is_leaving = False
        self._missed: tuple[Epoch, StoreRevision] | None = None
        self._unsaved: node_pb2.AssignmentPush | None = None
        self._last_leader: tuple[NodeId | None, HostPort, Epoch] | None = None

    # ---- finding the leader ----------------------------------------------------------------------

    async def join(self) -> None:
        """Become a node of the cluster: return once a leader has said what this node is."""
        self._is_joining = True
        await self.run()
        self._is_joining = False

    async def run(self) -> None:
        """Keep a stream to the leader; cancelled, it says goodbye."""
        hint: HostPort | None = None
        turn = hops = failures = 0
        while True:
            addresses = self._addresses()
            address = hint or addresses[turn % len(addresses)]
            turn += 1
            ended = await self._try(address)
            if self._is_joining and self.config is not None:
                return
            if self._is_leaving:
                self.connection = None
                await asyncio.get_running_loop().create_future()
            failures = 0 if self.connection is not None else failures + 1
            self.connection = None
            hint = ended.next
            hops = hops + 1 if hint is not None else 0
            self._parts.log.info(
                "no stream to the leader", address=str(address), reason=ended.reason
            )
            if ended.wait_s is not None:
                await self._parts.clock.sleep(ended.wait_s)
            elif hint is None or hops > HOPS_MAX:
                rounds = 1 + failures // len(addresses)
                await self._parts.clock.sleep(BACKOFF.delay_s(rounds, self._parts.rng))

    def _addresses(self) -> tuple[HostPort, ...]:
        """Return whom to ask: those on the command line, and those that a leader told of."""
        known = self.config.schedulers if self.config is not None else ()
        return tuple(dict.fromkeys((*self._settings.schedulers, *known)))[:ADDRESSES_MAX]

    async def _try(self, address: HostPort) -> _Ended:
        """Speak with one scheduler until its stream ends."""
        channel = client_channel(address, self._settings.tls, insecure=self._settings.insecure)
        try:
            return await self._speak(address, channel)
        except grpc.aio.AioRpcError as error:
            return _Ended(reason=f"{error.code().name}: {error.details()}")
        except TimeoutError:
            return _Ended(reason="it does not answer")
        except asyncio.CancelledError:
            await self._say_goodbye()
            raise
        except InvalidRequest as error:
            return _Ended(reason=f"it sent what this version does not understand: {error}")
        except DrayError as error:
            if not error.retryable:
                raise
            return _Ended(reason=str(error))
        finally:
            self._call = None
            await self._end_calls()
            await channel.close(0.0)

    async def _speak(self, address: HostPort, channel: grpc.aio.Channel) -> _Ended:
        stub = node_pb2_grpc.NodeServiceStub(channel)
        greeting = self._greeting()
        self._call = stub.Session()
        self.clock_check.forget()
        asked_at_s = self._parts.clock.monotonic_s()
        async with asyncio.timeout(CONNECT_WITHIN_S):
            await self._send(node_pb2.SessionRequest(hello=hello_to_proto(greeting)))
            response = await self._read()
        if response is grpc.aio.EOF:
            return _Ended(reason="it ended the stream at once")
        at_s = self._parts.clock.monotonic_s()
        self.clock_check.heard(response.sent_unix_s, at_s, asked_at_s)
        kind = response.WhichOneof("message")
        if kind == "not_leader":
            return self._redirected(response.not_leader)
        if kind == "refused":
            return self._refused(response.refused)
        if kind != "welcome":
            raise PeerMisbehaved(f"its first message is {kind}", retryable=True)
        epoch = self._checked_epoch(response)
        await self._welcomed(address, response, epoch)
        self.connection = Connection(address, channel, epoch)
        self._parts.log.info("connected to the leader", address=str(address), epoch=_text(epoch))
        if self._is_joining:
            return _Ended(reason="joined")
        return await self._converse(epoch)

    def _greeting(self) -> Greeting:
        share = self._agent.share
        leader = self._last_leader
        return Greeting(
            self._parts.info(self.identity.life),
            self.identity.cluster_id,
            0 if self.config is None else self.config.cluster.generation,
            self.identity.epoch,
            None if share is None else share.assignment,
            None if leader is None else self._evidence_of(leader[0], leader[1]),
            None if leader is None else leader[2],
        )

    def _evidence_of(self, node_id: NodeId | None, address: HostPort) -> WitnessEvidence | None:
        """Return what our probes find of the leader's host, which it may not know as a node."""
        discovery = self._parts.discovery
        at_address = (each for each in discovery.view().members() if each.address == address.host)
        target = node_id or next((member.node_id for member in at_address), None)
        return next((each for each in discovery.evidence() if each.target == target), None)

    def _redirected(self, message: node_pb2.NotLeader) -> _Ended:
        if not message.HasField("leader"):
            wait_s = self._parts.rng.uniform(0.5, 1.0)
            return _Ended(wait_s=wait_s, reason="there is no leader at the moment")
        return _Ended(next=address_from_proto(message.leader), reason="another scheduler leads")

    def _refused(self, message: node_pb2.Refused) -> _Ended:
        name = _Reason.Name(message.reason).removeprefix("REFUSED_REASON_").lower()
        is_clone = message.reason == _Reason.REFUSED_REASON_CLONE
        clone = {FaultKind.CLONE: message.message} if is_clone else {}
        self._parts.faults.tell("session", clone)
        self._parts.log.error("the leader refused this node", reason=name, error=message.message)
        wait_s = message.retry_after_s or REFUSED_WAIT_S
        return _Ended(wait_s=min(max(wait_s, 1.0), 300.0), reason=name)

    # ---- with the leader -------------------------------------------------------------------------

    def _checked_epoch(self, response: node_pb2.SessionResponse) -> Epoch:
        """Return the leader's epoch, of this node's cluster and not below one already seen."""
        cluster_id = ClusterId(id_text(response.cluster_id))
        if self.identity.cluster_id not in (None, cluster_id):
            raise PeerMisbehaved("it serves another cluster", retryable=True)
        epoch = from_proto(response.epoch, Epoch, name="epoch")
        if self.identity.epoch is not None and epoch < self.identity.epoch:
            raise PeerMisbehaved(
                f"its epoch {_text(epoch)} is below {_text(self.identity.epoch)}", retryable=True
            )
        return epoch

    async def _welcomed(
        self, address: HostPort, response: node_pb2.SessionResponse, epoch: Epoch
    ) -> None:
        """Keep what the leader says of the cluster and this node, then act on it."""
        config, leader = welcome_from_proto(response.welcome)
        cluster_id = ClusterId(id_text(response.cluster_id))
        await self._keep_config(merged(self.config, config))
        identity = replace(self.identity, cluster_id=cluster_id, epoch=epoch)
        if identity != self.identity:
            is_new = self.identity.cluster_id is None
            await self._kept(is_new, self._parts.disk.write_identity, identity)
            self.identity = identity
        self._last_leader = (leader, address, epoch)
        self._parts.faults.tell("session", {})
        await self._parts.configured(config)
        self._unsaved = None  # this stream brings the newest
        self._agent.new_stream()
        self._agent.join(cluster_id)

    async def _converse(self, epoch: Epoch) -> _Ended:
        """Report and listen until the stream ends."""
        reporting = asyncio.create_task(self._parts.reports.run(self._send), name="reports")
        try:
            while True:
                reading = self._begin_read()
                await asyncio.wait(
                    {reading, reporting},
                    timeout=None if self._unsaved is None else UNSAVED_AGAIN_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if reporting.done() and not reading.done():
                    return _Ended(reason=_why(reporting))
                if self._unsaved is not None and not reading.done():
                    await self._assigned(self._unsaved)
                    continue
                response = await self._read()
                if response is grpc.aio.EOF:
                    return _Ended(reason="it ended the stream")
                self.clock_check.heard(response.sent_unix_s, self._parts.clock.monotonic_s())
                kind = response.WhichOneof("message")
                if kind == "not_leader":
                    return self._redirected(response.not_leader)
                if kind == "refused":
                    return self._refused(response.refused)
                if kind == "resync":
                    await _cancelled(reporting)
                    reporting = asyncio.create_task(self._parts.reports.run(self._send))
                    continue
                if self._checked_epoch(response) != epoch:
                    raise PeerMisbehaved("its epoch changed within a stream", retryable=True)
                await self._obey(kind, response)
        finally:
            await _cancelled(reporting)

    def _begin_read(self) -> asyncio.Task[Any]:
        """Return the read that goes on: it is never cancelled, which would end the whole stream."""
        if self._reading is None:
            self._reading = asyncio.create_task(_next(self._call))
        return self._reading

    async def _read(self) -> Any:
        """Return the next message, or EOF; who is cancelled meanwhile loses none."""
        reading = self._begin_read()
        await asyncio.wait({reading})
        self._reading = None
        return reading.result()

    async def _end_calls(self) -> None:
        """Let go of a read and a write whose stream has ended."""
        pending = [task for task in (self._reading, self._writing) if task is not None]
        self._reading = self._writing = None
        for task in pending:
            await _cancelled(task)

    async def _obey(self, kind: str | None, response: node_pb2.SessionResponse) -> None:
        match kind:
            case "ping":
                pong = node_pb2.Pong(sequence=response.ping.sequence)
                await self._send(node_pb2.SessionRequest(pong=pong))
            case "assignment":
                await self._assigned(response.assignment)
            case "specs":
                self._agent.hold_specs(specs_from_proto(response.specs))
            case "config":
                await self._configured(response.config)
            case "open_relay":
                assert self.connection is not None
                self._parts.open_relay(response.open_relay, self.connection)
            case "remove_orphans":
                task_ids = [TaskId(id_text(raw)) for raw in response.remove_orphans.task_ids]
                await self._agent.remove_orphans(task_ids)
            case "remove_volumes":
                asked = response.remove_volumes
                self._agent.removals.ask(asked.project, asked.names)
            case _:
                pass  # a newer leader sent it

    async def _assigned(self, message: node_pb2.AssignmentPush) -> None:
        assignment, projects = assignment_from_proto(message)
        self._unsaved = None
        try:
            refused = await self._agent.take(assignment, projects)
        except DrayError as error:
            if not error.retryable:
                raise
            self._unsaved = message  # tried again until a newer one comes
            refused = NotAccepted(Refusing.NOT_SAVED, str(error))
        result = node_pb2.AssignmentResult(
            mod_revision=StoreRevision(assignment.mod_revision),
            is_accepted=refused is None,
            reason="" if refused is None else refused.reason,
        )
        result.epoch.CopyFrom(message.assignment.epoch)
        if refused is not None:
            self._parts.log.warning("assignment refused", reason=refused.reason)
        await self._send(node_pb2.SessionRequest(assignment_result=result))
        is_known = assignment.version == self._missed
        if refused is not None and refused.kind is Refusing.SPEC_MISSING and not is_known:
            self._missed = assignment.version  # once: a new stream carries every revision again
            raise Unavailable("a revision is missing that an earlier message may have carried")

    async def _configured(self, message: node_pb2.NodeConfig) -> None:
        assert self.config is not None
        config = merged(self.config, config_from_proto(message, self.config.cluster))
        await self._keep_config(config)
        await self._parts.configured(config)

    async def _keep_config(self, config: NodeConfig) -> None:
        """Remember what the leader says of this node, on the disk too if it is new."""
        if config != self.config:
            await self._kept(self.config is None, self._parts.disk.write_config, config)
            self.config = config

    async def _kept(self, is_needed: bool, write: Callable[[_Value], None], value: _Value) -> None:
        """Put something on the disk; a full one keeps only who joins from going on.

        What is not on the disk is forgotten with the daemon, and told again by the next leader.
        """
        try:
            await asyncio.to_thread(write, value)
        except DrayError as error:
            if is_needed:
                raise
            self._parts.log.warning("not on the disk", error=str(error))

    async def _send(self, request: node_pb2.SessionRequest) -> None:
        if self.identity.cluster_id is not None:
            request.cluster_id = id_bytes(self.identity.cluster_id)
        async with self._sending:
            if self._writing is not None:  # its sender was cancelled; the write itself never is
                await asyncio.wait({self._writing}, timeout=WRITE_WITHIN_S)
                _look(self._writing)
            if self._call is None:
                raise Unavailable("the stream has ended")
            self._writing = asyncio.create_task(_write(self._call, request))
            done, _ = await asyncio.wait({self._writing}, timeout=WRITE_WITHIN_S)
            if not done:
                raise DeadlineExceeded(f"the leader has not read for {WRITE_WITHIN_S:g} s")
            writing, self._writing = self._writing, None
            writing.result()

    async def leave(self, drain_timeout_s: float) -> None:
        """Tell the leader that this node goes away, and wait until its tasks have moved.

        Called while `run` runs, which goes on obeying the leader meanwhile and connects to none
        afterwards. Returns after the time in any case, and at once without a leader.
        """
        if self.connection is None:
            return
        self._is_leaving = True
        goodbye = node_pb2.Goodbye(
            kind=types_pb2.GOODBYE_KIND_SHUTDOWN, drain_timeout_s=drain_timeout_s
        )
        book = self._agent.book
        with contextlib.suppress(TimeoutError, DrayError, grpc.aio.AioRpcError):
            async with asyncio.timeout(drain_timeout_s):
                await self._send(node_pb2.SessionRequest(goodbye=goodbye))
                while self.connection is not None:
                    number = book.persisted.number
                    states = {report.state for report in book.reports.values()}
                    if states <= TERMINAL_ATTEMPT_STATES:
                        return
                    await book.persisted.wait(number)

    async def _say_goodbye(self) -> None:
        """Tell the leader that the daemon starts again soon; wait for it to end the stream."""
        if self.connection is None or self._call is None or self._is_leaving:
            return
        goodbye = node_pb2.Goodbye(kind=types_pb2.GOODBYE_KIND_RESTART)
        with contextlib.suppress(TimeoutError, DrayError, grpc.aio.AioRpcError):
            async with asyncio.timeout(GOODBYE_WAIT_S):
                await self._send(node_pb2.SessionRequest(goodbye=goodbye))
                await self._read_to_the_end()

    async def _read_to_the_end(self) -> None:
        """Take what still comes, until the leader ends the stream; nobody acts on it any more."""
        while await self._read() is not grpc.aio.EOF:
            continue

    # ---- contents --------------------------------------------------------------------------------

    async def fetch(self, project: str, ref: ContentRef) -> Content:
        """Return a piece of content from the leader."""
        connection, cluster_id = self.connection, self.identity.cluster_id
        if connection is None or cluster_id is None:
            raise Unavailable("there is no leader at the moment")
        stub = node_pb2_grpc.NodeServiceStub(connection.channel)
        request = content_request(
            cluster_id, self.identity.node_id, self.identity.life, project, ref
        )
        try:
            response = await stub.GetContent(request, timeout=CONTENT_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            is_final = error.code() in (
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.INVALID_ARGUMENT,
            )
            raise Unavailable(str(error.details()), retryable=not is_final) from error
        return Content(response.content, response.salt)


def _text(epoch: Epoch) -> str:
    return f"{epoch.generation}/{epoch.create_revision}"


def _why(task: asyncio.Task[None]) -> str:
    """Return why the reports ended; a bug goes on to the supervisor."""
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error, DrayError):
        return str(error)
    assert error is not None
    raise error


async def _write(call: Any, request: node_pb2.SessionRequest) -> None:
    """Write one message.

    Raises:
        Unavailable: The stream has ended.
    """
    try:
        await call.write(request)
    except asyncio.InvalidStateError as error:
        raise Unavailable("the stream has ended") from error


async def _next(call: Any) -> Any:
    """Return the next message of a call, or EOF."""
    return await call.read()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; how it ended does not matter any more."""
    task.cancel()
    await asyncio.wait({task})
    _look(task)


def _look(task: asyncio.Task[Any]) -> None:
    """Look at how a task failed, or it would be logged as lost."""
    if task.done() and not task.cancelled():
        task.exception()
