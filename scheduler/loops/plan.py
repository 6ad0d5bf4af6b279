"""What should a round do? From a snapshot and what was observed to steps, without acting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dray.model import Epoch, SlotKey
from dray.names import IdFactory
from scheduler.loops.displaced import displaced
from scheduler.loops.fleet import Fleet, groups_of
from scheduler.loops.steps import Step, needs_node, steps_of
from scheduler.placement import PlacementResult, place
from scheduler.reconcile import CreateTask, MoveTask, Observed, Plan, Scope, reconcile
from scheduler.store.snapshot import Snapshot

__all__ = ["STEPS_MAX", "RoundPlan", "plan_round"]

STEPS_MAX: Final = 20_000  # of one round; a project with more has its turn again at once


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """What a round does.

    Attributes:
        snapshot: What it was made from.
        observed: What it was made from.
        plan: What must change.
        placement: Where new tasks go, and why some go nowhere.
        steps: What is written.
        waiting: Slots that need a node and got none in this round.
        left: Projects with steps that are left to the next round.
    """

    snapshot: Snapshot
    observed: Observed
    plan: Plan
    placement: PlacementResult
    steps: tuple[Step, ...]
    waiting: tuple[SlotKey, ...] = ()
    left: frozenset[str] = frozenset()

    @property
    def unplaced(self) -> int:
        """Slots without room."""
        return sum(len(each.slots) for each in self.placement.unplaced)


def plan_round(
    snapshot: Snapshot,
    observed: Observed,
    fleet: Fleet,
    *,
    epoch: Epoch,
    now_unix_s: float,
    ids: IdFactory,
    scope: Scope | None = None,
    steps_max: int = STEPS_MAX,
) -> RoundPlan:
    """Return what a round does. Nothing but `fleet` is changed.

    Args:
        snapshot: What is stored.
        observed: What nodes reported.
        fleet: The nodes as the last round's placement saw them.
        epoch: The leader's term.
        now_unix_s: Wall clock.
        ids: Where ids of new tasks come from.
        scope: Which part of the cluster to look at; None: all of it.
        steps_max: How many steps a round carries out, unless gangs need more.
    """
    plan = reconcile(snapshot, observed, now_unix_s, ids, scope)
    wanted = [
        action
        for action in plan.actions
        if isinstance(action, CreateTask | MoveTask) and needs_node(snapshot, observed, action)
    ]
    placement = PlacementResult()
    if wanted:
        placement = place(fleet.view(snapshot, observed), groups_of(snapshot, wanted))
    actions = (*displaced(snapshot, observed, placement.evictions), *plan.actions)
    steps = steps_of(snapshot, observed, actions, placement, epoch=epoch, now_unix_s=now_unix_s)
    steps, left = _first(snapshot, steps, steps_max)
    begun = {step.action.task_id for step in steps} if wanted else set()
    waiting = tuple(action.slot for action in wanted if action.task_id not in begun)
    return RoundPlan(snapshot, observed, plan, placement, tuple(steps), waiting, left)


def _first(snapshot: Snapshot, steps: list[Step], count: int) -> tuple[list[Step], frozenset[str]]:
    """Return so many of the steps, and those of all gangs; and the projects of what is left out."""
    if len(steps) <= count:
        return steps, frozenset()
    gangs = {name for name, project in snapshot.projects.items() if project.spec.gang}
    rest = [step for step in steps[count:] if step.action.slot.project in gangs]
    left = frozenset(step.action.slot.project for step in steps[count:]) - gangs
    return [*steps[:count], *rest], left
