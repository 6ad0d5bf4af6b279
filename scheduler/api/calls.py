"""What happens around every call: who asks, one log line, the leader's answer, refusals as details.

A call that needs what only the leader knows is passed on to the leader, once, within a deadline.
When that fails the call is answered from what is stored, with everything observed *unknown*, if it
is a reading one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import Message

from dray.addresses import HostPort
from dray.api.v1 import cluster_pb2
from dray.convert import ERROR_DETAIL_KEY, error_from_proto, error_to_proto, to_proto
from dray.errors import DrayError, ErrorCode, InternalError, NotLeader, Unavailable
from dray.log import CanonicalLine, canonical_line
from dray.names import id_bytes
from scheduler.api.environment import (
    Answer,
    Environment,
    States,
    check_header,
    response_header,
)
from scheduler.api.ports import LeaderInfo

__all__ = ["FORWARD_S", "Calls", "ChannelMaker", "Unary", "abort", "passed_error"]

FORWARD_S: Final = 3.0  # for the leader's answer; a new one is elected within its lease of 5 s
_SERVICE: Final = "/dray.api.v1.ClusterService/"
_CHANNELS_MAX: Final = 16  # to former leaders; then all are closed
_NAMED: Final = ("project", "service", "node")

ChannelMaker = Callable[[HostPort], grpc.aio.Channel]
"""Opens a channel to another scheduler, with this one's certificates."""


@dataclass(frozen=True, slots=True)
class Unary:
    """One call with one request and one reply.

    Attributes:
        method: Its name.
        answer: Answers it here.
        is_observed: Its reply holds what only the leader knows.
        needs_leader: Without the leader it is refused rather than answered in part.
    """

    method: str
    answer: Callable[[Any], Awaitable[Answer]]
    is_observed: bool = False
    needs_leader: bool = False


class Calls:
    """What is around the calls of one scheduler."""

    def __init__(self, environment: Environment, states: States, channel_to: ChannelMaker) -> None:
        """Serve in `environment`; open channels to other schedulers by `channel_to`."""
        self._environment = environment
        self._states = states
        self._channel_to = channel_to
        self._channels: dict[HostPort, grpc.aio.Channel] = {}

    async def close(self) -> None:
        """End the channels to other schedulers."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    async def unary(self, call: Unary, request: Any, context: Any) -> Message:
        """Answer a call, or refuse it with an `ErrorDetail`."""
        environment = self._environment
        try:
            with self.line(call.method, request, context):
                check_header(
                    environment.source.snapshot, request.header.cluster_id, request.header.version
                )
                leader = environment.leader_elsewhere()
                if call.needs_leader and leader is None and not environment.leads:
                    raise NotLeader("there is no leader to ask", hint="try again in a moment")
                is_asked = call.is_observed or call.needs_leader or _is_dry_run(request)
                if is_asked and leader is not None:
                    passed = await self._pass_on(call, request, leader)
                    if passed is not None:
                        return passed
                await self._states.prepare()
                answer = await call.answer(request)
                return self._message(call.method, answer)
        except DrayError as error:
            await abort(context, error)

    def _message(self, method: str, answer: Answer) -> Message:
        header = response_header(
            self._environment,
            answer.state.snapshot,
            is_observed=answer.state.memory is not None,
            warnings=answer.warnings,
        )
        reply = dataclasses.replace(answer.reply, header=header)
        reply_type: type[Message] = getattr(cluster_pb2, f"{method}Response")
        return to_proto(reply, reply_type)

    @contextlib.contextmanager
    def line(self, method: str, request: Any, context: Any) -> Iterator[CanonicalLine]:
        """Log one line when a call ends."""
        fields = _fields(request)
        environment = self._environment
        with canonical_line(
            environment.log,
            "call",
            environment.clock,
            method=method,
            peer=_peer(context),
            **fields,
        ) as line:
            yield line

    # --- the leader ---

    async def _pass_on(self, call: Unary, request: Any, leader: LeaderInfo) -> Message | None:
        """Return the leader's reply; None: it could not be asked, and need not be.

        Raises:
            DrayError: The leader refused, or could not be asked although it must be.
        """
        if request.header.forwarded_by:
            if call.needs_leader:
                raise self._not_leader(leader)
            return None
        reply_type: type[Message] = getattr(cluster_pb2, f"{call.method}Response")
        open_call: Any = self.channel(leader.address).unary_unary(
            _SERVICE + call.method,
            request_serializer=_serialized,
            response_deserializer=reply_type.FromString,
        )
        try:
            reply: Message = await open_call(self.forwarded(request), timeout=FORWARD_S)
        except grpc.aio.AioRpcError as failure:
            error = passed_error(failure)
            if error.retryable and not call.needs_leader:
                return None
            raise error from failure
        return reply

    def forwarded(self, request: Any) -> Any:
        """Return a request as it is passed on to the leader: never a second time."""
        passed = type(request)()
        passed.CopyFrom(request)
        passed.header.forwarded_by = id_bytes(self._environment.scheduler_id)
        return passed

    def channel(self, address: HostPort) -> grpc.aio.Channel:
        """Return the channel to another scheduler."""
        channel = self._channels.get(address)
        if channel is None:
            if len(self._channels) >= _CHANNELS_MAX:
                self._channels.clear()
            channel = self._channels[address] = self._channel_to(address)
        return channel

    def open(self, address: HostPort, method: str, *, is_reply_stream: bool) -> Any:
        """Return a call with a stream of requests at another scheduler."""
        channel = self.channel(address)
        make: Any = channel.stream_stream if is_reply_stream else channel.stream_unary
        reply_type: type[Message] = getattr(cluster_pb2, f"{method}Response")
        return make(
            _SERVICE + method,
            request_serializer=_serialized,
            response_deserializer=reply_type.FromString,
        )()

    async def stream_of_leader(
        self, method: str, request: Any, leader: LeaderInfo
    ) -> AsyncIterator[Any]:
        """Yield the leader's replies to a call with one request.

        Raises:
            DrayError: The leader refused, or was lost.
        """
        reply_type: type[Message] = getattr(cluster_pb2, f"{method}Response")
        open_call: Any = self.channel(leader.address).unary_stream(
            _SERVICE + method,
            request_serializer=_serialized,
            response_deserializer=reply_type.FromString,
        )
        call = open_call(self.forwarded(request))
        try:
            async for reply in call:
                yield reply
        except grpc.aio.AioRpcError as failure:
            raise passed_error(failure) from failure
        finally:
            call.cancel()

    def _not_leader(self, leader: LeaderInfo) -> NotLeader:
        return NotLeader(
            "this scheduler does not lead any more",
            hint="try again",
            context={"leader": str(leader.address)},
        )


def passed_error(failure: grpc.aio.AioRpcError) -> DrayError:
    """Return what the leader said, as it is passed on to the user."""
    detail = None
    for key, value in failure.trailing_metadata() or ():
        if key == ERROR_DETAIL_KEY and isinstance(value, bytes):
            detail = value
    code = failure.code()
    error = error_from_proto(code.value[0], failure.details() or "", detail)
    if detail is None and code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ):
        return Unavailable(f"the leader does not answer: {error.message}", hint="try again")
    return error


async def abort(context: Any, error: DrayError) -> NoReturn:
    """End a call with what was wrong."""
    shown = error
    if error.code is ErrorCode.INTERNAL and not isinstance(error, InternalError):
        shown = InternalError(error.message)
    detail = error_to_proto(shown).SerializeToString()
    status = _STATUSES[shown.code]
    await context.abort(status, shown.message, ((ERROR_DETAIL_KEY, detail),))
    raise AssertionError("abort returned")


_STATUSES: Final[Mapping[ErrorCode, grpc.StatusCode]] = {
    ErrorCode(status.value[0]): status
    for status in grpc.StatusCode
    if status.value[0] in {code.value for code in ErrorCode}
}


def _is_dry_run(request: Any) -> bool:
    """Return whether a write is only to be planned, which the leader knows most of."""
    return "write" in request.DESCRIPTOR.fields_by_name and bool(request.write.dry_run)


def _fields(request: Any) -> dict[str, object]:
    """Return what of a request its log line names."""
    fields: dict[str, object] = {
        name: text
        for name in _NAMED
        if isinstance(text := getattr(request, name, None), str) and text
    }
    project = getattr(getattr(request, "project", None), "name", "")
    if project:
        fields["project"] = project
    return fields


def _peer(context: Any) -> str:
    return str(context.peer())


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
