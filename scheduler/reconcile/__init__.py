"""What must change for the cluster to become what was asked: a pure function from state to plan."""

from scheduler.reconcile.actions import (
    Action,
    ActionReason,
    AssignmentDrop,
    CreateTask,
    ForgetTask,
    MoveTask,
    Note,
    Plan,
    ProjectDrop,
    StopTask,
    Verdict,
    VerdictChange,
    VerdictDrop,
    VerdictPut,
    VolumeRemoval,
)
from scheduler.reconcile.held import Held, HeldIndex
from scheduler.reconcile.observed import NodeObservation, Observed
from scheduler.reconcile.plan import Scope, reconcile
from scheduler.reconcile.services import subject_of

__all__ = [
    "Action",
    "ActionReason",
    "AssignmentDrop",
    "CreateTask",
    "ForgetTask",
    "Held",
    "HeldIndex",
    "MoveTask",
    "NodeObservation",
    "Note",
    "Observed",
    "Plan",
    "ProjectDrop",
    "Scope",
    "StopTask",
    "Verdict",
    "VerdictChange",
    "VerdictDrop",
    "VerdictPut",
    "VolumeRemoval",
    "reconcile",
    "subject_of",
]
