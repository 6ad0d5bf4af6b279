"""Does a round that looks at what has changed plan what a round over everything would?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dray.model import (
    Assignment,
    AttemptReport,
    AttemptState,
    NodeCondition,
    ServiceRecord,
    SlotKey,
    StoreRevision,
    TaskAssignment,
)
from dray.names import NodeId, RandomIds, TaskId
from scheduler.loops.dirty import Dirty
from scheduler.loops.fleet import Fleet
from scheduler.loops.plan import plan_round
from scheduler.loops.steps import Add, Drop, Step
from scheduler.nodes.shards import Shards
from scheduler.reconcile import HeldIndex, NodeObservation, Observed, reconcile
from scheduler.store.snapshot import Snapshot
from tests.builders import (
    CLUSTER_ID,
    EPOCH,
    a_key,
    a_node,
    a_record,
    a_service,
    a_snapshot,
    an_info,
    node_id,
    reserving,
)

NODES = 3
SERVICES = [("shop", "web"), ("shop", "db"), ("blog", "web"), ("blog", "cache")]


class World:
    """A small cluster that changes: services, nodes, reports, and what plans do to it."""

    def __init__(self) -> None:
        nodes = [a_node(number) for number in range(1, NODES + 1)]
        self.snapshot = a_snapshot(nodes=nodes)
        self.conditions = dict.fromkeys(range(1, NODES + 1), NodeCondition.READY)
        self.attempts: Shards[TaskId, AttemptReport] = Shards()
        self.infos = {number: an_info(number, cpus=2) for number in self.conditions}

    def observed(self) -> Observed:
        """Return what is observed now."""
        nodes = {
            node_id(number): NodeObservation(condition, 0.0, self.infos[number])
            for number, condition in self.conditions.items()
        }
        return Observed(nodes, self.attempts.view())

    def change(self, **tables: object) -> None:
        """Put other tables into the snapshot, one revision on."""
        revision = StoreRevision(self.snapshot.revision + 1)
        self.snapshot = replace(self.snapshot, revision=revision, **tables)  # type: ignore[arg-type]

    def ask(self, project: str, service: str, replicas: int, revision: int) -> None:
        """Ask for a service, or for its end with no replicas and revision 0."""
        services = dict(self.snapshot.services)
        revisions = dict(self.snapshot.revisions)
        key = a_key(service, project)
        if not revision:
            services.pop(key, None)
        else:
            spec = a_service(service, replicas=replicas, reservations=reserving(cpus=0.5))
            record: ServiceRecord = a_record(spec, revision=revision, project=project)
            services[key] = record
            revisions[(key, record.revision)] = record
        self.change(services=services, revisions=revisions)

    def carry_out(self, steps: Iterable[Step]) -> None:
        """Apply steps to the assignments."""
        held = {
            each: {task.task_id: task for task in assignment.tasks}
            for each, assignment in self.snapshot.assignments.items()
        }
        touched: set[NodeId] = set()
        for step in steps:
            for edit in step.edits:
                touched.add(edit.node_id)
                tasks = held.setdefault(edit.node_id, {})
                match edit:
                    case Add(_, task):
                        tasks[task.task_id] = task
                    case Drop(_, task_id):
                        tasks.pop(task_id, None)
                    case _:
                        tasks[edit.task_id] = replace(tasks[edit.task_id], stop=True)
        self.change(
            assignments={**self.snapshot.assignments}
            | {each: self._assignment(each, held[each].values()) for each in touched}
        )

    def _assignment(self, where: NodeId, tasks: Iterable[TaskAssignment]) -> Assignment:
        ordered = sorted(tasks, key=lambda task: (task.slot, task.task_id))
        return Assignment(CLUSTER_ID, where, EPOCH, self.snapshot.revision, tuple(ordered))

    def report(self, *, everything_runs: bool) -> None:
        """Report every task: it runs, or has ended where it was told to."""
        for assignment in self.snapshot.assignments.values():
            for task in assignment.tasks:
                known = self.attempts.get(task.task_id)
                state = AttemptState.STOPPED if task.stop else AttemptState.RUNNING
                if (everything_runs or task.stop) and (known is None or known.state is not state):
                    self.attempts.put(task.task_id, AttemptReport(task.task_id, 1, state))


EVENTS = st.one_of(
    st.tuples(
        st.just("ask"),
        st.sampled_from(SERVICES),
        st.integers(0, 6),
        st.integers(0, 3),
    ),
    st.tuples(
        st.just("node"),
        st.integers(1, NODES),
        st.sampled_from([NodeCondition.READY, NodeCondition.DOWN, NodeCondition.UNKNOWN]),
        st.just(0),
    ),
    st.tuples(st.just("report"), st.booleans(), st.just(0), st.just(0)),
)


def tell(world: World, event: tuple[object, ...]) -> None:
    """Let one thing happen."""
    match event:
        case ("ask", (str() as project, str() as service), int() as replicas, int() as revision):
            newest = world.snapshot.services.get(a_key(service, project))
            known = 0 if newest is None else newest.revision
            world.ask(project, service, replicas, known + 1 if revision else 0)
        case ("node", int() as number, NodeCondition() as condition, _):
            world.conditions[number] = condition
        case ("report", bool() as everything_runs, _, _):
            world.report(everything_runs=everything_runs)
        case _:
            raise AssertionError(event)


def slots_of(actions: Iterable[object]) -> list[tuple[str, SlotKey]]:
    """Return what actions are about, without the ids that they made up."""
    return [(type(action).__name__, action.slot) for action in actions]  # type: ignore[attr-defined]


@settings(max_examples=25, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_looking_at_what_changed_finds_all_that_is_to_be_done(
    events: list[tuple[object, ...]],
) -> None:
    """After anything that happens, the dirty part's plan is the whole's, round after round.

    But for slots that wait for room: they are looked at again when something may have made some.
    """
    world = World()
    dirty, fleet = Dirty(), Fleet()
    ids = RandomIds(random.Random(1).getrandbits)
    waiting: set[SlotKey] = set()
    for event in events:
        tell(world, event)
        for _ in range(3):
            observed = world.observed()
            scope = dirty.scope(world.snapshot, observed, is_full=False, is_time=False)
            part = plan_round(
                world.snapshot,
                observed,
                fleet,
                epoch=EPOCH,
                now_unix_s=0.0,
                ids=ids,
                scope=scope,
            )
            whole = reconcile(world.snapshot, observed, 0.0, ids)
            found, expected = slots_of(part.plan.actions), slots_of(whole.actions)
            assert found == [each for each in expected if each in found]
            assert {each[1] for each in expected if each not in found} <= waiting
            world.carry_out(part.steps)
            looked = scope.services
            if looked is not None:
                waiting = {each for each in waiting if each.service_key not in looked}
            else:
                waiting = set()
            waiting.update(part.waiting)
            timed = part.plan.wake_at_unix_s is not None
            dirty.done(scope, part.waiting, part.left, is_timed=timed)


TWO_PROJECTS_GO: list[tuple[object, ...]] = [
    *(("ask", (project, "web"), 1, 1) for project in ("shop", "blog")),
    *(("ask", (project, "web"), 0, 0) for project in ("shop", "blog")),
    ("node", 1, NodeCondition.DOWN, 0),  # both had their task there: two steps, of two projects
]


@settings(max_examples=25, deadline=None)
@example(TWO_PROJECTS_GO, 2, 1, [False] * 12)
@given(
    st.lists(EVENTS, max_size=12),
    st.integers(1, 8),
    st.integers(1, 4),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_rounds_of_limited_size_come_to_the_same_end(
    events: list[tuple[object, ...]], tasks_max: int, steps_max: int, full: list[bool]
) -> None:
    """A part at a time, each within its limits, until all is done that can be, and no longer."""
    world = World()
    dirty, fleet = Dirty(tasks_max), Fleet()
    ids = RandomIds(random.Random(1).getrandbits)
    for event, is_full in zip(events, full, strict=False):
        tell(world, event)
        for number in range(60):
            observed = world.observed()
            scope = dirty.scope(
                world.snapshot, observed, is_full=is_full and not number, is_time=False
            )
            assert scope.services is not None
            projects = {key.project for key in scope.services}
            assert len(projects) <= 1 or within(world, projects, tasks_max)
            planned = plan_round(
                world.snapshot,
                observed,
                fleet,
                epoch=EPOCH,
                now_unix_s=0.0,
                ids=ids,
                scope=scope,
                steps_max=steps_max,
            )
            assert len(planned.steps) <= steps_max
            world.carry_out(planned.steps)
            timed = planned.plan.wake_at_unix_s is not None
            dirty.done(scope, planned.waiting, planned.left, is_timed=timed)
            if not planned.steps and not dirty.has_more:
                break
        else:
            raise AssertionError("rounds without an end")
        whole = plan_round(
            world.snapshot, world.observed(), Fleet(), epoch=EPOCH, now_unix_s=0.0, ids=ids
        )
        assert not whole.steps


def within(world: World, projects: set[str], tasks_max: int) -> bool:
    """Return whether projects have no more tasks together than a round takes."""
    wanted = Counter(
        {key: record.spec.mode.replicas for key, record in world.snapshot.services.items()}
    )
    for key, slots in HeldIndex(world.snapshot).items():
        wanted[key] = max(wanted[key], len(slots))
    return sum(count for key, count in wanted.items() if key.project in projects) <= tasks_max


def test_a_node_that_changes_has_its_turn_before_a_large_deployment() -> None:
    """Projects that were asked for earlier, and do not fit into this round, come after it."""
    world = World()
    dirty, fleet = Dirty(tasks_max=2), Fleet()
    ids = RandomIds(random.Random(1).getrandbits)

    def look() -> set[str]:
        observed = world.observed()
        scope = dirty.scope(world.snapshot, observed, is_full=False, is_time=False)
        planned = plan_round(
            world.snapshot, observed, fleet, epoch=EPOCH, now_unix_s=0.0, ids=ids, scope=scope
        )
        world.carry_out(planned.steps)
        dirty.done(scope, planned.waiting, planned.left, is_timed=False)
        return {key.project for key in scope.services or ()}

    world.ask("shop", "web", 1, 1)
    while look():
        pass
    (home,) = world.snapshot.assignments
    for name in ("x", "y", "z"):
        world.ask(name, "web", 2, 1)
    assert look() == {"x"}
    assert dirty.has_more
    world.conditions[next(n for n in world.conditions if node_id(n) == home)] = NodeCondition.DOWN
    assert "shop" in look()
    seen: list[str] = []
    while found := look():
        seen += found
    assert {"y", "z"} <= set(seen)


def test_who_waits_for_room_is_looked_at_when_there_may_be_some() -> None:
    """A slot that found no node is not looked at while nothing changes, and is when a node has."""
    world = World()
    dirty, fleet = Dirty(), Fleet()
    ids = RandomIds(random.Random(1).getrandbits)
    world.ask("shop", "web", 4 * NODES + 1, 1)  # a node has room for four

    def look() -> tuple[int, int]:
        observed = world.observed()
        scope = dirty.scope(world.snapshot, observed, is_full=False, is_time=False)
        planned = plan_round(
            world.snapshot, observed, fleet, epoch=EPOCH, now_unix_s=0.0, ids=ids, scope=scope
        )
        world.carry_out(planned.steps)
        dirty.done(scope, planned.waiting, planned.left, is_timed=False)
        return len(planned.steps), len(planned.waiting)

    assert look() == (4 * NODES, 1)
    assert look() == (0, 1), "its service's tasks have changed"
    assert look() == (0, 0), "nothing has changed"
    nodes = {**world.snapshot.nodes, node_id(9): a_node(9)}
    world.change(nodes=nodes)
    assert look() == (0, 1), "a node is new, and unknown"
    world.infos[9], world.conditions[9] = an_info(9, cpus=2), NodeCondition.READY
    assert look() == (1, 0)


def listed(index: HeldIndex) -> dict[object, list[tuple[NodeId, TaskId]]]:
    """Return an index in a form that can be compared, orders included."""
    return {
        (key, number): [(item.node_id, item.task.task_id) for item in items]
        for key, slots in index.items()
        for number, items in slots.items()
    }


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Return a snapshot in which slots may be held twice."""
    tasks: dict[int, list[TaskAssignment]] = {}
    for number in draw(st.lists(st.integers(1, 40), unique=True, max_size=20)):
        slot = SlotKey("shop", f"web{number % 3}", 1 + number % 5)
        task = TaskAssignment(
            TaskId(node_id(number)), slot, a_record().revision, EPOCH, draw(st.booleans())
        )
        tasks.setdefault(draw(st.integers(1, NODES)), []).append(task)
    return a_snapshot(tasks=tasks)


@given(st.lists(snapshots(), max_size=5))
def test_an_index_that_moved_on_is_one_that_was_made_anew(path: list[Snapshot]) -> None:
    """Whatever snapshots came before, the index holds what the last one does, and says whose."""
    index = HeldIndex()
    for snapshot in path:
        before = listed(index)
        touched = index.update(snapshot)
        fresh = listed(HeldIndex(snapshot))
        assert listed(index) == fresh
        for key in {*before, *fresh}:
            assert before.get(key) == fresh.get(key) or key[0] in touched  # type: ignore[index]
        for assignment in snapshot.assignments.values():
            for task in assignment.tasks:
                assert index.service_of(task.task_id) == task.slot.service_key
