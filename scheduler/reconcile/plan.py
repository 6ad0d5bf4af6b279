"""What must be done now?

`reconcile` compares what was asked with what is assigned and reported, and returns a plan.

Guarantees, whatever the input:

- Pure: the same arguments give the same plan; new ids come from `ids`, time from `now_unix_s`.
- Unknown is not dead: nothing is created, moved or ended because a node or task is unknown.
- Level-triggered: the plan depends on state alone, never on what happened before. A partly
  committed plan is ordinary input.
- Idempotent: once a plan was carried out and reported, the next plan is empty.

This is the smallest useful version: replicated services, scaling, removal, new revisions all at
once, and nodes that are down.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from dray.model import (
    TERMINAL_ATTEMPT_STATES,
    NodeCondition,
    ServiceKey,
    ServiceModeKind,
    ServiceRecord,
    SlotKey,
    TaskAssignment,
)
from dray.names import IdFactory, NodeId, TaskId
from scheduler.reconcile.actions import (
    Action,
    ActionReason,
    CreateTask,
    ForgetTask,
    MoveTask,
    Note,
    Plan,
    StopTask,
)
from scheduler.reconcile.observed import Observed
from scheduler.store.snapshot import Snapshot

__all__ = ["reconcile"]


@dataclass(frozen=True, slots=True)
class _Held:
    """A task in some node's assignment."""

    node_id: NodeId
    task: TaskAssignment


def reconcile(snapshot: Snapshot, observed: Observed, now_unix_s: float, ids: IdFactory) -> Plan:
    """Return what must be done for the cluster to become what was asked.

    Args:
        snapshot: What is stored, at one revision.
        observed: What nodes reported; what is absent is unknown.
        now_unix_s: Wall clock, seconds.
        ids: Where ids of new tasks come from.

    Returns:
        Stops and removals before creations; within each, by slot. `notes` name what this version
        leaves alone.
    """
    del now_unix_s  # nothing depends on time until delays and back-off do
    held = _held_by_slot(snapshot)
    endings: list[Action] = []
    beginnings: list[Action] = []
    notes: list[Note] = []
    for service_key in sorted(snapshot.services):
        record = snapshot.services[service_key]
        if record.spec.mode.kind is not ServiceModeKind.REPLICATED:
            notes.append(_unsupported(service_key, record))
            continue
        for number in range(1, record.spec.mode.replicas + 1):
            slot = SlotKey(service_key.project, service_key.service, number)
            ends, begins = _plan_slot(slot, record, held.pop(slot, []), observed, ids)
            endings += ends
            beginnings += begins
    for slot in sorted(held):
        record_or_none = snapshot.services.get(slot.service_key)
        if record_or_none and record_or_none.spec.mode.kind is not ServiceModeKind.REPLICATED:
            continue
        reason = ActionReason.SCALED_DOWN if record_or_none else ActionReason.SERVICE_REMOVED
        endings += [end for item in held[slot] if (end := _end(item, observed, reason))]
    return Plan(snapshot.revision, (*endings, *beginnings), tuple(notes))


def _held_by_slot(snapshot: Snapshot) -> dict[SlotKey, list[_Held]]:
    """Return the tasks of every slot, newest (epoch, task id) first."""
    held: dict[SlotKey, list[_Held]] = defaultdict(list)
    for node_id in sorted(snapshot.assignments):
        for task in snapshot.assignments[node_id].tasks:
            held[task.slot].append(_Held(node_id, task))
    for items in held.values():
        items.sort(key=lambda item: (item.task.epoch, item.task.task_id), reverse=True)
    return held


def _plan_slot(
    slot: SlotKey,
    record: ServiceRecord,
    items: list[_Held],
    observed: Observed,
    ids: IdFactory,
) -> tuple[list[Action], list[Action]]:
    """Return what ends and what begins so that one slot has one task of the newest revision."""
    ends: list[Action] = []
    keep: _Held | None = None
    for item in items:
        if item.task.stop:
            ends += [end] if (end := _end(item, observed, ActionReason.ENDED)) else []
        elif keep is None:
            keep = item
        elif end := _end(item, observed, ActionReason.DUPLICATE):
            ends.append(end)
    if keep is None:
        task_id = TaskId(ids.new())
        return ends, [CreateTask(slot, task_id, record.revision, ActionReason.NEW_SLOT)]
    reason = _reason_to_move(keep, record, observed)
    if reason is None:
        return ends, []
    move = MoveTask(
        slot,
        keep.task.task_id,
        keep.node_id,
        TaskId(ids.new()),
        record.revision,
        reason,
        record.spec.update.order,
    )
    return ends, [move]


def _reason_to_move(item: _Held, record: ServiceRecord, observed: Observed) -> ActionReason | None:
    """Return why the task must be replaced, or None. An unknown node is no reason."""
    node = observed.nodes.get(item.node_id)
    if node is not None and node.condition is NodeCondition.DOWN:
        return ActionReason.NODE_DOWN
    if item.task.service_revision != record.revision:
        return ActionReason.NEW_REVISION
    return None


def _end(item: _Held, observed: Observed, reason: ActionReason) -> Action | None:
    """Return what brings a task nearer to its end.

    Forget it if it has ended, tell it to stop, or wait.
    """
    attempt = observed.attempts.get(item.task.task_id)
    node = observed.nodes.get(item.node_id)
    ended = attempt is not None and attempt.state in TERMINAL_ATTEMPT_STATES
    node_down = node is not None and node.condition is NodeCondition.DOWN
    if item.task.stop and (ended or node_down):
        return ForgetTask(item.task.slot, item.task.task_id, item.node_id, ActionReason.ENDED)
    if item.task.stop:
        return None
    return StopTask(item.task.slot, item.task.task_id, item.node_id, reason)


def _unsupported(service_key: ServiceKey, record: ServiceRecord) -> Note:
    kind = record.spec.mode.kind.name.lower().replace("_", " ")
    return Note(
        f"{service_key.project}/{service_key.service}",
        f"{kind} services are not planned yet; its tasks are left alone",
    )
