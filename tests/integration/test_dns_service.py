"""Does the node's name server follow gossip in its own process, start, stop, fail and explain?"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dns.asyncquery
import dns.message
import psutil
import pytest
import structlog

from dray.addresses import HostPort
from dray.clock import SystemClock
from dray.errors import FailedPrecondition, InvalidRequest, Unavailable
from dray.model import FactView, FaultKind, Health, MemberState
from dray.views import DnsQuery
from node.dns.config import ServerConfig
from node.dns.service import NodeDns
from node.dns.zone import ZoneConfig
from tests.dns_world import (
    HOME,
    RANGES,
    WEB,
    World,
    an_asker,
    an_endpoint,
    node_id,
    query_bytes,
    texts,
)

HOST = "127.0.84.1"
CLIENT = "127.0.84.11"
LIMIT_S = 10.0
LOOK_AGAIN_S = 0.01


class Source:
    """Gossip, as far as the name server knows it: a world whose changes are announced."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._changed = asyncio.Condition()
        self._view: FactView = world.view()

    def view(self) -> FactView:
        """Return the newest view that was announced."""
        return self._view

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a newer view, once there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._view.sequence > after_sequence)
            return self._view

    async def announce(self) -> None:
        """Let the world of now be the newest view."""
        async with self._changed:
            self._view = self.world.view()
            self._changed.notify_all()


def a_service(source: Source, *, host: str = HOST, port: int = 0, conf: Path) -> NodeDns:
    """Return a name server that does not run yet."""
    config = ServerConfig(ZoneConfig(node_id(HOME), RANGES), (HostPort(host, port),))
    return NodeDns(
        config, source, clock=SystemClock(), log=structlog.get_logger(), resolv_conf=conf
    )


@contextlib.asynccontextmanager
async def running(service: NodeDns) -> AsyncIterator[None]:
    """Run a name server while the block does."""
    task = asyncio.create_task(service.run())
    try:
        await reached(lambda: task.done() or bool(service.addresses()))
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(LOOK_AGAIN_S)


async def ask(service: NodeDns, name: str) -> list[str]:
    """Return the addresses that the client gets for a name, sorted."""
    return await ask_at(service.addresses()[0], name)


async def ask_at(where: HostPort, name: str) -> list[str]:
    """Return the addresses that the client gets for a name at an address, sorted."""
    query = dns.message.from_wire(query_bytes(name))
    answer = await dns.asyncquery.udp(query, where.host, LIMIT_S, where.port, CLIENT)
    return sorted(texts(answer))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Return a resolv.conf that names no server."""
    path = tmp_path / "resolv.conf"
    path.write_text("search example.com\n")
    return path


async def test_it_follows_gossip(conf: Path) -> None:
    """A change that gossip learns of is in the answers at once; clients are told at any time."""
    world = World()
    world.web(1)
    source = Source(world)
    service = a_service(source, conf=conf)
    service.set_clients({CLIENT: an_asker("shop")})
    async with running(service):
        assert await ask(service, "web") == ["10.192.0.1"]
        world.web(2)
        await source.announce()
        async with asyncio.timeout(LIMIT_S):
            while await ask(service, "web") != ["10.192.0.2"]:
                await asyncio.sleep(0)
        service.set_clients({CLIENT: an_asker("blog")})
        async with asyncio.timeout(LIMIT_S):
            while await ask(service, "web.shop.dray.internal"):
                await asyncio.sleep(0)
        await reached(lambda: service.counts().received > 2)
    assert service.addresses() == ()


async def test_a_busy_agent_delays_nobody(conf: Path) -> None:
    """While the agent's loop is blocked the server answers."""
    world = World()
    world.web(1)
    service = a_service(Source(world), conf=conf)
    service.set_clients({CLIENT: an_asker("shop")})
    async with running(service):
        where = service.addresses()[0]

        answered = threading.Event()

        def ask_blocking() -> bytes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.bind((CLIENT, 0))
                out.settimeout(LIMIT_S)
                out.sendto(query_bytes("web"), (where.host, where.port))
                data = out.recv(4_096)
            answered.set()
            return data

        asking = asyncio.get_running_loop().run_in_executor(None, ask_blocking)
        ends_at_s = time.monotonic() + LIMIT_S
        while not answered.is_set() and time.monotonic() < ends_at_s:
            pass  # this loop does nothing else meanwhile
        assert answered.is_set()
        assert list(texts(dns.message.from_wire(await asking))) == ["10.192.0.1"]


async def test_it_starts_again(conf: Path) -> None:
    """After it was cancelled it can be run again, with the clients that it was told of."""
    world = World()
    world.web(1)
    service = a_service(Source(world), conf=conf)
    service.set_clients({CLIENT: an_asker("shop")})
    for _ in range(2):
        async with running(service):
            assert await ask(service, "web") == ["10.192.0.1"]
        with pytest.raises(FailedPrecondition, match="does not run"):
            await service.explain(DnsQuery("web"))


async def test_a_server_that_dies_is_started_again(conf: Path) -> None:
    """Queries wait meanwhile, and none is lost; the new one knows what the old one did."""
    world = World()
    world.web(1)
    source = Source(world)
    service = a_service(source, conf=conf)
    service.set_clients({CLIENT: an_asker("shop")})
    async with running(service):
        first, where = service.process_id, service.addresses()[0]
        assert first is not None
        world.web(2)
        await source.announce()
        os.kill(first, signal.SIGKILL)
        await reached(lambda: service.process_id not in (None, first))
        assert await ask_at(where, "web") == ["10.192.0.2"]
        await reached(lambda: bool(service.addresses()))
        world.web(3)
        await source.announce()
        async with asyncio.timeout(LIMIT_S):
            while await ask(service, "web") != ["10.192.0.3"]:
                await asyncio.sleep(0)


ORPHAN = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.dns_world import World
from tests.integration.test_dns_service import Source, a_service

async def main():
    service = a_service(Source(World()), host="127.0.84.2", conf=Path("/nowhere"))
    running = asyncio.create_task(service.run())
    while not service.addresses():
        assert not running.done()
        await asyncio.sleep(0.01)
    print(service.process_id, flush=True)
    await running

asyncio.run(main())
"""


def is_alive(process_id: int) -> bool:
    """Return whether a process runs."""
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_server_ends_with_its_parent() -> None:
    """A daemon that is killed leaves no server behind that takes its successor's queries."""
    root = str(Path(__file__).parents[2])
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ORPHAN, root), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        async with asyncio.timeout(60.0):
            while not (line := await parent.stdout.readline()).strip().isdigit():
                assert line, "it ended by itself"  # else a line of its log
        child = int(line)
        assert await asyncio.to_thread(is_alive, child)
    finally:
        parent.kill()
        await parent.communicate()
    async with asyncio.timeout(LIMIT_S):
        while await asyncio.to_thread(is_alive, child):
            await asyncio.sleep(LOOK_AGAIN_S)


async def test_a_taken_address(conf: Path) -> None:
    """When its address is taken, `run` says which, as an error that is worth another try."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((HOST, 0))
        port = other.getsockname()[1]
        service = a_service(Source(World()), port=port, conf=conf)
        with pytest.raises(Unavailable, match=rf"{HOST}:{port}") as raised:
            await service.run()
    assert raised.value.retryable


async def test_faults_of_upstreams(conf: Path) -> None:
    """No server to ask is a fault with its next step, until the machine's file names one."""
    service = a_service(Source(World()), conf=conf)
    async with running(service):
        await reached(lambda: len(service.problems()) == 1)
        (fault,) = service.problems()
        assert fault.kind is FaultKind.NETWORK_BROKEN
        assert f"{conf} names no name server" in fault.message
        await asyncio.to_thread(conf.write_text, "nameserver 127.0.0.253\n")
        await reached(lambda: service.problems() == ())


async def test_explanations(conf: Path) -> None:
    """An explanation names the records, each endpoint with the reason, and where it comes from."""
    world = World()
    world.publish(
        "b",
        WEB,
        an_endpoint(1, "10.192.0.1"),
        an_endpoint(2, "10.192.0.2", health=Health.UNHEALTHY),
    )
    world.publish("c", WEB, an_endpoint(3, "10.192.2.3"))
    world.set_member("c", MemberState.DEAD)
    service = a_service(Source(world), conf=conf)
    async with running(service):
        answer = await service.explain(DnsQuery("web", project="shop", service="web"))
        assert (answer.name, answer.code) == ("web.shop.dray.internal.", "NOERROR")
        assert answer.records == ("web.shop.dray.internal. 1 IN A 10.192.0.1",)
        told = [(each.node_name, each.is_used, each.reason) for each in answer.endpoints]
        assert told == [
            ("b", True, "healthy"),
            ("b", False, "unhealthy"),
            ("c", False, "node is dead"),
        ]
        assert (answer.source, answer.is_last_resort) == ("endpoints", False)
        node = await service.explain(DnsQuery("b.node.dray.internal"))
        assert (node.source, len(node.records)) == ("node", 1)
        nothing = await service.explain(DnsQuery("no.shop.dray.internal", "SRV"))
        assert (nothing.code, nothing.records) == ("NXDOMAIN", ())
        upstream = await service.explain(DnsQuery("www.example.com"))
        assert (upstream.code, upstream.source) == ("SERVFAIL", "upstream: no server answered")
        for query in (
            DnsQuery("web", "NO-SUCH-TYPE"),
            DnsQuery("x" * 70),
            DnsQuery("web", project="shop", service="no"),
            DnsQuery("web", project="nope"),
        ):
            with pytest.raises(InvalidRequest):
                await service.explain(query)


async def test_explanation_of_the_last_resort(conf: Path) -> None:
    """With nothing ready an explanation says that the last known endpoints are served."""
    world = World()
    world.publish("b", WEB, an_endpoint(1, "10.192.0.1", health=Health.UNHEALTHY))
    source = Source(world)
    service = a_service(source, conf=conf)
    async with running(service):
        answer = await service.explain(DnsQuery("web.shop.dray.internal"))
        assert answer.is_last_resort
        assert len(answer.records) == 1
        with_vip = dataclasses.replace(an_endpoint(1, "10.192.0.1"), health=Health.HEALTHY)
        world.publish("b", WEB, with_vip, vip="10.224.0.1")
        await source.announce()
        async with asyncio.timeout(LIMIT_S):
            while answer.source != "the service's own address":
                answer = await service.explain(DnsQuery("web.shop.dray.internal"))
        assert not answer.is_last_resort
        assert answer.endpoints[0].is_used
