"""How are the endpoints of one service on one node packed into a gossip fact?

The fact's key names the service and its owner is the node, so the value repeats neither; endpoints
that share ports, networks and aliases (all of one service revision) share them in the packed form,
too. Equal endpoints give equal bytes, whatever their order.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from dray.api.v1 import gossip_pb2, state_pb2, types_pb2
from dray.convert.codec import from_proto, parse, to_proto
from dray.errors import InvalidRequest
from dray.model import (
    FACTS_BYTES_MAX,
    Endpoint,
    EndpointPort,
    Epoch,
    Health,
    ServiceKey,
    SlotKey,
)
from dray.names import TaskId, id_bytes, id_text

__all__ = ["FACT_VALUE_BYTES_MAX", "ServiceEndpoints", "pack_endpoints", "unpack_endpoints"]

FACT_VALUE_BYTES_MAX: Final = FACTS_BYTES_MAX  # one service may have all of a node's tasks
_FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}
_HEALTHS: Final = {0: Health.NONE, **{health.value: health for health in Health}}


@dataclass(frozen=True, slots=True)
class ServiceEndpoints:
    """What one node publishes about one service.

    Attributes:
        vip: The service's own address; empty without one.
        endpoints: Its running tasks on that node, sorted by slot, then task id.
    """

    vip: str = ""
    endpoints: tuple[Endpoint, ...] = ()


def pack_endpoints(published: ServiceEndpoints) -> bytes:
    """Return the packed form.

    Raises:
        InvalidRequest: An address or id is malformed, or a value has no form on the wire.
    """
    fact = gossip_pb2.ServiceFact(vip=_pack_address(published.vip))
    in_groups = sorted(published.endpoints, key=lambda one: (_shared(one), _order(one)))
    try:
        for _, members in groupby(in_groups, key=_shared):
            _pack_group(fact.groups.add(), list(members))
    except ValueError as error:  # protobuf's: out of range, or text that is none
        raise InvalidRequest(f"an endpoint cannot be packed: {error}") from error
    return fact.SerializeToString(deterministic=True)


def unpack_endpoints(service: ServiceKey, value: bytes) -> ServiceEndpoints:
    """Return what a peer published about a service.

    Args:
        service: The service that the fact's key names.
        value: The fact's value, not to be trusted.

    Raises:
        InvalidRequest: The value is malformed or longer than `FACT_VALUE_BYTES_MAX`.
    """
    if len(value) > FACT_VALUE_BYTES_MAX:
        raise InvalidRequest(f"a fact of {len(value)} bytes; {FACT_VALUE_BYTES_MAX} are the most")
    fact = parse(value, gossip_pb2.ServiceFact)
    endpoints = [one for group in fact.groups for one in _unpack_group(service, group)]
    return ServiceEndpoints(_unpack_address(fact.vip), tuple(sorted(endpoints, key=_order)))


def _shared(endpoint: Endpoint) -> tuple[Any, ...]:
    """Return what endpoints of one group have in common, in a form that can be sorted."""
    ports = tuple((port.number, port.protocol, port.name) for port in endpoint.ports)
    return (ports, endpoint.networks, endpoint.aliases)


def _order(endpoint: Endpoint) -> tuple[Any, ...]:
    return (endpoint.slot, endpoint.task_id, endpoint.epoch)


def _pack_group(group: gossip_pb2.EndpointGroup, endpoints: list[Endpoint]) -> None:
    shared = endpoints[0]
    group.ports.extend(to_proto(port, state_pb2.EndpointPort) for port in shared.ports)
    group.networks.extend(shared.networks)
    group.aliases.extend(types_pb2.StringPair(key=k, value=v) for k, v in shared.aliases)
    for endpoint in endpoints:
        group.endpoints.add(
            slot=endpoint.slot.slot,
            task_id=id_bytes(endpoint.task_id),
            epoch_create_revision=endpoint.epoch.create_revision,
            epoch_generation=endpoint.epoch.generation,
            address=_pack_address(endpoint.address),
            address6=_pack_address(endpoint.address6),
            health=state_pb2.Health.ValueType(endpoint.health.value),
            draining=endpoint.draining,
        )


def _unpack_group(service: ServiceKey, group: gossip_pb2.EndpointGroup) -> list[Endpoint]:
    ports = tuple(from_proto(port, EndpointPort, name="port") for port in group.ports)
    networks = tuple(group.networks)
    aliases = tuple((pair.key, pair.value) for pair in group.aliases)
    endpoints: list[Endpoint] = []
    for packed in group.endpoints:
        if packed.health not in _HEALTHS:
            raise InvalidRequest(f"health {packed.health} is not known to this version of dray")
        endpoints.append(
            Endpoint(
                slot=SlotKey(service.project, service.service, packed.slot),
                task_id=TaskId(id_text(packed.task_id)),
                epoch=Epoch(packed.epoch_generation, packed.epoch_create_revision),
                address=_unpack_address(packed.address),
                address6=_unpack_address(packed.address6),
                health=_HEALTHS[packed.health],
                draining=packed.draining,
                ports=ports,
                networks=networks,
                aliases=aliases,
            )
        )
    return endpoints


def _pack_address(text: str) -> bytes:
    if not text:
        return b""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{text[:100]!r} is not an IP address") from error


def _unpack_address(packed: bytes) -> str:
    if not packed:
        return ""
    if len(packed) not in _FAMILIES:
        raise InvalidRequest(f"an address has 4 or 16 bytes, not {len(packed)}")
    return socket.inet_ntop(_FAMILIES[len(packed)], packed)
