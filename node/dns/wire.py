"""How does a query become a value, and an answer bytes?

Own code for the few forms that answers about the cluster have, because it is on the path of every
query that the cache does not hold: dnspython parses and builds one in about 250 µs here, this in
about 30. Whatever comes from upstream is dnspython's to parse (`forward`), and tests hold both
directions against dnspython. Nothing here raises, whatever the bytes.

Sources: RFC 1035 section 4, RFC 6891 (EDNS), RFC 2782 (SRV).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from node.dns.names import Labels

__all__ = [
    "EDNS_BYTES",
    "HEADER_BYTES",
    "IN",
    "LABEL_BYTES_MAX",
    "NAME_BYTES_MAX",
    "TCP_BYTES_MAX",
    "UDP_BYTES_MAX",
    "UDP_BYTES_MIN",
    "Edns",
    "Malformed",
    "Query",
    "RCode",
    "RType",
    "Record",
    "error_answer",
    "is_truncated",
    "limit_bytes",
    "name_bytes",
    "opt_record",
    "parse_query",
    "render",
    "ttl_offsets",
]

HEADER_BYTES: Final = 12
LABEL_BYTES_MAX: Final = 63
NAME_BYTES_MAX: Final = 255  # on the wire, with the lengths and the root
UDP_BYTES_MIN: Final = 512  # what everybody takes (RFC 1035)
UDP_BYTES_MAX: Final = 1_232  # what fits into every path's packet (DNS flag day 2020)
TCP_BYTES_MAX: Final = 65_535
EDNS_BYTES: Final = 11  # of the OPT record of an answer
IN: Final = 1

_HEADER: Final = struct.Struct("!HHHHHH")
_QUESTION_END: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_OPT: Final = struct.Struct("!BHHBBHH")
_OPT_TYPE: Final = 41
_QR: Final = 0x8000
_OPCODE: Final = 0x7800
_AA: Final = 0x0400
_TC: Final = 0x0200
_RD: Final = 0x0100
_RA: Final = 0x0080
_CD: Final = 0x0010
_DO: Final = 0x8000
_TO_QUESTION: Final = b"\xc0\x0c"  # compressed: the name right after the header
_POINTER: Final = 0xC0
_ADDITIONAL_MAX: Final = 8  # records after the question of a query: an OPT, perhaps a signature


class RType(enum.IntEnum):
    """Types of record that the zone has answers for, and types that are refused."""

    A = 1
    NS = 2
    SOA = 6
    PTR = 12
    AAAA = 28
    SRV = 33
    IXFR = 251
    AXFR = 252
    ANY = 255


class RCode(enum.IntEnum):
    """How an answer ended. Above 15: only with EDNS."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


@dataclass(frozen=True, slots=True)
class Edns:
    """The OPT record of a query.

    Attributes:
        size_bytes: Largest datagram that the client takes.
        version: Version of EDNS that it speaks.
        is_dnssec: It wants signatures (DO).
        has_options: There are options, such as a cookie, that make each query different.
    """

    size_bytes: int
    version: int = 0
    is_dnssec: bool = False
    has_options: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A well-formed query of one question.

    Attributes:
        ident: Its id.
        flags: Its flags, all 16 bits.
        question: The question's bytes as they came: the answer repeats them with the case of every
            letter, which is what clients with random case (0x20) check.
        labels: The name in lower case.
        rtype: Number of the type asked for.
        rclass: Number of the class.
        edns: Its OPT record; None without one.
    """

    ident: int
    flags: int
    question: bytes
    labels: Labels
    rtype: int
    rclass: int = IN
    edns: Edns | None = None

    @property
    def is_recursion_desired(self) -> bool:
        """Whether others may be asked for the answer (RD)."""
        return bool(self.flags & _RD)

    @property
    def is_reusable(self) -> bool:
        """Whether the same bytes, but for the id, may come again; a client's cookie never does."""
        return self.edns is None or not self.edns.has_options

    @property
    def is_checking_disabled(self) -> bool:
        """Whether the client checks signatures itself (CD)."""
        return bool(self.flags & _CD)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message that is not a query that can be answered.

    Attributes:
        answer: What to send back; None: nothing. Answering an answer would make a loop, and what
            has no header has no id to answer to.
        reason: Why.
    """

    answer: bytes | None
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """A record to send.

    Attributes:
        rtype: Its type.
        ttl_s: How long it may be kept, seconds.
        data: Its data on the wire, names in it uncompressed.
        owner: Its name on the wire; empty: that of the question.
    """

    rtype: int
    ttl_s: int
    data: bytes
    owner: bytes = b""

    def on_wire(self) -> bytes:
        """Return the whole record."""
        fixed = _RECORD.pack(self.rtype, IN, self.ttl_s, len(self.data))
        return (self.owner or _TO_QUESTION) + fixed + self.data


def is_truncated(answer: bytes) -> bool:
    """Return whether an answer says that something is missing from it."""
    return bool(answer[2] & _TC >> 8)


def name_bytes(labels: Labels) -> bytes:
    """Return a name on the wire, uncompressed. Its limits are the caller's to keep."""
    parts = []
    for label in labels:
        raw = label.encode("latin-1")
        assert 0 < len(raw) <= LABEL_BYTES_MAX, label
        parts.append(bytes((len(raw),)) + raw)
    wire = b"".join(parts) + b"\0"
    assert len(wire) <= NAME_BYTES_MAX, labels
    return wire


def opt_record(edns: Edns, code: RCode = RCode.NOERROR) -> bytes:
    """Return the OPT record of a message of ours to somebody with this one."""
    marks = _DO if edns.is_dnssec else 0
    return _OPT.pack(0, _OPT_TYPE, UDP_BYTES_MAX, code >> 4, 0, marks, 0)


def parse_query(data: bytes) -> Query | Malformed:
    """Return the query that a datagram holds."""
    if len(data) < HEADER_BYTES:
        return Malformed(None, "no header")
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _QR:
        return Malformed(None, "not a query but an answer")
    if flags & _OPCODE:
        return Malformed(error_answer(data, RCode.NOTIMP), "no plain query")
    if questions != 1 or answers or authorities or additional > _ADDITIONAL_MAX:
        return Malformed(error_answer(data, RCode.FORMERR), "not one question")
    name = _labels(data)
    if name is None:
        return Malformed(error_answer(data, RCode.FORMERR), "no name")
    labels, end = name
    rtype, rclass = _QUESTION_END.unpack_from(data, end)
    end += _QUESTION_END.size
    edns = _edns(data, end, additional)
    if isinstance(edns, str):
        return Malformed(error_answer(data, RCode.FORMERR), edns)
    return Query(ident, flags, data[HEADER_BYTES:end], labels, rtype, rclass, edns)


def error_answer(data: bytes, code: RCode) -> bytes:
    """Return an answer of nothing but a header to a message that has at least a header."""
    ident, flags = struct.unpack_from("!HH", data)
    kept = flags & (_OPCODE | _RD | _CD)
    return _HEADER.pack(ident, _QR | _RA | kept | code, 0, 0, 0, 0)


def limit_bytes(query: Query) -> int:
    """Return how large a datagram may be that answers this query."""
    if query.edns is None:
        return UDP_BYTES_MIN
    return min(max(query.edns.size_bytes, UDP_BYTES_MIN), UDP_BYTES_MAX)


def render(
    query: Query,
    code: RCode,
    answers: Iterable[bytes] = (),
    *,
    authorities: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    is_authoritative: bool = False,
    size_bytes_max: int,
) -> bytes:
    """Return an answer.

    What does not fit is left out: additional records in silence; answers and authorities from the
    end, and the answer says that it is truncated. Those that fit are sent along, since some clients
    take them and never ask again over TCP.

    Args:
        query: What is answered.
        code: How it ended.
        answers: Records on the wire.
        authorities: Likewise.
        additional: Likewise; without the OPT record, which is added when the query had one.
        is_authoritative: The answer is the zone's own.
        size_bytes_max: Largest size.
    """
    opt = opt_record(query.edns, code) if query.edns is not None else b""
    room = size_bytes_max - HEADER_BYTES - len(query.question) - len(opt)
    kept: list[list[bytes]] = [[], [], []]
    is_truncated = False
    for section, records in enumerate((answers, authorities, additional)):
        for record in records:
            if len(record) > room:
                is_truncated = is_truncated or section < 2
                room = 0
                break
            room -= len(record)
            kept[section].append(record)
    flags = _QR | _RA | (query.flags & (_RD | _CD)) | (code & 0xF)
    flags |= (_AA if is_authoritative else 0) | (_TC if is_truncated else 0)
    counts = (len(kept[0]), len(kept[1]), len(kept[2]) + bool(opt))
    header = _HEADER.pack(query.ident, flags, 1, *counts)
    return b"".join((header, query.question, *kept[0], *kept[1], *kept[2], opt))


def ttl_offsets(data: bytes) -> list[int] | None:
    """Return where the TTLs of all records of a message are, its OPT record's excepted.

    None when the message is cut short or malformed.
    """
    if len(data) < HEADER_BYTES:
        return None
    _, _, questions, *counts = _HEADER.unpack_from(data)
    at: int | None = HEADER_BYTES
    for _ in range(questions):
        at = _skip_name(data, at)
        at = None if at is None else at + _QUESTION_END.size
    found: list[int] = []
    for _ in range(sum(counts)):
        at = _skip_name(data, at)
        if at is None or at + _RECORD.size > len(data):
            return None
        rtype, _, _, length = _RECORD.unpack_from(data, at)
        if rtype != _OPT_TYPE:
            found.append(at + 4)
        at += _RECORD.size + length
    return found if at == len(data) else None


def _labels(data: bytes) -> tuple[Labels, int] | None:
    """Return the question's name and where it ends; None: there is none, or no room after it."""
    labels: list[str] = []
    at = HEADER_BYTES
    end_max = min(len(data) - _QUESTION_END.size, HEADER_BYTES + NAME_BYTES_MAX)
    while at < end_max:
        length = data[at]
        at += 1
        if length == 0:
            return tuple(labels), at
        if length > LABEL_BYTES_MAX or at + length >= end_max:
            return None
        labels.append(data[at : at + length].lower().decode("latin-1"))
        at += length
    return None


def _edns(data: bytes, at: int, additional: int) -> Edns | str | None:
    """Return the OPT record among the additional ones, None without one, or what is wrong."""
    edns: Edns | None = None
    position: int | None = at
    for _ in range(additional):
        start = position
        position = _skip_name(data, position)
        if start is None or position is None or position + _RECORD.size > len(data):
            return "cut short"
        rtype, size, marks, length = _RECORD.unpack_from(data, position)
        position += _RECORD.size + length
        if rtype != _OPT_TYPE:
            continue
        if edns is not None or data[start] != 0:
            return "not one OPT record at the root"
        edns = Edns(size, marks >> 16 & 0xFF, bool(marks & _DO), length > 0)
    return edns if position == len(data) else "bytes after the end, or too few"


def _skip_name(data: bytes, at: int | None) -> int | None:
    """Return where the name ends that begins at `at`, or None when it does not end."""
    while at is not None and at < len(data):
        length = data[at]
        if length == 0:
            return at + 1
        if length >= _POINTER:
            return at + 2
        at = at + 1 + length if length <= LABEL_BYTES_MAX else None
    return None
