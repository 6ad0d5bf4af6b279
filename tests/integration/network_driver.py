"""A machine's network on a host of the lab, driven from outside: `python -m … FOLDER`.

Runs the product's `MachineNetwork` inside the host. Requests come in and answers go out as lines of
base 64: pickled values of this repository, between two processes of one test.
"""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import pickle
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog

from dray.addresses import HostPort
from dray.clock import SystemClock
from dray.errors import DrayError
from dray.log import get_logger
from dray.model import Fact, FactView, Member, TaskAssignment, TaskTemplate
from node.dns.resolvconf import DNS_PORT
from node.dns.serve import ServerConfig
from node.dns.service import NodeDns
from node.dns.zone import ZoneConfig
from node.doctor import examine, report
from node.gossip.facts import FactStore
from node.network.engine import EngineNetworks
from node.network.ipam import gateway
from node.network.network import MachineNetwork
from node.ports import NetworkConfig

HANDOVER_MAX_S = 600.0  # so that it ends when the test says what there is, and never before
DOCKER_SOCKET = Path("/run/docker.sock")


def packed(value: object) -> bytes:
    """Return a value as one line."""
    return base64.b64encode(pickle.dumps(value)) + b"\n"


def unpacked(line: bytes) -> Any:
    """Return the value of a line."""
    return pickle.loads(base64.b64decode(line))  # noqa: S301 - from the test that started us


class Facts:
    """The fact store of gossip, filled by the test in place of peers."""

    def __init__(self) -> None:
        self.store = FactStore()
        self.followed = -1
        self._moved = asyncio.Condition()

    async def add(self, changes: Iterable[Member | Fact]) -> None:
        """Merge changes, and wait until whoever follows has taken them over."""
        for change in changes:
            if isinstance(change, Member):
                self.store.put_member(change)
            else:
                self.store.merge(change, 0.0)
        wanted = self.store.view().sequence
        async with self._moved:
            self._moved.notify_all()
            await self._moved.wait_for(lambda: self.followed >= wanted)

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a view with a higher sequence, once there is one."""
        async with self._moved:
            self.followed = after_sequence
            self._moved.notify_all()
        return await self.newer(after_sequence)

    async def newer(self, after_sequence: int) -> FactView:
        """Return a view with a higher sequence to somebody who is not waited for."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.store.view().sequence > after_sequence)
            return self.store.view()


class ReadFacts:
    """The same facts for a reader that nobody waits for."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def view(self) -> FactView:
        """Return the newest view."""
        return self._facts.store.view()

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a view with a higher sequence, once there is one."""
        return await self._facts.newer(after_sequence)


class Driver:
    """What a test can ask for, beside every method of the network itself."""

    def __init__(self, folder: Path) -> None:
        self.network = MachineNetwork(
            folder,
            EngineNetworks(DOCKER_SOCKET),
            clock=SystemClock(),
            log=get_logger("network"),
            resolv_conf=_resolv_conf,
            handover_max_s=HANDOVER_MAX_S,
        )
        self.facts = Facts()
        self.names: asyncio.Task[None] | None = None

    async def serve_names(self, config: NetworkConfig) -> None:
        """Answer names at the node's own address in its subnet, from the same facts."""
        server = NodeDns(
            ServerConfig(
                ZoneConfig(config.node_id, (config.range_cidr, config.vip_range_cidr)),
                (HostPort(gateway(config.subnet), DNS_PORT),),
                (config.subnet,),
            ),
            ReadFacts(self.facts),
            clock=SystemClock(),
            log=get_logger("dns"),
        )
        self.names = asyncio.create_task(_served(server))

    async def doctor(self, config: NetworkConfig) -> list[str]:
        """Return what `dray node doctor` prints about the host."""
        engine, out = EngineNetworks(DOCKER_SOCKET), io.StringIO()
        try:
            report(await examine(config, engine), out)
        finally:
            await engine.close()
        return out.getvalue().splitlines()

    async def add_facts(self, *changes: Member | Fact) -> None:
        """Let gossip tell of these, and wait until the table has followed."""
        await self.facts.add(changes)

    async def problems(self) -> list[str]:
        """Return the sentences of the node's faults."""
        return [fault.message for fault in self.network.problems()]

    async def answer(self, name: str, arguments: tuple[Any, ...]) -> object:
        """Carry out one request."""
        method = getattr(self, name, None) or getattr(self.network, name)
        try:
            return ("done", await method(*arguments))
        except DrayError as error:
            return ("failed", str(error))


async def _served(server: NodeDns) -> None:
    """Run a name server; one of a daemon that was killed may hold the port for a moment yet."""
    while True:
        try:
            await server.run()
        except DrayError as error:
            print(f"names are not served: {error}", file=sys.stderr)
        await asyncio.sleep(0.5)


def _resolv_conf(task: TaskAssignment, template: TaskTemplate, resolver: str) -> str:
    return f"# {task.slot.service} {template.network_mode.name}\nnameserver {resolver}\n"


async def _main(folder: Path) -> None:
    driver = Driver(folder)
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue(maxsize=100)

    def read() -> None:
        for line in sys.stdin.buffer:
            asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()
        asyncio.run_coroutine_threadsafe(lines.put(b""), loop)

    threading.Thread(target=read, daemon=True).start()
    loops = [
        asyncio.create_task(driver.network.follow(driver.facts)),
        asyncio.create_task(driver.network.keep()),
    ]
    while line := await lines.get():
        name, arguments = unpacked(line)
        sys.stdout.buffer.write(packed(await driver.answer(name, arguments)))
        sys.stdout.buffer.flush()
        for each in (*loops, *filter(None, [driver.names])):
            if each.done():
                each.result()
    for each in (*loops, *filter(None, [driver.names])):
        each.cancel()
    if driver.names is not None:
        await asyncio.wait([driver.names])  # its thread ends with it
    await driver.network.close()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(_main(Path(sys.argv[1])))
