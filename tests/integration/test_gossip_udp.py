"""Do cores find each other, and the dead, over real sockets and a real clock?"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from dray.errors import InvalidRequest, Unavailable
from dray.model import FactKey, FactView, GossipKey, MemberState, ReachKind
from node.gossip import sockets
from node.gossip.core import Address, Effect, Join, Leave, MemberChanged, PublishFact
from node.gossip.driver import Driver
from node.gossip.identity import Identity
from node.gossip.parameters import Parameters
from node.gossip.sealing import Sealer
from node.gossip.swim import SwimCore
from tests.lab.ports import free_port
from tests.simulation.gossip_cluster import CLUSTER_ID, node_id_of

QUICK = Parameters(probe_period_s=0.2, suspicion_s=0.4, stalled_s=2.0, stalled_check_s=0.3)
LIMIT_S = 20.0
LOOK_AGAIN_S = 0.02
KEY = GossipKey(1, bytes(range(32)), primary=True)
OTHER_KEY = GossipKey(2, bytes(32), primary=True)


class Node:
    """A core with its driver, and what it told."""

    def __init__(self, name: str, seeds: tuple[Address, ...], keys: tuple[GossipKey, ...]) -> None:
        sealer = Sealer(CLUSTER_ID, keys) if keys else None
        self.address = Address("127.0.0.1", free_port())
        bound = sockets.bind(self.address, is_sealed=bool(keys))
        self.name = name
        identity = Identity(CLUSTER_ID, node_id_of(name), name, self.address, 1)
        self.core = SwimCore(identity, QUICK, random.Random(name))
        self.told: list[Effect] = []
        self.driver = Driver(self.core, bound, self.told.append, sealer)
        self.driver.handle(Join(seeds))

    def view(self) -> FactView:
        """Return what it knows."""
        return self.core.view()

    def holds(self, name: str) -> MemberState | None:
        """Return what it holds another to be."""
        member = self.view().member(node_id_of(name))
        return member.state if member is not None else None


@contextlib.asynccontextmanager
async def three_nodes(*keys: GossipKey) -> AsyncIterator[list[Node]]:
    """Give three nodes that know each other; close them afterwards."""
    nodes = [Node("a", (), keys)]
    nodes += [Node(name, (nodes[0].address,), keys) for name in "bc"]
    try:
        await reached(
            lambda: all(n.holds(name) is MemberState.ALIVE for n in nodes for name in "abc")
        )
        yield nodes
    finally:
        for node in nodes:
            await node.driver.close()


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(LOOK_AGAIN_S)


async def test_facts_and_a_death_over_udp() -> None:
    """Three nodes share a fact; one whose daemon is gone is dead to the others, as refused."""
    async with three_nodes(KEY) as (a, b, c):
        key = FactKey(node_id_of("a"), "node:address")
        large = FactKey(node_id_of("a"), "node:large")
        a.driver.handle(PublishFact(key.name, b"here"))
        a.driver.handle(PublishFact(large.name, bytes(12_000)))
        await reached(
            lambda: all(n.view().fact(k) is not None for n in (b, c) for k in (key, large))
        )
        await c.driver.close()
        await reached(lambda: {a.holds("c"), b.holds("c")} == {MemberState.DEAD})
        states = [e.after.state for e in a.told if isinstance(e, MemberChanged)]
        assert states[-2:] == [MemberState.SUSPECT, MemberState.DEAD]
        member = a.view().member(node_id_of("c"))
        assert member is not None
        assert member.heard_reach is ReachKind.REFUSED
        assert a.driver.traffic.dropped == 0


async def test_a_connection_that_is_accepted_while_the_driver_closes_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its task is cancelled before the first step, and could not end it itself."""
    accept, closing = Driver._on_accepted, asyncio.Queue[asyncio.Task[None]]()

    def closes_first(
        driver: Driver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        closing.put_nowait(asyncio.create_task(driver.close()))
        accept(driver, reader, writer)

    monkeypatch.setattr(Driver, "_on_accepted", closes_first)
    node = Node("a", (), ())
    reader, writer = await asyncio.open_connection(node.address.host, node.address.port)
    try:
        async with asyncio.timeout(LIMIT_S):
            assert await reader.read() == b""
            await (await closing.get())
    finally:
        writer.close()
        await writer.wait_closed()


async def test_large_facts_are_pulled_by_tcp() -> None:
    """What is more than datagrams should carry comes by a stream, and so does a joiner's all."""
    async with three_nodes(KEY) as (a, b, _c):
        for index in range(3):
            a.driver.handle(PublishFact(f"node:{index}", bytes(10_000)))
        key = FactKey(node_id_of("a"), "node:2")
        await reached(lambda: b.view().fact(key) is not None)
        late = Node("late", (b.address,), (KEY,))
        try:
            await reached(lambda: late.view().fact(key) is not None)
            assert late.core.counts.pulls >= 1
            assert late.driver.traffic.connections >= 1
        finally:
            await late.driver.close()


async def test_a_daemon_that_stands_still_is_stalled_then_dead() -> None:
    """Its kernel accepts and nothing answers: STALLED to the others, and dead only much later."""
    async with three_nodes(KEY) as (a, b, c):
        host, port = c.address.host, c.address.port
        await c.driver.close()
        silent = socket.create_server((host, port), backlog=64)
        try:
            await reached(lambda: {a.holds("c"), b.holds("c")} == {MemberState.STALLED})
            await reached(lambda: {a.holds("c"), b.holds("c")} == {MemberState.DEAD})
        finally:
            silent.close()


async def test_leaving_over_udp() -> None:
    """A node that leaves is LEFT to the others, without a suspicion."""
    async with three_nodes() as (a, b, c):
        c.driver.handle(Leave())
        await reached(lambda: {a.holds("c"), b.holds("c")} == {MemberState.LEFT})
        assert a.holds("b") is MemberState.ALIVE


async def test_a_key_that_is_not_known_opens_nothing() -> None:
    """A node with another key is heard by nobody, and hears nobody."""
    async with three_nodes(KEY) as (a, _b, _c):
        stranger = Node("stranger", (a.address,), (OTHER_KEY,))
        try:
            await reached(lambda: a.driver.traffic.dropped > 2)
            assert a.holds("stranger") is None
            assert stranger.holds("a") is None
        finally:
            await stranger.driver.close()


async def test_junk_on_the_stream_is_closed() -> None:
    """Whoever sends no sealed message gets no answer, a closed connection, and no room."""
    async with three_nodes(KEY) as (a, _b, _c):
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"\xff\xff\xff\xff", b"\x00\x00\x00\x04junk"):
            reader, writer = await asyncio.open_connection(a.address.host, a.address.port)
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        assert a.driver.traffic.dropped >= 1


async def test_only_loopback_is_not_sealed() -> None:
    """Without a key an address that others can reach is refused before anything is bound."""
    for host in ("0.0.0.0", "192.0.2.1", "::"):  # noqa: S104 - refused
        with pytest.raises(InvalidRequest, match="not encrypted"):
            sockets.bind(Address(host, 0), is_sealed=False)


async def test_an_address_that_is_taken() -> None:
    """A port that another daemon has is an error that says so, and may be tried again."""
    bound = sockets.bind(Address("127.0.0.1", 0), is_sealed=False)
    with pytest.raises(Unavailable, match="cannot bind"):
        sockets.bind(Address("127.0.0.1", bound.getsockname()[1]), is_sealed=False)
    bound.close()


async def test_the_kernel_accepts_for_a_daemon_that_stands_still() -> None:
    """Hundreds of witnesses' connects succeed while the loop does nothing: no silence, no death."""
    async with three_nodes(KEY) as (a, _b, _c):
        with contextlib.ExitStack() as stack:
            made = [stack.enter_context(socket.socket()) for _ in range(400)]
            for one in made:
                one.setblocking(False)
                one.connect_ex((a.address.host, a.address.port))
            assert all(one.getpeername()[1] == a.address.port for one in made)


async def test_a_connection_that_the_own_loop_came_too_late_for_is_no_silence() -> None:
    """The kernel connected, and the deadline passed in the same moment: accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        to = Address("127.0.0.1", listening.getsockname()[1])
        assert await sockets.probe(to, b"x", 0.0) == (ReachKind.ACCEPTED, b"")
