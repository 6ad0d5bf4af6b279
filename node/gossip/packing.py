"""How does a service's fact hold what one node publishes about it, in as few bytes as is simple?

One fact a node and service: its name is "service:" project "/" service, its value a `ServiceFacts`.
Endpoints that share ports, networks, aliases and epoch (mostly those of one service revision) form
a group, so that an endpoint costs 25 bytes:

    value     = form (1) · service revision · marks (1) · VIP · static addresses, if marked
                · published ports · groups
    static    = network · IPv4 (4)
    published = target (2) · published (2) · its end (2) · protocol (1) · mode (1) · three texts
    group     = ports · networks · aliases · generation · create revision · endpoints
    port      = number (2) · protocol (1) · name
    endpoint  = slot (4) · task id (16) · marks (1) · IPv4 (4, if marked) · IPv6 (16, if marked)

where several of a thing are preceded by their count. Decoding is total: every count and length has
a limit, and bytes that no encoder wrote give a `Malformed`. What is decoded is canonical: packing
it again gives the same bytes.
"""

from __future__ import annotations

import struct
from typing import Final

from dray.model import (
    Endpoint,
    EndpointPort,
    Epoch,
    Health,
    PortProtocol,
    PublishedPort,
    PublishMode,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
)
from dray.names import TaskId, id_text
from node.gossip.wire import Malformed, Reader, WireError, Writer, address_bytes, address_text

__all__ = [
    "FACT_NAME_BYTES_MAX",
    "FACT_VALUE_BYTES_MAX",
    "pack_service",
    "service_fact_name",
    "service_of_fact",
    "unpack_service",
]

FACT_NAME_BYTES_MAX: Final = 200  # "service:", a project of 63, "/", a service's name of 128
FACT_VALUE_BYTES_MAX: Final = 16_384  # bytes; half of what a node may publish in all
ENDPOINTS_PER_FACT_MAX: Final = 508  # tasks of a node (DESIGN section 11)
PUBLISHED_MAX: Final = 256
PORTS_MAX: Final = 64
NETWORKS_MAX: Final = 64
ALIASES_MAX: Final = 256
NAME_BYTES_MAX: Final = 255

_FORM: Final = 1
_PREFIX: Final = "service:"
_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_PUBLISHED_PROTOCOLS: Final = {protocol.value: protocol for protocol in PortProtocol}
_MODES: Final = {mode.value: mode for mode in PublishMode}
_HEALTHS: Final = {health.value: health for health in Health}
_AFFINITY_MARK: Final = 0x01
_STATIC_MARK: Final = 0x02
_HEALTH_MARKS: Final = 0x07
_DRAINING_MARK: Final = 0x08
_ADDRESS_MARK: Final = 0x10
_ADDRESS6_MARK: Final = 0x20
_MARKS: Final = _HEALTH_MARKS | _DRAINING_MARK | _ADDRESS_MARK | _ADDRESS6_MARK
_ENDPOINT: Final = struct.Struct(">I16sB")
_U32_MAX: Final = 2**32 - 1
_U63_MAX: Final = 2**63 - 1

_Group = tuple[tuple[EndpointPort, ...], tuple[str, ...], tuple[tuple[str, str], ...], Epoch]


def service_fact_name(service: ServiceKey) -> str:
    """Return the name of the fact that holds what a node publishes about a service."""
    return f"{_PREFIX}{service.project}/{service.service}"


def service_of_fact(name: str) -> ServiceKey | None:
    """Return the service that a fact is about, or None for a fact about anything else."""
    project, slash, service = name.removeprefix(_PREFIX).partition("/")
    if not name.startswith(_PREFIX) or not slash or not project or not service or "/" in service:
        return None
    return ServiceKey(project, service)


def pack_service(facts: ServiceFacts) -> bytes | Malformed:
    """Return the value of the fact of one service on this node.

    The order of endpoints does not matter: equal sets give equal bytes. More than the limits allow,
    or ids or addresses that are not in their canonical text form, give a `Malformed`.
    """
    groups: dict[_Group, list[Endpoint]] = {}
    for endpoint in facts.endpoints:
        shared = (endpoint.ports, endpoint.networks, endpoint.aliases, endpoint.epoch)
        groups.setdefault(shared, []).append(endpoint)
    writer = Writer()
    try:
        writer.fixed(_FORM, 1)
        writer.uvarint(facts.service_revision)
        marks = _AFFINITY_MARK if facts.affinity else 0
        writer.fixed(marks | (_STATIC_MARK if facts.static else 0), 1)
        writer.address(facts.vip)
        if facts.static:
            _write_static(writer, facts.static)
        _count(writer, len(facts.published), PUBLISHED_MAX)
        for port in facts.published:
            _write_published(writer, port)
        writer.uvarint(len(groups))
        heads = sorted((_pack_shared(shared), members) for shared, members in groups.items())
        for head, members in heads:
            writer.raw(head)
            writer.uvarint(len(members))
            for packed in sorted(map(_pack_endpoint, members)):
                writer.raw(packed)
    except WireError as error:
        return Malformed(str(error))
    if len(facts.endpoints) > ENDPOINTS_PER_FACT_MAX:
        return Malformed(f"more than {ENDPOINTS_PER_FACT_MAX} endpoints")
    value = writer.take()
    if len(value) > FACT_VALUE_BYTES_MAX:
        return Malformed(f"{len(value)} bytes where {FACT_VALUE_BYTES_MAX} are the most")
    return value


def unpack_service(service: ServiceKey, value: bytes) -> ServiceFacts | Malformed:
    """Return what a fact of `service` holds; its endpoints by (slot, task id).

    Never raises, and never builds more than the limits allow.
    """
    if len(value) > FACT_VALUE_BYTES_MAX:
        return Malformed(f"{len(value)} bytes where {FACT_VALUE_BYTES_MAX} are the most")
    try:
        return _unpack(service, Reader(value))
    except WireError as error:
        return Malformed(str(error))


def _unpack(service: ServiceKey, reader: Reader) -> ServiceFacts:
    form = reader.fixed(1)
    if form != _FORM:
        raise WireError(f"there is no form {form} of a service's facts")
    revision = ServiceRevision(reader.uvarint(_U63_MAX))
    marks = reader.fixed(1)
    if marks & ~(_AFFINITY_MARK | _STATIC_MARK):
        raise WireError(f"there are no marks {marks:#x}")
    vip = reader.address()
    static = _read_static(reader) if marks & _STATIC_MARK else ()
    published = tuple(_read_published(reader) for _ in range(reader.uvarint(PUBLISHED_MAX)))
    endpoints: list[Endpoint] = []
    last_head = b""
    for _ in range(reader.uvarint(ENDPOINTS_PER_FACT_MAX)):
        start = reader.at
        shared = _unpack_shared(reader)
        head = reader.since(start)
        if head <= last_head:
            raise WireError("groups out of order")
        last_head = head
        endpoints += _unpack_endpoints(
            service, reader, shared, ENDPOINTS_PER_FACT_MAX - len(endpoints)
        )
    reader.end()
    endpoints.sort(key=lambda endpoint: (endpoint.slot.slot, endpoint.task_id))
    is_affine = bool(marks & _AFFINITY_MARK)
    return ServiceFacts(revision, vip, published, is_affine, tuple(endpoints), static)


def _write_static(writer: Writer, static: tuple[tuple[str, str], ...]) -> None:
    _count(writer, len(static), NETWORKS_MAX)
    for network, address in sorted(static):
        writer.text(network, NAME_BYTES_MAX)
        packed = address_bytes(address)
        if len(packed) != 4:
            raise WireError("a static address that is not IPv4")
        writer.raw(packed)


def _read_static(reader: Reader) -> tuple[tuple[str, str], ...]:
    count = reader.uvarint(NETWORKS_MAX)
    found = [(reader.text(NAME_BYTES_MAX), address_text(reader.raw(4))) for _ in range(count)]
    if not found or found != sorted(set(found)):
        raise WireError("static addresses out of order")
    return tuple(found)


def _write_published(writer: Writer, port: PublishedPort) -> None:
    writer.fixed(port.target, 2)
    writer.fixed(port.published, 2)
    writer.fixed(port.published_end, 2)
    writer.fixed(port.protocol.value, 1)
    writer.fixed(port.mode.value, 1)
    writer.text(port.host_ip, NAME_BYTES_MAX)
    writer.text(port.name, NAME_BYTES_MAX)
    writer.text(port.app_protocol, NAME_BYTES_MAX)


def _read_published(reader: Reader) -> PublishedPort:
    target, published, end = reader.fixed(2), reader.fixed(2), reader.fixed(2)
    protocol, mode = reader.fixed(1), reader.fixed(1)
    if protocol not in _PUBLISHED_PROTOCOLS or mode not in _MODES:
        raise WireError(f"there is no protocol {protocol} or mode {mode}")
    return PublishedPort(
        target,
        published,
        end,
        _PUBLISHED_PROTOCOLS[protocol],
        _MODES[mode],
        reader.text(NAME_BYTES_MAX),
        reader.text(NAME_BYTES_MAX),
        reader.text(NAME_BYTES_MAX),
    )


def _pack_shared(shared: _Group) -> bytes:
    ports, networks, aliases, epoch = shared
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
    if epoch.generation > _U32_MAX or epoch.create_revision > _U63_MAX:
        raise WireError("a generation beyond 32 bits or a store revision beyond 63")
    writer.uvarint(epoch.generation)
    writer.uvarint(epoch.create_revision)
    return writer.take()


def _unpack_shared(reader: Reader) -> _Group:
    ports = tuple(_unpack_port(reader) for _ in range(reader.uvarint(PORTS_MAX)))
    networks = tuple(reader.text(NAME_BYTES_MAX) for _ in range(reader.uvarint(NETWORKS_MAX)))
    aliases = tuple(
        (reader.text(NAME_BYTES_MAX), reader.text(NAME_BYTES_MAX))
        for _ in range(reader.uvarint(ALIASES_MAX))
    )
    return ports, networks, aliases, Epoch(reader.uvarint(_U32_MAX), reader.uvarint(_U63_MAX))


def _pack_endpoint(endpoint: Endpoint) -> bytes:
    if not 0 <= endpoint.slot.slot <= _U32_MAX:
        raise WireError("a slot beyond 32 bits")
    if ":" in endpoint.address or (endpoint.address6 and ":" not in endpoint.address6):
        raise WireError("an address of the wrong family")
    marks = endpoint.health.value | (_DRAINING_MARK if endpoint.draining else 0)
    address, address6 = address_bytes(endpoint.address), address_bytes(endpoint.address6)
    marks |= (_ADDRESS_MARK if address else 0) | (_ADDRESS6_MARK if address6 else 0)
    writer = Writer()
    writer.fixed(endpoint.slot.slot, 4)
    writer.id(endpoint.task_id)
    writer.fixed(marks, 1)
    return writer.take() + address + address6


def _count(writer: Writer, count: int, count_max: int) -> None:
    if count > count_max:
        raise WireError(f"{count} where {count_max} are the most")
    writer.uvarint(count)


def _unpack_port(reader: Reader) -> EndpointPort:
    number = reader.fixed(2)
    protocol = reader.fixed(1)
    if protocol >= len(_PROTOCOLS):
        raise WireError(f"there is no protocol {protocol}")
    return EndpointPort(number, _PROTOCOLS[protocol], reader.text(NAME_BYTES_MAX))


def _unpack_endpoints(
    service: ServiceKey, reader: Reader, shared: _Group, endpoints_max: int
) -> list[Endpoint]:
    """Return the endpoints of one group. The inner loop of a join: few calls an endpoint."""
    ports, networks, aliases, epoch = shared
    project, name = service.project, service.service
    count = reader.uvarint(endpoints_max)
    if count == 0:
        raise WireError("an empty group")
    found: list[Endpoint] = []
    last = b""
    for _ in range(count):
        start = reader.at
        slot, task_id, marks = _ENDPOINT.unpack(reader.raw(_ENDPOINT.size))
        if marks & ~_MARKS or marks & _HEALTH_MARKS not in _HEALTHS:
            raise WireError(f"there are no marks {marks:#x}")
        address = address_text(reader.raw(4)) if marks & _ADDRESS_MARK else ""
        address6 = address_text(reader.raw(16)) if marks & _ADDRESS6_MARK else ""
        packed = reader.since(start)
        if packed < last:
            raise WireError("endpoints out of order")
        last = packed
        found.append(
            Endpoint(
                SlotKey(project, name, slot),
                TaskId(id_text(task_id)),
                epoch,
                address,
                address6,
                _HEALTHS[marks & _HEALTH_MARKS],
                bool(marks & _DRAINING_MARK),
                ports,
                networks,
                aliases,
            )
        )
    return found
