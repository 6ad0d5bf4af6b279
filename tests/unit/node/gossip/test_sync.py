"""Do two stores that exchange the steps of a sync end up equal, wherever they differ?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dray.model import FACTS_BYTES_MAX, Member, MemberState
from dray.names import NodeId, id_text
from node.gossip.core import DATAGRAM_BYTES_MAX, Address
from node.gossip.datagrams import decode, decode_streamed, encode
from node.gossip.facts import FactStore
from node.gossip.members import Rumour, after_rumour, precedence
from node.gossip.messages import (
    BUCKETS,
    Datagram,
    FactPiece,
    Gossip,
    Message,
    Sender,
    SyncBuckets,
    SyncFacts,
    SyncMembers,
)
from node.gossip.pieces import Pieces
from node.gossip.spread import fill
from node.gossip.sync import (
    CHUNK_BYTES,
    Reply,
    answer_buckets,
    answer_facts,
    answer_members,
    answer_pull,
    pull_entries,
)
from node.gossip.wire import Malformed
from tests.contract.facts.builders import fact, member, node_id

LONGEST = Sender(
    node_id("s"),
    2**63 - 1,
    2**32 - 1,
    "n" * 63,
    Address("fe80:1111:2222:3333:4444:5555:6666:7777", 1),
)
ROOM_BYTES = 1_020  # what the longest sender leaves


def in_one_bucket(number: int) -> NodeId:
    """Return one of many ids that all belong to one bucket."""
    return NodeId(id_text(b"\x00" + number.to_bytes(15, "big")))


class Side:
    """One store, and what a core does with what arrives."""

    def __init__(self) -> None:
        self.store = FactStore()
        self.pieces = Pieces()

    def answer(self, message: Message) -> Reply:
        """Return the answer to a step."""
        if isinstance(message, SyncBuckets):
            return Reply(messages=list(answer_buckets(self.store, message, first=3)))
        if isinstance(message, SyncMembers):
            return answer_members(self.store, message)
        assert isinstance(message, SyncFacts)
        return answer_facts(self.store, message)

    def take(self, item: Rumour | FactPiece) -> None:
        """Take an item over, as a core does."""
        if isinstance(item, FactPiece):
            whole = self.pieces.add(item)
            if whole is not None:
                self.store.merge(whole, 0.0)
            return
        known = self.store.member(item.node_id)
        if known is None and item.address is not None:
            host, port = item.address.host, item.address.port
            known = Member(
                item.node_id, item.name, host, port, item.life, item.incarnation, item.state
            )
            self.store.put_member(known)
        elif known is not None and precedence(item) > precedence(known):
            self.store.put_member(after_rumour(known, item, 0.0, is_direct=False))


def sync(one: Side, other: Side) -> int:
    """Run one whole sync that `one` begins, through the codec; return the number of datagrams."""
    sent = 0
    waiting: list[tuple[Side, Side, Message, list[bytes]]] = [
        (one, other, SyncBuckets(tuple(one.store.bucket_digests)), [])
    ]
    while waiting:
        source, target, message, items = waiting.pop(0)
        data = encode(bytes(8), LONGEST, 0, message, items)
        assert len(data) <= DATAGRAM_BYTES_MAX
        decoded = decode(data)
        assert isinstance(decoded, Datagram)
        sent += 1
        assert sent < 2_000, "it does not end"
        for item in decoded.items:
            target.take(item)
        if isinstance(message, SyncBuckets | SyncMembers | SyncFacts):
            reply = target.answer(decoded.message)
            for group in fill(reply.items, ROOM_BYTES):
                for item in decode_items(group):
                    source.take(item)
                sent += 1
            waiting += [(target, source, answer, []) for answer in reply.messages]
    return sent


def decode_items(group: list[bytes]) -> tuple[Rumour | FactPiece, ...]:
    """Return items as they arrive."""
    decoded = decode(encode(bytes(8), LONGEST, 0, Gossip(), group))
    assert isinstance(decoded, Datagram)
    return decoded.items


def nothing(_: Side) -> None:
    """Leave a side empty."""


def many_members(side: Side) -> None:
    """More members in one bucket than one list holds."""
    for number in range(100):
        node = in_one_bucket(number)
        side.store.put_member(Member(node, f"n{number}", "127.0.0.1", 1, 1, 0, MemberState.ALIVE))


def many_facts(side: Side) -> None:
    """More facts of one node than one list holds, and one of many pieces."""
    side.store.put_member(member("a"))
    for number in range(170):
        side.store.merge(fact("a", f"x{number}", b"v", version=number + 1), 0.0)
    side.store.merge(fact("a", "large", bytes(range(256)) * 32, version=999), 0.0)


def deletions(side: Side) -> None:
    """What `many_facts` has, mostly deleted since."""
    many_facts(side)
    for number in range(100):
        side.store.merge(fact("a", f"x{number}", None, version=1_000 + number), 0.0)


def later_lives(side: Side) -> None:
    """Restarted members, with new facts."""
    for name in "abc":
        side.store.put_member(member(name, life=3))
        side.store.merge(fact(name, "x", b"new", life=3), 0.0)


def earlier_lives(side: Side) -> None:
    """The same members before."""
    for name in "abc":
        side.store.put_member(member(name, life=2, incarnation=7))
        side.store.merge(fact(name, "x", b"old", life=2, version=9), 0.0)


def the_dead(side: Side) -> None:
    """Members that died."""
    for name in "abc":
        side.store.put_member(member(name, MemberState.DEAD))


def the_living(side: Side) -> None:
    """The same members, held to be alive."""
    for name in "abc":
        side.store.put_member(member(name))
        side.store.merge(fact(name, "x", b"v"), 0.0)


PAIRS: list[tuple[Callable[[Side], None], Callable[[Side], None]]] = [
    (nothing, nothing),
    (nothing, many_members),
    (nothing, many_facts),
    (many_members, many_facts),
    (many_facts, deletions),
    (earlier_lives, later_lives),
    (later_lives, many_members),
]


@pytest.mark.parametrize("is_swapped", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"), PAIRS, ids=lambda fill_side: fill_side.__name__.replace("_", "-")
)
def test_one_sync_makes_equal(
    ours: Callable[[Side], None], theirs: Callable[[Side], None], is_swapped: bool
) -> None:
    """Without loss one or two syncs suffice, whoever begins and whoever lacks what."""
    one, other = Side(), Side()
    ours(other if is_swapped else one)
    theirs(one if is_swapped else other)
    for _ in range(2):
        sync(one, other)
    assert one.store.bucket_digests == other.store.bucket_digests
    assert sync(one, other) == 1, "equal sides have nothing to say"


def test_a_sync_of_equals_sends_nothing() -> None:
    """Equal buckets are not listed, and a list of what we have, too, has no answer."""
    one, other = Side(), Side()
    for side in (one, other):
        many_members(side)
        many_facts(side)
    assert sync(one, other) == 1
    lists = answer_buckets(one.store, SyncBuckets((0,) * BUCKETS), first=0)
    for message in lists:
        reply = other.answer(message)
        assert (reply.items, reply.messages) == ([], [])


@pytest.mark.parametrize("are_ours_dead", [True, False])
def test_the_dead_of_one_side_are_doubted(are_ours_dead: bool) -> None:
    """Who is dead here and alive there is told there without an accuser, and asked itself."""
    here, there = Side(), Side()
    the_dead(here if are_ours_dead else there)
    the_living(there if are_ours_dead else here)
    lists = list(answer_buckets(there.store, SyncBuckets((0,) * BUCKETS), first=0))
    if not are_ours_dead:
        assert lists == []
        lists = list(answer_buckets(here.store, SyncBuckets((0,) * BUCKETS), first=0))
        here, there = there, here
    reply = [here.answer(message) for message in lists]
    told = decode_items([item for one in reply for item in one.items])
    assert sorted(told, key=repr) == sorted(
        (Rumour(node_id(name), 1, 0, MemberState.DEAD) for name in "abc"), key=repr
    )
    assert sorted(n for one in reply for n in one.doubted) == sorted(node_id(n) for n in "abc")


def test_a_pull_brings_everything_in_chunks() -> None:
    """Chunk by chunk a side that has nothing, or something else, gets all that the other has."""
    for begin in (nothing, deletions, earlier_lives):
        one, other = Side(), Side()
        begin(one)
        for fill_side in (many_facts, many_members, later_lives):
            fill_side(other)
        for number in range(40):
            other.store.put_member(member(f"m{number}"))
            other.store.merge(fact(f"m{number}", "x", bytes(15_000)), 0.0)
        after, chunks = None, 0
        while chunks == 0 or after is not None:
            answer, items = answer_pull(other.store, pull_entries(one.store, after))
            assert sum(map(len, items)) <= CHUNK_BYTES + 2 * FACTS_BYTES_MAX
            data = encode(bytes(8), LONGEST, 0, answer, items)
            decoded = decode_streamed(data)
            assert isinstance(decoded, Datagram)
            assert decode(data) == Malformed(
                f"{len(data)} bytes where {DATAGRAM_BYTES_MAX} are the most"
            )
            for item in decoded.items:
                one.take(item)
            after, chunks = answer.until, chunks + 1
        assert chunks > 2
        for name in ("a", "m0", "m39"):
            assert one.store.facts_of(node_id(name)) == other.store.facts_of(node_id(name))
        if begin is nothing:
            assert one.store.digest == other.store.digest
