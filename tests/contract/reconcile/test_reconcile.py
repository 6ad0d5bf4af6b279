"""Does every implementation of `reconcile` keep its stated guarantees? Cases chosen by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import (
    AttemptReport,
    AttemptState,
    Autoscale,
    Epoch,
    NodeCondition,
    ServiceExtensions,
    ServiceMode,
    ServiceModeKind,
    UpdateOrder,
    UpdatePolicy,
)
from scheduler.reconcile import (
    ActionReason,
    CreateTask,
    ForgetTask,
    MoveTask,
    NodeObservation,
    Observed,
    Plan,
    StopTask,
)
from tests.builders import (
    CountingIds,
    a_key,
    a_record,
    a_service,
    a_slot,
    a_snapshot,
    a_task,
    node_id,
    reserving,
    task_id,
)
from tests.contract.reconcile.implementations import RECONCILES, Reconcile
from tests.contract.reconcile.world import Moves, World

START_FIRST = UpdatePolicy(order=UpdateOrder.START_FIRST)
NOTHING_KNOWN = Observed()


@pytest.fixture(params=sorted(RECONCILES))
def reconcile(request: pytest.FixtureRequest) -> Reconcile:
    """Return one implementation after the other."""
    return RECONCILES[request.param]


def kinds(plan: Plan) -> list[tuple[str, int]]:
    """Return the kinds of a plan's actions with their slots' numbers."""
    return [(type(action).__name__, action.slot.slot) for action in plan.actions]


def test_nothing_asked_and_nothing_held_is_nothing_to_do(reconcile: Reconcile) -> None:
    """An empty cluster gives an empty plan that carries the snapshot's revision."""
    ids = CountingIds()
    plan = reconcile(a_snapshot(revision=7), NOTHING_KNOWN, 0.0, ids)
    assert plan == Plan(a_snapshot(revision=7).revision)
    assert ids.given == []


def test_slots_are_created_and_then_left_alone(reconcile: Reconcile) -> None:
    """Every replica gets a task with an id from the factory, and the next plan is empty."""
    world = World.of(a_record(a_service(replicas=3)))
    plan = world.plan(reconcile)
    assert kinds(plan) == [("CreateTask", 1), ("CreateTask", 2), ("CreateTask", 3)]
    assert all(action.reason is ActionReason.NEW_SLOT for action in plan.actions)
    world.carry_out(plan)
    assert world.plan(reconcile).actions == ()
    world.report()
    assert world.plan(reconcile).actions == ()


def test_the_same_arguments_give_the_same_plan(reconcile: Reconcile) -> None:
    """A plan depends on its arguments alone, not on the order in which things are listed."""
    records = [a_record(a_service(name, replicas=2)) for name in ("web", "db", "job")]
    tasks = {1: [a_task(1), a_task(2, a_slot(2))], 2: [a_task(3)], 3: [a_task(4, a_slot(9))]}
    backwards = {number: list(reversed(tasks[number])) for number in reversed(list(tasks))}
    first = reconcile(a_snapshot(records, tasks), NOTHING_KNOWN, 0.0, CountingIds())
    again = reconcile(a_snapshot(records[::-1], backwards), NOTHING_KNOWN, 0.0, CountingIds())
    assert first == again
    assert len(first.actions) == 6


@pytest.mark.parametrize(
    "condition", [each for each in NodeCondition if each is not NodeCondition.DOWN]
)
def test_nothing_comes_of_what_is_not_known(reconcile: Reconcile, condition: NodeCondition) -> None:
    """A node of which nothing is concluded keeps its tasks, even those that should end."""
    held = {1: [a_task(1), a_task(2, a_slot(2), stop=True)], 2: [a_task(3, a_slot(3))]}
    snapshot = a_snapshot([a_record(a_service(replicas=3))], held)
    observed = Observed({node_id(1): NodeObservation(condition, 0.0)})
    assert reconcile(snapshot, NOTHING_KNOWN, 0.0, CountingIds()).actions == ()
    if condition is not NodeCondition.ISOLATED:  # of which later versions move tasks
        assert reconcile(snapshot, observed, 0.0, CountingIds()).actions == ()


def test_scaling_down_ends_the_highest_slots(reconcile: Reconcile) -> None:
    """Surplus slots are told to stop, and are forgotten once their end was reported."""
    world = World.of(a_record(a_service(replicas=3)))
    world.settle(reconcile)
    world.services[a_key()] = a_record(a_service(replicas=1))
    plan = world.plan(reconcile)
    assert kinds(plan) == [("StopTask", 2), ("StopTask", 3)]
    assert {action.reason for action in plan.actions} == {ActionReason.SCALED_DOWN}
    world.carry_out(plan)
    assert world.plan(reconcile).actions == ()
    world.report()
    plan = world.plan(reconcile)
    assert kinds(plan) == [("ForgetTask", 2), ("ForgetTask", 3)]
    world.carry_out(plan)
    assert world.plan(reconcile).actions == ()


def test_a_removed_service_ends_everywhere(reconcile: Reconcile) -> None:
    """Without a service none of its tasks stays, on any node, whatever is known of them."""
    world = World.of(a_record(a_service(replicas=5)), a_record(a_service("db", replicas=2)))
    world.settle(reconcile)
    del world.services[a_key()]
    world.conditions[1] = NodeCondition.DOWN
    assert {
        action.reason for action in world.plan(reconcile).actions if action.slot.service == "web"
    } == {ActionReason.SERVICE_REMOVED}
    world.settle(reconcile)
    assert {task.slot.service for task in world.all_tasks()} == {"db"}


def test_zero_replicas_is_a_number_like_any_other(reconcile: Reconcile) -> None:
    """A service scaled to zero keeps its record and ends its tasks."""
    world = World.of(a_record(a_service(replicas=2)))
    world.settle(reconcile)
    world.services[a_key()] = a_record(a_service(replicas=0))
    world.settle(reconcile)
    assert world.all_tasks() == []


def test_tasks_of_a_dead_node_are_replaced_in_one_plan(reconcile: Reconcile) -> None:
    """What ran on a node that is down is planned elsewhere at once, nothing awaited."""
    world = World.of(a_record(a_service(replicas=2)))
    world.settle(reconcile)
    lost = next(number for number, tasks in world.tasks.items() if tasks)
    world.conditions[lost] = NodeCondition.DOWN
    plan = world.plan(reconcile)
    assert [type(action) for action in plan.actions] == [MoveTask] * len(world.tasks[lost])
    assert {action.reason for action in plan.actions} == {ActionReason.NODE_DOWN}
    assert world.carry_out(plan) == []
    assert world.plan(reconcile).actions == ()
    assert world.tasks[lost] == []
    assert world.live() == dict.fromkeys(world.wanted(), 1)


def test_a_dead_node_does_not_hold_back_what_ends_on_it(reconcile: Reconcile) -> None:
    """A task that was told to stop on a node that went down is forgotten, its slot goes on."""
    world = World.of(a_record())
    world.tasks[1] = [a_task(1, stop=True)]
    world.conditions[1] = NodeCondition.DOWN
    assert kinds(world.plan(reconcile)) == [("ForgetTask", 1), ("CreateTask", 1)]
    world.settle(reconcile)
    assert world.live() == {a_slot(): 1}


def test_with_stop_first_the_next_task_waits_for_the_reported_end(reconcile: Reconcile) -> None:
    """A slot has nothing new while its last task may still run."""
    world = World.of(a_record(revision=2))
    world.tasks[1] = [a_task(1)]
    plan = world.plan(reconcile)
    (move,) = plan.actions
    assert isinstance(move, MoveTask)
    assert (move.reason, move.order) == (ActionReason.NEW_REVISION, UpdateOrder.STOP_FIRST)
    world.carry_out(plan)
    assert world.plan(reconcile).actions == ()
    world.report()
    plan = world.plan(reconcile)
    assert kinds(plan) == [("ForgetTask", 1), ("CreateTask", 1)]
    assert isinstance(plan.actions[1], CreateTask)
    assert plan.actions[1].reason is ActionReason.NEW_REVISION
    world.settle(reconcile)
    assert [task.service_revision for task in world.all_tasks()] == [2]


def test_with_start_first_the_last_task_stays_until_the_next_one_runs(
    reconcile: Reconcile,
) -> None:
    """The old task ends only when the new one was reported to run and to be healthy."""
    world = World.of(a_record(a_service(update=START_FIRST), revision=2))
    world.tasks[1] = [a_task(9000)]  # its id is above every new one: ids do not order revisions
    world.carry_out(world.plan(reconcile))
    assert world.live() == {a_slot(): 2}
    assert world.plan(reconcile).actions == ()
    new = next(task for task in world.all_tasks() if task.service_revision == 2)
    world.attempts[new.task_id] = AttemptReport(new.task_id, 1, AttemptState.STARTING)
    assert world.plan(reconcile).actions == ()
    world.attempts[new.task_id] = AttemptReport(new.task_id, 1, AttemptState.RUNNING)
    (stop,) = world.plan(reconcile).actions
    assert isinstance(stop, StopTask)
    assert (stop.task_id, stop.reason) == (task_id(9000), ActionReason.NEW_REVISION)
    world.settle(reconcile)
    assert world.all_tasks() == [new]


def test_tasks_that_never_start_do_not_pile_up(reconcile: Reconcile) -> None:
    """Revision after revision that does not come up leaves two tasks of a slot at the most."""
    spec = a_service(update=START_FIRST)
    world = World.of(a_record(spec))
    world.settle(reconcile)
    (served,) = world.all_tasks()
    for revision in range(2, 7):
        world.services[a_key()] = a_record(spec, revision=revision)
        for _ in range(3):
            world.carry_out(world.plan(reconcile))
        assert world.live()[a_slot()] == 2
        assert served in world.all_tasks()


def test_of_two_tasks_of_a_slot_the_newer_one_stays(reconcile: Reconcile) -> None:
    """A slot held twice is repaired by keeping the higher (epoch, task id)."""
    old_epoch = Epoch(1, 0)
    world = World.of(a_record())
    world.tasks[1] = [a_task(1), a_task(5, epoch=old_epoch)]
    world.tasks[2] = [a_task(3)]
    world.report()
    plan = world.plan(reconcile)
    assert [type(action) for action in plan.actions] == [StopTask, StopTask]
    assert {action.reason for action in plan.actions} == {ActionReason.DUPLICATE}
    world.settle(reconcile)
    assert [task.task_id for task in world.all_tasks()] == [task_id(3)]


def test_of_two_tasks_of_a_slot_the_one_that_need_not_move_stays(reconcile: Reconcile) -> None:
    """A task on a node that is down, or of an older revision, does not displace a good one."""
    world = World.of(a_record(revision=2))
    world.tasks[1] = [a_task(9, revision=2)]
    world.tasks[2] = [a_task(1, revision=2), a_task(8)]
    world.conditions[1] = NodeCondition.DOWN
    world.settle(reconcile)
    assert [task.task_id for task in world.all_tasks()] == [task_id(1)]


def test_a_loss_during_an_update_keeps_the_old_task_that_serves(reconcile: Reconcile) -> None:
    """With START_FIRST the old task is not given up because the new one's node went down."""
    world = World.of(a_record(a_service(update=START_FIRST), revision=2))
    world.tasks[1] = [a_task(1)]
    world.tasks[2] = [a_task(2, revision=2)]
    world.report()
    world.conditions[2] = NodeCondition.DOWN
    world.carry_out(world.plan(reconcile))
    assert world.tasks[2] == []
    assert task_id(1) in {task.task_id for task in world.all_tasks() if not task.stop}
    world.settle(reconcile)
    assert [task.service_revision for task in world.all_tasks()] == [2]


def test_what_is_asked_for_and_not_planned_yet_is_said_and_left_alone(
    reconcile: Reconcile,
) -> None:
    """A service of a kind that is not planned yet gets a note, and neither gains nor loses tasks.

    An implementation that learns to plan one of these takes its row out.
    """
    specs = [
        a_service("a", dray=ServiceExtensions(autoscale=Autoscale(1, 3, 50))),
        a_service(
            "b",
            mode=ServiceMode(ServiceModeKind.REPLICATED_JOB, 3),
            dray=ServiceExtensions(schedule="0 4 * * *"),
        ),
    ]
    tasks = {1: [a_task(number, a_slot(9, spec.name)) for number, spec in enumerate(specs, 1)]}
    snapshot = a_snapshot([a_record(spec) for spec in specs], tasks)
    plan = reconcile(snapshot, NOTHING_KNOWN, 0.0, CountingIds())
    assert plan.actions == ()
    assert [note.subject for note in plan.notes] == ["shop/a", "shop/b"]


def test_a_task_that_ended_by_itself_does_not_displace_one_that_may_run(
    reconcile: Reconcile,
) -> None:
    """Of two tasks of a slot the one that has ended goes, even if it is the newer one."""
    world = World.of(a_record())
    world.tasks[1] = [a_task(1)]
    world.tasks[2] = [a_task(2)]
    world.attempts[task_id(2)] = AttemptReport(task_id(2), 1, AttemptState.FAILED)
    world.carry_out(world.plan(reconcile))
    assert [task.task_id for task in world.all_tasks()] == [task_id(1)]


def test_a_task_that_ended_by_itself_is_not_moved_but_succeeded(reconcile: Reconcile) -> None:
    """Of an older revision nothing is left to stop: it is forgotten and the next task made."""
    world = World.of(a_record(revision=2))
    world.tasks[1] = [a_task(1)]
    world.attempts[task_id(1)] = AttemptReport(task_id(1), 1, AttemptState.FAILED)
    plan = world.plan(reconcile)
    assert kinds(plan) == [("ForgetTask", 1), ("CreateTask", 1)]
    assert plan.actions[1].reason is ActionReason.NEW_REVISION
    world.carry_out(plan)
    assert world.plan(reconcile).actions == ()


@pytest.mark.parametrize("moves", Moves)
@pytest.mark.parametrize("order", UpdateOrder)
def test_a_new_revision_replaces_every_task(
    reconcile: Reconcile, moves: Moves, order: UpdateOrder
) -> None:
    """However moves are carried out, every slot ends with one task of the new revision."""
    spec = a_service(replicas=4, update=UpdatePolicy(order=order))
    world = World.of(a_record(spec))
    world.moves = moves
    world.settle(reconcile)
    world.services[a_key()] = a_record(spec, revision=2)
    world.settle(reconcile)
    assert world.live() == dict.fromkeys(world.wanted(), 1)
    assert {task.service_revision for task in world.all_tasks()} == {2}


def test_a_full_cluster_can_take_a_new_revision(reconcile: Reconcile) -> None:
    """With STOP_FIRST a task's own room is enough for its successor."""
    spec = a_service(replicas=6, reservations=reserving(cpus=2))
    world = World.of(a_record(spec))
    assert world.settle(reconcile) == []
    world.services[a_key()] = a_record(spec, revision=2)
    assert world.settle(reconcile) == []
    assert {task.service_revision for task in world.all_tasks()} == {2}
    assert world.live() == dict.fromkeys(world.wanted(), 1)


def test_what_finds_no_node_is_asked_for_again(reconcile: Reconcile) -> None:
    """Unplaced slots stay in the plan until there is room."""
    spec = a_service(replicas=7, reservations=reserving(cpus=2))
    world = World.of(a_record(spec))
    assert world.settle(reconcile) == [a_slot(7)]
    world.capacities = {**world.capacities, 4: replace(world.capacities[1], node_id=node_id(4))}
    world.tasks[4] = []
    world.conditions[4] = NodeCondition.READY
    assert world.settle(reconcile) == []
    assert world.live() == dict.fromkeys(world.wanted(), 1)


def test_endings_come_before_beginnings_in_the_order_of_slots(reconcile: Reconcile) -> None:
    """Room is freed before it is asked for, and a plan reads by slot."""
    records = [a_record(a_service(name, replicas=1)) for name in ("a", "m", "z")]
    tasks = {1: [a_task(1, a_slot(5, "z")), a_task(2, a_slot(5, "a")), a_task(3, a_slot(1, "q"))]}
    plan = reconcile(a_snapshot(records, tasks), NOTHING_KNOWN, 0.0, CountingIds())
    assert [(type(action), action.slot.service) for action in plan.actions] == [
        (StopTask, "a"),
        (StopTask, "q"),
        (StopTask, "z"),
        (CreateTask, "a"),
        (CreateTask, "m"),
        (CreateTask, "z"),
    ]


def test_a_task_that_ended_by_itself_is_its_nodes_matter(reconcile: Reconcile) -> None:
    """The leader neither moves nor forgets a task because its container failed."""
    world = World.of(a_record())
    world.tasks[1] = [a_task(1)]
    for state in (AttemptState.FAILED, AttemptState.COMPLETED):
        world.attempts[task_id(1)] = AttemptReport(task_id(1), 3, state)
        assert world.plan(reconcile).actions == ()


def test_only_a_reported_end_is_forgotten(reconcile: Reconcile) -> None:
    """A task that was told to stop stays listed until it ended and its node will not restart it."""
    world = World.of()
    world.tasks[1] = [a_task(1, stop=True)]
    for state in AttemptState:
        report = AttemptReport(task_id(1), 1, state)
        world.attempts[task_id(1)] = report
        expected = [ForgetTask] if state >= AttemptState.COMPLETED else []
        assert [type(action) for action in world.plan(reconcile).actions] == expected
        world.attempts[task_id(1)] = replace(report, next_attempt_unix_s=1.0)
        assert world.plan(reconcile).actions == ()
