"""Which assignments are taken, and what do they mean for the tasks that the node knows?"""

from __future__ import annotations

import dataclasses

import pytest

from dray.model import (
    Assignment,
    AttemptState,
    ContainerSpec,
    Dependency,
    DependencyCondition,
    Epoch,
    Health,
    ImageOptions,
    ProjectParts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    StoreRevision,
    TaskAssignment,
    TaskSpecEntry,
    TaskTemplate,
)
from dray.names import ClusterId, NodeId, TaskId
from node.agent.assign import (
    TASKS_MAX,
    Accepted,
    Held,
    NotAccepted,
    Refusing,
    Share,
    accept,
    change_to,
    unmet,
)
from node.agent.tasks import TaskState

CLUSTER = ClusterId("c" * 25 + "a")
NODE = NodeId("n" * 25 + "a")
EPOCH = Epoch(1, 50)
WEB = ServiceKey("shop", "web")
ENTRY = TaskSpecEntry(WEB, ServiceRevision(1), TaskTemplate(ContainerSpec(ImageOptions("busybox"))))


def a_task(number: int, *, stop: bool = False, revision: int = 1) -> TaskAssignment:
    """Return one task of the service."""
    slot = SlotKey("shop", "web", number)
    return TaskAssignment(task_id(number), slot, ServiceRevision(revision), EPOCH, stop)


def task_id(number: int) -> TaskId:
    """Return the id of a task."""
    return TaskId(f"{number:026d}")


def an_assignment(
    *tasks: TaskAssignment,
    mod_revision: int = 100,
    epoch: Epoch = EPOCH,
    specs: tuple[TaskSpecEntry, ...] = (ENTRY,),
) -> Assignment:
    """Return an assignment of the node."""
    return Assignment(CLUSTER, NODE, epoch, StoreRevision(mod_revision), tasks, specs)


def held(share: Share | None = None, **changes: object) -> Held:
    """Return what the node holds."""
    return dataclasses.replace(Held(CLUSTER, NODE, share), **changes)  # type: ignore[arg-type]


def a_share(*tasks: TaskAssignment, **changes: object) -> Share:
    """Return an accepted share."""
    return Share(an_assignment(*tasks, **changes))  # type: ignore[arg-type]


def a_state(
    number: int, state: AttemptState = AttemptState.RUNNING, **changes: object
) -> TaskState:
    """Return what the node knows of a task."""
    base = TaskState(task_id(number), SlotKey("shop", "web", number), state=state)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_the_first_assignment_is_taken_with_its_parts() -> None:
    """What comes out holds every spec that its tasks need, and the projects' parts."""
    parts = ProjectParts("shop")
    taken = accept(held(), an_assignment(a_task(1), a_task(2)), [parts])
    assert isinstance(taken, Accepted)
    assert taken.share.entry(a_task(2)) == ENTRY
    assert taken.share.parts("shop") is parts
    assert taken.share.parts("other") == ProjectParts("other")


@pytest.mark.parametrize(
    ("assignment", "kind"),
    [
        (dataclasses.replace(an_assignment(), cluster_id=ClusterId("x")), Refusing.WRONG_CLUSTER),
        (dataclasses.replace(an_assignment(), node_id=NodeId("x")), Refusing.WRONG_NODE),
        (an_assignment(mod_revision=99), Refusing.OLD),
        (an_assignment(mod_revision=200, epoch=Epoch(1, 49)), Refusing.OLD),
        (an_assignment(*map(a_task, range(1, TASKS_MAX + 2))), Refusing.TOO_LARGE),
        (an_assignment(a_task(1, revision=2)), Refusing.SPEC_MISSING),
    ],
)
def test_what_is_refused_says_why(assignment: Assignment, kind: Refusing) -> None:
    """A refusal names the reason; the share that stands is not touched."""
    answer = accept(held(a_share()), assignment, [])
    assert isinstance(answer, NotAccepted)
    assert answer.kind is kind
    assert answer.reason


@pytest.mark.parametrize(
    "newer",
    [
        an_assignment(a_task(1)),
        an_assignment(a_task(1), mod_revision=101),
        an_assignment(a_task(1), epoch=Epoch(1, 60), mod_revision=101),
        an_assignment(a_task(1), epoch=Epoch(2, 5), mod_revision=7),
    ],
)
def test_the_same_again_and_all_that_is_newer_is_taken(newer: Assignment) -> None:
    """A new stream repeats what stands; after a restore, revisions begin lower."""
    assert isinstance(accept(held(a_share()), newer, []), Accepted)


def test_specs_come_from_the_stream_and_from_the_share_before() -> None:
    """The leader sends a revision once a stream; the node keeps it as long as a task needs it."""
    bare = an_assignment(a_task(1), mod_revision=101, specs=())
    assert isinstance(accept(held(), bare, []), NotAccepted)
    assert isinstance(accept(held(specs=(ENTRY,)), bare, []), Accepted)
    taken = accept(held(a_share(a_task(1))), bare, [])
    assert isinstance(taken, Accepted)
    assert taken.share.assignment.specs == (ENTRY,)
    emptied = accept(held(taken.share), an_assignment(mod_revision=102), [])
    assert isinstance(emptied, Accepted)
    assert emptied.share.assignment.specs == ()


def test_a_share_starts_keeps_stops_and_forgets() -> None:
    """New tasks start, listed ones stay, unlisted ones end, ended ones are forgotten."""
    before = a_share(a_task(1), a_task(2), a_task(3), a_task(4))
    share = a_share(a_task(1), a_task(2, stop=True), a_task(5), a_task(6, stop=True))
    known = {
        task_id(1): a_state(1),
        task_id(2): a_state(2),
        task_id(3): a_state(3),
        task_id(4): a_state(4, AttemptState.STOPPED),
    }
    change = change_to(share, before, known, ())
    assert change.keep == (task_id(1),)
    assert change.stop == (task_id(2), task_id(3))
    assert change.forget == (task_id(4),)
    assert [task.task_id for task in change.start] == [task_id(5)]
    assert change.orphans == ()


def test_an_empty_share_stops_everything() -> None:
    """Present and empty means stop; only an absent one means unknown."""
    change = change_to(a_share(), a_share(a_task(1)), {task_id(1): a_state(1)}, ())
    assert change.stop == (task_id(1),)


def test_what_a_restore_lost_is_an_orphan_until_it_is_listed_again() -> None:
    """A task of an older generation that is not listed is kept, also by later shares."""
    known = {task_id(1): a_state(1), task_id(2): a_state(2)}
    restored = a_share(a_task(2), epoch=Epoch(2, 5), mod_revision=7)
    change = change_to(restored, a_share(a_task(1), a_task(2)), known, ())
    assert (change.orphans, change.keep, change.stop) == ((task_id(1),), (task_id(2),), ())
    later = a_share(epoch=Epoch(2, 5), mod_revision=8)
    change = change_to(later, restored, known, change.orphans)
    assert (change.orphans, change.stop) == ((task_id(1),), (task_id(2),))
    back = a_share(a_task(1), epoch=Epoch(2, 5), mod_revision=9)
    assert change_to(back, later, known, (task_id(1),)).keep == (task_id(1),)


def test_what_a_node_without_a_share_runs_is_an_orphan() -> None:
    """A node that lost its files does not stop what it cannot explain."""
    change = change_to(a_share(), None, {task_id(1): a_state(1)}, ())
    assert change.orphans == (task_id(1),)


@pytest.mark.parametrize(
    ("condition", "state", "health", "is_met"),
    [
        (DependencyCondition.STARTED, AttemptState.STARTING, Health.NONE, False),
        (DependencyCondition.STARTED, AttemptState.RUNNING, Health.STARTING, True),
        (DependencyCondition.HEALTHY, AttemptState.RUNNING, Health.STARTING, False),
        (DependencyCondition.HEALTHY, AttemptState.RUNNING, Health.HEALTHY, True),
        (DependencyCondition.HEALTHY, AttemptState.RUNNING, Health.NONE, True),
        (DependencyCondition.COMPLETED, AttemptState.RUNNING, Health.NONE, False),
        (DependencyCondition.COMPLETED, AttemptState.COMPLETED, Health.NONE, True),
        (DependencyCondition.COMPLETED, AttemptState.FAILED, Health.NONE, False),
    ],
)
def test_a_task_waits_for_what_it_depends_on_here(
    condition: DependencyCondition, state: AttemptState, health: Health, is_met: bool
) -> None:
    """The condition is about the other service's tasks on this node."""
    local = {ServiceKey("shop", "db"): [a_state(1, state, health=health)]}
    reason = unmet([Dependency("db", condition)], "shop", local)
    assert (reason == "") is is_met
    assert is_met or "waits for db" in reason
    assert unmet([Dependency("db", condition)], "other", local) == ""


def test_services_without_a_task_here_are_not_waited_for() -> None:
    """Also those whose tasks are ending: the order across nodes is the leader's."""
    ending = [a_state(1, AttemptState.STOPPING, is_wanted=False)]
    assert unmet([Dependency("db")], "shop", {}) == ""
    assert unmet([Dependency("db")], "shop", {ServiceKey("shop", "db"): ending}) == ""
