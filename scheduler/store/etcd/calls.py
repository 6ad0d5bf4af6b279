"""Which etcd server is asked, for how long, and what happens when it does not answer?

All servers of a cluster are equal, so one is asked until it fails, then the next. Whether a request
may be sent again is decided here and nowhere else: a read always; a write only while it was
provably not carried out, which is why a call first waits for its connection (failing there proves
that nothing was sent).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from dray.addresses import HostPort
from dray.errors import (
    AmbiguousWrite,
    DeadlineExceeded,
    DrayError,
    PermissionDenied,
    Unavailable,
)
from dray.log import Logger
from dray.retry import Backoff
from dray.tls import Tls, client_channel
from scheduler.store.etcd.errors import Verdict, refusal, verdict
from scheduler.store.etcdpb import etcd_pb2 as pb

__all__ = [
    "ANSWER_BYTES_MAX",
    "Effect",
    "Endpoint",
    "Endpoints",
    "EtcdLimits",
    "Login",
    "Lost",
    "Method",
    "NotDone",
    "failure_of",
    "is_task_cancelled",
]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
T = TypeVar("T")

# The largest answer is that to a conflict: 128 compared keys of at most 1.5 MiB each.
ANSWER_BYTES_MAX: Final = 256 * 1_048_576
_BYTES_PER_S: Final = 1_048_576  # at least; a write of many assignments is given time for its size
# Servers without a leader turn calls away at once: what is tried next must not come much later than
# the new leader does.
_PAUSE: Final = Backoff(first_s=0.05, max_s=0.25)
# A server without a leader turns us away at once instead of letting us wait.
_METADATA: Final = (("hasleader", "true"),)
_READY: Final = grpc.ChannelConnectivity.READY
_DEAD: Final = (
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
    grpc.ChannelConnectivity.SHUTDOWN,
)


@dataclass(frozen=True, slots=True)
class EtcdLimits:
    """How long to wait for etcd.

    Attributes:
        call_s: One call of the port, over all servers and attempts.
        attempt_s: One attempt that may be repeated elsewhere. Shorter finds a silent server
            sooner; too short gives up on a busy one.
        write_s: A write's answer, which is waited for once. A write that was on its way while etcd
            changed its leader (1 to 2 s) is lost and never answered: longer waits in vain; shorter
            calls a write ambiguous that a slow disk was still doing.
        again_s: The first answers of a write that may be sent again: one on its way to etcd's dead
            leader is never answered, and etcd has another one after 1 to 2 s. Longer for a large
            one, and twice as long after each round of the servers: a slow disk is waited for in the
            end.
        away_s: One call while no server can be connected to, not even one that is silent: etcd is
            away as a whole, and a caller is better told than kept. Each server is tried once.
        connect_s: To reach a server.
        pause: After every server has failed once, and again after each further round.
    """

    call_s: float = 7.0
    attempt_s: float = 2.0
    write_s: float = 3.0
    again_s: float = 0.5
    away_s: float = 2.0
    connect_s: float = 2.0
    pause: Backoff = _PAUSE

    def __post_init__(self) -> None:
        """Check that the limits fit into one another."""
        assert 0 < self.attempt_s <= self.call_s
        assert 0 < self.write_s <= self.call_s
        assert self.again_s > 0
        assert self.away_s > 0
        assert 0 < self.connect_s <= self.call_s


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One method of etcd's API.

    Attributes:
        path: "/etcdserverpb.KV/Range" …; written by hand, since our messages are not in etcd's
            package.
        answer: The class of its answers.
    """

    path: str
    answer: type[A]


@dataclass(frozen=True, slots=True)
class Login:
    """A user of etcd; the password never shows in `repr` or logs."""

    user: str
    password: str

    def __repr__(self) -> str:
        """Return the user only."""
        return f"Login(user={self.user!r}, password=<hidden>)"


_AUTHENTICATE: Final[Method[pb.AuthenticateRequest, pb.AuthenticateResponse]] = Method(
    "/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse
)


class Effect(enum.Enum):
    """What a call does to the store."""

    NONE = 1  # a read, or what need not be known to have happened
    SAME_TWICE = 2  # a write that changes nothing more when it is repeated
    ONCE = 3  # a write that is sent once


class NotDone(Exception):
    """An attempt failed, and its request was provably not carried out."""


class Lost(Exception):
    """An attempt failed, and its request may have been carried out."""


def failure_of(err: grpc.aio.AioRpcError, address: HostPort) -> NotDone | Lost | DrayError:
    """Return what a failed attempt at a server is: raise it from `err`."""
    details = err.details() or ""
    match verdict(err.code(), details):
        case Verdict.NOT_DONE:
            return NotDone(f"{address}: {details}")
        case Verdict.LOST:
            return Lost(f"{address}: {err.code().name}: {details}")
        case Verdict.REFUSED:
            return refusal(err.code(), details)


class Endpoint:
    """One server: its address and the channel to it.

    Attributes:
        address: Where it is.
    """

    def __init__(
        self, address: HostPort, channel: grpc.aio.Channel, token: Callable[[], str] = str
    ) -> None:
        self.address = address
        self._channel = channel
        self._token = token

    async def connected(self, connect_s: float) -> None:
        """Wait until there is a connection.

        Raises:
            NotDone: There is none, or not in time.
        """
        state = self._channel.get_state(try_to_connect=True)
        if state is _READY:
            return
        try:
            async with asyncio.timeout(connect_s):
                while state is not _READY:
                    if state in _DEAD:
                        raise NotDone(f"{self.address}: no connection")
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        except TimeoutError as err:
            raise NotDone(f"{self.address}: no connection in {connect_s:g} s") from err
        except grpc.aio.UsageError as err:
            raise NotDone(f"{self.address}: the store was closed") from err

    async def unary(
        self, method: Method[Q, A], request: Q, timeout_s: float, *, needs_leader: bool = True
    ) -> A:
        """Make one attempt at one call; with `needs_leader` it fails at once when there is none.

        Raises:
            grpc.aio.AioRpcError: It failed.
        """
        call = self._channel.unary_unary(
            method.path,
            request_serializer=_serialized,
            response_deserializer=method.answer.FromString,
        )
        metadata = self._metadata(needs_leader=needs_leader)
        answer: A = await call(request, timeout=timeout_s, metadata=metadata)
        return answer

    def stream(
        self, method: Method[Q, A], timeout_s: float | None = None
    ) -> grpc.aio.StreamStreamCall[Q, A]:
        """Open a stream both ways, without a limit in time unless one is given."""
        call: grpc.aio.StreamStreamMultiCallable[Q, A] = self._channel.stream_stream(
            method.path,
            request_serializer=_serialized,
            response_deserializer=method.answer.FromString,
        )
        return call(timeout=timeout_s, metadata=self._metadata(needs_leader=True))

    def _metadata(self, *, needs_leader: bool) -> tuple[tuple[str, str], ...]:
        token = self._token()
        login = (("token", token),) if token else ()
        return (*_METADATA, *login) if needs_leader else login

    async def close(self) -> None:
        """End the connection and every call on it."""
        await self._channel.close()


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


class Endpoints:
    """All servers of one etcd cluster.

    Attributes:
        limits: How long to wait.
        log: Told of trouble that is being mended.
        all: One for each address.
    """

    def __init__(
        self,
        addresses: Sequence[HostPort],
        tls: Tls | None,
        *,
        insecure: bool,
        rng: random.Random,
        limits: EtcdLimits,
        log: Logger,
        login: Login | None = None,
    ) -> None:
        assert addresses, "etcd needs at least one address"
        self.limits = limits
        self.log = log
        self._closed = asyncio.Event()
        self._login = login
        self._token = ""
        self.all: Final = tuple(
            Endpoint(
                address,
                client_channel(address, tls, insecure=insecure, message_bytes_max=ANSWER_BYTES_MAX),
                lambda: self._token,
            )
            for address in addresses
        )
        self._rng = rng
        self._current = 0

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    @property
    def current(self) -> Endpoint:
        """The server to ask next; the first address until it fails."""
        return self.all[self._current]

    def failed(self, endpoint: Endpoint) -> None:
        """Ask another server from now on, unless that has happened already."""
        if endpoint is self.current:
            self._current = (self._current + 1) % len(self.all)

    def pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row: 0 within a round of servers."""
        rounds, within = divmod(failures, len(self.all))
        if within or not rounds:
            return 0.0
        return self.limits.pause.delay_s(rounds, self._rng)

    async def pause(self, pause_s: float) -> None:
        """Wait; `close` ends it."""
        if pause_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._closed.wait()

    async def unary(self, method: Method[Q, A], request: Q, effect: Effect) -> A:
        """Call a method, from server to server; raises what `call` raises."""
        tries = itertools.count()

        async def attempt(endpoint: Endpoint, left_s: float) -> A:
            most_s = self._attempt_s(effect, next(tries), request.ByteSize())
            return await endpoint.unary(method, request, min(left_s, most_s))

        return await self.call(attempt, what=method.path, effect=effect)

    def _attempt_s(self, effect: Effect, tried: int, size_bytes: int) -> float:
        """Return how long to wait for an answer after so many attempts without one."""
        match effect:
            case Effect.NONE:
                return self.limits.attempt_s
            case Effect.SAME_TWICE:
                first_s = self.limits.again_s + size_bytes / _BYTES_PER_S
                return first_s * 2.0 ** (tried // len(self.all))
            case Effect.ONCE:
                return self.limits.write_s

    async def call(
        self,
        attempt: Callable[[Endpoint, float], Awaitable[T]],
        *,
        what: str,
        effect: Effect,
    ) -> T:
        """Make attempts, from server to server, until one succeeds or `limits.call_s` is over.

        Args:
            attempt: One attempt at a connected server, given the seconds that are left.
            what: Name of the call, for messages.
            effect: What it does to the store, hence what may follow a lost answer.

        Raises:
            AmbiguousWrite: It is a write, and may have been carried out.
            Unavailable: No server could be reached, or the store was closed. Nothing was changed.
                Said after `limits.away_s` when none could even be connected to.
            DeadlineExceeded: A server was reached and did not answer a read.
        """
        clock = asyncio.get_running_loop().time
        start_s = clock()
        deadline_s = start_s + self.limits.call_s
        away_at_s = start_s + min(self.limits.away_s, self.limits.call_s)
        is_reached = False
        failures = 0
        is_lost = False
        while True:
            endpoint = self.current
            try:
                if self.is_closed:
                    raise NotDone("the store is closed")
                await endpoint.connected(min(self.limits.connect_s, deadline_s - clock()))
                is_reached = True
                return await self._attempted(attempt, endpoint, deadline_s - clock())
            except (NotDone, Lost) as err:
                self.failed(endpoint)
                failures += 1
                is_lost = is_lost or isinstance(err, Lost)
                pause_s = self.pause_s(failures)
                is_away = not is_reached and failures >= len(self.all)
                is_last = clock() + pause_s >= (away_at_s if is_away else deadline_s)
                if is_last or self.is_closed or (is_lost and effect is Effect.ONCE):
                    raise _given_up(what, effect, failures, err, is_lost=is_lost) from err
                await self.pause(pause_s)

    async def _attempted(
        self,
        attempt: Callable[[Endpoint, float], Awaitable[T]],
        endpoint: Endpoint,
        left_s: float,
    ) -> T:
        try:
            await self.log_in(endpoint, left_s)
            return await attempt(endpoint, left_s)
        except grpc.aio.AioRpcError as err:
            if self._is_stale(err):
                self._token = ""
                raise NotDone(f"{endpoint.address}: the log-in has run out") from err
            raise failure_of(err, endpoint.address) from err
        except asyncio.CancelledError as err:
            if self.is_closed and not is_task_cancelled():
                raise Lost(f"{endpoint.address}: the store was closed") from err
            raise

    async def log_in(self, endpoint: Endpoint, left_s: float, *, afresh: bool = False) -> None:
        """Get a token for the calls that follow, if there is a user and no token yet.

        Args:
            endpoint: A connected server; the token is good at all of them.
            left_s: How long it may take.
            afresh: Whatever token there is may have run out, and the next call would not say so.

        Raises:
            PermissionDenied: etcd knows no such user, or another password.
            grpc.aio.AioRpcError: The call failed otherwise.
        """
        if self._login is None or (self._token and not afresh):
            return
        request = pb.AuthenticateRequest(name=self._login.user, password=self._login.password)
        self._token = ""  # a token that has run out makes even this call fail
        try:
            answer = await endpoint.unary(
                _AUTHENTICATE, request, min(left_s, self.limits.attempt_s)
            )
        except grpc.aio.AioRpcError as err:
            if err.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise PermissionDenied(
                    f"etcd refused the user {self._login.user!r}: {err.details()}",
                    hint="check etcd_user and etcd_password",
                ) from err
            raise
        self._token = answer.token

    def _is_stale(self, err: grpc.aio.AioRpcError) -> bool:
        """Return whether a call was turned away because of its token: it was not carried out."""
        is_old = "revision of auth store is old" in (err.details() or "")
        return self._login is not None and (is_old or err.code() is grpc.StatusCode.UNAUTHENTICATED)

    async def close(self) -> None:
        """End every call and connection."""
        self._closed.set()
        for endpoint in self.all:
            await endpoint.close()


def is_task_cancelled() -> bool:
    """Return whether the running task itself was cancelled, rather than the call it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _given_up(
    what: str, effect: Effect, failures: int, last: Exception, *, is_lost: bool
) -> DrayError:
    """Return the error of a call whose attempts have all failed."""
    text = f"{what}: {last} (attempt {failures})"
    if not is_lost:
        return Unavailable(text)
    if effect is Effect.NONE:
        return DeadlineExceeded(text)
    return AmbiguousWrite(text, hint="read, then decide whether to write again")
