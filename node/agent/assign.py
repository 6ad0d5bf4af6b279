"""Which assignments does the node accept, what do they change, and what must come first? Pure."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dray.model import (
    Assignment,
    AttemptState,
    Dependency,
    DependencyCondition,
    Health,
    ProjectParts,
    ServiceKey,
    ServiceRevision,
    TaskAssignment,
    TaskSpecEntry,
)
from dray.names import ClusterId, NodeId, TaskId
from node.agent.tasks import TaskState

__all__ = [
    "TASKS_MAX",
    "Accepted",
    "Change",
    "Held",
    "NotAccepted",
    "Refusing",
    "Share",
    "accept",
    "change_to",
    "unmet",
]

TASKS_MAX: Final = 508  # tasks of a node: addresses of a /23 (DESIGN section 11)

_Revision = tuple[ServiceKey, ServiceRevision]


@dataclass(frozen=True)
class Share:
    """What the node should run, complete: the assignment with all specs, and the projects' parts.

    Attributes:
        assignment: Its `specs` hold every revision that a task refers to.
        projects: By name of the project.
    """

    assignment: Assignment
    projects: Mapping[str, ProjectParts] = field(default_factory=dict)

    @functools.cached_property
    def tasks(self) -> Mapping[TaskId, TaskAssignment]:
        """The tasks by id."""
        return {task.task_id: task for task in self.assignment.tasks}

    @functools.cached_property
    def _entries(self) -> Mapping[_Revision, TaskSpecEntry]:
        return {(entry.service, entry.service_revision): entry for entry in self.assignment.specs}

    def entry(self, task: TaskAssignment) -> TaskSpecEntry:
        """Return what a task of the share runs."""
        return self._entries[(task.slot.service_key, task.service_revision)]

    def parts(self, project: str) -> ProjectParts:
        """Return what a project brings along; nothing when the leader sent none."""
        return self.projects.get(project) or ProjectParts(project)


@dataclass(frozen=True, slots=True)
class Held:
    """What an assignment is measured against.

    Attributes:
        cluster_id: The node's cluster.
        node_id: The node.
        share: What it holds; None: nothing yet, which means *unknown*.
        specs: Revisions that this stream carried ahead.
    """

    cluster_id: ClusterId
    node_id: NodeId
    share: Share | None = None
    specs: tuple[TaskSpecEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is carried out from now on, once it is on the disk."""

    share: Share


class Refusing(enum.Enum):
    """Why an assignment is not taken."""

    WRONG_CLUSTER = 1
    WRONG_NODE = 2
    OLD = 3
    SPEC_MISSING = 4
    TOO_LARGE = 5
    NOT_SAVED = 6
    """The node's disk does not take it."""


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """The former one stands. `reason` is a sentence for people."""

    kind: Refusing
    reason: str


def accept(
    held: Held, assignment: Assignment, projects: Iterable[ProjectParts]
) -> Accepted | NotAccepted:
    """Decide whether an assignment replaces the one that the node holds.

    The same (epoch, mod revision) again is accepted: a new stream repeats what stands. The share
    that comes out holds the specs of all its tasks, taken from the message, from what the stream
    carried ahead, and from the share before.
    """
    if assignment.cluster_id != held.cluster_id:
        return NotAccepted(Refusing.WRONG_CLUSTER, "it is of another cluster")
    if assignment.node_id != held.node_id:
        return NotAccepted(Refusing.WRONG_NODE, f"it is for node {assignment.node_id}")
    if held.share is not None and assignment.version < held.share.assignment.version:
        return NotAccepted(
            Refusing.OLD,
            f"it is of {_text(assignment)}, the node holds one of {_text(held.share.assignment)}",
        )
    if len(assignment.tasks) > TASKS_MAX:
        return NotAccepted(
            Refusing.TOO_LARGE, f"{len(assignment.tasks)} tasks, {TASKS_MAX} are the most"
        )
    known = _known_specs(held, assignment)
    needed = sorted({(t.slot.service_key, t.service_revision) for t in assignment.tasks})
    missing = [key for key in needed if key not in known]
    if missing:
        (service, revision), count = missing[0], len(missing)
        more = f" and {count - 1} more" if count > 1 else ""
        name = f"{service.project}/{service.service}"
        return NotAccepted(
            Refusing.SPEC_MISSING, f"revision {revision} of {name}{more} was never sent"
        )
    whole = Assignment(
        assignment.cluster_id,
        assignment.node_id,
        assignment.epoch,
        assignment.mod_revision,
        assignment.tasks,
        tuple(known[key] for key in needed),
    )
    return Accepted(Share(whole, {parts.project: parts for parts in projects}))


def _text(assignment: Assignment) -> str:
    epoch = assignment.epoch
    return f"epoch {epoch.generation}/{epoch.create_revision}, revision {assignment.mod_revision}"


def _known_specs(held: Held, assignment: Assignment) -> dict[_Revision, TaskSpecEntry]:
    """Return all specs at hand; those of the message win."""
    before = held.share.assignment.specs if held.share is not None else ()
    every = (*before, *held.specs, *assignment.specs)
    return {(entry.service, entry.service_revision): entry for entry in every}


# ---- what it changes -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """What a share means for the tasks that the node knows.

    Attributes:
        start: Tasks that it does not know yet, in the assignment's order.
        stop: Tasks to end: told so, or listed by the assignment before and not by this one.
        keep: Known tasks that should run.
        orphans: Known tasks that the cluster lost by a restore: kept, reported, never touched.
        forget: Ended tasks that no assignment lists any more.
    """

    start: tuple[TaskAssignment, ...] = ()
    stop: tuple[TaskId, ...] = ()
    keep: tuple[TaskId, ...] = ()
    orphans: tuple[TaskId, ...] = ()
    forget: tuple[TaskId, ...] = ()


def change_to(
    share: Share, before: Share | None, known: Mapping[TaskId, TaskState], orphans: Iterable[TaskId]
) -> Change:
    """Return what a newly accepted share means for the tasks that the node knows.

    Args:
        share: What is to run from now on.
        before: What was; None: the node held nothing.
        known: All tasks that the node has a state of, orphans included.
        orphans: Which of them were orphans so far.
    """
    tasks = share.tasks
    generation = share.assignment.epoch.generation
    is_restored = before is None or before.assignment.epoch.generation < generation
    former_orphans = frozenset(orphans)
    start = tuple(
        task for task in share.assignment.tasks if task.task_id not in known and not task.stop
    )
    stop: list[TaskId] = []
    keep: list[TaskId] = []
    lost: list[TaskId] = []
    forget: list[TaskId] = []
    for task_id, state in known.items():
        task = tasks.get(task_id)
        if task is not None:
            (stop if task.stop else keep).append(task_id)
        elif task_id in former_orphans or (is_restored and not state.is_done):
            lost.append(task_id)
        elif state.is_done:
            forget.append(task_id)
        else:
            stop.append(task_id)
    return Change(start, tuple(stop), tuple(keep), tuple(lost), tuple(forget))


# ---- what must come first ------------------------------------------------------------------------


def unmet(
    dependencies: Iterable[Dependency], project: str, local: Mapping[ServiceKey, list[TaskState]]
) -> str:
    """Return what a task still waits for on this node, as a sentence; empty: nothing.

    Only services with a task here are waited for: the order across nodes is the leader's.
    """
    for dependency in dependencies:
        states = local.get(ServiceKey(project, dependency.service), [])
        states = [state for state in states if state.is_wanted]
        if states and not any(_holds(dependency.condition, state) for state in states):
            return f"waits for {dependency.service} {_WORDS[dependency.condition]}"
    return ""


_WORDS: Final = {
    DependencyCondition.STARTED: "to start",
    DependencyCondition.HEALTHY: "to be healthy",
    DependencyCondition.COMPLETED: "to complete",
}


def _holds(condition: DependencyCondition, state: TaskState) -> bool:
    match condition:
        case DependencyCondition.STARTED:
            return state.state is AttemptState.RUNNING or state.state is AttemptState.COMPLETED
        case DependencyCondition.HEALTHY:
            # without a check there is nothing to wait for but its start
            return state.state is AttemptState.RUNNING and state.health in (
                Health.HEALTHY,
                Health.NONE,
            )
        case DependencyCondition.COMPLETED:
            return state.state is AttemptState.COMPLETED
