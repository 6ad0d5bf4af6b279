"""How do queries get answered over UDP and TCP? The sockets around the pure parts.

The path of nearly every query is `_drain`: receive, look the bytes up, send. Whatever else a query
needs (parsing, the zone, the upstream servers) is bounded for each client, so that one client's
oddities are its own trouble. All of it runs on one event loop; `child.py` gives it a process.

Who asks follows from the source address: the node's own containers (told by `set_clients`, or known
from what the node publishes), the machine itself; an address of the node's subnet that is not known
yet sees nothing of the cluster and is told to ask again (SERVFAIL). All others are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

from dray.addresses import HostPort
from dray.clock import Clock
from dray.model import FactView, ServiceKey
from node.dns.cache import AnswerCache, Ready
from node.dns.config import ServerConfig, ServerCounts
from node.dns.forward import Forwarder, Waiter, is_probe
from node.dns.framing import receive_message, send_message
from node.dns.limits import ClientRates
from node.dns.names import below_zone
from node.dns.resolver import Answer, Forward, refusal, resolve
from node.dns.sockets import BoundSockets, bind_all
from node.dns.wire import (
    TCP_BYTES_MAX,
    Malformed,
    Query,
    RCode,
    error_answer,
    limit_bytes,
    parse_query,
)
from node.dns.zone import NODE_ASKER, Asker, Zone

__all__ = ["DnsServer", "ServerConfig", "ServerCounts", "pause"]

DRAINED_MAX: Final = 64  # datagrams of one socket before the others have their turn
QUERY_BYTES_MAX: Final = 4_096  # a query has one name; a longer datagram is cut and malformed
TICK_S: Final = 1.0  # how long brief answers are kept
TCP_CONNECTIONS_MAX: Final = 256
TCP_CONNECTIONS_PER_CLIENT_MAX: Final = 16
TCP_IDLE_S: Final = 10.0
TCP_REPLY_S: Final = 10.0
ACCEPT_PAUSE_S: Final = 0.1  # after the machine had no descriptor left
CLIENTS_MAX: Final = 4_096  # addresses of the node's containers
AHEAD_MAX: Final = 256  # answers that wait to be made ahead, each some 0.1 ms of work
NOBODY: Final = Asker("", frozenset())
"""An address of the node's subnet that no task is known to have: it sees nothing."""


class DnsServer:
    """Answers queries while `run` runs. Everything is called on that loop."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        clock: Clock,
        rng: random.Random,
        id_rng: random.Random,
    ) -> None:
        """Make a server that knows nothing yet.

        Args:
            config: Where to listen, and for whom.
            clock: Measures the time.
            rng: Draws the order of addresses.
            id_rng: Draws ids, from a source that others cannot guess.
        """
        self._config = config
        self._clock = clock
        self.rng = rng
        self._id_rng = id_rng
        self.zone = Zone(config.zone)
        self.counts = ServerCounts()
        self.forwarder: Forwarder | None = None
        self._cache = AnswerCache()
        self._rates = ClientRates(rate_per_s=config.rates[0], burst=config.rates[1])
        self._ranges = [ipaddress.ip_network(text) for text in config.client_ranges if text]
        self._told: dict[str, Asker] = {}
        self._askers: dict[str, Asker] = {}
        self._tables: dict[str, Ready] = {}
        self._sockets = BoundSockets()
        self._connections: Counter[str] = Counter()
        self._ahead: deque[tuple[Asker, bytes]] = deque(maxlen=AHEAD_MAX)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._know_clients()

    # ---- what it is told

    def update(self, view: FactView) -> None:
        """Answer from a newer view from now on."""
        self.take(view, self.zone.changed(view))

    def take(self, view: FactView, services: tuple[ServiceKey, ...]) -> None:
        """Answer from a newer view of some services from now on; see `Zone.take`."""
        change = self.zone.take(view, services)
        asked = self._cache.forget(change.keys)
        if change.are_clients_changed:
            self._know_clients()
        if asked and self._loop is not None:
            if not self._ahead:
                self._after_queries(self._loop)
            self._ahead.extend(asked)

    def _after_queries(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the next answer ahead once the queries that are there were answered; see `pause`."""
        loop.call_soon(loop.call_soon, self._answer_ahead)

    def _answer_ahead(self) -> None:
        """Make one answer anew that was dropped, before it is asked for; queries come in between.

        Else whoever asks next after a change waits until it is made. What nobody has asked for
        since the last time is not made again.
        """
        if not self._ahead or self._loop is None:
            return
        asker, query = self._ahead.popleft()
        parsed = parse_query(bytes(2) + query)
        if isinstance(parsed, Query) and self._cache.lacks(asker, query):
            found = resolve(parsed, self.zone, asker, self.rng, limit_bytes(parsed))
            if isinstance(found, Answer) and not found.is_brief:
                self._cache.put(asker, query, found, is_ahead=True)
        if self._ahead:
            self._after_queries(self._loop)

    def set_clients(self, clients: Mapping[str, Asker]) -> None:
        """Set who asks from which address, beside what the node publishes; at most `CLIENTS_MAX`.

        It wins over what is published: it is there before a container starts, and has its links.
        """
        assert len(clients) <= CLIENTS_MAX, f"more than {CLIENTS_MAX} clients"
        self._told = dict(clients)
        self._know_clients()

    def set_upstreams(self, servers: tuple[HostPort, ...]) -> None:
        """Set whom to ask for names that are not the cluster's; while it runs."""
        if self.forwarder is not None:
            self.forwarder.set_servers(servers)

    def addresses(self) -> tuple[HostPort, ...]:
        """Return where it listens over UDP; empty while it does not run."""
        return self._sockets.addresses()

    # ---- running

    async def run(
        self, on_ready: Callable[[], None] = lambda: None, bound: BoundSockets | None = None
    ) -> None:
        """Listen and answer until it is cancelled.

        Args:
            on_ready: Called once it listens.
            bound: Sockets that listen already, to be closed in the end; None: it makes them.

        Raises:
            Unavailable: An address is taken.
        """
        loop = self._loop = asyncio.get_running_loop()
        try:
            config = self._config
            self._sockets = bound or bind_all(config.listen, config.sockets_per_address)
            deadline_s = self._config.upstream_deadline_s
            async with asyncio.TaskGroup() as group:
                self.forwarder = Forwarder(group, self._clock, self._id_rng, deadline_s)
                for each in self._sockets.udp:
                    loop.add_reader(each, self._drain, each)
                for listener in self._sockets.tcp:
                    group.create_task(self._accept(listener, group))
                on_ready()
                while True:
                    await self._clock.sleep(TICK_S)
                    self._cache.drop_brief()
                    self.zone.refresh_nodes()
        finally:
            self.forwarder = self._loop = None
            self._ahead.clear()
            for each in self._sockets.udp:
                loop.remove_reader(each)
            self._sockets.close()
            self._sockets = BoundSockets()

    def _know_clients(self) -> None:
        """Read anew who asks from where; what was ready for others is dropped."""
        machine = {address.host: NODE_ASKER for address in self._config.listen}
        self._askers = {**machine, **self.zone.own_askers(), **self._told}
        # By identity: hundreds of containers, few askers, and hashing one is most of the work.
        askers = {id(asker): asker for asker in self._askers.values()}
        self._cache.retain(askers.values())
        ready = {which: self._cache.ready(asker) for which, asker in askers.items()}
        self._tables = {address: ready[id(asker)] for address, asker in self._askers.items()}

    def asker_of(self, client: str) -> Asker | None:
        """Return on whose behalf an address asks; None: it may not."""
        asker = self._askers.get(client)
        if asker is not None:
            return asker
        address = ipaddress.ip_address(client.partition("%")[0])
        if address.is_loopback:
            return NODE_ASKER
        return NOBODY if any(address in each for each in self._ranges) else None

    # ---- UDP

    def _drain(self, bound: socket.socket) -> None:
        """Answer what has arrived at a socket; the path of nearly every query, so kept short."""
        receive, send, tables = bound.recvfrom, bound.sendto, self._tables
        received = ready = 0
        for _ in range(DRAINED_MAX):
            try:
                data, source = receive(QUERY_BYTES_MAX)
            except OSError:  # nothing more
                break
            received += 1
            table = tables.get(source[0])
            answer = table.get(data[2:]) if table is not None else None
            if answer is None:
                self._answer_udp(bound, data, source)
                continue
            ready += 1
            try:
                send(data[:2] + next(answer), source)
            except OSError:  # the buffer is full, or the client is gone
                self.counts.unsent += 1
        self.counts.received += received
        self.counts.ready += ready

    def _answer_udp(self, bound: socket.socket, data: bytes, source: tuple[str, int]) -> None:
        """Answer a datagram that no ready answer fits."""

        def reply(answer: bytes) -> None:
            try:
                bound.sendto(answer, source)
            except OSError:
                self.counts.unsent += 1

        found = self.resolve(data, source[0], None)
        if isinstance(found, Waiter):
            assert self.forwarder is not None, "sockets are read while it runs"
            self.forwarder.submit(Waiter(found.client, found.query, found.size_bytes_max, reply))
        elif found is not None:
            reply(found)

    # ---- TCP

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, source = await loop.sock_accept(listener)
            except OSError:
                await self._clock.sleep(ACCEPT_PAUSE_S)
                continue
            client = source[0]
            is_full = self._connections.total() >= TCP_CONNECTIONS_MAX
            if is_full or self._connections[client] >= TCP_CONNECTIONS_PER_CLIENT_MAX:
                self.counts.limited += 1
                connection.close()
                continue
            self._connections[client] += 1
            group.create_task(self._serve_tcp(connection, client))

    async def _serve_tcp(self, connection: socket.socket, client: str) -> None:
        """Answer the queries of a connection, one after the other, until it is idle or ends."""
        try:
            with contextlib.closing(connection), contextlib.suppress(OSError, TimeoutError):
                while True:
                    async with asyncio.timeout(TCP_IDLE_S):
                        data = await receive_message(connection, QUERY_BYTES_MAX)
                    self.counts.received += 1
                    async with asyncio.timeout(TCP_REPLY_S):
                        answer = await self._answer_tcp(data, client)
                        if answer is None:
                            return
                        await send_message(connection, answer)
        finally:
            self._connections[client] -= 1
            if not self._connections[client]:
                del self._connections[client]

    async def _answer_tcp(self, data: bytes, client: str) -> bytes | None:
        found = self.resolve(data, client, TCP_BYTES_MAX)
        if not isinstance(found, Waiter):
            return found
        assert self.forwarder is not None, "connections are served while it runs"
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def reply(answer: bytes) -> None:
            if not answered.done():
                answered.set_result(answer)

        self.forwarder.submit(Waiter(client, found.query, found.size_bytes_max, reply))
        return await answered

    # ---- both

    def resolve(
        self, data: bytes, client: str, size_bytes_max: int | None
    ) -> bytes | Waiter | None:
        """Return the answer to a message, what has to wait for one, or None for no answer.

        Args:
            data: The message.
            client: Address of who sent it.
            size_bytes_max: Largest answer; None: as the query says (UDP).
        """
        query = parse_query(data)
        if isinstance(query, Malformed):
            self.counts.malformed += 1
            return query.answer if self._rates.allows(client, self._clock.monotonic_s()) else None
        if is_probe(query.labels) and self.forwarder is not None:
            self.forwarder.note_probe(query.labels)
        asker = self.asker_of(client)
        if asker is None:
            self.counts.strangers += 1
            return error_answer(data, RCode.REFUSED)
        if not self._rates.allows(client, self._clock.monotonic_s()):
            self.counts.limited += 1
            return None
        limit = size_bytes_max or limit_bytes(query)
        found = resolve(query, self.zone, asker, self.rng, limit)
        if isinstance(found, Forward):
            self.counts.forwarded += 1
            assert self.forwarder is not None, "queries are read while it runs"
            known = self.forwarder.kept(query, limit)
            if known is None:
                return Waiter(client, query, limit, _no_reply)
            found = Answer((known,), found.keys, is_brief=True, is_reusable=query.is_reusable)
        else:
            self.counts.resolved += 1
            if asker is NOBODY and below_zone(query.labels) is not None:
                return refusal(query, RCode.SERVFAIL, limit).variants[0]
        if size_bytes_max is None and client in self._tables:
            self._cache.put(asker, data[2:], found)
        return found.variants[0]


async def pause() -> None:
    """Let the queries that have arrived be answered, before whoever awaits this goes on.

    In a turn of the event loop, what was ready before comes before what the look at the sockets
    found: after one turn only, two pieces of work run one after the other while a query waits.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _no_reply(_: bytes) -> None:
    """Stand in for the way back of a query, which who received it knows."""
