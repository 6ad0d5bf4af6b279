"""What do nodes say to one another in gossip? The messages, as values.

`datagrams` says how they look as bytes. A datagram carries one message, the digest of what its
sender knows, and items (rumours, pieces of facts) that ride along.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from dray.model import MEMBERS_MAX, FactKey, FactVersion
from dray.names import ClusterId, NodeId
from node.gossip.core import Address
from node.gossip.members import Rumour

__all__ = [
    "BUCKETS",
    "PIECES_MAX",
    "PIECE_BYTES_MAX",
    "PULL_ENTRIES_MAX",
    "Ack",
    "Behind",
    "Datagram",
    "FactPiece",
    "FactRange",
    "Gossip",
    "MemberEntry",
    "Message",
    "Nack",
    "NotMe",
    "Ping",
    "PingRequest",
    "Pull",
    "PullAnswer",
    "Sender",
    "SyncBuckets",
    "SyncFacts",
    "SyncMembers",
    "Verify",
    "cluster_tag",
]

BUCKETS: Final = 64  # member ids by their top 6 bits
PIECE_BYTES_MAX: Final = 800  # of a fact's value; with the longest name and header it fits
PIECES_MAX: Final = 32  # 25,600 bytes: above the limit of one value
PULL_ENTRIES_MAX: Final = MEMBERS_MAX + MEMBERS_MAX // 4


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
class Nack:
    """A helper's word that it lives, and that the target of a `PingRequest` has not answered."""

    sequence: int


@dataclass(frozen=True, slots=True)
class NotMe:
    """Whoever was pinged with this sequence is not here: the address has another owner."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Verify:
    """You are a witness of this member, and I suspect it: look now."""

    target: NodeId
    life: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Behind:
    """You lack more than datagrams should carry: pull it on a stream."""


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
class Pull:
    """On a stream: send me what I lack of the members whose id is above `after`.

    `entries`: all present ones there that I know, at most `PULL_ENTRIES_MAX`; none at a join.
    """

    after: NodeId | None
    entries: tuple[MemberEntry, ...]


@dataclass(frozen=True, slots=True)
class PullAnswer:
    """On a stream: as items, what you lack of the members up to `until`; None: that was all."""

    until: NodeId | None


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


Message: TypeAlias = (
    Ping
    | Ack
    | PingRequest
    | Nack
    | NotMe
    | Verify
    | Gossip
    | Behind
    | SyncBuckets
    | SyncMembers
    | SyncFacts
    | Pull
    | PullAnswer
)


@dataclass(frozen=True, slots=True)
class Datagram:
    """A decoded datagram. `items` are in the order of the wire."""

    cluster_tag: bytes
    sender: Sender
    digest: int
    message: Message
    items: tuple[Rumour | FactPiece, ...]


def cluster_tag(cluster_id: ClusterId) -> bytes:
    """Return the 8 bytes by which datagrams of another cluster are told and dropped."""
    return hashlib.blake2b(cluster_id.encode(), digest_size=8).digest()
