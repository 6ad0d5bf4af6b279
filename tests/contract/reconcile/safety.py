"""Is a plan safe? What must hold of every plan, from whatever state it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dray.model import (
    TERMINAL_ATTEMPT_STATES,
    NodeCondition,
    ServiceModeKind,
    SlotKey,
    TaskAssignment,
    UpdateOrder,
)
from dray.names import NodeId, TaskId
from scheduler.reconcile import (
    ActionReason,
    CreateTask,
    ForgetTask,
    MoveTask,
    Observed,
    Plan,
    StopTask,
)
from scheduler.store.snapshot import Snapshot

__all__ = ["check_plan"]

REPLICATED = ServiceModeKind.REPLICATED
COUNTED = frozenset({REPLICATED, ServiceModeKind.REPLICATED_JOB})
Held = dict[tuple[NodeId, TaskId], TaskAssignment]


def check_plan(
    snapshot: Snapshot, observed: Observed, plan: Plan, ids_given: Sequence[str]
) -> None:
    """Assert every safety guarantee of `reconcile` on one plan.

    Args:
        snapshot: What it was made from.
        observed: What it was made from.
        plan: The plan.
        ids_given: What the id factory gave out while it was made.
    """
    held = {
        (node_id, task.task_id): task
        for node_id, assignment in snapshot.assignments.items()
        for task in assignment.tasks
    }
    assert plan.base_revision == snapshot.revision
    _check_order(plan)
    _check_ids(held, plan, ids_given)
    _check_endings(snapshot, held, observed, plan)
    _check_beginnings(snapshot, held, observed, plan)
    _check_slots_keep_a_task(snapshot, held, observed, plan)
    _check_singletons(snapshot, held, observed, plan)


def _check_singletons(snapshot: Snapshot, held: Held, observed: Observed, plan: Plan) -> None:
    """A singleton's next task is made only when nothing of its slot can run."""
    for action in plan.actions:
        record = snapshot.services.get(action.slot.service_key)
        if isinstance(action, StopTask | ForgetTask) or record is None:
            continue
        if record.spec.dray.singleton:
            assert all(
                _has_ended(observed, node_id, task) or node_id not in snapshot.nodes
                for (node_id, _), task in held.items()
                if task.slot == action.slot
            ), f"{action}: a task of the slot may run"


def _check_order(plan: Plan) -> None:
    kinds = [isinstance(action, StopTask | ForgetTask) for action in plan.actions]
    assert kinds == sorted(kinds, reverse=True), "something begins before everything has ended"
    for is_ending in (True, False):
        slots = [
            action.slot
            for action, kind in zip(plan.actions, kinds, strict=True)
            if kind is is_ending
        ]
        assert slots == sorted(slots), "not in the order of slots"


def _check_ids(held: Held, plan: Plan, ids_given: Sequence[str]) -> None:
    new = [action.task_id for action in plan.actions if isinstance(action, CreateTask | MoveTask)]
    assert len(set(new)) == len(new), "an id is used twice"
    assert set(new) <= set(ids_given), "an id does not come from the factory"
    assert not set(new) & {task_id for _, task_id in held}, "a new task has the id of an old one"


def _check_endings(snapshot: Snapshot, held: Held, observed: Observed, plan: Plan) -> None:
    ended: Counter[tuple[NodeId, TaskId]] = Counter()
    for action in plan.actions:
        if isinstance(action, CreateTask):
            continue
        key = (
            (action.old_node_id, action.old_task_id)
            if isinstance(action, MoveTask)
            else (action.node_id, action.task_id)
        )
        ended[key] += 1
        assert key in held, f"{action} ends a task that is not there"
        task = held[key]
        assert task.slot == action.slot
        if isinstance(action, ForgetTask):
            is_known = _has_ended(observed, key[0], task) or key[0] not in snapshot.nodes
            assert is_known, f"{action}: its end is not known"
        else:
            assert not task.stop, f"{action} ends a task that is ending"
    assert not ended or max(ended.values()) == 1, "a task is ended twice"


def _check_beginnings(snapshot: Snapshot, held: Held, observed: Observed, plan: Plan) -> None:
    begun: Counter[SlotKey] = Counter()
    for action in plan.actions:
        if isinstance(action, StopTask | ForgetTask):
            continue
        begun[action.slot] += 1
        record = snapshot.services.get(action.slot.service_key)
        assert record is not None, f"{action} begins a task of a service that is not asked for"
        is_kept = (action.slot.service_key, action.service_revision) in snapshot.revisions
        assert action.service_revision == record.revision or is_kept
        if record.spec.mode.kind in COUNTED:
            assert 1 <= action.slot.slot <= record.spec.mode.replicas
        of_slot = [
            (node, task)
            for (node, _), task in held.items()
            if task.slot == action.slot and (node in snapshot.nodes or isinstance(action, MoveTask))
        ]
        if isinstance(action, MoveTask):
            old = held[action.old_node_id, action.old_task_id]
            if action.reason is ActionReason.NODE_DOWN:
                assert _is_down(observed, action.old_node_id)
            if action.reason is ActionReason.NEW_REVISION:
                assert old.service_revision != record.revision
            if action.reason is ActionReason.NODE_REMOVED:
                assert action.old_node_id not in snapshot.nodes
            continue
        live = [task for node, task in of_slot if not _has_ended(observed, node, task)]
        assert all(task.stop for task in live), f"{action}: the slot has a live task"
        if record.spec.update.order is UpdateOrder.STOP_FIRST:
            waits = [task for node, task in of_slot if not _has_ended(observed, node, task)]
            assert not waits, f"{action} does not wait for the end of the last task"
    assert not begun or max(begun.values()) == 1, "a slot begins two tasks"


def _check_slots_keep_a_task(
    snapshot: Snapshot, held: Held, observed: Observed, plan: Plan
) -> None:
    """A slot that is asked for never loses its last live task but to one that is as it should be.

    That is a new one, or one of the newest revision that stays, though it may have ended by itself.
    """
    lost = {
        (action.node_id, action.task_id)
        for action in plan.actions
        if isinstance(action, StopTask | ForgetTask)
    }
    begun = {action.slot for action in plan.actions if isinstance(action, CreateTask | MoveTask)}
    losing: dict[SlotKey, list[TaskAssignment]] = {}
    keeping: set[SlotKey] = set()
    ended_but_current: set[SlotKey] = set()
    for key, task in held.items():
        record = snapshot.services.get(task.slot.service_key)
        if record is None or task.stop or record.spec.mode.kind is not REPLICATED:
            continue
        if record.spec.dray.singleton:
            continue  # ends before it begins, each in a plan of its own
        if not 1 <= task.slot.slot <= record.spec.mode.replicas or key[0] not in snapshot.nodes:
            continue
        if _has_ended(observed, key[0], task):
            if key not in lost and task.service_revision == record.revision:
                ended_but_current.add(task.slot)
        elif key in lost:
            losing.setdefault(task.slot, []).append(task)
        else:
            keeping.add(task.slot)
    for slot, tasks in losing.items():
        newest = snapshot.services[slot.service_key].revision
        is_outdated = all(task.service_revision != newest for task in tasks)
        succeeds = slot in begun or (is_outdated and slot in ended_but_current)
        assert slot in keeping or succeeds, f"{slot} loses its last task"


def _is_down(observed: Observed, node_id: NodeId) -> bool:
    node = observed.nodes.get(node_id)
    return node is not None and node.condition is NodeCondition.DOWN


def _has_ended(observed: Observed, node_id: NodeId, task: TaskAssignment) -> bool:
    attempt = observed.attempts.get(task.task_id)
    reported = attempt is not None and attempt.state in TERMINAL_ATTEMPT_STATES
    restarts = attempt is not None and attempt.next_attempt_unix_s > 0
    return (reported and not restarts) or _is_down(observed, node_id)
