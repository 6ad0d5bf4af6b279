"""Is everything that is wrong with a machine's network repaired, and nothing else touched?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from node.network.observed import DockerNetwork, Link, Observed, Route
from node.network.plan import SYSCTLS, Plan, StepKind, peer_steps, plan
from node.ports import NetworkConfig, NetworkPeer
from tests.unit.node.network.builders import LAYOUT, node_id

CONFIG = NetworkConfig(
    node_id(1),
    "192.0.2.1",
    LAYOUT.subnet,
    LAYOUT.range_cidr,
    LAYOUT.vip_range_cidr,
    peers=(
        NetworkPeer(node_id(1), "192.0.2.1", LAYOUT.subnet),
        NetworkPeer(node_id(2), "192.0.2.2", "10.192.4.0/23"),
        NetworkPeer(node_id(3), "192.0.2.3", "10.192.6.0/23"),
    ),
)
TUNNEL = {
    "id": "7777", "port": "4790", "local": "192.0.2.1", "learning": "false", "udp_csum": "false",
}  # fmt: skip
LINKS = {
    "eth0": Link("eth0", addresses=("192.0.2.1/24",)),
    "dray0": Link(
        "dray0",
        "bridge",
        1450,
        addresses=("10.192.2.1/23",),
        hardware="02:42:0a:c0:02:01",
        details={"nf_call_iptables": "1"},
    ),
    "dray-vx": Link("dray-vx", "vxlan", 1450, hardware="02:42:0a:c0:02:00", details=TUNNEL),
}
GATEWAY = "10.192.2.1"
PEER_TWO = Route("10.192.4.0/23", "dray-vx", gateway="10.192.4.0", source=GATEWAY)
HARDWARE_TWO, HARDWARE_THREE = "02:42:0a:c0:04:00", "02:42:0a:c0:06:00"
ROUTES = (
    Route("default", "eth0", gateway="192.0.2.254"),
    Route("192.0.2.0/24", "eth0", source="192.0.2.1"),
    Route("10.192.2.0/23", "dray0", source=GATEWAY),
    Route("10.224.0.0/16", "dray0", source=GATEWAY),
    Route("10.192.0.0/11", "dray0", source=GATEWAY, metric=9998),
    Route("10.192.0.0/11", kind="unreachable", metric=9999),
    PEER_TWO,
    replace(PEER_TWO, destination="10.192.6.0/23", gateway="10.192.6.0"),
)
RULES = tuple(
    f"-A DOCKER-USER {match} -j ACCEPT" for match in ("-o dray0", "-i dray-vx", "-o dray-vx")
)
DOCKER = DockerNetwork(LAYOUT.subnet, GATEWAY, "dray0", 1450, masquerades=False)
RIGHT = Observed(
    LINKS,
    ROUTES,
    {**SYSCTLS, "net.bridge.bridge-nf-call-iptables": "0"},
    forward_rules=(*RULES, "-A DOCKER-USER -j RETURN"),
    docker_network=DOCKER,
    neighbours={"10.192.4.0": HARDWARE_TWO, "10.192.6.0": HARDWARE_THREE},
    ends={HARDWARE_TWO: "192.0.2.2", HARDWARE_THREE: "192.0.2.3"},
)


def without_link(name: str) -> Observed:
    """Return the right state without an interface and what goes with it."""
    links = {other: link for other, link in LINKS.items() if other != name}
    routes = tuple(route for route in ROUTES if route.device != name)
    gone: dict[str, str] = {}
    kept = replace(RIGHT, links=links, routes=routes)
    return replace(kept, neighbours=gone, ends=gone) if name == "dray-vx" else kept


def with_link(name: str, **changes: object) -> Observed:
    """Return the right state with one interface changed."""
    changed = replace(LINKS[name], **changes)  # type: ignore[arg-type] # a test's shorthand
    return replace(RIGHT, links={**LINKS, name: changed})


def with_routes(change: Callable[[Route], Route | None]) -> Observed:
    """Return the right state with its routes changed; None leaves one out."""
    changed = (change(route) for route in ROUTES)
    return replace(RIGHT, routes=tuple(route for route in changed if route is not None))


def commands(found: Plan) -> list[str]:
    """Return the commands of a plan."""
    return [step.command for step in found.steps]


def test_nothing_is_done_to_what_is_right() -> None:
    """A machine whose network is in order is left alone."""
    assert plan(CONFIG, RIGHT) == Plan()


PEER_COMMAND = "route replace 10.192.4.0/23 via 10.192.4.0 dev dray-vx onlink src 10.192.2.1"
NEIGHBOUR_COMMAND = f"neighbour replace 10.192.4.0 lladdr {HARDWARE_TWO} dev dray-vx nud permanent"
END_COMMAND = f"fdb replace {HARDWARE_TWO} dev dray-vx dst 192.0.2.2 self permanent"
CASES: dict[str, tuple[Observed, list[str]]] = {
    "bridge-down": (with_link("dray0", is_up=False), ["link set dray0 up"]),
    "bridge-hardware": (
        with_link("dray0", hardware="02:42:00:00:00:07"),
        ["link set dray0 address 02:42:0a:c0:02:01"],
    ),
    "strays": (
        replace(RIGHT, strays=("veth1", "veth2")),
        [
            "link set veth1 master dray0 up", "link set veth1 type bridge_slave hairpin on",
            "link set veth2 master dray0 up", "link set veth2 type bridge_slave hairpin on",
        ],
    ),
    "bridge-address": (
        with_link("dray0", addresses=()), ["address replace 10.192.2.1/23 dev dray0"],
    ),
    "bridge-unfiltered": (
        with_link("dray0", details={}), ["link set dray0 type bridge nf_call_iptables 1"],
    ),
    "tunnel-size": (with_link("dray-vx", mtu=1500), ["link set dray-vx mtu 1450 up"]),
    "vip-route": (
        with_routes(lambda route: None if route.destination == "10.224.0.0/16" else route),
        ["route replace 10.224.0.0/16 dev dray0 src 10.192.2.1 metric 0"],
    ),
    "guard-routes": (
        with_routes(lambda route: None if route.destination == "10.192.0.0/11" else route),
        [
            "route replace unreachable 10.192.0.0/11 metric 9999",
            "route replace 10.192.0.0/11 dev dray0 src 10.192.2.1 metric 9998",
        ],
    ),
    "peer-route": (with_routes(lambda route: None if route == PEER_TWO else route), [PEER_COMMAND]),
    "peer-route-changed": (
        with_routes(lambda route: replace(route, gateway="") if route == PEER_TWO else route),
        [PEER_COMMAND],
    ),
    "peer-moved": (
        replace(RIGHT, ends={**RIGHT.ends, HARDWARE_TWO: "192.0.2.9"}), [END_COMMAND],
    ),
    "peer-neighbour": (
        replace(RIGHT, neighbours={"10.192.6.0": HARDWARE_THREE}), [NEIGHBOUR_COMMAND],
    ),
    "peer-end": (replace(RIGHT, ends={HARDWARE_THREE: "192.0.2.3"}), [END_COMMAND]),
    "peer-gone": (
        replace(
            RIGHT,
            routes=(*ROUTES, replace(PEER_TWO, destination="10.192.8.0/23")),
            neighbours={**RIGHT.neighbours, "10.192.8.0": "02:42:0a:c0:08:00"},
            ends={**RIGHT.ends, "02:42:0a:c0:08:00": "192.0.2.4"},
        ),
        [
            "route delete 10.192.8.0/23 dev dray-vx",
            "neighbour delete 10.192.8.0 dev dray-vx",
            "fdb delete 02:42:0a:c0:08:00 dev dray-vx dst 192.0.2.4 self",
        ],
    ),
    "forwarding-off": (
        replace(RIGHT, sysctls={**RIGHT.sysctls, "net.ipv4.ip_forward": "0"}),
        ["net.ipv4.ip_forward=1"],
    ),
    "rules-behind-return": (
        replace(RIGHT, forward_rules=("-A DOCKER-USER -j RETURN", *RULES)),
        ["-o dray0 -j ACCEPT", "-i dray-vx -j ACCEPT", "-o dray-vx -j ACCEPT"],
    ),
    "no-docker-rules": (
        replace(RIGHT, forward_chain="FORWARD", forward_rules=()),
        [
            "-o dray0 -j ACCEPT", "-i dray-vx -j ACCEPT", "-o dray-vx -j ACCEPT",
            "-i dray0 -j ACCEPT",
        ],
    ),
    "table": (replace(RIGHT, is_table_whole=False), [""]),
    "no-module": (replace(RIGHT, sysctls=SYSCTLS), ["br_netfilter"]),
    "bridge-gone": (without_link("dray0"), ["link add dray0 type bridge"]),
    "no-docker-network": (replace(without_link("dray0"), docker_network=None), ["1450"]),
    "other-options": (
        replace(RIGHT, docker_network=replace(DOCKER, masquerades=True)), ["dray", "1450"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_fault_is_one_repair(case: str) -> None:
    """Each thing that is wrong is put right by its own steps, which say what is wrong."""
    observed, expected = CASES[case]
    found = plan(CONFIG, observed)
    assert commands(found) == expected
    assert all(step.problem for step in found.steps)
    assert not found.blocked


TUNNEL_COMMAND = (
    "link add dray-vx address 02:42:0a:c0:02:00 type vxlan id 7777 dstport 4790 local 192.0.2.1 "
    "nolearning noudpcsum"
)
PEER_COMMANDS = {PEER_COMMAND, NEIGHBOUR_COMMAND, END_COMMAND}


def test_a_lost_tunnel_is_made_again_with_all_its_entries() -> None:
    """What the kernel dropped with the interface is written again in the same pass."""
    found = commands(plan(CONFIG, without_link("dray-vx")))
    assert found[:2] == [TUNNEL_COMMAND, "link set dray-vx mtu 1450 up"]
    assert len(found) == 2 + 2 * len(PEER_COMMANDS)
    assert set(found) > PEER_COMMANDS


def test_a_tunnel_that_was_down_keeps_its_forwarding_table() -> None:
    """The kernel drops routes and neighbours with a link that goes down, whatever was read."""
    found = commands(plan(CONFIG, with_link("dray-vx", is_up=False)))
    assert found[0] == "link set dray-vx mtu 1450 up"
    assert len(found) == 5
    assert set(found) > PEER_COMMANDS - {END_COMMAND}


@pytest.mark.parametrize(
    "changed",
    [
        {"details": {**TUNNEL, "port": "4789"}},
        {"details": {**TUNNEL, "local": "192.0.2.77"}},
        {"details": {**TUNNEL, "external": "true"}},
        {"hardware": "02:42:0a:c0:02:07"},
    ],
    ids=["port", "address", "form", "hardware"],
)
def test_a_tunnel_of_another_form_is_made_anew(changed: dict[str, object]) -> None:
    """With everything that belongs to it: the kernel drops it with the interface."""
    found = commands(plan(CONFIG, with_link("dray-vx", **changed)))
    assert found[:3] == [
        "link delete dray-vx", TUNNEL_COMMAND, "link set dray-vx mtu 1450 up",
    ]  # fmt: skip
    assert set(found) > PEER_COMMANDS


def test_a_machine_after_its_start() -> None:
    """The engine's network first; everything else is planned once the bridge is there."""
    bare = Observed({"eth0": LINKS["eth0"]}, ROUTES[:2], {}, is_table_whole=False)
    assert [step.kind for step in plan(CONFIG, bare).steps] == [
        StepKind.MODULE, StepKind.DOCKER_NETWORK,
    ]  # fmt: skip


def test_without_an_engine_the_rest_is_repaired() -> None:
    """While Docker is away its network waits; tunnel, filter and settings do not."""
    away = replace(without_link("dray0"), is_engine_there=False, docker_network=None)
    found = plan(CONFIG, replace(away, is_table_whole=False))
    assert found.waiting
    assert StepKind.TABLE in {step.kind for step in found.steps}
    running = replace(RIGHT, is_engine_there=False, docker_network=None)
    assert plan(CONFIG, running) == Plan()


def test_the_packet_size_follows_the_machines_interface() -> None:
    """A machine behind a smaller interface has a smaller tunnel; one in use keeps its network."""
    small = {**LINKS, "eth0": replace(LINKS["eth0"], mtu=1400)}
    found = plan(CONFIG, replace(RIGHT, links=small))
    assert commands(found) == ["dray", "1350"]
    used = replace(DOCKER, containers=("web",))
    found = plan(CONFIG, replace(RIGHT, links=small, docker_network=used))
    assert commands(found) == ["link set dray-vx mtu 1350 up"]


@pytest.mark.parametrize(
    ("config", "observed", "said"),
    [
        (replace(CONFIG, address="2001:db8::1"), RIGHT, "is IPv6"),
        (replace(CONFIG, address="192.0.2.77"), RIGHT, "no interface of this machine has"),
        (
            CONFIG,
            replace(RIGHT, routes=(*ROUTES, Route("10.200.0.0/16", "tun0"))),
            "10.200.0.0/16 (interface tun0) collides",
        ),
        (
            CONFIG,
            replace(
                RIGHT,
                docker_network=replace(DOCKER, subnet="10.192.9.0/24", containers=("a", "b")),
            ),
            "containers are attached to it (a, b): remove them",
        ),
        (CONFIG, with_link("dray0", kind="dummy"), "is a dummy of somebody else's"),
    ],
    ids=["ipv6", "address", "route", "subnet-in-use", "name-taken"],
)
def test_what_a_person_has_to_do_first(
    config: NetworkConfig, observed: Observed, said: str
) -> None:
    """What dray cannot or must not put right is said, and nothing is touched."""
    found = plan(config, observed)
    assert found.steps == ()
    assert said in "; ".join(found.blocked)


def test_a_change_of_peers_needs_no_look_at_the_machine() -> None:
    """One that moved, one that is gone and one that is new; the others are not touched."""
    own, two, three = CONFIG.peers
    moved = replace(two, address="192.0.2.9")
    new = NetworkPeer(node_id(4), "192.0.2.4", "10.192.8.0/23")
    steps = peer_steps(CONFIG, replace(CONFIG, peers=(own, moved, new)))
    assert steps is not None
    assert {step.kind for step in steps} == {StepKind.IP, StepKind.BRIDGE}
    hardware = "02:42:0a:c0:08:00"
    assert [step.command for step in steps] == [
        f"route delete {three.subnet} dev dray-vx",
        "neighbour delete 10.192.6.0 dev dray-vx",
        f"fdb delete {HARDWARE_THREE} dev dray-vx dst 192.0.2.3 self",
        f"neighbour replace 10.192.8.0 lladdr {hardware} dev dray-vx nud permanent",
        f"route replace {new.subnet} via 10.192.8.0 dev dray-vx onlink src {GATEWAY}",
        END_COMMAND.replace("192.0.2.2", moved.address),
        f"fdb replace {hardware} dev dray-vx dst 192.0.2.4 self permanent",
    ]
    assert peer_steps(CONFIG, CONFIG) == ()


def test_a_subnet_that_another_peer_has_too_stays() -> None:
    """Of two peers that name one subnet, one goes: the other's entries are not taken along."""
    own, two, three = CONFIG.peers
    again = NetworkPeer(node_id(4), "192.0.2.4", three.subnet)
    both = replace(CONFIG, peers=(own, two, again, three))
    assert peer_steps(both, CONFIG) == ()
    steps = peer_steps(both, replace(CONFIG, peers=(own, two, again)))
    assert steps is not None
    assert [step.command for step in steps] == [
        f"fdb replace {HARDWARE_THREE} dev dray-vx dst 192.0.2.4 self permanent"
    ]


def test_any_other_change_needs_one() -> None:
    """A node that has another address or subnet is looked at as a whole."""
    for other in (replace(CONFIG, address="192.0.2.9"), replace(CONFIG, subnet="10.192.8.0/23")):
        assert peer_steps(CONFIG, other) is None
