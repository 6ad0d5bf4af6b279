"""What does each action of a plan change at once, and what waits for a later plan?"""

from __future__ import annotations

from dray.model import Epoch, NodeCondition, ServiceRevision, TaskAssignment, UpdateOrder
from dray.names import NodeId
from scheduler.loops.fleet import Fleet, groups_of
from scheduler.loops.steps import Add, Drop, Edit, Stop, needs_node, steps_of
from scheduler.placement import PlacedGroup, PlacementResult
from scheduler.reconcile import (
    Action,
    ActionReason,
    CreateTask,
    ForgetTask,
    MoveTask,
    NodeObservation,
    Observed,
    StopTask,
)
from scheduler.store.keys import volume_key
from scheduler.store.records import VolumePin
from scheduler.store.snapshot import Snapshot, VolumeKey
from tests.builders import (
    a_key,
    a_node,
    a_record,
    a_slot,
    a_snapshot,
    a_task,
    an_info,
    node_id,
    task_id,
)

EPOCH = Epoch(1, 9)
REVISION = ServiceRevision(1)
DATA = VolumeKey("shop", "data")


def observed(**conditions: NodeCondition) -> Observed:
    """Return nodes n1, n2 … in these conditions."""
    return Observed(
        {
            node_id(int(name[1:])): NodeObservation(condition, 0.0, an_info(int(name[1:])))
            for name, condition in conditions.items()
        }
    )


def a_world() -> Snapshot:
    """Return three nodes; web.1 is task 1 on n1."""
    record = a_record()
    nodes = [a_node(2), a_node(3)]
    return a_snapshot([record], {1: [a_task(1)]}, nodes=nodes)


def placed(*numbers: int) -> PlacementResult:
    """Return that web.1, web.2 … go to these nodes."""
    slots = tuple(a_slot(position) for position in range(1, len(numbers) + 1))
    return PlacementResult((PlacedGroup(a_key(), slots, tuple(map(node_id, numbers))),))


def a_move(order: UpdateOrder, reason: ActionReason = ActionReason.NEW_REVISION) -> MoveTask:
    """Return a replacement of web.1 by task 7."""
    return MoveTask(a_slot(), task_id(1), node_id(1), task_id(7), REVISION, reason, order)


def a_creation(number: int, *volumes: VolumeKey) -> CreateTask:
    """Return that web.<number> gets the task of 100 and its number."""
    return CreateTask(
        a_slot(number), task_id(100 + number), REVISION, ActionReason.NEW_SLOT, pins=volumes
    )


def edits_of(
    action: Action, now: Observed, placement: PlacementResult | None = None
) -> tuple[Edit, ...]:
    """Return what one action changes at once."""
    steps = steps_of(
        a_world(), now, [action], placement or PlacementResult(), epoch=EPOCH, now_unix_s=5.0
    )
    return steps[0].edits if steps else ()


NEW = TaskAssignment(task_id(7), a_slot(), REVISION, EPOCH)
UP = observed(n1=NodeCondition.READY)
DOWN = observed(n1=NodeCondition.DOWN)


def test_a_stop_first_replacement_ends_the_old_task_only() -> None:
    """The new one is made by a later plan; no node is asked for."""
    move = a_move(UpdateOrder.STOP_FIRST)
    assert not needs_node(a_world(), UP, move)
    assert edits_of(move, UP) == (Stop(node_id(1), task_id(1)),)


def test_a_start_first_replacement_adds_the_new_task_only() -> None:
    """The old one is ended by a later plan; without room nothing is done."""
    move = a_move(UpdateOrder.START_FIRST)
    assert edits_of(move, UP, placed(2)) == (Add(node_id(2), NEW),)
    assert edits_of(move, UP) == ()


def test_a_move_off_a_node_that_is_gone_is_one_step() -> None:
    """Down or removed for good: the old task leaves as the new one comes, whatever the order."""
    expected = (Drop(node_id(1), task_id(1)), Add(node_id(2), NEW))
    move = a_move(UpdateOrder.STOP_FIRST, ActionReason.NODE_DOWN)
    assert edits_of(move, DOWN, placed(2)) == expected
    assert edits_of(move, DOWN) == (), "without room it stays where it was"


def test_ends_need_no_node() -> None:
    """A stop marks, a removal removes."""
    stop = StopTask(a_slot(), task_id(1), node_id(1), ActionReason.SCALED_DOWN)
    forget = ForgetTask(a_slot(), task_id(1), node_id(1), ActionReason.ENDED)
    assert edits_of(stop, UP) == (Stop(node_id(1), task_id(1)),)
    assert edits_of(forget, UP) == (Drop(node_id(1), task_id(1)),)


def test_a_volume_is_pinned_once_with_its_first_task() -> None:
    """Two tasks of one round share a volume: the first one pins it, and both are there."""
    actions = [a_creation(1, DATA), a_creation(2, DATA)]
    first, second = steps_of(a_world(), UP, actions, placed(2, 2), epoch=EPOCH, now_unix_s=5.0)
    pin = VolumePin("shop", "data", node_id(2), 5.0)
    assert first.pins == ((volume_key("shop", "data"), pin),)
    assert second.pins == ()


def test_a_task_that_went_elsewhere_than_its_volume_waits() -> None:
    """The first one decides where the volume is; the other one is left to the next plan."""
    actions = [a_creation(1, DATA), a_creation(2, DATA)]
    (only,) = steps_of(a_world(), UP, actions, placed(2, 3), epoch=EPOCH, now_unix_s=5.0)
    assert only.action == actions[0]


def test_alike_tasks_are_one_group() -> None:
    """Slots of one revision are placed together, those with a node of their own apart."""
    pinned = CreateTask(
        a_slot(3), task_id(103), REVISION, ActionReason.NEW_SLOT, pinned_to=node_id(2)
    )
    gone = CreateTask(a_slot(4), task_id(104), ServiceRevision(9), ActionReason.NEW_SLOT)
    groups = groups_of(a_world(), [a_creation(1), a_creation(2), pinned, gone])
    assert [(group.slots, group.pinned_to) for group in groups] == [
        ((a_slot(1), a_slot(2)), None),
        ((a_slot(3),), node_id(2)),
    ]


def free_tasks(fleet: Fleet, snapshot: Snapshot, now: Observed) -> dict[NodeId, tuple[bool, int]]:
    """Return, for each node as placement sees it, whether it takes tasks, and how many it has."""
    view = fleet.view(snapshot, now)
    return {
        node.node_id: (node.accepts_new, sum(share.count for share in node.running))
        for node in view.nodes
    }


def test_the_fleet_follows_the_cluster() -> None:
    """Conditions, assignments, new and removed nodes show in the next view."""
    fleet = Fleet()
    snapshot = a_world()
    everyone = dict.fromkeys(("n1", "n2", "n3"), NodeCondition.READY)
    assert free_tasks(fleet, snapshot, observed(**everyone)) == {
        node_id(1): (True, 1),
        node_id(2): (True, 0),
        node_id(3): (True, 0),
    }
    later = a_snapshot([a_record()], {1: [a_task(1)], 2: [a_task(2, a_slot(2))]})
    assert free_tasks(fleet, later, observed(n1=NodeCondition.DOWN)) == {
        node_id(1): (False, 1),
        node_id(2): (False, 1),
    }
