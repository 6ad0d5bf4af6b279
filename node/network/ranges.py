"""Does what the cluster wants to use collide with what the machine uses already?

The cluster's ranges were chosen once for all machines; a machine may have a network of its own in
them. dray never takes such a range over: it says what is in the way and leaves the machine alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["MachineRoute", "range_conflicts", "static_conflicts"]

_Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"


@dataclass(frozen=True, slots=True)
class MachineRoute:
    """A route of the machine.

    Attributes:
        destination: CIDR, or one address; "default" for the default route.
        device: Name of the interface; empty for one without, such as "unreachable".
        is_on_link: Whether it leads to neighbours rather than to a router.
    """

    destination: str
    device: str = ""
    is_on_link: bool = True


def range_conflicts(
    ranges: Sequence[str],
    routes: Iterable[MachineRoute],
    *,
    own_devices: frozenset[str],
    peers: Iterable[str] = (),
) -> tuple[str, ...]:
    """Return a sentence for everything that is in the way, with the next step; empty: nothing.

    A route to a router that covers a whole range (10.0.0.0/8 in an office) is not in the way: what
    dray adds is more specific, and only the range itself is lost to it.

    Args:
        ranges: The cluster's range and that of its services' addresses, CIDR.
        routes: All routes of the machine's main table.
        own_devices: Interfaces of dray, whose routes are its own.
        peers: Addresses by which nodes are reached, this one's included.
    """
    wanted = [ipaddress.ip_network(text) for text in ranges]
    found = [
        f"the cluster's ranges {one} and {other} overlap"
        for at, one in enumerate(wanted)
        for other in wanted[at + 1 :]
        if one.version == other.version and one.overlaps(other)
    ]
    for address in peers:
        number = ipaddress.ip_address(address)
        found += [
            f"node address {address} lies in the cluster's range {one}: nodes and containers need "
            "ranges of their own; make the cluster with another one (dray init --range)"
            for one in wanted
            if number in one
        ]
    for route in routes:
        if route.device in own_devices or not route.device or route.destination == "default":
            continue
        destination = ipaddress.ip_network(route.destination)
        found += [
            f"the machine's own route {route.destination} (interface {route.device}) collides with "
            f"the cluster's range {one}: remove it, or make the cluster with another range "
            "(dray init --range)"
            for one in wanted
            if _collides(destination, one, route)
        ]
    return tuple(dict.fromkeys(found))


def static_conflicts(addresses: Iterable[str], routes: Iterable[MachineRoute]) -> tuple[str, ...]:
    """Return a sentence for every address of a service that may be a neighbour's of the machine.

    Containers of this machine would no longer reach who is there. (A router's wide route loses one
    address, as with the cluster's ranges.)

    Args:
        addresses: IPv4 addresses that files name for services, outside the cluster's ranges.
        routes: All routes of the machine's main table.
    """
    known = [
        (ipaddress.ip_network(route.destination), route)
        for route in routes
        if route.device and route.is_on_link and route.destination != "default"
    ]
    return tuple(
        f"the address {address} of the service lies in the machine's own route "
        f"{route.destination} (interface {route.device}): name another ipv4_address"
        for address in addresses
        for network, route in known
        if ipaddress.ip_address(address) in network
    )


def _collides(destination: _Network, wanted: _Network, route: MachineRoute) -> bool:
    if destination.version != wanted.version or not destination.overlaps(wanted):
        return False
    is_inside = destination.prefixlen >= wanted.prefixlen
    return is_inside or route.is_on_link
