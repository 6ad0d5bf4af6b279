"""Is what the tools print understood?"""

from __future__ import annotations

import pytest

from dray.errors import PeerMisbehaved
from node.network.observed import (
    Link,
    Route,
    loose_ends,
    parse_ends,
    parse_links,
    parse_neighbours,
    parse_routes,
    strays,
    table_chains,
)

ROUTES = """[
{"dst":"default","gateway":"10.77.0.1","dev":"eth0","flags":[]},
{"type":"unreachable","dst":"10.192.0.0/11","metric":9999,"flags":[]},
{"dst":"10.192.2.0/23","gateway":"10.192.2.0","dev":"dray-vx","prefsrc":"10.192.0.1",
 "flags":["onlink"]},
{"dst":"10.224.0.0/16","dev":"dray0","scope":"link","prefsrc":"10.192.0.1","flags":["linkdown"]}]
"""
LINKS = """[
{"ifname":"eth0","flags":["UP","LOWER_UP"],"mtu":1400,"link_type":"ether",
 "addr_info":[{"family":"inet","local":"10.77.0.11","prefixlen":24},
              {"family":"inet6","local":"fe80::1","prefixlen":64}]},
{"ifname":"dray-vx","flags":["BROADCAST"],"mtu":1364,
 "address":"02:42:0a:c0:00:00",
 "linkinfo":{"info_kind":"vxlan","info_data":{"id":7777,"port":4790,"learning":false}}}]
"""
LISTING = """table ip dray {
\tset peers {
\t\ttype ipv4_addr
\t}

\tchain deny {
\t\tmeta l4proto tcp reject with tcp reset
\t\treject
\t}

\tchain empty {
\t}
}
"""


def test_routes() -> None:
    """Where each leads, over which router, and the address that the machine itself uses."""
    assert parse_routes(ROUTES) == (
        Route("default", "eth0", gateway="10.77.0.1"),
        Route("10.192.0.0/11", kind="unreachable", metric=9999),
        Route("10.192.2.0/23", "dray-vx", gateway="10.192.2.0", source="10.192.0.1"),
        Route("10.224.0.0/16", "dray0", source="10.192.0.1"),
    )


def test_links() -> None:
    """Addresses, size, whether it is up, and what its kind says of itself."""
    found = parse_links(LINKS)
    assert found["eth0"] == Link("eth0", "", 1400, True, ("10.77.0.11/24",))
    assert found["dray-vx"] == Link(
        "dray-vx",
        "vxlan",
        1364,
        is_up=False,
        hardware="02:42:0a:c0:00:00",
        details={"id": "7777", "port": "4790", "learning": "false"},
    )


def test_what_leads_into_the_tunnel() -> None:
    """Neighbours with their hardware address, and the nodes behind hardware addresses."""
    neighbours = """[{"dst":"10.192.4.0","lladdr":"02:42:0a:c0:04:00","state":["PERMANENT"]},
        {"dst":"10.192.6.0","state":["FAILED"]}]"""
    assert parse_neighbours(neighbours) == {"10.192.4.0": "02:42:0a:c0:04:00"}
    ends = """[{"mac":"02:42:0a:c0:04:00","dst":"10.77.0.12","flags":["self"]},
        {"mac":"33:33:00:00:00:01","flags":["self"],"state":"permanent"}]"""
    assert parse_ends(ends) == {"02:42:0a:c0:04:00": "10.77.0.12"}


def test_containers_that_are_off_the_bridge() -> None:
    """Ends of containers' interfaces without a bridge, and nothing of anybody else's."""
    links = [
        Link("veth1", "veth", index=11),
        Link("veth2", "veth", index=12, master="dray0"),
        Link("veth3", "veth", index=13),
        Link("eth0", index=14),
    ]
    assert strays({link.name: link for link in links}, {11, 12, 14}) == ("veth1",)


def test_who_is_asked_for_containers() -> None:
    """The machine's own way out may be a veth too: it is no reason to look at all containers."""
    uplink = Link("eth0", kind="veth", index=3)
    port = Link("veth0", kind="veth", index=4, master="dray0")
    loose = Link("veth1", kind="veth", index=5)
    assert loose_ends({link.name: link for link in (uplink, port)}) == ()
    assert loose_ends({link.name: link for link in (uplink, port, loose)}) == (loose,)


def test_nothing_was_printed() -> None:
    """Tools print nothing at all when there is nothing."""
    assert parse_routes("") == ()
    assert parse_links("") == {}
    assert parse_neighbours("") == parse_ends("") == {}


@pytest.mark.parametrize("text", ["{", "{}", "Error: x"])
def test_something_else_was_printed(text: str) -> None:
    """A tool that does not print what it should is told of."""
    with pytest.raises(PeerMisbehaved, match="ip route printed no"):
        parse_routes(text)


def test_chains() -> None:
    """Every chain of a listing with its rules, nothing of sets."""
    rules = "\t\tmeta l4proto tcp reject with tcp reset\n\t\treject\n"
    assert table_chains(LISTING, "ip dray") == {"deny": rules, "empty": ""}


@pytest.mark.parametrize("own", ["table ip dray {\n}\n", "table ip dray2 {\n}\n", ""])
def test_chains_of_other_tables(own: str) -> None:
    """A table without chains, or none, has none of those that stand beside it."""
    other = LISTING.replace("ip dray", "ip nat")
    assert table_chains(own + other, "ip dray") == {}
    assert table_chains(other + own, "ip dray") == {}
