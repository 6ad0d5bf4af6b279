"""Is the ring of events bounded and in order, and does it tell what people changed?"""

from __future__ import annotations

from dataclasses import replace

from dray.model import Availability, Event, EventKind, EventLevel
from scheduler.api.events import (
    EVENT_DRAFTS_MAX,
    EVENTS_PER_SLOT,
    EventDraft,
    appended,
    desired_events,
    newest_first,
)
from scheduler.store.base import Item
from scheduler.store.codec import decode_as
from scheduler.store.keys import parse_key
from scheduler.store.records import EventBatch
from scheduler.store.snapshot import Snapshot
from tests.builders import a_node, a_record, a_service, a_snapshot, node_id

Ring = dict[int, tuple[Event, ...]]
LIMIT = 100


def add(ring: Ring, count: int, *, now: float = 5.0) -> int:
    """Add so many events; return how many keys were written."""
    drafts = [EventDraft(EventKind.TASK, EventLevel.INFO, "a", f"{n}") for n in range(count)]
    puts = appended(ring, drafts, now_unix_s=now, events_max=LIMIT)
    for put in puts:
        key = parse_key(put.key)
        assert key is not None
        item = Item(put.key, put.value, 1, 1)  # type: ignore[arg-type]
        ring[int(key.parts[0])] = decode_as(item, EventBatch).events
    return len(puts)


def test_events_are_numbered_and_the_oldest_make_room() -> None:
    """Sequences grow by one, never more than the limit is kept, and the newest stay."""
    ring: Ring = {}
    for count in (1, 3, 30, 1, 90, 7):
        add(ring, count)
        sequences = [event.sequence for event in newest_first(ring)]
        assert len(sequences) <= LIMIT
        assert sequences == list(range(sequences[0], sequences[0] - len(sequences), -1))
    assert newest_first(ring)[0].sequence == 132
    assert len(newest_first(ring)) > LIMIT - EVENTS_PER_SLOT


def test_a_few_events_are_one_write() -> None:
    """A round writes as many keys as it fills slots."""
    ring: Ring = {}
    assert add(ring, 1) == 1
    assert add(ring, EVENTS_PER_SLOT - 1) == 1
    assert add(ring, EVENTS_PER_SLOT + 1) == 2
    assert add(ring, 0) == 0


def test_a_flood_is_cut_and_counted() -> None:
    """Of more events than a round may tell, the rest is one sentence."""
    drafts = [EventDraft(EventKind.TASK, EventLevel.INFO, "a", "b")] * (EVENT_DRAFTS_MAX + 5)
    puts = appended({}, drafts, now_unix_s=1.0, events_max=10_000)
    item = Item(puts[-1].key, puts[-1].value, 1, 1)  # type: ignore[arg-type]
    last = decode_as(item, EventBatch).events[-1]
    assert last.sequence == EVENT_DRAFTS_MAX
    assert last.message.startswith("6 more")


def reasons(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the reasons of what was asked between two snapshots."""
    return [draft.reason for draft in desired_events(before, after)]


def test_what_people_ask_becomes_events() -> None:
    """A new, changed, scaled, reverted and removed service, and what befalls a node, are told."""
    empty = a_snapshot()
    one = a_snapshot([a_record(a_service(replicas=1))], nodes=[a_node(1)])
    assert reasons(empty, one) == ["service created", "node joined"]
    assert reasons(one, one) == []
    scaled = a_snapshot([a_record(a_service(replicas=3), revision=2)])
    assert reasons(replace(one, nodes={}), scaled) == ["service scaled"]
    image = a_snapshot([a_record(a_service(image="web:2"), revision=3)])
    assert reasons(scaled, image) == ["service changed"]
    back = a_snapshot([replace(a_record(revision=4), reverted_from=1)])
    assert reasons(image, back) == ["service reverted"]
    assert reasons(back, empty) == ["service removed"]
    drained = replace(one, nodes={node_id(1): a_node(1, availability=Availability.DRAIN)})
    assert reasons(one, drained) == ["node drain"]
