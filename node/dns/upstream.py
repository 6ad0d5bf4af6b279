"""What is asked of other name servers, which of their answers are taken, and kept for how long?

Whatever comes from upstream is parsed whole by dnspython before any of it is believed: it must be
an answer to the very question, with its id. What is kept is written anew, without EDNS, which is
between neighbours only.
"""

from __future__ import annotations

import collections
import enum
import struct
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype

from node.dns.names import Labels
from node.dns.resolver import refusal
from node.dns.wire import (
    HEADER_BYTES,
    IN,
    TCP_BYTES_MAX,
    UDP_BYTES_MAX,
    Edns,
    Query,
    RCode,
    name_bytes,
    opt_record,
    ttl_offsets,
)

__all__ = [
    "FAILURE_TTL_S",
    "STALE_S",
    "TTL_MAX_S",
    "Kept",
    "KeptAnswers",
    "Question",
    "Rejected",
    "accept",
    "answer_with",
    "failure",
    "question_bytes",
    "question_of",
]

TTL_MAX_S: Final = 300  # however long an answer says that it holds: upstreams change their minds
TTL_MIN_S: Final = 1
NEGATIVE_TTL_MAX_S: Final = 30
FAILURE_TTL_S: Final = 1  # for which a failure is told without asking again
STALE_S: Final = (
    3_600  # how long after its end an answer is used while all upstreams fail (RFC 8767)
)
KEPT_MAX: Final = 8_192  # answers
KEPT_BYTES_MAX: Final = 16 * 2**20

_COUNTS: Final = struct.Struct("!HHHH")
_TTL: Final = struct.Struct("!I")
_RD: Final = 0x0100
_CD: Final = 0x0010


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked upstream; queries that agree in it share one answer.

    Attributes:
        labels: The name.
        rtype: The type.
        has_edns: The client speaks EDNS, so the upstream is asked with it.
        is_dnssec: It wants signatures.
        is_checking_disabled: It checks them itself.
    """

    labels: Labels
    rtype: int
    has_edns: bool = False
    is_dnssec: bool = False
    is_checking_disabled: bool = False


class Rejected(enum.Enum):
    """Why what an upstream sent is not taken."""

    NOT_THE_ANSWER = 1
    """Malformed, or no answer to this question: perhaps a forgery. Wait on."""
    TRUNCATED = 2
    """Ask again over TCP."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer from upstream.

    Attributes:
        data: The message without EDNS; its id and the case of its question are of no meaning.
        ttl_at: Where its TTLs are.
        code: Its response code.
        ttl_s: How long it holds.
        source: The server that gave it, for people.
    """

    data: bytes
    ttl_at: tuple[int, ...]
    code: int
    ttl_s: int
    source: str

    @property
    def is_failure(self) -> bool:
        """Whether another server may do better."""
        return self.code not in (RCode.NOERROR, RCode.NXDOMAIN)


def question_of(query: Query) -> Question:
    """Return what to ask upstream for a query."""
    edns = query.edns
    return Question(
        query.labels,
        query.rtype,
        edns is not None,
        edns is not None and edns.is_dnssec,
        query.is_checking_disabled,
    )


def question_bytes(question: Question, ident: int) -> bytes:
    """Return the query to send upstream."""
    flags = _RD | (_CD if question.is_checking_disabled else 0)
    opt = b""
    if question.has_edns:
        opt = opt_record(Edns(UDP_BYTES_MAX, is_dnssec=question.is_dnssec))
    header = struct.pack("!HHHHHH", ident, flags, 1, 0, 0, 1 if opt else 0)
    fixed = struct.pack("!HH", question.rtype, IN)
    return header + name_bytes(question.labels) + fixed + opt


def accept(question: Question, ident: int, data: bytes, source: str) -> Kept | Rejected:
    """Return an upstream's answer in the form that is kept, or why it is not taken."""
    try:
        message = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError):
        return Rejected.NOT_THE_ANSWER
    if not _is_answer(message, question, ident):
        return Rejected.NOT_THE_ANSWER
    if message.flags & dns.flags.TC:
        return Rejected.TRUNCATED
    code = int(message.rcode())
    message.use_edns(False)
    message.flags &= ~(dns.flags.AA | 0xF)
    message.flags |= dns.flags.RA
    message.set_rcode(dns.rcode.Rcode(code if code < 16 else RCode.SERVFAIL))
    try:
        written = message.to_wire(max_size=TCP_BYTES_MAX)
    except (dns.exception.DNSException, ValueError):
        return Rejected.NOT_THE_ANSWER
    offsets = ttl_offsets(written)
    assert offsets is not None, "what dnspython writes is whole"
    return Kept(written, tuple(offsets), int(message.rcode()), _ttl_s(message), source)


def answer_with(kept: Kept, query: Query, ttl_s: int, size_bytes_max: int) -> bytes:
    """Return the answer to a query: the kept one with its id, case, TTLs and EDNS.

    One that is too large is only said to be truncated: the client asks again over TCP.

    Args:
        kept: The answer to the same question.
        query: The query.
        ttl_s: For how long it may be kept at most.
        size_bytes_max: Largest answer.
    """
    opt = opt_record(query.edns) if query.edns is not None else b""
    if len(kept.data) + len(opt) > size_bytes_max:
        head = _header(kept.data, query, is_truncated=True)
        return head + _COUNTS.pack(1, 0, 0, bool(opt)) + query.question + opt
    counts = list(_COUNTS.unpack_from(kept.data, 4))
    counts[3] += bool(opt)
    body = bytearray(kept.data)
    for at in kept.ttl_at:
        _TTL.pack_into(body, at, min(ttl_s, _TTL.unpack_from(body, at)[0]))
    rest = body[HEADER_BYTES + len(query.question) :]
    head = _header(kept.data, query, is_truncated=False)
    return head + _COUNTS.pack(*counts) + query.question + rest + opt


def failure(query: Query, size_bytes_max: int) -> bytes:
    """Return that no upstream had an answer."""
    return refusal(query, RCode.SERVFAIL, size_bytes_max).variants[0]


class KeptAnswers:
    """Answers from upstream that still hold; bounded, the longest unused one goes first."""

    def __init__(self, *, kept_max: int = KEPT_MAX, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._kept_max = kept_max
        self._bytes_max = bytes_max
        self._kept: collections.OrderedDict[Question, tuple[Kept, float]] = (
            collections.OrderedDict()
        )
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, question: Question, now_s: float) -> tuple[Kept, int] | None:
        """Return an answer that holds, and for how many seconds, >= 1; or None."""
        found = self._kept.get(question)
        if found is None or found[1] <= now_s:
            return None
        self._kept.move_to_end(question)
        return found[0], max(1, int(found[1] - now_s))

    def stale(self, question: Question, now_s: float) -> Kept | None:
        """Return an answer that does not hold any more but has not been so for long."""
        found = self._kept.get(question)
        if found is None or found[1] + STALE_S <= now_s or found[0].is_failure:
            return None
        return found[0]

    def put(self, question: Question, kept: Kept, now_s: float) -> None:
        """Keep an answer. A failure never takes the place of an answer, be it old."""
        if kept.is_failure and self.stale(question, now_s) is not None:
            return
        self._drop(question)
        self._kept[question] = (kept, now_s + kept.ttl_s)
        self._size_bytes += len(kept.data)
        while len(self._kept) > self._kept_max or self._size_bytes > self._bytes_max:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Drop all: other servers may answer otherwise."""
        self._kept.clear()
        self._size_bytes = 0

    def _drop(self, question: Question) -> None:
        found = self._kept.pop(question, None)
        if found is not None:
            self._size_bytes -= len(found[0].data)


def _is_answer(message: dns.message.Message, question: Question, ident: int) -> bool:
    if message.id != ident or not message.flags & dns.flags.QR or len(message.question) != 1:
        return False
    asked = message.question[0]
    labels = tuple(label.lower().decode("latin-1") for label in asked.name.labels[:-1])
    is_plain = message.opcode() == dns.opcode.QUERY and asked.rdclass == IN
    return is_plain and (labels, asked.rdtype) == (question.labels, question.rtype)


def _ttl_s(message: dns.message.Message) -> int:
    """Return how long an answer holds: as its shortest record; a no, as its SOA says (RFC 2308)."""
    code = int(message.rcode())
    if code not in (RCode.NOERROR, RCode.NXDOMAIN):
        return FAILURE_TTL_S
    if message.answer and code == RCode.NOERROR:
        return max(TTL_MIN_S, min(TTL_MAX_S, *(rrset.ttl for rrset in message.answer)))
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return max(TTL_MIN_S, min(NEGATIVE_TTL_MAX_S, rrset.ttl, int(rrset[0].minimum)))
    return TTL_MIN_S


def _header(data: bytes, query: Query, *, is_truncated: bool) -> bytes:
    (flags,) = struct.unpack_from("!H", data, 2)
    flags = (flags & ~(_RD | _CD)) | (query.flags & (_RD | _CD)) | (0x0200 if is_truncated else 0)
    return struct.pack("!HH", query.ident, flags)
