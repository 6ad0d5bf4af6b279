"""What ends and what begins so that one slot has its one task? The rules of replacement.

- Of several tasks the one that need not be replaced is kept, then one that has not ended, then one
  that serves, then the higher (epoch, task id).
- STOP_FIRST: the next task waits for the reported end of the last one. START_FIRST: the last one is
  kept until the next one runs. A node that is drained, isolated or no longer suits is left
  start-first whatever the service says; a singleton never has a second task.
- Of a node that is down or was removed nothing is awaited.
"""

from __future__ import annotations

from dataclasses import dataclass

from dray.model import ServiceRevision, ServiceSpec, SlotKey, UpdateOrder
from dray.names import NodeId
from scheduler.reconcile.actions import (
    Action,
    ActionReason,
    CreateTask,
    ForgetTask,
    MoveTask,
    StopTask,
)
from scheduler.reconcile.held import Held
from scheduler.reconcile.situation import Situation
from scheduler.reconcile.suits import suits
from scheduler.store.snapshot import VolumeKey

__all__ = ["Slot", "WellSlots", "end_all", "first_task", "plan_slot"]

_PLANNED = frozenset({ActionReason.NODE_DRAINED, ActionReason.NODE_ISOLATED})


@dataclass(frozen=True, slots=True)
class Slot:
    """What one slot should have.

    Attributes:
        key: The slot.
        revision: What its next task runs.
        spec: What is asked of its node; None: nothing.
        may_replace: A task that runs other work is replaced; else it waits for its turn.
        order: How it is replaced by another revision.
        is_singleton: Never two tasks at once.
        pinned_to: The only node that will do, or None.
        pins: Volumes to be pinned where its next task goes.
        waits_for_node: While the node that it is pinned to is down it waits for it.
        may_begin: A new task may be made for it now.
        may_leave: It may be moved off a node that is drained; else it waits for its turn.
        replaces_for: Reason given for replacing a task of other work.
    """

    key: SlotKey
    revision: ServiceRevision
    spec: ServiceSpec | None = None
    may_replace: bool = True
    order: UpdateOrder = UpdateOrder.STOP_FIRST
    is_singleton: bool = False
    pinned_to: NodeId | None = None
    pins: tuple[VolumeKey, ...] = ()
    waits_for_node: bool = False
    may_begin: bool = True
    may_leave: bool = True
    replaces_for: ActionReason = ActionReason.NEW_REVISION


class WellSlots:
    """Which slots of one service need nothing? Nearly all, nearly always: it must cost little.

    One that this does not say of may need nothing all the same: `plan_slot` knows.
    """

    def __init__(self, situation: Situation, spec: ServiceSpec, revision: ServiceRevision) -> None:
        """Look at slots whose tasks should run `revision`."""
        self._situation = situation
        self._spec = spec
        self._revision = revision
        self._homes: dict[NodeId, bool] = {}

    def needs_nothing(self, items: list[Held], pinned_to: NodeId | None) -> bool:
        """Return whether a slot has the one task that it should have, where it may stay.

        Args:
            items: Its tasks.
            pinned_to: The only node that will do, or None.
        """
        if len(items) != 1:
            return False
        node_id, task = items[0].node_id, items[0].task
        if task.service_revision != self._revision or task.stop:
            return False
        if pinned_to is not None and pinned_to != node_id:
            return False
        is_home = self._homes.get(node_id)
        if is_home is None:
            is_home = self._homes[node_id] = self._is_home(node_id)
        return is_home

    def _is_home(self, node_id: NodeId) -> bool:
        """Return whether a node gives no reason to move a task of the service."""
        situation = self._situation
        return (
            situation.is_registered(node_id)
            and not situation.is_down(node_id)
            and not situation.is_drained(node_id)
            and not situation.is_isolated(node_id)
            and _may_stay(situation, self._spec, node_id)
        )


def plan_slot(
    situation: Situation, slot: Slot, items: list[Held]
) -> tuple[list[Action], list[Action]]:
    """Return what ends and what begins so that one slot has one task of its revision.

    Args:
        situation: What the plan is made from.
        slot: What the slot should have.
        items: The tasks that it has, highest (epoch, task id) first.
    """
    leaving = [item for item in items if item.task.stop or _is_spent(situation, slot, item)]
    live = [item for item in items if item not in leaving]
    ends = end_all(situation, leaving, ActionReason.ENDED, is_singleton=slot.is_singleton)
    if not live:
        return ends, _create(situation, slot, leaving)
    live.sort(key=lambda item: _worth(situation, slot, item), reverse=True)  # stable
    keep, *others = live
    standby = _standby(situation, slot, keep, others)
    for item in others:
        if item is not standby:
            reason = _reason_to_move(situation, slot, item) or ActionReason.DUPLICATE
            ends += end_all(situation, [item], reason, is_singleton=slot.is_singleton)
    if not slot.may_begin:
        return ends, []
    if slot.is_singleton:
        return _replace_alone(situation, slot, keep, items, ends)
    return ends, _move(situation, slot, keep)


def first_task(
    situation: Situation,
    slot: SlotKey,
    revision: ServiceRevision,
    pinned_to: NodeId | None = None,
    pins: tuple[VolumeKey, ...] = (),
) -> CreateTask:
    """Return the task of a slot that has none and waits for nothing."""
    return CreateTask(
        slot, situation.new_task_id(), revision, ActionReason.NEW_SLOT, pinned_to, pins
    )


def end_all(
    situation: Situation, items: list[Held], reason: ActionReason, *, is_singleton: bool = False
) -> list[Action]:
    """Return what brings tasks nearer to their end.

    Forget what has ended or is on a node that is gone (it stops what it finds unassigned when it
    returns), tell the others to stop once, then wait.
    """
    ends: list[Action] = []
    for item in items:
        task = item.task
        if situation.has_ended(item, is_singleton=is_singleton):
            ends.append(ForgetTask(task.slot, task.task_id, item.node_id, reason))
        elif not task.stop:
            ends.append(StopTask(task.slot, task.task_id, item.node_id, reason))
    return ends


def _does_other_work(situation: Situation, slot: Slot, item: Held) -> bool:
    revision = item.task.service_revision
    return slot.may_replace and not situation.same_work(
        slot.key.service_key, revision, slot.revision
    )


def _is_spent(situation: Situation, slot: Slot, item: Held) -> bool:
    """Return whether a task of other work ended by itself: there is nothing to replace."""
    return (
        _does_other_work(situation, slot, item)
        and situation.has_reported_end(item)
        and not situation.is_given_up(item)
    )


def _worth(situation: Situation, slot: Slot, item: Held) -> tuple[bool, bool, bool, bool]:
    """Return what is compared before (epoch, task id).

    A task that need not be replaced wins; ids within an epoch do not tell which of two is the newer
    one. Of several that need not, one that has not ended wins; of several that must be, one that
    serves.
    """
    stays = _reason_to_move(situation, slot, item) is None
    has_ended = situation.has_ended(item, is_singleton=slot.is_singleton)
    serves = not stays and situation.serves(item)
    return (not situation.is_given_up(item), stays, not has_ended, serves)


def _standby(situation: Situation, slot: Slot, keep: Held, others: list[Held]) -> Held | None:
    """Return the older task that serves until the one to keep runs, or None."""
    if slot.is_singleton or situation.serves(keep):
        return None
    if _reason_to_move(situation, slot, keep) is not None:
        return None  # then itself stands by
    candidates = [
        item
        for item in others
        if not situation.is_given_up(item)
        and _order(slot, _reason_to_move(situation, slot, item)) is UpdateOrder.START_FIRST
    ]
    return max(candidates, key=situation.serves, default=None)


def _create(situation: Situation, slot: Slot, leaving: list[Held]) -> list[Action]:
    """Return the task that a slot without a live one gets, once its order allows it."""
    if not slot.may_begin:
        return []
    waits = slot.is_singleton or slot.order is UpdateOrder.STOP_FIRST
    has_room = all(situation.has_ended(item, is_singleton=slot.is_singleton) for item in leaving)
    if waits and not has_room:
        return []
    if not leaving:
        return [first_task(situation, slot.key, slot.revision, slot.pinned_to, slot.pins)]
    reason = _reason_to_move(situation, slot, leaving[0]) or ActionReason.ENDED
    task_id = situation.new_task_id()
    return [CreateTask(slot.key, task_id, slot.revision, reason, slot.pinned_to, slot.pins)]


def _replace_alone(
    situation: Situation, slot: Slot, keep: Held, items: list[Held], ends: list[Action]
) -> tuple[list[Action], list[Action]]:
    """Return how a singleton's task is replaced: no plan ever names its end and its successor.

    A move says both, and how far it is carried out at once is its executor's choice.
    """
    reason = _reason_to_move(situation, slot, keep)
    if reason is None:
        return ends, []
    if not situation.is_given_up(keep, is_singleton=True):
        return [*ends, *end_all(situation, [keep], reason, is_singleton=True)], []
    others = [item for item in items if item is not keep]
    is_alone = all(situation.has_ended(item, is_singleton=True) for item in others)
    return ends, _move(situation, slot, keep) if is_alone else []


def _move(situation: Situation, slot: Slot, keep: Held) -> list[Action]:
    """Return the replacement of a slot's one live task, if there is a reason for it."""
    reason = _reason_to_move(situation, slot, keep)
    if reason is None:
        return []
    return [
        MoveTask(
            slot.key,
            keep.task.task_id,
            keep.node_id,
            situation.new_task_id(),
            slot.revision,
            reason,
            UpdateOrder.STOP_FIRST if slot.is_singleton else _order(slot, reason),
            slot.pinned_to,
            slot.pins,
        )
    ]


def _order(slot: Slot, reason: ActionReason | None) -> UpdateOrder:
    is_planned = reason in _PLANNED or (
        reason is ActionReason.NODE_UNSUITABLE and slot.pinned_to is None
    )
    return UpdateOrder.START_FIRST if is_planned else slot.order


def _reason_to_move(situation: Situation, slot: Slot, item: Held) -> ActionReason | None:
    """Return why a task must be replaced, or None. An unknown node is no reason."""
    if not situation.is_registered(item.node_id):
        return ActionReason.NODE_REMOVED
    if situation.is_down(item.node_id):
        if slot.waits_for_node and slot.pinned_to == item.node_id:
            return None
        is_over = situation.is_given_up(item, is_singleton=slot.is_singleton)
        return ActionReason.NODE_DOWN if is_over else None
    if _does_other_work(situation, slot, item):
        return slot.replaces_for
    if slot.pinned_to is not None:
        return ActionReason.NODE_UNSUITABLE if item.node_id != slot.pinned_to else None
    if slot.may_leave and situation.is_drained(item.node_id):
        return ActionReason.NODE_DRAINED
    if situation.is_isolated(item.node_id):
        return ActionReason.NODE_ISOLATED
    if slot.spec is not None and not _may_stay(situation, slot.spec, item.node_id):
        return ActionReason.NODE_UNSUITABLE
    return None


def _may_stay(situation: Situation, spec: ServiceSpec, node_id: NodeId) -> bool:
    """Return whether a node still suits a service; True while it is not known what it is."""
    record, node = situation.snapshot.nodes.get(node_id), situation.node(node_id)
    if record is None or node is None or node.info is None:
        return True
    return suits(spec, record, node.info, has_task=True)
