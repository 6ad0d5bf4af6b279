"""How does a plan with its placement change the assignments? As steps, each of which is atomic.

A step touches the assignments of one or two nodes. Both of a moved slot are in one step, so that a
slot is never stored twice, nor lost, by a plan that was committed in part.

How far an action is carried out at once:

- A move off a node that is gone: the old task leaves its assignment in the step that adds the new
  one. Without room for the new one nothing is done.
- START_FIRST: the new one is added; a later plan ends the old one when the new one runs.
- STOP_FIRST: the old one is told to end; a later plan makes the new one when its end was reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat, starmap
from typing import NamedTuple, TypeAlias, assert_never

from dray.model import Epoch, NodeCondition, SlotKey, TaskAssignment, UpdateOrder
from dray.names import NodeId, TaskId
from scheduler.placement import PlacementResult
from scheduler.reconcile import (
    Action,
    CreateTask,
    ForgetTask,
    MoveTask,
    Observed,
    StopTask,
)
from scheduler.store.keys import volume_key
from scheduler.store.records import VolumePin
from scheduler.store.snapshot import Snapshot, VolumeKey

__all__ = ["Add", "Drop", "Edit", "Step", "Stop", "needs_node", "steps_of"]


@dataclass(frozen=True, slots=True)
class Add:
    """Put a task into a node's assignment."""

    node_id: NodeId
    task: TaskAssignment


@dataclass(frozen=True, slots=True)
class Stop:
    """Mark a task of a node as one that is to end."""

    node_id: NodeId
    task_id: TaskId


@dataclass(frozen=True, slots=True)
class Drop:
    """Take a task out of a node's assignment."""

    node_id: NodeId
    task_id: TaskId


Edit: TypeAlias = Add | Stop | Drop


@dataclass(frozen=True, slots=True)
class Step:
    """Changes that apply together or not at all.

    Attributes:
        action: What they carry out.
        edits: Changes of assignments, of one or two nodes.
        pins: Volumes that get their place with it, by key; only if they have none yet.
    """

    action: Action
    edits: tuple[Edit, ...]
    pins: tuple[tuple[str, VolumePin], ...] = ()

    @property
    def node_ids(self) -> tuple[NodeId, ...]:
        """The nodes whose assignments it changes, each once."""
        if len(self.edits) == 1:
            return (self.edits[0].node_id,)
        return tuple(dict.fromkeys(edit.node_id for edit in self.edits))


def needs_node(snapshot: Snapshot, observed: Observed, action: Action) -> bool:
    """Return whether placement is asked about an action in this round."""
    match action:
        case CreateTask():
            return True
        case MoveTask():
            is_first = action.order is UpdateOrder.START_FIRST
            return is_first or _is_gone(snapshot, observed, action.old_node_id)
        case StopTask() | ForgetTask():
            return False
        case _:
            assert_never(action)


def steps_of(
    snapshot: Snapshot,
    observed: Observed,
    actions: Iterable[Action],
    placement: PlacementResult,
    *,
    epoch: Epoch,
    now_unix_s: float,
) -> list[Step]:
    """Return what a plan changes, in its order.

    Args:
        snapshot: What the plan was made from.
        observed: What it was made from.
        actions: The plan's.
        placement: Nodes of what needs one. What has none is left for a later round.
        epoch: The leader's term, which new tasks carry.
        now_unix_s: Wall clock, for pins.
    """
    found = _places(placement)
    steps: list[Step] = []
    pinned: dict[VolumeKey, NodeId] = {}
    for action in actions:
        match action:
            case StopTask():
                steps.append(Step(action, (Stop(action.node_id, action.task_id),)))
            case ForgetTask():
                steps.append(Step(action, (Drop(action.node_id, action.task_id),)))
            case CreateTask() | MoveTask():
                place = found.get(action.slot)
                edits = _edits(snapshot, observed, action, place, epoch)
                node_id = None if place is None else place.node_id
                if edits and (node_id is None or _agrees(action.pins, node_id, pinned)):
                    pins = _pins(snapshot, action.pins, node_id, pinned, now_unix_s)
                    steps.append(Step(action, edits, pins))
            case _:
                assert_never(action)
    return steps


class _Place(NamedTuple):
    """Where a slot's new task goes, and which GPUs it gets there."""

    node_id: NodeId
    gpu_ids: tuple[str, ...] = ()


def _places(placement: PlacementResult) -> dict[SlotKey, _Place]:
    found: dict[SlotKey, _Place] = {}
    for group in placement.groups:
        devices = group.gpu_ids or repeat(())
        pairs = zip(group.node_ids, devices, strict=False)  # as many as there are nodes
        found.update(zip(group.slots, starmap(_Place, pairs), strict=True))
    return found


def _edits(
    snapshot: Snapshot,
    observed: Observed,
    action: CreateTask | MoveTask,
    place: _Place | None,
    epoch: Epoch,
) -> tuple[Edit, ...]:
    """Return what is done about an action now; nothing, while there is no room."""
    if not needs_node(snapshot, observed, action):
        assert isinstance(action, MoveTask)
        return (Stop(action.old_node_id, action.old_task_id),)
    if place is None:
        return ()
    task = TaskAssignment(
        action.task_id, action.slot, action.service_revision, epoch, gpu_ids=place.gpu_ids
    )
    add = Add(place.node_id, task)
    if isinstance(action, MoveTask) and _is_gone(snapshot, observed, action.old_node_id):
        return (Drop(action.old_node_id, action.old_task_id), add)
    return (add,)


def _is_gone(snapshot: Snapshot, observed: Observed, node_id: NodeId) -> bool:
    """Return whether nothing of a node's tasks is awaited: it is down, or removed for good."""
    node = observed.nodes.get(node_id)
    is_down = node is not None and node.condition is NodeCondition.DOWN
    return is_down or node_id not in snapshot.nodes


def _agrees(
    volumes: tuple[VolumeKey, ...], node_id: NodeId, pinned: Mapping[VolumeKey, NodeId]
) -> bool:
    """Return whether no task of this round has pinned one of the volumes elsewhere."""
    return not volumes or all(pinned.get(volume, node_id) == node_id for volume in volumes)


def _pins(
    snapshot: Snapshot,
    volumes: tuple[VolumeKey, ...],
    node_id: NodeId | None,
    pinned: dict[VolumeKey, NodeId],
    now_unix_s: float,
) -> tuple[tuple[str, VolumePin], ...]:
    """Return the pins to write with a task, and note them in `pinned`: each is written once."""
    if node_id is None or not volumes:
        return ()
    pins: list[tuple[str, VolumePin]] = []
    for volume in volumes:
        if volume not in pinned and volume not in snapshot.volume_pins:
            pinned[volume] = node_id
            pin = VolumePin(volume.project, volume.volume, node_id, now_unix_s)
            pins.append((volume_key(volume.project, volume.volume), pin))
    return tuple(pins)
