"""Who is answered what, by the address that a query comes from?"""

from __future__ import annotations

import random

import dns.message
import dns.rcode
import pytest

from dray.addresses import HostPort
from dray.clock import ManualClock
from node.dns.config import ServerConfig
from node.dns.limits import ClientRates
from node.dns.serve import NOBODY, DnsServer
from node.dns.wire import TCP_BYTES_MAX
from node.dns.zone import NODE_ASKER, Asker, ZoneConfig
from tests.dns_world import HOME, RANGES, WEB, World, an_asker, an_endpoint, node_id, query_bytes

LISTEN = (HostPort("10.192.0.254", 53), HostPort("fd00:d7a7::fe", 53))


def a_server() -> DnsServer:
    """Return a server that listens nowhere, with shop/web on its own node and on another."""
    world = World()
    world.publish("a", WEB, an_endpoint(1, "10.192.0.1", address6="fd00:d7a7::1"))
    world.publish("b", WEB, an_endpoint(2, "10.192.2.1"))
    server = DnsServer(
        ServerConfig(
            ZoneConfig(node_id(HOME), RANGES), LISTEN, ("10.192.0.0/23", "fd00:d7a7::/64")
        ),
        clock=ManualClock(),
        rng=random.Random(1),
        id_rng=random.Random(2),
    )
    server.update(world.view())
    return server


@pytest.mark.parametrize(
    ("client", "asker"),
    [
        ("10.192.0.1", an_asker("shop")),
        ("fd00:d7a7::1", an_asker("shop")),
        ("10.192.0.7", an_asker("told")),
        ("10.192.0.254", NODE_ASKER),
        ("fd00:d7a7::fe", NODE_ASKER),
        ("127.0.0.1", NODE_ASKER),
        ("::1", NODE_ASKER),
        ("10.192.0.77", NOBODY),
        ("10.192.2.1", None),
        ("192.0.2.7", None),
        ("fe80::1%eth0", None),
    ],
)
def test_who_asks(client: str, asker: Asker | None) -> None:
    """Containers of this node, told or published, the machine, the unknown, and strangers."""
    server = a_server()
    server.set_clients({"10.192.0.7": an_asker("told")})
    assert server.asker_of(client) == asker


@pytest.mark.parametrize(
    ("client", "name", "code"),
    [
        ("10.192.0.1", "web", "NOERROR"),
        ("10.192.0.77", "web.shop.dray.internal", "SERVFAIL"),
        ("10.192.0.77", "localhost", "NOERROR"),
        ("192.0.2.7", "web.shop.dray.internal", "REFUSED"),
        ("192.0.2.7", "www.example.com", "REFUSED"),
    ],
)
def test_what_they_get(client: str, name: str, code: str) -> None:
    """One of this node that is not known yet is to ask again; strangers get nothing at all."""
    found = a_server().resolve(query_bytes(name), client, TCP_BYTES_MAX)
    assert isinstance(found, bytes)
    assert dns.rcode.to_text(dns.message.from_wire(found).rcode()) == code


def test_what_is_told_wins() -> None:
    """What the agent says of a client holds over what the node publishes."""
    server = a_server()
    linked = Asker("shop", frozenset(("shop_default",)), (("front", WEB),))
    server.set_clients({"10.192.0.1": linked})
    assert server.asker_of("10.192.0.1") == linked
    server.set_clients({})
    assert server.asker_of("10.192.0.1") == an_asker("shop")


def test_rates() -> None:
    """A client that has used its burst up goes on at the rate; another one is not affected."""
    rates = ClientRates(rate_per_s=10.0, burst=5.0, clients_max=2)
    assert [rates.allows("a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert rates.allows("b", 0.0)
    assert rates.allows("a", 0.1)
    assert not rates.allows("a", 0.1)
    assert [rates.allows("a", 100.0) for _ in range(7)].count(True) == 5


def test_rates_are_of_few_clients() -> None:
    """Of more clients than there is room for, the one that was unused longest starts anew."""
    rates = ClientRates(rate_per_s=0.0, burst=1.0, clients_max=2)
    assert rates.allows("a", 0.0)
    assert rates.allows("b", 0.0)
    assert not rates.allows("a", 0.0)
    assert rates.allows("c", 0.0)
    assert not rates.allows("a", 0.0)
    assert rates.allows("b", 0.0)
