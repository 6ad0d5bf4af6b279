"""What has to be done to the machine's network so that containers reach each other?

`plan` compares what should be with what was observed and returns steps, each with the sentence that
says what is wrong: the node carries them out, and `dray node doctor` shows them. Nothing is done
that is right already, so planning after repairing returns nothing. What only a person can repair is
in `blocked`, and then nothing is touched.

Between nodes: one VXLAN device without learning, and for each peer three entries that never change
by themselves: a route to its subnet over the subnet's first address, which no container has, that
address as a permanent neighbour, and where the neighbour's packets are sent.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from node.network.isolation import hardware_address
from node.network.observed import DockerNetwork, Link, Observed, Route, covers
from node.network.ranges import MachineRoute, range_conflicts
from node.network.ruleset import BRIDGE, TUNNEL, TUNNEL_PORT, Layout
from node.ports import NetworkConfig

__all__ = [
    "DOCKER_NETWORK",
    "ENCAPSULATION_BYTES",
    "SYSCTLS",
    "TUNNEL_ID",
    "Plan",
    "Step",
    "StepKind",
    "docker_network",
    "layout",
    "machine_routes",
    "peer_steps",
    "plan",
]

DOCKER_NETWORK: Final = "dray"
TUNNEL_ID: Final = 7_777
ENCAPSULATION_BYTES: Final = 50  # IPv4 20, UDP 8, VXLAN 8, Ethernet 14
MTU_MIN: Final = 1_280  # below it nothing is sure to work any more
_REFUSED_METRIC: Final = 9_998  # of the route for addresses that no node's route is for
_GUARD_METRIC: Final = 9_999  # of the one that catches them while there is no bridge

SYSCTLS: Final = {
    "net.ipv4.ip_forward": "1",
    # A container that talks to its neighbour's VIP is not told of a shorter way.
    f"net.ipv4.conf.{BRIDGE}.send_redirects": "0",
    # Published ports answer on 127.0.0.1 too; the table keeps containers from the loopback.
    f"net.ipv4.conf.{BRIDGE}.route_localnet": "1",
    f"net.ipv4.conf.{TUNNEL}.route_localnet": "1",
}
_FILTERED_BRIDGE: Final = "net.bridge.bridge-nf-call-iptables"  # there when br_netfilter is


class StepKind(enum.Enum):
    """What carries a step out, in the order in which steps are carried out."""

    MODULE = 1
    """`command` is a kernel module to load."""
    REMOVE_DOCKER_NETWORK = 2
    DOCKER_NETWORK = 3
    IP = 4
    """`command` is a line for `ip -batch`."""
    BRIDGE = 5
    """`command` is a line for `bridge -batch`."""
    SYSCTL = 6
    """`command` is "name=value"."""
    FORWARD_RULE = 7
    """`command` is a rule for the top of `Observed.forward_chain`."""
    TABLE = 8
    """Write dray's nftables table anew."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        kind: What carries it out.
        command: Its argument; see `StepKind`.
        problem: What is wrong, one sentence for people.
    """

    kind: StepKind
    command: str
    problem: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what is in the way.

    Attributes:
        steps: What the node does by itself. Empty when all is right.
        blocked: What a person has to do first, a sentence each; then `steps` is empty.
        waiting: What cannot be done at the moment, such as while Docker is away.
    """

    steps: tuple[Step, ...] = ()
    blocked: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def layout(config: NetworkConfig) -> Layout:
    """Return the addresses that the nftables table is built around."""
    return Layout(config.subnet, config.range_cidr, config.vip_range_cidr)


def docker_network(config: NetworkConfig, mtu: int) -> DockerNetwork:
    """Return the network that the engine should know."""
    return DockerNetwork(config.subnet, layout(config).gateway, BRIDGE, mtu, masquerades=False)


def plan(config: NetworkConfig, observed: Observed) -> Plan:
    """Return what to do. Pure: the same observation gives the same plan.

    While the engine's network is missing only what does not depend on it is planned; observe and
    plan again after the steps were carried out.
    """
    blocked = tuple(_blocked(config, observed))
    if blocked:
        return Plan(blocked=blocked)
    mtu = _container_mtu(config, observed)
    steps = list(_modules(observed))
    waiting: tuple[str, ...] = ()
    if BRIDGE not in observed.links or _network_differs(config, observed, mtu):
        if observed.is_engine_there:
            return Plan((*steps, *_docker(config, observed, mtu)))
        waiting = ("the Docker Engine does not answer, and the containers' bridge is not there",)
    else:
        steps += _bridge(config, observed)
    steps += _tunnel(config, observed, mtu)
    steps += _routes(config, observed, has_bridge=not waiting)
    steps += _sysctls(observed)
    steps += _forward_rules(observed)
    if not observed.is_table_whole:
        steps.append(Step(StepKind.TABLE, "", "the filter and balancing rules are not there"))
    return Plan(tuple(steps), waiting=waiting)


def machine_routes(routes: Iterable[Route]) -> list[MachineRoute]:
    """Return the routes that lead somewhere, for `ranges`."""
    return [
        MachineRoute(route.destination, route.device, not route.gateway)
        for route in routes
        if route.kind == "unicast"
    ]


def _blocked(config: NetworkConfig, observed: Observed) -> Iterator[str]:
    if ipaddress.ip_address(config.address).version != 4:
        yield (
            f"the advertised address {config.address} is IPv6, and tunnels between nodes need "
            "IPv4: start the node with an IPv4 address (--advertise)"
        )
    elif not list(covers(config.address, observed.links)):
        yield (
            f"no interface of this machine has the advertised address {config.address}: "
            "start the node with one that it has (--advertise)"
        )
    yield from range_conflicts(
        (config.range_cidr, config.vip_range_cidr),
        machine_routes(observed.routes),
        own_devices=frozenset({BRIDGE, TUNNEL}),
        peers=(config.address, *(peer.address for peer in config.peers)),
    )
    yield from _bridge_taken(config, observed)


def _bridge_taken(config: NetworkConfig, observed: Observed) -> Iterator[str]:
    found = observed.docker_network
    if found is not None and found.containers and found.subnet != config.subnet:
        names = ", ".join(found.containers[:3])
        yield (
            f"the Docker network {DOCKER_NETWORK} has the subnet {found.subnet}, this node's is "
            f"{config.subnet}, and containers are attached to it ({names}): remove them"
        )
    bridge = observed.links.get(BRIDGE)
    if bridge is not None and bridge.kind != "bridge":
        yield f"interface {BRIDGE} is a {bridge.kind or 'device'} of somebody else's: rename it"


def _container_mtu(config: NetworkConfig, observed: Observed) -> int:
    underlay = next(covers(config.address, observed.links), None)
    return max(MTU_MIN, (underlay.mtu if underlay else 1_500) - ENCAPSULATION_BYTES)


def _modules(observed: Observed) -> Iterator[Step]:
    if _FILTERED_BRIDGE not in observed.sysctls:
        yield Step(
            StepKind.MODULE,
            "br_netfilter",
            "the kernel does not filter what passes between containers of this node "
            "(module br_netfilter)",
        )


def _network_differs(config: NetworkConfig, observed: Observed, mtu: int) -> bool:
    found = observed.docker_network
    if not observed.is_engine_there:
        return False
    if found is None:
        return True
    wanted = docker_network(config, mtu)
    # A network in use keeps its MTU: containers would have to be made anew.
    is_same_mtu = found.mtu == mtu or bool(found.containers)
    return not is_same_mtu or (found.subnet, found.gateway, found.bridge, found.masquerades) != (
        wanted.subnet,
        wanted.gateway,
        wanted.bridge,
        wanted.masquerades,
    )


def _docker(config: NetworkConfig, observed: Observed, mtu: int) -> Iterator[Step]:
    if observed.docker_network is not None and _network_differs(config, observed, mtu):
        yield Step(
            StepKind.REMOVE_DOCKER_NETWORK,
            DOCKER_NETWORK,
            f"the Docker network {DOCKER_NETWORK} was made with other options",
        )
    elif observed.docker_network is not None:
        # The engine believes in a bridge that somebody has removed: give it another one.
        yield Step(StepKind.IP, f"link add {BRIDGE} type bridge", f"the bridge {BRIDGE} is gone")
        return
    yield Step(
        StepKind.DOCKER_NETWORK,
        str(mtu),
        f"the Docker network {DOCKER_NETWORK} is not there",
    )


def _bridge(config: NetworkConfig, observed: Observed) -> Iterator[Step]:
    bridge = observed.links[BRIDGE]
    address = layout(config).gateway_interface
    hardware = hardware_address(layout(config).gateway)
    if bridge.hardware != hardware:
        # Always the same one: containers that know it find a bridge that was made again.
        yield Step(
            StepKind.IP,
            f"link set {BRIDGE} address {hardware}",
            f"the bridge {BRIDGE} has another hardware address",
        )
    if not bridge.is_up:
        yield Step(StepKind.IP, f"link set {BRIDGE} up", f"the bridge {BRIDGE} is down")
    if address not in bridge.addresses:
        yield Step(
            StepKind.IP,
            f"address replace {address} dev {BRIDGE}",
            f"the bridge {BRIDGE} has lost its address {address}",
        )
    if bridge.details.get("nf_call_iptables") != "1":
        yield Step(
            StepKind.IP,
            f"link set {BRIDGE} type bridge nf_call_iptables 1",
            f"what passes between containers of the bridge {BRIDGE} is not filtered",
        )
    for name in observed.strays:
        yield Step(
            StepKind.IP,
            f"link set {name} master {BRIDGE} up",
            f"the container behind {name} is not connected to the bridge {BRIDGE}",
        )
        yield Step(
            StepKind.IP,
            f"link set {name} type bridge_slave hairpin on",  # a port that left has lost it
            f"the container behind {name} cannot reach itself by its service's address",
        )


def _tunnel(config: NetworkConfig, observed: Observed, mtu: int) -> Iterator[Step]:
    found = observed.links.get(TUNNEL)
    is_right = found is not None and _is_our_tunnel(found, config)
    if found is not None and not is_right:
        problem = f"the tunnel {TUNNEL} was made with other options"
        yield Step(StepKind.IP, f"link delete {TUNNEL}", problem)
    if not is_right:
        yield Step(
            StepKind.IP,
            f"link add {TUNNEL} address {_tunnel_hardware(config.subnet)} type vxlan "
            f"id {TUNNEL_ID} dstport {TUNNEL_PORT} local {config.address} nolearning noudpcsum",
            f"the tunnel {TUNNEL} to the other nodes is not there",
        )
    if not is_right or (found is not None and (found.mtu != mtu or not found.is_up)):
        yield Step(
            StepKind.IP,
            f"link set {TUNNEL} mtu {mtu} up",
            f"the tunnel {TUNNEL} is down or has another packet size",
        )


def _is_our_tunnel(link: Link, config: NetworkConfig) -> bool:
    wanted = {
        "id": str(TUNNEL_ID),
        "port": str(TUNNEL_PORT),
        "local": config.address,
        "learning": "false",
        "udp_csum": "false",
    }
    return (
        link.kind == "vxlan"
        and link.hardware == _tunnel_hardware(config.subnet)
        and all(link.details.get(name) == value for name, value in wanted.items())
        and not {"external", "gpe"} & link.details.keys()
    )


@functools.lru_cache(maxsize=4_096)  # asked for every peer, with every look
def _router(subnet: str) -> str:
    """Return the address that stands for a node in its peers' routes: the subnet's first one."""
    return str(ipaddress.ip_network(subnet)[0])


@functools.lru_cache(maxsize=4_096)
def _tunnel_hardware(subnet: str) -> str:
    """Return the hardware address of a node's end of the tunnel."""
    return hardware_address(_router(subnet))


def _routes(config: NetworkConfig, observed: Observed, *, has_bridge: bool) -> Iterator[Step]:
    gateway = layout(config).gateway
    found = {(route.destination, route.metric): route for route in observed.routes}
    guard = Route(config.range_cidr, kind="unreachable", metric=_GUARD_METRIC)
    if found.get((guard.destination, guard.metric)) is None:
        yield Step(
            StepKind.IP,
            f"route replace unreachable {config.range_cidr} metric {_GUARD_METRIC}",
            f"addresses of {config.range_cidr} that no node has would go to the machine's router",
        )
    if not has_bridge:
        return
    for destination, metric, problem in (
        (config.vip_range_cidr, 0, "the route to the services' own addresses is missing"),
        # The filter refuses them there with a reset; the kernel alone would say little, and late.
        (config.range_cidr, _REFUSED_METRIC, "addresses that no node has are not refused"),
    ):
        route = Route(destination, BRIDGE, source=gateway, metric=metric)
        if found.get((destination, metric)) != route:
            yield Step(
                StepKind.IP,
                f"route replace {destination} dev {BRIDGE} src {gateway} metric {metric}",
                problem,
            )
    yield from _peers(config, observed)


@dataclass(frozen=True, slots=True)
class _Entries:
    """What leads into the tunnel: routes by subnet, neighbours by address, ends by hardware."""

    routes: Mapping[str, Route]
    neighbours: Mapping[str, str]
    ends: Mapping[str, str]


def peer_steps(before: NetworkConfig, config: NetworkConfig) -> tuple[Step, ...] | None:
    """Return what to do on a machine that is as `before` wants it; None: look at it first.

    When only peers came, went or moved, the entries of their subnets are all that changes.
    """
    if replace(before, peers=()) != replace(config, peers=()):
        return None
    subnets = {peer.subnet for peer in {*before.peers} ^ {*config.peers}}
    was, wanted = (_only(subnets, each) for each in (before, config))
    return tuple(_entry_steps(_wanted_entries(was), _wanted_entries(wanted)))


def _only(subnets: Collection[str], config: NetworkConfig) -> NetworkConfig:
    """Return a configuration with the peers of some subnets alone."""
    return replace(config, peers=tuple(peer for peer in config.peers if peer.subnet in subnets))


def _peers(config: NetworkConfig, observed: Observed) -> Iterator[Step]:
    tunnel = observed.links.get(TUNNEL)
    if tunnel is None or not _is_our_tunnel(tunnel, config):
        found = _Entries({}, {}, {})  # one that is made again has lost them
    elif not tunnel.is_up:
        found = _Entries({}, {}, observed.ends)
    else:
        routes = {route.destination: route for route in observed.routes if route.device == TUNNEL}
        found = _Entries(routes, observed.neighbours, observed.ends)
    yield from _entry_steps(found, _wanted_entries(config))


def _wanted_entries(config: NetworkConfig) -> _Entries:
    source = layout(config).gateway
    routes: dict[str, Route] = {}
    neighbours: dict[str, str] = {}
    ends: dict[str, str] = {}
    for peer in config.peers:
        if peer.subnet and peer.node_id != config.node_id:
            router = _router(peer.subnet)
            routes[peer.subnet] = Route(peer.subnet, TUNNEL, gateway=router, source=source)
            neighbours[router] = _tunnel_hardware(peer.subnet)
            ends[neighbours[router]] = peer.address
    return _Entries(routes, neighbours, ends)


def _entry_steps(found: _Entries, wanted: _Entries) -> Iterator[Step]:
    for destination in sorted(found.routes.keys() - wanted.routes.keys()):
        yield Step(
            StepKind.IP,
            f"route delete {destination} dev {TUNNEL}",
            f"the route to {destination} leads to a node that is no more",
        )
    for router in sorted(found.neighbours.keys() - wanted.neighbours.keys()):
        yield Step(
            StepKind.IP,
            f"neighbour delete {router} dev {TUNNEL}",
            f"the neighbour {router} in the tunnel is a node that is no more",
        )
    for hardware in sorted(found.ends.keys() - wanted.ends.keys()):
        yield Step(
            StepKind.BRIDGE,
            f"fdb delete {hardware} dev {TUNNEL} dst {found.ends[hardware]} self",
            f"the tunnel leads to {found.ends[hardware]}, which is no node any more",
        )
    for router, hardware in wanted.neighbours.items():
        if found.neighbours.get(router) != hardware:
            yield Step(
                StepKind.IP,
                f"neighbour replace {router} lladdr {hardware} dev {TUNNEL} nud permanent",
                f"the neighbour {router} in the tunnel is missing",
            )
    for destination, route in wanted.routes.items():
        if found.routes.get(destination) != route:
            yield Step(
                StepKind.IP,
                f"route replace {destination} via {route.gateway} dev {TUNNEL} onlink "
                f"src {route.source}",
                f"the route to the containers of {destination} is missing",
            )
    for hardware, address in wanted.ends.items():
        if found.ends.get(hardware) != address:
            yield Step(
                StepKind.BRIDGE,
                f"fdb replace {hardware} dev {TUNNEL} dst {address} self permanent",
                f"the tunnel does not lead to the node {address}",
            )


def _sysctls(observed: Observed) -> Iterator[Step]:
    for name, value in SYSCTLS.items():
        if f".{BRIDGE}." in name and BRIDGE not in observed.links:
            continue
        if observed.sysctls.get(name) != value:
            yield Step(
                StepKind.SYSCTL,
                f"{name}={value}",
                f"the kernel setting {name} is {observed.sysctls.get(name, 'not there')}, "
                f"not {value}",
            )


def _forward_rules(observed: Observed) -> Iterator[Step]:
    before_return = []
    for rule in observed.forward_rules:
        if rule == f"-A {observed.forward_chain} -j RETURN":
            break
        before_return.append(rule)
    matches = [f"-o {BRIDGE}", f"-i {TUNNEL}", f"-o {TUNNEL}"]
    if observed.forward_chain == "FORWARD":
        matches.append(f"-i {BRIDGE}")  # where Docker's rules are, they say it
    for match in matches:
        if f"-A {observed.forward_chain} {match} -j ACCEPT" not in before_return:
            yield Step(
                StepKind.FORWARD_RULE,
                f"{match} -j ACCEPT",
                f"Docker's firewall does not let containers' packets pass ({match})",
            )
