"""Which changes can a plan hold? The closed set of actions, each with its reason."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from dray.model import ServiceRevision, SlotKey, StoreRevision, UpdateOrder
from dray.names import NodeId, TaskId
from scheduler.store.records import JobVerdict, NodeVerdict, RolloutVerdict, VolumePin
from scheduler.store.snapshot import VolumeKey

__all__ = [
    "Action",
    "ActionReason",
    "AssignmentDrop",
    "CreateTask",
    "ForgetTask",
    "MoveTask",
    "Note",
    "Plan",
    "ProjectDrop",
    "StopTask",
    "Verdict",
    "VerdictChange",
    "VerdictDrop",
    "VerdictPut",
    "VolumeRemoval",
]


class ActionReason(enum.Enum):
    """Why something is done; the value is the phrase that people and events see."""

    NEW_SLOT = "new slot"
    SCALED_DOWN = "scaled down"
    SERVICE_REMOVED = "service removed"
    NEW_REVISION = "new revision"
    NODE_DOWN = "node down"
    NODE_ISOLATED = "node isolated"
    NODE_REMOVED = "node removed"
    NODE_DRAINED = "node drained"
    DUPLICATE = "slot held twice"
    NODE_UNSUITABLE = "node no longer suits"
    JOB_DONE = "job done"
    ROLLED_BACK = "rolled back"
    ENDED = "task ended"
    DISPLACED = "makes room for a higher priority"


@dataclass(frozen=True, slots=True)
class CreateTask:
    """Place a new task for a slot that has none.

    Attributes:
        slot: The slot.
        task_id: Id of the task to be made.
        service_revision: What it runs.
        reason: Why.
        pinned_to: The only node that will do (a volume's data is there, or the slot is the
            node's), or None.
        pins: Volumes whose data will be where the task goes: the transaction that assigns it also
            writes a `VolumePin` for each. Of services that share one the first decides.
    """

    slot: SlotKey
    task_id: TaskId
    service_revision: ServiceRevision
    reason: ActionReason
    pinned_to: NodeId | None = None
    pins: tuple[VolumeKey, ...] = ()


@dataclass(frozen=True, slots=True)
class StopTask:
    """Tell a node to end a task; it stays in the assignment, marked, until its end was reported."""

    slot: SlotKey
    task_id: TaskId
    node_id: NodeId
    reason: ActionReason


@dataclass(frozen=True, slots=True)
class MoveTask:
    """Replace a slot's task by a new one, on the same node or elsewhere.

    How far it is carried out at once is the executor's choice; the next plan continues from there.
    STOP_FIRST: the old one is told to stop, and the new one is made when that end was reported (by
    a later plan), or waits for it on its node. START_FIRST: the new one is made, and the old one is
    told to stop when the new one runs (by a later plan). Of a task on a node that is down nothing
    is awaited: it leaves its assignment in the commit that adds the new one.

    Attributes:
        slot: The slot.
        old_task_id: The task that ends.
        old_node_id: Where it is.
        task_id: Id of the task to be made.
        service_revision: What the new one runs.
        reason: Why.
        order: Whether the old one ends first.
        pinned_to: The only node that will do, or None.
        pins: As with `CreateTask`.
    """

    slot: SlotKey
    old_task_id: TaskId
    old_node_id: NodeId
    task_id: TaskId
    service_revision: ServiceRevision
    reason: ActionReason
    order: UpdateOrder
    pinned_to: NodeId | None = None
    pins: tuple[VolumeKey, ...] = ()


@dataclass(frozen=True, slots=True)
class ForgetTask:
    """Take a task out of its node's assignment: its end was reported, or its node is down.

    A node that returns ends what it runs and is not assigned.
    """

    slot: SlotKey
    task_id: TaskId
    node_id: NodeId
    reason: ActionReason


Action: TypeAlias = CreateTask | StopTask | MoveTask | ForgetTask

Verdict: TypeAlias = JobVerdict | NodeVerdict | RolloutVerdict | VolumePin


@dataclass(frozen=True, slots=True)
class VerdictPut:
    """Store what was concluded for good, under the key that the verdict itself names."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class VerdictDrop:
    """Remove a stored verdict: what it is about is gone, or it holds no longer."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class AssignmentDrop:
    """Delete the empty assignment of a node that is no longer registered."""

    node_id: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class ProjectDrop:
    """Delete a project's record: it is being removed and nothing of it is left.

    With it go its kept revisions and contents.
    """

    project: str
    reason: str


VerdictChange: TypeAlias = VerdictPut | VerdictDrop | AssignmentDrop | ProjectDrop
"""What is written beside assignments. Fenced like all of the leader's writes."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth telling people that changes nothing: what it is about, and a sentence."""

    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class VolumeRemoval:
    """Tell a node to remove volumes that it has; said again until it reports them gone."""

    node_id: NodeId
    project: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done; nothing in it is left to decide but which node a new task goes to.

    Attributes:
        base_revision: Revision of the snapshot that it was made from.
        actions: In the order in which they matter: stops first, so that their room is free for what
            comes.
        verdicts: What is to be stored of what was concluded. Independent of the actions: an action
            that rests on a verdict is planned when the verdict is stored. At most one a key.
        notes: For people.
        removals: Volumes that go with their project.
        wake_at_unix_s: When the next round is due even if nothing happens; None: no such time.
    """

    base_revision: StoreRevision
    actions: tuple[Action, ...] = ()
    verdicts: tuple[VerdictChange, ...] = ()
    notes: tuple[Note, ...] = ()
    removals: tuple[VolumeRemoval, ...] = ()
    wake_at_unix_s: float | None = None

    def fields(self) -> dict[str, int]:
        """Return the plan in numbers, for the round's log line: what it holds, not what is done."""
        return {
            "base_revision": self.base_revision,
            "planned": len(self.actions),
            "verdicts": len(self.verdicts),
        }
