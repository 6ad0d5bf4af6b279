"""How does the server's process learn what the node knows? Pure: messages, and the view they make.

The agent's process sends what changed, service by service, as JSON values; the server's process
keeps a `Mirror` of it, a `FactView` that is enough for the zone. Both ends are one program of one
version: messages have no numbers and no defaults.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Final, TypeVar

from dray.addresses import HostPort
from dray.model import (
    Endpoint,
    EndpointPort,
    EndpointView,
    Epoch,
    Fact,
    FactKey,
    FactView,
    Health,
    Member,
    MemberState,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
)
from dray.names import NodeId, TaskId
from node.dns.config import ServerConfig
from node.dns.zone import Asker, ZoneConfig

__all__ = [
    "Json",
    "Mirror",
    "asker_from",
    "asker_of",
    "config_from",
    "config_of",
    "endpoint_from",
    "endpoint_of",
    "members_of",
    "service_of",
]

Json = Any
"""What JSON can express: a mapping, a list, a text, a number, a truth value or None."""

SHARED_MAX: Final = 8_192  # lists of ports, networks and aliases
_T = TypeVar("_T", bound=Hashable)
# Three times as fast as asking the types.
_HEALTHS: Final = {each.value: each for each in Health}
_STATES: Final = {each.value: each for each in MemberState}
_NO_REVISION: Final = ServiceRevision(0)  # the zone does not ask for it


# ---- what is sent


def service_of(view: FactView, service: ServiceKey) -> Json:
    """Return what a view says of a service, for `Mirror.put`; also that it is gone."""
    facts = view.service(service)
    key = [service.project, service.service]
    if facts is None:
        return [*key, None, [], []]
    endpoints = [
        [
            *(found.node_id, found.member_state.value, found.is_daemon_down),
            endpoint_of(found.endpoint),
        ]
        for found in view.endpoints(service)
    ]
    return [*key, facts.vip, facts.static, endpoints]


def endpoint_of(endpoint: Endpoint) -> Json:
    """Return an endpoint as it is sent."""
    slot, epoch = endpoint.slot, endpoint.epoch
    return [
        [slot.project, slot.service, slot.slot],
        endpoint.task_id,
        [epoch.generation, epoch.create_revision],
        endpoint.address,
        endpoint.address6,
        endpoint.health.value,
        endpoint.draining,
        [[each.number, each.protocol, each.name] for each in endpoint.ports],
        endpoint.networks,
        endpoint.aliases,
    ]


def members_of(view: FactView) -> Json:
    """Return what a view says of the members, for `Mirror.set_members`."""
    return [
        [member.node_id, member.name, member.address, member.life, member.state.value]
        for member in view.members()
    ]


def asker_of(asker: Asker) -> Json:
    """Return an asker as it is sent."""
    links = [[alias, service.project, service.service] for alias, service in asker.links]
    networks = sorted(asker.networks) if asker.networks is not None else None
    return [asker.project, networks, links]


def config_of(config: ServerConfig) -> Json:
    """Return what the server has to know as it is sent."""
    return [
        [config.zone.node_id, config.zone.ranges],
        [[address.host, address.port] for address in config.listen],
        config.client_ranges,
        config.upstream_deadline_s,
        config.rates,
    ]


# ---- what is received


def endpoint_from(sent: Json) -> Endpoint:
    """Return an endpoint that was sent."""
    slot, task_id, epoch, address, address6, health, draining, ports, networks, aliases = sent
    return Endpoint(
        SlotKey(*slot),
        TaskId(task_id),
        Epoch(*epoch),
        address,
        address6,
        _HEALTHS[health],
        draining,
        _shared(tuple(EndpointPort(*each) for each in ports)),
        _shared(tuple(networks)),
        _shared(tuple((network, alias) for network, alias in aliases)),
    )


@functools.lru_cache(SHARED_MAX)
def _shared(value: _T) -> _T:
    """Return the first one of equal values: the endpoints of a service have most in common."""
    return value


def asker_from(sent: Json) -> Asker:
    """Return an asker that was sent."""
    project, networks, links = sent
    return Asker(
        project,
        frozenset(networks) if networks is not None else None,
        tuple((alias, ServiceKey(*service)) for alias, *service in links),
    )


def config_from(sent: Json) -> ServerConfig:
    """Return what the server has to know; its sockets are there already."""
    (node_id, ranges), listen, client_ranges, deadline_s, rates = sent
    return ServerConfig(
        ZoneConfig(NodeId(node_id), tuple(ranges)),
        tuple(HostPort(*address) for address in listen),
        tuple(client_ranges),
        upstream_deadline_s=deadline_s,
        rates=(rates[0], rates[1]),
    )


class Mirror:
    """A `FactView` of what was received. It changes: nobody but the zone may keep it."""

    def __init__(self) -> None:
        self.sequence = 0
        self._services: dict[ServiceKey, tuple[ServiceFacts, tuple[EndpointView, ...]]] = {}
        self._members: dict[NodeId, Member] = {}

    # ---- receiving

    def put(self, sent: Iterable[Json]) -> tuple[ServiceKey, ...]:
        """Take over what is said of services, and return which they are."""
        self.sequence += 1
        return tuple(self._put(*each) for each in sent)

    def _put(
        self, project: str, name: str, vip: str | None, static: Json, endpoints: Json
    ) -> ServiceKey:
        service = ServiceKey(project, name)
        if vip is None:
            self._services.pop(service, None)
            return service
        views = tuple(
            EndpointView(endpoint_from(endpoint), NodeId(node_id), _STATES[state], is_down)
            for node_id, state, is_down, endpoint in endpoints
        )
        addresses = tuple((network, address) for network, address in static)
        self._services[service] = (ServiceFacts(_NO_REVISION, vip=vip, static=addresses), views)
        return service

    def set_members(self, sent: Iterable[Json]) -> None:
        """Take over all members."""
        self._members = {
            NodeId(node_id): Member(NodeId(node_id), name, address, 0, life, 0, MemberState(state))
            for node_id, name, address, life, state in sent
        }

    # ---- being a view

    def members(self) -> Iterator[Member]:
        """Yield every member in the order in which they were sent."""
        yield from self._members.values()

    def member(self, node_id: NodeId) -> Member | None:
        """Return one member, or None."""
        return self._members.get(node_id)

    def services(self) -> Iterator[ServiceKey]:
        """Yield the services, in order."""
        yield from sorted(self._services)

    def service(self, service: ServiceKey) -> ServiceFacts | None:
        """Return a service's own addresses, in an otherwise empty value; None: there is none."""
        found = self._services.get(service)
        return found[0] if found is not None else None

    def endpoints(self, service: ServiceKey) -> tuple[EndpointView, ...]:
        """Return all endpoints of a service."""
        found = self._services.get(service)
        return found[1] if found is not None else ()

    def fact(self, key: FactKey) -> Fact | None:
        """Return None: facts are not sent."""
        return None

    def changed_since(self, sequence: int) -> frozenset[ServiceKey] | None:
        """Return None: it does not remember."""
        return None
