"""What does the zone hold of each service, and under what can it be looked up?

An index of services by name, alias and address that is kept up to date one service at a time. Each
way to look something up has a *key*, a short text; a service's keys before and after a change are
those whose answers may have changed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from dray.model import EndpointView, FactView, ServiceKey
from dray.names import dns_label
from node.dns.names import service_texts

__all__ = ["Entry", "Index", "address_key", "alias_key", "entry_of", "name_key"]

_K = TypeVar("_K", bound=Hashable)


def name_key(text: str, project: str) -> str:
    """Return the key of a lookup of a service or an alias in a project."""
    return f"{text}.{project}"


def alias_key(text: str) -> str:
    """Return the key of a lookup of a name on networks, whatever the project."""
    return f"*{text}"


def address_key(address: str) -> str:
    """Return the key of a lookup of an address."""
    return f"@{address}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the zone holds of one service.

    Attributes:
        key: The service.
        vip: Its own address; empty without one.
        endpoints: All known ones, by (slot, node id).
        texts: How it is called in its project.
        aliases: (network, alias) pairs of any endpoint, aliases in lower case.
        networks: Networks of any endpoint.
        static: Further addresses of its own, as (network, address).
    """

    key: ServiceKey
    vip: str
    endpoints: tuple[EndpointView, ...]
    texts: frozenset[str]
    aliases: frozenset[tuple[str, str]]
    networks: frozenset[str]
    static: tuple[tuple[str, str], ...] = ()

    def names(self) -> frozenset[str]:
        """Return what it is called in its project: own names and aliases."""
        return self.texts.union(alias for _, alias in self.aliases)

    def on_networks(self) -> Iterator[tuple[str, str]]:
        """Yield (network, name) pairs: its own names are aliases on each of its networks."""
        yield from self.aliases
        yield from ((network, text) for network in self.networks for text in self.texts)

    def addresses(self) -> Iterator[str]:
        """Yield every address that it or an endpoint has."""
        if self.vip:
            yield self.vip
        yield from (address for _, address in self.static)
        for view in self.endpoints:
            yield from filter(None, (view.endpoint.address, view.endpoint.address6))

    def keys(self) -> Iterator[str]:
        """Yield the keys of all lookups that it can be a result of."""
        names = self.names()
        yield from (name_key(text, self.key.project) for text in names)
        yield from map(alias_key, names)
        yield from map(address_key, self.addresses())


def entry_of(view: FactView, service: ServiceKey) -> Entry | None:
    """Return what a view says of a service.

    None when no node publishes it, or when its names cannot be names in DNS: nobody of the cluster
    makes such ones, but facts come from other machines.
    """
    facts = view.service(service)
    is_nameable = dns_label(service.service) and dns_label(service.project) == service.project
    if facts is None or not is_nameable:
        return None
    endpoints = view.endpoints(service)
    aliases: set[tuple[str, str]] = set()
    networks: set[str] = set()
    seen: tuple[object, object] | None = None
    for found in endpoints:
        # The endpoints of one revision share both tuples, so most of them are seen once.
        shared = (found.endpoint.aliases, found.endpoint.networks)
        if shared != seen:
            aliases.update((network, alias.lower()) for network, alias in shared[0])
            networks.update(shared[1])
            seen = shared
    return Entry(
        service,
        facts.vip,
        endpoints,
        service_texts(service.service),
        frozenset(aliases),
        frozenset(networks),
        facts.static,
    )


@dataclass(slots=True)
class Index:
    """Services by what they are looked up by.

    Attributes:
        services: Every service.
        by_name: By (project, own name or alias).
        by_alias: By (network, own name or alias).
        by_address: By VIP and endpoints' addresses.
    """

    services: dict[ServiceKey, Entry] = field(default_factory=dict)
    by_name: dict[tuple[str, str], set[ServiceKey]] = field(default_factory=dict)
    by_alias: dict[tuple[str, str], set[ServiceKey]] = field(default_factory=dict)
    by_address: dict[str, set[ServiceKey]] = field(default_factory=dict)

    def put(self, entry: Entry) -> Entry | None:
        """Set what is held of a service; return what was held before, or None."""
        before = self.services.get(entry.key)
        named = (before.aliases, before.networks) if before is not None else None
        if named != (entry.aliases, entry.networks):
            self._move_names(before, entry)
        gone = set(before.addresses()) if before is not None else set()
        new = set(entry.addresses())
        for address in gone - new:
            _discard(self.by_address, address, entry.key)
        for address in new - gone:
            self.by_address.setdefault(address, set()).add(entry.key)
        self.services[entry.key] = entry
        return before

    def take(self, service: ServiceKey) -> Entry | None:
        """Remove a service; return what was held of it, or None."""
        entry = self.services.pop(service, None)
        if entry is not None:
            self._remove_names(entry)
            for address in entry.addresses():
                _discard(self.by_address, address, service)
        return entry

    def named(self, project: str, text: str) -> list[Entry]:
        """Return the services that have this name or alias in their project, in order."""
        return self._entries(self.by_name.get((project, text)))

    def on_network(self, network: str, text: str) -> list[Entry]:
        """Return the services that have this name or alias on a network, in order."""
        return self._entries(self.by_alias.get((network, text)))

    def at(self, address: str) -> list[Entry]:
        """Return the services that have this address, or an endpoint that does, in order."""
        return self._entries(self.by_address.get(address))

    def _entries(self, keys: set[ServiceKey] | None) -> list[Entry]:
        return [self.services[key] for key in sorted(keys)] if keys else []

    def _move_names(self, before: Entry | None, entry: Entry) -> None:
        if before is not None:
            self._remove_names(before)
        for text in entry.names():
            self.by_name.setdefault((entry.key.project, text), set()).add(entry.key)
        for pair in entry.on_networks():
            self.by_alias.setdefault(pair, set()).add(entry.key)

    def _remove_names(self, entry: Entry) -> None:
        for text in entry.names():
            _discard(self.by_name, (entry.key.project, text), entry.key)
        for pair in entry.on_networks():
            _discard(self.by_alias, pair, entry.key)


def _discard(index: dict[_K, set[ServiceKey]], at: _K, service: ServiceKey) -> None:
    """Take a service out of one place of an index; a place that is empty goes."""
    there = index.get(at)
    if there is not None:
        there.discard(service)
        if not there:
            del index[at]
