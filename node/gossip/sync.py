"""What does a peer whose digest differs from ours lack, and what do we?

A sync narrows a difference down in three steps, each a datagram (or a few) that stands for itself
and may be lost:

1. `SyncBuckets`: our digest of each of 64 buckets of members.
2. `SyncMembers`: the peer lists whom it has in each bucket that differs, with digests of facts.
3. `SyncFacts`: which facts it has of the nodes whose digests differ.

Whoever gets a list sends what the list lacks or has in an older state, and, unless the list was
itself an answer, its own list of the same range: so the other side can send what is missing here.
A list covers a range of its own (of ids, or of hashes of names), so that one datagram suffices to
see what is missing in it.

Who is dead here and present there is told to the sender without an accuser, which it takes for a
*suspicion* unless it has one of its own, and is to be asked itself (`Reply.doubted`): after a
partition each half holds the living of the other to be dead, and what was concluded then is no
news.

On a stream there is one step: `Pull` lists what one side has, `PullAnswer` brings the rest, in
chunks. That is how a node learns everything when it joins, and what is more than 8 kB behind.

These functions compare and build; the core sends. Nothing here changes anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dray.model import Fact, Member, MemberState
from dray.names import NodeId
from node.gossip.datagrams import encode_piece, encode_rumour
from node.gossip.facts import FactStore, bucket_of, name_hash
from node.gossip.members import Rumour, is_here, rumour_of
from node.gossip.messages import (
    BUCKETS,
    PIECE_BYTES_MAX,
    PULL_ENTRIES_MAX,
    FactPiece,
    FactRange,
    MemberEntry,
    Message,
    Pull,
    PullAnswer,
    SyncBuckets,
    SyncFacts,
    SyncMembers,
)

__all__ = [
    "CHUNK_BYTES",
    "Reply",
    "answer_buckets",
    "answer_facts",
    "answer_members",
    "answer_pull",
    "pieces_of",
    "pull_entries",
]

MEMBERS_PER_LIST_MAX: Final = 26  # 37 bytes each: fits a datagram with the longest sender
FACTS_PER_LIST_MAX: Final = 48  # 18 bytes each at most
RANGE_BYTES: Final = 48  # what a range takes before its entries
LIST_ROOM_BYTES: Final = 980
FACT_ENTRY_BYTES_MAX: Final = 18
HASH_MAX: Final = 2**64 - 1
CHUNK_BYTES: Final = 65_536  # a chunk of a pull ends with the node that fills it: below 110 kB


@dataclass(slots=True)
class Reply:
    """What to send back: items for the peer, and lists that ask it for more.

    `doubted`: members that are dead here and present there.
    """

    items: list[bytes] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    doubted: list[NodeId] = field(default_factory=list)


def pieces_of(fact: Fact) -> list[bytes]:
    """Return a fact as items of datagrams: one, or several when it is large."""
    if fact.value is None:
        return [encode_piece(FactPiece(fact.key, fact.version, 0, 1, None))]
    starts = range(0, max(1, len(fact.value)), PIECE_BYTES_MAX)
    return [
        encode_piece(
            FactPiece(
                fact.key,
                fact.version,
                index,
                len(starts),
                fact.value[start : start + PIECE_BYTES_MAX],
            )
        )
        for index, start in enumerate(starts)
    ]


def answer_buckets(store: FactStore, message: SyncBuckets, first: int) -> Iterator[Message]:
    """Yield our lists of the buckets that differ, beginning at bucket `first`.

    The caller sends as many as it may; with a new `first` each time every bucket has its turn.
    """
    by_bucket: dict[int, list[Member]] = {}
    for member in _present(store):
        by_bucket.setdefault(bucket_of(member.node_id), []).append(member)
    for step in range(BUCKETS):
        bucket = (first + step) % BUCKETS
        if message.digests[bucket] != store.bucket_digests[bucket]:
            yield from _member_lists(store, bucket, by_bucket.get(bucket, []))


def answer_members(store: FactStore, message: SyncMembers) -> Reply:
    """Return what the sender of a list of members lacks, and lists of what we may lack."""
    reply = Reply()
    theirs = {entry.node_id: entry for entry in message.entries}
    ours = [
        member
        for member in _present(store)
        if bucket_of(member.node_id) == message.bucket
        and (message.after is None or member.node_id > message.after)
        and (message.until is None or member.node_id <= message.until)
    ]
    differing: list[NodeId] = []
    is_different = False
    for member in ours:
        entry = theirs.get(member.node_id)
        if entry is None or (entry.life, entry.incarnation) != (member.life, member.incarnation):
            is_different = True
            if entry is None or (entry.life, entry.incarnation) < (member.life, member.incarnation):
                reply.items.append(encode_rumour(rumour_of(member, as_alive=True)))
        if entry is None or entry.facts_digest != store.facts_of(member.node_id).digest:
            differing.append(member.node_id)
    for node_id in theirs.keys() - {member.node_id for member in ours}:
        is_different = True
        known = store.member(node_id)
        if known is not None:  # dead or left here, alive there
            reply.items.append(encode_rumour(_contradiction(known)))
            if known.state is MemberState.DEAD:
                reply.doubted.append(node_id)
    reply.doubted.sort()
    reply.items.sort()
    if is_different and not message.is_answer:
        reply.messages += _member_answer(store, message, ours)
    reply.messages += fact_lists(store, differing)
    return reply


def answer_facts(store: FactStore, message: SyncFacts) -> Reply:
    """Return the facts that the sender of a list lacks, and our own lists of the same ranges."""
    reply = Reply()
    for part in message.ranges:
        facts = store.facts_of(part.node_id)
        theirs = dict(part.entries) if part.life == facts.life else {}
        ours = {
            key: fact
            for key, fact in ((name_hash(name), fact) for name, fact in facts.facts.items())
            if part.low <= key <= part.high
        }
        living = {key: fact.version.version for key, fact in ours.items() if fact.value is not None}
        if part.life <= facts.life:
            for key, fact in sorted(ours.items()):
                version = theirs.get(key)
                is_lacking = (
                    fact.value is not None if version is None else version < fact.version.version
                )
                if is_lacking:
                    reply.items += pieces_of(fact)
        if not message.is_answer and (part.life > facts.life or living != theirs):
            entries = sorted(living.items())
            own = _ranges(part.node_id, max(1, facts.life), entries, part.low, part.high)
            reply.messages += [SyncFacts((range_,), is_answer=True) for range_ in own]
    return reply


def pull_entries(store: FactStore, after: NodeId | None) -> Pull:
    """Return the request for everything that we lack of the members above `after`."""
    present = [m for m in _present(store) if after is None or m.node_id > after]
    return Pull(after, tuple(_entry(store, member) for member in present[:PULL_ENTRIES_MAX]))


def answer_pull(store: FactStore, message: Pull) -> tuple[PullAnswer, list[bytes]]:
    """Return one chunk of what the sender of a pull lacks, and how far it goes."""
    theirs = {entry.node_id: entry for entry in message.entries}
    items: list[bytes] = []
    size_bytes = 0
    for member in _present(store):
        if message.after is not None and member.node_id <= message.after:
            continue
        entry = theirs.get(member.node_id)
        added: list[bytes] = []
        if entry is None or (entry.life, entry.incarnation) < (member.life, member.incarnation):
            added.append(encode_rumour(rumour_of(member, as_alive=True)))
        facts = store.facts_of(member.node_id)
        if facts.facts and (entry is None or entry.facts_digest != facts.digest):
            for fact in facts.facts.values():
                added += pieces_of(fact)
        items += added
        size_bytes += sum(map(len, added))
        if size_bytes >= CHUNK_BYTES:
            return PullAnswer(member.node_id), items
    return PullAnswer(None), items


def _contradiction(known: Member) -> Rumour:
    """Return what to say of a member that is gone here to somebody for whom it is present."""
    rumour = rumour_of(known)
    if known.state is not MemberState.DEAD:
        return rumour
    return dataclasses.replace(rumour, accuser=None)


def fact_lists(store: FactStore, node_ids: Sequence[NodeId]) -> Iterator[SyncFacts]:
    """Yield lists of our facts of some members, several members to a datagram where they fit."""
    ranges: list[FactRange] = []
    room_bytes = LIST_ROOM_BYTES
    for node_id in node_ids:
        member = store.member(node_id)
        assert member is not None, "lists are made of members"
        facts = store.facts_of(node_id)
        entries = sorted(
            (name_hash(name), fact.version.version)
            for name, fact in facts.facts.items()
            if fact.value is not None
        )
        for part in _ranges(node_id, facts.life or member.life, entries, 0, HASH_MAX):
            size = RANGE_BYTES + FACT_ENTRY_BYTES_MAX * len(part.entries)
            if size > room_bytes and ranges:
                yield SyncFacts(tuple(ranges), is_answer=False)
                ranges, room_bytes = [], LIST_ROOM_BYTES
            ranges.append(part)
            room_bytes -= size
    if ranges:
        yield SyncFacts(tuple(ranges), is_answer=False)


def _present(store: FactStore) -> list[Member]:
    members = (store.member(node_id) for node_id in sorted(store))
    return [member for member in members if member is not None and is_here(member)]


def _entry(store: FactStore, member: Member) -> MemberEntry:
    digest = store.facts_of(member.node_id).digest
    return MemberEntry(member.node_id, member.life, member.incarnation, digest)


def _member_lists(store: FactStore, bucket: int, members: list[Member]) -> Iterator[SyncMembers]:
    """Yield lists that together cover the bucket, also when it is empty."""
    after: NodeId | None = None
    for start in range(0, max(1, len(members)), MEMBERS_PER_LIST_MAX):
        part = members[start : start + MEMBERS_PER_LIST_MAX]
        is_last = start + MEMBERS_PER_LIST_MAX >= len(members)
        until = None if is_last else part[-1].node_id
        entries = tuple(_entry(store, member) for member in part)
        yield SyncMembers(bucket, after, until, entries, is_answer=False)
        after = until


def _member_answer(
    store: FactStore, message: SyncMembers, ours: list[Member]
) -> Iterator[SyncMembers]:
    """Yield our own lists of the range that a list covered."""
    after = message.after
    for start in range(0, max(1, len(ours)), MEMBERS_PER_LIST_MAX):
        part = ours[start : start + MEMBERS_PER_LIST_MAX]
        is_last = start + MEMBERS_PER_LIST_MAX >= len(ours)
        until = message.until if is_last else part[-1].node_id
        entries = tuple(_entry(store, member) for member in part)
        yield SyncMembers(message.bucket, after, until, entries, is_answer=True)
        after = until


def _ranges(
    node_id: NodeId, life: int, entries: list[tuple[int, int]], low: int, high: int
) -> Iterator[FactRange]:
    """Yield ranges that together cover `low` to `high`, also when there is no entry."""
    for start in range(0, max(1, len(entries)), FACTS_PER_LIST_MAX):
        part = entries[start : start + FACTS_PER_LIST_MAX]
        is_last = start + FACTS_PER_LIST_MAX >= len(entries)
        end = high if is_last else part[-1][0]
        yield FactRange(node_id, life, low, end, tuple(part))
        low = end + 1
