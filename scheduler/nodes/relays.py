"""How does a user's call reach a node? Relays: asked for on the node's stream, opened by the node.

The relay's id is random and is the proof that it was asked for; it is claimed once. Flow control is
gRPC's: what the user does not read stops the node, and the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc

from dray.api.v1 import node_pb2, stream_pb2
from dray.clock import Clock
from dray.convert import error_from_proto, from_proto, to_proto
from dray.errors import PermissionDenied, ResourceExhausted, Unavailable
from dray.names import ID_BYTES, NodeId, id_text
from dray.views import (
    DnsAnswer,
    DnsQuery,
    ExecOutput,
    ExecStart,
    LogLines,
    LogNotice,
    LogQuery,
    MembersAnswer,
)
from scheduler.api.ports import (
    CopyFrom,
    CopyInto,
    RelayInput,
    RelayOutput,
    RelayPurpose,
)
from scheduler.nodes.messages import OpenRelay
from scheduler.nodes.streams import NodeStreams

__all__ = ["RELAYS_MAX", "RELAY_OPENS_WITHIN_S", "NodeRelay", "Relays"]

RELAYS_MAX: Final = 512  # open at once on this scheduler
RELAY_OPENS_WITHIN_S: Final = 5.0


class NodeRelay:
    """One call of a user, carried to a node. `serve` is the node's side of it."""

    def __init__(self, node_id: NodeId) -> None:
        """Make a relay that the node has not opened yet."""
        self.node_id = node_id
        self.copied_bytes = 0
        self._context: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._is_over = asyncio.Event()
        self._has_ended = False

    async def serve(self, context: Any) -> None:
        """Lend the node's call to the user's side until one of them ends it."""
        if self._context.done():
            return  # the user has given up
        self._context.set_result(context)
        try:
            await self._is_over.wait()
        finally:
            self._has_ended = True
            self._is_over.set()

    async def opened(self) -> None:
        """Wait for the node."""
        await asyncio.shield(self._context)

    def close(self) -> None:
        """End the relay: the node's call ends."""
        self._has_ended = True
        self._context.cancel()
        self._is_over.set()

    async def output(self) -> AsyncIterator[RelayOutput]:
        """Yield what the node sends, until its end; see `scheduler.api.ports.Relay`."""
        context = await self._context
        while True:
            try:
                request = await context.read()
            except (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
                raise self._lost() from error
            if request is grpc.aio.EOF:
                raise self._lost()
            kind = request.WhichOneof("message")
            if kind == "end":
                self._end(request.end)
                return
            item = _output(kind, request)
            if item is not None:
                yield item

    async def send(self, message: RelayInput) -> None:
        """Send something to the node; see `scheduler.api.ports.Relay`."""
        if isinstance(message, bytes):
            await self._write(node_pb2.RelayResponse(archive=message))
        else:
            said = to_proto(message, stream_pb2.ExecInput)
            await self._write(node_pb2.RelayResponse(exec_input=said))

    async def end_input(self) -> None:
        """Tell the node that the archive is whole."""
        await self._write(node_pb2.RelayResponse(archive_end=True))

    async def _write(self, response: node_pb2.RelayResponse) -> None:
        context = await self._context
        if self._has_ended:
            raise self._lost()
        try:
            await context.write(response)
        except (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise self._lost() from error

    def _end(self, end: node_pb2.RelayEnd) -> None:
        self.copied_bytes = end.copied_bytes
        if end.code:
            raise error_from_proto(end.code, end.error.message, end.error.SerializeToString())

    def _lost(self) -> Unavailable:
        return Unavailable(
            f"node {self.node_id}, or the way to it, was lost: what came is not whole",
            hint="try again",
        )


class Relays:
    """Opens relays to nodes while this scheduler leads: a `scheduler.api.ports.RelayBroker`."""

    def __init__(
        self,
        streams: Callable[[], NodeStreams],
        *,
        random_bits: Callable[[int], int],
        clock: Clock,
    ) -> None:
        """Start without relays.

        Args:
            streams: Returns the term's streams, or raises `NotLeader`.
            random_bits: Source of ids, unguessable.
            clock: Measures how long a node may take.
        """
        self._streams = streams
        self._random_bits = random_bits
        self._clock = clock
        self._waiting: dict[bytes, NodeRelay] = {}
        self._open: set[NodeRelay] = set()

    @contextlib.asynccontextmanager
    async def open(self, node_id: NodeId, purpose: RelayPurpose) -> AsyncIterator[NodeRelay]:
        """Ask a node for a relay and wait for it; see `scheduler.api.ports.RelayBroker`."""
        streams = self._streams()
        if len(self._open) >= RELAYS_MAX:
            raise ResourceExhausted(
                f"{RELAYS_MAX} logs, commands and copies run through this scheduler already",
                hint="end some of them",
            )
        relay = NodeRelay(node_id)
        relay_id = self._random_bits(ID_BYTES * 8).to_bytes(ID_BYTES, "big")
        self._open.add(relay)
        self._waiting[relay_id] = relay
        try:
            streams.open_relay(node_id, OpenRelay(relay_id, _purpose(purpose)))
            await self._wait(relay)
            yield relay
        finally:
            self._waiting.pop(relay_id, None)
            self._open.discard(relay)
            relay.close()

    def claim(self, hello: node_pb2.RelayHello) -> NodeRelay:
        """Return the relay that a node opens; it is claimed once.

        Raises:
            PermissionDenied: It was not asked for, or asked of another node or life.
            InvalidRequest: An id is malformed.
            NotLeader: Another scheduler leads.
        """
        relay = self._waiting.pop(hello.relay_id, None)
        node_id = NodeId(id_text(hello.node_id))
        life = self._streams().observations.life(node_id)
        if relay is None or relay.node_id != node_id or life != hello.life:
            raise PermissionDenied("this relay was not asked for, or is open already")
        return relay

    def close(self) -> None:
        """End all relays: this scheduler leads no longer."""
        for relay in self._open:
            relay.close()

    async def _wait(self, relay: NodeRelay) -> None:
        try:
            async with asyncio.timeout(RELAY_OPENS_WITHIN_S):
                await relay.opened()
        except TimeoutError:
            raise Unavailable(
                f"node {relay.node_id} did not open the relay within {RELAY_OPENS_WITHIN_S:g} s",
                hint="the node is busy or cannot reach this scheduler a second time; try again",
            ) from None


def _purpose(purpose: RelayPurpose) -> node_pb2.OpenRelay:
    match purpose:
        case LogQuery():
            return node_pb2.OpenRelay(logs=to_proto(purpose, stream_pb2.LogQuery))
        case ExecStart():
            return node_pb2.OpenRelay(exec=to_proto(purpose, stream_pb2.ExecStart))
        case CopyFrom(options):
            return node_pb2.OpenRelay(copy_from=to_proto(options, stream_pb2.CopyOptions))
        case CopyInto(options):
            return node_pb2.OpenRelay(copy_to=to_proto(options, stream_pb2.CopyOptions))
        case DnsQuery():
            return node_pb2.OpenRelay(dns=to_proto(purpose, node_pb2.DnsQuery))
        case _:
            return node_pb2.OpenRelay(members=node_pb2.MembersQuery())


def _output(kind: str | None, request: node_pb2.RelayRequest) -> RelayOutput | None:
    """Return what a node says on a relay; None: a newer node's kind of message."""
    match kind:
        case "log_lines":
            return from_proto(request.log_lines, LogLines, name="log_lines")
        case "log_notice":
            return from_proto(request.log_notice, LogNotice, name="log_notice")
        case "exec_output":
            return from_proto(request.exec_output, ExecOutput, name="exec_output")
        case "archive":
            return request.archive
        case "members":
            return from_proto(request.members, MembersAnswer, name="members")
        case "dns":
            return from_proto(request.dns, DnsAnswer, name="dns")
        case _:
            return None
