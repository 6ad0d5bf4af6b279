"""Who holds what? Every assigned task by its service and slot, kept from plan to plan.

Looking through all assignments costs time for every task there is. An index costs time for the
tasks of those assignments that have changed: snapshots share what did not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dray.model import Assignment, ServiceKey, TaskAssignment
from dray.names import NodeId, TaskId
from scheduler.store.snapshot import Snapshot

__all__ = ["Held", "HeldIndex"]


@dataclass(frozen=True, slots=True)
class Held:
    """A task in some node's assignment."""

    node_id: NodeId
    task: TaskAssignment


class HeldIndex(Mapping[ServiceKey, Mapping[int, list[Held]]]):
    """The tasks of every slot by service and number, highest (epoch, task id) first.

    `update` moves it on to another snapshot; it is for one thread.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        """Start empty, or with what a snapshot holds."""
        self._services: dict[ServiceKey, dict[int, list[Held]]] = {}
        self._seen: dict[NodeId, Assignment] = {}
        self._service_of: dict[TaskId, ServiceKey] = {}
        if snapshot is not None:
            self.update(snapshot)

    def __getitem__(self, key: ServiceKey) -> Mapping[int, list[Held]]:
        return self._services[key]

    def __iter__(self) -> Iterator[ServiceKey]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)

    def service_of(self, task_id: TaskId) -> ServiceKey | None:
        """Return the service of an assigned task; None: nobody is assigned it."""
        return self._service_of.get(task_id)

    def services_on(self, node_id: NodeId) -> set[ServiceKey]:
        """Return the services that have a task on a node."""
        assignment = self._seen.get(node_id)
        tasks = () if assignment is None else assignment.tasks
        return {task.slot.service_key for task in tasks}

    def update(self, snapshot: Snapshot) -> set[ServiceKey]:
        """Take in another snapshot, and return the services whose tasks have changed."""
        touched: set[ServiceKey] = set()
        for node_id in sorted(self._seen.keys() - snapshot.assignments.keys()):
            self._replace(node_id, self._seen.pop(node_id), None, touched)
        for node_id, assignment in snapshot.assignments.items():
            before = self._seen.get(node_id)
            if before is not assignment:
                self._seen[node_id] = assignment
                self._replace(node_id, before, assignment, touched)
        return touched

    def _replace(
        self,
        node_id: NodeId,
        before: Assignment | None,
        after: Assignment | None,
        touched: set[ServiceKey],
    ) -> None:
        """Take one node's old tasks out and put its new ones in; equal ones stay."""
        old = {} if before is None else {task.task_id: task for task in before.tasks}
        for task in () if after is None else after.tasks:
            known = old.pop(task.task_id, None)
            if known is not task and known != task:  # snapshots share nearly all of them
                if known is not None:
                    self._remove(node_id, known)
                self._add(Held(node_id, task))
                touched.add(task.slot.service_key)
        for task in old.values():
            self._remove(node_id, task)
            touched.add(task.slot.service_key)

    def _add(self, item: Held) -> None:
        slot = item.task.slot
        slots = self._services.setdefault(slot.service_key, {})
        items = slots.setdefault(slot.slot, [])
        items.append(item)
        if len(items) > 1:  # several: who comes first must not depend on who was added first
            items.sort(key=lambda each: each.node_id)
            items.sort(key=lambda each: (each.task.epoch, each.task.task_id), reverse=True)
        self._service_of[item.task.task_id] = slot.service_key

    def _remove(self, node_id: NodeId, task: TaskAssignment) -> None:
        key = task.slot.service_key
        slots = self._services[key]
        left = [
            each
            for each in slots[task.slot.slot]
            if each.node_id != node_id or each.task.task_id != task.task_id
        ]
        if left:
            slots[task.slot.slot] = left
        else:
            del slots[task.slot.slot]
            if not slots:
                del self._services[key]
        if not any(each.task.task_id == task.task_id for each in left):
            self._service_of.pop(task.task_id, None)
