"""How do steps become transactions? Fenced, compared, bounded, and each a safe place to stop.

Steps are taken in order into batches. A batch writes every assignment that it touches once, as it
is after the batch's steps; a later batch may write the same one again. So each transaction holds
whole steps, and whatever prefix of them is committed is a state that the next plan can start from.

Every transaction compares: the leader key (no other leader since), the cluster (no restore since),
and the mod revision of every key that it writes. After a conflict nothing more is written: the
plan was made from a state that is no longer so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from dray.model import Assignment, Epoch, StoreRevision, TaskAssignment
from dray.names import NodeId, TaskId
from scheduler.loops.steps import Add, Drop, Edit, Step, Stop
from scheduler.reconcile import (
    AssignmentDrop,
    ProjectDrop,
    VerdictChange,
    VerdictDrop,
    VerdictPut,
)
from scheduler.reconcile.verdicts import verdict_key
from scheduler.store.base import (
    TXN_BYTES_MAX,
    TXN_KEYS_MAX,
    Compare,
    CompareField,
    Delete,
    Operation,
    Put,
    Txn,
)
from scheduler.store.codec import encode
from scheduler.store.keys import CLUSTER, Kind, assignment_key, prefix_of, project_key
from scheduler.store.snapshot import Snapshot

__all__ = ["Batch", "batches_of", "fences_of", "operation_batches", "verdict_batches"]

KEYS_MAX: Final = TXN_KEYS_MAX - 1  # compares are the keys', the leader's and the cluster's
BYTES_MAX: Final = TXN_BYTES_MAX - 65_536  # what is estimated stays well below the limit
_TASK_BYTES: Final = 32  # slot, id and variant of a task, see store/packing.py
_VARIANT_BYTES: Final = 21
_SERVICE_BYTES: Final = 8
_HEAD_BYTES: Final = 256  # head, key and compare


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes.

    Attributes:
        operations: Writes and deletes.
        assignments: Those among the writes, by node; their mod revision is the transaction's.
        steps: What they carry out.
    """

    operations: tuple[Operation, ...]
    assignments: tuple[Assignment, ...] = ()
    steps: tuple[Step, ...] = ()

    def txn(self, fences: tuple[Compare, ...], revisions: Mapping[str, StoreRevision]) -> Txn:
        """Return the transaction: it changes what it compares, so it may be sent again.

        Args:
            fences: See `fences_of`.
            revisions: Mod revision of every key that exists, as of the snapshot and of what was
                committed since.
        """
        compares = [
            Compare(each.key, CompareField.MOD_REVISION, revisions.get(each.key, StoreRevision(0)))
            for each in self.operations
        ]
        return Txn((*fences, *compares), self.operations, applies_once=True)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that exist after it."""
        return tuple(each.key for each in self.operations if isinstance(each, Put))


def fences_of(snapshot: Snapshot, leader: Compare) -> tuple[Compare, ...]:
    """Return what every transaction of a round compares beside its own keys.

    Args:
        snapshot: What the round was planned from.
        leader: The fence of the term.
    """
    cluster = snapshot.mod_revisions.get(CLUSTER, StoreRevision(0))
    return (leader, Compare(CLUSTER, CompareField.MOD_REVISION, cluster))


def verdict_batches(snapshot: Snapshot, changes: Iterable[VerdictChange]) -> Iterator[Batch]:
    """Yield the transactions that store verdicts.

    A project goes with its kept revisions, contents and addresses; its record goes last, so that a
    removal that was cut short is taken up again.
    """
    operations: list[Operation] = []
    for change in changes:
        operations += _operations(snapshot, change)
    yield from operation_batches(operations)


def operation_batches(operations: Iterable[Operation]) -> Iterator[Batch]:
    """Yield the transactions that carry out single writes, in order; each key is there once."""
    size_bytes = 0
    batch: list[Operation] = []
    for operation in operations:
        added = len(operation.key) + (len(operation.value) if isinstance(operation, Put) else 0)
        if batch and (len(batch) == KEYS_MAX or size_bytes + added > BYTES_MAX):
            yield Batch(tuple(batch))
            batch, size_bytes = [], 0
        batch.append(operation)
        size_bytes += added
    if batch:
        yield Batch(tuple(batch))


def _operations(snapshot: Snapshot, change: VerdictChange) -> list[Operation]:
    match change:
        case VerdictPut(verdict):
            return [Put(verdict_key(change), encode(verdict))]
        case VerdictDrop() | AssignmentDrop():
            return [Delete(verdict_key(change))]
        case ProjectDrop(project):
            below = (prefix_of(Kind.REVISION, project), prefix_of(Kind.CONTENT, project))
            keys = sorted(key for key in snapshot.mod_revisions if key.startswith(below))
            return [*(Delete(key) for key in keys), Delete(project_key(project))]
        case _:
            assert_never(change)


def batches_of(
    snapshot: Snapshot, steps: Iterable[Step], epoch: Epoch, *, keys_max: int = KEYS_MAX
) -> Iterator[Batch]:
    """Yield the transactions that carry out steps, in an order in which each may be the last.

    Steps keep their order; those of one action list come with stops and removals first, so that
    nothing is started in room that a later transaction would free.

    Args:
        snapshot: What the steps were made from.
        steps: What is to be done.
        epoch: The leader's term, which the written assignments carry.
        keys_max: Keys of one transaction, at most; a step that needs more has one of its own.
    """
    work = _Work(snapshot, epoch, keys_max)
    for step in _grouped(steps):
        if not work.add(step):
            yield work.closed()
            assert work.add(step), "an empty batch takes any step"
    if work.steps:
        yield work.closed()


def _grouped(steps: Iterable[Step]) -> list[Step]:
    """Return the steps so that those about the same nodes are together.

    Ends come first, then steps of one node, then those of two, by their nodes.
    """

    def turn(step: Step) -> tuple[bool, int, tuple[NodeId, ...]]:
        begins = any(isinstance(edit, Add) for edit in step.edits)
        return begins, len(step.node_ids), step.node_ids

    return sorted(steps, key=turn)


@dataclass(slots=True)
class _Work:
    """The batch that is being filled, and the assignments as they are after it.

    Attributes:
        tasks: Of every node that was touched in this round, by task id.
        touched: Nodes of this batch.
        size_bytes: An upper bound of the bytes of this batch.
        pins: Other writes of this batch.
        steps: Steps of this batch.
    """

    snapshot: Snapshot
    epoch: Epoch
    keys_max: int
    tasks: dict[NodeId, dict[TaskId, TaskAssignment]] = field(default_factory=dict)
    touched: set[NodeId] = field(default_factory=set)
    size_bytes: int = 0
    pins: list[Put] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> bool:
        """Apply a step; False, and nothing is changed: the batch has no room for it."""
        new = [node_id for node_id in step.node_ids if node_id not in self.touched]
        added_bytes = sum([_growth(edit) for edit in step.edits])
        if new:
            added_bytes += sum(map(self._bytes, new))
        if step.pins:
            pins = [Put(key, encode(pin)) for key, pin in step.pins]
            added_bytes += sum(len(pin.key) + len(pin.value) for pin in pins)
        else:
            pins = []
        n_keys = len(self.touched) + len(new) + len(self.pins) + len(pins)
        has_room = n_keys <= self.keys_max and self.size_bytes + added_bytes <= BYTES_MAX
        if self.steps and not has_room:
            return False
        self.touched.update(new)
        self.size_bytes += added_bytes
        for edit in step.edits:
            _apply(edit, self._tasks(edit.node_id))
        self.pins += pins
        self.steps.append(step)
        return True

    def closed(self) -> Batch:
        """Return the batch, and start the next one."""
        assignments = tuple(self._assignment(node_id) for node_id in sorted(self.touched))
        puts = (Put(assignment_key(each.node_id), encode(each)) for each in assignments)
        batch = Batch((*puts, *self.pins), assignments, tuple(self.steps))
        self.touched, self.pins, self.steps, self.size_bytes = set(), [], [], 0
        return batch

    def _tasks(self, node_id: NodeId) -> dict[TaskId, TaskAssignment]:
        found = self.tasks.get(node_id)
        if found is None:
            stored = self.snapshot.assignments.get(node_id)
            listed = () if stored is None else stored.tasks
            found = self.tasks[node_id] = {task.task_id: task for task in listed}
        return found

    def _bytes(self, node_id: NodeId) -> int:
        """Return an upper bound of what a node's assignment takes as it is now."""
        tasks = self._tasks(node_id).values()
        services = {task.slot.service_key for task in tasks}
        names = sum(len(key.project) + 4 * len(key.service) + _SERVICE_BYTES for key in services)
        devices = sum(_devices_bytes(task) for task in tasks)
        return _HEAD_BYTES + names + devices + len(tasks) * (_TASK_BYTES + _VARIANT_BYTES)

    def _assignment(self, node_id: NodeId) -> Assignment:
        tasks = sorted(self._tasks(node_id).values(), key=lambda task: (task.slot, task.task_id))
        cluster_id = self.snapshot.cluster.cluster_id
        return Assignment(cluster_id, node_id, self.epoch, StoreRevision(0), tuple(tasks))


def _apply(edit: Edit, tasks: dict[TaskId, TaskAssignment]) -> None:
    """Change a node's tasks. A task that is not there any more needs neither stop nor removal."""
    match edit:
        case Add(_, task):
            assert task.task_id not in tasks, f"task {task.task_id} is added twice"
            tasks[task.task_id] = task
        case Stop(_, task_id):
            if task_id in tasks:
                tasks[task_id] = replace(tasks[task_id], stop=True)
        case Drop(_, task_id):
            tasks.pop(task_id, None)
        case _:
            assert_never(edit)


def _growth(edit: Edit) -> int:
    """Return an upper bound of the bytes that an edit adds."""
    if not isinstance(edit, Add):
        return 0
    slot = edit.task.slot
    names = len(slot.project) + 4 * len(slot.service) + _SERVICE_BYTES
    return _TASK_BYTES + _VARIANT_BYTES + names + _devices_bytes(edit.task)


def _devices_bytes(task: TaskAssignment) -> int:
    if not task.gpu_ids:
        return 0
    return sum(_SERVICE_BYTES + 4 * len(each) for each in task.gpu_ids)
