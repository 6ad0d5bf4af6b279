"""What do gossip's datagrams look like as bytes?

Their own form, one byte that names it in front: fixed fields by position. Here they are in clear;
the driver seals everything behind the header (`sealing`), and authenticates all of it.

    datagram = header · kind (1) · sender · digest (8) · body · items
    header   = form (1) · cluster tag (8) · sender's node id (16) · its life (8)
    sender   = length (1) · incarnation · name · IP address · port (2)
    item     = mark (1) · rumour behind its length (1), or piece of a fact; until the datagram ends

A sender and a rumour come again and again: they are decoded once, and then found by their bytes.

Items are encoded on their own, once, and go into as many datagrams as they must. A datagram has at
most `DATAGRAM_BYTES_MAX` bytes both ways, a message of a stream (the same form) at most
`STREAM_MESSAGE_BYTES_MAX`, which bounds every list in it.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from typing import Final

from dray.model import FactKey, FactVersion, MemberState, ReachKind
from dray.names import NodeId
from node.gossip.core import DATAGRAM_BYTES_MAX, STREAM_MESSAGE_BYTES_MAX, Address
from node.gossip.members import INCARNATION_MAX, LIFE_MAX, SPREAD_STATES, Rumour
from node.gossip.messages import (
    BUCKETS,
    PIECE_BYTES_MAX,
    PIECES_MAX,
    PULL_ENTRIES_MAX,
    Ack,
    Behind,
    Datagram,
    FactPiece,
    FactRange,
    Gossip,
    MemberEntry,
    Message,
    Nack,
    NotMe,
    Ping,
    PingRequest,
    Pull,
    PullAnswer,
    Sender,
    SyncBuckets,
    SyncFacts,
    SyncMembers,
    Verify,
)
from node.gossip.packing import FACT_NAME_BYTES_MAX
from node.gossip.wire import CACHE_ITEMS_MAX, Malformed, Reader, WireError, Writer

__all__ = [
    "FORM",
    "HEADER_BYTES",
    "decode",
    "decode_streamed",
    "encode",
    "encode_piece",
    "encode_rumour",
]

FORM: Final = 0xD1
HEADER_BYTES: Final = 1 + 8 + 16 + 8
NAME_BYTES_MAX: Final = 63  # a DNS label
SIGNED_KEPT: Final = 2_048  # senders: one in a daemon, a whole cluster in a simulation

_U64_MAX: Final = 2**64 - 1
_REACHES: Final = {0: None, **{reach.value: reach for reach in ReachKind}}
_RUMOUR_MARK: Final = 1
_PIECE_MARK: Final = 2
_HASH_BYTES: Final = 8
_BUCKETS: Final = struct.Struct(f">{BUCKETS}Q")
_KINDS: Final = (
    Ping,
    Ack,
    PingRequest,
    Nack,
    NotMe,
    Verify,
    Gossip,
    Behind,
    SyncBuckets,
    SyncMembers,
    SyncFacts,
    Pull,
    PullAnswer,
)
_STREAMED: Final = (Pull, PullAnswer)  # never in a datagram
_KIND_OF: Final = {kind: number for number, kind in enumerate(_KINDS)}


def encode(
    tag: bytes, sender: Sender, digest: int, message: Message, items: Iterable[bytes] = ()
) -> bytes:
    """Return a datagram; `items` come from `encode_rumour` and `encode_piece`.

    The caller keeps it within `DATAGRAM_BYTES_MAX`: without items every message does.
    """
    header, signature = _signed(tag, sender)
    writer = Writer()
    writer.raw(header)
    writer.fixed(_KIND_OF[type(message)], 1)
    writer.raw(signature)
    writer.fixed(digest, _HASH_BYTES)
    _write_body(writer, message)
    for item in items:
        writer.raw(item)
    data = writer.take()
    bytes_max = STREAM_MESSAGE_BYTES_MAX if isinstance(message, _STREAMED) else DATAGRAM_BYTES_MAX
    assert len(data) <= bytes_max, f"a {type(message).__name__} of {len(data)} bytes"
    return data


@functools.lru_cache(SIGNED_KEPT)
def _signed(tag: bytes, sender: Sender) -> tuple[bytes, bytes]:
    """Return the header of a sender's datagrams, and the sender as it follows."""
    header = Writer()
    header.fixed(FORM, 1)
    header.raw(tag)
    header.id(sender.node_id)
    header.fixed(sender.life, 8)
    body = Writer()
    body.uvarint(sender.incarnation)
    body.text(sender.name, NAME_BYTES_MAX)
    _write_address(body, sender.address)
    signature = body.take()
    return header.take(), bytes((len(signature),)) + signature


def encode_rumour(rumour: Rumour) -> bytes:
    """Return a rumour as an item of a datagram."""
    writer = Writer()
    writer.id(rumour.node_id)
    writer.fixed(rumour.life, 8)
    writer.uvarint(rumour.incarnation)
    writer.fixed(SPREAD_STATES.index(rumour.state), 1)
    if rumour.state is MemberState.ALIVE:
        assert rumour.address is not None, "an ALIVE rumour says where the member is"
        writer.text(rumour.name, NAME_BYTES_MAX)
        _write_address(writer, rumour.address)
    elif rumour.state is not MemberState.LEFT:
        _write_id(writer, rumour.accuser)
        writer.fixed(rumour.reach.value if rumour.reach is not None else 0, 1)
    body = writer.take()
    return bytes((_RUMOUR_MARK, len(body))) + body


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
    datagram = _decode(data)
    if isinstance(datagram, Datagram) and isinstance(datagram.message, _STREAMED):
        return Malformed(f"a {type(datagram.message).__name__} is for streams")
    return datagram


def decode_streamed(data: bytes) -> Datagram | Malformed:
    """Return what a message of a stream says; as `decode`, with the limit of streams."""
    if len(data) > STREAM_MESSAGE_BYTES_MAX:
        return Malformed(f"{len(data)} bytes where {STREAM_MESSAGE_BYTES_MAX} are the most")
    return _decode(data)


def _decode(data: bytes) -> Datagram | Malformed:
    try:
        return _read(Reader(data))
    except WireError as error:
        return Malformed(str(error))


def _read(reader: Reader) -> Datagram:
    if reader.fixed(1) != FORM:
        raise WireError("another form, or no gossip at all")
    tag = reader.raw(8)
    start = reader.raw(24)
    kind = reader.fixed(1)
    if kind >= len(_KINDS):
        raise WireError(f"there is no message of kind {kind}")
    sender = _sender(start, reader.raw(reader.fixed(1)))
    digest = reader.fixed(_HASH_BYTES)
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
        case Nack() | NotMe():
            writer.fixed(message.sequence, 4)
        case Verify():
            writer.id(message.target)
            writer.fixed(message.life, 8)
            writer.uvarint(message.incarnation)
        case Gossip() | Behind():
            pass
        case Pull():
            _write_id(writer, message.after)
            _write_entries(writer, message.entries)
        case PullAnswer():
            _write_id(writer, message.until)
        case SyncBuckets():
            assert len(message.digests) == BUCKETS, f"{BUCKETS} digests, one a bucket"
            writer.raw(_BUCKETS.pack(*message.digests))
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
    if kind is Nack:
        return Nack(reader.fixed(4))
    if kind is NotMe:
        return NotMe(reader.fixed(4))
    if kind is Verify:
        return Verify(NodeId(reader.id()), _life(reader), reader.uvarint(INCARNATION_MAX))
    if kind is Behind:
        return Behind()
    if kind is Pull:
        return Pull(_read_id(reader), _read_entries(reader, PULL_ENTRIES_MAX))
    if kind is PullAnswer:
        return PullAnswer(_read_id(reader))
    if kind is SyncBuckets:
        return SyncBuckets(_BUCKETS.unpack(reader.raw(_BUCKETS.size)))
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
    _write_entries(writer, message.entries)


def _write_entries(writer: Writer, entries: tuple[MemberEntry, ...]) -> None:
    writer.uvarint(len(entries))
    for entry in entries:
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
    return SyncMembers(bucket, after, until, _read_entries(reader, DATAGRAM_BYTES_MAX), is_answer)


def _read_entries(reader: Reader, count_max: int) -> tuple[MemberEntry, ...]:
    return tuple(
        MemberEntry(
            NodeId(reader.id()),
            _life(reader),
            reader.uvarint(INCARNATION_MAX),
            reader.fixed(_HASH_BYTES),
        )
        for _ in range(reader.uvarint(count_max))
    )


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
        return _rumour(reader.raw(reader.fixed(1)))
    if mark == _PIECE_MARK:
        return _read_piece(reader)
    raise WireError(f"there is no item of mark {mark}")


@functools.lru_cache(CACHE_ITEMS_MAX)
def _rumour(body: bytes) -> Rumour:
    reader = Reader(body)
    rumour = _read_rumour(reader)
    reader.end()
    return rumour


@functools.lru_cache(CACHE_ITEMS_MAX)
def _sender(start: bytes, rest: bytes) -> Sender:
    """Return who signed; `start` is node id and life, `rest` what follows."""
    reader = Reader(start + rest)
    sender = Sender(
        NodeId(reader.id()),
        _life(reader),
        reader.uvarint(INCARNATION_MAX),
        reader.text(NAME_BYTES_MAX),
        _read_address(reader),
    )
    reader.end()
    return sender


def _read_rumour(reader: Reader) -> Rumour:
    node_id, life = NodeId(reader.id()), _life(reader)
    incarnation = reader.uvarint(INCARNATION_MAX)
    state = reader.fixed(1)
    if state >= len(SPREAD_STATES):
        raise WireError(f"there is no state {state}")
    if SPREAD_STATES[state] is MemberState.LEFT:
        return Rumour(node_id, life, incarnation, MemberState.LEFT)
    if SPREAD_STATES[state] is not MemberState.ALIVE:
        accuser, reach = _read_id(reader), reader.fixed(1)
        if reach not in _REACHES:
            raise WireError(f"there is no reach {reach}")
        return Rumour(
            node_id,
            life,
            incarnation,
            SPREAD_STATES[state],
            accuser=accuser,
            reach=_REACHES[reach],
        )
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
