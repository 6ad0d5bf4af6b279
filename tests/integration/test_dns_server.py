"""Does the name server answer on real sockets, whoever asks and whatever its upstreams do?"""

from __future__ import annotations

import asyncio
import contextlib
import random
import select
import socket
from collections.abc import AsyncIterator, Callable

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from dray.addresses import HostPort
from dray.clock import SystemClock
from dray.errors import Unavailable
from dray.model import EndpointPort, ServiceKey
from node.dns.config import DEADLINE_S, ServerConfig
from node.dns.forward import CLIENT_WAITS_MAX
from node.dns.limits import BURST, RATE_PER_S
from node.dns.serve import DnsServer, pause
from node.dns.sockets import udp_sockets
from node.dns.zone import NODE_ASKER, ZoneConfig
from tests.dns_upstream import Manner, Upstream, an_upstream
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
from tests.lab.ports import free_port

HOST = "127.0.83.1"
SHOP_CLIENT = "127.0.83.11"
BLOG_CLIENT = "127.0.83.12"
LIMIT_S = 10.0
LOOK_AGAIN_S = 0.01


class Rig:
    """A running server and what it follows."""

    def __init__(self, server: DnsServer, world: World) -> None:
        self.server = server
        self.world = world

    @property
    def where(self) -> HostPort:
        """Return where the server listens."""
        return self.server.addresses()[0]

    def update(self) -> None:
        """Let the server see the world of now."""
        self.server.update(self.world.view())

    async def ask(
        self,
        name: str,
        rtype: str = "A",
        *,
        client: str = SHOP_CLIENT,
        is_tcp: bool = False,
        payload: int | None = None,
    ) -> dns.message.Message:
        """Return the answer as dnspython reads and checks it."""
        query = dns.message.from_wire(query_bytes(name, rtype, payload=payload))
        query.id = random.getrandbits(16)
        send = dns.asyncquery.tcp if is_tcp else dns.asyncquery.udp
        return await send(query, self.where.host, LIMIT_S, self.where.port, client)

    async def addresses(self, name: str, *, client: str = SHOP_CLIENT) -> list[str]:
        """Return the addresses that a client gets."""
        return sorted(texts(await self.ask(name, client=client)))


@contextlib.asynccontextmanager
async def a_server(
    *upstreams: Upstream | HostPort,
    deadline_s: float = DEADLINE_S,
    rates: tuple[float, float] = (RATE_PER_S, BURST),
) -> AsyncIterator[Rig]:
    """Give a server with three slots of shop/web, and these upstreams."""
    world = World()
    world.web(1, 2, 3)
    config = ServerConfig(
        ZoneConfig(node_id(HOME), RANGES),
        (HostPort(HOST, free_port()),),
        upstream_deadline_s=deadline_s,
        rates=rates,
    )
    server = DnsServer(config, clock=SystemClock(), rng=random.Random(7), id_rng=random.Random(2))
    server.set_clients({SHOP_CLIENT: an_asker("shop"), BLOG_CLIENT: an_asker("blog")})
    server.update(world.view())
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.run(ready.set))
        await ready.wait()
        found = [each if isinstance(each, HostPort) else each.where for each in upstreams]
        server.set_upstreams(tuple(found))
        try:
            yield Rig(server, world)
        finally:
            running.cancel()


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(LOOK_AGAIN_S)


async def test_names_of_the_cluster() -> None:
    """Each client gets its own view over UDP and TCP; the second time from the ready answers."""
    async with a_server() as rig:
        everybody = ["10.192.0.1", "10.192.0.2", "10.192.0.3"]
        for _ in range(2):
            assert await rig.addresses("web") == everybody
            assert await rig.addresses("web.shop.dray.internal", client=BLOG_CLIENT) == []
        over_tcp = await rig.ask("web", is_tcp=True)
        assert sorted(texts(over_tcp)) == everybody
        assert rig.server.counts.ready == 2
        assert rig.server.counts.resolved == 3


async def test_a_change_is_answered_at_once() -> None:
    """What a newer view says is in the very next answer, and so is what it says no more."""
    async with a_server() as rig:
        assert await rig.addresses("web") == ["10.192.0.1", "10.192.0.2", "10.192.0.3"]
        assert (await rig.ask("late")).rcode() == dns.rcode.SERVFAIL  # no upstream
        rig.world.web(2)
        rig.update()
        assert await rig.addresses("web") == ["10.192.0.2"]
        rig.world.withdraw("b", WEB)
        rig.update()
        assert (await rig.ask("web.shop.dray.internal")).rcode() == dns.rcode.NXDOMAIN
        rig.world.web(9)
        rig.update()
        assert await rig.addresses("web") == ["10.192.0.9"]


async def test_queries_come_between_two_pieces_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives during one is answered before the next, also when that makes answers anew."""
    async with a_server() as rig:
        assert await rig.addresses("web")
        received: list[int] = []
        make_anew = rig.server._answer_ahead

        def noted() -> None:
            received.append(rig.server.counts.received)
            make_anew()

        monkeypatch.setattr(rig.server, "_answer_ahead", noted)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.bind((SHOP_CLIENT, 0))

            def send() -> None:
                client.sendto(query_bytes("db"), (rig.where.host, rig.where.port))
                select.select(rig.server._sockets.udp, [], [], LIMIT_S)

            send()
            await pause()
            assert rig.server.counts.received == 2
            send()
            rig.world.web(2)
            rig.update()
            await reached(lambda: bool(received))
            assert received == [3]


async def test_what_was_asked_for_is_made_anew_before_it_is_asked_for_again() -> None:
    """After a change the next answer is ready; one that nobody asked for is not made twice."""
    async with a_server() as rig:
        counts = rig.server.counts
        await rig.addresses("web")
        rig.world.web(2)
        rig.update()
        await pause()  # meanwhile it is made
        assert await rig.addresses("web") == ["10.192.0.2"]
        assert (counts.resolved, counts.ready) == (1, 1)
        for slot in (3, 4):
            rig.world.web(slot)
            rig.update()
            await pause()
        assert await rig.addresses("web") == ["10.192.0.4"]
        assert (counts.resolved, counts.ready) == (2, 1)


async def test_many_changes_at_once() -> None:
    """A view with more changes than it can tell is taken over whole, what is gone included."""
    async with a_server() as rig:
        services = [ServiceKey("shop", f"s{number}") for number in range(300)]
        for key in services:
            rig.world.publish("b", key, an_endpoint(1, "10.192.0.9", service=key))
        rig.update()
        assert await rig.addresses("s0") == await rig.addresses("s299") == ["10.192.0.9"]
        rig.world.withdraw("b", WEB)
        for key in services[1:]:
            rig.world.publish("b", key, an_endpoint(1, "10.192.0.8", service=key))
        rig.update()
        rig.update()
        assert await rig.addresses("web.shop.dray.internal") == []
        assert await rig.addresses("s0") == ["10.192.0.9"]
        assert await rig.addresses("s299") == ["10.192.0.8"]


async def test_clients_spread() -> None:
    """Consecutive answers begin with different addresses, each as often as any other."""
    async with a_server() as rig:
        firsts = [next(iter(texts(await rig.ask("web")))) for _ in range(31)]
        counts = [firsts[1:].count(address) for address in set(firsts)]
        assert counts == [10, 10, 10]


async def test_truncation_and_tcp() -> None:
    """An answer that is too large says so over UDP, and is whole over TCP."""
    async with a_server() as rig:
        rig.world.web(*range(1, 251))
        rig.update()
        for payload in (None, 1_232):
            cut = await rig.ask("web", payload=payload)
            assert cut.flags & dns.flags.TC
            assert 0 < len(list(texts(cut))) < 250
        whole = await rig.ask("web", is_tcp=True)
        assert len(list(texts(whole))) == 250


async def test_service_records() -> None:
    """Service records come with the addresses of their targets."""
    async with a_server() as rig:
        rig.world.publish(
            "b", WEB, an_endpoint(1, "10.192.0.1", ports=(EndpointPort(80, "tcp", "http"),))
        )
        rig.update()
        answer = await rig.ask("_http._tcp.web.shop.dray.internal", "SRV")
        assert list(texts(answer)) == ["0 1 80 1.web.shop.dray.internal."]
        assert answer.additional[0][0].to_text() == "10.192.0.1"


async def test_clients_change() -> None:
    """Who asks from an address can change at any time; ready answers of before are not used."""
    async with a_server() as rig:
        assert len(await rig.addresses("web")) == 3
        assert await rig.addresses("web.shop.dray.internal", client=BLOG_CLIENT) == []
        rig.server.set_clients({BLOG_CLIENT: an_asker("shop"), SHOP_CLIENT: NODE_ASKER})
        assert len(await rig.addresses("web", client=BLOG_CLIENT)) == 3
        assert len(await rig.addresses("web.shop.dray.internal")) == 3


async def test_forwarding() -> None:
    """Other names are asked upstream once, kept, and told with the time that is left."""
    async with an_upstream() as upstream, a_server(upstream) as rig:
        assert await rig.addresses("www.Example.com") == ["192.0.2.200"]
        upstream.address = "192.0.2.201"
        again = await rig.ask("WWW.example.COM")
        assert list(texts(again)) == ["192.0.2.200"]
        assert str(again.question[0].name) == "WWW.example.COM."
        assert 50 <= again.answer[0].ttl <= 60
        assert not again.flags & dns.flags.AA
        assert again.flags & dns.flags.RA
        assert upstream.asked["www.example.com."] == 1
        with_edns = await rig.ask("www.example.com", payload=1_232)
        assert with_edns.edns == 0
        over_tcp = await rig.ask("www.example.com", is_tcp=True)
        assert list(texts(over_tcp)) == ["192.0.2.200"]


async def test_what_is_not_there_upstream() -> None:
    """A name that the upstream does not have is not asked again for as long as it says."""
    async with an_upstream() as upstream, a_server(upstream) as rig:
        upstream.is_missing = True
        for _ in range(3):
            answer = await rig.ask("no.example")
            assert answer.rcode() == dns.rcode.NXDOMAIN
            assert answer.authority
        assert upstream.asked["no.example."] == 1


async def test_a_local_name_wins_over_a_forwarded_one() -> None:
    """A short name that was forwarded is the cluster's as soon as there is a service of it."""
    async with an_upstream() as upstream, a_server(upstream) as rig:
        assert await rig.addresses("late") == ["192.0.2.200"]
        assert await rig.addresses("late") == ["192.0.2.200"]
        rig.world.publish(
            "b", WEB, an_endpoint(1, "10.192.0.1", aliases=(("shop_default", "late"),))
        )
        rig.update()
        assert await rig.addresses("late") == ["10.192.0.1"]


@pytest.mark.parametrize("manner", [Manner.SILENT, Manner.FAILS, Manner.ONLY_LIES])
async def test_a_bad_upstream_beside_a_good_one(manner: Manner) -> None:
    """While one server answers, names resolve; a bad one costs the first question a moment."""
    async with (
        an_upstream(manner) as bad,
        an_upstream() as good,
        a_server(bad, good) as rig,
    ):
        for number in range(5):
            assert await rig.addresses(f"n{number}.example") == ["192.0.2.200"]
        assert bad.asked["n0.example."] > 0
        if manner is not Manner.FAILS:
            later = [bad.asked[f"n{number}.example."] for number in range(1, 5)]
            assert 0 in later  # asked last, and so not at all while the other one is quick


async def test_a_lying_upstream() -> None:
    """Wrong ids, other questions and cut messages are passed over; the right answer is taken."""
    async with an_upstream(Manner.LIES_FIRST) as upstream, a_server(upstream) as rig:
        assert await rig.addresses("www.example") == ["192.0.2.200"]
        assert rig.server.forwarder is not None
        assert rig.server.forwarder.counts.forged >= 4


async def test_truncated_upstream() -> None:
    """What an upstream cuts is asked for again over TCP."""
    async with an_upstream(Manner.TRUNCATES) as upstream, a_server(upstream) as rig:
        assert await rig.addresses("www.example") == ["192.0.2.200"]
        assert upstream.asked_tcp >= 1


async def test_nobody_upstream() -> None:
    """A server that refuses, or none at all, gives a quick SERVFAIL; the cluster's names stay."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for upstreams in ((), (HostPort("127.0.0.1", port),)):
        async with a_server(*upstreams) as rig:
            async with asyncio.timeout(LIMIT_S):
                assert (await rig.ask("www.example")).rcode() == dns.rcode.SERVFAIL
            assert len(await rig.addresses("web")) == 3


async def test_an_answer_that_has_run_out_serves_while_upstream_is_dead() -> None:
    """A name that was known lately still resolves when no server answers."""
    async with an_upstream() as upstream, a_server(upstream) as rig:
        upstream.ttl_s = 1
        assert await rig.addresses("www.example") == ["192.0.2.200"]
        upstream.manner = Manner.SILENT
        asked = upstream.asked["www.example."]
        while upstream.asked["www.example."] == asked:
            answer = await rig.ask("www.example")
            assert list(texts(answer)) == ["192.0.2.200"]
            await asyncio.sleep(LOOK_AGAIN_S)
        assert answer.answer[0].ttl == 1


async def test_a_loop_is_found() -> None:
    """A server that leads back to us is found out and not asked; the good one beside it is."""
    async with an_upstream() as good, a_server() as rig:
        loop = rig.where
        rig.server.set_upstreams((loop, good.where))
        forwarder = rig.server.forwarder
        assert forwarder is not None
        await reached(lambda: forwarder.loops() == (loop,))
        assert forwarder.servers() == (good.where,)
        assert await rig.addresses("www.example") == ["192.0.2.200"]


async def test_waits_are_shared_and_bounded() -> None:
    """Equal questions are asked once; who asks too much at once is told so, others are served."""
    async with (
        an_upstream(Manner.HOLDS) as upstream,
        a_server(upstream, deadline_s=2 * LIMIT_S) as rig,
    ):
        waiting = [asyncio.create_task(rig.ask("same.example")) for _ in range(5)]
        await reached(lambda: upstream.asked["same.example."] > 0)
        assert rig.server.forwarder is not None
        assert rig.server.forwarder.counts.asked == 1
        flood = [
            asyncio.create_task(rig.ask(f"n{number}.example", client=BLOG_CLIENT))
            for number in range(CLIENT_WAITS_MAX + 10)
        ]
        await reached(lambda: sum(task.done() for task in flood) == 10)
        await upstream.release()
        assert await rig.addresses("other.example") == ["192.0.2.200"]
        assert all(list(texts(each)) == ["192.0.2.200"] for each in await asyncio.gather(*waiting))
        answers = await asyncio.gather(*flood)
        codes = [answer.rcode() for answer in answers]
        assert codes.count(dns.rcode.SERVFAIL) == 10


@pytest.mark.parametrize("host", ["127.0.83.1", "::1"])
def test_clients_have_their_sockets(host: str) -> None:
    """All that one client sends arrives at one socket, whatever its port; clients are spread."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    clients = [host] if ":" in host else [f"127.0.83.{number}" for number in range(20, 60)]
    sockets = udp_sockets(HostPort(host, 0))
    where = sockets[0].getsockname()
    for client in clients * 4:
        with socket.socket(family, socket.SOCK_DGRAM) as out:
            out.bind((client, 0))
            out.sendto(b"x", where)
    senders: list[set[str]] = []
    for bound in sockets:
        with bound:
            found: set[str] = set()
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.add(bound.recvfrom(10)[1][0])
            senders.append(found)
    assert sum(map(len, senders)) == len(set.union(*senders)) == len(clients)
    assert len(clients) == 1 or sum(map(bool, senders)) >= 8


async def test_a_flood_from_one_client() -> None:
    """While one client floods the server, another one's every query is answered soon."""
    async with a_server(rates=(50.0, 100.0)) as rig:
        loop = asyncio.get_running_loop()
        address = (rig.where.host, rig.where.port)
        stop = asyncio.Event()

        head, tail = query_bytes("n000000.shop.dray.internal").split(b"n000000")

        async def flood() -> int:
            sent = 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
                out.bind((BLOG_CLIENT, 0))
                while not stop.is_set():
                    for number in range(sent, sent + 500):
                        with contextlib.suppress(BlockingIOError):
                            out.sendto(head + b"n%06d" % number + tail, address)
                    sent += 500
                    await asyncio.sleep(0)
            return sent

        flooding = loop.create_task(flood())
        for _ in range(10):
            assert len(await rig.addresses("web")) == 3
        await reached(lambda: rig.server.counts.limited > 0)
        assert len(await rig.addresses("web")) == 3
        stop.set()
        assert await flooding > 100


@pytest.mark.parametrize(
    ("data", "is_answered"),
    [
        (b"", False),
        (b"\0" * 11, False),
        (b"\x12\x34\x81\x80" + b"\0" * 8, False),
        (b"\x12\x34\x01\x00" + b"\xff" * 500, True),
        (b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0" + b"\xc0\x0c" * 50, True),
        (query_bytes("web") + bytes(9_000), True),
    ],
    ids=["nothing", "short", "an answer", "junk", "pointers", "oversized"],
)
async def test_bad_datagrams(data: bytes, is_answered: bool) -> None:
    """Junk gets a code or silence, and the next good query its answer."""
    async with a_server() as rig:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
            out.bind((SHOP_CLIENT, 0))
            out.connect((rig.where.host, rig.where.port))
            out.send(data)
            out.send(query_bytes("web", ident=77))
            got = [await loop.sock_recv(out, 4_096) for _ in range(1 + is_answered)]
        assert dns.message.from_wire(got[-1]).id == 77
        if is_answered:
            code = dns.message.from_wire(got[0]).rcode()
            assert code in (dns.rcode.FORMERR, dns.rcode.NOTIMP)


async def test_bad_streams() -> None:
    """Connections that break off, idle or send too much are closed; others are served."""
    async with a_server() as rig:
        loop = asyncio.get_running_loop()
        for data in (b"", b"\0", b"\0\x30web", b"\xff\xff" + b"x" * 100, b"\0\3abc"):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as out:
                out.bind((SHOP_CLIENT, 0))
                await loop.sock_connect(out, (rig.where.host, rig.where.port))
                await loop.sock_sendall(out, data)
                out.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):  # closed with bytes unread
                    assert await loop.sock_recv(out, 100) == b""
        assert len(list(texts(await rig.ask("web", is_tcp=True)))) == 3


async def test_connections_are_bounded() -> None:
    """A client has a few connections at most; another client still gets its own."""
    async with a_server() as rig:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                out = stack.enter_context(
                    socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                )
                out.bind((BLOG_CLIENT, 0))
                await loop.sock_connect(out, (rig.where.host, rig.where.port))
            await reached(lambda: rig.server.counts.limited > 0)
            assert len(list(texts(await rig.ask("web", is_tcp=True)))) == 3


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_taken_address(kind: socket.SocketKind) -> None:
    """An address that another server has is refused by name, with the next step."""
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind((HOST, 0))
        if kind is socket.SOCK_STREAM:
            other.listen()
        taken = HostPort(HOST, other.getsockname()[1])
        with pytest.raises(Unavailable, match=rf"{taken}.*ss -lnp"):
            await a_bare_server(taken).run()


async def test_no_second_daemon() -> None:
    """A second server at the address of a running one is refused, and takes no query from it."""
    async with a_server() as rig:
        with pytest.raises(Unavailable):
            await a_bare_server(rig.where).run()
        for _ in range(20):
            assert len(await rig.addresses("web")) == 3


def a_bare_server(where: HostPort) -> DnsServer:
    """Return a server that knows nothing."""
    rng = random.Random(1)
    config = ServerConfig(ZoneConfig(node_id(HOME)), (where,))
    return DnsServer(config, clock=SystemClock(), rng=rng, id_rng=rng)
