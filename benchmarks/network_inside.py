"""What does the network's part cost that runs inside a host? Prints JSON; see `benchmarks.network`.

`python -m benchmarks.network_inside table|peers ADDRESS`
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog

from dray.clock import SystemClock
from dray.log import get_logger
from dray.model import (
    Endpoint,
    Epoch,
    Fact,
    FactKey,
    FactVersion,
    Health,
    Member,
    MemberState,
    PublishedPort,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
)
from dray.names import NodeId, TaskId, id_text
from node.gossip.facts import FactStore
from node.gossip.packing import pack_service, service_fact_name
from node.network.balancer import Balancer
from node.network.claims import Claims
from node.network.commands import run_tool
from node.network.engine import EngineNetworks
from node.network.firewall import Firewall
from node.network.network import MachineNetwork
from node.network.ruleset import TABLE, TUNNEL
from node.network.tables import Tables
from node.ports import NetworkConfig, NetworkPeer

SERVICES: Final = 1_000
ENDPOINTS: Final = 10
NODES: Final = 20
PEERS: Final = 500
REPEATS: Final = 7
CHANGES: Final = 21

Figures = dict[str, dict[str, float]]
"""By what was done: "median" and "best" milliseconds, and "processor": those of all processes."""


def node_id(number: int) -> NodeId:
    """Return the id of a numbered node."""
    return NodeId(id_text(number.to_bytes(16, "big")))


def config(address: str, peers: int, *, moved: int = -1) -> NetworkConfig:
    """Return a node's network with so many peers; one of them has moved."""
    others = tuple(
        NetworkPeer(
            node_id(number + 1),
            f"192.0.2.{number % 250}"
            if number == moved
            else f"198.18.{number // 250}.{number % 250}",
            f"10.{193 + number // 128}.{number % 128 * 2}.0/23",
        )
        for number in range(peers)
    )
    return NetworkConfig(
        node_id(0), address, "10.192.2.0/23", "10.192.0.0/11", "10.224.0.0/16", peers=others
    )


def facts_of(service: int, version: int, first_node: int = 0) -> Iterable[Fact]:
    """Yield what nodes publish about a service: its endpoints, one a node."""
    key = ServiceKey(f"p{service % 10}", f"s{service}")
    for slot in range(1, ENDPOINTS + 1):
        node = (service + slot + first_node) % NODES
        number = service * ENDPOINTS + slot
        endpoint = Endpoint(
            SlotKey(key.project, key.service, slot),
            TaskId(id_text((number * 100 + version).to_bytes(16, "big"))),
            Epoch(1, 1),
            f"10.{193 + node}.{number // 250}.{(number + version) % 250 + 2}",
            health=Health.HEALTHY,
            networks=(f"{key.project}_default",),
        )
        facts = ServiceFacts(
            ServiceRevision(1),
            f"10.224.{service // 250}.{service % 250 + 1}",
            (PublishedPort(80, 20_000 + service),) if service % 10 == 0 else (),
            endpoints=(endpoint,),
        )
        value = pack_service(facts)
        assert isinstance(value, bytes)
        fact_key = FactKey(node_id(node), service_fact_name(key))
        yield Fact(fact_key, FactVersion(1, version), value)


def processor_ms() -> float:
    """Return the processor time that this process and those that it waited for have taken."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used) * 1_000


def shown(took_ms: Sequence[float], used_ms: float | None = None) -> dict[str, float]:
    """Return the figures of some calls that took `used_ms` of processor time together."""
    figures = {"median": round(statistics.median(took_ms), 1), "best": round(min(took_ms), 1)}
    if used_ms is not None:
        figures["processor"] = round(used_ms / len(took_ms), 1)
    return figures


class TimedFirewall(Firewall):
    """Notes how long each change of the table took, in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.took_ms: list[float] = []

    def update(self, tables: Tables) -> None:
        """Write what changed."""
        begin_s = time.perf_counter()
        super().update(tables)
        self.took_ms.append((time.perf_counter() - begin_s) * 1_000)


def measured(do: Callable[[], object], repeats: int = REPEATS) -> dict[str, float]:
    """Return what some calls cost."""
    took: list[float] = []
    used_ms = processor_ms()
    for _ in range(repeats):
        begin_s = time.perf_counter()
        do()
        took.append((time.perf_counter() - begin_s) * 1_000)
    return shown(took, processor_ms() - used_ms)


def table(address: str) -> Figures:
    """1,000 services of 10 endpoints: the whole table, and one endpoint of it."""
    store, claims = FactStore(), Claims()
    for number in range(NODES):
        name = f"n{number}"
        store.put_member(Member(node_id(number), name, "192.0.2.1", 1, 1, 0, MemberState.ALIVE))
    for service in range(SERVICES):
        for fact in facts_of(service, 1):
            store.merge(fact, 0.0)
    firewall = TimedFirewall()
    balancer = Balancer(config(address, NODES), firewall, claims)

    def begin() -> None:
        balancer.set_view(store.view())
        balancer.write()

    figures = {"read all facts and write the table": measured(begin, 1)}
    figures["write the whole table"] = measured(balancer.rebuild)
    versions = iter(range(2, 1_000))

    def change() -> None:
        for fact in facts_of(500, next(versions)):
            if fact.key.node_id == node_id(501 % NODES):
                store.merge(fact, 0.0)
        balancer.set_view(store.view())
        balancer.write()

    figures["change one endpoint, connections ended"] = measured(change, CHANGES)
    figures["change one endpoint, until packets go there"] = shown(firewall.took_ms)
    figures["look whether it is whole"] = measured(balancer.is_whole)
    claims.close()
    return figures


async def peers(address: str) -> Figures:
    """500 peers: everything from nothing, nothing to do, all lost, and one that has moved."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        engine = EngineNetworks(Path("/run/docker.sock"))
        network = MachineNetwork(
            Path(folder), engine, clock=SystemClock(), log=get_logger("network")
        )
        all_peers = config(address, PEERS)

        async def ensure(
            name: str, *wanted: NetworkConfig, before: Sequence[Sequence[str]] = ()
        ) -> None:
            took_ms, late_ms, used_ms = [], [], 0.0
            for each in wanted:
                for command in before:
                    run_tool(*command)
                used_before_ms = processor_ms()
                took, late = await timed(network.ensure(each))
                used_ms += processor_ms() - used_before_ms
                took_ms.append(took)
                late_ms.append(late)
            figures[name] = shown(took_ms, used_ms)
            figures[name]["event loop late at most"] = round(max(late_ms), 1)

        await ensure("a new machine, one peer", config(address, 1))
        await ensure(f"{PEERS} peers come at once", all_peers)
        await ensure(f"{PEERS} peers, nothing to do", *(all_peers,) * REPEATS)
        moved = tuple(config(address, PEERS, moved=number) for number in range(CHANGES))
        await ensure(f"{PEERS} peers, one moves", *moved)
        lost = (("ip", "link", "delete", TUNNEL), ("nft", "delete", "table", "ip", TABLE))
        await ensure(
            f"{PEERS} peers, tunnel, routes and table are lost",
            *(moved[-1],) * REPEATS,
            before=lost,
        )
        await network.close()
    return figures


async def timed(doing: Awaitable[None]) -> tuple[float, float]:
    """Return the milliseconds that something takes, and how late the event loop was meanwhile."""
    late_s, running = 0.0, True

    async def tick() -> None:
        nonlocal late_s
        while running:
            begin_s = time.perf_counter()
            await asyncio.sleep(0.001)
            late_s = max(late_s, time.perf_counter() - begin_s - 0.001)

    ticking = asyncio.create_task(tick())
    begin_s = time.perf_counter()
    await doing
    took_s = time.perf_counter() - begin_s
    running = False
    await ticking
    return took_s * 1_000, late_s * 1_000


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    what, own_address = sys.argv[1:]
    found = table(own_address) if what == "table" else asyncio.run(peers(own_address))
    print(json.dumps(found))
