"""How are names that are not the cluster's asked of the machine's name servers?

- One question is asked once, however many clients wait for it. That bounds a loop as well: a query
  that comes back to us waits for itself and ends with the deadline.
- The servers are asked in the order of the machine's resolv.conf, the next one when one says that
  it cannot or has not answered within `STEP_S`; the earlier ones may still answer. One that was
  silent is asked last for a while.
- Each question has a socket, and so a port, of its own, and a random id; what does not fit them is
  no answer. A truncated answer is asked for again over TCP.
- A server that leads back here is found by a question that only we know (`probe`) and left out.
- When all fail, an answer that has lately run out is used, else the client is told SERVFAIL.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from dray.addresses import HostPort
from dray.clock import Clock
from node.dns.config import DEADLINE_S
from node.dns.framing import receive_message, send_message
from node.dns.names import ZONE_LABELS, Labels
from node.dns.upstream import (
    Kept,
    KeptAnswers,
    Question,
    Rejected,
    accept,
    answer_with,
    failure,
    question_bytes,
    question_of,
)
from node.dns.wire import TCP_BYTES_MAX, Query

__all__ = ["STEP_S", "Forwarder", "Waiter", "is_probe"]

STEP_S: Final = 0.4  # after which the next server is asked as well
STALE_DEADLINE_S: Final = 1.0  # when there is an answer that has run out
STALE_TTL_S: Final = 1
TRIES_MAX: Final = 6  # of one question, over all servers
FORGERIES_MAX: Final = 16  # wrong answers that one try reads
QUESTIONS_MAX: Final = 512  # asked at once
CLIENT_WAITS_MAX: Final = 64  # of one client at once
QUESTION_WAITS_MAX: Final = 256  # clients that wait for one question
SILENT_S: Final = 10.0  # for which a server that did not answer is asked last
RECEIVED_BYTES_MAX: Final = 65_535
_PROBE_LABEL: Final = "_loop"
_TXT: Final = 16


@dataclass(frozen=True, slots=True)
class Waiter:
    """A query that waits for an answer from upstream.

    Attributes:
        client: Address of who asks.
        query: The query.
        size_bytes_max: Largest answer.
        reply: Sends it.
    """

    client: str
    query: Query
    size_bytes_max: int
    reply: Callable[[bytes], None]


@dataclass(slots=True)
class _Server:
    """What is known of a name server.

    Attributes:
        address: Where it is.
        silent_until_s: Until when it is asked last, monotonic.
        is_loop: It leads back here.
    """

    address: HostPort
    silent_until_s: float = 0.0
    is_loop: bool = False


@dataclass(slots=True)
class _Counts:
    asked: int = 0
    failed: int = 0
    refused: int = 0
    forged: int = 0


@dataclass(slots=True)
class _Waiting:
    """Who waits, by question and by client."""

    by_question: dict[Question, list[Waiter]] = field(default_factory=dict)
    by_client: Counter[str] = field(default_factory=Counter)


def is_probe(labels: Labels) -> bool:
    """Return whether a name is one that only a forwarder asks, to see whether it comes back."""
    return len(labels) == len(ZONE_LABELS) + 2 and labels[1:] == (_PROBE_LABEL, *ZONE_LABELS)


class Forwarder:
    """Asks the upstream servers. Lives on one event loop; its tasks are those of a group."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        clock: Clock,
        rng: random.Random,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Forward nothing until `set_servers`.

        Args:
            group: Runs what is under way; when it ends, so does that.
            clock: Measures the time.
            rng: Draws ids, from a source that others cannot guess.
            deadline_s: How long a question may wait, over all servers.
        """
        self._deadline_s = deadline_s
        self._group = group
        self._clock = clock
        self._rng = rng
        self._servers: list[_Server] = []
        self._waiting = _Waiting()
        self._kept = KeptAnswers()
        self._probes: dict[str, _Server] = {}
        self.counts = _Counts()

    # ---- servers

    def set_servers(self, servers: tuple[HostPort, ...]) -> None:
        """Set whom to ask, in order, and find out which of them lead back here."""
        if [server.address for server in self._servers] != list(servers):
            self._servers = [_Server(address) for address in servers]
            self._kept.clear()
        self._probes = {f"{self._rng.getrandbits(64):016x}": each for each in self._servers}
        for token, server in self._probes.items():
            labels = (token, _PROBE_LABEL, *ZONE_LABELS)
            self._group.create_task(self._ask_server(server, Question(labels, _TXT)))

    def note_probe(self, labels: Labels) -> None:
        """Note that a probe has come back to us."""
        server = self._probes.get(labels[0])
        if server is not None:
            server.is_loop = True

    def loops(self) -> tuple[HostPort, ...]:
        """Return the servers that lead back here and are not asked."""
        return tuple(server.address for server in self._servers if server.is_loop)

    def servers(self) -> tuple[HostPort, ...]:
        """Return the servers that are asked."""
        return tuple(server.address for server in self._servers if not server.is_loop)

    # ---- asking

    def kept(self, query: Query, size_bytes_max: int) -> bytes | None:
        """Return the answer to a query if it is known, else None."""
        found = self._kept.get(question_of(query), self._clock.monotonic_s())
        return None if found is None else answer_with(found[0], query, found[1], size_bytes_max)

    def submit(self, waiter: Waiter) -> None:
        """Ask for an answer; it is sent when it is there, or that there is none, once."""
        question = question_of(waiter.query)
        waiters = self._waiting.by_question.get(question)
        if any(_is_repeated(waiter, other) for other in waiters or ()):
            return
        is_full = (
            len(self._waiting.by_question) >= QUESTIONS_MAX
            if waiters is None
            else (len(waiters) >= QUESTION_WAITS_MAX)
        )
        if is_full or self._waiting.by_client[waiter.client] >= CLIENT_WAITS_MAX:
            self.counts.refused += 1
            waiter.reply(failure(waiter.query, waiter.size_bytes_max))
            return
        self._waiting.by_client[waiter.client] += 1
        if waiters is not None:
            waiters.append(waiter)
            return
        self._waiting.by_question[question] = [waiter]
        self._group.create_task(self._answer(question))

    async def look_up(self, question: Question) -> tuple[Kept | None, bool]:
        """Return the answer to a question, or None; and whether it was known already."""
        now_s = self._clock.monotonic_s()
        found = self._kept.get(question, now_s)
        if found is not None:
            return found[0], True
        stale = self._kept.stale(question, now_s)
        self.counts.asked += 1
        kept = await self._ask(
            question, STALE_DEADLINE_S if stale is not None else self._deadline_s
        )
        if kept is not None:
            self._kept.put(question, kept, self._clock.monotonic_s())
        if kept is None or kept.is_failure:
            self.counts.failed += 1
            kept = kept if stale is None else dataclasses.replace(stale, ttl_s=STALE_TTL_S)
        return kept, False

    async def _answer(self, question: Question) -> None:
        """Ask a question and send the answer to all who wait for it by then."""
        try:
            kept, _ = await self.look_up(question)
        finally:
            waiters = self._waiting.by_question.pop(question)
            for waiter in waiters:
                self._waiting.by_client[waiter.client] -= 1
                if not self._waiting.by_client[waiter.client]:
                    del self._waiting.by_client[waiter.client]
        for waiter in waiters:
            if kept is None:
                waiter.reply(failure(waiter.query, waiter.size_bytes_max))
            else:
                waiter.reply(answer_with(kept, waiter.query, kept.ttl_s, waiter.size_bytes_max))

    async def _ask(self, question: Question, deadline_s: float) -> Kept | None:
        """Return the first good answer; else a server's failure; None: nobody answered."""
        ends_at_s = self._clock.monotonic_s() + deadline_s
        tries = self._tries()
        running: set[asyncio.Task[Kept | None]] = set()
        failed: Kept | None = None
        try:
            while (left_s := ends_at_s - self._clock.monotonic_s()) > 0:
                server = next(tries, None)
                if server is not None:
                    ask = self._ask_server(server, question)
                    running.add(asyncio.create_task(ask))
                elif not running:
                    break
                step_s = left_s if server is None else min(STEP_S, left_s)
                done, running = await asyncio.wait(
                    running, timeout=step_s, return_when=asyncio.FIRST_COMPLETED
                )
                for kept in [task.result() for task in done]:
                    if kept is not None and not kept.is_failure:
                        return kept
                    failed = kept or failed
            return failed
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _tries(self) -> Iterator[_Server]:
        """Yield whom to ask, one after the other, those that were silent lately at the end."""
        now_s = self._clock.monotonic_s()
        servers = [server for server in self._servers if not server.is_loop]
        servers.sort(key=lambda server: server.silent_until_s > now_s)
        for at in range(TRIES_MAX if servers else 0):
            yield servers[at % len(servers)]

    async def _ask_server(self, server: _Server, question: Question) -> Kept | None:
        """Ask one server, over TCP if need be; None: it gave no answer."""
        ident = self._rng.getrandbits(16)
        start_s = self._clock.monotonic_s()
        data = question_bytes(question, ident)
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await self._over_udp(server.address, question, ident, data)
                if found is Rejected.TRUNCATED:
                    found = await self._over_tcp(server.address, question, ident, data)
        except TimeoutError:
            found = None
        except asyncio.CancelledError:
            # Another was quicker, or the time is over: it is slow if it had its time.
            now_s = self._clock.monotonic_s()
            if now_s - start_s >= STEP_S:
                server.silent_until_s = now_s + SILENT_S
            raise
        except OSError:
            found = None
        if isinstance(found, Kept):
            server.silent_until_s = 0.0
            return found
        server.silent_until_s = self._clock.monotonic_s() + SILENT_S
        return None

    async def _over_udp(
        self, address: HostPort, question: Question, ident: int, data: bytes
    ) -> Kept | Rejected:
        loop = asyncio.get_running_loop()
        with _socket(address, socket.SOCK_DGRAM) as bound:
            await loop.sock_connect(bound, (address.host, address.port))
            await loop.sock_sendall(bound, data)
            for _ in range(FORGERIES_MAX):
                answer = await loop.sock_recv(bound, RECEIVED_BYTES_MAX)
                found = accept(question, ident, answer, str(address.host))
                if found is not Rejected.NOT_THE_ANSWER:
                    return found
                self.counts.forged += 1
        return Rejected.NOT_THE_ANSWER

    async def _over_tcp(
        self, address: HostPort, question: Question, ident: int, data: bytes
    ) -> Kept | Rejected:
        loop = asyncio.get_running_loop()
        with _socket(address, socket.SOCK_STREAM) as bound:
            await loop.sock_connect(bound, (address.host, address.port))
            await send_message(bound, data)
            answer = await receive_message(bound, TCP_BYTES_MAX)
            return accept(question, ident, answer, address.host)


def _is_repeated(waiter: Waiter, other: Waiter) -> bool:
    """Return whether a client asks the same again because it has no answer yet."""
    same = (other.client, other.query.ident, other.size_bytes_max)
    return same == (waiter.client, waiter.query.ident, waiter.size_bytes_max)


@contextlib.contextmanager
def _socket(address: HostPort, kind: socket.SocketKind) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as made:
        yield made
