"""The name server's own process: `python -m node.dns.child`, started by `service.py` alone.

It has a process to itself so that nobody waits for a name while the agent or gossip computes. It
gets listening sockets and one end of a pair of sockets from its parent, learns over that what to
answer (`feed.py`), and ends when the parent does: by the other end's closing, and by a signal of
the kernel should it be too busy to notice.
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import gc
import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

from dray.addresses import HostPort
from dray.clock import Clock, SystemClock
from dray.errors import InvalidRequest
from node.dns.config import ServerConfig
from node.dns.feed import Json, Mirror, asker_from, config_from, endpoint_of
from node.dns.frames import Kind, frame, read_frame
from node.dns.resolvconf import parse_resolv_conf, upstreams_of
from node.dns.serve import DnsServer, pause
from node.dns.sockets import BoundSockets
from node.dns.urgency import LOOK_S, Urgency, apply

__all__ = ["main"]

RESOLV_CONF_BYTES_MAX: Final = 65_536
RESOLV_CONF_EVERY_S: Final = 2  # how soon a changed list of name servers is noticed
READ_BYTES_MAX: Final = 2**20  # of messages read ahead
# What lives long is not looked at again and again: a full collection stops all answers for as long
# as it takes, some 30 ms with 10,000 endpoints.
COLLECT_AFTER: Final = (50_000, 20, 1_000)
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


class _Child:
    """The server, and what it hears from its parent and tells it."""

    def __init__(
        self, config: ServerConfig, resolv_conf: Path, writer: asyncio.StreamWriter, clock: Clock
    ) -> None:
        system = random.SystemRandom()
        rng = random.Random(system.getrandbits(64))
        self._config = config
        self._resolv_conf = resolv_conf
        self._writer = writer
        self._clock = clock
        self._mirror = Mirror()
        self._server = DnsServer(config, clock=clock, rng=rng, id_rng=system)
        self._upstreams: tuple[HostPort, ...] | None = None

    async def run(self, reader: asyncio.StreamReader, bound: BoundSockets) -> None:
        """Serve until the parent is gone."""
        async with asyncio.TaskGroup() as group:
            started: list[asyncio.Task[None]] = []
            while (message := await read_frame(reader)) is not None:
                kind, *arguments = message
                if kind == Kind.START:
                    _settle_memory()
                    started.append(group.create_task(self._server.run(self._ready, bound)))
                    started.append(group.create_task(self._watch()))
                    started.append(group.create_task(self._stay_modest()))
                elif kind == Kind.EXPLAIN:
                    group.create_task(self._explain(*arguments))
                elif kind == Kind.SERVICES:
                    await self._take(arguments[0])
                else:
                    self._hear(kind, arguments)
                await pause()
            for each in started:
                each.cancel()

    async def _take(self, services: list[Json]) -> None:
        """Take over services as they are now, one by one; queries have their turn in between."""
        for each in services:
            await pause()
            taken = self._mirror.put((each,))
            await pause()
            self._server.take(self._mirror, taken)

    def _hear(self, kind: str, arguments: list[Json]) -> None:
        """Take over what else the parent says."""
        if kind == Kind.MEMBERS:
            self._mirror.set_members(arguments[0])
            self._server.take(self._mirror, ())
        elif kind == Kind.CLIENTS:
            clients = {address: asker_from(asker) for address, asker in arguments[0].items()}
            self._server.set_clients(clients)
        else:
            raise AssertionError(kind)

    def _ready(self) -> None:
        self._writer.write(frame(Kind.READY))

    async def _explain(self, number: int, query: Json) -> None:
        # Here since few ask, and what it needs takes memory.
        from dray.views import DnsQuery
        from node.dns.explain import explain

        try:
            found = await explain(DnsQuery(*query), self._server)
        except InvalidRequest as error:
            self._writer.write(frame(Kind.EXPLAINED, number, None, [error.message, error.hint]))
            return
        endpoints = [
            [endpoint_of(each.endpoint), each.node_id, each.node_name, each.is_used, each.reason]
            for each in found.endpoints
        ]
        told = [found.name, found.code, found.records, endpoints, found.source]
        self._writer.write(frame(Kind.EXPLAINED, number, [*told, found.is_last_resort], []))

    async def _watch(self) -> None:
        """Keep the upstream servers up to date, and tell the parent how it goes, each second."""
        turn = 0
        text: str | None = None
        while True:
            if turn % RESOLV_CONF_EVERY_S == 0:
                newer = await asyncio.to_thread(_read, self._resolv_conf)
                if newer != text and self._server.forwarder is not None:
                    text = newer
                    own = (*self._config.listen, *self._server.addresses())
                    self._upstreams = upstreams_of(parse_resolv_conf(text), own)
                    self._server.set_upstreams(self._upstreams)
            counts = dataclasses.astuple(self._server.counts)
            servers = [str(each) for each in self._upstreams or ()]
            self._writer.write(frame(Kind.STATUS, counts, self._faults(), servers))
            await self._clock.sleep(1.0)
            turn += 1

    async def _stay_modest(self) -> None:
        """Run before all others only while little is needed."""
        urgency = Urgency()
        apply(is_urgent=urgency.is_urgent)
        used_s, at_s = time.process_time(), self._clock.monotonic_s()
        while True:
            await self._clock.sleep(LOOK_S)
            now_used_s, now_s = time.process_time(), self._clock.monotonic_s()
            if urgency.note(now_used_s - used_s, now_s - at_s):
                apply(is_urgent=urgency.is_urgent)
            used_s, at_s = now_used_s, now_s

    def _faults(self) -> dict[str, str]:
        forwarder = self._server.forwarder
        if forwarder is None or self._upstreams is None:
            return {}
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
        return found


def _read(path: Path) -> str:
    """Return a file's beginning; a file that is not there is empty, as for C libraries."""
    try:
        with path.open("rb") as file:
            return file.read(RESOLV_CONF_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def _settle_memory() -> None:
    """Take what there is now out of the collector's sight."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def _serve(control: int, bound: BoundSockets) -> None:
    with socket.socket(fileno=control) as own:
        reader, writer = await asyncio.open_unix_connection(sock=own, limit=READ_BYTES_MAX)
        first = await read_frame(reader)
        if first is None:
            return
        kind, config, resolv_conf = first
        assert kind == Kind.CONFIG, kind
        child = _Child(config_from(config), Path(resolv_conf), writer, SystemClock())
        try:
            await child.run(reader, bound)
        finally:
            writer.close()


def _end_with(parent_pid: int) -> None:
    """Let the kernel end this process when its parent ends; end now if that has happened."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(0)


def main() -> None:
    """Run the process; its argument says which descriptors are what."""
    given = json.loads(sys.argv[1])
    _end_with(given["parent"])
    # The parent says when to end, also when a signal meets the whole group.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    apply(is_urgent=False)  # until it has learnt what there is
    bound = BoundSockets(
        [socket.socket(fileno=number) for number in given["udp"]],
        [socket.socket(fileno=number) for number in given["tcp"]],
    )
    for listening in (*bound.udp, *bound.tcp):
        listening.setblocking(False)
    asyncio.run(_serve(given["control"], bound))


if __name__ == "__main__":
    main()
