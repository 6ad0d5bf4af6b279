"""Which services must a round look at? Those that something has changed about since the last one.

A project is looked at as a whole: its services wait for each other and share volumes. It is dirty
when something stored about it has changed, when a task of it came or went or was reported on, when
a node that runs some of it has changed, and when it waits for room and something has changed that
may have made some. Services with a task on every node are dirty whenever a node has changed.

Snapshots and observations share what did not change, so that finding out costs time for what did,
and a comparison of objects for each node. A round over everything is due now and then all the same:
forgetting something here would cost a delay, never a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

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

__all__ = ["Dirty"]

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

    def __init__(self) -> None:
        """Start with everything to be looked at."""
        self._held = HeldIndex()
        self._snapshot: Snapshot | None = None
        self._nodes: dict[NodeId, _Node] = {}
        self._attempts: Mapping[TaskId, AttemptReport] = _NOBODY
        self._carried: set[str] | None = None  # projects that are still to be looked at; None: all
        self._waiting: set[str] = set()
        self._timed: set[str] = set()

    def scope(
        self, snapshot: Snapshot, observed: Observed, *, is_full: bool, is_time: bool
    ) -> Scope:
        """Return what a round must look at.

        Args:
            snapshot: What is stored.
            observed: What nodes reported.
            is_full: Look at everything.
            is_time: A time that a plan had named has come.
        """
        touched = self._held.update(snapshot)
        before, self._snapshot = self._snapshot, snapshot
        projects = {key.project for key in touched}
        if before is not None:
            projects |= _stored_changes(before, snapshot)
        projects |= self._reported(observed)
        nodes = self._changed_nodes(snapshot, observed)
        for node_id in nodes:
            projects |= {key.project for key in self._held.services_on(node_id)}
        if nodes:
            projects |= {
                key.project
                for key, record in snapshot.services.items()
                if record.spec.mode.kind in _GLOBAL
            }
        if nodes or touched:
            projects |= self._waiting
        if is_time:
            projects |= self._timed
            self._timed = set()
        if before is None or is_full or self._carried is None:
            self._carried = None
            return Scope(self._held)
        self._carried |= projects
        asked = {key for key in snapshot.services if key.project in self._carried}
        left = {key for key in self._held if key.project in self._carried}
        return Scope(self._held, frozenset(asked | left))

    def done(self, scope: Scope, waiting: Iterable[SlotKey], *, is_timed: bool) -> None:
        """Note that a round was carried out.

        Args:
            scope: What it looked at.
            waiting: Slots that found no room.
            is_timed: Its plan has named a time.
        """
        looked = None if scope.services is None else {key.project for key in scope.services}
        if looked is None:
            self._waiting.clear()
            self._timed.clear()
        else:
            self._waiting -= looked
        self._waiting |= {slot.project for slot in waiting}
        if is_timed:
            assert self._snapshot is not None, "done before it began"
            all_projects = {key.project for key in (*self._held, *self._snapshot.services)}
            self._timed |= all_projects if looked is None else looked
        self._carried = set()

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
