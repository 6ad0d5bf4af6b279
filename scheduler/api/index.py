"""Which tasks has a service, without looking at all of the cluster's? An index of assignments.

Assignments are immutable and shared between snapshots: what is the same object was indexed already.
Taking in a newer snapshot costs one comparison a node, and work for those that changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dray.model import Assignment, ServiceKey, TaskAssignment
from dray.names import NodeId, TaskId
from scheduler.store.snapshot import Snapshot

__all__ = ["HeldTask", "TaskIndex"]


@dataclass(frozen=True, slots=True)
class HeldTask:
    """A task, and the node whose assignment lists it."""

    node_id: NodeId
    task: TaskAssignment


class TaskIndex:
    """Tasks by service and by id, as of the newest snapshot that was taken in."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._seen: dict[NodeId, Assignment] = {}
        self._by_service: dict[ServiceKey, dict[NodeId, list[TaskAssignment]]] = {}
        self._node_of: dict[TaskId, NodeId] = {}

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len(self._node_of)

    def behind(self, snapshot: Snapshot) -> list[NodeId]:
        """Return the nodes whose assignments are not those of a snapshot."""
        seen = self._seen
        changed = [
            node_id
            for node_id, assignment in snapshot.assignments.items()
            if seen.get(node_id) is not assignment
        ]
        changed += seen.keys() - snapshot.assignments.keys()
        return changed

    def update(self, snapshot: Snapshot, node_ids: Iterable[NodeId] | None = None) -> None:
        """Take in a snapshot.

        Args:
            snapshot: The snapshot.
            node_ids: Only these nodes of it, for who takes in a large one bit by bit; None: all.
        """
        for node_id in self.behind(snapshot) if node_ids is None else node_ids:
            old, new = self._seen.get(node_id), snapshot.assignments.get(node_id)
            if old is not None:
                self._remove(node_id, old)
            if new is not None:
                self._add(node_id, new)

    def copy(self) -> TaskIndex:
        """Return an index that stays as this one is now, but for what `task` answers."""
        kept = TaskIndex()
        kept._by_service = {key: dict(tasks) for key, tasks in self._by_service.items()}
        kept._seen, kept._node_of = self._seen, self._node_of
        return kept

    def of_service(self, key: ServiceKey) -> list[HeldTask]:
        """Return a service's tasks by slot, the newest of a slot first."""
        found = [
            HeldTask(node_id, task)
            for node_id, tasks in self._by_service.get(key, {}).items()
            for task in tasks
        ]
        found.sort(key=lambda held: (held.task.epoch, held.task.task_id), reverse=True)
        found.sort(key=lambda held: held.task.slot.slot)
        return found

    def services(self) -> Iterator[ServiceKey]:
        """Yield the services that have tasks, in no order."""
        return iter(self._by_service)

    def task(self, task_id: TaskId) -> HeldTask | None:
        """Return a task by its id."""
        node_id = self._node_of.get(task_id)
        if node_id is None:
            return None
        for task in self._seen[node_id].tasks:
            if task.task_id == task_id:
                return HeldTask(node_id, task)
        return None

    def _add(self, node_id: NodeId, assignment: Assignment) -> None:
        self._seen[node_id] = assignment
        for task in assignment.tasks:
            by_node = self._by_service.setdefault(task.slot.service_key, {})
            by_node.setdefault(node_id, []).append(task)
            self._node_of[task.task_id] = node_id

    def _remove(self, node_id: NodeId, assignment: Assignment) -> None:
        del self._seen[node_id]
        for task in assignment.tasks:
            key = task.slot.service_key
            by_node = self._by_service.get(key, {})
            by_node.pop(node_id, None)
            if not by_node:
                self._by_service.pop(key, None)
            if self._node_of.get(task.task_id) == node_id:
                del self._node_of[task.task_id]
