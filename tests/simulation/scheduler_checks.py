"""Which properties of a control plane must hold, and which of them are broken?

At every commit (`committed`), twice a second (`look`), and after the faults (`not_as_asked`). What
is broken is said in sentences; an empty list is a pass.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dray.model import (
    Assignment,
    Availability,
    Epoch,
    NodeCondition,
    NodeRecord,
    ServiceKey,
    ServiceModeKind,
    ServiceRecord,
    ServiceRevision,
    SlotKey,
    TaskAssignment,
    UpdateOrder,
)
from dray.names import NodeId, TaskId
from scheduler.nodes.subnets import subnet_number
from scheduler.store import keys
from scheduler.store.base import Committed, Item, Put, Txn
from scheduler.store.codec import decode_as
from scheduler.store.keys import Kind, parse_key
from scheduler.store.records import JobVerdict, VolumePin
from tests.simulation.scheduler_gaps import Gaps
from tests.simulation.scheduler_node import Daemon, SimNode

if TYPE_CHECKING:
    from tests.simulation.scheduler_world import SchedulerWorld

__all__ = ["Checker"]

TROUBLE_KEPT_S: Final = 6.0  # a verdict may come so late after what it is about has ended
DATA_SERVICE: Final = "db"  # has a volume: its tasks are where that is
DATA_VOLUME: Final = "shop_data"
PLAN_AGE_MAX_S: Final = 6.0  # a plan may be so old when it is committed: a lease, and a second
_RUNNING: Final = frozenset({ServiceModeKind.REPLICATED, ServiceModeKind.GLOBAL})
HELD_MAX: Final = 2  # tasks of one slot that are not told to stop: the one that comes, the last one


class Checker:
    """What is known to be true of one world, beside what its parts believe."""

    def __init__(self, world: SchedulerWorld) -> None:
        """Start with an empty store."""
        self._world = world
        self._writers: dict[Epoch, str] = {}
        self._assigned: dict[NodeId, dict[TaskId, TaskAssignment]] = {}
        self._before: dict[NodeId, dict[TaskId, TaskAssignment]] = {}
        self._done: dict[SlotKey, ServiceRevision] = {}
        self._created: Counter[TaskId] = Counter()
        self._excused: set[SlotKey] = set()
        self._down_when_sent: dict[str, frozenset[NodeId]] = {}  # by the scheduler that holds it
        self.gaps = Gaps(world)
        self.commits = self.displaced = 0
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        """Hash of everything that was committed, and when."""
        return self._trace.hexdigest()

    # ---- at every commit of a scheduler

    def sent(self, name: str, txn: Txn) -> None:
        """Note what a scheduler knows as it hands over what it has planned."""
        kinds = {parsed.kind for each in txn.operations if (parsed := parse_key(each.key))}
        if Kind.ASSIGNMENT in kinds:
            self._down_when_sent[name] = self._held_down(name)

    def committed(self, name: str, txn: Txn, done: Committed) -> None:
        """Check what a scheduler has just written."""
        self._trace.update(f"{self._world.now_s():.6f} {name} {done.revision} {txn!r}".encode())
        self.commits += 1
        changed = []
        for operation in txn.operations:
            parsed = parse_key(operation.key)
            if parsed is None or not isinstance(operation, Put):
                continue
            item = Item(operation.key, operation.value, done.revision, done.revision)
            if parsed.kind is Kind.ASSIGNMENT:
                changed.append(decode_as(item, Assignment))
            elif parsed.kind is Kind.JOB:
                verdict = decode_as(item, JobVerdict)
                self._check_verdict(name, verdict)
                self._done[verdict.slot] = verdict.service_revision
        for assignment in changed:
            self._check_writer(name, assignment)
            self._check_changes(name, assignment)
        self._before = {each.node_id: self._assigned.get(each.node_id, {}) for each in changed}
        for assignment in changed:
            self._assigned[assignment.node_id] = {task.task_id: task for task in assignment.tasks}
        for assignment in changed:
            self._check_room(assignment)
            self._check_reasons(name, assignment)
            self._check_slots(name, assignment)

    def _broken(self, sentence: str) -> None:
        self._world.broken.append(f"{self._world.now_s():.3f} s: {sentence}")

    def _check_writer(self, name: str, assignment: Assignment) -> None:
        """One writer an epoch, and only while its key is there."""
        writer = self._writers.setdefault(assignment.epoch, name)
        if writer != name:
            self._broken(f"{writer} and {name} both wrote in epoch {assignment.epoch}")
        leader = self._world.data.item(keys.LEADER)
        if leader is None or leader.create_revision != assignment.epoch.create_revision:
            self._broken(f"{name} wrote in epoch {assignment.epoch} after it had ended")

    def _check_changes(self, name: str, assignment: Assignment) -> None:
        """A task leaves only when its end is true or its node is given up; none comes twice."""
        node_id = assignment.node_id
        before = self._assigned.get(node_id, {})
        after = {task.task_id: task for task in assignment.tasks}
        node = next(each for each in self._world.nodes.values() if each.node_id == node_id)
        for task_id in set(before) - set(after):
            run = node.runs.get(task_id)
            has_ended = task_id in node.ended or (run is None and node.daemon is not Daemon.UP)
            if not has_ended and not self._is_given_up(name, node_id):
                self._broken(f"{name} forgot {before[task_id]} of {node.name}, which may run")
        for task_id in set(after) - set(before):
            task = after[task_id]
            self._created[task_id] += 1
            if self._created[task_id] > 1:
                self._broken(f"task {task_id} of {task.slot} was made twice")
            home = self._home(task.slot)
            if home is not None and home != node_id:
                self._broken(f"{task.slot} was given to {node.name}, where its data is not")
            if self._done.get(task.slot) == task.service_revision:
                self._broken(f"{task.slot} runs again, though it has completed")

    def _check_verdict(self, name: str, verdict: JobVerdict) -> None:
        """A job's slot is done only when it has completed in truth."""
        known = {slot for slot, _ in self._world.completed}
        if verdict.exit_code != 0 or verdict.slot not in known:
            self._broken(f"{name} holds {verdict.slot} to be done: {verdict.exit_code}")

    def _check_reasons(self, name: str, assignment: Assignment) -> None:
        """Nothing is begun or ended because something is unknown.

        A second task needs a reason: other work, or a node that is left or given up. So does the
        end of a slot's only task. What users have just changed, the plan may not have seen.
        """
        node_id, before = assignment.node_id, self._before[assignment.node_id]
        for task in assignment.tasks:
            if self._was_just_changed(task.slot, node_id):
                continue
            old = before.get(task.task_id)
            others = [
                (other_id, each)
                for other_id, tasks in self._assigned.items()
                for each in tasks.values()
                if each.slot == task.slot and each.task_id != task.task_id and not each.stop
            ]
            if old is None and not task.stop:
                for other_id, other in others:
                    if self._same_work(task, other) and not self._may_leave(name, other_id):
                        self._broken(f"{name} gave {task.slot} a second task without a reason")
            is_ended = task.stop and old is not None and not old.stop
            if is_ended and not others and self._is_needed(name, node_id, task):
                self._broken(f"{name} ends {task.slot} without a reason")

    def _was_just_changed(self, slot: SlotKey, node_id: NodeId) -> bool:
        changed_at_s = self._world.changed_at_s
        nodes = [keys.node_key(node.node_id) for node in self._world.nodes.values()]
        about = (keys.service_key(slot.service_key), keys.node_key(node_id), *nodes)
        last_s = max(changed_at_s.get(key, -PLAN_AGE_MAX_S) for key in about)
        return self._world.now_s() - last_s < PLAN_AGE_MAX_S

    def _may_leave(self, name: str, node_id: NodeId) -> bool:
        return self._is_left(name, node_id) or self._is_given_up(name, node_id)

    def _is_needed(self, name: str, node_id: NodeId, task: TaskAssignment) -> bool:
        """Return whether a task runs what is asked for now, where it may."""
        wanted = self._wanted()
        record = wanted.get(task.slot)
        if record is None or task.slot in self._done or self._may_leave(name, node_id):
            return False
        if self._makes_room(name, record, wanted):
            self.displaced += 1
            return False
        now = self._revision(task.slot.service_key, task.service_revision)
        return now.spec.task == record.spec.task

    def _makes_room(
        self, name: str, record: ServiceRecord, wanted: dict[SlotKey, ServiceRecord]
    ) -> bool:
        """Return whether a slot of a higher priority that may displace others needs a task.

        It has none that does what is asked for now, or only one on a node that is left.
        """
        begun = {
            task.slot
            for node_id, tasks in self._assigned.items()
            for task in tasks.values()
            if not task.stop and task.slot in wanted and not self._may_leave(name, node_id)
            if self._revision(task.slot.service_key, task.service_revision).spec.task
            == wanted[task.slot].spec.task
        }
        return any(
            other.spec.dray.preempt
            and other.spec.dray.priority > record.spec.dray.priority
            and slot not in begun
            for slot, other in wanted.items()
        )

    def _same_work(self, one: TaskAssignment, other: TaskAssignment) -> bool:
        key = one.slot.service_key
        a, b = (self._revision(key, each.service_revision) for each in (one, other))
        return a.spec.task == b.spec.task

    def _home(self, slot: SlotKey) -> NodeId | None:
        """Return where the data of a slot is; None: it has none, or nowhere yet."""
        if slot.service != DATA_SERVICE:
            return None
        item = self._world.data.item(keys.volume_key(slot.project, DATA_VOLUME))
        return None if item is None else self._world.decoded(item, VolumePin).node_id

    def _is_given_up(self, name: str, node_id: NodeId) -> bool:
        scheduler = next(each for each in self._world.schedulers if each.name == name)
        streams = scheduler.nodes.streams if scheduler.nodes else None
        if streams is None:
            return True  # its term has just ended; the fence has held
        # It may have come back while what is committed now was on its way.
        return node_id in self._down_when_sent.get(name, frozenset()) | self._held_down(name)

    def _held_down(self, name: str) -> frozenset[NodeId]:
        """Return the nodes that a scheduler holds to be down now."""
        scheduler = next(each for each in self._world.schedulers if each.name == name)
        streams = scheduler.nodes.streams if scheduler.nodes else None
        seen = streams.observations.observed().nodes if streams else {}
        return frozenset(
            node_id for node_id, node in seen.items() if node.condition is NodeCondition.DOWN
        )

    def _check_room(self, assignment: Assignment) -> None:
        taken = 0
        for task in assignment.tasks:
            record = self._revision(task.slot.service_key, task.service_revision)
            taken += record.spec.task.reservations.cpu_millis
        if taken > self._world.cpus * 1000:
            self._broken(f"{assignment.node_id} is over-committed: {taken} millis")

    def _check_slots(self, name: str, assignment: Assignment) -> None:
        """A slot has one task, or two while one replaces the other; a singleton never has two.

        Two of a service that stops first are allowed only when a node is left.
        """
        for task in assignment.tasks:
            held = [
                (node_id, each)
                for node_id, tasks in self._assigned.items()
                for each in tasks.values()
                if each.slot == task.slot and not each.stop
            ]
            if len(held) < HELD_MAX:
                self._excused.discard(task.slot)
                continue
            if self._may_overlap(task.slot, [each for _, each in held]) or any(
                self._is_left(name, node_id) for node_id, _ in held
            ):
                self._excused.add(task.slot)
            spec = self._revision(task.slot.service_key, task.service_revision).spec
            is_too_many = len(held) > HELD_MAX or spec.dray.singleton
            if is_too_many or task.slot not in self._excused:
                self._broken(f"{name} gave {task.slot} {len(held)} tasks")

    def _may_overlap(self, slot: SlotKey, tasks: Iterable[TaskAssignment]) -> bool:
        """Return whether what is asked for, or was when one of the tasks was made, starts first."""
        newest = self._world.data.item(keys.service_key(slot.service_key))
        records = [] if newest is None else [self._world.decoded(newest, ServiceRecord)]
        records += [self._revision(slot.service_key, task.service_revision) for task in tasks]
        return any(each.spec.update.order is UpdateOrder.START_FIRST for each in records)

    def _is_left(self, name: str, node_id: NodeId) -> bool:
        """Return whether a node is being drained, or held to be isolated by a scheduler."""
        if self._is_drained(node_id):
            return True
        scheduler = next(each for each in self._world.schedulers if each.name == name)
        streams = scheduler.nodes.streams if scheduler.nodes else None
        seen = streams.observations.observed().nodes.get(node_id) if streams else None
        return seen is not None and seen.condition is NodeCondition.ISOLATED

    def _is_drained(self, node_id: NodeId) -> bool:
        item = self._world.data.item(keys.node_key(node_id))
        return (
            item is None
            or self._world.decoded(item, NodeRecord).availability is not Availability.ACTIVE
        )

    def _revision(self, key: ServiceKey, revision: ServiceRevision) -> ServiceRecord:
        item = self._world.data.item(keys.revision_key(key, revision))
        assert item is not None, (key, revision)
        return self._world.decoded(item, ServiceRecord)

    # ---- twice a second

    def look(self) -> None:
        """Check that nobody is held to be down who is well."""
        now_s = self._world.now_s()
        self._look_for_gaps()
        for node in self._world.nodes.values():
            if self._is_in_trouble(node):
                node.troubled_s = now_s
        for scheduler in self._world.schedulers:
            if scheduler.gate.is_paused or scheduler.nodes is None or not scheduler.is_leading:
                continue
            if scheduler.epoch != self._world.epoch():
                continue  # it has yet to notice that its term is over
            streams = scheduler.nodes.streams
            assert streams is not None
            observed = streams.observations.observed().nodes
            for node in self._world.nodes.values():
                seen = observed.get(node.node_id)
                is_down = seen is not None and seen.condition is NodeCondition.DOWN
                if is_down and now_s - node.troubled_s > TROUBLE_KEPT_S:
                    self._broken(f"{scheduler.name} holds {node.name} to be down, which is well")

    def _look_for_gaps(self) -> None:
        wanted = {
            slot: record
            for slot, record in self._wanted().items()
            if record.spec.mode.kind in _RUNNING
        }
        homes = {
            slot: home
            for slot, record in wanted.items()
            if (home := self._only_home(slot, record)) is not None
        }
        assigned = {node_id: tasks.values() for node_id, tasks in self._assigned.items()}
        for sentence in self.gaps.look(wanted, assigned, homes):
            self._broken(sentence)

    def _only_home(self, slot: SlotKey, record: ServiceRecord) -> NodeId | None:
        """Return the only node that can run a slot: its own, or that of its data."""
        if record.spec.mode.kind is not ServiceModeKind.GLOBAL:
            return self._home(slot)
        for node in self._world.nodes.values():
            item = self._world.data.item(keys.node_key(node.node_id))
            if item is not None:
                subnet = self._world.decoded(item, NodeRecord).subnet
                if subnet_number("10.192.0.0/11", subnet) + 1 == slot.slot:
                    return node.node_id
        return None

    def _is_in_trouble(self, node: SimNode) -> bool:
        others = [each.name for each in self._world.schedulers if each.is_alive]
        others += [each.name for each in self._world.nodes.values() if each is not node]
        is_cut = not all(self._world.passes(node.name, other) for other in others)
        return not node.has_power or node.daemon is not Daemon.UP or is_cut

    # ---- after the faults

    def not_as_asked(self) -> list[str]:
        """Return what is not yet as it was asked for, in truth and in the store."""
        wrong: list[str] = []
        listed: dict[SlotKey, list[tuple[SimNode, TaskAssignment]]] = defaultdict(list)
        for node in self._world.nodes.values():
            for task in self._assigned.get(node.node_id, {}).values():
                listed[task.slot].append((node, task))
        wanted = self._wanted()
        for slot in sorted(set(wanted) | set(listed)):
            wrong += self._slot(slot, wanted.get(slot), listed.get(slot, []))
        known = {task.task_id for held in listed.values() for _, task in held}
        for node in self._world.nodes.values():
            for run in node.running():
                if run.task.task_id not in known:
                    wrong.append(f"{node.name} runs {run.task.slot}, which is not assigned")
        return wrong

    def _slot(
        self,
        slot: SlotKey,
        record: ServiceRecord | None,
        held: list[tuple[SimNode, TaskAssignment]],
    ) -> list[str]:
        if record is None:
            return [f"{slot} is held by {node.name}, and not wanted" for node, _ in held]
        assigned = {node_id: tasks.values() for node_id, tasks in self._assigned.items()}
        home = self._only_home(slot, record)
        has_room = self.gaps.has_room(slot, record, assigned, home, beside=True)
        if record.spec.mode.kind is ServiceModeKind.REPLICATED_JOB:
            is_done = slot in self._done
            is_fine = not held and (is_done or not has_room)
            return [] if is_fine else [f"{slot} is a job: done {is_done}, {held}"]
        homes = [each for each in self._world.nodes.values() if each.node_id == self._home(slot)]
        if any(not home.has_power or self._is_drained(home.node_id) for home in homes):
            return []  # it waits for its data, or for the node to take tasks again
        if not has_room:
            return []  # nobody has room for it, or for the one that is to replace it
        if len(held) != 1:
            return [f"{slot} has {len(held)} tasks"]
        node, task = held[0]
        run = node.runs.get(task.task_id)
        is_running = run in node.running() and run is not None and not task.stop
        if not is_running:
            return [f"{slot} does not run on {node.name}: {run and run.state}"]
        now = self._revision(slot.service_key, task.service_revision)
        if now.spec.task != record.spec.task:
            return [f"{slot} runs revision {task.service_revision}, not {record.revision}"]
        return []

    def _wanted(self) -> dict[SlotKey, ServiceRecord]:
        wanted: dict[SlotKey, ServiceRecord] = {}
        for item in self._world.data.items(keys.prefix_of(Kind.SERVICE)):
            record = self._world.decoded(item, ServiceRecord)
            key = ServiceKey(record.project, record.spec.name)
            numbers = (
                self._global_slots()
                if record.spec.mode.kind is ServiceModeKind.GLOBAL
                else list(range(1, record.spec.mode.replicas + 1))
            )
            wanted |= {SlotKey(key.project, key.service, number): record for number in numbers}
        return wanted

    def _global_slots(self) -> list[int]:
        numbers = []
        for node in self._world.nodes.values():
            item = self._world.data.item(keys.node_key(node.node_id))
            if item is None or not node.has_power:
                continue
            record = self._world.decoded(item, NodeRecord)
            if record.availability.name == "ACTIVE":
                numbers.append(subnet_number("10.192.0.0/11", record.subnet) + 1)
        return sorted(numbers)
