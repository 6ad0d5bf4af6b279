"""How does the node's agent run the name server, and what does it tell it?

The server is a process of its own (`child.py`), so that neither the agent nor gossip delays it. The
sockets are bound here and stay bound while it is started again after an end: queries wait for it.
What it has to know goes to it over a pair of sockets, service by service as views change; its
counts and `explain`'s answers come back. `NodeDns.run` is one of the daemon's loops: it ends when
it is cancelled, and the server with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from dray.addresses import HostPort
from dray.clock import Clock
from dray.errors import FailedPrecondition, InvalidRequest, Unavailable
from dray.log import Logger
from dray.model import FactView, Fault, FaultKind, ServiceKey
from dray.names import NodeId
from dray.views import DnsAnswer, DnsEndpoint, DnsQuery
from node.dns.config import ServerConfig, ServerCounts
from node.dns.feed import (
    Json,
    asker_of,
    config_of,
    endpoint_from,
    members_of,
    service_of,
)
from node.dns.frames import Kind, frame, read_frame
from node.dns.sockets import BoundSockets, bind_all
from node.dns.zone import Asker

__all__ = ["NodeDns", "ViewSource"]

RESOLV_CONF: Final = Path("/etc/resolv.conf")
MEMBERS_EVERY_S: Final = 1.0  # how old the names of nodes may be
FEED_SHARE_MAX: Final = 0.05  # of the time that is spent telling while gossip keeps changing
FEED_PAUSE_MAX_S: Final = 0.25  # which a name is older then
SERVICES_AT_ONCE_MAX: Final = 16  # in one message: about 2 ms of the server's time
CLIENTS_MAX: Final = 4_096  # addresses of the node's containers
QUESTIONS_MAX: Final = 64  # explanations that are waited for
READ_BYTES_MAX: Final = 2**20
WELL_AFTER_S: Final = 10.0  # a server that ran this long is started again at once
PAUSE_S: Final = 0.1
PAUSE_MAX_S: Final = 5.0


class ViewSource(Protocol):
    """Where views come from: `node.ports.Discovery`."""

    def view(self) -> FactView:
        """Return the newest view."""
        ...

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a view with a higher sequence, once there is one."""
        ...


class NodeDns:
    """The node's name server. Its methods are called on the agent's event loop."""

    def __init__(
        self,
        config: ServerConfig,
        source: ViewSource,
        *,
        clock: Clock,
        log: Logger,
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        """Make a name server that does not run yet.

        Args:
            config: Where to listen, and for whom.
            source: Gossip.
            clock: Measures the time.
            log: Gets a line when something about the upstream servers changes.
            resolv_conf: The machine's; read again every few seconds.
        """
        self._config = config
        self._source = source
        self._clock = clock
        self._log = log
        self._resolv_conf = resolv_conf
        self._clients: dict[str, Json] = {}
        self._faults: dict[str, Fault] = {}
        self._counts = ServerCounts()
        self._upstreams: list[str] | None = None
        self._bound: BoundSockets | None = None
        self._to_server: asyncio.StreamWriter | None = None
        self._is_ready = False
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[DnsAnswer]] = {}
        self.process_id: int | None = None

    # ---- what the agent calls

    def set_clients(self, clients: Mapping[str, Asker]) -> None:
        """Set which task asks from which address, before its container starts.

        Whoever is not listed is known by what the node publishes: without its links, and only once
        that is published.

        Args:
            clients: By IPv4 and IPv6 address; all that there are.
        """
        assert len(clients) <= CLIENTS_MAX, f"more than {CLIENTS_MAX} clients"
        self._clients = {address: asker_of(asker) for address, asker in clients.items()}
        if self._to_server is not None:
            self._to_server.write(frame(Kind.CLIENTS, self._clients))

    async def explain(self, query: DnsQuery) -> DnsAnswer:
        """Return what the server answers to a query, and why.

        Raises:
            FailedPrecondition: It does not run.
            InvalidRequest: The query cannot be asked.
            Unavailable: It ended meanwhile, or too many ask.
        """
        if self._to_server is None or not self._is_ready:
            raise FailedPrecondition(
                "the node's name server does not run", hint="`dray node doctor` says why"
            )
        if len(self._questions) >= QUESTIONS_MAX:
            raise Unavailable(f"{QUESTIONS_MAX} explanations of names are waited for: ask again")
        number = next(self._numbers)
        answered: asyncio.Future[DnsAnswer] = asyncio.get_running_loop().create_future()
        self._questions[number] = answered
        asked = [query.name, query.type, query.project, query.service]
        self._to_server.write(frame(Kind.EXPLAIN, number, asked))
        try:
            return await answered
        finally:
            self._questions.pop(number, None)

    def problems(self) -> tuple[Fault, ...]:
        """Return what is wrong with names that are not the cluster's."""
        return tuple(self._faults.values())

    def counts(self) -> ServerCounts:
        """Return what the server has done since it started last, as of a second ago."""
        return self._counts

    def addresses(self) -> tuple[HostPort, ...]:
        """Return where it listens; empty while it does not."""
        return self._bound.addresses() if self._bound is not None and self._is_ready else ()

    async def run(self) -> None:
        """Run the server until this is cancelled; one that ends is started again.

        Raises:
            Unavailable: An address to listen on is taken, or no process can be started.
        """
        bound = bind_all(self._config.listen, self._config.sockets_per_address)
        self._bound = bound
        pause_s = PAUSE_S
        try:
            while True:
                began_s = self._clock.monotonic_s()
                status = await self._run_one(bound)
                is_well = self._clock.monotonic_s() - began_s >= WELL_AFTER_S
                pause_s = PAUSE_S if is_well else min(2 * pause_s, PAUSE_MAX_S)
                self._log.warning("name server has ended", status=status)
                await self._clock.sleep(pause_s)
        finally:
            bound.close()
            self._bound = None

    # ---- one process

    async def _run_one(self, bound: BoundSockets) -> int:
        """Run a server's process to its end; return its status."""
        async with self._process(bound) as (process, own):
            reader, writer = await asyncio.open_unix_connection(sock=own, limit=READ_BYTES_MAX)
            ended = asyncio.ensure_future(process.wait())
            tasks = [
                asyncio.create_task(self._feed(writer), name="dns views"),
                asyncio.create_task(self._listen(reader), name="dns server"),
            ]
            try:
                await asyncio.wait({ended, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._forget_server()
                writer.close()  # it ends by that
                ended.cancel()
                for task in tasks:
                    task.cancel()
                await asyncio.wait({ended, *tasks})
        for task in tasks:
            _raise_bug(task)
        return process.returncode or 0

    @contextlib.asynccontextmanager
    async def _process(
        self, bound: BoundSockets
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, socket.socket]]:
        """Give a server's process and this end of the connection to it; end it."""
        own, other = socket.socketpair()
        with own, other:
            own.setblocking(False)
            given = {
                "parent": os.getpid(),
                "control": other.fileno(),
                "udp": [each.fileno() for each in bound.udp],
                "tcp": [each.fileno() for each in bound.tcp],
            }
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "node.dns.child", json.dumps(given)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(other.fileno(), *given["udp"], *given["tcp"]),  # type: ignore[misc]
                )
            except OSError as error:
                raise Unavailable(f"the name server does not start: {error.strerror}") from error
            other.close()
            self.process_id = process.pid
            try:
                yield process, own
            finally:
                self.process_id = None
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    def _forget_server(self) -> None:
        self._to_server = None
        self._is_ready = False
        for each in self._questions.values():
            if not each.done():
                each.set_exception(Unavailable("the node's name server has ended: ask again"))

    # ---- to the server

    async def _feed(self, writer: asyncio.StreamWriter) -> None:
        """Tell a new server all there is, then what changes."""
        config = config_of(self._config)
        writer.write(frame(Kind.CONFIG, config, str(self._resolv_conf)))
        view = self._source.view()
        members = members_of(view)
        writer.write(frame(Kind.MEMBERS, members))
        known = await self._tell_services(writer, view, sorted(view.services()), set())
        writer.write(frame(Kind.CLIENTS, self._clients))
        writer.write(frame(Kind.START))
        self._to_server = writer
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed_services(writer, view, known))
            group.create_task(self._feed_members(writer, members))

    async def _feed_services(
        self, writer: asyncio.StreamWriter, view: FactView, known: set[ServiceKey]
    ) -> None:
        while True:
            newer = await self._source.wait_view(view.sequence)
            changed = newer.changed_since(view.sequence)
            view, begin_s = newer, self._clock.monotonic_s()
            services = known | set(view.services()) if changed is None else changed
            known = await self._tell_services(writer, view, sorted(services), known)
            took_s = self._clock.monotonic_s() - begin_s
            await self._clock.sleep(min(took_s / FEED_SHARE_MAX, FEED_PAUSE_MAX_S))

    async def _tell_services(
        self,
        writer: asyncio.StreamWriter,
        view: FactView,
        services: list[ServiceKey],
        known: set[ServiceKey],
    ) -> set[ServiceKey]:
        """Tell some services as they are now; return which the server knows then."""
        for at in range(0, len(services), SERVICES_AT_ONCE_MAX):
            told = [service_of(view, each) for each in services[at : at + SERVICES_AT_ONCE_MAX]]
            writer.write(frame(Kind.SERVICES, told))
            await writer.drain()
            await asyncio.sleep(0)
        gone = {each for each in services if view.service(each) is None}
        return (known | set(services)) - gone

    async def _feed_members(self, writer: asyncio.StreamWriter, told: Json) -> None:
        while True:
            await self._clock.sleep(MEMBERS_EVERY_S)
            members = members_of(self._source.view())
            if members != told:
                writer.write(frame(Kind.MEMBERS, members))
                await writer.drain()
                told = members

    # ---- from the server

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (message := await read_frame(reader)) is not None:
            kind, *arguments = message
            if kind == Kind.READY:
                self._is_ready = True
            elif kind == Kind.STATUS:
                self._take_status(*arguments)
            elif kind == Kind.EXPLAINED:
                self._take_explanation(*arguments)

    def _take_status(self, counts: list[int], faults: dict[str, str], servers: list[str]) -> None:
        self._counts = ServerCounts(*counts)
        if servers != self._upstreams:
            self._upstreams = servers
            self._log.info("name servers of the machine", servers=servers)
        before = self._faults
        now_s = self._clock.unix_s()
        self._faults = {
            what: before.get(what) or Fault(FaultKind.NETWORK_BROKEN, now_s, message)
            for what, message in faults.items()
        }
        for what in faults.keys() - before.keys():
            self._log.warning("name server has a fault", fault=faults[what])

    def _take_explanation(self, number: int, found: Json | None, refused: list[str]) -> None:
        answered = self._questions.get(number)
        if answered is None or answered.done():
            return
        if found is None:
            message, hint = refused
            answered.set_exception(InvalidRequest(message, hint=hint))
            return
        name, code, records, endpoints, source, is_last_resort = found
        answered.set_result(
            DnsAnswer(
                name,
                code,
                tuple(records),
                tuple(
                    DnsEndpoint(endpoint_from(endpoint), NodeId(node_id), *rest)
                    for endpoint, node_id, *rest in endpoints
                ),
                source,
                is_last_resort,
            )
        )


def _raise_bug(task: asyncio.Task[None]) -> None:
    """Raise what a task failed with, unless that is the server's end, seen from here."""
    error = None if task.cancelled() else task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None and not isinstance(error, ConnectionError):
        raise error
