"""Do the resolvers of C libraries find names with the resolv.conf that containers get?"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dray.addresses import HostPort
from dray.clock import SystemClock
from node.dns.config import ServerConfig
from node.dns.resolvconf import container_resolv_conf
from node.dns.serve import DnsServer
from node.dns.zone import ZoneConfig
from tests.dns_upstream import an_upstream
from tests.dns_world import HOME, RANGES, WEB, World, an_asker, an_endpoint, node_id

HOST = "127.0.85.1"  # port 53 of it: a resolv.conf has no place for another one
CLIENT = "127.0.0.1"  # what the kernel gives who does not choose
LIMIT_S = 20.0


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Return the resolv.conf of a container of shop."""
    path = tmp_path / "resolv.conf"
    path.write_text(container_resolv_conf((HOST,), "shop"))
    return path


@contextlib.asynccontextmanager
async def a_server() -> AsyncIterator[World]:
    """Give a cluster whose names are answered at `HOST`, and all others upstream."""
    world = World()
    aliases = (("shop_default", "db.test"),)
    slots = range(1, 251)
    world.publish(
        "b",
        WEB,
        *(an_endpoint(n, f"10.192.0.{n}", aliases=aliases if n == 7 else ()) for n in slots),
    )
    config = ServerConfig(ZoneConfig(node_id(HOME), RANGES), (HostPort(HOST, 53),))
    rng = random.Random(1)
    server = DnsServer(config, clock=SystemClock(), rng=rng, id_rng=rng)
    server.set_clients({CLIENT: an_asker("shop")})
    server.update(world.view())
    ready = asyncio.Event()
    async with an_upstream() as upstream, asyncio.TaskGroup() as group:
        running = group.create_task(server.run(ready.set))
        await ready.wait()
        server.set_upstreams((upstream.where,))
        try:
            yield world
        finally:
            running.cancel()


async def output(conf: Path, command: str) -> list[str]:
    """Return the lines that a command prints where `conf` is the machine's resolv.conf."""
    script = f"mount --bind {conf} /etc/resolv.conf && exec {command}"
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "sh", "-c", script, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LIMIT_S):
        told, _ = await process.communicate()
    return told.decode().splitlines()


async def test_glibc(conf: Path) -> None:
    """Short and full names, slots, aliases with dots, reverse names, and names of others."""
    async with a_server():
        for name in ("web", "web.shop", "web.shop.dray.internal", "tasks.web"):
            lines = await output(conf, f"getent ahostsv4 {name}")
            found = {line.split()[0] for line in lines}
            assert len(found) == 250, name  # more than a datagram holds: it asks again over TCP
        for name, address in {
            "1.web": "10.192.0.1",
            "250.web.shop.dray.internal": "10.192.0.250",
            "db.test": "10.192.0.7",
            "www.example.com": "192.0.2.200",
        }.items():
            lines = await output(conf, f"getent ahostsv4 {name}")
            assert {line.split()[0] for line in lines} == {address}, name
        (line,) = await output(conf, "getent hosts 10.192.0.7")
        assert line.split() == ["10.192.0.7", "7.web.shop.dray.internal"]
        assert await output(conf, "getent ahosts no.shop.dray.internal") == []


async def test_busybox(conf: Path) -> None:
    """A resolver of its own agrees, with both families asked for."""
    async with a_server():
        lines = await output(conf, "busybox nslookup 1.web.shop.dray.internal")
        assert f"Server:\t\t{HOST}" in lines
        assert [line for line in lines if "10.192.0.1" in line]
