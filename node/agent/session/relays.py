"""How does a user's call get its answer from this node? Relays: one call to the leader for each.

The leader asks for a relay on the node's stream; the node opens it, on a connection of its own, and
answers: log lines, a command, copies, what gossip and DNS hold. Flow control is gRPC's: what the
user does not read stops what is read here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import grpc

from dray.addresses import HostPort
from dray.api.v1 import node_pb2, node_pb2_grpc, stream_pb2
from dray.clock import Clock
from dray.convert import CHUNK_BYTES_MAX, error_to_proto, from_proto, to_proto
from dray.errors import (
    DrayError,
    FailedPrecondition,
    NotFound,
    PeerMisbehaved,
    Unimplemented,
)
from dray.log import Logger
from dray.model import AttemptState, Member
from dray.names import id_bytes
from dray.tls import Tls, client_channel
from dray.views import (
    CopyOptions,
    DnsQuery,
    ExecInput,
    ExecOutput,
    ExecStart,
    GossipMember,
    LogLine,
    LogLines,
    LogNotice,
    LogQuery,
    MembersAnswer,
    TaskTarget,
)
from node.agent.agent import Agent
from node.agent.logs import LogReader
from node.agent.session.stream import Connection
from node.agent.stored import Identity
from node.agent.tasks import TaskState
from node.dns.service import NodeDns
from node.ports import Discovery
from node.runtime.base import ExecRequest, ExecSession, LogStream, Runtime

__all__ = ["RELAYS_MAX", "RelayParts", "Relays"]

RELAYS_MAX: Final = 64  # relays of one node at once
MEMBERS_MAX: Final = 1_000  # members in one message
TERMINAL_SIGNALS: Final = {"SIGINT": b"\x03", "SIGQUIT": b"\x1c", "SIGTSTP": b"\x1a"}
LINE_BYTES: Final = 100  # of a line's message beside the line itself
END_WITHIN_S: Final = 5.0  # s for the user's side to take the end
QUEUE_LINES_MAX: Final = 256  # lines that wait to be sent


class RelayParts:
    """What relays answer from."""

    def __init__(
        self,
        agent: Agent,
        runtime: Runtime,
        discovery: Discovery,
        dns: NodeDns,
        identity: Identity,
        clock: Clock,
        log: Logger,
    ) -> None:
        """Answer from these."""
        self.agent = agent
        self.runtime = runtime
        self.discovery = discovery
        self.dns = dns
        self.identity = identity
        self.clock = clock
        self.log = log


class Relays:
    """The open relays of the node."""

    def __init__(self, parts: RelayParts, tls: Tls | None, *, insecure: bool) -> None:
        """Open none yet."""
        self._parts = parts
        self._tls = tls
        self._insecure = insecure
        self._asked: asyncio.Queue[tuple[node_pb2.OpenRelay, HostPort]] = asyncio.Queue(RELAYS_MAX)
        self._count = 0

    def open(self, message: node_pb2.OpenRelay, connection: Connection) -> None:
        """Open a relay soon; one too many is left unanswered, which its user is told in time."""
        with contextlib.suppress(asyncio.QueueFull):
            self._asked.put_nowait((message, connection.address))

    async def run(self) -> None:
        """Serve relays until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                message, address = await self._asked.get()
                if self._count >= RELAYS_MAX:
                    self._parts.log.warning("too many relays", count=self._count)
                    continue
                self._count += 1
                group.create_task(self._serve(message, address), name="relay")

    async def _serve(self, message: node_pb2.OpenRelay, address: HostPort) -> None:
        """Serve one relay to its end; its failure is its user's news and nobody else's."""
        channel = client_channel(
            address, self._tls, insecure=self._insecure, has_own_connection=True
        )
        try:
            call = node_pb2_grpc.NodeServiceStub(channel).Relay()
            await _Relay(self._parts, call).run(message)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            self._parts.log.debug("relay lost", error=str(error))
        finally:
            self._count -= 1
            await channel.close(0.0)


class _Relay:
    """One relay."""

    def __init__(self, parts: RelayParts, call: Any) -> None:
        self._parts = parts
        self._call = call
        self._copied_bytes = 0
        self._reading: asyncio.Task[None] | None = None  # to cancel a read ends the whole call

    async def run(self, message: node_pb2.OpenRelay) -> None:
        """Answer what was asked, and say how it ended."""
        identity = self._parts.identity
        cluster_id = self._parts.agent.cluster_id
        assert cluster_id is not None
        hello = node_pb2.RelayHello(
            cluster_id=id_bytes(cluster_id),
            node_id=id_bytes(identity.node_id),
            life=identity.life,
            relay_id=message.relay_id,
        )
        await self._call.write(node_pb2.RelayRequest(hello=hello))
        end = node_pb2.RelayEnd()
        try:
            await self._answer(message)
        except DrayError as error:
            end.error.CopyFrom(error_to_proto(error))
            end.code = error.code.value
        end.copied_bytes = self._copied_bytes
        try:
            await self._call.write(node_pb2.RelayRequest(end=end))
            await self._call.done_writing()
            async with asyncio.timeout(END_WITHIN_S):
                if self._reading is None:
                    await self._read_out()
                else:
                    await asyncio.wait({self._reading})
        finally:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.wait({self._reading})

    async def _answer(self, message: node_pb2.OpenRelay) -> None:
        match message.WhichOneof("purpose"):
            case "logs":
                await self._logs(from_proto(message.logs, LogQuery, name="logs"))
            case "exec":
                await self._exec(from_proto(message.exec, ExecStart, name="exec"))
            case "copy_from":
                await self._copy_from(from_proto(message.copy_from, CopyOptions, name="copy"))
            case "copy_to":
                await self._copy_to(from_proto(message.copy_to, CopyOptions, name="copy"))
            case "members":
                await self._members()
            case "dns":
                query = from_proto(message.dns, DnsQuery, name="dns")
                answer = await self._parts.dns.explain(query)
                await self._send(dns=to_proto(answer, node_pb2.DnsAnswer))
            case _:
                raise Unimplemented(
                    "this node's version of dray does not know what is asked of it",
                    hint="upgrade the node",
                )

    async def _send(self, **message: Any) -> None:
        await self._call.write(node_pb2.RelayRequest(**message))

    def _running(self, target: TaskTarget) -> TaskState:
        """Return the running task that is meant.

        Raises:
            NotFound: None runs here.
        """
        states = [
            state
            for state in self._parts.agent.book.states.values()
            if state.state in (AttemptState.RUNNING, AttemptState.STARTING, AttemptState.STOPPING)
            and state.container_id
        ]
        if target.task_id:
            found = [state for state in states if state.task_id == target.task_id]
            name = f"task {target.task_id}"
        else:
            name = f"{target.project}/{target.service}"
            name += f".{target.slot}" if target.slot else ""
            found = [
                state
                for state in states
                if (state.slot.project, state.slot.service) == (target.project, target.service)
                and target.slot in (0, state.slot.slot)
            ]
        if not found:
            raise NotFound(f"no container of {name} runs on this node", hint="see `dray ps`")
        return min(found, key=lambda state: state.slot)

    # ---- logs ------------------------------------------------------------------------------------

    async def _logs(self, query: LogQuery) -> None:
        """Send lines until there are no more, or the user's side ends the call."""
        cluster_id = self._parts.agent.cluster_id
        assert cluster_id is not None
        agent = self._parts.agent
        reader = LogReader(
            query, cluster_id, agent.book, self._parts.runtime, self._parts.clock, agent.followed
        )
        await self._until_read_ends(self._send_lines(reader), self._read_out())

    async def _send_lines(self, reader: LogReader) -> None:
        """Send lines as they come: as many in a message as are there, so no line waits."""
        queue: asyncio.Queue[LogLine | LogNotice | None] = asyncio.Queue(QUEUE_LINES_MAX)
        reading = asyncio.create_task(_fill(queue, reader))
        try:
            is_over = False
            while not is_over:
                items = [await _next(queue, reading)]
                size_bytes = 0
                while not queue.empty() and size_bytes < CHUNK_BYTES_MAX // 2:
                    last = items[-1]
                    size_bytes += len(last.line) + LINE_BYTES if isinstance(last, LogLine) else 0
                    items.append(queue.get_nowait())
                is_over = items[-1] is None
                await self._send_batch([item for item in items if isinstance(item, LogLine)])
                for item in items:
                    if isinstance(item, LogNotice):
                        await self._send(log_notice=to_proto(item, stream_pb2.LogNotice))
            await reading
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def _send_batch(self, batch: list[LogLine]) -> None:
        if batch:
            await self._send(log_lines=to_proto(LogLines(tuple(batch)), node_pb2.LogLines))

    async def _until_read_ends(
        self, work: Coroutine[None, None, None], reading: Coroutine[None, None, None]
    ) -> None:
        """Do something until it is done, or the user's side has gone; its failure is raised."""
        working = asyncio.create_task(work)
        self._reading = asyncio.create_task(reading)
        try:
            await asyncio.wait({working, self._reading}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self._reading.result()
                return
            working.result()
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def _read_out(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while await self._call.read() is not grpc.aio.EOF:
                continue

    # ---- commands --------------------------------------------------------------------------------

    async def _exec(self, start: ExecStart) -> None:
        state = self._running(start.target)
        size = start.size
        request = ExecRequest(
            start.command,
            user=start.user,
            working_dir=start.working_dir,
            environment=tuple(_variable(text) for text in start.environment),
            tty=start.tty,
            stdin=start.stdin,
            privileged=start.privileged,
            terminal_size=None if size is None else (size.columns, size.rows),
        )
        async with self._parts.runtime.exec(state.container_id, request) as session:
            await self._output(ExecOutput(started=True))
            await self._until_read_ends(self._send_output(session), self._feed(session, request))

    async def _send_output(self, session: ExecSession) -> None:
        async for stream, data in session.output():
            is_out = stream is LogStream.STDOUT
            await self._output(ExecOutput(stdout=data) if is_out else ExecOutput(stderr=data))
        await self._output(ExecOutput(exit_code=await session.exit_code()))

    async def _output(self, output: ExecOutput) -> None:
        await self._send(exec_output=to_proto(output, stream_pb2.ExecOutput))

    async def _feed(self, session: ExecSession, request: ExecRequest) -> None:
        """Hand the user's input on until the user ends the call."""
        while (response := await self._call.read()) is not grpc.aio.EOF:
            if response.WhichOneof("message") != "exec_input":
                raise PeerMisbehaved("this relay runs a command")
            said = from_proto(response.exec_input, ExecInput, name="exec_input")
            if said.stdin is not None:
                await session.write(said.stdin)
            elif said.stdin_end:
                await session.close_input()
            elif said.resize is not None:
                await session.resize(said.resize.columns, said.resize.rows)
            elif said.signal is not None:
                await self._signal(session, request, said.signal)

    async def _signal(self, session: ExecSession, request: ExecRequest, name: str) -> None:
        """Pass a signal on: through the terminal where there is one, else to the process."""
        if request.tty and name in TERMINAL_SIGNALS:
            await session.write(TERMINAL_SIGNALS[name])
        else:
            await session.send_signal(name)

    # ---- copies ----------------------------------------------------------------------------------

    async def _copy_from(self, options: CopyOptions) -> None:
        state = self._running(options.target)
        async with self._parts.runtime.read_archive(
            state.container_id, options.path, follow_link=options.follow_links
        ) as chunks:
            async for chunk in chunks:
                await self._send(archive=chunk)
                self._copied_bytes += len(chunk)

    async def _copy_to(self, options: CopyOptions) -> None:
        state = self._running(options.target)
        await self._parts.runtime.write_archive(state.container_id, options.path, self._archive())

    async def _archive(self) -> AsyncIterator[bytes]:
        """Yield the archive that the user sends.

        Raises:
            FailedPrecondition: It ended before it was whole.
        """
        while (response := await self._call.read()) is not grpc.aio.EOF:
            match response.WhichOneof("message"):
                case "archive":
                    self._copied_bytes += len(response.archive)
                    yield response.archive
                case "archive_end":
                    return
        raise FailedPrecondition("the copy was given up before it was whole")

    # ---- members ---------------------------------------------------------------------------------

    async def _members(self) -> None:
        now_s = self._parts.clock.monotonic_s()
        view = self._parts.discovery.view()
        members = [_member(each, now_s) for each in view.members()]
        for first in range(0, max(len(members), 1), MEMBERS_MAX):
            answer = MembersAnswer(tuple(members[first : first + MEMBERS_MAX]))
            await self._send(members=to_proto(answer, node_pb2.MembersAnswer))


async def _fill(queue: asyncio.Queue[LogLine | LogNotice | None], reader: LogReader) -> None:
    """Put what a reader yields into a queue, and None at its end."""
    async with contextlib.aclosing(reader.items()) as items:
        async for item in items:
            await queue.put(item)
    await queue.put(None)


async def _next(
    queue: asyncio.Queue[LogLine | LogNotice | None], filling: asyncio.Task[None]
) -> LogLine | LogNotice | None:
    """Return the next item; raise what ended the filling, once all before it was taken."""
    getting = asyncio.create_task(queue.get())
    both: set[asyncio.Task[Any]] = {getting, filling}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if getting.done() or not queue.empty():
            return await getting
        filling.result()
        return None
    finally:
        getting.cancel()


def _variable(text: str) -> tuple[str, str]:
    """Return the name and value of a variable."""
    name, _, value = text.partition("=")
    return name, value


def _member(member: Member, now_s: float) -> GossipMember:
    """Return a member as users see it: ages in place of times."""
    contact = member.last_contact_at_s
    return GossipMember(
        member.node_id,
        member.name,
        HostPort(member.address, member.gossip_port) if member.address else None,
        member.life,
        member.incarnation,
        member.state,
        member.seen,
        None if contact is None else max(0.0, now_s - contact),
        member.heard_state,
        member.heard_from,
        member.rtt_s,
        member.flaps,
        max(0.0, now_s - member.state_since_s),
    )
