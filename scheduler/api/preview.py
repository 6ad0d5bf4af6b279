"""What would the leader do if the store were so? A plan that is made and not carried out."""

from __future__ import annotations

from dataclasses import dataclass

from dray.views import PendingExplanation, PlannedAction, PlannedActionKind
from scheduler.api.environment import Environment
from scheduler.api.views import State
from scheduler.reconcile import CreateTask, MoveTask, StopTask, reconcile
from scheduler.store.snapshot import Snapshot

__all__ = ["Planned", "preview"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What the leader would do, what it has no room for, and what to tell the user of it."""

    actions: tuple[PlannedAction, ...] = ()
    unplaced: tuple[PendingExplanation, ...] = ()
    warnings: tuple[str, ...] = ()


def preview(state: State, after: Snapshot, environment: Environment) -> Planned:
    """Return the next plan if the store were as `after`, as of now."""
    if state.memory is None:
        text = "there is no leader to plan with: what it would do is not known"
        return Planned(warnings=(text,))
    plan = reconcile(after, state.memory.observed, environment.clock.unix_s(), environment.ids)
    names = {node_id: record.name for node_id, record in after.nodes.items()}
    actions = []
    for action in plan.actions:
        match action:
            case CreateTask():
                kind, from_node = PlannedActionKind.CREATE, ""
            case StopTask():
                kind, from_node = PlannedActionKind.STOP, names.get(action.node_id, "")
            case MoveTask():
                kind, from_node = PlannedActionKind.MOVE, names.get(action.old_node_id, "")
            case _:
                continue
        actions.append(PlannedAction(kind, action.slot, from_node, "", action.reason.value))
    warnings = tuple(f"{note.subject}: {note.message}" for note in plan.notes)
    return Planned(tuple(actions), warnings=warnings)
