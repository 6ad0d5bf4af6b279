"""Does `reconcile` plan every kind of service, and every reason to leave a node, as it says?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import (
    AttemptReport,
    AttemptState,
    ConstraintOp,
    Dependency,
    DependencyCondition,
    Health,
    Mount,
    MountKind,
    NodeCondition,
    Placement,
    PlacementConstraint,
    ServiceExtensions,
    ServiceMode,
    ServiceModeKind,
    ServiceSpec,
    Taint,
    TaintEffect,
    UpdateOrder,
    UpdatePolicy,
    VolumeLoss,
)
from scheduler.reconcile import (
    ActionReason,
    CreateTask,
    ForgetTask,
    MoveTask,
    Plan,
    StopTask,
    VerdictPut,
)
from scheduler.reconcile.situation import SINGLETON_MARGIN_S
from scheduler.store.records import JobVerdict, VolumePin
from tests.builders import a_key, a_record, a_service, a_slot, node_id
from tests.contract.reconcile.implementations import RECONCILES, Reconcile
from tests.contract.reconcile.world import World

GLOBAL = ServiceMode(ServiceModeKind.GLOBAL, 0)
GLOBAL_JOB = ServiceMode(ServiceModeKind.GLOBAL_JOB, 0)
START_FIRST = UpdatePolicy(order=UpdateOrder.START_FIRST)


@pytest.fixture(params=sorted(RECONCILES))
def reconcile(request: pytest.FixtureRequest) -> Reconcile:
    """Return one implementation after the other."""
    return RECONCILES[request.param]


def a_job(replicas: int = 3, parallel_max: int = 0) -> ServiceSpec:
    """Return a job of so many completions."""
    return a_service(mode=ServiceMode(ServiceModeKind.REPLICATED_JOB, replicas, parallel_max))


def with_mount(kind: MountKind, source: str, **changes: object) -> ServiceSpec:
    """Return a service with one mount."""
    spec = a_service(**changes)  # type: ignore[arg-type]
    container = replace(spec.task.container, mounts=(Mount(kind, source, "/data"),))
    return replace(spec, task=replace(spec.task, container=container))


def homes(world: World) -> dict[int, list[int]]:
    """Return the slots of the live tasks of every node that has any."""
    return {
        number: sorted(task.slot.slot for task in tasks if not task.stop)
        for number, tasks in world.tasks.items()
        if any(not task.stop for task in tasks)
    }


def say(world: World, number: int, state: AttemptState, **changes: object) -> None:
    """Let every task of a slot report a state."""
    for task in world.all_tasks():
        if task.slot.slot == number:
            report = AttemptReport(task.task_id, 1, state, **changes)  # type: ignore[arg-type]
            world.attempts[task.task_id] = report


# ---- one task a node


def test_a_global_service_has_one_task_on_every_node(reconcile: Reconcile) -> None:
    """Each node's slot is its own; a node that joins gets one, one that is removed loses it."""
    world = World.of(a_record(a_service(mode=GLOBAL)), nodes=3)
    world.settle(reconcile)
    assert homes(world) == {1: [2], 2: [3], 3: [4]}  # the builders' n1 has the second subnet
    world.removed.add(2)
    world.settle(reconcile)
    assert homes(world) == {1: [2], 3: [4]}
    assert 2 not in world.tasks


def test_a_global_services_task_does_not_leave_its_node(reconcile: Reconcile) -> None:
    """Of a node that is down it is forgotten, and made again when the node is back."""
    world = World.of(a_record(a_service(mode=GLOBAL)), nodes=2)
    world.settle(reconcile)
    world.conditions[1] = NodeCondition.DOWN
    (forget,) = world.plan(reconcile).actions
    assert isinstance(forget, ForgetTask)
    world.settle(reconcile)
    assert homes(world) == {2: [3]}
    world.conditions[1] = NodeCondition.READY
    world.settle(reconcile)
    assert homes(world) == {1: [2], 2: [3]}


@pytest.mark.parametrize(
    "condition", [NodeCondition.UNKNOWN, NodeCondition.UNREACHABLE, NodeCondition.STALLED]
)
def test_nothing_begins_or_ends_on_a_node_that_is_not_known(
    reconcile: Reconcile, condition: NodeCondition
) -> None:
    """A global service leaves an unknown node alone, with a task or without."""
    world = World.of(a_record(a_service(mode=GLOBAL)), nodes=2)
    world.conditions[1] = condition
    (create,) = world.plan(reconcile).actions
    assert isinstance(create, CreateTask)
    assert create.pinned_to == node_id(2)
    world.conditions[1] = NodeCondition.READY
    world.settle(reconcile)
    world.conditions[1] = condition
    assert world.plan(reconcile).actions == ()


def test_a_global_service_keeps_to_its_constraints(reconcile: Reconcile) -> None:
    """Nodes that do not suit get no task, and lose the one that they have."""
    only_n1 = Placement((PlacementConstraint("node.hostname", ConstraintOp.EQUAL, "n1"),))
    world = World.of(a_record(a_service(mode=GLOBAL)), nodes=3)
    world.settle(reconcile)
    world.services[a_key()] = a_record(a_service(mode=GLOBAL, placement=only_n1))
    plan = world.plan(reconcile)
    assert {action.reason for action in plan.actions} == {ActionReason.NODE_UNSUITABLE}
    world.settle(reconcile)
    assert homes(world) == {1: [2]}


# ---- jobs


def test_a_job_runs_to_its_completions_and_then_rests(reconcile: Reconcile) -> None:
    """An end is concluded first and forgotten after that; nothing runs twice."""
    world = World.of(a_record(a_job(2)))
    world.carry_out(world.plan(reconcile))
    say(world, 1, AttemptState.COMPLETED, exit_code=0)
    say(world, 2, AttemptState.RUNNING)
    plan = world.plan(reconcile)
    assert plan.actions == ()
    (put,) = plan.verdicts
    assert isinstance(put, VerdictPut)
    assert put.verdict == JobVerdict(a_slot(1), a_record().revision, 0)
    world.carry_out(plan)
    (forget,) = world.plan(reconcile).actions
    assert isinstance(forget, ForgetTask)
    say(world, 2, AttemptState.FAILED, exit_code=3)
    world.carry_out(world.plan(reconcile))
    world.carry_out(world.plan(reconcile))
    assert world.all_tasks() == []
    assert world.plan(reconcile) == Plan(world.snapshot().revision)
    assert [v.exit_code for v in world.stored.values() if isinstance(v, JobVerdict)] == [0, 3]


def test_a_job_runs_so_many_at_once(reconcile: Reconcile) -> None:
    """The next completion begins when one ended."""
    world = World.of(a_record(a_job(5, parallel_max=2)))
    for expected in ([1, 2], [2, 3], [3, 4], [4, 5], [5], []):
        for _ in range(3):
            world.carry_out(world.plan(reconcile))
        live = sorted(task.slot.slot for task in world.all_tasks())
        assert live == expected
        if expected:
            say(world, expected[0], AttemptState.COMPLETED, exit_code=0)


def test_a_job_is_not_completed_because_its_node_is_lost(reconcile: Reconcile) -> None:
    """What was not reported to have ended runs again elsewhere; what was is concluded."""
    world = World.of(a_record(a_job(2)), nodes=2)
    world.carry_out(world.plan(reconcile))
    world.report()
    lost = next(number for number, slots in homes(world).items() if 1 in slots)
    say(world, 1, AttemptState.COMPLETED, exit_code=0)
    world.conditions[lost] = NodeCondition.DOWN
    plan = world.plan(reconcile)
    moved = {action.slot.slot for action in plan.actions if isinstance(action, MoveTask)}
    assert moved == {2} & set(homes(world)[lost])
    assert any(isinstance(change, VerdictPut) for change in plan.verdicts)


def test_a_new_revision_of_a_job_runs_it_again(reconcile: Reconcile) -> None:
    """Other work is a new run; the number of completions alone is none."""
    world = World.of(a_record(a_job(1)))
    world.revisions[a_key(), a_record().revision] = a_record(a_job(1))
    world.carry_out(world.plan(reconcile))
    say(world, 1, AttemptState.COMPLETED, exit_code=0)
    for _ in range(3):
        world.carry_out(world.plan(reconcile))
    world.services[a_key()] = a_record(a_job(2), revision=2)
    assert [action.slot.slot for action in world.plan(reconcile).actions] == [2]
    changed = replace(a_job(1), task=replace(a_job(1).task, force=1))
    world.services[a_key()] = a_record(changed, revision=3)
    assert [action.slot.slot for action in world.plan(reconcile).actions] == [1]


def test_a_global_job_runs_once_on_every_node(reconcile: Reconcile) -> None:
    """Each node's slot ends for itself."""
    world = World.of(a_record(a_service(mode=GLOBAL_JOB)), nodes=2)
    world.carry_out(world.plan(reconcile))
    assert homes(world) == {1: [2], 2: [3]}
    say(world, 2, AttemptState.COMPLETED, exit_code=0)
    say(world, 3, AttemptState.COMPLETED, exit_code=0)
    for _ in range(2):
        world.carry_out(world.plan(reconcile))
    assert world.all_tasks() == []
    assert world.plan(reconcile).actions == ()


# ---- leaving a node


def test_a_drained_node_is_left_start_first(reconcile: Reconcile) -> None:
    """Its tasks run elsewhere before they end there, whatever order the service asks for."""
    world = World.of(a_record(a_service(replicas=2)), nodes=2)
    world.settle(reconcile)
    world.drained.add(1)
    plan = world.plan(reconcile)
    (move,) = plan.actions
    assert isinstance(move, MoveTask)
    assert (move.reason, move.order) == (ActionReason.NODE_DRAINED, UpdateOrder.START_FIRST)
    world.carry_out(plan)
    assert world.live()[move.slot] == 2
    assert world.plan(reconcile).actions == ()
    world.report()
    (stop,) = world.plan(reconcile).actions
    assert isinstance(stop, StopTask)
    assert stop.task_id == move.old_task_id
    world.settle(reconcile)
    assert set(homes(world)) == {2}


def test_an_isolated_node_is_left_start_first_and_returns(reconcile: Reconcile) -> None:
    """Its tasks move; once it is ready again nothing is undone."""
    world = World.of(a_record(a_service(replicas=2)), nodes=2)
    world.settle(reconcile)
    world.conditions[1] = NodeCondition.ISOLATED
    (move,) = world.plan(reconcile).actions
    assert isinstance(move, MoveTask)
    assert (move.reason, move.order) == (ActionReason.NODE_ISOLATED, UpdateOrder.START_FIRST)
    world.settle(reconcile)
    assert world.live() == dict.fromkeys(world.wanted(), 1)


@pytest.mark.parametrize("mode", [ServiceMode(replicas=2), GLOBAL], ids=["replicated", "global"])
def test_a_taint_that_ends_what_runs_does_and_another_does_not(
    reconcile: Reconcile, mode: ServiceMode
) -> None:
    """NO_SCHEDULE keeps new tasks away; NO_EXECUTE moves what does not bear it."""
    world = World.of(a_record(a_service(mode=mode)), nodes=2)
    world.settle(reconcile)
    before = homes(world)
    world.taints[1] = (Taint("gpu"),)
    assert world.plan(reconcile).actions == ()
    world.taints[1] = (Taint("gpu", effect=TaintEffect.NO_EXECUTE),)
    reasons = {action.reason for action in world.plan(reconcile).actions}
    assert reasons == {ActionReason.NODE_UNSUITABLE}
    world.settle(reconcile)
    assert set(homes(world)) == {2}
    world.taints[1] = ()
    world.settle(reconcile)
    assert set(homes(world)) == ({1, 2} if mode is GLOBAL else {2})
    assert set(before) == {1, 2}


def test_a_node_that_no_longer_suits_is_left_start_first(reconcile: Reconcile) -> None:
    """A label that is taken away moves the tasks whose constraint it met, where there is room."""
    ssd = Placement((PlacementConstraint("node.labels.disk", ConstraintOp.EQUAL, "ssd"),))
    world = World.of(a_record(a_service(replicas=2, placement=ssd)), nodes=3)
    world.labels = {1: {"disk": "ssd"}, 2: {"disk": "ssd"}}
    world.settle(reconcile)
    assert set(homes(world)) == {1, 2}
    world.labels[2] = {}
    (move,) = world.plan(reconcile).actions
    assert isinstance(move, MoveTask)
    assert (move.reason, move.order) == (ActionReason.NODE_UNSUITABLE, UpdateOrder.START_FIRST)
    world.settle(reconcile)
    assert set(homes(world)) == {1}


@pytest.mark.parametrize(("budget", "at_once"), [(0, 0), (1, 1), (2, 2), (None, 4)])
def test_a_budget_bounds_what_a_drain_moves_at_once(
    reconcile: Reconcile, budget: int | None, at_once: int
) -> None:
    """No more slots are on the move or away at once; in the end the node is empty, but for 0."""
    extensions = ServiceExtensions(unavailable_max=budget)
    world = World.of(a_record(a_service(replicas=4, dray=extensions)), nodes=2)
    world.conditions[2] = NodeCondition.DOWN
    world.settle(reconcile)
    world.conditions[2] = NodeCondition.READY
    world.drained.add(1)
    moved = [each for each in world.plan(reconcile).actions if isinstance(each, MoveTask)]
    assert len(moved) == at_once
    assert {each.reason for each in moved} <= {ActionReason.NODE_DRAINED}
    say(world, 4, AttemptState.STARTING)
    moved = [each for each in world.plan(reconcile).actions if isinstance(each, MoveTask)]
    assert 4 in {each.slot.slot for each in moved}, "what does not serve loses nothing"
    assert len(moved) == max(1, at_once)
    say(world, 4, AttemptState.RUNNING)
    world.settle(reconcile)
    assert homes(world) == ({1: [1, 2, 3, 4]} if budget == 0 else {2: [1, 2, 3, 4]})


def test_a_drain_without_room_elsewhere_takes_nothing_away(reconcile: Reconcile) -> None:
    """What finds no other node stays where it is."""
    world = World.of(a_record(a_service(replicas=2)), nodes=1)
    world.settle(reconcile)
    world.drained.add(1)
    assert len(world.settle(reconcile)) == 2
    assert homes(world) == {1: [1, 2]}


def test_tasks_of_a_removed_node_are_replaced_and_its_assignment_goes(reconcile: Reconcile) -> None:
    """Nothing of a node that its operator removed is awaited."""
    world = World.of(a_record(a_service(replicas=3)), nodes=3)
    world.settle(reconcile)
    world.removed.add(1)
    assert {action.reason for action in world.plan(reconcile).actions} == {
        ActionReason.NODE_REMOVED
    }
    world.settle(reconcile)
    assert world.live() == dict.fromkeys(world.wanted(), 1)
    assert 1 not in world.tasks


# ---- singletons


def test_a_singleton_is_replaced_only_after_its_margin(reconcile: Reconcile) -> None:
    """Being down is not enough: what its node was granted must have run out."""
    world = World.of(a_record(a_service(dray=ServiceExtensions(singleton=True))), nodes=2)
    world.settle(reconcile)
    (home,) = homes(world)
    world.conditions[home] = NodeCondition.DOWN
    world.now_unix_s = SINGLETON_MARGIN_S - 1.0  # conditions of a world began at 0
    plan = world.plan(reconcile)
    assert plan.actions == ()
    assert plan.wake_at_unix_s == SINGLETON_MARGIN_S
    world.now_unix_s = SINGLETON_MARGIN_S
    (move,) = world.plan(reconcile).actions
    assert isinstance(move, MoveTask)
    world.settle(reconcile)
    assert list(world.live().values()) == [1]


@pytest.mark.parametrize("reason", ["drain", "isolated", "revision"])
def test_a_singleton_never_has_a_second_task(reconcile: Reconcile, reason: str) -> None:
    """Whatever moves it, its last task has ended before the next one is made."""
    spec = a_service(dray=ServiceExtensions(singleton=True), update=START_FIRST)
    world = World.of(a_record(spec), nodes=2)
    world.settle(reconcile)
    (home,) = homes(world)
    if reason == "drain":
        world.drained.add(home)
    elif reason == "isolated":
        world.conditions[home] = NodeCondition.ISOLATED
    else:
        world.services[a_key()] = a_record(spec, revision=2)
    for _ in range(12):
        world.carry_out(world.plan(reconcile))
        assert len(world.all_tasks()) <= 1
        for task in world.all_tasks():
            state = AttemptState.STOPPED if task.stop else AttemptState.RUNNING
            world.attempts[task.task_id] = AttemptReport(task.task_id, 1, state)
        world.now_unix_s += 10
    assert list(world.live().values()) == [1]


# ---- data


@pytest.mark.parametrize(("kind", "source"), [(MountKind.VOLUME, "data"), (MountKind.BIND, "/srv")])
def test_data_pins_a_service_to_one_node(
    reconcile: Reconcile, kind: MountKind, source: str
) -> None:
    """The first task decides, in the commit that assigns it; all others follow it."""
    world = World.of(a_record(with_mount(kind, source, replicas=3)))
    plan = world.plan(reconcile)
    (first,) = plan.actions
    assert isinstance(first, CreateTask)
    assert [key.volume for key in first.pins] == ["shop_data" if source == "data" else source]
    world.settle(reconcile)
    assert [len(slots) for slots in homes(world).values()] == [3]
    (pin,) = [verdict for verdict in world.stored.values() if isinstance(verdict, VolumePin)]
    assert node_id(*homes(world)) == pin.node_id


def test_a_service_waits_for_the_node_that_has_its_data(reconcile: Reconcile) -> None:
    """It starts nowhere else, empty; the plan says what it waits for."""
    world = World.of(a_record(with_mount(MountKind.VOLUME, "data")))
    world.settle(reconcile)
    (home,) = homes(world)
    world.conditions[home] = NodeCondition.DOWN
    plan = world.plan(reconcile)
    assert plan.actions == ()
    assert [note.message for note in plan.notes] == [
        f"its data is on node n{home}, which is down: it waits for it"
    ]
    world.settle(reconcile)
    world.conditions[home] = NodeCondition.READY
    world.settle(reconcile)
    assert homes(world) == {home: [1]}


def test_data_may_be_given_up_where_that_was_asked_for(reconcile: Reconcile) -> None:
    """With volume_loss: accept the service starts elsewhere, and is pinned there."""
    lossy = ServiceExtensions(volume_loss=VolumeLoss.ACCEPT)
    world = World.of(a_record(with_mount(MountKind.VOLUME, "data", replicas=2, dray=lossy)))
    world.settle(reconcile)
    (home,) = homes(world)
    world.conditions[home] = NodeCondition.DOWN
    world.settle(reconcile)
    (now,) = homes(world)
    assert now != home
    (pin,) = [verdict for verdict in world.stored.values() if isinstance(verdict, VolumePin)]
    assert pin.node_id == node_id(now)


def test_a_pin_that_was_not_written_is_made_up_for(reconcile: Reconcile) -> None:
    """A task whose commit left no pin behind gets one by the next plan."""
    world = World.of(a_record(with_mount(MountKind.VOLUME, "data")))
    world.settle(reconcile)
    (home,) = homes(world)
    world.stored.clear()
    (put,) = world.plan(reconcile).verdicts
    assert isinstance(put, VerdictPut)
    assert isinstance(put.verdict, VolumePin)
    assert put.verdict.node_id == node_id(home)


def test_a_pinned_service_stays_on_a_drained_node(reconcile: Reconcile) -> None:
    """Its data cannot move, so it does not either, and the plan says so."""
    world = World.of(a_record(with_mount(MountKind.VOLUME, "data")))
    world.settle(reconcile)
    (home,) = homes(world)
    world.drained.add(home)
    plan = world.plan(reconcile)
    assert plan.actions == ()
    assert "to be drained" in plan.notes[0].message


# ---- what comes first


@pytest.mark.parametrize(
    ("condition", "almost", "enough"),
    [
        (DependencyCondition.STARTED, (AttemptState.STARTING, {}), (AttemptState.RUNNING, {})),
        (
            DependencyCondition.HEALTHY,
            (AttemptState.RUNNING, {"health": Health.STARTING}),
            (AttemptState.RUNNING, {"health": Health.HEALTHY}),
        ),
    ],
    ids=["started", "healthy"],
)
def test_a_service_begins_after_what_it_depends_on(
    reconcile: Reconcile,
    condition: DependencyCondition,
    almost: tuple[AttemptState, dict[str, object]],
    enough: tuple[AttemptState, dict[str, object]],
) -> None:
    """It waits for the condition once; later failures of the other service stop nothing."""
    web = replace(a_service("web"), depends_on=(Dependency("db", condition),))
    world = World.of(a_record(web), a_record(a_service("db")))
    plan = world.plan(reconcile)
    assert [action.slot.service for action in plan.actions] == ["db"]
    assert [note.subject for note in plan.notes] == ["shop/web"]
    world.carry_out(plan)
    say(world, 1, almost[0], **almost[1])
    assert world.plan(reconcile).actions == ()
    say(world, 1, enough[0], **enough[1])
    plan = world.plan(reconcile)
    assert [action.slot.service for action in plan.actions] == ["web"]
    world.carry_out(plan)
    say(world, 1, AttemptState.PENDING)
    assert world.plan(reconcile).actions == ()
    assert world.plan(reconcile).notes == ()


@pytest.mark.parametrize("is_required", [True, False])
def test_what_is_not_required_holds_back_until_it_has_failed(
    reconcile: Reconcile, is_required: bool
) -> None:
    """`required: false`: it is waited for while it may come to be, not after a failure."""
    dependency = Dependency("db", DependencyCondition.HEALTHY, required=is_required)
    web = replace(a_service("web"), depends_on=(dependency,))
    world = World.of(a_record(web), a_record(a_service("db")))
    world.carry_out(world.plan(reconcile))
    say(world, 1, AttemptState.RUNNING, health=Health.STARTING)
    assert world.plan(reconcile).actions == ()
    say(world, 1, AttemptState.RUNNING, health=Health.UNHEALTHY)
    begun = [action.slot.service for action in world.plan(reconcile).actions]
    assert begun == ([] if is_required else ["web"])


def test_a_service_waits_for_a_job_to_complete(reconcile: Reconcile) -> None:
    """The verdict counts, not the report; a failure is none."""
    dependency = Dependency("web", DependencyCondition.COMPLETED)
    after = replace(a_service("z"), depends_on=(dependency,))
    world = World.of(a_record(a_job(1)), a_record(after))
    world.carry_out(world.plan(reconcile))
    say(world, 1, AttemptState.COMPLETED, exit_code=0)
    plan = world.plan(reconcile)
    assert plan.actions == ()
    world.carry_out(plan)
    begun = [a for a in world.plan(reconcile).actions if isinstance(a, CreateTask)]
    assert [action.slot.service for action in begun] == ["z"]
