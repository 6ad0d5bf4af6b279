"""Which records does the cluster's zone have, as one asker sees it?

`Zone` follows the node's `FactView`s and finds what is at a name. What a name means and who may see
it:

- A service is seen by those that share a Compose network with it; one that is on none (without any
  endpoint, or on the machines' own network stack), by its project. Its name answers its own address
  (VIP) if it has one, else its endpoints.
- `tasks.` before a service's name: all endpoints that are served. A slot's number: that slot, also
  while it is not ready, since the peers of one cluster look for each other before they are; but not
  on a dead node while others of the service are served.
- An alias (`aliases`, `container_name`) is a further name of its service in the service's project,
  for those on the alias's network. A link is a further name of a service for one client.
- A short name is looked up in the asker's project and then as the zone's own. What the project does
  not have is looked for among services and aliases of other projects on the asker's networks.
- Which endpoints are served is the one rule of `node/discovery/usable.py`.

What was found names the *keys* that it was looked up by; `update` names the keys whose answers may
have changed. So a cache learns what to forget, also of names that did not exist.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dray.model import EndpointView, FactView, Member, MemberState, ServiceKey
from dray.names import NodeId, dns_label
from node.discovery.usable import Selection, Standing, select, standing
from node.dns.index import Entry, Index, address_key, alias_key, entry_of, name_key
from node.dns.names import (
    NODE,
    TASKS,
    ZONE_LABELS,
    Labels,
    below_zone,
    node_name,
    reverse_address,
    service_name,
    service_texts,
    slot_name,
)

__all__ = ["NODE_ASKER", "Asker", "Change", "Considered", "Found", "Srv", "Zone", "ZoneConfig"]

ASKERS_MAX: Final = 1_024  # that are shared; more than a node has services
ANOTHER_NETWORK: Final = "another network"  # the reason of `select` for what the asker cannot see


@dataclass(frozen=True, slots=True)
class ZoneConfig:
    """What the zone has to know of its node and the cluster.

    Attributes:
        node_id: This node.
        ranges: The cluster's ranges, of nodes' subnets and of services, CIDR: reverse names of
            addresses in them are the zone's own and never asked elsewhere.
    """

    node_id: NodeId
    ranges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf a name is looked up. The containers of one service are the same asker.

    Attributes:
        project: The project that short names belong to; empty: there are none.
        networks: Full names of the Compose networks that it is on; None: it sees all of them.
        links: (alias, service) pairs, sorted.
    """

    project: str = ""
    networks: frozenset[str] | None = None
    links: tuple[tuple[str, ServiceKey], ...] = ()


NODE_ASKER: Final = Asker()
"""The machine itself, and containers on its network stack: full names only, all networks."""


@dataclass(frozen=True, slots=True)
class Srv:
    """One service record: a port, and the name and addresses of the slot that listens on it."""

    port: int
    target: Labels
    address: str = ""
    address6: str = ""


@dataclass(frozen=True, slots=True)
class Considered:
    """A service that a lookup came upon, and what was chosen of its endpoints.

    Attributes:
        service: The service.
        vip: Its own address, when that is the answer; empty: the endpoints are.
        selection: Which endpoints are served to the asker under that name, and why.
    """

    service: ServiceKey
    vip: str
    selection: Selection


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a name.

    Attributes:
        keys: By which it was looked up.
        is_ours: The zone answers for this name, be it that it does not exist.
        exists: The name exists for the asker.
        name: The name in full, as it was understood.
        addresses: IPv4 and IPv6 addresses, each once.
        ports: Service records.
        pointers: Names that a reverse name points to.
        considered: The services that were looked at.
        is_node: It is about a node. Nothing tells when that changes: keep it a second at most.
    """

    keys: frozenset[str] = frozenset()
    is_ours: bool = True
    exists: bool = True
    name: Labels = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[Srv, ...] = ()
    pointers: tuple[Labels, ...] = ()
    considered: tuple[Considered, ...] = ()
    is_node: bool = False

    @property
    def is_last_resort(self) -> bool:
        """Whether what is served is not ready, for want of anything better."""
        return any(each.selection.is_last_resort and not each.vip for each in self.considered)


@dataclass(frozen=True, slots=True)
class Change:
    """What a newer view changed.

    Attributes:
        keys: Keys whose answers may have changed.
        are_clients_changed: `Zone.own_askers` is different.
    """

    keys: frozenset[str]
    are_clients_changed: bool


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Members by name and by address."""

    by_name: Mapping[str, Member]
    by_address: Mapping[str, Member]


class Zone:
    """The zone as of the newest view that it was given."""

    def __init__(self, config: ZoneConfig) -> None:
        self._node_id = config.node_id
        self._ranges = [ipaddress.ip_network(text) for text in config.ranges if text]
        self._index = Index()
        self.view: FactView | None = None
        self._nodes: _Nodes | None = None
        self._own: dict[ServiceKey, dict[str, Asker]] = {}

    def update(self, view: FactView) -> Change:
        """Take over a newer view at once."""
        return self.take(view, self.changed(view))

    def changed(self, view: FactView) -> tuple[ServiceKey, ...]:
        """Return the services to `take` of a newer view: all, when views cannot tell which."""
        changed = view.changed_since(self.view.sequence) if self.view is not None else None
        if changed is None:
            self._nodes = None
            return (*(self._index.services.keys() - set(view.services())), *view.services())
        return tuple(changed)

    def take(self, view: FactView, services: Iterable[ServiceKey]) -> Change:
        """Take over some services of a newer view; the others stay as they were.

        Once a view was begun, all that `changed` named for it have to follow.
        """
        self.view = view
        keys: set[str] = set()
        are_clients_changed = False
        for service in services:
            touched, is_own = self._replace(service, view)
            keys |= touched
            are_clients_changed |= is_own
        return Change(frozenset(keys), are_clients_changed)

    def refresh_nodes(self) -> None:
        """Read the members again when next one is asked for; views do not tell who changed."""
        self._nodes = None

    def own_askers(self) -> dict[str, Asker]:
        """Return who asks from which address, as far as this node's published endpoints tell."""
        return {address: asker for own in self._own.values() for address, asker in own.items()}

    def has_project(self, project: str) -> bool:
        """Return whether any service of a project is published."""
        return any(key.project == project for key in self._index.services)

    def networks_of(self, service: ServiceKey) -> frozenset[str] | None:
        """Return the networks that a service's endpoints are on; None: it is not known."""
        entry = self._index.services.get(service)
        return entry.networks if entry is not None else None

    def find(self, labels: Labels, asker: Asker) -> Found:
        """Return what is at a name for an asker.

        Args:
            labels: The name, absolute; a short name is one that is outside of the zone and that the
                asker's project, or the zone, has.
            asker: Who asks.
        """
        inside = below_zone(labels)
        if inside is not None:
            return self._inside(inside, labels, asker)
        address = reverse_address(labels)
        if address is not None:
            return self._reverse(address, labels, asker)
        keys: frozenset[str] = frozenset()
        if asker.project and labels:
            for short in ((*labels, asker.project), labels):
                if len(short) > 1:
                    found = self._inside(short, labels, asker)
                    if found.exists:
                        return found
                    keys |= found.keys
        return Found(keys, is_ours=False, exists=False, name=labels)

    # ---- following the view

    def _replace(self, service: ServiceKey, view: FactView) -> tuple[set[str], bool]:
        """Take over one service; return its keys before and after, and whether clients changed."""
        entry = entry_of(view, service)
        before = self._index.take(service) if entry is None else self._index.put(entry)
        if entry == before:
            return set(), False
        keys = set(before.keys()) if before is not None else set()
        if entry is not None:
            keys.update(entry.keys())
        own = self._askers(entry) if entry is not None else {}
        old = self._own.pop(service, {})
        if own:
            self._own[service] = own
        return keys, own != old

    def _askers(self, entry: Entry) -> dict[str, Asker]:
        found: dict[str, Asker] = {}
        for view in entry.endpoints:
            # On the machine's own stack it has the machine's address, which others have as well.
            if view.node_id == self._node_id and view.endpoint.networks:
                asker = _asker(entry.key.project, view.endpoint.networks)
                for address in (view.endpoint.address, view.endpoint.address6):
                    if address:
                        found[address] = asker
        return found

    def _members(self) -> _Nodes:
        if self._nodes is None:
            by_name: dict[str, Member] = {}
            by_address: dict[str, Member] = {}
            known = [] if self.view is None else list(self.view.members())
            for member in sorted(known, key=_rank):
                is_nameable = bool(member.name) and dns_label(member.name) == member.name
                if is_nameable and member.state is not MemberState.LEFT:
                    by_name[member.name] = by_address[member.address] = member
            self._nodes = _Nodes(by_name, by_address)
        return self._nodes

    # ---- finding

    def _inside(self, inside: Labels, labels: Labels, asker: Asker) -> Found:
        """Return what is at a name of the zone; `inside`: its labels before the zone's own."""
        if any("." in label for label in inside):
            return Found(exists=False, name=labels)
        if not inside or inside in ((NODE,), (asker.project,)):
            return Found(name=(*inside, *ZONE_LABELS))
        if len(inside) == 1:
            return Found(exists=False, name=labels)
        name = (*inside, *ZONE_LABELS)
        if inside[1:] == (NODE,):
            member = self._members().by_name.get(inside[0])
            if member is not None:
                return Found(name=name, addresses=(member.address,), is_node=True)
        found = self._in_project(inside[:-1], inside[-1], asker)
        return dataclasses.replace(found, name=name, is_node=inside[-1] == NODE)

    def _in_project(self, parts: Labels, project: str, asker: Asker) -> Found:
        """Return what is at a name of a project; a service's own name comes before any prefix."""
        keys: set[str] = set()
        text = ".".join(parts)
        entries = self._lookup(text, project, asker, keys)
        if entries:
            return _service_found(entries, text, asker, keys)
        text = ".".join(parts[1:])
        if text and (parts[0] == TASKS or parts[0].isdecimal()):
            entries = self._lookup(text, project, asker, keys)
            if entries and parts[0] == TASKS:
                return _tasks_found(entries, text, asker, keys)
            if entries:
                return _slot_found(entries, text, int(parts[0]), asker, keys)
        text = ".".join(parts[2:])
        if text and parts[0].startswith("_") and parts[1].startswith("_"):
            entries = self._lookup(text, project, asker, keys)
            return _ports_found(entries, text, (parts[0][1:], parts[1][1:]), asker, keys)
        return Found(frozenset(keys), exists=False)

    def _lookup(self, text: str, project: str, asker: Asker, keys: set[str]) -> list[Entry]:
        """Return the services that are called so in a project, for the asker; add the keys."""
        keys.add(name_key(text, project))
        if project != asker.project:
            return [e for e in self._index.named(project, text) if _is_called(e, text, asker)]
        for alias, service in asker.links:
            if text in service_texts(alias):
                keys.add(name_key(service.service.lower(), service.project))
                linked = self._index.services.get(service)
                if linked is not None and _is_seen(linked, asker):
                    return [linked]
        found = [e for e in self._index.named(project, text) if _is_called(e, text, asker)]
        if found:
            return found
        keys.add(alias_key(text))
        others: dict[ServiceKey, Entry] = {}
        for network in asker.networks or ():
            others.update((entry.key, entry) for entry in self._index.on_network(network, text))
        return [others[key] for key in sorted(others)]

    def _reverse(self, address: str, labels: Labels, asker: Asker) -> Found:
        """Return the names that an address has."""
        keys = frozenset((address_key(address),))
        names: list[Labels] = []
        for entry in self._index.at(address):
            project, service = entry.key.project, entry.key.service
            is_own = entry.vip == address or _has_static(entry, address, asker)
            if is_own and _is_seen(entry, asker):
                names.append(service_name(project, service))
            seen = _chosen(entry, entry.endpoints, asker) if _is_seen(entry, asker) else None
            for judged in seen.judged if seen is not None else ():
                endpoint = judged.view.endpoint
                is_there = address in (endpoint.address, endpoint.address6)
                if is_there and judged.reason != ANOTHER_NETWORK:
                    names.append(slot_name(project, service, endpoint.slot.slot))
        if names:
            return Found(keys, name=labels, pointers=tuple(dict.fromkeys(names)))
        parsed = ipaddress.ip_address(address)
        if any(parsed in network for network in self._ranges):
            return Found(keys, exists=False, name=labels)
        member = self._members().by_address.get(address)
        if member is not None:
            return Found(keys, name=labels, pointers=(node_name(member.name),), is_node=True)
        return Found(keys, is_ours=False, exists=False, name=labels)


def _rank(member: Member) -> tuple[bool, int]:
    """Return what decides between two members of one name or address: the greater is right."""
    return (member.state is not MemberState.DEAD, member.life)


@functools.lru_cache(ASKERS_MAX)
def _asker(project: str, networks: tuple[str, ...]) -> Asker:
    """Return the asker that a container on these networks is; equal ones are one value."""
    return Asker(project, frozenset(networks))


def _has_static(entry: Entry, address: str, asker: Asker) -> bool:
    """Return whether a file names an address for a service on a network that an asker is on."""
    return any(
        own == address and (asker.networks is None or network in asker.networks)
        for network, own in entry.static
    )


def _is_seen(entry: Entry, asker: Asker) -> bool:
    """Return whether an asker may know of a service at all."""
    if asker.networks is None:
        return True
    if not entry.networks:
        return entry.key.project == asker.project
    return not asker.networks.isdisjoint(entry.networks)


def _is_called(entry: Entry, text: str, asker: Asker) -> bool:
    """Return whether a service that has this name or alias somewhere has it for the asker."""
    if text in entry.texts:
        return _is_seen(entry, asker)
    if asker.networks is None:
        return True
    return any((network, text) in entry.aliases for network in asker.networks)


def _chosen(entry: Entry, views: Iterable[EndpointView], asker: Asker) -> Selection:
    """Return which endpoints of a service that an asker sees are served to it."""
    return select(views, asker.networks if entry.networks else None)


def _views(entry: Entry, text: str, asker: Asker) -> tuple[EndpointView, ...]:
    """Return the endpoints that a name of a service stands for; those of an alias that have it."""
    if text in entry.texts or text not in entry.names():
        return entry.endpoints
    return tuple(
        view
        for view in entry.endpoints
        if any(
            alias.lower() == text and (asker.networks is None or network in asker.networks)
            for network, alias in view.endpoint.aliases
        )
    )


def _addresses(views: Iterable[EndpointView]) -> list[str]:
    return [a for view in views for a in (view.endpoint.address, view.endpoint.address6) if a]


def _service_found(entries: list[Entry], text: str, asker: Asker, keys: set[str]) -> Found:
    considered = [
        Considered(entry.key, entry.vip, _chosen(entry, _views(entry, text, asker), asker))
        for entry in entries
    ]
    addresses: list[str] = []
    for each in considered:
        addresses += [each.vip] if each.vip else _addresses(each.selection.used)
    return _found(keys, addresses, considered)


def _tasks_found(entries: list[Entry], text: str, asker: Asker, keys: set[str]) -> Found:
    considered = [
        Considered(entry.key, "", _chosen(entry, _views(entry, text, asker), asker))
        for entry in entries
    ]
    addresses = [a for each in considered for a in _addresses(each.selection.used)]
    return _found(keys, addresses, considered)


def _slot_found(entries: list[Entry], text: str, slot: int, asker: Asker, keys: set[str]) -> Found:
    considered: list[Considered] = []
    for entry in entries:
        views = _views(entry, text, asker)
        own = _chosen(entry, (v for v in views if v.endpoint.slot.slot == slot), asker)
        if any(judged.reason != ANOTHER_NETWORK for judged in own.judged):
            considered.append(
                Considered(entry.key, "", _without_lost(own, _chosen(entry, views, asker)))
            )
    if not considered:
        return Found(frozenset(keys), exists=False)
    addresses = [a for each in considered for a in _addresses(each.selection.used)]
    return _found(keys, addresses, considered)


def _without_lost(own: Selection, whole: Selection) -> Selection:
    """Return what is served of a slot: nothing on a dead node while others are served."""
    is_lost = bool(own.used) and standing(own.used[0])[0] is Standing.LOST
    if not is_lost or standing(whole.used[0])[0] is Standing.LOST:
        return own
    judged = tuple(dataclasses.replace(each, is_used=False) for each in own.judged)
    return Selection((), judged, is_last_resort=False)


def _ports_found(
    entries: list[Entry], text: str, port: tuple[str, str], asker: Asker, keys: set[str]
) -> Found:
    """Return the service records of a port, by (name, protocol)."""
    found: list[Srv] = []
    considered: list[Considered] = []
    for entry in entries:
        selection = _chosen(entry, _views(entry, text, asker), asker)
        considered.append(Considered(entry.key, "", selection))
        for view in selection.used:
            endpoint = view.endpoint
            target = slot_name(entry.key.project, entry.key.service, endpoint.slot.slot)
            found += [
                Srv(each.number, target, endpoint.address, endpoint.address6)
                for each in endpoint.ports
                if (each.name.lower(), each.protocol) == port
            ]
    exists = bool(found)
    return Found(frozenset(keys), exists=exists, ports=tuple(found), considered=tuple(considered))


def _found(keys: set[str], addresses: list[str], considered: list[Considered]) -> Found:
    unique = tuple(dict.fromkeys(addresses))
    return Found(frozenset(keys), addresses=unique, considered=tuple(considered))
