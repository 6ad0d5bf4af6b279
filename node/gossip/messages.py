"""What do gossip's datagrams look like?

This version's own form, one byte that names it in front: fixed fields by position, no encryption
and no authentication. **Whoever can reach the port can say anything about anybody**, so whoever
drives a core must bind to loopback addresses only. Sealing, and the protobuf form of
`proto/dray/api/v1/gossip.proto`, replace this module together.

    datagram = form (1) · kind (1) · cluster tag (8) · sender · digest (8) · body · items
    sender   = node id (16) · life (8) · incarnation (4) · name · IP address · port (2)
    item     = mark (1) · rumour or piece of a fact, until the datagram ends

Items are encoded on their own, once, and go into as many datagrams as they must. A datagram has at
most `DATAGRAM_BYTES_MAX` bytes both ways, which bounds every list in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from dray.model import FactKey, FactVersion, MemberState
from dray.names import ClusterId, NodeId
from node.gossip.core import DATAGRAM_BYTES_MAX, Address
from node.gossip.members import INCARNATION_MAX, LIFE_MAX, SPREAD_STATES, Rumour
from node.gossip.packing import FACT_NAME_BYTES_MAX
from node.gossip.wire import Malformed, Reader, WireError, Writer

__all__ = [
    "BUCKETS",
    "PIECES_MAX",
    "PIECE_BYTES_MAX",
    "Ack",
    "Datagram",
    "FactPiece",
    "FactRange",
    "Gossip",
    "MemberEntry",
    "Message",
    "Ping",
    "PingRequest",
    "Sender",
    "SyncBuckets",
    "SyncFacts",
    "SyncMembers",
    "cluster_tag",
    "decode",
    "encode",
    "encode_piece",
    "encode_rumour",
]

BUCKETS: Final = 64  # member ids by their top 6 bits
PIECE_BYTES_MAX: Final = 800  # of a fact's value; with the longest name and header it fits
PIECES_MAX: Final = 32  # 25,600 bytes: above the limit of one value
NAME_BYTES_MAX: Final = 63  # a DNS label

_FORM: Final = 0xD1
_U64_MAX: Final = 2**64 - 1
_RUMOUR_MARK: Final = 1
_PIECE_MARK: Final = 2
_HASH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a datagram: every one makes its sender known, and refutes what is older."""

    node_id: NodeId
    life: int
    incarnation: int
    name: str
    address: Address


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? Answered by an `Ack` with the same sequence.

    `target` is whom it is meant for; None: whoever is at this address (a seed). Somebody else does
    not answer.
    """

    sequence: int
    target: NodeId | None


@dataclass(frozen=True, slots=True)
class Ack:
    """I am; or, when `about` is given, a helper's word that this member answered it.

    `life` and `incarnation` are then those that the member gave to the helper.
    """

    sequence: int
    about: NodeId | None = None
    life: int = 0
    incarnation: int = 0


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Ping `target` at `address` for me, and pass its answer on with this sequence."""

    sequence: int
    target: NodeId
    address: Address


@dataclass(frozen=True, slots=True)
class Gossip:
    """Nothing but the items that ride along."""


@dataclass(frozen=True, slots=True)
class SyncBuckets:
    """First step of a sync: a digest of each bucket of members and their facts."""

    digests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MemberEntry:
    """One present member as the sender knows it, and the digest of its facts there."""

    node_id: NodeId
    life: int
    incarnation: int
    facts_digest: int


@dataclass(frozen=True, slots=True)
class SyncMembers:
    """Second step: all present members of a bucket whose id is above `after` and up to `until`.

    None stands for no bound. `is_answer`: sent in reply to such a list, and not to be replied to
    with another.
    """

    bucket: int
    after: NodeId | None
    until: NodeId | None
    entries: tuple[MemberEntry, ...]
    is_answer: bool


@dataclass(frozen=True, slots=True)
class FactRange:
    """All facts of one node whose hash is `low` to `high`: (hash, version), by hash. No deleted."""

    node_id: NodeId
    life: int
    low: int
    high: int
    entries: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class SyncFacts:
    """Third step: which facts the sender has of some nodes. `is_answer` as in `SyncMembers`."""

    ranges: tuple[FactRange, ...]
    is_answer: bool


@dataclass(frozen=True, slots=True)
class FactPiece:
    """One piece of a fact, `index` of `count`; a fact that fits has one.

    `data` None: the fact is deleted (then `count` is 1).
    """

    key: FactKey
    version: FactVersion
    index: int
    count: int
    data: bytes | None


Message: TypeAlias = Ping | Ack | PingRequest | Gossip | SyncBuckets | SyncMembers | SyncFacts


@dataclass(frozen=True, slots=True)
class Datagram:
    """A decoded datagram. `items` are in the order of the wire."""

    cluster_tag: bytes
    sender: Sender
    digest: int
    message: Message
    items: tuple[Rumour | FactPiece, ...]


_KINDS: Final = (Ping, Ack, PingRequest, Gossip, SyncBuckets, SyncMembers, SyncFacts)
_KIND_OF: Final = {kind: number for number, kind in enumerate(_KINDS)}


def cluster_tag(cluster_id: ClusterId) -> bytes:
    """Return the 8 bytes by which datagrams of another cluster are told and dropped."""
    return hashlib.blake2b(cluster_id.encode(), digest_size=8).digest()


def encode(
    tag: bytes, sender: Sender, digest: int, message: Message, items: Iterable[bytes] = ()
) -> bytes:
    """Return a datagram; `items` come from `encode_rumour` and `encode_piece`.

    The caller keeps it within `DATAGRAM_BYTES_MAX`: without items every message does.
    """
    writer = Writer()
    writer.fixed(_FORM, 1)
    writer.fixed(_KIND_OF[type(message)], 1)
    writer.raw(tag)
    writer.id(sender.node_id)
    writer.fixed(sender.life, 8)
    writer.fixed(sender.incarnation, 4)
    writer.text(sender.name, NAME_BYTES_MAX)
    _write_address(writer, sender.address)
    writer.fixed(digest, _HASH_BYTES)
    _write_body(writer, message)
    for item in items:
        writer.raw(item)
    data = writer.take()
    assert len(data) <= DATAGRAM_BYTES_MAX, f"a {type(message).__name__} of {len(data)} bytes"
    return data


def encode_rumour(rumour: Rumour) -> bytes:
    """Return a rumour as an item of a datagram."""
    writer = Writer()
    writer.fixed(_RUMOUR_MARK, 1)
    writer.id(rumour.node_id)
    writer.fixed(rumour.life, 8)
    writer.uvarint(rumour.incarnation)
    writer.fixed(SPREAD_STATES.index(rumour.state), 1)
    if rumour.state is MemberState.ALIVE:
        assert rumour.address is not None, "an ALIVE rumour says where the member is"
        writer.text(rumour.name, NAME_BYTES_MAX)
        _write_address(writer, rumour.address)
    return writer.take()


def encode_piece(piece: FactPiece) -> bytes:
    """Return a piece of a fact as an item of a datagram."""
    writer = Writer()
    writer.fixed(_PIECE_MARK, 1)
    writer.id(piece.key.node_id)
    writer.text(piece.key.name, FACT_NAME_BYTES_MAX)
    writer.fixed(piece.version.life, 8)
    writer.uvarint(piece.version.version)
    writer.fixed(piece.index, 1)
    writer.fixed(0 if piece.data is None else piece.count, 1)
    if piece.data is not None:
        writer.blob(piece.data, PIECE_BYTES_MAX)
    return writer.take()


def decode(data: bytes) -> Datagram | Malformed:
    """Return what a datagram says. Never raises, and builds nothing larger than the datagram."""
    if len(data) > DATAGRAM_BYTES_MAX:
        return Malformed(f"{len(data)} bytes where {DATAGRAM_BYTES_MAX} are the most")
    try:
        return _read(Reader(data))
    except WireError as error:
        return Malformed(str(error))


def _read(reader: Reader) -> Datagram:
    if reader.fixed(1) != _FORM:
        raise WireError("another form, or no gossip at all")
    kind = reader.fixed(1)
    tag = reader.raw(8)
    sender = Sender(
        NodeId(reader.id()),
        _life(reader),
        reader.fixed(4),
        reader.text(NAME_BYTES_MAX),
        _read_address(reader),
    )
    digest = reader.fixed(_HASH_BYTES)
    if kind >= len(_KINDS):
        raise WireError(f"there is no message of kind {kind}")
    message = _read_body(_KINDS[kind], reader)
    items: list[Rumour | FactPiece] = []
    while reader.left:
        items.append(_read_item(reader))
    return Datagram(tag, sender, digest, message, tuple(items))


def _write_body(writer: Writer, message: Message) -> None:
    match message:
        case Ping():
            writer.fixed(message.sequence, 4)
            _write_id(writer, message.target)
        case Ack():
            writer.fixed(message.sequence, 4)
            _write_id(writer, message.about)
            writer.fixed(message.life, 8)
            writer.fixed(message.incarnation, 4)
        case PingRequest():
            writer.fixed(message.sequence, 4)
            writer.id(message.target)
            _write_address(writer, message.address)
        case Gossip():
            pass
        case SyncBuckets():
            assert len(message.digests) == BUCKETS, f"{BUCKETS} digests, one a bucket"
            for digest in message.digests:
                writer.fixed(digest, _HASH_BYTES)
        case SyncMembers():
            _write_members(writer, message)
        case SyncFacts():
            _write_facts(writer, message)


def _read_body(kind: type[Message], reader: Reader) -> Message:
    if kind is Ping:
        return Ping(reader.fixed(4), _read_id(reader))
    if kind is Ack:
        return Ack(reader.fixed(4), _read_id(reader), reader.fixed(8), reader.fixed(4))
    if kind is PingRequest:
        return PingRequest(reader.fixed(4), NodeId(reader.id()), _read_address(reader))
    if kind is SyncBuckets:
        return SyncBuckets(tuple(reader.fixed(_HASH_BYTES) for _ in range(BUCKETS)))
    if kind is SyncMembers:
        return _read_members(reader)
    if kind is SyncFacts:
        return _read_facts(reader)
    return Gossip()


def _write_members(writer: Writer, message: SyncMembers) -> None:
    writer.fixed(message.bucket, 1)
    writer.fixed(int(message.is_answer), 1)
    _write_id(writer, message.after)
    _write_id(writer, message.until)
    writer.uvarint(len(message.entries))
    for entry in message.entries:
        writer.id(entry.node_id)
        writer.fixed(entry.life, 8)
        writer.uvarint(entry.incarnation)
        writer.fixed(entry.facts_digest, _HASH_BYTES)


def _read_members(reader: Reader) -> SyncMembers:
    bucket = reader.fixed(1)
    if bucket >= BUCKETS:
        raise WireError(f"there is no bucket {bucket}")
    is_answer = _read_flag(reader)
    after, until = _read_id(reader), _read_id(reader)
    entries = tuple(
        MemberEntry(
            NodeId(reader.id()),
            _life(reader),
            reader.uvarint(INCARNATION_MAX),
            reader.fixed(_HASH_BYTES),
        )
        for _ in range(reader.uvarint(DATAGRAM_BYTES_MAX))
    )
    return SyncMembers(bucket, after, until, entries, is_answer)


def _write_facts(writer: Writer, message: SyncFacts) -> None:
    writer.fixed(int(message.is_answer), 1)
    writer.uvarint(len(message.ranges))
    for part in message.ranges:
        writer.id(part.node_id)
        writer.fixed(part.life, 8)
        writer.fixed(part.low, _HASH_BYTES)
        writer.fixed(part.high, _HASH_BYTES)
        writer.uvarint(len(part.entries))
        for name_hash, version in part.entries:
            writer.fixed(name_hash, _HASH_BYTES)
            writer.uvarint(version)


def _read_facts(reader: Reader) -> SyncFacts:
    is_answer = _read_flag(reader)
    ranges = tuple(
        FactRange(
            NodeId(reader.id()),
            _life(reader),
            reader.fixed(_HASH_BYTES),
            reader.fixed(_HASH_BYTES),
            tuple(
                (reader.fixed(_HASH_BYTES), reader.uvarint(_U64_MAX))
                for _ in range(reader.uvarint(DATAGRAM_BYTES_MAX))
            ),
        )
        for _ in range(reader.uvarint(DATAGRAM_BYTES_MAX))
    )
    return SyncFacts(ranges, is_answer)


def _read_item(reader: Reader) -> Rumour | FactPiece:
    mark = reader.fixed(1)
    if mark == _RUMOUR_MARK:
        return _read_rumour(reader)
    if mark == _PIECE_MARK:
        return _read_piece(reader)
    raise WireError(f"there is no item of mark {mark}")


def _read_rumour(reader: Reader) -> Rumour:
    node_id, life = NodeId(reader.id()), _life(reader)
    incarnation = reader.uvarint(INCARNATION_MAX)
    state = reader.fixed(1)
    if state >= len(SPREAD_STATES):
        raise WireError(f"there is no state {state}")
    if SPREAD_STATES[state] is not MemberState.ALIVE:
        return Rumour(node_id, life, incarnation, SPREAD_STATES[state])
    name, address = reader.text(NAME_BYTES_MAX), _read_address(reader)
    return Rumour(node_id, life, incarnation, MemberState.ALIVE, name, address)


def _read_piece(reader: Reader) -> FactPiece:
    key = FactKey(NodeId(reader.id()), reader.text(FACT_NAME_BYTES_MAX))
    version = FactVersion(_life(reader), reader.uvarint(_U64_MAX))
    index, count = reader.fixed(1), reader.fixed(1)
    if count == 0 and index == 0:
        return FactPiece(key, version, 0, 1, None)
    if index >= count or count > PIECES_MAX:
        raise WireError(f"there is no piece {index} of {count}")
    return FactPiece(key, version, index, count, reader.blob(PIECE_BYTES_MAX))


def _write_id(writer: Writer, node_id: NodeId | None) -> None:
    writer.fixed(int(node_id is not None), 1)
    if node_id is not None:
        writer.id(node_id)


def _read_id(reader: Reader) -> NodeId | None:
    return NodeId(reader.id()) if _read_flag(reader) else None


def _read_flag(reader: Reader) -> bool:
    value = reader.fixed(1)
    if value > 1:
        raise WireError(f"{value} is neither yes nor no")
    return bool(value)


def _write_address(writer: Writer, address: Address) -> None:
    writer.address(address.host)
    writer.fixed(address.port, 2)


def _read_address(reader: Reader) -> Address:
    host, port = reader.address(), reader.fixed(2)
    if not host or not port:
        raise WireError("an address without host or port")
    return Address(host, port)


def _life(reader: Reader) -> int:
    life = reader.fixed(8)
    if not 0 < life <= LIFE_MAX:
        raise WireError(f"{life} is no life")
    return life
