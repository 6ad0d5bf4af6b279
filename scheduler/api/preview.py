"""What would the leader do if the store were so? A plan with its placement, made and not kept.

The same pure parts that the leader's round runs: reconcile, then place. It runs in a thread, since
a large cluster takes longer than the event loop can wait; one at a time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dray.model import ServiceKey, SlotKey
from dray.names import NodeId
from dray.views import (
    NodeRefusal,
    PendingExplanation,
    PlannedAction,
    PlannedActionKind,
    PlanRebalanceResponse,
    RefusalCount,
)
from scheduler.api.environment import Environment
from scheduler.api.ports import LeaderMemory
from scheduler.api.refusals import node_refusals
from scheduler.loops.fleet import Fleet, groups_of
from scheduler.loops.steps import needs_node
from scheduler.placement import (
    MoveGoal,
    PlacementResult,
    TaskGroup,
    Unplaced,
    place,
    plan_moves,
)
from scheduler.placement.cluster import ClusterView
from scheduler.reconcile import Action, CreateTask, MoveTask, Plan, StopTask, reconcile
from scheduler.store.snapshot import Snapshot

__all__ = ["Planned", "Previews"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What the leader would do, what it has no room for, and what to tell the user of it."""

    actions: tuple[PlannedAction, ...] = ()
    unplaced: tuple[PendingExplanation, ...] = ()
    warnings: tuple[str, ...] = ()


_NOBODY = Planned(warnings=("there is no leader to plan with: what it would do is not known",))


class Previews:
    """Makes plans that are not carried out."""

    def __init__(self, environment: Environment) -> None:
        """Take time and ids from the environment."""
        self._environment = environment
        self._fleet = Fleet(environment.rules)
        self._turn = asyncio.Lock()

    async def of(
        self, memory: LeaderMemory | None, after: Snapshot, only: ServiceKey | None = None
    ) -> Planned:
        """Return the next plan if the store were as `after`.

        Args:
            memory: What the leader holds; None: there is no leader, and nobody knows.
            after: The store as it would be.
            only: Leave out what is about other services.
        """
        if memory is None:
            return _NOBODY
        async with self._turn:
            return await asyncio.to_thread(self._planned, memory, after, only)

    async def moves(
        self, memory: LeaderMemory, snapshot: Snapshot, goal: MoveGoal, moves_max: int
    ) -> PlanRebalanceResponse:
        """Return which few moves would do most for a goal; nothing is changed."""
        async with self._turn:
            return await asyncio.to_thread(self._moves, memory, snapshot, goal, moves_max)

    def _moves(
        self, memory: LeaderMemory, snapshot: Snapshot, goal: MoveGoal, moves_max: int
    ) -> PlanRebalanceResponse:
        view = self._fleet.view(snapshot, memory.observed)
        plan = plan_moves(view, moves_max, goal)
        names = {node_id: record.name for node_id, record in snapshot.nodes.items()}
        there = _slots_there(snapshot)
        reason = "empties a node" if goal is MoveGoal.COMPACT else "evens out the nodes"
        actions = tuple(
            PlannedAction(
                PlannedActionKind.MOVE,
                there[move.from_node, move.service].pop(),
                names.get(move.from_node, ""),
                names.get(move.to_node, ""),
                reason,
            )
            for move in plan.moves
        )
        freed = sorted(names.get(node_id, "") for node_id in plan.emptied)
        return PlanRebalanceResponse(moves=actions, freed_nodes=tuple(freed))

    def _planned(self, memory: LeaderMemory, after: Snapshot, only: ServiceKey | None) -> Planned:
        environment, observed = self._environment, memory.observed
        plan = reconcile(after, observed, environment.clock.unix_s(), environment.ids)
        beginnings = [
            action
            for action in plan.actions
            if isinstance(action, CreateTask | MoveTask) and needs_node(after, observed, action)
        ]
        groups = groups_of(after, beginnings)
        view = self._fleet.view(after, observed)
        placement = place(view, groups)
        return Planned(
            _actions(after, plan, placement, only),
            _unplaced(view, groups, placement, only),
            _warnings(plan, only),
        )


def _slots_there(snapshot: Snapshot) -> dict[tuple[NodeId, ServiceKey], list[SlotKey]]:
    """Return the slots of each service on each node, the highest first: any of them may move."""
    found: dict[tuple[NodeId, ServiceKey], list[SlotKey]] = {}
    for node_id, assignment in snapshot.assignments.items():
        for task in assignment.tasks:
            if not task.stop:
                found.setdefault((node_id, task.slot.service_key), []).append(task.slot)
    for slots in found.values():
        slots.sort(reverse=True)
    return found


def _actions(
    snapshot: Snapshot, plan: Plan, placement: PlacementResult, only: ServiceKey | None
) -> tuple[PlannedAction, ...]:
    names = {node_id: record.name for node_id, record in snapshot.nodes.items()}
    goes_to: dict[SlotKey, str] = {
        each.slot: names.get(each.node_id, "") for each in placement.placed
    }
    return tuple(
        told
        for action in plan.actions
        if only is None or action.slot.service_key == only
        if (told := _told(action, names, goes_to)) is not None
    )


def _told(
    action: Action, names: dict[NodeId, str], goes_to: dict[SlotKey, str]
) -> PlannedAction | None:
    """Return an action for people; None for one that only tidies up."""
    reason = action.reason.value
    match action:
        case CreateTask(slot):
            to_node = goes_to.get(slot, "")
            return PlannedAction(PlannedActionKind.CREATE, slot, "", to_node, reason)
        case StopTask(slot):
            node = names.get(action.node_id, "")
            return PlannedAction(PlannedActionKind.STOP, slot, node, "", reason)
        case MoveTask(slot):
            node = names.get(action.old_node_id, "")
            to_node = goes_to.get(slot, "")
            return PlannedAction(PlannedActionKind.MOVE, slot, node, to_node, reason)
        case _:
            return None


def _unplaced(
    view: ClusterView,
    groups: list[TaskGroup],
    placement: PlacementResult,
    only: ServiceKey | None,
) -> tuple[PendingExplanation, ...]:
    by_slot = {slot: group for group in groups for slot in group.slots}
    found = []
    for each in placement.unplaced:
        group = by_slot[each.slots[0]]
        if only is None or group.service == only:
            nodes = node_refusals(view, group) if only is not None else ()
            found.append(_explanation(each, nodes))
    return tuple(found)


def _explanation(unplaced: Unplaced, nodes: tuple[NodeRefusal, ...]) -> PendingExplanation:
    summary, _, change = unplaced.advice.partition(". ")
    refusals = tuple(
        RefusalCount(
            count.reason.value,
            count.nodes,
            f"{count.nodes} {'node' if count.nodes == 1 else 'nodes'}: {count.reason.value}",
        )
        for count in unplaced.refusals
    )
    return PendingExplanation(unplaced.slots, summary, refusals, nodes, change)


def _warnings(plan: Plan, only: ServiceKey | None) -> tuple[str, ...]:
    subject = f"{only.project}/{only.service}" if only else ""
    return tuple(
        f"{note.subject}: {note.message}"
        for note in plan.notes
        if not subject or note.subject == subject or note.subject.startswith(f"{subject}.")
    )
