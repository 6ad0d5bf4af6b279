"""What becomes of plans? A cluster in memory that places, carries out and reports.

It stands for the leader's commit and for the nodes, with nothing left to decide but what DESIGN
leaves to them: how far a move is carried out at once (`Moves`), and how much of a plan a commit
gets through before it is cut short.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dray.model import (
    AttemptReport,
    AttemptState,
    Availability,
    NodeCondition,
    ResourceReservations,
    ServiceKey,
    ServiceRecord,
    ServiceRevision,
    SlotKey,
    Taint,
    TaskAssignment,
    UpdateOrder,
    string_map,
)
from dray.names import NodeId, TaskId
from scheduler.placement import PlacementNode, RunningShare, TaskGroup, cluster_view, place
from scheduler.reconcile import (
    AssignmentDrop,
    CreateTask,
    ForgetTask,
    MoveTask,
    NodeObservation,
    Observed,
    Plan,
    StopTask,
    Verdict,
    VerdictChange,
    VerdictDrop,
    VerdictPut,
)
from scheduler.reconcile.verdicts import verdict_key
from scheduler.store.records import JobVerdict, NodeVerdict, RolloutVerdict, VolumePin
from scheduler.store.snapshot import Snapshot, VolumeKey
from tests.builders import (
    EPOCH,
    CountingIds,
    a_node,
    a_placement_node,
    a_snapshot,
    an_info,
    node_id,
)
from tests.contract.placement import oracle
from tests.contract.reconcile.implementations import Reconcile
from tests.contract.reconcile.safety import check_plan

__all__ = ["ROUNDS_MAX", "Moves", "World"]

ROUNDS_MAX = 60  # a slot needs four: stop, reported end, creation, forgetting; one after another
ROUND_S = 10.0  # longer than a rollout watches its tasks


class Moves(enum.Enum):
    """How far a move is carried out at once; both are allowed."""

    IN_STEPS = 1
    """STOP_FIRST only stops the old task, START_FIRST only makes the new one."""
    IN_ONE_COMMIT = 2
    """The old one is told to stop in the commit that makes the new one."""


@dataclass(slots=True)
class World:
    """Some nodes, what they should run, and what was last heard of it.

    Attributes:
        services: What is asked for.
        capacities: Every node by number, as placement sees it without its tasks.
        tasks: Assignments by number of the node.
        conditions: What the leader holds nodes to be; absent: unknown.
        attempts: What was reported; absent: unknown.
        reservations: What a task of each service takes, of removed ones too.
        moves: How moves are carried out.
        ids: Where ids come from.
    """

    services: dict[ServiceKey, ServiceRecord]
    capacities: Mapping[int, PlacementNode]
    tasks: dict[int, list[TaskAssignment]] = field(default_factory=dict)
    conditions: dict[int, NodeCondition] = field(default_factory=dict)
    attempts: dict[TaskId, AttemptReport] = field(default_factory=dict)
    reservations: Mapping[ServiceKey, ResourceReservations] = field(default_factory=dict)
    moves: Moves = Moves.IN_STEPS
    now_unix_s: float = 1_000.0
    drained: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    labels: dict[int, dict[str, str]] = field(default_factory=dict)
    taints: dict[int, tuple[Taint, ...]] = field(default_factory=dict)
    stored: dict[str, Verdict] = field(default_factory=dict)
    revisions: dict[tuple[ServiceKey, ServiceRevision], ServiceRecord] = field(default_factory=dict)
    ids: CountingIds = field(default_factory=CountingIds)

    @classmethod
    def of(cls, *records: ServiceRecord, nodes: int = 3) -> World:
        """Return a world of roomy, ready nodes that run nothing yet."""
        numbers = range(1, nodes + 1)
        return cls(
            {ServiceKey(each.project, each.spec.name): each for each in records},
            {number: a_placement_node(number) for number in numbers},
            {number: [] for number in numbers},
            dict.fromkeys(numbers, NodeCondition.READY),
        )

    def snapshot(self) -> Snapshot:
        """Return what is stored."""
        snapshot = a_snapshot(self.services.values(), self.tasks)
        verdicts = list(self.stored.values())
        return replace(
            snapshot,
            revisions=dict(self.revisions),
            nodes={
                node_id(number): a_node(
                    number,
                    labels=self.labels.get(number),
                    taints=self.taints.get(number, ()),
                    availability=Availability.DRAIN
                    if number in self.drained
                    else Availability.ACTIVE,
                )
                for number in self.capacities
                if number not in self.removed
            },
            rollouts={each.service: each for each in verdicts if isinstance(each, RolloutVerdict)},
            job_verdicts={each.slot: each for each in verdicts if isinstance(each, JobVerdict)},
            node_verdicts={
                each.node_id: each for each in verdicts if isinstance(each, NodeVerdict)
            },
            volume_pins={
                VolumeKey(each.project, each.volume): each
                for each in verdicts
                if isinstance(each, VolumePin)
            },
        )

    def observed(self) -> Observed:
        """Return what is known of the nodes."""
        nodes = {
            node_id(number): NodeObservation(condition, 0.0, an_info(number))
            for number, condition in self.conditions.items()
            if number not in self.removed
        }
        return Observed(nodes, dict(self.attempts))

    def plan(self, reconcile: Reconcile) -> Plan:
        """Return a plan for the state as it is, after its safety was checked."""
        snapshot, observed = self.snapshot(), self.observed()
        given_before = len(self.ids.given)
        plan = reconcile(snapshot, observed, self.now_unix_s, self.ids)
        check_plan(snapshot, observed, plan, self.ids.given[given_before:])
        return plan

    def carry_out(self, plan: Plan, actions_max: int | None = None) -> list[SlotKey]:
        """Carry out a plan, or only its first actions; return the slots that found no node."""
        actions = plan.actions if actions_max is None else plan.actions[:actions_max]
        for change in plan.verdicts if actions_max is None else plan.verdicts[:actions_max]:
            self._conclude(change)
        for action in actions:
            if isinstance(action, StopTask):
                self._stop(action.node_id, action.task_id)
            elif isinstance(action, ForgetTask):
                self._forget(action.node_id, action.task_id)
        begun = [action for action in actions if isinstance(action, CreateTask | MoveTask)]
        needing = []
        for action in begun:
            if isinstance(action, MoveTask) and self._only_stops(action):
                self._stop(action.old_node_id, action.old_task_id)
            else:
                needing.append(action)
        where = self._place(needing)
        for action in needing:
            if action.slot in where:
                self._begin(action, where[action.slot])
        return [action.slot for action in needing if action.slot not in where]

    def report(self) -> None:
        """Let every node that is not down do what it is told, and say so."""
        listed = {task.task_id for tasks in self.tasks.values() for task in tasks}
        self.attempts = {key: value for key, value in self.attempts.items() if key in listed}
        for number, tasks in self.tasks.items():
            if number in self.removed or self.conditions.get(number) is NodeCondition.DOWN:
                continue
            self.conditions[number] = NodeCondition.READY
            for task in tasks:
                state = AttemptState.STOPPED if task.stop else AttemptState.RUNNING
                self.attempts[task.task_id] = AttemptReport(task.task_id, 1, state)

    def settle(self, reconcile: Reconcile) -> list[SlotKey]:
        """Plan, carry out and report until nothing changes; return the slots without a node."""
        for _ in range(ROUNDS_MAX):
            plan = self.plan(reconcile)
            before = self._state()
            unplaced = self.carry_out(plan)
            self.check_room()
            self.report()
            self.now_unix_s += ROUND_S
            if self._state() == before:
                assert len(unplaced) == len(plan.actions), f"nothing comes of {plan.actions}"
                return unplaced
        raise AssertionError(f"no rest after {ROUNDS_MAX} rounds: {plan.actions}")

    def live(self) -> Counter[SlotKey]:
        """Return how many tasks each slot has that are not told to stop."""
        return Counter(
            task.slot for tasks in self.tasks.values() for task in tasks if not task.stop
        )

    def wanted(self) -> set[SlotKey]:
        """Return the slots that are asked for."""
        return {
            SlotKey(key.project, key.service, number)
            for key, record in self.services.items()
            for number in range(1, record.spec.mode.replicas + 1)
        }

    def all_tasks(self) -> list[TaskAssignment]:
        """Return the tasks of all assignments."""
        return [task for number in sorted(self.tasks) for task in self.tasks[number]]

    def check_room(self) -> None:
        """Assert that no node was given more than it has, tasks that are ending included.

        Worlds start within their capacity.
        """
        view = cluster_view([self._placement_node(number) for number in self.capacities])
        assert (view.free >= 0).all(), f"over-committed: {view.free.tolist()}"

    def _state(self) -> object:
        tasks = {number: sorted(map(repr, listed)) for number, listed in self.tasks.items()}
        return tasks, dict(self.conditions), dict(self.attempts), dict(self.stored)

    def _only_stops(self, action: MoveTask) -> bool:
        is_in_steps = self.moves is Moves.IN_STEPS
        is_stop_first = action.order is UpdateOrder.STOP_FIRST
        return is_in_steps and is_stop_first and not self._is_gone(action.old_node_id)

    def _begin(self, action: CreateTask | MoveTask, number: int) -> None:
        task = TaskAssignment(action.task_id, action.slot, action.service_revision, EPOCH)
        self.tasks[number].append(task)
        for key in action.pins:
            pin = VolumePin(key.project, key.volume, node_id(number), self.now_unix_s)
            self._conclude(VerdictPut(pin, "its task goes there"))
        if not isinstance(action, MoveTask):
            return
        if self._is_gone(action.old_node_id):
            self._forget(action.old_node_id, action.old_task_id)
        elif self.moves is Moves.IN_ONE_COMMIT:
            self._stop(action.old_node_id, action.old_task_id)

    def _conclude(self, change: VerdictChange) -> None:
        """Store or remove one verdict; of removed nodes the empty assignment is forgotten."""
        key = verdict_key(change)
        match change:
            case VerdictPut(verdict):
                self.stored[key] = verdict
            case VerdictDrop():
                self.stored.pop(key, None)
            case AssignmentDrop(gone):
                assert self.tasks.pop(self._number(gone)) == []

    def _place(self, actions: list[CreateTask | MoveTask]) -> dict[SlotKey, int]:
        by_service: dict[tuple[ServiceKey, NodeId | None], list[SlotKey]] = {}
        for action in actions:
            kind = (action.slot.service_key, action.pinned_to)
            by_service.setdefault(kind, []).append(action.slot)
        groups = tuple(
            TaskGroup(
                key,
                self.services[key].spec,
                tuple(slots),
                self.services[key].spec.mode.replicas,
                pinned_to,
            )
            for (key, pinned_to), slots in by_service.items()
        )
        nodes = [self._placement_node(number) for number in self.capacities]
        result = place(cluster_view(nodes), groups)
        oracle.check(nodes, groups, result)
        return {placed.slot: self._number(placed.node_id) for placed in result.placed}

    def _placement_node(self, number: int) -> PlacementNode:
        counts = Counter(task.slot.service_key for task in self.tasks.get(number, []))
        shares = tuple(
            RunningShare(key, count, self._reservations(key)) for key, count in counts.items()
        )
        is_ready = (
            self.conditions.get(number) is NodeCondition.READY
            and number not in self.drained | self.removed
        )
        return replace(
            self.capacities[number],
            accepts_new=is_ready,
            running=shares,
            labels=string_map(self.labels.get(number, {})),
            taints=self.taints.get(number, ()),
        )

    def _reservations(self, key: ServiceKey) -> ResourceReservations:
        if key in self.reservations:
            return self.reservations[key]
        record = self.services.get(key)
        return record.spec.task.reservations if record else ResourceReservations()

    def _is_gone(self, of: NodeId) -> bool:
        number = self._number(of)
        return number in self.removed or self.conditions.get(number) is NodeCondition.DOWN

    def _number(self, of: NodeId) -> int:
        return next(number for number in self.capacities if node_id(number) == of)

    def _stop(self, of: NodeId, task: TaskId) -> None:
        tasks = self.tasks[self._number(of)]
        self.tasks[self._number(of)] = [
            replace(each, stop=True) if each.task_id == task else each for each in tasks
        ]

    def _forget(self, of: NodeId, task: TaskId) -> None:
        tasks = self.tasks[self._number(of)]
        self.tasks[self._number(of)] = [each for each in tasks if each.task_id != task]
