"""Does every service get exactly the entries that balance it?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from dray.model import (
    Health,
    MemberState,
    PortProtocol,
    PublishedPort,
    PublishMode,
)
from node.network.balance import (
    HeldPort,
    arranged,
    flow_addresses,
    host_entries,
    membership_entries,
    published_ports,
    service_keys,
    service_table,
)
from node.network.ruleset import PLACES_MAX, STICKY_PLACES
from node.network.tables import Entry, network_name
from tests.unit.node.network.builders import LAYOUT, VIP, address, facts, view

ONE, TWO, THREE = address(1), address(2), address(3)


@pytest.mark.parametrize(
    ("places", "usable", "expected"),
    [
        ((), (), ()),
        ((), (ONE, TWO), (ONE, TWO)),
        ((ONE, TWO), (TWO, ONE), (ONE, TWO)),
        ((ONE, TWO, THREE), (TWO, THREE), (THREE, TWO)),
        ((ONE, TWO, THREE), (ONE, TWO), (ONE, TWO)),
        ((ONE, TWO), (TWO, THREE), (THREE, TWO)),
        ((ONE, TWO), (ONE, TWO, THREE), (ONE, TWO, THREE)),
        ((ONE, TWO, THREE), (THREE,), (THREE,)),
        ((ONE, TWO), (), ()),
    ],
    ids=["none", "new", "order", "first-gone", "last-gone", "replaced", "added", "two", "all"],
)
def test_arrangement(
    places: tuple[str, ...], usable: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """Endpoints keep their places; a hole is filled by a new one, or else by the last."""
    assert arranged(places, usable) == expected


def test_a_service_with_an_address_and_a_port() -> None:
    """The VIP keeps the port, the published port leads to its target, on every usable endpoint."""
    port = HeldPort("tcp", "", 8080, 80)
    table = service_table(facts(), [view(1), view(2)], [port], LAYOUT)
    assert table.places == (ONE, TWO)
    assert table.entries == {
        Entry("vips", VIP): "goto vip_pick_2",
        Entry("vip_0", VIP): ONE,
        Entry("vip_1", VIP): TWO,
        Entry("pubs", "tcp . 8080"): "goto pub_pick_2",
        Entry("pub_0", "tcp . 8080"): f"{ONE} . 80",
        Entry("pub_1", "tcp . 8080"): f"{TWO} . 80",
    }


def test_a_port_on_one_address() -> None:
    """A port with a host address is looked up together with it."""
    table = service_table(facts(""), [view(1)], [HeldPort("udp", "192.0.2.7", 53, 5353)], LAYOUT)
    assert table.entries == {
        Entry("ats", "192.0.2.7 . udp . 53"): "goto at_pick_1",
        Entry("at_0", "192.0.2.7 . udp . 53"): f"{ONE} . 5353",
    }


def test_only_usable_endpoints_are_served() -> None:
    """Draining and unhealthy ones, and those of suspect nodes, get no place."""
    views = [
        view(1),
        view(2, draining=True),
        view(3, health=Health.UNHEALTHY),
        view(4, state=MemberState.SUSPECT),
    ]
    assert service_table(facts(), views, [], LAYOUT).places == (ONE,)
    assert service_table(facts(), [], [HeldPort("tcp", "", 1, 1)], LAYOUT).entries == {}


def test_no_more_places_than_the_limit() -> None:
    """Of a service with more endpoints than can be balanced over, so many are."""
    views = [
        replace(view(1), endpoint=replace(view(n).endpoint, address=f"10.200.{n // 250}.{n % 250}"))
        for n in range(1, PLACES_MAX + 10)
    ]
    table = service_table(facts(), views, [], LAYOUT)
    assert len(table.places) == PLACES_MAX
    assert table.entries[Entry("vips", VIP)] == f"goto vip_pick_{PLACES_MAX}"


def test_clients_stay_when_another_endpoint_goes() -> None:
    """With affinity only the buckets of the endpoint that went are given to others."""
    before = service_table(facts(affinity=True), [view(n) for n in range(1, 6)], [], LAYOUT)
    after = service_table(
        facts(affinity=True), [view(n) for n in range(1, 6) if n != 3], [], LAYOUT, before.places
    )
    assert before.entries[Entry("vips", VIP)] == f"goto vip_stick_{STICKY_PLACES}"
    buckets = [Entry(f"vip_{bucket}", VIP) for bucket in range(STICKY_PLACES)]
    moved = [each for each in buckets if before.entries[each] != after.entries[each]]
    assert {before.entries[each] for each in moved} == {THREE}
    shares = Counter(before.entries[each] for each in buckets)
    assert len(shares) == 5
    assert max(shares.values()) <= 3 * min(shares.values())


def test_which_ports_every_node_publishes() -> None:
    """Ports in host mode, without a number, over SCTP or on IPv6 addresses are not among them."""
    ports = (
        PublishedPort(80, 8080),
        PublishedPort(53, 53, protocol=PortProtocol.UDP, host_ip="192.0.2.1"),
        PublishedPort(81, 8081, mode=PublishMode.HOST),
        PublishedPort(82),
        PublishedPort(83, 8083, protocol=PortProtocol.SCTP),
        PublishedPort(84, 8084, host_ip="::1"),
    )
    found = published_ports(replace(facts(), published=ports))
    assert found == (HeldPort("tcp", "", 8080, 80), HeldPort("udp", "192.0.2.1", 53, 53))


def test_ports_in_host_mode() -> None:
    """Two tasks of a node that share a port are balanced; others have their own."""
    shared, own = HeldPort("tcp", "", 8080, 80), HeldPort("tcp", "", 9090, 80)
    assert host_entries([(shared, TWO), (own, THREE), (shared, ONE)]) == {
        Entry("pubs", "tcp . 8080"): "goto pub_pick_2",
        Entry("pub_0", "tcp . 8080"): f"{ONE} . 80",
        Entry("pub_1", "tcp . 8080"): f"{TWO} . 80",
        Entry("pubs", "tcp . 9090"): "goto pub_pick_1",
        Entry("pub_0", "tcp . 9090"): f"{THREE} . 80",
    }


def test_who_is_known_and_of_which_network() -> None:
    """All endpoints are known, also unhealthy ones; only networks of this node count."""
    views = [
        view(1, networks=("shop_a", "shop_b")),
        view(2, health=Health.UNHEALTHY, networks=("shop_b",)),
        view(3, state=MemberState.LEFT, networks=("shop_a",)),
    ]
    a = network_name("shop_a")
    assert set(membership_entries(facts(), views, {"shop_a"}, LAYOUT)) == {
        Entry("known", ONE), Entry("known", TWO), Entry(a, ONE), Entry(a, VIP),
    }  # fmt: skip


def test_an_address_that_the_file_names() -> None:
    """It leads where the VIP leads, and is told even where nobody serves or may ask it."""
    known = replace(facts(""), static=(("shop_a", "10.5.0.9"),))
    views = [view(1, networks=("shop_a", "shop_b"))]
    assert service_table(known, views, [], LAYOUT).entries == {
        Entry("vips", "10.5.0.9"): "goto vip_pick_1",
        Entry("vip_0", "10.5.0.9"): ONE,
    }
    assert service_table(known, [], [], LAYOUT).entries == {}
    told = Entry("statics", "10.5.0.9")
    assert set(membership_entries(known, [], {"shop_b"}, LAYOUT)) == {told}
    found = membership_entries(known, views, {"shop_a", "shop_b"}, LAYOUT)
    members = {Entry(network_name(name), ONE) for name in ("shop_a", "shop_b")}
    mine = Entry(network_name("shop_a"), "10.5.0.9")
    assert set(found) == {told, mine, Entry("known", ONE), *members}
    assert service_keys(known, []) == {Entry("vips", "10.5.0.9")}


def test_whose_connections_go_on() -> None:
    """Draining and unhealthy endpoints keep theirs; those of dead nodes lose them.

    Containers outlive their node's daemon, and so do connections to them.
    """
    views = [view(1, draining=True), view(2, state=MemberState.STALLED)]
    dead = view(3, state=MemberState.DEAD)
    views += [dead, view(4, state=MemberState.LEFT)]
    assert flow_addresses(views, LAYOUT) == {ONE, TWO}
    left_alone = replace(dead, is_daemon_down=True)
    assert flow_addresses([*views, left_alone], LAYOUT) == {ONE, TWO, THREE}


def test_containers_on_their_machines_own_stack() -> None:
    """Their address is the node's: VIPs lead to it; ports, filter and flows leave it alone."""
    near = view(1)
    far = replace(near, endpoint=replace(view(2).endpoint, address="192.0.2.2"))
    table = service_table(facts(), [near, far], [HeldPort("tcp", "", 80, 80)], LAYOUT)
    assert table.entries[Entry("vips", VIP)] == "goto vip_pick_2"
    assert table.entries[Entry("pubs", "tcp . 80")] == "goto pub_pick_1"
    assert flow_addresses([near, far], LAYOUT) == {ONE}
    a = network_name("shop_default")
    found = membership_entries(facts(), [far], {"shop_default"}, LAYOUT)
    assert set(found) == {Entry(a, VIP)}
