"""Do the core's parts keep their rules and limits: news, pieces, order of probes, roster, maps?"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest

from dray.errors import InvalidRequest
from dray.model import (
    MEMBERS_MAX,
    FactKey,
    FactVersion,
    MemberState,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
)
from dray.names import NodeId
from node.gossip.core import Address, TimerFired, TimerKey
from node.gossip.facts import TOMBSTONES_MAX, FactStore, Merge, bucket_of
from node.gossip.members import (
    SPREAD_STATES,
    ProbeOrder,
    Rumour,
    after_rumour,
    precedence,
    sample,
)
from node.gossip.messages import BUCKETS, FactPiece
from node.gossip.packing import pack_service
from node.gossip.parameters import Parameters, suspicion_timeout_s
from node.gossip.pieces import ASSEMBLIES_MAX, Pieces
from node.gossip.roster import MEMBERS_KNOWN_MAX, Roster
from node.gossip.shards import ShardMap
from node.gossip.spread import ITEMS_MAX, SpreadQueue, fill, sends_max
from node.gossip.timers import Timers
from node.gossip.wire import Malformed
from tests.contract.facts.builders import endpoint, fact, member, node_id


@pytest.mark.parametrize(("members", "sends"), [(1, 4), (9, 4), (10, 8), (99, 8), (100, 12)])
def test_sends_grow_with_the_logarithm(members: int, sends: int) -> None:
    """News is sent 4 · ⌈log10(n + 1)⌉ times."""
    assert sends_max(members, 4) == sends


def test_news_is_sent_a_bounded_number_of_times() -> None:
    """Every item is taken as often as it may be, those taken least first, and is then gone."""
    queue = SpreadQueue()
    for name in "abc":
        queue.put(name, name.encode())
    taken = [queue.take(2, times_max=2) for _ in range(4)]
    assert sorted(itertools.chain(*taken)) == [b"a", b"a", b"b", b"b", b"c", b"c"]
    assert taken[0] == [b"c", b"b"]
    assert b"a" in taken[1]
    assert len(queue) == 0


def test_newer_news_replaces_older() -> None:
    """Of one subject only the newest item is spread, from the start."""
    queue = SpreadQueue()
    queue.put("a", b"old")
    queue.take(10, times_max=9)
    queue.put("a", b"new")
    assert [queue.take(10, times_max=2) for _ in range(3)] == [[b"new"], [b"new"], []]


def test_news_has_a_limit() -> None:
    """Beyond the limit the item that was sent most makes room."""
    queue = SpreadQueue()
    queue.put("first", b"x")
    queue.take(1, times_max=9)
    for number in range(ITEMS_MAX):
        queue.put(number, b"y")
    assert len(queue) == ITEMS_MAX
    assert b"x" not in queue.take(10_000, times_max=9)


def test_a_large_item_does_not_block_small_ones() -> None:
    """What does not fit is passed over, and waits for more room."""
    queue = SpreadQueue()
    queue.put("small", b"s")
    queue.put("large", b"l" * 100)
    assert queue.take(10, times_max=1) == [b"s"]
    assert queue.take(100, times_max=1) == [b"l" * 100]


def test_fill_keeps_order_and_room() -> None:
    """Groups are filled in order, none above its room, nothing is lost."""
    items = [bytes(size) for size in (5, 5, 1, 10, 9, 2)]
    groups = list(fill(items, 10))
    assert list(itertools.chain(*groups)) == items
    assert [sum(map(len, group)) for group in groups] == [10, 1, 10, 9, 2]
    assert list(fill([], 10)) == []


def piece(name: str, index: int, count: int, version: int = 1) -> FactPiece:
    """Return a piece of a fact of node a."""
    key = FactKey(node_id("a"), name)
    return FactPiece(key, FactVersion(1, version), index, count, bytes([index]))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_pieces_come_together_in_any_order(order: tuple[int, ...]) -> None:
    """The last piece to arrive, whichever it is, completes the fact; twice does no harm."""
    pieces = Pieces()
    for index in order[:2]:
        assert pieces.add(piece("x", index, 3)) is None
        assert pieces.add(piece("x", index, 3)) is None
    whole = pieces.add(piece("x", order[2], 3))
    assert whole is not None
    assert whole.value == b"\0\1\2"
    assert len(pieces) == 0


def test_pieces_of_versions_do_not_mix() -> None:
    """A newer version discards the older one's pieces, and late older ones are ignored."""
    pieces = Pieces()
    assert pieces.add(piece("x", 0, 2, version=1)) is None
    assert pieces.add(piece("x", 1, 2, version=2)) is None
    assert pieces.add(piece("x", 1, 2, version=1)) is None
    whole = pieces.add(piece("x", 0, 2, version=2))
    assert whole is not None
    assert whole.version == FactVersion(1, 2)


def test_pieces_have_a_limit() -> None:
    """Incomplete facts are bounded in number; the oldest is given up."""
    pieces = Pieces()
    for number in range(ASSEMBLIES_MAX + 5):
        pieces.add(piece(f"x{number}", 0, 2))
    assert len(pieces) == ASSEMBLIES_MAX
    assert pieces.add(piece("x0", 1, 2)) is None


def test_everybody_has_a_turn() -> None:
    """In every round each member is probed once; rounds differ in order."""
    order = ProbeOrder(random.Random(1), 100)
    names = [node_id(name) for name in "abcdefgh"]
    rounds = [[order.next(names, lambda _: True) for _ in names] for _ in range(4)]
    assert all(sorted(filter(None, turn)) == sorted(names) for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1


def test_who_appears_has_a_turn_in_this_round() -> None:
    """A member that appears in the midst of a round is probed in its rest, not after it."""
    for seed in range(20):
        roster = Roster(FactStore(), random.Random(seed))
        address = Address("127.0.0.1", 1)
        for name in "abcdefgh":
            rumour = Rumour(node_id(name), 1, 0, MemberState.ALIVE, name, address)
            roster.believe(rumour, 0.0, is_direct=True)
        turns = [roster.next_target() for _ in range(4)]
        rumour = Rumour(node_id("z"), 1, 0, MemberState.ALIVE, "z", address)
        roster.believe(rumour, 1.0, is_direct=True)
        turns += [roster.next_target() for _ in range(5)]
        assert sorted(m.name for m in turns if m is not None) == list("abcdefghz")


def test_nobody_wanted_is_nobody() -> None:
    """With nobody to probe the answer is None, not a loop."""
    order = ProbeOrder(random.Random(1), 100)
    assert order.next([], lambda _: True) is None
    assert order.next([node_id("a")], lambda _: False) is None


def test_samples_are_different_and_leave_one_out() -> None:
    """A sample has no duplicates, never the one left out, and everybody else can be in it."""
    names = [node_id(name) for name in "abcde"]
    rng = random.Random(1)
    seen: set[NodeId] = set()
    for _ in range(200):
        chosen = sample(rng, names, 3, but=names[0])
        assert len(set(chosen)) == 3
        seen.update(chosen)
    assert seen == set(names[1:])
    assert sample(rng, names[:1], 3, but=names[0]) == []


def roster_of(names: Iterable[str]) -> tuple[Roster, list[NodeId]]:
    """Return a roster in which these others are present, and their ids in the order of the ring."""
    roster = Roster(FactStore(), random.Random(1))
    for name in names:
        where = Address("10.0.0.1", 7946)
        alive = Rumour(node_id(name), 1, 0, MemberState.ALIVE, name, where)
        roster.believe(alive, 0.0, is_direct=False)
    return roster, sorted(map(node_id, names))


def test_news_goes_to_the_next_on_the_ring_and_to_one_at_random() -> None:
    """The next two are always told, the third is anybody else, nobody is told twice."""
    roster, ring = roster_of("abcdefgh")
    me = NodeId(ring[0][:-1])  # directly before the first one
    others: set[NodeId] = set()
    for _ in range(200):
        told = [member.node_id for member in roster.to_tell(me, 3)]
        assert told[:2] == ring[:2]
        assert len(set(told)) == 3
        others.add(told[2])
    assert others == set(ring[2:])


def test_news_passes_over_those_who_may_not_live() -> None:
    """A suspect has no place on the ring of news: who follows it is told instead."""
    roster, ring = roster_of("abcdefgh")
    suspect = Rumour(ring[1], 1, 0, MemberState.SUSPECT, accuser=ring[5])
    roster.believe(suspect, 1.0, is_direct=False)
    told = [member.node_id for member in roster.to_tell(ring[0], 3)]
    assert told[:2] == ring[2:4]


@pytest.mark.parametrize(("names", "count", "told"), [("", 3, 0), ("a", 3, 1), ("ab", 3, 2)])
def test_news_for_few(names: str, count: int, told: int) -> None:
    """Where fewer are present than may be told, all are; with no fanout nobody is."""
    roster, _ = roster_of(names)
    me = node_id("me")
    assert len(roster.to_tell(me, count)) == told
    assert roster.to_tell(me, 0) == []


def test_a_single_choice_is_random() -> None:
    """With a fanout of one nobody is left to the ring alone."""
    roster, ring = roster_of("abcdefgh")
    me = node_id("me")
    assert {roster.to_tell(me, 1)[0].node_id for _ in range(200)} == set(ring)


def test_precedence_is_a_total_order() -> None:
    """Life before incarnation before state; LEFT over DEAD over SUSPECT over ALIVE."""
    ordered = [
        Rumour(node_id("a"), life, incarnation, state)
        for life in (1, 2)
        for incarnation in (0, 1)
        for state in SPREAD_STATES
    ]
    assert sorted(ordered, key=precedence) == ordered
    assert len({precedence(rumour) for rumour in ordered}) == len(ordered)


def test_a_new_life_is_not_seen_yet() -> None:
    """What was seen of the old life says nothing of the new one; what was heard is kept apart."""
    rumour = Rumour(node_id("a"), 2, 0, MemberState.ALIVE, "a", Address("127.0.0.2", 9))
    known = member("a", MemberState.DEAD)
    after = after_rumour(known, rumour, 7.0, is_direct=True)
    assert after.state_since_s == 7.0
    assert (after.seen, after.last_contact_at_s, after.rtt_s) == (None, None, None)
    assert (after.address, after.gossip_port) == ("127.0.0.2", 9)
    assert after.heard_state is known.heard_state


def test_the_roster_has_limits() -> None:
    """Members beyond the limit are refused; who is gone longest makes room for who is there."""
    store = FactStore()
    roster = Roster(store, random.Random(1))

    def hear(number: int, state: MemberState) -> bool:
        address = Address("127.0.0.1", 1)
        rumour = Rumour(node_id(f"{number}"), 1, 0, state, f"{number}", address)
        return roster.believe(rumour, float(number), is_direct=False) is not None

    accepted = sum(hear(number, MemberState.ALIVE) for number in range(MEMBERS_MAX + 50))
    assert accepted == roster.present == MEMBERS_MAX - 1
    for number in range(300):
        assert hear(number, MemberState.DEAD)
    assert all(hear(2_000 + number, MemberState.ALIVE) for number in range(300))
    assert len(store) == MEMBERS_KNOWN_MAX
    assert store.member(node_id("0")) is None
    assert store.member(node_id("299")) is not None
    assert all(size <= size_max for size, size_max in roster.sizes().values())


def test_a_timer_counts_once_and_only_the_newest() -> None:
    """Of two armings of one key the later counts, once; a disarmed one never."""
    timers = Timers()
    key = TimerKey("x")
    first, second = timers.arm(key, 1.0), timers.arm(key, 2.0)
    assert timers.take(TimerFired(key, first.generation)) is None
    assert timers.take(TimerFired(key, second.generation)) == 2.0
    assert timers.take(TimerFired(key, second.generation)) is None
    third = timers.arm(key, 3.0)
    timers.disarm(key)
    assert timers.take(TimerFired(key, third.generation)) is None


def test_maps_share_and_do_not_change() -> None:
    """Setting and deleting give new maps; the old ones read as before."""
    empty: ShardMap[str, int] = ShardMap()
    full = empty
    for number in range(500):
        full = full.with_item(f"{number}", number)
    less = full.without("7").with_item("8", 80)
    assert (len(empty), len(full), len(less)) == (0, 500, 499)
    assert (full.get("7"), full.get("8"), less.get("7"), less.get("8")) == (7, 8, None, 80)
    assert sorted(full) == sorted(map(str, range(500)))
    assert less.without("7") is less


def test_facts_of_strangers_and_too_many_are_refused() -> None:
    """Facts of nodes that are no members, and more than a node may have, are not taken."""
    store = FactStore()
    assert store.merge(fact("a", "x", b"1"), 0.0) is Merge.REFUSED
    store.put_member(member("a"))
    outcomes = [
        store.merge(fact("a", f"x{n}", bytes(10_000), version=n + 1), 0.0) for n in range(10)
    ]
    assert outcomes == [Merge.TAKEN] * 6 + [Merge.REFUSED] * 4
    assert store.merge(fact("a", "", b"1", version=99), 0.0) is Merge.REFUSED


def test_tombstones_have_a_limit_and_an_age() -> None:
    """A node's deletions are remembered up to a number and an age; the oldest go first."""
    store = FactStore()
    store.put_member(member("a"))
    for number in range(TOMBSTONES_MAX + 10):
        store.merge(fact("a", f"x{number}", None, version=number + 1), float(number))
    assert store.tombstones == TOMBSTONES_MAX
    assert "x9" not in store.facts_of(node_id("a")).facts
    store.drop_tombstones(before_s=100.0)
    assert store.tombstones == TOMBSTONES_MAX - 90
    assert store.merge(fact("a", "x50", b"again", version=51), 200.0) is Merge.TAKEN


def test_buckets_are_all_used() -> None:
    """Members spread over all buckets, so that a sync looks at few of them."""
    used = {bucket_of(node_id(f"{number}")) for number in range(2_000)}
    assert used == set(range(BUCKETS))


@pytest.mark.parametrize(
    ("name", "value"),
    [("probe_period_s", 0.0), ("helpers", 9), ("suspicion_s", float("nan")), ("spread_factor", 0)],
)
def test_parameters_out_of_bounds_are_refused(name: str, value: float) -> None:
    """A number out of its bounds is refused, by name."""
    with pytest.raises(InvalidRequest, match=name):
        Parameters(**{name: value})  # type: ignore[arg-type]


def test_parameters_that_contradict_are_refused() -> None:
    """Limits of one time have an order, and more cannot agree than are asked."""
    with pytest.raises(InvalidRequest, match="probe_timeout_min_s"):
        Parameters(probe_timeout_min_s=0.6, probe_timeout_max_s=0.5)
    with pytest.raises(InvalidRequest, match="witnesses"):
        Parameters(confirmations=4, witnesses=3)


@pytest.mark.parametrize(
    ("confirmed", "needed", "timeout_s"),
    [(0, 3, 4.8), (1, 3, 3.0), (2, 3, 1.947), (3, 3, 1.2), (9, 3, 1.2), (0, 1, 4.8), (1, 1, 1.2)],
)
def test_a_suspicion_shrinks_as_witnesses_agree(
    confirmed: int, needed: int, timeout_s: float
) -> None:
    """From the longest to the shortest time, the first that agree counting most."""
    found_s = suspicion_timeout_s(Parameters(), confirmed, needed)
    assert found_s == pytest.approx(timeout_s, abs=0.001)


def test_a_suspicion_that_nobody_can_confirm() -> None:
    """Of two nodes one decides alone: it waits twice the shortest time."""
    assert suspicion_timeout_s(Parameters(), 0, 0) == 2.4


def test_packing_refuses_by_value() -> None:
    """More endpoints than a node can have, and ids that are none, are returned as errors."""
    service = ServiceKey("shop", "web")
    many = tuple(endpoint(slot, service) for slot in range(1, 510))
    assert isinstance(pack_service(ServiceFacts(ServiceRevision(1), endpoints=many)), Malformed)
    assert isinstance(pack_service(ServiceFacts(ServiceRevision(1), endpoints=many[:508])), bytes)
