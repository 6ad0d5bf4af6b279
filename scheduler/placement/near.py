"""Where may a task run, and where would it rather, given what else runs there?

Affinities, what keeps others away, and ports: conditions that hang on where other tasks are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dray.model import Affinity, AffinityTarget, ServiceKey, ServiceSpec
from scheduler.placement.ask import Ask, TaskGroup
from scheduler.placement.lineage import LABEL_PREFIX
from scheduler.placement.node import PortUse
from scheduler.placement.room import Room

__all__ = ["Cap", "Nearness", "domains", "nearness", "port_room"]


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many tasks of the group's service in each domain.

    Attributes:
        codes: intp[n_nodes], the domain of each node; -1: in none, not capped.
        most: Tasks in one domain.
    """

    codes: NDArray[np.intp]
    most: int


@dataclass(frozen=True, slots=True)
class Nearness:
    """What a group's rules, and those of others about it, say of the nodes now.

    Attributes:
        allowed: bool[n_nodes], where it may run.
        cost: int64[n_nodes], the weights of preferences that are not met; None: no preferences.
        caps: Where its own tasks must keep apart.
        spreads: intp[n_nodes] each: domains over which its own tasks would rather be spread.
        needs_seed: Its tasks must, or would rather, be together, and there is none yet: the first
            one decides where.
    """

    allowed: NDArray[np.bool_]
    cost: NDArray[np.int64] | None
    caps: tuple[Cap, ...]
    spreads: tuple[NDArray[np.intp], ...]
    needs_seed: bool


def nearness(room: Room, group: TaskGroup, ask: Ask) -> Nearness | None:
    """Return what is said about nodes near to other tasks; None: nothing is."""
    if not ask.rules and not room.repellers:
        return None
    found = _Rules(room, group)
    for rule in ask.rules:
        found.apply(rule)
    for service, spec in room.repellers.items():
        if service != group.service:
            found.keep_away(service, spec)
    return Nearness(
        found.allowed,
        found.cost if found.has_cost else None,
        tuple(found.caps),
        tuple(found.spreads),
        found.needs_seed,
    )


def domains(room: Room, topology: str) -> NDArray[np.intp]:
    """Return the domain of each node, intp[n_nodes]; -1: it has none.

    Args:
        room: The cluster.
        topology: A label, or an attribute such as `node.id`; empty: each node is its own.
    """
    if not topology:
        return np.arange(len(room.view.nodes))
    key = topology if topology.startswith("node.") else LABEL_PREFIX + topology
    found = room.view.attributes.codes(key)
    if found is None:
        return np.full(len(room.view.nodes), -1)
    codes, numbers = found
    return np.where(codes == numbers.get(None, -1), -1, codes)


class _Rules:
    """The rules about one group, one after the other."""

    def __init__(self, room: Room, group: TaskGroup) -> None:
        n_nodes = len(room.view.nodes)
        self._room = room
        self._group = group
        self.allowed = np.ones(n_nodes, dtype=np.bool_)
        self.cost = np.zeros(n_nodes, dtype=np.int64)
        self.has_cost = False
        self.caps: list[Cap] = []
        self.spreads: list[NDArray[np.intp]] = []
        self.needs_seed = False

    def apply(self, rule: Affinity) -> None:
        """Take one rule of the group into account."""
        if rule.target is AffinityTarget.NODE_LABEL:
            found = self._room.view.attributes.codes(LABEL_PREFIX + rule.key)
            assert found is not None
            codes, numbers = found
            self._add(rule, codes == numbers.get(rule.value, -1))
            return
        targets = set(self._targets(rule))
        is_self = self._group.service in targets
        if rule.anti and is_self:
            codes = domains(self._room, rule.topology)
            if rule.required:
                self.caps.append(Cap(codes, 1))
            else:
                self.spreads.append(np.where(codes < 0, codes.max(initial=0) + 1, codes))
            targets.discard(self._group.service)
        near = self._near(targets, rule.topology)
        if is_self and not rule.anti and not any(self._room.replicas[each] for each in targets):
            self.needs_seed = True
            return
        self._add(rule, near)

    def keep_away(self, service: ServiceKey, spec: ServiceSpec) -> None:
        """Respect what another service requires about the group's."""
        for rule in spec.dray.affinities:
            if rule.anti and rule.required and self._is_about_us(rule, service):
                self.allowed &= ~self._near({service}, rule.topology)

    def _is_about_us(self, rule: Affinity, of: ServiceKey) -> bool:
        if rule.target is AffinityTarget.SERVICE:
            return _named(rule.key, of.project) == self._group.service
        is_label = rule.target is AffinityTarget.SERVICE_LABEL
        return is_label and (rule.key, rule.value) in self._group.spec.labels

    def _targets(self, rule: Affinity) -> Iterable[ServiceKey]:
        """Return the services that a rule is about."""
        if rule.target is AffinityTarget.SERVICE:
            return [_named(rule.key, self._group.service.project)]
        room = self._room
        specs = {**room.view.services, **room.services, self._group.service: self._group.spec}
        label = (rule.key, rule.value)
        return [service for service, spec in specs.items() if label in spec.labels]

    def _near(self, services: Iterable[ServiceKey], topology: str) -> NDArray[np.bool_]:
        """Return the nodes in a domain with a task of these services: bool[n_nodes]."""
        rows = [row for service in services for row in self._room.replicas[service]]
        codes = domains(self._room, topology)
        present = np.zeros(int(codes.max(initial=-1)) + 2, dtype=np.bool_)  # the last is for -1
        present[codes[rows]] = True
        present[-1] = False
        return present[codes]

    def _add(self, rule: Affinity, near: NDArray[np.bool_]) -> None:
        if rule.required:
            self.allowed &= ~near if rule.anti else near
        else:
            self.has_cost = True
            self.cost += np.where(near == rule.anti, rule.weight, 0)


def _named(key: str, project: str) -> ServiceKey:
    """Return the service that a rule names: "web", or "shop/web" of another project."""
    other, slash, name = key.partition("/")
    return ServiceKey(other, name) if slash else ServiceKey(project, key)


def port_room(room: Room, ask: Ask) -> NDArray[np.int64]:
    """Return for how many more tasks the ports of each node suffice: int64[n_nodes].

    Of a range, one port is taken, and which one is not known: a port within a range that others
    have one of counts as taken.
    """
    least = np.full(len(room.view.nodes), np.iinfo(np.int64).max)
    for use in ask.ports:
        left = np.full(len(least), use.last - use.first + 1, dtype=np.int64)
        for other in room.ports.known():
            if _overlap(use, other):
                for row, count in room.ports[other].items():
                    left[row] -= count
        own = sum(_overlap(use, other) for other in ask.ports)
        np.minimum(least, np.maximum(left, 0) // own, out=least)
    return least


def _overlap(use: PortUse, other: PortUse) -> bool:
    is_same_address = not use.host_ip or not other.host_ip or use.host_ip == other.host_ip
    is_near = use.first <= other.last and other.first <= use.last
    return use.protocol == other.protocol and is_same_address and is_near
