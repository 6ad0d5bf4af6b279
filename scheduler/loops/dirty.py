"""Which services must a round look at? Those that something has changed about since the last one.

A project is looked at as a whole: its services wait for each other and share volumes. It is dirty
when something stored about it has changed, when a task of it came or went or was reported on, when
a node that runs some of it has changed, and when it waits for room and something has changed that
may have made some. Services with a task on every node are dirty whenever a node has changed.

Snapshots and observations share what did not change, so that finding out costs time for what did,
and a comparison of objects for each node. Looking at everything is due now and then all the same:
forgetting something here would cost a delay, never a result.

A round looks at projects with at most `TASKS_MAX` tasks together (or at one project), so that what
happens during a large deployment waits for one such part of it, not for all of it. Projects take
turns: those of nodes that have changed, then those that have changed themselves, in the order in
which they did, then what is looked at because everything is due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from itertools import chain
from typing import Final, TypeAlias

from dray.model import (
    AttemptReport,
    FaultKind,
    NodeCondition,
    NodeInfo,
    NodeRecord,
    ServiceModeKind,
    SlotKey,
)
from dray.names import NodeId, TaskId
from scheduler.nodes.shards import changed_keys
from scheduler.reconcile import HeldIndex, Observed, Scope
from scheduler.store.snapshot import Snapshot, differing

__all__ = ["TASKS_MAX", "Dirty"]

TASKS_MAX: Final = 20_000  # planned, committed and sent in about a second
_GLOBAL = frozenset({ServiceModeKind.GLOBAL, ServiceModeKind.GLOBAL_JOB})
_Node: TypeAlias = tuple[
    NodeRecord,
    NodeCondition | None,
    NodeInfo | None,
    bool,
    bool,
    frozenset[str],
    frozenset[FaultKind],
]
_NOBODY: Mapping[TaskId, AttemptReport] = {}


class Dirty:
    """What has changed since the last round. For one term, and one thread."""

    def __init__(self, tasks_max: int = TASKS_MAX) -> None:
        """Start with everything to be looked at.

        Args:
            tasks_max: How many tasks a round looks at, unless one project has more.
        """
        self._tasks_max = tasks_max
        self._held = HeldIndex()
        self._snapshot: Snapshot | None = None
        self._nodes: dict[NodeId, _Node] = {}
        self._attempts: Mapping[TaskId, AttemptReport] = _NOBODY
        # Projects that are still to be looked at; each dictionary is a queue without repetitions.
        self._urgent: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._swept: dict[str, None] = {}
        self._waiting: set[str] = set()
        self._timed: set[str] = set()

    @property
    def has_more(self) -> bool:
        """Whether there was more to look at than a round takes."""
        return bool(self._urgent or self._changed or self._swept)

    @property
    def is_sweeping(self) -> bool:
        """Whether looking at everything has not come to its end yet."""
        return bool(self._swept)

    def scope(
        self, snapshot: Snapshot, observed: Observed, *, is_full: bool, is_time: bool
    ) -> Scope:
        """Return what a round must look at.

        Args:
            snapshot: What is stored.
            observed: What nodes reported.
            is_full: Look at everything, in this round and those that follow.
            is_time: A time that a plan had named has come.
        """
        touched = self._held.update(snapshot)
        before, self._snapshot = self._snapshot, snapshot
        nodes = self._changed_nodes(snapshot, observed)
        for node_id in nodes:
            _queue(self._urgent, {key.project for key in self._held.services_on(node_id)})
        _queue(self._changed, {key.project for key in touched})
        if before is not None:
            _queue(self._changed, _stored_changes(before, snapshot))
        _queue(self._changed, self._reported(observed))
        if nodes:
            _queue(self._changed, _global_projects(snapshot))
        if nodes or touched:
            _queue(self._changed, self._waiting)
        if is_time:
            _queue(self._changed, self._timed)
            self._timed = set()
        if before is None or is_full:
            _queue(self._swept, {key.project for key in chain(snapshot.services, self._held)})
        looked = self._next(snapshot)
        asked = {key for key in snapshot.services if key.project in looked}
        left = {key for key in self._held if key.project in looked}
        return Scope(self._held, frozenset(asked | left))

    def done(
        self, scope: Scope, waiting: Iterable[SlotKey], left: Set[str], *, is_timed: bool
    ) -> None:
        """Note that a round was carried out.

        Args:
            scope: What it looked at; from `scope`.
            waiting: Slots that found no room.
            left: Projects of which only a part was carried out: they have another turn.
            is_timed: Its plan has named a time.
        """
        assert scope.services is not None, "not from here"
        looked = {key.project for key in scope.services}
        self._waiting -= looked
        self._waiting |= {slot.project for slot in waiting}
        if is_timed:
            self._timed |= looked
        for queue in (self._urgent, self._changed, self._swept):
            for project in looked:
                queue.pop(project, None)
        _queue(self._changed, left)

    def _next(self, snapshot: Snapshot) -> set[str]:
        """Return the projects whose turn it is. Those without anything left are forgotten."""
        queues = (self._urgent, self._changed, self._swept)
        if not self.has_more:
            return set()
        sizes = self._sizes(snapshot)
        looked: set[str] = set()
        size = 0
        for queue in queues:
            for project in [each for each in queue if each not in sizes]:
                del queue[project]
            for project in queue:
                if project in looked:
                    continue
                if looked and size + sizes[project] > self._tasks_max:
                    return looked
                looked.add(project)
                size += sizes[project]
        return looked

    def _sizes(self, snapshot: Snapshot) -> Counter[str]:
        """Return how many tasks every project has, or should have."""
        sizes: Counter[str] = Counter()
        for key, record in snapshot.services.items():
            mode = record.spec.mode
            wanted = len(snapshot.nodes) if mode.kind in _GLOBAL else mode.replicas
            sizes[key.project] += max(wanted, len(self._held.get(key, ())))
        for key, slots in self._held.items():
            if key not in snapshot.services:
                sizes[key.project] += len(slots)
        return sizes

    def _reported(self, observed: Observed) -> set[str]:
        """Return the projects of tasks that were reported on."""
        before, self._attempts = self._attempts, observed.attempts
        if before is observed.attempts:
            return set()
        found = changed_keys(before, observed.attempts)
        services = map(self._held.service_of, found)
        return {key.project for key in services if key is not None}

    def _changed_nodes(self, snapshot: Snapshot, observed: Observed) -> list[NodeId]:
        """Return the nodes that are not what they were: entry, condition, what they said."""
        now = {node_id: _node(snapshot, observed, node_id) for node_id in snapshot.nodes}
        before, self._nodes = self._nodes, now
        changed = [node_id for node_id, node in now.items() if before.get(node_id) != node]
        return [*changed, *(node_id for node_id in before if node_id not in now)]


def _queue(queue: dict[str, None], projects: Iterable[str]) -> None:
    """Add projects to the end of a queue that does not hold them yet."""
    queue.update(dict.fromkeys(sorted(set(projects) - queue.keys())))


def _global_projects(snapshot: Snapshot) -> set[str]:
    """Return the projects that have a service with a task on every node."""
    return {
        key.project for key, record in snapshot.services.items() if record.spec.mode.kind in _GLOBAL
    }


def _node(snapshot: Snapshot, observed: Observed, node_id: NodeId) -> _Node:
    node = observed.nodes.get(node_id)
    record = snapshot.nodes[node_id]
    if node is None:
        return (record, None, None, False, False, frozenset(), frozenset())
    return (
        record,
        node.condition,
        node.info,
        node.is_leaving,
        node.has_all_attempts,
        node.volumes,
        frozenset(fault.kind for fault in node.faults),
    )


def _stored_changes(before: Snapshot, after: Snapshot) -> set[str]:
    """Return the projects about which something else than assignments has changed."""
    services = (
        *differing(before.services, after.services),
        *differing(before.rollouts, after.rollouts),
        *differing(before.cron_verdicts, after.cron_verdicts),
    )
    found = set(differing(before.projects, after.projects))
    found |= {key.project for key in services}
    found |= {key.project for key in differing(before.job_verdicts, after.job_verdicts)}
    return found | {key.project for key in differing(before.volume_pins, after.volume_pins)}
