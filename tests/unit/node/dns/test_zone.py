"""Does each asker find what it may see, and nothing else?"""

from __future__ import annotations

import pytest

from dray.model import (
    EndpointPort,
    Health,
    MemberState,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
)
from node.dns.names import labels_of
from node.dns.zone import NODE_ASKER, Asker
from node.gossip.packing import pack_service
from tests.dns_world import WEB, World, an_asker, an_endpoint, texts

DB = ServiceKey("shop", "my_db")
SHOP = an_asker("shop")
BLOG = an_asker("blog")


def two_projects() -> World:
    """Return a cluster with services of two projects; they share the network "edge"."""
    world = World()
    world.publish(
        "b",
        WEB,
        an_endpoint(
            1,
            "10.192.0.1",
            networks=("edge", "shop_default"),
            aliases=(("edge", "shop-front"), ("shop_default", "www"), ("shop_default", "Api.Test")),
            ports=(EndpointPort(80, "tcp", "http"), EndpointPort(53, "udp", "dns")),
            address6="fd00:d7a7::1",
        ),
        an_endpoint(
            2,
            "10.192.0.2",
            networks=("edge", "shop_default"),
            aliases=(("edge", "shop-front"), ("shop_default", "www"), ("shop_default", "Api.Test")),
            ports=(EndpointPort(80, "tcp", "http"), EndpointPort(53, "udp", "dns")),
        ),
    )
    world.publish("c", DB, an_endpoint(1, "10.192.2.1", service=DB), vip="10.224.0.7")
    blog = ServiceKey("blog", "blog.app")
    world.publish(
        "c",
        blog,
        an_endpoint(1, "10.192.2.9", service=blog, networks=("blog_default", "edge")),
    )
    return world


@pytest.mark.parametrize(
    ("name", "asker", "expected"),
    [
        ("web.shop.dray.internal", SHOP, ["10.192.0.1", "10.192.0.2"]),
        ("WEB.Shop.dray.INTERNAL.", SHOP, ["10.192.0.1", "10.192.0.2"]),
        ("web", SHOP, ["10.192.0.1", "10.192.0.2"]),
        ("web.shop", SHOP, ["10.192.0.1", "10.192.0.2"]),
        ("1.web.shop.dray.internal", SHOP, ["10.192.0.1"]),
        ("2.web", SHOP, ["10.192.0.2"]),
        ("3.web", SHOP, []),
        ("tasks.web", SHOP, ["10.192.0.1", "10.192.0.2"]),
        ("www", SHOP, ["10.192.0.1", "10.192.0.2"]),
        ("2.www", SHOP, ["10.192.0.2"]),
        ("www.shop.dray.internal", SHOP, ["10.192.0.1", "10.192.0.2"]),
        ("api.test", SHOP, ["10.192.0.1", "10.192.0.2"]),
        ("shop-front", SHOP, []),
        ("shop-front", an_asker("shop", "edge"), ["10.192.0.1", "10.192.0.2"]),
        ("my_db", SHOP, ["10.224.0.7"]),
        ("my-db.shop", SHOP, ["10.224.0.7"]),
        ("tasks.my_db", SHOP, ["10.192.2.1"]),
        ("1.my-db", SHOP, ["10.192.2.1"]),
        ("blog.app", SHOP, []),
        ("blog-app.blog.dray.internal", SHOP, []),
        ("web.shop.dray.internal", BLOG, []),
        ("web", BLOG, []),
        ("web", an_asker("blog", "edge"), ["10.192.0.1", "10.192.0.2"]),
        ("shop-front", an_asker("blog", "edge"), ["10.192.0.1", "10.192.0.2"]),
        ("www", an_asker("blog", "edge"), []),
        ("my_db", an_asker("blog", "edge"), []),
        ("blog.app", an_asker("blog", "edge"), ["10.192.2.9"]),
        ("blog-app.blog", an_asker("shop", "edge"), ["10.192.2.9"]),
        ("blog.app", an_asker("shop", "edge"), ["10.192.2.9"]),
        ("web.shop.dray.internal", NODE_ASKER, ["10.192.0.1", "10.192.0.2"]),
        ("www.shop.dray.internal", NODE_ASKER, ["10.192.0.1", "10.192.0.2"]),
        ("web.shop", NODE_ASKER, []),
        ("b.node.dray.internal", SHOP, ["192.0.2.2"]),
        ("b.node", SHOP, ["192.0.2.2"]),
        ("x.node.dray.internal", SHOP, []),
        ("www.example.com", SHOP, []),
        ("dray.internal", SHOP, []),
        ("web.dray.internal", SHOP, []),
        ("7.tasks.web.shop.dray.internal", SHOP, []),
        ("tasks.shop.dray.internal", SHOP, []),
    ],
)
def test_what_is_found(name: str, asker: Asker, expected: list[str]) -> None:
    """A name answers to those who share a network with what it names, and to nobody else."""
    assert two_projects().addresses(name, asker) == expected


@pytest.mark.parametrize(
    ("name", "exists", "is_ours"),
    [
        ("web.shop.dray.internal", True, True),
        ("no.shop.dray.internal", False, True),
        ("shop.dray.internal", True, True),
        ("blog.dray.internal", False, True),
        ("node.dray.internal", True, True),
        ("dray.internal", True, True),
        ("a\x00b.shop.dray.internal", False, True),
        ("xdray.internal", False, False),
        ("internal", False, False),
        ("no", False, False),
        ("no.such.example", False, False),
        ("_http._tcp.web", True, True),
        ("_http._tcp.www.shop.dray.internal", True, True),
        ("_ftp._tcp.web.shop.dray.internal", False, True),
        ("_http._udp.web.shop.dray.internal", False, True),
    ],
)
def test_what_exists_and_whose_it_is(name: str, exists: bool, is_ours: bool) -> None:
    """Everything below the zone is answered here; outside, only what a short name finds."""
    world = two_projects()
    world.zone.update(world.view())
    found = world.zone.find(labels_of(name), SHOP)
    assert (found.exists, found.is_ours) == (exists, is_ours)


def test_a_dot_within_a_label_is_no_separator() -> None:
    """A label that holds a dot never means two labels."""
    world = two_projects()
    world.zone.update(world.view())
    assert not world.zone.find(("1.web", "shop", "dray", "internal"), SHOP).exists


def test_both_families() -> None:
    """AAAA answers the endpoints that have an IPv6 address; a name without any has no such data."""
    world = two_projects()
    assert world.addresses("web", SHOP, "AAAA") == ["fd00:d7a7::1"]
    answer = world.ask("my_db", "AAAA", SHOP)
    assert (answer.rcode(), list(texts(answer)), len(answer.authority)) == (0, [], 1)


def test_service_records() -> None:
    """A port's name answers every slot that listens on it, with its addresses beside."""
    answer = two_projects().ask("_http._tcp.web.shop.dray.internal", "SRV", SHOP)
    assert sorted(texts(answer)) == [
        "0 1 80 1.web.shop.dray.internal.",
        "0 1 80 2.web.shop.dray.internal.",
    ]
    beside = sorted(f"{r.name} {i.to_text()}" for r in answer.additional for i in r)
    assert beside == [
        "1.web.shop.dray.internal. 10.192.0.1",
        "1.web.shop.dray.internal. fd00:d7a7::1",
        "2.web.shop.dray.internal. 10.192.0.2",
    ]


@pytest.mark.parametrize(
    ("address", "asker", "expected"),
    [
        ("1.0.192.10.in-addr.arpa", SHOP, ["1.web.shop.dray.internal."]),
        ("7.0.224.10.in-addr.arpa", SHOP, ["my-db.shop.dray.internal."]),
        ("1.0.192.10.in-addr.arpa", BLOG, []),
        ("7.0.224.10.in-addr.arpa", BLOG, []),
        ("77.0.192.10.in-addr.arpa", SHOP, []),
        ("2.2.0.192.in-addr.arpa", SHOP, ["b.node.dray.internal."]),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.a.7.d.0.0.d.f.ip6.arpa",
            SHOP,
            ["1.web.shop.dray.internal."],
        ),
    ],
)
def test_reverse(address: str, asker: Asker, expected: list[str]) -> None:
    """Addresses of endpoints, services and nodes have names, for who may see what has them."""
    assert list(texts(two_projects().ask(address, "PTR", asker))) == expected


def test_reverse_of_an_address_that_a_file_names() -> None:
    """It is the service's name, for who is on the network that it is of."""
    world = World()
    value = pack_service(
        ServiceFacts(
            ServiceRevision(1),
            "10.224.0.1",
            endpoints=(an_endpoint(1, "10.192.0.1"),),
            static=(("shop_default", "10.5.0.9"), ("shop_back", "10.6.0.9")),
        )
    )
    assert isinstance(value, bytes)
    world.merge("b", WEB, value)
    name = ["web.shop.dray.internal."]
    assert list(texts(world.ask("9.0.5.10.in-addr.arpa", "PTR", SHOP))) == name
    assert list(texts(world.ask("9.0.6.10.in-addr.arpa", "PTR", Asker()))) == name
    assert not world.zone.find(labels_of("9.0.5.10.in-addr.arpa"), BLOG).is_ours
    assert world.addresses("web", SHOP) == ["10.224.0.1"], "a name leads to the VIP as before"


@pytest.mark.parametrize(
    "name", ["8.8.8.8.in-addr.arpa", "10.in-addr.arpa", "x.0.0.10.in-addr.arpa"]
)
def test_reverse_of_others(name: str) -> None:
    """Reverse names outside of the cluster's ranges are not answered here."""
    world = two_projects()
    world.zone.update(world.view())
    assert not world.zone.find(labels_of(name), SHOP).is_ours


def test_links() -> None:
    """A link is a further name of another service, for the client that has it only."""
    world = two_projects()
    linked = Asker("shop", frozenset(("shop_default",)), (("database", DB),))
    assert world.addresses("database", linked) == ["10.224.0.7"]
    assert world.addresses("1.database", linked) == ["10.192.2.1"]
    assert world.addresses("database", SHOP) == []


def test_own_services_come_before_others() -> None:
    """A name in the asker's project is never taken over by a service of another project."""
    world = two_projects()
    theirs = ServiceKey("blog", "web")
    world.publish(
        "c", theirs, an_endpoint(1, "10.192.9.9", service=theirs, networks=("edge", "shop_default"))
    )
    assert world.addresses("web", SHOP) == ["10.192.0.1", "10.192.0.2"]
    world.withdraw("b", WEB)
    assert world.addresses("web", SHOP) == ["10.192.9.9"]


def test_a_service_without_endpoints() -> None:
    """A service that only has its own address is found in its project, and by nobody else."""
    world = World()
    world.publish("b", WEB, vip="10.224.0.1")
    assert world.addresses("web", SHOP) == ["10.224.0.1"]
    assert world.addresses("web.shop.dray.internal", BLOG) == []
    assert world.ask("tasks.web", "A", SHOP).rcode() == 0


def test_on_the_machines_stack() -> None:
    """A service on the machine's own network is found in its project; its address is no client."""
    world = World()
    world.publish("a", WEB, an_endpoint(1, "192.0.2.1", networks=()))
    assert world.addresses("web", SHOP) == ["192.0.2.1"]
    assert world.addresses("1.web", SHOP) == ["192.0.2.1"]
    assert world.addresses("web.shop.dray.internal", BLOG) == []
    assert world.zone.own_askers() == {}


def test_readiness() -> None:
    """Only healthy endpoints on living nodes are served; a slot by its number also before it is."""
    world = World()
    world.publish(
        "b",
        WEB,
        an_endpoint(1, "10.192.0.1"),
        an_endpoint(2, "10.192.0.2", health=Health.STARTING),
        an_endpoint(3, "10.192.0.3", health=Health.UNHEALTHY),
        an_endpoint(4, "10.192.0.4", draining=True),
    )
    world.publish("c", WEB, an_endpoint(5, "10.192.2.5"))
    assert world.addresses("web", SHOP) == ["10.192.0.1", "10.192.2.5"]
    world.set_member("c", MemberState.DEAD)
    assert world.addresses("web", SHOP) == ["10.192.0.1"]
    assert world.addresses("2.web", SHOP) == ["10.192.0.2"]
    assert world.addresses("5.web", SHOP) == []
    assert world.ask("5.web", "A", SHOP).rcode() == 0


def test_last_resort() -> None:
    """With nothing ready the last known ones are served, and the answer's source knows it."""
    world = World()
    world.publish("b", WEB, an_endpoint(1, "10.192.0.1"))
    world.set_member("b", MemberState.DEAD)
    assert world.addresses("web", SHOP) == ["10.192.0.1"]
    assert world.addresses("1.web", SHOP) == ["10.192.0.1"]
    assert world.zone.find(("web",), SHOP).is_last_resort
    world.set_member("b", MemberState.LEFT)
    assert world.addresses("web", SHOP) == []


def test_newest_task_of_a_slot() -> None:
    """Of two ready tasks of one slot the newer one is served."""
    world = World()
    world.publish("b", WEB, an_endpoint(1, "10.192.0.1", task=1))
    world.publish("c", WEB, an_endpoint(1, "10.192.2.1", task=2))
    assert world.addresses("web", SHOP) == ["10.192.2.1"]
    assert world.addresses("1.web", SHOP) == ["10.192.2.1"]


def test_own_askers() -> None:
    """Who asks from an address follows from what this node publishes."""
    world = World()
    world.publish("a", WEB, an_endpoint(1, "10.192.0.1", address6="fd00:d7a7::1"))
    world.publish("b", WEB, an_endpoint(2, "10.192.2.1"))
    assert world.zone.update(world.view()).are_clients_changed
    assert world.zone.own_askers() == {"10.192.0.1": SHOP, "fd00:d7a7::1": SHOP}
    world.publish("b", WEB, an_endpoint(3, "10.192.2.2"))
    assert not world.zone.update(world.view()).are_clients_changed
    world.withdraw("a", WEB)
    assert world.zone.update(world.view()).are_clients_changed
    assert world.zone.own_askers() == {}


def test_a_name_that_cannot_be_one() -> None:
    """Facts with names that DNS has no room for are no part of the zone, and break nothing."""
    world = World()
    for service in (ServiceKey("shop", "..."), ServiceKey("x" * 70, "web"), ServiceKey("A", "web")):
        world.publish("b", service, an_endpoint(1, "10.192.0.1", service=service))
    world.set_member("a b", MemberState.ALIVE, address="192.0.2.77")
    assert world.ask("1.0.192.10.in-addr.arpa", "PTR").rcode() == 3
    assert world.addresses("a b.node.dray.internal") == []


def test_nodes_come_before_a_project_of_that_name() -> None:
    """A project called "node" cannot take over a node's name; its other names work."""
    world = World()
    service = ServiceKey("node", "b")
    world.publish("b", service, an_endpoint(1, "10.192.0.1", service=service))
    other = ServiceKey("node", "web")
    world.publish("b", other, an_endpoint(1, "10.192.0.2", service=other))
    assert world.addresses("b.node.dray.internal") == ["192.0.2.2"]
    assert world.addresses("web.node.dray.internal") == ["10.192.0.2"]
