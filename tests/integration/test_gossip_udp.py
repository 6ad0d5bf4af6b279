"""Do cores find each other, and the dead, over real sockets and a real clock?"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

from dray.errors import InvalidRequest
from dray.model import FactKey, FactView, MemberState
from node.gossip.core import Address, Core, Effect, Join, Leave, MemberChanged, PublishFact
from node.gossip.driver import UdpDriver, bind
from node.gossip.parameters import Parameters
from node.gossip.simple import Identity, SimpleCore
from tests.simulation.gossip_cluster import CLUSTER_ID, node_id_of

QUICK = Parameters(probe_period_s=0.2, probe_timeout_s=0.06, probe_verdict_s=0.18, suspicion_s=1.0)
LIMIT_S = 20.0
LOOK_AGAIN_S = 0.02


class Node:
    """A core with its driver, and what it told."""

    def __init__(self, name: str, seeds: tuple[Address, ...]) -> None:
        bound = bind(Address("127.0.0.1", 0))
        self.name = name
        self.address = Address("127.0.0.1", bound.getsockname()[1])
        identity = Identity(CLUSTER_ID, node_id_of(name), name, self.address, 1)
        self.core: Core = SimpleCore(identity, QUICK, random.Random(name))
        self.told: list[Effect] = []
        self.driver = UdpDriver(self.core, bound, self.told.append)
        self.driver.handle(Join(seeds))

    def view(self) -> FactView:
        """Return what it knows."""
        return self.core.view()

    def holds(self, name: str) -> MemberState | None:
        """Return what it holds another to be."""
        member = self.view().member(node_id_of(name))
        return member.state if member is not None else None


@contextlib.asynccontextmanager
async def three_nodes() -> AsyncIterator[list[Node]]:
    """Give three nodes that know each other; close them afterwards."""
    nodes = [Node("a", ())]
    nodes += [Node(name, (nodes[0].address,)) for name in "bc"]
    try:
        await reached(
            lambda: all(n.holds(name) is MemberState.ALIVE for n in nodes for name in "abc")
        )
        yield nodes
    finally:
        for node in nodes:
            node.driver.close()


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(LOOK_AGAIN_S)


async def test_facts_and_a_death_over_udp() -> None:
    """Three nodes share a fact; when one falls silent the others hold it dead, and are told."""
    async with three_nodes() as (a, b, c):
        key = FactKey(node_id_of("a"), "node:address")
        large = FactKey(node_id_of("a"), "node:large")
        a.driver.handle(PublishFact(key.name, b"here"))
        a.driver.handle(PublishFact(large.name, bytes(12_000)))
        await reached(
            lambda: all(n.view().fact(k) is not None for n in (b, c) for k in (key, large))
        )
        c.driver.close()
        await reached(lambda: {a.holds("c"), b.holds("c")} == {MemberState.DEAD})
        states = [e.after.state for e in a.told if isinstance(e, MemberChanged)]
        assert states[-2:] == [MemberState.SUSPECT, MemberState.DEAD]


async def test_leaving_over_udp() -> None:
    """A node that leaves is LEFT to the others, without a suspicion."""
    async with three_nodes() as (a, b, c):
        c.driver.handle(Leave())
        await reached(lambda: {a.holds("c"), b.holds("c")} == {MemberState.LEFT})
        assert a.holds("b") is MemberState.ALIVE


async def test_only_loopback() -> None:
    """An address that others can reach is refused before anything is bound."""
    for host in ("0.0.0.0", "192.0.2.1", "::"):  # noqa: S104 - refused
        with pytest.raises(InvalidRequest, match="not encrypted"):
            bind(Address(host, 0))
