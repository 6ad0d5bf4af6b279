"""Which table entries make this node balance a service's connections over its usable endpoints?

The same rule as DNS decides what is usable (`node.discovery`). A service's endpoints keep their
places when others come and go, so that one change is a few elements: the last one moves into a hole
that another leaves. With session affinity the places are `STICKY_PLACES` buckets of clients, each
given to the endpoint that ranks first for it (rendezvous hashing): when an endpoint goes, only its
own clients move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dray.model import (
    EndpointView,
    MemberState,
    PortProtocol,
    PublishMode,
    ServiceFacts,
)
from node.discovery import select
from node.network.ruleset import (
    PLACES_MAX,
    STATICS,
    STICKY_PLACES,
    Layout,
    pick_name,
    place_name,
)
from node.network.tables import Entries, Entry, network_name

__all__ = [
    "PROTOCOLS",
    "HeldPort",
    "ServiceTable",
    "arranged",
    "flow_addresses",
    "host_entries",
    "membership_entries",
    "published_ports",
    "service_keys",
    "service_table",
]

PROTOCOLS: Final = {PortProtocol.TCP: "tcp", PortProtocol.UDP: "udp"}  # SCTP is not balanced


@dataclass(frozen=True, slots=True, order=True)
class HeldPort:
    """A port of the node that leads to containers.

    Attributes:
        protocol: "tcp" or "udp".
        host_ip: Address of the node; empty: all.
        number: Port on the node.
        target: Port in the containers.
    """

    protocol: str
    host_ip: str
    number: int
    target: int


@dataclass(frozen=True, slots=True)
class ServiceTable:
    """What one service brings into the table.

    Attributes:
        places: IPv4 addresses of its usable endpoints by place, for the next call.
        entries: Its entries.
    """

    places: tuple[str, ...]
    entries: Entries


def service_table(
    facts: ServiceFacts,
    views: Sequence[EndpointView],
    ports: Iterable[HeldPort],
    layout: Layout,
    places: tuple[str, ...] = (),
) -> ServiceTable:
    """Return what a service's own addresses and the ports that every node publishes need.

    Without a usable endpoint there are no entries, and connections are refused.

    Args:
        facts: The service as a whole.
        views: All its known endpoints.
        ports: Those of `published_ports` that this node has claimed. They lead to containers in
            the cluster's range only: one on its machine's own network stack listens there itself.
        layout: The cluster's range.
        places: Addresses by place, as the call before returned them.
    """
    used = select(views).used
    usable = dict.fromkeys(view.endpoint.address for view in used if view.endpoint.address)
    arrangement = arranged(places, list(usable)[:PLACES_MAX])
    targets = _sticky(arrangement) if facts.affinity else arrangement
    entries: dict[Entry, str] = {}
    if facts.vip and ":" not in facts.vip:
        entries |= _family("vip", facts.vip, targets, facts.affinity)
    for _, address in facts.static:
        entries |= _family("vip", address, targets, facts.affinity)
    inside = tuple(filter(layout.holds, arrangement))
    inner = _sticky(inside) if facts.affinity else inside
    for port in ports:
        found = [f"{address} . {port.target}" for address in inner]
        entries |= _port_family(
            port.protocol, port.host_ip, port.number, found, is_sticky=facts.affinity
        )
    return ServiceTable(arrangement, entries)


def service_keys(facts: ServiceFacts | None, ports: Iterable[HeldPort]) -> frozenset[Entry]:
    """Return the entries by which packets find a service: its addresses, and its ports."""
    keys = {_port_key(port.protocol, port.host_ip, port.number) for port in ports}
    if facts is not None:
        own = (facts.vip, *(address for _, address in facts.static))
        keys |= {("vip", address) for address in own if address}
    return frozenset(Entry(f"{family}s", key) for family, key in keys)


def host_entries(held: Iterable[tuple[HeldPort, str]]) -> Entries:
    """Return what ports in host mode need: they lead to this node's own tasks alone.

    Args:
        held: Ports, each with the address of a task of this node that takes connections on it.
    """
    addresses: dict[HeldPort, list[str]] = {}
    for port, address in held:
        addresses.setdefault(port, []).append(address)
    entries: dict[Entry, str] = {}
    for port, found in addresses.items():
        targets = [f"{address} . {port.target}" for address in sorted(found)]
        entries |= _port_family(port.protocol, port.host_ip, port.number, targets, is_sticky=False)
    return entries


def membership_entries(
    facts: ServiceFacts | None,
    views: Iterable[EndpointView],
    networks: Collection[str],
    layout: Layout,
) -> Entries:
    """Return what tells a service and its containers from strangers, for the filter.

    An address that the file names is told even without an endpoint, and where nobody is on its
    network: it never goes to the machine's router.

    Args:
        facts: The service as a whole; None: nobody publishes it.
        views: All its known endpoints, whatever their health.
        networks: Full names of the Compose networks that containers of this node are on.
        layout: The cluster's range: other addresses are nodes', which need no entry.
    """
    entries: dict[Entry, str] = {}
    vip = facts.vip if facts is not None else ""
    for network, address in facts.static if facts is not None else ():
        entries[Entry(STATICS, address)] = ""
        if network in networks:
            entries[Entry(network_name(network), address)] = ""
    for view in views:
        endpoint = view.endpoint
        if not endpoint.address or view.member_state is MemberState.LEFT:
            continue
        is_inside = layout.holds(endpoint.address)
        if is_inside:
            entries[Entry("known", endpoint.address)] = ""
        for network in endpoint.networks:
            if network in networks:
                if is_inside:
                    entries[Entry(network_name(network), endpoint.address)] = ""
                if vip and ":" not in vip:
                    entries[Entry(network_name(network), vip)] = ""
    return entries


def flow_addresses(views: Iterable[EndpointView], layout: Layout) -> frozenset[str]:
    """Return the containers whose connections may go on, also those of draining endpoints.

    Those on a node whose daemon alone is down go on. Not those on a machine's own stack: its other
    connections have the same address.
    """
    return frozenset(
        view.endpoint.address
        for view in views
        if view.endpoint.address and view.member_state is not MemberState.LEFT
        if view.member_state is not MemberState.DEAD or view.is_daemon_down
        if layout.holds(view.endpoint.address)
    )


def arranged(places: Sequence[str], usable: Sequence[str]) -> tuple[str, ...]:
    """Return the usable addresses by place, moving as few of them as possible."""
    wanted = set(usable)
    kept = [address if address in wanted else None for address in places]
    new = [address for address in usable if address not in set(places)]
    for at, address in enumerate(kept):
        if address is None and new:
            kept[at] = new.pop(0)
    result: list[str | None] = [*kept, *new]
    while None in result:
        hole = result.index(None)
        last = result.pop()
        if hole < len(result):
            result[hole] = last
    return tuple(address for address in result if address is not None)


def _sticky(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return which endpoint serves each bucket of clients."""
    if not addresses:
        return ()
    return tuple(
        max(addresses, key=lambda address: _rank(address, bucket))
        for bucket in range(STICKY_PLACES)
    )


def _rank(address: str, bucket: int) -> bytes:
    return hashlib.blake2b(f"{bucket} {address}".encode(), digest_size=8).digest()


def published_ports(facts: ServiceFacts) -> tuple[HeldPort, ...]:
    """Return the ports of a service that every node publishes and that can be balanced."""
    return tuple(
        HeldPort(protocol, port.host_ip, port.published, port.target)
        for port in facts.published
        if port.mode is PublishMode.INGRESS and port.published and ":" not in port.host_ip
        if (protocol := PROTOCOLS.get(port.protocol)) is not None
    )


def _port_family(
    protocol: str, host_ip: str, number: int, targets: Sequence[str], *, is_sticky: bool
) -> dict[Entry, str]:
    family, key = _port_key(protocol, host_ip, number)
    return _family(family, key, targets, is_sticky)


def _port_key(protocol: str, host_ip: str, number: int) -> tuple[str, str]:
    if host_ip and host_ip != "0.0.0.0":  # noqa: S104 - compared, not bound
        return "at", f"{host_ip} . {protocol} . {number}"
    return "pub", f"{protocol} . {number}"


def _family(family: str, key: str, targets: Sequence[str], is_sticky: bool) -> dict[Entry, str]:
    if not targets:
        return {}
    pick = pick_name(family, len(targets), is_sticky=is_sticky)
    entries = {Entry(f"{family}s", key): f"goto {pick}"}
    for place, target in enumerate(targets):
        entries[Entry(place_name(family, place), key)] = target
    return entries
