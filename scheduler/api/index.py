"""Which tasks has a service, without looking at all of the cluster's? An index of assignments.

Assignments are immutable and shared between snapshots: what is the same object was indexed already.
Taking in a newer snapshot costs one comparison a node, and work for those that changed.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        self._by_id: dict[TaskId, HeldTask] = {}

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len(self._by_id)

    def update(self, snapshot: Snapshot) -> None:
        """Take in a snapshot."""
        for node_id in self._seen.keys() - snapshot.assignments.keys():
            self._remove(node_id, self._seen.pop(node_id))
        for node_id, assignment in snapshot.assignments.items():
            old = self._seen.get(node_id)
            if old is assignment:
                continue
            if old is not None:
                self._remove(node_id, old)
            self._seen[node_id] = assignment
            for task in assignment.tasks:
                key = task.slot.service_key
                self._by_service.setdefault(key, {}).setdefault(node_id, []).append(task)
                self._by_id[task.task_id] = HeldTask(node_id, task)

    def copy(self) -> TaskIndex:
        """Return an index that stays as this one is now, but for what `task` answers."""
        kept = TaskIndex()
        kept._by_service = {key: dict(tasks) for key, tasks in self._by_service.items()}
        kept._by_id = self._by_id
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
        return self._by_id.get(task_id)

    def _remove(self, node_id: NodeId, assignment: Assignment) -> None:
        for task in assignment.tasks:
            key = task.slot.service_key
            by_node = self._by_service.get(key, {})
            by_node.pop(node_id, None)
            if not by_node:
                self._by_service.pop(key, None)
            held = self._by_id.get(task.task_id)
            if held is not None and held.node_id == node_id:
                del self._by_id[task.task_id]
