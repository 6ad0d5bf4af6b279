"""What does dray's nftables table say, before any service, peer or container is in it?

One table, `ip dray`, that is replaced or changed in single transactions; nobody else's table is
touched. Its chains never change while the daemon runs: what changes are elements of sets and maps
(`tables.py`), and chains and maps that are added for them (`structure`).

Balancing. A packet's destination is looked up once; the verdict leads to a chain that draws one of
n places, and the place's map names the endpoint. Three families share the scheme: `vip` (a
service's own address, every port), `pub` (a published port on every address of the node) and `at`
(a published port on one address). So no rule is walked per service, no packet mark is used, and a
changed endpoint is one changed element.

A container's packets for a VIP, or for an address that a file names for a service (it is one more
key of the family `vip`), are translated only if it shares a network with the service; else they
stay what they are and are refused. (Refusing them behind the translation fails between
neighbours: the kernel sends the reset past it.)

Filtering decides at the destination's node, before Docker's own rules (priority -5 against 0): the
destination's address leads to a chain that knows the sets of addresses on its Compose networks.
An accept of ours does not overrule a drop of Docker's: `plan.py` has the rules for that.
"""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from typing import Final

from node.network.ipam import gateway

__all__ = [
    "BRIDGE",
    "FAMILIES",
    "PLACES_MAX",
    "SKELETON_CHAINS",
    "STATICS",
    "STICKY_PLACES",
    "TABLE",
    "TUNNEL",
    "TUNNEL_PORT",
    "Layout",
    "group_structure",
    "network_structure",
    "pick_name",
    "pick_structure",
    "place_name",
    "place_structure",
    "skeleton",
]

TABLE: Final = "dray"
BRIDGE: Final = "dray0"
TUNNEL: Final = "dray-vx"
STATICS: Final = "statics"  # services' further addresses, that Compose files name
TUNNEL_PORT: Final = 4790  # not VXLAN's own 4789, which Swarm and others use on the same machines
SKELETON_CHAINS: Final = frozenset(
    {
        "balance", "deny", "forward", "inbound", "out", "outbound", "output", "post", "pre", "raw",
        "raw_inside", "raw_lo", "raw_out", "raw_port", "raw_tunnel", "refuse",
    }
)  # fmt: skip
PLACES_MAX: Final = 1_024  # endpoints of one service that are balanced over
STICKY_PLACES: Final = 64  # buckets of clients of a service with session affinity
_STICKY_SEED: Final = 0x64726179  # the same on every node: a client finds its endpoint through each

# Family: type of the key, the packet's key, type of the value, what must be matched before.
FAMILIES: Final = {
    "vip": ("ipv4_addr", "ip daddr", "ipv4_addr", ""),
    "pub": (
        "inet_proto . inet_service",
        "meta l4proto . th dport",
        "ipv4_addr . inet_service",
        "meta l4proto { tcp, udp } ",
    ),
    "at": (
        "ipv4_addr . inet_proto . inet_service",
        "ip daddr . meta l4proto . th dport",
        "ipv4_addr . inet_service",
        "meta l4proto { tcp, udp } ",
    ),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The addresses that the table is built around; all CIDR.

    Attributes:
        subnet: This node's share of the cluster's range.
        range_cidr: The cluster's range.
        vip_range_cidr: Range of the services' own addresses.
    """

    subnet: str
    range_cidr: str
    vip_range_cidr: str

    @property
    def gateway(self) -> str:
        """The node's own address in its subnet."""
        return gateway(self.subnet)

    def holds(self, address: str) -> bool:
        """Return whether an IPv4 address is a container's: others are those of nodes."""
        first, last = _bounds(self.range_cidr)
        return first <= _number(address) <= last

    def is_own(self, address: str) -> bool:
        """Return whether an IPv4 address is one of this node's subnet."""
        first, last = _bounds(self.subnet)
        return first <= _number(address) <= last

    @property
    def gateway_interface(self) -> str:
        """That address with the subnet's prefix length, as an interface has it."""
        return f"{self.gateway}/{ipaddress.ip_network(self.subnet).prefixlen}"


@functools.lru_cache(maxsize=16_384)  # all of a service are asked for whenever one changes
def _number(address: str) -> int:
    return int(ipaddress.IPv4Address(address))


@functools.lru_cache(maxsize=16)
def _bounds(cidr: str) -> tuple[int, int]:
    network = ipaddress.ip_network(cidr)
    return int(network[0]), int(network[-1])


def skeleton(layout: Layout) -> list[str]:
    """Return the lines that make the table anew, without elements, ending inside no block."""
    return [
        f"table ip {TABLE}",
        f"delete table ip {TABLE}",
        f"table ip {TABLE} {{",
        *_sets(),
        *_filter(layout),
        *_tunnel_guard(layout),
        *_translation(layout),
        "}",
    ]


def _sets() -> list[str]:
    addresses = ("peers", "gateways", "known", "egress", STATICS)
    return [
        *(f"set {name} {{ type ipv4_addr; }}" for name in addresses),
        "set sources { type ipv4_addr . ether_addr; }",
        "set selves { type ipv4_addr . ipv4_addr; }",
        "map locals { type ipv4_addr : verdict; }",
        "map askers { type ipv4_addr : verdict; }",
        *(f"map {name}s {{ type {key} : verdict; }}" for name, (key, *_) in FAMILIES.items()),
    ]


def _filter(layout: Layout) -> list[str]:
    cluster = f"{{ {layout.range_cidr}, {layout.vip_range_cidr} }}"
    return [
        # The kernel sends only a few ICMP errors a second; resets are not limited.
        "chain deny {",
        "meta l4proto tcp reject with tcp reset",
        "reject",
        "}",
        # A source that gossip has not told of yet is not refused but left to try again.
        "chain refuse {",
        "ip saddr @known goto deny",
        "drop",
        "}",
        "chain inbound {",
        f'iifname "{BRIDGE}" ip saddr . ether saddr != @sources drop',
        # A service without endpoints, or an address that no node has (`plan.py` routes it here).
        f"ip daddr != {layout.subnet} goto deny",
        # Published ports are open to everybody, also to containers of other networks.
        f"ct status dnat {_is_published(layout)} accept",
        f'iifname "{TUNNEL}" ip saddr @gateways accept',  # a peer itself, and what came through it
        f"ip saddr {layout.range_cidr} ip daddr vmap @locals",
        "drop",
        "}",
        "chain outbound {",
        "ip saddr . ether saddr != @sources drop",
        f'oifname "{TUNNEL}" accept',  # the destination's node decides
        f"ip daddr {cluster} goto deny",  # no node has that address: never to the machine's router
        f"ip daddr @{STATICS} goto deny",  # not translated: of another network, or nobody serves it
        "ip saddr @egress accept",
        "goto deny",
        "}",
        "chain forward {",
        "type filter hook forward priority -5; policy accept;",
        "ct state established,related accept",  # first: all packets but a connection's own first
        f'oifname "{BRIDGE}" goto inbound',
        # Masqueraded, it would look like a packet of this node's tunnel.
        f"udp dport {TUNNEL_PORT} ip daddr @peers drop",
        f'iifname "{BRIDGE}" goto outbound',
        f'oifname "{TUNNEL}" ct status dnat accept',
        f'oifname "{TUNNEL}" drop',
        f'iifname "{TUNNEL}" drop',
        "}",
        "chain output {",
        "type filter hook output priority -5; policy accept;",
        # A container that talks to a neighbour through a VIP needs no shorter way past it.
        f'oifname "{BRIDGE}" icmp type redirect drop',
        "}",
    ]


def _tunnel_guard(layout: Layout) -> list[str]:
    """Return the chains that every packet passes: the fewer steps, the shorter a round trip."""
    return [
        "chain raw_inside {",
        "ip daddr 127.0.0.0/8 drop",
        f"udp dport {TUNNEL_PORT} fib daddr type local drop",
        "}",
        "chain raw_tunnel {",
        f"ip saddr {layout.subnet} drop",
        f"ip saddr != {layout.range_cidr} drop",
        "goto raw_inside",
        "}",
        "chain raw_port {",
        "ip saddr @peers notrack accept",
        "fib daddr type local drop",
        "}",
        "chain raw_lo {",
        f"udp dport {TUNNEL_PORT} drop",
        "}",
        "chain raw {",
        "type filter hook prerouting priority -300; policy accept;",
        f'iifname vmap {{ "lo" : goto raw_lo, "{BRIDGE}" : goto raw_inside, '
        f'"{TUNNEL}" : goto raw_tunnel }}',
        f"udp dport {TUNNEL_PORT} goto raw_port",
        f"ip saddr {layout.range_cidr} drop",
        f"ip daddr {{ {layout.range_cidr}, {layout.vip_range_cidr} }} drop",
        "}",
        "chain raw_out {",
        "type filter hook output priority -300; policy accept;",
        f"udp dport {TUNNEL_PORT} notrack",
        "}",
    ]


def _translation(layout: Layout) -> list[str]:
    # The gateway's own address serves names, also when a service publishes port 53.
    published = [
        f"fib daddr type local ip daddr != {layout.gateway} "
        "ip daddr . meta l4proto . th dport vmap @ats",
        f"fib daddr type local ip daddr != {layout.gateway} meta l4proto . th dport vmap @pubs",
    ]
    own = f'{{ "{BRIDGE}", "{TUNNEL}" }}'
    return [
        "chain balance {",
        "ip daddr vmap @vips",
        "}",
        "chain pre {",
        "type nat hook prerouting priority -105; policy accept;",
        f'iifname "{BRIDGE}" ip daddr {layout.vip_range_cidr} ip saddr vmap @askers',
        f'iifname "{BRIDGE}" ip daddr @{STATICS} ip saddr vmap @askers',
        *published,
        "}",
        "chain out {",
        "type nat hook output priority -105; policy accept;",
        "ip daddr vmap @vips",
        *published,
        "}",
        "chain post {",
        "type nat hook postrouting priority 95; policy accept;",
        # A container that reaches itself through a VIP would drop its own address as source.
        f"ip saddr . ip daddr @selves ct status dnat snat to {layout.gateway}",
        # Replies must come back through this node, which knows of the translation.
        f'oifname "{TUNNEL}" ip saddr != {layout.range_cidr} snat to {layout.gateway}',
        f'oifname "{TUNNEL}" ct status dnat {_is_published(layout)} snat to {layout.gateway}',
        f"oifname {own} ip saddr 127.0.0.0/8 snat to {layout.gateway}",
        f"ip saddr {layout.subnet} oifname != {own} ip daddr != {layout.range_cidr} masquerade",
        "}",
    ]


def _is_published(layout: Layout) -> str:
    """Return the match of translated packets whose client asked a node, not a service's address."""
    original = "ct original ip daddr"
    return f"{original} != {layout.vip_range_cidr} {original} != @{STATICS}"


def place_name(family: str, place: int) -> str:
    """Return the map that names the endpoint at one place."""
    return f"{family}_{place}"


def place_structure(family: str, place: int) -> list[str]:
    """Return the commands that add one place of a family."""
    key, packet, value, guard = FAMILIES[family]
    name = place_name(family, place)
    kind = "ip" if " . " in value else ""
    return [
        f"add map ip {TABLE} {name} {{ type {key} : {value}; }}",
        f"add chain ip {TABLE} {family}_at_{place}",
        f"flush chain ip {TABLE} {family}_at_{place}",
        f"add rule ip {TABLE} {family}_at_{place} "
        f"{guard}dnat {kind} to {packet} map @{name}".replace("  ", " "),
    ]


def pick_name(family: str, places: int, *, is_sticky: bool) -> str:
    """Return the chain that draws one of so many places."""
    return f"{family}_{'stick' if is_sticky else 'pick'}_{places}"


def pick_structure(family: str, places: int, *, is_sticky: bool) -> list[str]:
    """Return the commands that add the chain that draws one of so many places."""
    name = pick_name(family, places, is_sticky=is_sticky)
    drawn = (
        f"jhash ip saddr mod {places} seed {_STICKY_SEED:#x}"
        if is_sticky
        else f"numgen random mod {places}"
    )
    verdicts = ", ".join(f"{place} : goto {family}_at_{place}" for place in range(places))
    rule = f"{drawn} vmap {{ {verdicts} }}" if places > 1 else f"goto {family}_at_0"
    return [
        f"add chain ip {TABLE} {name}",
        f"flush chain ip {TABLE} {name}",
        f"add rule ip {TABLE} {name} {rule}",
    ]


def network_structure(name: str) -> list[str]:
    """Return the commands that add the set of a Compose network's addresses."""
    return [f"add set ip {TABLE} {name} {{ type ipv4_addr; }}"]


def group_structure(name: str, networks: tuple[str, ...]) -> list[str]:
    """Return the commands that add a chain of containers that are on these networks.

    Args:
        name: "to_…": who may reach them; "ask_…": which services they may reach.
        networks: Sets of the networks' addresses.
    """
    is_asking = name.startswith("ask_")
    match, verdict = ("daddr", "goto balance") if is_asking else ("saddr", "accept")
    return [
        f"add chain ip {TABLE} {name}",
        f"flush chain ip {TABLE} {name}",
        *(f"add rule ip {TABLE} {name} ip {match} @{network} {verdict}" for network in networks),
        *([] if is_asking else [f"add rule ip {TABLE} {name} goto refuse"]),
    ]
