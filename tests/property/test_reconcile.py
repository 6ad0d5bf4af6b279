"""Does `reconcile` bring every cluster to rest, whatever half-done state it finds?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dray.model import (
    AttemptReport,
    AttemptState,
    Epoch,
    Health,
    NodeCondition,
    ServiceExtensions,
    ServiceRecord,
    UpdateOrder,
    UpdatePolicy,
)
from scheduler.reconcile import ActionReason, CreateTask, MoveTask, Observed, StopTask
from tests.builders import (
    CountingIds,
    a_key,
    a_placement_node,
    a_record,
    a_service,
    a_slot,
    a_task,
    reserving,
)
from tests.contract.reconcile.implementations import RECONCILES
from tests.contract.reconcile.safety import check_plan
from tests.contract.reconcile.world import Moves, World

SERVICES = ("web", "db", "job")
NODES_MAX = 4
TASKS_MAX = 12
EACH_TAKES = reserving(cpus=1, memory_gib=1)
ROOM_FOR_ALL = 64  # CPUs: more than all tasks, old and new, together


@st.composite
def records(draw: st.DrawFn, name: str) -> ServiceRecord:
    """Draw an asked-for service."""
    spec = a_service(
        name,
        replicas=draw(st.integers(0, 3)),
        reservations=EACH_TAKES,
        update=UpdatePolicy(order=draw(st.sampled_from(UpdateOrder))),
    )
    return a_record(spec, revision=draw(st.integers(1, 3)))


@st.composite
def worlds(draw: st.DrawFn, cpus: st.SearchStrategy[int]) -> World:
    """Draw a cluster as a leader may find it: half-committed, duplicated, dead in part, unknown."""
    asked = [draw(records(name)) for name in draw(st.sets(st.sampled_from(SERVICES)))]
    count = draw(st.integers(1, NODES_MAX))
    world = World.of(*asked, nodes=count)
    rooms = {number: draw(cpus) for number in range(1, count + 1)}
    world.capacities = {
        number: a_placement_node(number, cpus=room, memory_gib=room)
        for number, room in rooms.items()
    }
    world.conditions = draw(st.dictionaries(st.integers(1, count), st.sampled_from(NodeCondition)))
    world.moves = draw(st.sampled_from(Moves))
    world.reservations = dict.fromkeys(map(a_key, SERVICES), EACH_TAKES)
    for number in range(1, draw(st.integers(0, TASKS_MAX)) + 1):
        node = draw(st.integers(1, count))
        if len(world.tasks[node]) < rooms[node]:
            _add_task(draw, world, node, number)
    return world


def _add_task(draw: st.DrawFn, world: World, node: int, number: int) -> None:
    slot = a_slot(draw(st.integers(1, 4)), draw(st.sampled_from(SERVICES)))
    task = a_task(
        number if draw(st.booleans()) else number + 100_000,  # below or above the new ids
        slot,
        revision=draw(st.integers(1, 3)),
        epoch=Epoch(1, draw(st.integers(0, 1))),
        stop=draw(st.booleans()),
    )
    world.tasks[node].append(task)
    state = draw(st.none() | st.sampled_from(AttemptState))
    if state is not None:
        world.attempts[task.task_id] = AttemptReport(
            task.task_id,
            1,
            state,
            draw(st.sampled_from(Health)),
            next_attempt_unix_s=draw(st.sampled_from([0.0, 0.0, 1.0])),
        )


roomy = worlds(st.just(ROOM_FOR_ALL))
tight = worlds(st.integers(0, 5))


@pytest.mark.parametrize("name", sorted(RECONCILES))
@given(world=roomy)
def test_every_plan_is_safe_and_made_twice_is_the_same(name: str, world: World) -> None:
    """Safety holds of the first plan from any state, and purity: nothing but arguments counts."""
    snapshot, observed = world.snapshot(), world.observed()
    ids, again = CountingIds(), CountingIds()
    plan = RECONCILES[name](snapshot, observed, 0.0, ids)
    check_plan(snapshot, observed, plan, ids.given)
    assert RECONCILES[name](snapshot, observed, 0.0, again) == plan
    assert world.snapshot() == snapshot


@pytest.mark.parametrize("name", sorted(RECONCILES))
@given(world=roomy)
def test_nothing_is_concluded_when_nothing_is_known(name: str, world: World) -> None:
    """Without reports only what was asked changes anything: no end, no loss is assumed."""
    snapshot = world.snapshot()
    ids = CountingIds()
    plan = RECONCILES[name](snapshot, Observed(), 0.0, ids)
    check_plan(snapshot, Observed(), plan, ids.given)
    for action in plan.actions:
        if isinstance(action, MoveTask):
            assert action.reason is ActionReason.NEW_REVISION
        elif isinstance(action, CreateTask):
            assert world.live()[action.slot] == 0
        else:
            assert isinstance(action, StopTask)


@pytest.mark.parametrize("name", sorted(RECONCILES))
@given(world=roomy)
def test_a_plan_carried_out_leaves_nothing_to_do(name: str, world: World) -> None:
    """Idempotence: until something is reported, the plan after a plan is empty."""
    world.conditions = {
        number: condition if condition is NodeCondition.DOWN else NodeCondition.READY
        for number, condition in world.conditions.items()
    }
    unplaced = world.carry_out(world.plan(RECONCILES[name]))
    if unplaced:
        event("no node is ready")
        assert NodeCondition.READY not in world.conditions.values()
        return
    assert world.plan(RECONCILES[name]).actions == ()


@pytest.mark.parametrize("name", sorted(RECONCILES))
@given(world=roomy, cuts=st.lists(st.integers(0, 6), max_size=3), data=st.data())
def test_every_state_comes_to_rest_as_asked(
    name: str, world: World, cuts: list[int], data: st.DataObject
) -> None:
    """From any state, over commits cut short, every slot ends with its one task and no other."""
    for cut in cuts:
        world.carry_out(world.plan(RECONCILES[name]), cut)
        world.check_room()
        if data.draw(st.booleans()):
            world.report()
    unplaced = world.settle(RECONCILES[name])
    if NodeCondition.READY not in world.conditions.values():
        event("no node is left")
        assert world.wanted() == set(unplaced)
        return
    assert unplaced == []
    assert world.live() == dict.fromkeys(world.wanted(), 1)
    assert not any(task.stop for task in world.all_tasks())
    for task in world.all_tasks():
        assert task.service_revision == world.services[task.slot.service_key].revision
    down = [n for n, condition in world.conditions.items() if condition is NodeCondition.DOWN]
    assert not any(world.tasks[number] for number in down)


@pytest.mark.parametrize("name", sorted(RECONCILES))
@given(world=roomy, cuts=st.lists(st.integers(0, 6), max_size=3), data=st.data())
def test_nodes_that_are_to_be_empty_become_empty(
    name: str, world: World, cuts: list[int], data: st.DataObject
) -> None:
    """Drained, removed and dead nodes end without a task, in whatever order things happen."""
    numbers = sorted(world.capacities)
    stays = data.draw(st.sampled_from(numbers))
    others = [number for number in numbers if number != stays]
    world.conditions[stays] = NodeCondition.READY
    if others:
        world.drained = data.draw(st.sets(st.sampled_from(others)))
        world.removed = data.draw(st.sets(st.sampled_from(others)))
    for cut in cuts:
        world.carry_out(world.plan(RECONCILES[name]), cut)
        world.check_room()
        if data.draw(st.booleans()):
            world.report()
    assert world.settle(RECONCILES[name]) == []
    assert world.live() == dict.fromkeys(world.wanted(), 1)
    for number in world.drained - world.removed:
        assert world.tasks[number] == []
    assert not world.removed & set(world.tasks)


@pytest.mark.parametrize("name", sorted(RECONCILES))
@given(world=roomy, cuts=st.lists(st.integers(0, 6), max_size=4), data=st.data())
def test_a_singleton_is_alone_from_the_first_plan_on(
    name: str, world: World, cuts: list[int], data: st.DataObject
) -> None:
    """Over drains, isolated nodes and new revisions: a task is made when the last one has ended."""
    for key, record in world.services.items():
        spec = replace(record.spec, dray=ServiceExtensions(singleton=True))
        world.services[key] = replace(record, spec=spec)
    world.tasks = {number: [] for number in world.tasks}
    world.attempts = {}
    others = sorted(world.capacities)[1:]
    for cut in [*cuts, *[None] * 6]:
        if others:
            world.drained = data.draw(st.sets(st.sampled_from(others)))
        world.carry_out(world.plan(RECONCILES[name]), cut)
        held = Counter(task.slot for task in world.all_tasks())
        assert max(held.values(), default=1) == 1, held
        if data.draw(st.booleans()):
            world.report()


@pytest.mark.parametrize("name", sorted(RECONCILES))
@given(world=tight, cuts=st.lists(st.integers(0, 6), max_size=3))
def test_a_full_cluster_comes_to_rest_and_is_never_over_committed(
    name: str, world: World, cuts: list[int]
) -> None:
    """With too little room what is left over is named, and no node is given more than it has."""
    for cut in cuts:
        world.carry_out(world.plan(RECONCILES[name]), cut)
        world.check_room()
    unplaced = world.settle(RECONCILES[name])
    live = world.live()
    assert max(live.values(), default=1) == 1
    assert set(live) <= world.wanted()
    assert world.wanted() - set(live) <= set(unplaced)
    event(f"unplaced: {min(len(unplaced), 3)}")
