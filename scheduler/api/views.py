"""What does a reply say of what is stored and observed? Pure: a `State` gives its values.

What is observed comes from a leader alone. Without one every task is *unknown*, never "not
running". A report of a node whose stream is lost is old news: its tasks are unknown as well, with
the node's condition as the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dray.model import (
    TERMINAL_ATTEMPT_STATES,
    UNPUBLISHED,
    AttemptReport,
    AttemptState,
    Health,
    NodeCapacity,
    NodeCondition,
    NodeRecord,
    ServiceKey,
    ServiceModeKind,
    ServiceRecord,
    SlotKey,
    StoreRevision,
)
from dray.names import NodeId
from dray.views import (
    ConditionCount,
    Node,
    Project,
    Rollout,
    RolloutState,
    Service,
    SlotState,
    SlotStateCount,
    Task,
)
from scheduler.api.index import HeldTask, TaskIndex
from scheduler.api.ports import LeaderMemory
from scheduler.reconcile import NodeObservation
from scheduler.store.keys import node_key, project_key
from scheduler.store.snapshot import Snapshot

__all__ = ["UNCHECKED", "State", "is_current"]

PROBLEMS_MAX: Final = 10
NEVER: Final = float("inf")
UNCHECKED: Final = "its health check has not succeeded yet"
_LIVE_STREAM: Final = frozenset({NodeCondition.READY, NodeCondition.ISOLATED})
# Why a node is held to be so, as the leader judges it.
_CONDITION_TEXTS: Final[Mapping[NodeCondition, str]] = {
    NodeCondition.READY: "",
    NodeCondition.ISOLATED: "its stream is up, and no peer reaches it",
    NodeCondition.UNREACHABLE: "its stream is lost, and some peer still hears it",
    NodeCondition.STALLED: "its kernel accepts connections, and nothing in user space answers",
    NodeCondition.AGENT_DOWN: "its daemon is gone: its kernel refuses connections",
    NodeCondition.DOWN: "its stream is lost, and no peer hears it",
    NodeCondition.UNKNOWN: "it has not connected to this leader",
}
_JOBS: Final = frozenset({ServiceModeKind.REPLICATED_JOB, ServiceModeKind.GLOBAL_JOB})
_COUNTED: Final = frozenset({ServiceModeKind.REPLICATED, ServiceModeKind.REPLICATED_JOB})


def is_current(snapshot: Snapshot, key: ServiceKey, held: HeldTask) -> bool:
    """Return whether a task runs what is asked for now.

    A revision that changes only numbers or policies leaves tasks of an older one as they are.
    """
    newest = snapshot.services.get(key)
    if newest is None:
        return False
    if newest.revision == held.task.service_revision:
        return True
    older = snapshot.revisions.get((key, held.task.service_revision))
    if older is None:
        return False
    return (older.spec.task, older.spec.ports) == (newest.spec.task, newest.spec.ports)


@dataclass(frozen=True, slots=True)
class State:
    """What a reply is made from, at one moment.

    Attributes:
        snapshot: What is stored.
        index: Its tasks; as of the same snapshot.
        memory: What the leader holds; None: no leader could be asked.
        now_unix_s: Wall clock, seconds.
    """

    snapshot: Snapshot
    index: TaskIndex
    memory: LeaderMemory | None = None
    now_unix_s: float = 0.0

    # --- tasks ---

    def task(self, held: HeldTask, *, with_usage: bool = False) -> Task:
        """Return one task as replies have it."""
        task = held.task
        key = task.slot.service_key
        record = self.snapshot.revisions.get((key, task.service_revision))
        record = record or self.snapshot.services.get(key)
        node = self.snapshot.nodes.get(held.node_id)
        report = self._report(held)
        state, reason = self._slot_state(held, report)
        usage = self.memory.usage.get(task.task_id) if with_usage and self.memory else None
        return Task(
            task.slot,
            state,
            task.task_id,
            held.node_id,
            node.name if node else "",
            task.service_revision,
            task.epoch,
            record.spec.task.container.image.reference if record else "",
            report,
            reason,
            task.stop,
            usage,
        )

    def tasks_of(
        self, key: ServiceKey, *, with_ended: bool = False, with_usage: bool = False
    ) -> list[Task]:
        """Return the tasks of a service by slot, and slots that have none yet."""
        slots = self.slots_of(key, with_ended=with_ended)
        return [self.task_of(each, with_usage=with_usage) for each in slots]

    def slots_of(self, key: ServiceKey, *, with_ended: bool = False) -> list[HeldTask | SlotKey]:
        """Return what `tasks_of` is made from: tasks, and slots that have none yet, by slot."""
        held = self.index.of_service(key)
        found: list[HeldTask | SlotKey] = [
            each for each in held if with_ended or not self._is_over(each)
        ]
        live = {each.task.slot.slot for each in held if not each.task.stop}
        vacant = [number for number in self._wanted(key) if number not in live]
        if vacant:
            found += [SlotKey(key.project, key.service, number) for number in vacant]
            found.sort(key=_slot_number)
        return found

    def task_of(self, slot: HeldTask | SlotKey, *, with_usage: bool = False) -> Task:
        """Return one of `slots_of` as replies have it."""
        if isinstance(slot, HeldTask):
            return self.task(slot, with_usage=with_usage)
        return self._vacant(slot)

    def slot_states(self, keys: Iterable[ServiceKey]) -> Counter[SlotState]:
        """Return how many slots of some services are in each state, as `tasks_of` has them."""
        counts: Counter[SlotState] = Counter()
        for key in keys:
            live = set()
            for held in self.index.of_service(key):
                if not held.task.stop:
                    live.add(held.task.slot.slot)
                if not self._is_over(held):
                    counts[self._slot_state(held, self._report(held))[0]] += 1
            vacant = (number for number in self._wanted(key) if number not in live)
            for number in vacant:
                counts[self._vacant(SlotKey(key.project, key.service, number)).state] += 1
        return counts

    def _wanted(self, key: ServiceKey) -> Iterable[int]:
        """Return the slots that should be; those of global services are what their tasks have."""
        record = self.snapshot.services.get(key)
        if record is None or record.spec.mode.kind not in _COUNTED:
            return ()
        return range(1, record.spec.mode.replicas + 1)

    def _vacant(self, slot: SlotKey) -> Task:
        """Return a slot that has no task: it waits for one, or its job ended."""
        record = self.snapshot.services[slot.service_key]
        image = record.spec.task.container.image.reference
        revision = record.revision
        verdict = self.snapshot.job_verdicts.get(slot)
        if verdict is not None and record.spec.mode.kind in _JOBS:
            is_done = verdict.exit_code == 0
            state = SlotState.COMPLETED if is_done else SlotState.FAILED
            reason = f"ended with exit code {verdict.exit_code}"
            return Task(slot, state, service_revision=revision, image=image, reason=reason)
        reason = self._pending_reason(slot)
        return Task(slot, SlotState.PENDING, service_revision=revision, image=image, reason=reason)

    def _pending_reason(self, slot: SlotKey) -> str:
        if self.memory is None:
            return "there is no leader to place it"
        service = f"{slot.project}/{slot.service}"
        return (
            self.memory.pending_reasons.get(slot)
            or self.memory.notes.get(f"{service}.{slot.slot}")
            or self.memory.notes.get(service)
            or "waits for the leader's next round"
        )

    def _report(self, held: HeldTask) -> AttemptReport | None:
        return self.memory.observed.attempts.get(held.task.task_id) if self.memory else None

    def _observation(self, node_id: NodeId) -> NodeObservation | None:
        return self.memory.observed.nodes.get(node_id) if self.memory else None

    def _is_over(self, held: HeldTask) -> bool:
        """Return whether a task was told to stop and has ended: it is only still listed."""
        report = self._report(held)
        return held.task.stop and report is not None and report.state in TERMINAL_ATTEMPT_STATES

    def _slot_state(self, held: HeldTask, report: AttemptReport | None) -> tuple[SlotState, str]:
        """Return how a task is, and why."""
        if self.memory is None:
            return SlotState.UNKNOWN, "there is no leader that hears the nodes"
        observation = self._observation(held.node_id)
        if observation is None or observation.condition not in _LIVE_STREAM:
            return SlotState.UNKNOWN, self._condition_text(held.node_id, observation)
        if held.task.stop:
            return SlotState.STOPPING, report.reason if report else ""
        if report is None:
            return SlotState.STARTING, "not reported by its node yet"
        return _state_of(report), report.reason

    def _condition_text(self, node_id: NodeId, observation: NodeObservation | None) -> str:
        record = self.snapshot.nodes.get(node_id)
        if record is None:
            return "its node was removed"
        condition = observation.condition if observation else NodeCondition.UNKNOWN
        return f"node {record.name} is {condition.name.lower().replace('_', ' ')}"

    # --- services and projects ---

    def service(self, record: ServiceRecord) -> Service:
        """Return one service as replies have it.

        Args:
            record: Its newest revision, or an older one that is asked for by number.
        """
        key = ServiceKey(record.project, record.spec.name)
        tasks = self.tasks_of(key)
        rollout = self._rollout(key, tasks)
        is_rolling = rollout is not None and rollout.state is RolloutState.RUNNING
        so_unix_s = self._so_unix_s(key, tasks)
        is_watched = self.now_unix_s < so_unix_s < NEVER
        unpublished, is_published = self._unpublished(key)
        return Service(
            record,
            _counts(task.state for task in tasks),
            self._desired(key, tasks),
            # A rollout may be taken back until its leader says that it is over.
            so_unix_s <= self.now_unix_s and not is_rolling and is_published,
            rollout,
            (*_problems(tasks), *unpublished)[:PROBLEMS_MAX],
            so_unix_s if is_watched else 0.0,
        )

    def _unpublished(self, key: ServiceKey) -> tuple[list[str], bool]:
        """Return where ports of a service are not open, and whether they are on some node.

        One node where another program has a port is told of; the others lead to the service.
        """
        said = f"{key.project}/{key.service}{UNPUBLISHED}"
        found: list[str] = []
        for node_id, observation in self.memory.observed.nodes.items() if self.memory else ():
            for fault in observation.faults:
                _, mark, after = fault.message.partition(said)
                node = self.snapshot.nodes.get(node_id)
                if mark and node is not None and observation.condition is NodeCondition.READY:
                    found.append(f"not published on node {node.name}: {after.partition('; ')[0]}")
        is_published = not found or len(found) < sum(1 for _ in self.ready_nodes())
        return sorted(found), is_published

    def _rollout(self, key: ServiceKey, tasks: list[Task]) -> Rollout | None:
        """Return how the replacement of a service's tasks stands; None: there never was one."""
        verdict = self.snapshot.rollouts.get(key)
        if verdict is None:
            return None
        held = {each.task.task_id: each for each in self.index.of_service(key)}
        updated = sum(
            _is_well(task) and is_current(self.snapshot, key, held[task.task_id])
            for task in tasks
            if task.task_id is not None
        )
        return Rollout(
            verdict.state,
            verdict.from_revision,
            verdict.to_revision,
            updated,
            self._desired(key, tasks),
            len(verdict.failed_slots),
            verdict.started_unix_s,
            verdict.message,
        )

    def _desired(self, key: ServiceKey, tasks: list[Task]) -> int:
        record = self.snapshot.services.get(key)
        if record is None:
            return 0
        if record.spec.mode.kind in _COUNTED:
            return record.spec.mode.replicas
        return len({task.slot for task in tasks if not task.is_stopping})

    def _so_unix_s(self, key: ServiceKey, tasks: list[Task]) -> float:
        """Return when every slot is as asked, and nothing else of the service is left.

        In the future: only the time is missing that tasks must have run. `NEVER`: more than that.
        """
        record = self.snapshot.services.get(key)
        if record is None or self.memory is None:
            return NEVER
        if record.spec.mode.kind in _JOBS:
            return 0.0 if all(task.state is SlotState.COMPLETED for task in tasks) else NEVER
        held = {each.task.task_id: each for each in self.index.of_service(key)}
        slots = [task.slot for task in tasks]
        if len(slots) != len(set(slots)) or len(slots) != self._desired(key, tasks):
            return NEVER
        for task in tasks:
            if task.task_id is None or not _is_well(task):
                return NEVER
            if not is_current(self.snapshot, key, held[task.task_id]):
                return NEVER
        monitor_s = record.spec.update.monitor_s
        found = [self._stable_unix_s(task, monitor_s) for task in tasks]
        rollout = self.snapshot.rollouts.get(key)
        if rollout is not None and rollout.state is RolloutState.RUNNING and rollout.batches:
            settled_unix_s = rollout.batches[-1].settled_unix_s
            found.append(settled_unix_s + monitor_s if settled_unix_s else NEVER)
        return max(found, default=0.0)

    def _stable_unix_s(self, task: Task, monitor_s: float) -> float:
        """Return from when on a task is not taken to be about to end again.

        A check that has succeeded says so at once; without one time does, by the node's clock. A
        start in the future is one of a clock that is off (a fault that the node tells): it keeps
        nobody waiting for an hour, but what has restarted by then is not trusted.
        """
        report = task.observed
        if report is None or report.health is Health.HEALTHY:
            return 0.0
        if report.started_unix_s > self.now_unix_s + monitor_s:
            return NEVER if report.restarts else 0.0
        return report.started_unix_s + monitor_s

    def project(self, name: str) -> Project:
        """Return one project at a glance; it must exist."""
        record = self.snapshot.projects[name]
        keys = self.keys_of(name)
        states = self.slot_states(keys)
        services = sum(key in self.snapshot.services for key in keys)
        return Project(
            name,
            self.snapshot.mod_revisions.get(project_key(name), StoreRevision(0)),
            record.created_unix_s,
            record.updated_unix_s,
            services,
            _counted(states),
            record.is_removing,
        )

    def keys_of(self, project: str = "") -> list[ServiceKey]:
        """Return services that are asked for or still have tasks, of one project or of all."""
        keys = {*self.snapshot.services, *self.index.services()}
        return sorted(key for key in keys if not project or key.project == project)

    def slot_counts(self) -> tuple[SlotStateCount, ...]:
        """Return the number of slots of the cluster in each state that occurs."""
        return _counted(self.slot_states(self.keys_of()))

    # --- nodes ---

    def node(self, record: NodeRecord) -> Node:
        """Return one node as replies have it."""
        node_id = record.node_id
        observation = self._observation(node_id)
        assignment = self.snapshot.assignments.get(node_id)
        reasons: Mapping[NodeId, str] = self.memory.condition_reasons if self.memory else {}
        default = _CONDITION_TEXTS[observation.condition if observation else NodeCondition.UNKNOWN]
        unknown = default if self.memory else "there is no leader that hears it"
        return Node(
            record,
            observation.condition if observation else NodeCondition.UNKNOWN,
            observation.since_unix_s if observation else 0.0,
            reasons.get(node_id, unknown),
            observation.faults if observation else (),
            observation.info if observation else None,
            observation.usage if observation else None,
            self._reserved(node_id),
            len(assignment.tasks) if assignment else 0,
            self.snapshot.mod_revisions.get(node_key(node_id), StoreRevision(0)),
        )

    def _reserved(self, node_id: NodeId) -> NodeCapacity:
        """Return what placement has set aside on a node for its tasks."""
        assignment = self.snapshot.assignments.get(node_id)
        cpu_millis = memory_bytes = disk_bytes = pids = 0
        tasks = assignment.tasks if assignment else ()
        for task in tasks:
            key = task.slot.service_key
            record = self.snapshot.revisions.get((key, task.service_revision))
            record = record or self.snapshot.services.get(key)
            if record is not None:
                reserved = record.spec.task.reservations
                cpu_millis += reserved.cpu_millis
                memory_bytes += reserved.memory_bytes
                disk_bytes += reserved.disk_bytes
                pids += reserved.pids
        return NodeCapacity(cpu_millis, memory_bytes, disk_bytes, pids, len(tasks))

    def condition_counts(self) -> tuple[ConditionCount, ...]:
        """Return the number of nodes in each condition that occurs."""
        counts: Counter[NodeCondition] = Counter()
        for node_id in self.snapshot.nodes:
            observation = self._observation(node_id)
            counts[observation.condition if observation else NodeCondition.UNKNOWN] += 1
        return tuple(
            ConditionCount(condition, counts[condition])
            for condition in NodeCondition
            if counts[condition]
        )

    def ready_nodes(self) -> Iterator[NodeRecord]:
        """Yield the nodes that can be asked something, by name."""
        for record in sorted(self.snapshot.nodes.values(), key=lambda each: each.name):
            observation = self._observation(record.node_id)
            if observation is not None and observation.condition is NodeCondition.READY:
                yield record


def _slot_number(slot: HeldTask | SlotKey) -> int:
    return slot.task.slot.slot if isinstance(slot, HeldTask) else slot.slot


def _state_of(report: AttemptReport) -> SlotState:
    """Return how a slot is whose task's newest attempt is known."""
    match report.state:
        case AttemptState.RUNNING:
            is_unhealthy = report.health is Health.UNHEALTHY
            return SlotState.UNHEALTHY if is_unhealthy else SlotState.RUNNING
        case AttemptState.COMPLETED:
            return SlotState.COMPLETED
        case AttemptState.FAILED | AttemptState.REJECTED:
            return SlotState.FAILED
        case AttemptState.STOPPING | AttemptState.STOPPED:
            return SlotState.STOPPING
        case AttemptState.PENDING if report.next_attempt_unix_s:
            return SlotState.FAILED  # it ended, and waits out its back-off
        case _:
            return SlotState.STARTING


def _is_well(task: Task) -> bool:
    """Return whether a task runs, and its check, if it has one, has succeeded."""
    health = task.observed.health if task.observed else Health.NONE
    return task.state is SlotState.RUNNING and health is not Health.STARTING


def _problems(tasks: list[Task]) -> tuple[str, ...]:
    """Return why slots are not as they should be, most frequent first."""
    fine = (SlotState.RUNNING, SlotState.COMPLETED, SlotState.STOPPING)
    reasons = Counter(task.reason for task in tasks if task.state not in fine and task.reason)
    reasons[UNCHECKED] = sum(
        task.state is SlotState.RUNNING and not _is_well(task) for task in tasks
    )
    return tuple(reason for reason, count in reasons.most_common(PROBLEMS_MAX) if count)


def _counts(states: Iterable[SlotState]) -> tuple[SlotStateCount, ...]:
    return _counted(Counter(states))


def _counted(counts: Counter[SlotState]) -> tuple[SlotStateCount, ...]:
    return tuple(SlotStateCount(state, counts[state]) for state in SlotState if counts[state])
