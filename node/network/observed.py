"""What does the machine's network look like? Values, read from what the tools print."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias, cast

from dray.errors import PeerMisbehaved

__all__ = [
    "DockerNetwork",
    "Link",
    "Observed",
    "Route",
    "covers",
    "loose_ends",
    "parse_ends",
    "parse_links",
    "parse_neighbours",
    "parse_routes",
    "set_elements",
    "strays",
    "table_chains",
]

_Json: TypeAlias = "Mapping[str, object]"
_CHAIN: Final = re.compile(r"^\tchain (\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_ELEMENTS: Final = re.compile(r"elements = \{(.*?)\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Link:
    """An interface.

    Attributes:
        name: Its name.
        kind: "bridge", "vxlan", "veth" …; empty for hardware.
        mtu: Largest packet, bytes.
        is_up: Whether it was switched on.
        addresses: IPv4 addresses with prefix length.
        hardware: Hardware address.
        index: The kernel's number of it.
        master: Bridge that it is a port of; empty: none.
        details: What its kind says of itself, by name, as text.
    """

    name: str
    kind: str = ""
    mtu: int = 1500
    is_up: bool = True
    addresses: tuple[str, ...] = ()
    hardware: str = ""
    index: int = 0
    master: str = ""
    details: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Route:
    """An IPv4 route of the main table.

    Attributes:
        destination: CIDR; "default" for the default route.
        device: Interface; empty for one without.
        kind: "unicast", "unreachable" …
        gateway: Router; empty: on the link.
        source: Address that packets of the machine itself get; empty: none is said.
        metric: Lower ones win.
    """

    destination: str
    device: str = ""
    kind: str = "unicast"
    gateway: str = ""
    source: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class DockerNetwork:
    """dray's network as the engine knows it.

    Attributes:
        subnet: CIDR.
        gateway: The bridge's address.
        bridge: Name of its interface.
        mtu: Largest packet of its containers.
        masquerades: Whether Docker hides its containers behind the machine's address.
        containers: Names of those that are attached and run.
    """

    subnet: str
    gateway: str
    bridge: str
    mtu: int
    masquerades: bool
    containers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that the plan looks at, read at one moment.

    Attributes:
        links: Interfaces by name.
        routes: Routes of the main table.
        sysctls: Kernel settings that were asked for, by name; one that does not exist is absent.
        forward_chain: Chain of iptables in which rules for forwarded packets belong:
            "DOCKER-USER", or "FORWARD" without Docker's.
        forward_rules: Its rules, as `iptables -S` prints them.
        is_engine_there: Whether the Docker Engine answers.
        docker_network: dray's network there; None: it does not exist or is not known.
        strays: Interfaces of containers of that network that are no port of its bridge.
        is_table_whole: Whether dray's nftables table is what was written last.
        neighbours: The tunnel's permanent neighbours: hardware addresses by IPv4 address.
        ends: Its forwarding table: nodes' addresses by hardware address.
    """

    links: Mapping[str, Link]
    routes: tuple[Route, ...]
    sysctls: Mapping[str, str]
    forward_chain: str = "DOCKER-USER"
    forward_rules: tuple[str, ...] = ()
    is_engine_there: bool = True
    docker_network: DockerNetwork | None = None
    strays: tuple[str, ...] = ()
    is_table_whole: bool = True
    neighbours: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ends: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def parse_links(text: str) -> dict[str, Link]:
    """Return the interfaces that `ip -j -d address show` printed, by name.

    Raises:
        PeerMisbehaved: It printed something else.
    """
    links = (_link(item) for item in _items(text, "ip address"))
    return {link.name: link for link in links}


def _link(item: _Json) -> Link:
    info = cast("_Json", item.get("linkinfo") or {})
    details = cast("_Json", info.get("info_data") or {})
    addresses = cast("list[_Json]", item.get("addr_info") or [])
    return Link(
        name=str(item.get("ifname", "")).partition("@")[0],
        kind=str(info.get("info_kind", "")),
        mtu=int(str(item.get("mtu", 0))),
        is_up="UP" in cast("list[str]", item.get("flags") or []),
        addresses=tuple(
            f"{each['local']}/{each['prefixlen']}"
            for each in addresses
            if each.get("family") == "inet"
        ),
        hardware=str(item.get("address", "")),
        index=int(str(item.get("ifindex", 0))),
        master=str(item.get("master", "")),
        details={name: str(value).lower() for name, value in details.items()},
    )


def parse_routes(text: str) -> tuple[Route, ...]:
    """Return the routes that `ip -j -4 route show` printed.

    Raises:
        PeerMisbehaved: It printed something else.
    """
    return tuple(_route(item) for item in _items(text, "ip route"))


def _route(item: _Json) -> Route:
    return Route(
        destination=str(item.get("dst", "")),
        device=str(item.get("dev", "")),
        kind=str(item.get("type", "unicast")),
        gateway=str(item.get("gateway", "")),
        source=str(item.get("prefsrc", "")),
        metric=int(str(item.get("metric", 0))),
    )


def parse_neighbours(text: str) -> dict[str, str]:
    """Return the neighbours that `ip -j -4 neighbour show` printed: hardware addresses by IPv4.

    Raises:
        PeerMisbehaved: It printed something else.
    """
    items = _items(text, "ip neighbour")
    return {str(item["dst"]): str(item["lladdr"]) for item in items if "lladdr" in item}


def parse_ends(text: str) -> dict[str, str]:
    """Return the entries that `bridge -j fdb show` printed: ends of a tunnel by hardware address.

    Raises:
        PeerMisbehaved: It printed something else.
    """
    items = _items(text, "bridge fdb")
    return {str(item["mac"]): str(item["dst"]) for item in items if "dst" in item}


def _items(text: str, command: str) -> list[_Json]:
    try:
        found = json.loads(text or "[]")
    except ValueError as error:
        raise PeerMisbehaved(f"{command} printed no JSON: {error}") from error
    if not isinstance(found, list):
        raise PeerMisbehaved(f"{command} printed no list")
    return [item for item in found if isinstance(item, dict)]


def table_chains(listing: str, table: str) -> dict[str, str]:
    """Return the rules of every chain of one table, by name; nothing without the table.

    Args:
        listing: What `nft -s -t list ruleset` printed.
        table: Its family and name.
    """
    _, _, rest = f"\n{listing}".partition(f"\ntable {table} {{")
    own, _, _ = rest.partition("\n}\n")
    return {match[1]: match[2] for match in _CHAIN.finditer(f"{own}\n")}


def set_elements(listing: str) -> frozenset[str]:
    """Return the elements of a set that `nft list set` printed."""
    match = _ELEMENTS.search(listing)
    found = match[1].split(",") if match else ()
    return frozenset(text for element in found if (text := element.strip()))


def loose_ends(links: Mapping[str, Link]) -> tuple[Link, ...]:
    """Return the interfaces that may be a container's and are no port of any bridge.

    Docker names its own "veth…". Without any, nobody need be asked whose they are.
    """
    return tuple(
        link
        for link in links.values()
        if link.kind == "veth" and not link.master and link.name.startswith("veth")
    )


def strays(links: Mapping[str, Link], ends: Collection[int]) -> tuple[str, ...]:
    """Return the interfaces that should be ports of a bridge and are not.

    Args:
        links: All interfaces.
        ends: Numbers of the host's ends of the containers' interfaces.
    """
    return tuple(sorted(link.name for link in loose_ends(links) if link.index in ends))


def covers(address: str, links: Mapping[str, Link]) -> Iterator[Link]:
    """Yield the interfaces that have an address."""
    for link in links.values():
        if any(each.partition("/")[0] == address for each in link.addresses):
            yield link
