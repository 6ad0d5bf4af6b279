"""How does a service's fact hold its endpoints, in as few bytes as is simple?

One fact a node and service: its name is "service:" project "/" service, its value all endpoints of
that service on the node. Endpoints that share ports, networks and aliases (those of one service
revision) form a group, so that an endpoint costs about 30 bytes:

    value    = form (1 byte) · groups: count, then each
    group    = ports · networks · aliases · endpoints: each a count, then each
    port     = number (2) · protocol (1) · name
    endpoint = slot · task id (16) · generation · create revision · marks (1) · IPv4 · IPv6

Decoding is total: every count and length has a limit, and bytes that no encoder wrote give a
`Malformed`. What is decoded is canonical: packing it again gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dray.model import Endpoint, EndpointPort, Epoch, Health, ServiceKey, SlotKey
from dray.names import TaskId
from node.gossip.wire import Malformed, Reader, WireError, Writer

__all__ = [
    "FACT_NAME_BYTES_MAX",
    "FACT_VALUE_BYTES_MAX",
    "pack_endpoints",
    "service_fact_name",
    "service_of_fact",
    "unpack_endpoints",
]

FACT_NAME_BYTES_MAX: Final = 200  # "service:", a project of 63, "/", a service's name of 128
FACT_VALUE_BYTES_MAX: Final = 16_384  # bytes; half of what a node may publish in all
ENDPOINTS_PER_FACT_MAX: Final = 508  # tasks of a node (DESIGN section 11)
PORTS_MAX: Final = 64
NETWORKS_MAX: Final = 64
ALIASES_MAX: Final = 256
NAME_BYTES_MAX: Final = 255

_FORM: Final = 1
_PREFIX: Final = "service:"
_PROTOCOLS: Final = ("tcp", "udp")
_HEALTH_MARKS: Final = 0x07
_DRAINING_MARK: Final = 0x08
_U32_MAX: Final = 2**32 - 1
_U63_MAX: Final = 2**63 - 1

_Group = tuple[tuple[EndpointPort, ...], tuple[str, ...], tuple[tuple[str, str], ...]]


def service_fact_name(service: ServiceKey) -> str:
    """Return the name of the fact that holds a service's endpoints."""
    return f"{_PREFIX}{service.project}/{service.service}"


def service_of_fact(name: str) -> ServiceKey | None:
    """Return the service whose endpoints a fact holds, or None for a fact about anything else."""
    project, slash, service = name.removeprefix(_PREFIX).partition("/")
    if not name.startswith(_PREFIX) or not slash or not project or not service or "/" in service:
        return None
    return ServiceKey(project, service)


def pack_endpoints(endpoints: Iterable[Endpoint]) -> bytes | Malformed:
    """Return the value of the fact of one service: all its endpoints on this node.

    Order does not matter: equal sets give equal bytes. More than the limits allow, or an endpoint
    whose ids or addresses are not in their canonical text form, gives a `Malformed`.
    """
    groups: dict[_Group, list[Endpoint]] = {}
    for endpoint in endpoints:
        shared = (endpoint.ports, endpoint.networks, endpoint.aliases)
        groups.setdefault(shared, []).append(endpoint)
    try:
        packed = sorted(_pack_group(shared, members) for shared, members in groups.items())
    except WireError as error:
        return Malformed(str(error))
    if sum(map(len, groups.values())) > ENDPOINTS_PER_FACT_MAX:
        return Malformed(f"more than {ENDPOINTS_PER_FACT_MAX} endpoints")
    writer = Writer()
    writer.fixed(_FORM, 1)
    writer.uvarint(len(packed))
    for group in packed:
        writer.raw(group)
    value = writer.take()
    if len(value) > FACT_VALUE_BYTES_MAX:
        return Malformed(f"{len(value)} bytes where {FACT_VALUE_BYTES_MAX} are the most")
    return value


def unpack_endpoints(service: ServiceKey, value: bytes) -> tuple[Endpoint, ...] | Malformed:
    """Return the endpoints that a fact of `service` holds, by (slot, task id).

    Never raises, and never builds more than the limits allow.
    """
    if len(value) > FACT_VALUE_BYTES_MAX:
        return Malformed(f"{len(value)} bytes where {FACT_VALUE_BYTES_MAX} are the most")
    try:
        endpoints = _unpack(service, Reader(value))
    except WireError as error:
        return Malformed(str(error))
    if pack_endpoints(endpoints) != value:
        return Malformed("not in the one form that is written")
    return tuple(sorted(endpoints, key=lambda endpoint: (endpoint.slot, endpoint.task_id)))


def _unpack(service: ServiceKey, reader: Reader) -> list[Endpoint]:
    form = reader.fixed(1)
    if form != _FORM:
        raise WireError(f"there is no form {form} of endpoints")
    endpoints: list[Endpoint] = []
    for _ in range(reader.uvarint(ENDPOINTS_PER_FACT_MAX)):
        endpoints += _unpack_group(service, reader, ENDPOINTS_PER_FACT_MAX - len(endpoints))
    reader.end()
    return endpoints


def _pack_group(shared: _Group, endpoints: list[Endpoint]) -> bytes:
    ports, networks, aliases = shared
    writer = Writer()
    _count(writer, len(ports), PORTS_MAX)
    for port in ports:
        if port.protocol not in _PROTOCOLS:
            raise WireError(f"there is no protocol {port.protocol!r}")
        writer.fixed(port.number, 2)
        writer.fixed(_PROTOCOLS.index(port.protocol), 1)
        writer.text(port.name, NAME_BYTES_MAX)
    _count(writer, len(networks), NETWORKS_MAX)
    for network in networks:
        writer.text(network, NAME_BYTES_MAX)
    _count(writer, len(aliases), ALIASES_MAX)
    for network, alias in aliases:
        writer.text(network, NAME_BYTES_MAX)
        writer.text(alias, NAME_BYTES_MAX)
    _count(writer, len(endpoints), ENDPOINTS_PER_FACT_MAX)
    for packed in sorted(map(_pack_endpoint, endpoints)):
        writer.raw(packed)
    return writer.take()


def _pack_endpoint(endpoint: Endpoint) -> bytes:
    if endpoint.slot.slot > _U32_MAX or endpoint.epoch.generation > _U32_MAX:
        raise WireError("a slot or generation beyond 32 bits")
    if endpoint.epoch.create_revision > _U63_MAX:
        raise WireError("a store revision beyond 63 bits")
    if ":" in endpoint.address or (endpoint.address6 and ":" not in endpoint.address6):
        raise WireError("an address of the wrong family")
    writer = Writer()
    writer.uvarint(endpoint.slot.slot)
    writer.id(endpoint.task_id)
    writer.uvarint(endpoint.epoch.generation)
    writer.uvarint(endpoint.epoch.create_revision)
    writer.fixed(endpoint.health.value | (_DRAINING_MARK if endpoint.draining else 0), 1)
    writer.address(endpoint.address)
    writer.address(endpoint.address6)
    return writer.take()


def _count(writer: Writer, count: int, count_max: int) -> None:
    if count > count_max:
        raise WireError(f"{count} where {count_max} are the most")
    writer.uvarint(count)


def _unpack_group(service: ServiceKey, reader: Reader, endpoints_max: int) -> list[Endpoint]:
    ports = tuple(_unpack_port(reader) for _ in range(reader.uvarint(PORTS_MAX)))
    networks = tuple(reader.text(NAME_BYTES_MAX) for _ in range(reader.uvarint(NETWORKS_MAX)))
    aliases = tuple(
        (reader.text(NAME_BYTES_MAX), reader.text(NAME_BYTES_MAX))
        for _ in range(reader.uvarint(ALIASES_MAX))
    )
    return [
        _unpack_endpoint(service, reader, (ports, networks, aliases))
        for _ in range(reader.uvarint(endpoints_max))
    ]


def _unpack_port(reader: Reader) -> EndpointPort:
    number = reader.fixed(2)
    protocol = reader.fixed(1)
    if protocol >= len(_PROTOCOLS):
        raise WireError(f"there is no protocol {protocol}")
    return EndpointPort(number, _PROTOCOLS[protocol], reader.text(NAME_BYTES_MAX))


def _unpack_endpoint(service: ServiceKey, reader: Reader, shared: _Group) -> Endpoint:
    ports, networks, aliases = shared
    slot = SlotKey(service.project, service.service, reader.uvarint(_U32_MAX))
    task_id = TaskId(reader.id())
    epoch = Epoch(reader.uvarint(_U32_MAX), reader.uvarint(_U63_MAX))
    marks = reader.fixed(1)
    health = marks & _HEALTH_MARKS
    if marks & ~(_HEALTH_MARKS | _DRAINING_MARK) or health not in {h.value for h in Health}:
        raise WireError(f"there are no marks {marks:#x}")
    return Endpoint(
        slot,
        task_id,
        epoch,
        address=reader.address(),
        address6=reader.address(),
        health=Health(health),
        draining=bool(marks & _DRAINING_MARK),
        ports=ports,
        networks=networks,
        aliases=aliases,
    )
