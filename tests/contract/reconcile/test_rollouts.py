"""Does every planner replace tasks of an older revision as the update policy says?"""

from __future__ import annotations

import pytest

from dray.model import (
    AttemptReport,
    AttemptState,
    FailureAction,
    NodeCondition,
    UpdateOrder,
    UpdatePolicy,
)
from dray.views import RolloutState
from scheduler.reconcile import (
    ActionReason,
    CreateTask,
    MoveTask,
)
from scheduler.store.records import RolloutVerdict
from tests.builders import a_key, a_record, a_service
from tests.contract.reconcile.implementations import RECONCILES, Reconcile
from tests.contract.reconcile.world import World


@pytest.fixture(params=sorted(RECONCILES))
def reconcile(request: pytest.FixtureRequest) -> Reconcile:
    """Return one implementation after the other."""
    return RECONCILES[request.param]


def updated(world: World) -> list[int]:
    """Return the slots whose live task is of revision 2."""
    return sorted(
        task.slot.slot for task in world.all_tasks() if task.service_revision == 2 and not task.stop
    )


def a_rollout(replicas: int, update: UpdatePolicy, reconcile: Reconcile) -> World:
    """Return a settled service that was just changed to revision 2."""
    spec = a_service(replicas=replicas, update=update, image="web:1")
    world = World.of(a_record(spec))
    world.settle(reconcile)
    world.revisions[a_key(), a_record().revision] = a_record(spec)
    changed = a_service(replicas=replicas, update=update, image="web:2")
    world.services[a_key()] = a_record(changed, revision=2)
    return world


@pytest.mark.parametrize("order", UpdateOrder)
def test_a_new_revision_comes_one_task_at_a_time(reconcile: Reconcile, order: UpdateOrder) -> None:
    """At no moment do fewer than all but one slots serve, and the rollout's end is stored."""
    world = a_rollout(4, UpdatePolicy(order=order, monitor_s=0.0), reconcile)
    seen = []
    for _ in range(40):
        world.carry_out(world.plan(reconcile))
        serving = {
            task.slot.slot
            for task in world.all_tasks()
            if not task.stop
            and task.task_id in world.attempts
            and world.attempts[task.task_id].state is AttemptState.RUNNING
        }
        assert len(serving) >= (3 if order is UpdateOrder.STOP_FIRST else 4)
        seen.append(len(updated(world)))
        world.report()
    assert sorted(set(seen)) == [0, 1, 2, 3, 4] or sorted(set(seen)) == [1, 2, 3, 4]
    (rollout,) = [v for v in world.stored.values() if isinstance(v, RolloutVerdict)]
    assert rollout.state is RolloutState.COMPLETED


def test_a_change_beside_the_tasks_touches_no_task(reconcile: Reconcile) -> None:
    """A revision that runs the same replaces nothing."""
    world = World.of(a_record(a_service(replicas=2)))
    world.settle(reconcile)
    world.revisions[a_key(), a_record().revision] = a_record(a_service(replicas=2))
    world.services[a_key()] = a_record(a_service(replicas=3), revision=2)
    (create,) = world.plan(reconcile).actions
    assert isinstance(create, CreateTask)
    assert create.slot.slot == 3


def test_batches_wait_for_their_delay(reconcile: Reconcile) -> None:
    """After a batch is well the next one waits, and the plan says until when."""
    world = a_rollout(4, UpdatePolicy(parallelism=2, delay_s=30.0), reconcile)
    for _ in range(4):
        world.carry_out(world.plan(reconcile))
        world.report()
    assert updated(world) == [1, 2]
    plan = world.plan(reconcile)
    world.carry_out(plan)
    plan = world.plan(reconcile)
    assert plan.actions == ()
    assert plan.wake_at_unix_s == world.now_unix_s + 30.0
    world.now_unix_s += 30.0
    assert {action.slot.slot for action in world.plan(reconcile).actions} == {3, 4}


def fail_new(world: World, reconcile: Reconcile, rounds: int = 30) -> None:
    """Let every task of revision 2 fail, all others run, for some rounds."""
    for _ in range(rounds):
        world.carry_out(world.plan(reconcile))
        world.report()
        world.now_unix_s += 1.0
        for task in world.all_tasks():
            if task.service_revision == 2 and not task.stop:
                report = AttemptReport(
                    task.task_id, 1, AttemptState.FAILED, next_attempt_unix_s=1.0
                )
                world.attempts[task.task_id] = report


def test_a_rollout_that_fails_stops(reconcile: Reconcile) -> None:
    """PAUSE leaves the other slots as they are, says why, and keeps to it."""
    world = a_rollout(3, UpdatePolicy(), reconcile)
    fail_new(world, reconcile)
    assert updated(world) == [1]
    (rollout,) = [v for v in world.stored.values() if isinstance(v, RolloutVerdict)]
    assert rollout.state is RolloutState.PAUSED
    assert rollout.message == "replacing by revision 2 failed at web.1"
    assert "its update has stopped" in world.plan(reconcile).notes[0].message


def test_a_rollout_that_fails_goes_back(reconcile: Reconcile) -> None:
    """ROLLBACK brings every slot to the revision before, and stays there."""
    world = a_rollout(3, UpdatePolicy(failure_action=FailureAction.ROLLBACK), reconcile)
    fail_new(world, reconcile)
    assert {task.service_revision for task in world.all_tasks()} == {1}
    assert world.live() == dict.fromkeys(world.wanted(), 1)
    (rollout,) = [v for v in world.stored.values() if isinstance(v, RolloutVerdict)]
    assert rollout.state is RolloutState.ROLLED_BACK
    assert world.settle(reconcile) == []
    assert {task.service_revision for task in world.all_tasks()} == {1}


def test_a_rollout_may_go_on_over_failures(reconcile: Reconcile) -> None:
    """CONTINUE, and a ratio that is not exceeded, replace every slot."""
    for policy in (
        UpdatePolicy(failure_action=FailureAction.CONTINUE),
        UpdatePolicy(failure_ratio_max=1.0),
    ):
        world = a_rollout(3, policy, reconcile)
        fail_new(world, reconcile)
        assert updated(world) == [1, 2, 3]


def test_a_lost_node_does_not_bring_the_new_revision_early(reconcile: Reconcile) -> None:
    """What moves before its turn keeps its revision."""
    world = a_rollout(3, UpdatePolicy(), reconcile)
    world.carry_out(world.plan(reconcile))
    lost = next(
        number
        for number, tasks in world.tasks.items()
        if any(task.slot.slot == 3 for task in tasks)
    )
    world.conditions[lost] = NodeCondition.DOWN
    moves = [
        action
        for action in world.plan(reconcile).actions
        if isinstance(action, MoveTask) and action.slot.slot == 3
    ]
    assert [(move.service_revision, move.reason) for move in moves] == [(1, ActionReason.NODE_DOWN)]
