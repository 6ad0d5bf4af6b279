"""What must be done now? `reconcile` compares what was asked with what is assigned and reported.

Guarantees, whatever the input:

- Pure: the same arguments give the same plan; new ids come from `ids`, time from `now_unix_s`.
- Unknown is not dead: nothing is created, moved or forgotten because a node or task is unknown.
- Level-triggered: the plan depends on state alone, never on what happened before. A partly
  committed plan is ordinary input.
- Idempotent: once a plan was carried out, the next one is empty until something is asked or
  reported. Once the ends of what it stopped were reported, they are forgotten; then it stays empty.
- One task a slot: of several the newest revision on a node that is not down is kept, then the
  higher (epoch, task id). With STOP_FIRST a slot's next task waits for the reported end of the last
  one; with START_FIRST the last one is kept until the next one runs.

This is the smallest useful version: replicated services, scaling, removal, new revisions all at
once, and nodes that are down. Services that ask for more (other modes, singletons, volumes that
pin, automatic scaling) are left alone with a note rather than run as if they had not asked.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from dray.model import (
    TERMINAL_ATTEMPT_STATES,
    AttemptState,
    Availability,
    Health,
    MountKind,
    NodeCondition,
    ServiceKey,
    ServiceModeKind,
    ServiceRecord,
    ServiceSpec,
    SlotKey,
    TaskAssignment,
    UpdateOrder,
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

_PINNING_MOUNTS = frozenset({MountKind.VOLUME, MountKind.BIND, MountKind.CLUSTER})


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
        Stops and removals before creations and moves; within each, by slot. `notes` name what this
        version leaves alone.
    """
    del now_unix_s  # nothing depends on time until delays and back-off do
    held = _held_by_slot(snapshot)
    left_alone: set[ServiceKey] = set()
    endings: list[Action] = []
    beginnings: list[Action] = []
    notes = _drain_notes(snapshot)
    for service_key in sorted(snapshot.services):
        record = snapshot.services[service_key]
        if asked := _not_yet(record.spec):
            left_alone.add(service_key)
            notes.append(_left_alone(service_key, asked))
            continue
        for number in range(1, record.spec.mode.replicas + 1):
            slot = SlotKey(service_key.project, service_key.service, number)
            ends, begins = _plan_slot(slot, record, held.pop(slot, []), observed, ids)
            endings += ends
            beginnings += begins
    for slot, items in held.items():
        if slot.service_key in left_alone:
            continue
        is_asked = slot.service_key in snapshot.services
        reason = ActionReason.SCALED_DOWN if is_asked else ActionReason.SERVICE_REMOVED
        endings += _end_all(items, observed, reason)
    endings.sort(key=lambda action: action.slot)
    return Plan(snapshot.revision, (*endings, *beginnings), notes=tuple(notes))


def _held_by_slot(snapshot: Snapshot) -> dict[SlotKey, list[_Held]]:
    """Return the tasks of every slot, highest (epoch, task id) first."""
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
    leaving = [item for item in items if item.task.stop or _is_spent(item, record, observed)]
    live = [item for item in items if item not in leaving]
    ends = _end_all(leaving, observed, ActionReason.ENDED)
    if not live:
        return ends, _create(slot, record, leaving, observed, ids)
    live.sort(key=lambda item: _worth(item, record, observed), reverse=True)  # stable
    keep, *others = live
    standby = _standby(keep, others, record, observed)
    for item in others:
        if item is not standby:
            reason = _reason_to_move(item, record, observed) or ActionReason.DUPLICATE
            ends += _end_all([item], observed, reason)
    return ends, _move(keep, record, observed, ids)


def _is_spent(item: _Held, record: ServiceRecord, observed: Observed) -> bool:
    """Return whether a task of an older revision ended by itself: there is nothing to replace."""
    is_old = item.task.service_revision != record.revision
    return is_old and _has_ended(item, observed) and not _is_down(item, observed)


def _worth(item: _Held, record: ServiceRecord, observed: Observed) -> tuple[bool, bool, bool, bool]:
    """Return what is compared before (epoch, task id).

    A task that need not be replaced wins; ids within an epoch do not tell which of two is the newer
    one, revisions do. Of several that need not, one that has not ended wins; of several that must
    be, one that serves.
    """
    is_current = item.task.service_revision == record.revision
    serves = not is_current and _serves(item, observed)
    return (not _is_down(item, observed), is_current, not _has_ended(item, observed), serves)


def _standby(
    keep: _Held, others: list[_Held], record: ServiceRecord, observed: Observed
) -> _Held | None:
    """Return the older task that serves until the one to keep runs, or None."""
    is_start_first = record.spec.update.order is UpdateOrder.START_FIRST
    is_outdated = _reason_to_move(keep, record, observed) is not None  # then itself stands by
    if not is_start_first or is_outdated or _serves(keep, observed):
        return None
    candidates = [item for item in others if not _is_down(item, observed)]
    return max(candidates, key=lambda item: _serves(item, observed), default=None)


def _create(
    slot: SlotKey,
    record: ServiceRecord,
    leaving: list[_Held],
    observed: Observed,
    ids: IdFactory,
) -> list[Action]:
    """Return the task that a slot without a live one gets, once its order of update allows it."""
    waits = record.spec.update.order is UpdateOrder.STOP_FIRST
    if waits and not all(_has_ended(item, observed) for item in leaving):
        return []
    reason = ActionReason.NEW_SLOT
    if leaving:
        reason = _reason_to_move(leaving[0], record, observed) or ActionReason.ENDED
    return [CreateTask(slot, TaskId(ids.new()), record.revision, reason)]


def _move(keep: _Held, record: ServiceRecord, observed: Observed, ids: IdFactory) -> list[Action]:
    """Return the replacement of a slot's one live task, if there is a reason for it."""
    reason = _reason_to_move(keep, record, observed)
    if reason is None:
        return []
    task = keep.task
    new_id = TaskId(ids.new())
    order = record.spec.update.order
    return [MoveTask(task.slot, task.task_id, keep.node_id, new_id, record.revision, reason, order)]


def _reason_to_move(item: _Held, record: ServiceRecord, observed: Observed) -> ActionReason | None:
    """Return why the task must be replaced, or None. An unknown node is no reason."""
    if _is_down(item, observed):
        return ActionReason.NODE_DOWN
    if item.task.service_revision != record.revision:
        return ActionReason.NEW_REVISION
    return None


def _end_all(items: list[_Held], observed: Observed, reason: ActionReason) -> list[Action]:
    """Return what brings tasks nearer to their end.

    Forget what has ended or is on a node that is down (it stops what it finds unassigned when it
    returns), tell the others to stop once, then wait.
    """
    ends: list[Action] = []
    for item in items:
        task = item.task
        if _has_ended(item, observed):
            ends.append(ForgetTask(task.slot, task.task_id, item.node_id, reason))
        elif not task.stop:
            ends.append(StopTask(task.slot, task.task_id, item.node_id, reason))
    return ends


def _is_down(item: _Held, observed: Observed) -> bool:
    node = observed.nodes.get(item.node_id)
    return node is not None and node.condition is NodeCondition.DOWN


def _has_ended(item: _Held, observed: Observed) -> bool:
    """Return whether nothing of the task runs or will, as far as anybody can say.

    False when that is unknown, and while its node is about to restart it.
    """
    if _is_down(item, observed):
        return True
    attempt = observed.attempts.get(item.task.task_id)
    if attempt is None or attempt.next_attempt_unix_s > 0:
        return False
    return attempt.state in TERMINAL_ATTEMPT_STATES


def _serves(item: _Held, observed: Observed) -> bool:
    """Return whether the task was reported to run and be healthy; False when that is unknown."""
    attempt = observed.attempts.get(item.task.task_id)
    if attempt is None or _is_down(item, observed):
        return False
    is_well = attempt.health in (Health.NONE, Health.HEALTHY)
    return attempt.state is AttemptState.RUNNING and is_well


def _not_yet(spec: ServiceSpec) -> str:
    """Return what the service asks for and this version cannot plan, in words, or ""."""
    if spec.mode.kind is not ServiceModeKind.REPLICATED:
        return f"{spec.mode.kind.name.lower().replace('_', ' ')} services"
    if spec.dray.singleton:
        return "singletons"
    if spec.dray.autoscale is not None:
        return "automatic scaling"
    mounts = spec.task.container.mounts
    if any(mount.kind in _PINNING_MOUNTS and mount.source for mount in mounts):
        return "volumes and bind mounts"
    return ""


def _left_alone(service_key: ServiceKey, asked: str) -> Note:
    return Note(
        f"{service_key.project}/{service_key.service}",
        f"cannot plan {asked} yet; its tasks are left alone",
    )


def _drain_notes(snapshot: Snapshot) -> list[Note]:
    """Return a note for each node that is to be drained and still has tasks."""
    return [
        Note(f"node {snapshot.nodes[node_id].name}", "cannot plan drains yet; its tasks stay")
        for node_id in sorted(snapshot.nodes)
        if snapshot.nodes[node_id].availability is Availability.DRAIN
        and node_id in snapshot.assignments
        and snapshot.assignments[node_id].tasks
    ]
