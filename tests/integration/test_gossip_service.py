"""Does a node's gossip, on its own thread, give the daemon what `Discovery` promises?"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dray.addresses import HostPort
from dray.errors import DrayError
from dray.log import get_logger
from dray.model import (
    FactKey,
    GossipKey,
    MemberState,
    ReachKind,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
)
from node.gossip.core import Address
from node.gossip.identity import Identity
from node.gossip.parameters import Parameters
from node.gossip.service import GossipConfig, GossipService
from node.ports import Discovery
from tests.contract.facts.builders import WEB, endpoint
from tests.lab.ports import free_port
from tests.simulation.gossip_cluster import CLUSTER_ID, node_id_of

LIMIT_S = 20.0
KEYS = (GossipKey(1, bytes(range(32)), primary=True),)
NEW_KEY = GossipKey(2, bytes(32), primary=True)
QUICK = Parameters(probe_period_s=0.2, suspicion_s=0.4)


class Daemon:
    """One node's gossip in this process."""

    def __init__(
        self, name: str, path: Path | None = None, *, life: int = 1, port: int = 0
    ) -> None:
        self.port = port or free_port()
        address = Address("127.0.0.1", self.port)
        identity = Identity(CLUSTER_ID, node_id_of(name), name, address, life)
        config = GossipConfig(identity, QUICK, path)
        rng = random.Random(name)
        self.service = GossipService(config, rng=rng, log=get_logger("gossip"), keys=KEYS)
        self.discovery: Discovery = self.service
        self.task = asyncio.get_running_loop().create_task(self.service.run())

    def holds(self, name: str) -> MemberState | None:
        """Return what it holds another to be."""
        member = self.discovery.view().member(node_id_of(name))
        return member.state if member is not None else None

    async def stop(self) -> None:
        """End it without a word."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@contextlib.asynccontextmanager
async def daemons(*names: str) -> AsyncIterator[list[Daemon]]:
    """Give daemons that know each other; end them afterwards."""
    made = [Daemon(name) for name in names]
    try:
        for one in made:
            one.discovery.join([HostPort("127.0.0.1", made[0].port)])
        await reached(
            lambda: all(one.holds(name) is MemberState.ALIVE for one in made for name in names)
        )
        yield made
    finally:
        for one in made:
            await one.stop()


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.02)


def web(*slots: int) -> ServiceFacts:
    """Return what a node says of shop/web."""
    endpoints = tuple(endpoint(slot) for slot in slots)
    return ServiceFacts(ServiceRevision(3), "10.224.0.7", endpoints=endpoints)


async def test_services_are_seen_everywhere_and_withdrawn() -> None:
    """What one node publishes of a service the others wait for and read; so is its end."""
    async with daemons("a", "b") as (a, b):
        before = b.discovery.view().sequence
        a.discovery.publish_service(WEB, web(1, 2))
        async with asyncio.timeout(LIMIT_S):
            view = await b.discovery.wait_view(before)
            while view.service(WEB) is None:
                view = await b.discovery.wait_view(view.sequence)
        assert view.service(WEB) == web(1, 2)
        assert view.sequence > before
        a.discovery.publish_service(WEB, None)
        async with asyncio.timeout(3.0):
            await a.discovery.withdrawn(WEB)
        await reached(lambda: b.discovery.view().service(WEB) is None)


async def test_withdrawn_without_peers_returns_at_once() -> None:
    """Nobody is there to be told, and gossip may not even run yet."""
    one = Daemon("a")
    async with asyncio.timeout(3.0):
        await one.discovery.withdrawn(WEB)
    one.discovery.publish_service(WEB, web(1))
    await reached(lambda: one.discovery.view().service(WEB) is not None)
    await one.stop()


async def test_a_death_is_evidence() -> None:
    """A peer that ends is refused by its kernel; the evidence says so, first hand and with ages."""
    async with daemons("a", "b", "c") as (a, _b, c):
        number = await a.discovery.wait_evidence(-1)
        await c.stop()
        async with asyncio.timeout(LIMIT_S):
            await a.discovery.wait_evidence(number)
        await reached(lambda: a.holds("c") is MemberState.DEAD)
        await reached(
            lambda: any(
                one.target == node_id_of("c") and one.reach is ReachKind.REFUSED
                for one in a.discovery.evidence()
            )
        )
        (found,) = (one for one in a.discovery.evidence() if one.target == node_id_of("c"))
        assert found.reporter == node_id_of("a")
        assert found.last_contact_s is not None
        assert found.last_contact_s > 0.0
        assert a.service.states() == {MemberState.ALIVE: 2, MemberState.DEAD: 1}
        assert a.service.counted()["suspicions"] + a.service.counted()["deaths"] >= 1
        assert a.service.lateness_s() >= 0.0


async def test_leaving_ends_the_run() -> None:
    """A node that leaves is LEFT to the others, and its gossip ends by itself."""
    async with daemons("a", "b") as (a, b):
        async with asyncio.timeout(LIMIT_S):
            await b.discovery.leave()
            await b.task
        await reached(lambda: a.holds("b") is MemberState.LEFT)


async def test_the_keyring_rotates_while_it_runs() -> None:
    """New key beside the old, new key first, old key gone: nobody is suspected meanwhile."""
    async with daemons("a", "b") as (a, b):
        beside = GossipKey(2, bytes(32))
        old = GossipKey(1, KEYS[0].material)
        for ring in ((KEYS[0], beside), (old, NEW_KEY), (NEW_KEY,)):
            for one in (a, b):
                one.discovery.set_keyring(ring)
            received = b.service.traffic.received
            await reached(lambda r=received: b.service.traffic.received > r + 4)  # type: ignore[misc]
        assert a.holds("b") is b.holds("a") is MemberState.ALIVE
        assert a.service.counted()["suspicions"] == b.service.counted()["suspicions"] == 0


async def test_a_new_key_reaches_the_nodes_in_any_order() -> None:
    """One ring after the other, and one node away all the time: nobody is suspected meanwhile."""
    ring = (NEW_KEY, GossipKey(1, KEYS[0].material))
    async with daemons("a", "b", "c") as (a, b, c):
        for changing in (a, b):  # c never hears of the new key
            changing.discovery.set_keyring(ring)
            probes = c.service.counted()["probes"]
            await reached(lambda p=probes: c.service.counted()["probes"] > p + 8)  # type: ignore[misc]
        c.discovery.publish_service(WEB, web(1))
        await reached(lambda: a.discovery.view().service(WEB) is not None)
        for one in (a, b, c):
            assert one.service.counted()["unanswered"] == 0
            assert one.service.counted()["sealed_dropped"] == 0
        late = Daemon("d")  # started with the old ring, joins by one that has the new one
        try:
            late.discovery.join([HostPort("127.0.0.1", c.port)])
            await reached(lambda: late.holds("a") is late.holds("b") is MemberState.ALIVE)
        finally:
            await late.stop()


async def test_peers_are_found_again_without_seeds(tmp_path: Path) -> None:
    """A restarted node joins by the addresses that it saved, in a new life, and keeps its place."""
    path = tmp_path / "peers"
    async with daemons("a") as (a,):
        first = Daemon("b", path)
        first.discovery.join([HostPort("127.0.0.1", a.port)])
        async with asyncio.timeout(LIMIT_S):
            while not await asyncio.to_thread(path.exists):
                await asyncio.sleep(0.02)
        await first.stop()
        again = Daemon("b", path, life=2, port=first.port)
        try:
            await reached(lambda: again.holds("a") is MemberState.ALIVE)
            await reached(lambda: a.holds("b") is MemberState.ALIVE)
        finally:
            await again.stop()


async def test_a_new_run_publishes_again() -> None:
    """After an end that nobody wanted, the next run has newer views and says all anew."""
    async with daemons("a", "b") as (a, b):
        b.discovery.publish_service(WEB, web(5))
        await reached(lambda: a.discovery.view().service(WEB) == web(5))
        await b.stop()
        before = b.discovery.view().sequence
        b.task = asyncio.get_running_loop().create_task(b.service.run())
        async with asyncio.timeout(LIMIT_S):
            view = await b.discovery.wait_view(before)
        assert view.sequence > before
        await reached(lambda: b.discovery.view().service(WEB) == web(5))
        await reached(lambda: a.holds("b") is MemberState.ALIVE)
        assert a.discovery.view().service(WEB) == web(5)


async def test_a_removed_node_is_gone_for_good() -> None:
    """What an operator removed is LEFT to everybody, though it still speaks."""
    async with daemons("a", "b", "c") as (a, b, _c):
        a.discovery.remove([node_id_of("c")])
        await reached(lambda: {a.holds("c"), b.holds("c")} == {MemberState.LEFT})


async def test_an_address_that_is_taken_is_an_error() -> None:
    """The supervisor learns that the port is taken, and may try again."""
    async with daemons("a") as (a,):
        second = Daemon("b", port=a.port)
        with pytest.raises(DrayError, match="cannot bind"):
            await second.task


async def test_what_cannot_be_packed_changes_nothing() -> None:
    """Too many endpoints are refused with a log line; the value before stands."""
    async with daemons("a") as (a,):
        a.discovery.publish_service(WEB, web(1))
        a.discovery.publish_service(WEB, web(*range(1, 600)))
        a.discovery.publish("node:other", b"x")
        key = FactKey(node_id_of("a"), "node:other")
        await reached(lambda: a.discovery.view().fact(key) is not None)
        assert a.discovery.view().service(WEB) == web(1)
        assert list(a.discovery.view().services()) == [ServiceKey("shop", "web")]
