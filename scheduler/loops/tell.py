"""What of a round is worth telling people? Events with their reasons, before they have numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import assert_never

from dray.model import EventKind, EventLevel, NodeCondition, SlotKey
from dray.names import NodeId, slot_name
from scheduler.api.events import EventDraft
from scheduler.loops.plan import RoundPlan
from scheduler.loops.steps import Add, Step
from scheduler.nodes.observations import ConditionChange
from scheduler.placement import Unplaced
from scheduler.reconcile import CreateTask, ForgetTask, MoveTask, StopTask
from scheduler.store.snapshot import Snapshot

__all__ = ["condition_events", "leader_event", "pending_of", "round_events"]

_BAD: Mapping[NodeCondition, EventLevel] = {
    NodeCondition.READY: EventLevel.INFO,
    NodeCondition.UNKNOWN: EventLevel.INFO,
    NodeCondition.DOWN: EventLevel.ERROR,
}


def leader_event(scheduler: str, epoch: str) -> EventDraft:
    """Return that a scheduler leads from now on."""
    message = f"scheduler {scheduler} leads"
    fields = (("epoch", epoch),)
    return EventDraft(
        EventKind.LEADER, EventLevel.INFO, f"scheduler {scheduler}", message, "elected", fields
    )


def condition_events(
    snapshot: Snapshot, changes: Iterable[ConditionChange]
) -> Iterator[EventDraft]:
    """Yield what became of nodes. That a node is unknown while a term begins is no news."""
    for change in changes:
        record = snapshot.nodes.get(change.node_id)
        if record is None or NodeCondition.UNKNOWN in (change.before, change.after):
            continue
        after = change.after.name.lower().replace("_", " ")
        yield EventDraft(
            EventKind.NODE,
            _BAD.get(change.after, EventLevel.WARNING),
            f"node {record.name}",
            f"node {record.name} is {after}",
            f"node {after}",
            (("before", change.before.name.lower()),),
        )


def round_events(round_plan: RoundPlan, done: Iterable[Step]) -> Iterator[EventDraft]:
    """Yield what was done, step by step."""
    snapshot = round_plan.snapshot
    for step in done:
        added = next((edit.node_id for edit in step.edits if isinstance(edit, Add)), None)
        action = step.action
        subject = _subject(action.slot)
        match action:
            case CreateTask():
                assert added is not None
                message = f"{subject} starts on {_name(snapshot, added)}"
            case MoveTask():
                old = _name(snapshot, action.old_node_id)
                to = "" if added is None else f" to {_name(snapshot, added)}"
                message = f"{subject} moves from {old}{to}" if to else f"{subject} ends on {old}"
            case StopTask():
                message = f"{subject} ends on {_name(snapshot, action.node_id)}"
            case ForgetTask():
                continue
            case _:
                assert_never(action)
        reason = action.reason.value
        fields = (("task_id", action.task_id),)
        yield EventDraft(
            EventKind.TASK, EventLevel.INFO, subject, f"{message}: {reason}", reason, fields
        )


def pending_of(
    round_plan: RoundPlan, told: Mapping[SlotKey, str]
) -> tuple[dict[SlotKey, str], list[EventDraft]]:
    """Return why slots have no node, and what of that was not told before.

    Args:
        round_plan: The round.
        told: What was told of each pending slot.
    """
    pending: dict[SlotKey, str] = {}
    drafts: list[EventDraft] = []
    for unplaced in round_plan.placement.unplaced:
        why = _why(unplaced)
        fresh = [slot for slot in unplaced.slots if told.get(slot) != why]
        pending.update(dict.fromkeys(unplaced.slots, why))
        if fresh:
            first = fresh[0]
            more = f" and {len(fresh) - 1} more" if len(fresh) > 1 else ""
            message = f"{_subject(first)}{more}: no node will do: {why}"
            drafts.append(
                EventDraft(EventKind.TASK, EventLevel.WARNING, _subject(first), message, "no room")
            )
    return pending, drafts


def _why(unplaced: Unplaced) -> str:
    if unplaced.advice:
        return unplaced.advice
    if not unplaced.refusals:
        return "there are no nodes"
    return ", ".join(f"{each.nodes} × {each.reason.value}" for each in unplaced.refusals)


def _subject(slot: SlotKey) -> str:
    return f"{slot.project}/{slot_name(slot.service, slot.slot)}"


def _name(snapshot: Snapshot, node_id: NodeId) -> str:
    record = snapshot.nodes.get(node_id)
    return record.name if record is not None else node_id
