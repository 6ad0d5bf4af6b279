"""Which scheduler is asked, for how long, and what is done when it does not answer?

Any scheduler serves the whole API, so one is asked until it fails, then the next. A read is simply
asked again. A write carries a `request_id` that is the same in every attempt, so a scheduler that
has carried it out answers with the first result: it is repeated as well, also when its outcome is
not known.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from dray.addresses import HostPort
from dray.clock import Clock
from dray.convert import ERROR_DETAIL_KEY, error_from_proto
from dray.errors import DeadlineExceeded, DrayError, ErrorCode, InternalError, Unavailable
from dray.retry import Backoff, retry
from dray.tls import Tls, client_channel

__all__ = ["DEFAULT_LIMITS", "Channels", "ClientLimits", "dray_error"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_SERVICE: Final = "/dray.api.v1.ClusterService/"
_PAUSE: Final = Backoff(first_s=0.05, max_s=1.0)


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How long to wait for a cluster.

    Attributes:
        call_s: One call, over all schedulers and attempts. Longer rides out an election.
        attempt_s: One attempt at one scheduler. Shorter finds a silent one sooner; too short gives
            up on a busy one.
        unreachable_s: In place of `call_s` while no scheduler has ever answered this client: the
            address is more likely wrong than everything down.
    """

    call_s: float = 30.0
    attempt_s: float = 10.0
    unreachable_s: float = 3.0

    def __post_init__(self) -> None:
        """Check the bounds."""
        assert 0 < self.attempt_s <= self.call_s
        assert 0 < self.unreachable_s <= self.call_s


DEFAULT_LIMITS: Final = ClientLimits()


class Channels:
    """Channels to schedulers, of which one is in use."""

    def __init__(
        self,
        hosts: Sequence[HostPort],
        tls: Tls | None,
        *,
        insecure: bool,
        clock: Clock,
        rng: random.Random,
        limits: ClientLimits,
    ) -> None:
        """Connect on first use.

        Raises:
            FailedPrecondition: Plain text to another machine without `insecure`.
        """
        assert hosts, "a client without schedulers"
        self._hosts = tuple(hosts)
        self._clock = clock
        self._rng = rng
        self._limits = limits
        self._channels = [client_channel(host, tls, insecure=insecure) for host in hosts]
        self._current = 0
        self._has_answered = False
        self._is_closed = False

    @property
    def host(self) -> HostPort:
        """The scheduler that is asked at the moment."""
        return self._hosts[self._current]

    async def unary(
        self, method: str, request: Message, reply_type: type[A], *, is_write: bool
    ) -> A:
        """Make one call, on as many schedulers as it takes.

        Args:
            method: Its name.
            request: What is asked; a write carries its `request_id`.
            reply_type: Class of the reply.
            is_write: Whether an attempt of unknown outcome is repeated through the request id.

        Raises:
            DrayError: It was refused, or nobody answered in time.
        """

        async def attempt(left_s: float) -> A:
            timeout_s = min(left_s, self._limits.attempt_s)
            try:
                return await self._attempt(method, request, reply_type, timeout_s)
            except DrayError as error:
                is_lost = is_write and error.code is ErrorCode.DATA_LOSS
                raise (_retryable(error) if is_lost else error) from error.__cause__

        duration_s = self._limits.call_s if self._has_answered else self._limits.unreachable_s
        try:
            return await retry(
                attempt, clock=self._clock, rng=self._rng, duration_s=duration_s, backoff=_PAUSE
            )
        except (Unavailable, DeadlineExceeded) as error:
            raise self._nobody(error) from error

    async def _attempt(
        self, method: str, request: Message, reply_type: type[A], timeout_s: float
    ) -> A:
        if self._is_closed:
            raise Unavailable("the client is closed", retryable=False)
        index = self._current
        call: Any = self._channels[index].unary_unary(
            _SERVICE + method,
            request_serializer=_serialized,
            response_deserializer=reply_type.FromString,
        )
        try:
            reply = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as failure:
            error = dray_error(failure, self._hosts[index])
            self._learn(error, index)
            raise error from failure
        self._has_answered = True
        assert isinstance(reply, reply_type)
        return reply

    async def stream(
        self, method: str, request: Message, reply_type: type[A], timeout_s: float | None = None
    ) -> AsyncIterator[A]:
        """Yield the replies of a call with one request, at one scheduler; not repeated.

        Raises:
            DrayError: It was refused or ended.
        """
        index = self._current
        open_call: Any = self._channels[index].unary_stream(
            _SERVICE + method,
            request_serializer=_serialized,
            response_deserializer=reply_type.FromString,
        )
        call = open_call(request, timeout=timeout_s)
        try:
            async for reply in call:
                self._has_answered = True
                yield reply
        except grpc.aio.AioRpcError as failure:
            error = dray_error(failure, self._hosts[index])
            self._learn(error, index)
            raise error from failure
        finally:
            call.cancel()

    def open(self, method: str, reply_type: type[A], *, is_reply_stream: bool) -> Any:
        """Return a call with a stream of requests, at the scheduler in use."""
        channel = self._channels[self._current]
        make: Callable[..., Any] = (
            channel.stream_stream if is_reply_stream else channel.stream_unary
        )
        call = make(
            _SERVICE + method,
            request_serializer=_serialized,
            response_deserializer=reply_type.FromString,
        )
        return call()

    def give_up(self) -> None:
        """Ask the next scheduler from now on."""
        self._current = (self._current + 1) % len(self._channels)

    async def close(self) -> None:
        """End all connections and calls; twice is harmless."""
        self._is_closed = True
        for channel in self._channels:
            await channel.close()

    def _learn(self, error: DrayError, index: int) -> None:
        """Turn to the next scheduler after a failure that another one might not have."""
        if error.code not in (ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED):
            self._has_answered = True
        if error.retryable and index == self._current:
            self.give_up()

    def _nobody(self, error: DrayError) -> DrayError:
        if self._has_answered:
            return error
        shown = ", ".join(map(str, self._hosts))
        return Unavailable(
            f"no scheduler answers at {shown}",
            retryable=False,
            hint="check --host or DRAY_HOST, and that a scheduler runs there",
            context=dict(error.context),
        )


def dray_error(failure: grpc.aio.AioRpcError, host: HostPort) -> DrayError:
    """Return what a failed call says, with the scheduler that said it."""
    detail = None
    for key, value in failure.trailing_metadata() or ():
        if key == ERROR_DETAIL_KEY and isinstance(value, bytes):
            detail = value
    error = error_from_proto(failure.code().value[0], failure.details() or "", detail)
    if detail is None and error.code is ErrorCode.UNAVAILABLE:
        return Unavailable(f"{host}: {error.message}", context={"scheduler": str(host)})
    if detail is None and error.code is ErrorCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{host} did not answer in time", context={"scheduler": str(host)})
    if detail is None and failure.code() is grpc.StatusCode.UNKNOWN:
        return InternalError(
            f"{host}: {error.message}",
            hint="a bug of dray; the scheduler's log has more",
        )
    if detail is None and error.code is ErrorCode.UNIMPLEMENTED:
        return DrayError(
            f"the scheduler at {host} does not know this call",
            code=ErrorCode.UNIMPLEMENTED,
            hint="it runs an older version of dray: upgrade it",
        )
    is_plain = type(error) in (DrayError, InternalError) and not error.message
    return DrayError(f"{host}: {error.code.name}", code=error.code) if is_plain else error


def _retryable(error: DrayError) -> DrayError:
    return type(error)(
        error.message, code=error.code, retryable=True, hint=error.hint, context=error.context
    )


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
