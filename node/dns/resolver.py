"""What is the answer to a query: the zone's own, a refusal, or is it to be forwarded?

- Answers of the zone are authoritative (AA) and hold for `TTL_S`. A name that is not there, or has
  no record of the type, is answered with the zone's SOA record, so that it is not remembered for
  longer than that (RFC 2308).
- ANY, zone transfers and classes other than IN are refused (RFC 8482): they are how answers larger
  than their questions are had.
- Addresses are in another order in each of an answer's variants, so that clients that take the
  first one spread.
- `localhost` and `invalid` never leave the node (RFC 6761).
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from node.dns.names import ZONE_LABELS
from node.dns.wire import (
    HEADER_BYTES,
    IN,
    Query,
    RCode,
    Record,
    RType,
    is_truncated,
    name_bytes,
    render,
)
from node.dns.zone import Asker, Found, Srv, Zone

__all__ = [
    "TTL_S",
    "VARIANTS_MAX",
    "Answer",
    "Forward",
    "Rng",
    "refusal",
    "resolve",
]

TTL_S: Final = 1  # seconds that any answer of the zone may be kept
VARIANTS_MAX: Final = 64  # orders of one answer that are kept ready
PACKED_MAX: Final = 65_536  # addresses: those of all endpoints of a cluster of the stated size
_COSTLY_VARIANTS_MAX: Final = 8  # of answers whose records differ in length or do not all fit
_REFUSED_TYPES: Final = frozenset({RType.ANY, RType.AXFR, RType.IXFR})
_SRV_PRIORITY: Final = 0
_SRV_WEIGHT: Final = 1
_LOOPBACK: Final = ("127.0.0.1", "::1")


class Rng(Protocol):
    """What draws the order of addresses; `random.Random` is one."""

    def shuffle(self, x: MutableSequence[Any]) -> None:
        """Put a list into random order."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, ready to send.

    Attributes:
        variants: The same answer with its records in different orders; at least one.
        keys: The zone's keys on which it depends.
        is_brief: Nothing tells when it changes: keep it for a second at most.
        is_reusable: The same query, but for its id, may be answered with it.
    """

    variants: tuple[bytes, ...]
    keys: frozenset[str] = frozenset()
    is_brief: bool = False
    is_reusable: bool = True


@dataclass(frozen=True, slots=True)
class Forward:
    """The name is not the zone's: ask upstream.

    Attributes:
        query: The query.
        keys: The zone's keys on which that depends.
    """

    query: Query
    keys: frozenset[str]


def resolve(
    query: Query, zone: Zone, asker: Asker, rng: Rng, size_bytes_max: int
) -> Answer | Forward:
    """Return the answer to a query, or that it is to be forwarded.

    Args:
        query: The query.
        zone: The zone as it is now.
        asker: Who asks.
        rng: Draws the order of addresses.
        size_bytes_max: Largest answer: see `limit_bytes`, or the limit of TCP.
    """
    if query.edns is not None and query.edns.version > 0:
        return refusal(query, RCode.BADVERS, size_bytes_max)
    if query.rclass != IN or query.rtype in _REFUSED_TYPES:
        return refusal(query, RCode.REFUSED, size_bytes_max)
    if query.labels and query.labels[-1] in ("localhost", "invalid"):
        return _special(query, size_bytes_max)
    found = zone.find(query.labels, asker)
    if found.is_ours:
        return _answer(query, found, rng, size_bytes_max)
    if not query.is_recursion_desired:
        return refusal(query, RCode.REFUSED, size_bytes_max)
    return Forward(query, found.keys)


def refusal(query: Query, code: RCode, size_bytes_max: int) -> Answer:
    """Return an answer of nothing but a code."""
    data = render(query, code, size_bytes_max=size_bytes_max)
    return Answer((data,), is_brief=True, is_reusable=query.is_reusable)


def _wires(found: Found, rtype: int) -> list[bytes]:
    """Return the records of a type at a name, on the wire, owned by the question's name."""
    if rtype == RType.A:
        return [_A_HEAD + data for data in map(_packed, found.addresses) if len(data) == 4]
    if rtype == RType.AAAA:
        return [_AAAA_HEAD + data for data in map(_packed, found.addresses) if len(data) == 16]
    if rtype == RType.SRV:
        datas = [_srv_data(each) for each in found.ports]
    elif rtype == RType.PTR:
        datas = [name_bytes(each) for each in found.pointers]
    elif rtype == RType.SOA and found.name == ZONE_LABELS:
        datas = [_SOA_DATA]
    else:
        datas = []
    return [Record(rtype, TTL_S, data).on_wire() for data in datas]


def _answer(query: Query, found: Found, rng: Rng, size_bytes_max: int) -> Answer:
    wires = _wires(found, query.rtype) if found.exists else []
    if not wires:
        code = RCode.NOERROR if found.exists else RCode.NXDOMAIN
        variants: tuple[bytes, ...] = (
            render(
                query,
                code,
                authorities=(_SOA_RECORD,),
                is_authoritative=True,
                size_bytes_max=size_bytes_max,
            ),
        )
    else:
        rng.shuffle(wires)
        variants = _variants(query, found, wires, size_bytes_max)
    return Answer(variants, found.keys, found.is_node, query.is_reusable)


def _variants(
    query: Query, found: Found, wires: list[bytes], size_bytes_max: int
) -> tuple[bytes, ...]:
    """Return the answer in different orders: rotations, so that each record is first equally."""
    additional = _additional(found) if query.rtype == RType.SRV else ()

    def rendered(order: list[bytes]) -> bytes:
        return render(
            query,
            RCode.NOERROR,
            order,
            additional=additional,
            is_authoritative=True,
            size_bytes_max=size_bytes_max,
        )

    first = rendered(wires)
    if len(wires) == 1:
        return (first,)
    if is_truncated(first) or query.rtype not in (RType.A, RType.AAAA):
        count = min(len(wires), _COSTLY_VARIANTS_MAX)
        steps = [len(wires) * n // count for n in range(1, count)]
        return (first, *(rendered(wires[at:] + wires[:at]) for at in steps))
    # All records have one length: a rotation is a slice of them written twice.
    start = HEADER_BYTES + len(query.question)
    size = len(wires[0])
    end = start + size * len(wires)
    head, twice, tail = first[:start], first[start:end] * 2, first[end:]
    count = min(len(wires), VARIANTS_MAX)
    at_bytes = [len(wires) * n // count * size for n in range(count)]
    return tuple(head + twice[at : at + end - start] + tail for at in at_bytes)


def _additional(found: Found) -> tuple[bytes, ...]:
    """Return the addresses of the targets of service records, each once."""
    records: dict[bytes, None] = {}
    for each in found.ports:
        owner = name_bytes(each.target)
        for address in filter(None, (each.address, each.address6)):
            data = _packed(address)
            rtype = RType.A if len(data) == 4 else RType.AAAA
            records[Record(rtype, TTL_S, data, owner).on_wire()] = None
    return tuple(records)


def _special(query: Query, size_bytes_max: int) -> Answer:
    is_local = query.labels[-1] == "localhost"
    found = Found(addresses=_LOOPBACK if is_local else ())
    records = _wires(found, query.rtype)
    code = RCode.NOERROR if is_local else RCode.NXDOMAIN
    return Answer(
        (render(query, code, records, size_bytes_max=size_bytes_max),),
        is_reusable=query.is_reusable,
    )


@functools.lru_cache(PACKED_MAX)
def _packed(address: str) -> bytes:
    """Return an address on the wire. Parsing it is half of the work of an answer that is made."""
    return ipaddress.ip_address(address).packed


def _srv_data(srv: Srv) -> bytes:
    return struct.pack("!HHH", _SRV_PRIORITY, _SRV_WEIGHT, srv.port) + name_bytes(srv.target)


def _soa_data() -> bytes:
    """Return the zone's SOA record: the zone is its own server and nobody transfers it."""
    names = name_bytes(ZONE_LABELS) + name_bytes(("hostmaster", *ZONE_LABELS))
    serial, refresh_s, retry_s, expire_s, negative_s = 1, 60, 60, 60, TTL_S
    return names + struct.pack("!IIIII", serial, refresh_s, retry_s, expire_s, negative_s)


_SOA_DATA: Final = _soa_data()
_SOA_RECORD: Final = Record(RType.SOA, TTL_S, _SOA_DATA, name_bytes(ZONE_LABELS)).on_wire()
_A_HEAD: Final = Record(RType.A, TTL_S, bytes(4)).on_wire()[:-4]
_AAAA_HEAD: Final = Record(RType.AAAA, TTL_S, bytes(16)).on_wire()[:-16]
