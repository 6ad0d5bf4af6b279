"""What happened, and where is it kept? The ring of events, and those that a change of desire makes.

Events are kept in a ring of slots in the store, `EVENTS_PER_SLOT` in each, so that a round that has
a few to tell writes one key, and their number stays below the cluster's `events_max`. Only the
leader writes them, in fenced transactions: what users wrote it learns as everybody does, by
comparing two snapshots (`desired_events`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from dray.model import Availability, Event, EventKind, EventLevel, StringMap
from scheduler.store.base import Put
from scheduler.store.codec import encode
from scheduler.store.keys import event_key
from scheduler.store.records import EventBatch
from scheduler.store.snapshot import Snapshot

__all__ = [
    "EVENTS_PER_SLOT",
    "EVENT_DRAFTS_MAX",
    "EventDraft",
    "appended",
    "desired_events",
    "newest_first",
]

EVENTS_PER_SLOT: Final = 20  # a slot is written whole, about 5 kB, whenever one is added to it
EVENT_DRAFTS_MAX: Final = 1_000  # of one round; the rest is counted, not told one by one
_TEXT_LENGTH_MAX: Final = 1_000  # characters of a message


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event that has no number and time yet; the fields are those of `Event`."""

    kind: EventKind
    level: EventLevel
    subject: str
    message: str
    reason: str = ""
    fields: StringMap = ()


def appended(
    events: Mapping[int, tuple[Event, ...]],
    drafts: Sequence[EventDraft],
    *,
    now_unix_s: float,
    events_max: int,
) -> tuple[Put, ...]:
    """Return the writes that add events to the ring; the oldest ones make room.

    Args:
        events: The ring, by slot, as `Snapshot.events`.
        drafts: What to add, in order; beyond `EVENT_DRAFTS_MAX` they are only counted.
        now_unix_s: Their time.
        events_max: Events that are kept (`ClusterLimits.events_max`), >= 1.
    """
    slots = max(2, events_max // EVENTS_PER_SLOT)
    first = 1 + max((each.sequence for batch in events.values() for each in batch), default=0)
    added = [
        _event(first + offset, draft, now_unix_s) for offset, draft in enumerate(_bounded(drafts))
    ]
    puts = []
    for position, group in groupby(added, key=lambda event: _position(event.sequence)):
        slot = position % slots
        kept = [each for each in events.get(slot, ()) if _position(each.sequence) == position]
        puts.append(Put(event_key(slot), encode(EventBatch((*kept, *group)))))
    return tuple(puts)


def newest_first(events: Mapping[int, tuple[Event, ...]]) -> list[Event]:
    """Return all events of the ring."""
    found = [event for batch in events.values() for event in batch]
    return sorted(found, key=lambda event: event.sequence, reverse=True)


def desired_events(before: Snapshot, after: Snapshot) -> Iterator[EventDraft]:
    """Yield what was asked between two snapshots: projects, services and nodes that changed."""
    yield from _project_events(before, after)
    yield from _service_events(before, after)
    yield from _node_events(before, after)


def _project_events(before: Snapshot, after: Snapshot) -> Iterator[EventDraft]:
    for name in sorted({*before.projects, *after.projects}):
        old, new = before.projects.get(name), after.projects.get(name)
        if old is new:
            continue
        if new is None:
            yield _told(EventKind.PROJECT, name, f"project {name} is gone", "project gone")
        elif old is None:
            yield _told(EventKind.PROJECT, name, f"project {name} was created", "project created")
        elif new.is_removing and not old.is_removing:
            text = f"project {name} is being removed"
            yield _told(EventKind.PROJECT, name, text, "project removing")


def _service_events(before: Snapshot, after: Snapshot) -> Iterator[EventDraft]:
    for key in sorted({*before.services, *after.services}):
        old, new = before.services.get(key), after.services.get(key)
        if old is new or (old and new and old.revision == new.revision):
            continue
        subject = f"{key.project}/{key.service}"
        if new is None:
            text = f"service {subject} was removed"
            yield _told(EventKind.SERVICE, subject, text, "service removed")
        elif old is None:
            text = f"service {subject} was created: revision {new.revision}"
            yield _told(EventKind.SERVICE, subject, text, "service created")
        elif new.reverted_from:
            text = f"service {subject} was reverted to revision {new.reverted_from}"
            yield _told(EventKind.SERVICE, subject, text, "service reverted")
        elif old.spec.mode.replicas != new.spec.mode.replicas and old.spec.task == new.spec.task:
            counts = f"from {old.spec.mode.replicas} to {new.spec.mode.replicas} replicas"
            text = f"service {subject} was scaled {counts}"
            yield _told(EventKind.SERVICE, subject, text, "service scaled")
        else:
            text = f"service {subject} was changed: revision {new.revision}"
            yield _told(EventKind.SERVICE, subject, text, "service changed")


def _node_events(before: Snapshot, after: Snapshot) -> Iterator[EventDraft]:
    for node_id in sorted({*before.nodes, *after.nodes}):
        old, new = before.nodes.get(node_id), after.nodes.get(node_id)
        if old is new:
            continue
        known = new or old
        assert known is not None
        subject = f"node {known.name}"
        if new is None:
            yield _told(EventKind.NODE, subject, f"{subject} was removed for good", "node removed")
        elif old is None:
            yield _told(EventKind.NODE, subject, f"{subject} joined the cluster", "node joined")
        elif old.availability is not new.availability:
            word = {
                Availability.ACTIVE: "was activated",
                Availability.PAUSE: "was paused: it gets nothing new",
                Availability.DRAIN: "is being drained: its tasks move away",
            }[new.availability]
            reason = f"node {new.availability.name.lower()}"
            yield _told(EventKind.NODE, subject, f"{subject} {word}", reason)


def _told(kind: EventKind, subject: str, message: str, reason: str) -> EventDraft:
    return EventDraft(kind, EventLevel.INFO, subject, message, reason)


def _position(sequence: int) -> int:
    return (sequence - 1) // EVENTS_PER_SLOT


def _event(sequence: int, draft: EventDraft, now_unix_s: float) -> Event:
    return Event(
        sequence,
        now_unix_s,
        draft.kind,
        draft.level,
        draft.subject,
        draft.message[:_TEXT_LENGTH_MAX],
        draft.reason,
        draft.fields,
    )


def _bounded(drafts: Sequence[EventDraft]) -> Sequence[EventDraft]:
    if len(drafts) <= EVENT_DRAFTS_MAX:
        return drafts
    more = len(drafts) - EVENT_DRAFTS_MAX + 1
    note = EventDraft(
        EventKind.CLUSTER,
        EventLevel.WARNING,
        "cluster",
        f"{more} more events of the same round are not kept",
        "events left out",
    )
    return [*drafts[: EVENT_DRAFTS_MAX - 1], note]
