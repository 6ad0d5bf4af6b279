"""How does the node's agent run the name server, and what does it tell it?

The server has a thread and an event loop of its own, so that a busy agent does not delay it. Views
and clients go to it, answers to `explain` come from it; nothing else is shared. `NodeDns.run` is
one of the daemon's loops: it ends when it is cancelled, and the server with it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import random
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from dray.addresses import HostPort
from dray.clock import Clock
from dray.errors import FailedPrecondition
from dray.log import Logger
from dray.model import FactView, Fault, FaultKind
from dray.views import DnsAnswer, DnsQuery
from node.dns.explain import explain
from node.dns.resolvconf import parse_resolv_conf, upstreams_of
from node.dns.serve import DnsServer, ServerConfig, ServerCounts
from node.dns.zone import Asker

__all__ = ["NodeDns", "ViewSource"]

RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLV_CONF_BYTES_MAX: Final = 65_536
RESOLV_CONF_EVERY_S: Final = 2.0  # how soon a changed list of name servers is noticed
# How long a thread runs on while another one waits for the interpreter. The default, 5 ms, is what
# a query would wait whenever the agent computes; this costs the agent next to nothing.
SWITCH_INTERVAL_S: Final = 0.0005
STOP_S: Final = 5.0  # for the thread to end; all it does is bounded by far less


class ViewSource(Protocol):
    """Where views come from: `node.ports.Discovery`."""

    def view(self) -> FactView:
        """Return the newest view."""
        ...

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a view with a higher sequence, once there is one."""
        ...


@dataclass(slots=True)
class _State:
    """What both threads see; each field is replaced as a whole, by one side only.

    Attributes:
        clients: Told by the agent, for a server that starts.
        upstreams: Read by the server's thread.
        faults: Likewise, by what is wrong.
        counts: Copied by the server's thread each second.
        addresses: Where it listens.
    """

    clients: dict[str, Asker] = field(default_factory=dict)
    upstreams: tuple[HostPort, ...] = ()
    faults: dict[str, Fault] = field(default_factory=dict)
    counts: ServerCounts = field(default_factory=ServerCounts)
    addresses: tuple[HostPort, ...] = ()


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
            clock: Measures the time, in both threads.
            log: Gets a line when something about the upstream servers changes.
            resolv_conf: The machine's; read again every few seconds.
        """
        self._config = config
        self._source = source
        self._clock = clock
        self._log = log
        self._resolv_conf = resolv_conf
        self._state = _State()
        self._view = source.view()
        self._is_newer = asyncio.Event()  # set by us, on the server's loop
        self._running: tuple[asyncio.AbstractEventLoop, DnsServer] | None = None

    # ---- what the agent calls

    def set_clients(self, clients: Mapping[str, Asker]) -> None:
        """Set which task asks from which address, before its container starts.

        Whoever is not listed is known by what the node publishes: without its links, and only once
        that is published.

        Args:
            clients: By IPv4 and IPv6 address; all that there are.
        """
        self._state.clients = dict(clients)
        running = self._running
        if running is not None:
            running[0].call_soon_threadsafe(running[1].set_clients, self._state.clients)

    async def explain(self, query: DnsQuery) -> DnsAnswer:
        """Return what the server answers to a query, and why.

        Raises:
            FailedPrecondition: It does not run.
            InvalidRequest: The query cannot be asked.
        """
        running = self._running
        if running is None:
            raise FailedPrecondition(
                "the node's name server does not run", hint="`dray node doctor` says why"
            )
        work = explain(query, running[1])
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, running[0]))

    def problems(self) -> tuple[Fault, ...]:
        """Return what is wrong with names that are not the cluster's."""
        return tuple(self._state.faults.values())

    def counts(self) -> ServerCounts:
        """Return what the server has done since it started last, as of a second ago."""
        return self._state.counts

    def addresses(self) -> tuple[HostPort, ...]:
        """Return where it listens; empty while it does not."""
        return self._state.addresses

    async def run(self) -> None:
        """Run the server until this is cancelled.

        Makes the interpreter switch between the process's threads more often, for good.

        Raises:
            Unavailable: An address to listen on is taken.
        """
        loop = asyncio.get_running_loop()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._view = self._source.view()
        self._is_newer = asyncio.Event()
        ready = asyncio.Event()
        stop = _Stop()
        pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="dns")
        work = self._serve(stop, lambda: _tell(loop, ready.set))
        ended = loop.run_in_executor(pool, asyncio.run, work)
        pool.shutdown(wait=False)  # the thread ends with its only work
        feeding = loop.create_task(self._feed(ready), name="dns views")
        try:
            # Not awaited itself: cancelling that would give it up while it still runs.
            await asyncio.wait({ended, feeding}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._running = None
            feeding.cancel()
            stop.now()
            await asyncio.wait({ended, feeding}, timeout=STOP_S)
            self._state.addresses = ()
        for task in (ended, feeding):
            _raise_failure(task)

    # ---- the agent's side

    async def _feed(self, ready: asyncio.Event) -> None:
        """Hand over each newer view, once the server takes them."""
        await ready.wait()
        assert self._running is not None, "it is set before the server says that it is ready"
        loop, _ = self._running
        sequence = -1
        while True:
            view = await self._source.wait_view(sequence)
            sequence = view.sequence
            self._view = view
            _tell(loop, self._is_newer.set)

    # ---- the server's side

    async def _serve(self, stop: _Stop, on_ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        system = random.SystemRandom()
        rng = random.Random(system.getrandbits(64))
        server = DnsServer(self._config, clock=self._clock, rng=rng, id_rng=system)
        server.set_clients(self._state.clients)
        server.update(self._view)

        def ready() -> None:
            self._state.addresses = server.addresses()
            self._running = (loop, server)
            on_ready()

        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.run(ready))
            watching = group.create_task(self._watch(server))
            following = group.create_task(self._follow(server))
            stop.arm(loop, serving, watching, following)

    async def _follow(self, server: DnsServer) -> None:
        """Answer from each newer view; of several at once, from the newest."""
        while True:
            await self._is_newer.wait()
            self._is_newer.clear()
            await server.follow(self._view)

    async def _watch(self, server: DnsServer) -> None:
        """Keep the upstream servers, the faults and the counts up to date."""
        left_s = 0.0
        text: str | None = None
        while True:
            if left_s <= 0.0:
                left_s = RESOLV_CONF_EVERY_S
                newer = await asyncio.to_thread(_read, self._resolv_conf)
                if newer != text and server.forwarder is not None:
                    text = newer
                    self._take_upstreams(server, text)
            self._state.counts = dataclasses.replace(server.counts)
            self._look_for_faults(server)
            await self._clock.sleep(1.0)
            left_s -= 1.0

    def _take_upstreams(self, server: DnsServer, text: str) -> None:
        own = (*self._config.listen, *server.addresses())
        servers = upstreams_of(parse_resolv_conf(text), own)
        self._state.upstreams = servers
        server.set_upstreams(servers)
        self._log.info("name servers of the machine", servers=[str(each) for each in servers])

    def _look_for_faults(self, server: DnsServer) -> None:
        forwarder = server.forwarder
        if forwarder is None:
            return
        found: dict[str, str] = {}
        if not forwarder.servers():
            found["none"] = (
                f"{self._resolv_conf} names no name server that can be asked: only names of the "
                "cluster resolve; add a `nameserver` line"
            )
        for address in forwarder.loops():
            found[f"loop {address}"] = (
                f"the name server {address} in {self._resolv_conf} forwards to this node: it is "
                "not asked; name another one"
            )
        before = self._state.faults
        now_s = self._clock.unix_s()
        self._state.faults = {
            what: before.get(what) or Fault(FaultKind.NETWORK_BROKEN, now_s, message)
            for what, message in found.items()
        }
        for what in found.keys() - before.keys():
            self._log.warning("name server has a fault", fault=found[what])


class _Stop:
    """Stops the server from another thread, also before it has begun."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_stopped = False
        self._armed: tuple[asyncio.AbstractEventLoop, tuple[asyncio.Task[None], ...]] | None = None

    def arm(self, loop: asyncio.AbstractEventLoop, *tasks: asyncio.Task[None]) -> None:
        """Set what is to be cancelled; called on that loop."""
        with self._lock:
            self._armed = (loop, tasks)
            is_stopped = self._is_stopped
        if is_stopped:
            for task in tasks:
                task.cancel()

    def now(self) -> None:
        """Cancel; called on another thread. Twice is once."""
        with self._lock:
            self._is_stopped = True
            armed = self._armed
        if armed is not None:
            loop, tasks = armed
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                for task in tasks:
                    loop.call_soon_threadsafe(task.cancel)


def _raise_failure(task: asyncio.Future[None]) -> None:
    """Raise what a task failed with; of several things that failed together the first."""
    if not task.done() or task.cancelled():
        return
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None:
        raise error


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # that loop has ended: its owner knows
        loop.call_soon_threadsafe(what)


def _read(path: Path) -> str:
    """Return a file's beginning; a file that is not there is empty, as for C libraries."""
    try:
        with path.open("rb") as file:
            return file.read(RESOLV_CONF_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
