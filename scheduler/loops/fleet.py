"""What does placement see of the nodes? Columns that are kept from round to round.

A node is looked at again only when something about it has changed: its entry, its Hello, whether it
takes new tasks, or its assignment. Snapshots share what did not change, so that is a comparison of
objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dray.model import (
    Assignment,
    MountKind,
    NodeCapacity,
    NodeInfo,
    NodeRecord,
    Platform,
    ServiceKey,
    ServiceRevision,
    ServiceSpec,
)
from dray.names import NodeId
from scheduler.nodes.parts import record_of
from scheduler.placement import (
    ClusterView,
    PlacementNode,
    PlacementRules,
    RunningShare,
    TaskGroup,
    cluster_view,
    folded,
)
from scheduler.reconcile import CreateTask, MoveTask, Observed
from scheduler.reconcile.situation import accepts_new
from scheduler.store.snapshot import Snapshot

__all__ = ["Fleet", "groups_of"]

_UNKNOWN_CAPACITY: Final = NodeCapacity(0, 0)  # of a node that has not connected in this term
_PINNING_MOUNTS: Final = frozenset({MountKind.VOLUME, MountKind.BIND, MountKind.CLUSTER})


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a node's row was made from."""

    record: NodeRecord
    info: NodeInfo | None
    accepts_new: bool
    assignment: Assignment | None


class Fleet:
    """The nodes as placement sees them, from round to round. For one term, and one thread."""

    def __init__(self, rules: PlacementRules | None = None) -> None:
        """Start without nodes.

        Args:
            rules: What the operator said; None: nothing.
        """
        self._seen: dict[NodeId, _Seen] = {}
        self._view: ClusterView = cluster_view([], rules)

    def view(self, snapshot: Snapshot, observed: Observed) -> ClusterView:
        """Return the columns for a snapshot and what was observed.

        Args:
            snapshot: What is stored.
            observed: What nodes reported; a node that is unknown takes nothing new.
        """
        changed: list[PlacementNode] = []
        for node_id, record in snapshot.nodes.items():
            node = observed.nodes.get(node_id)
            now = _Seen(
                record,
                None if node is None else node.info,
                accepts_new(snapshot, observed, node_id),
                snapshot.assignments.get(node_id),
            )
            if not _is_same(self._seen.get(node_id), now):
                self._seen[node_id] = now
                changed.append(_placement_node(snapshot, now))
        removed = [node_id for node_id in self._seen if node_id not in snapshot.nodes]
        for node_id in removed:
            del self._seen[node_id]
        if changed or removed:
            self._view = folded(self._view, changed, removed)
        return self._view


def groups_of(snapshot: Snapshot, actions: Iterable[CreateTask | MoveTask]) -> list[TaskGroup]:
    """Return the new tasks of a plan as placement wants them: alike ones together.

    Args:
        snapshot: What is stored; holds the revisions that the actions name.
        actions: What needs a node. One whose revision is no longer kept is left out: its service
            has changed, and the next round sees that.
    """
    alike: dict[tuple[ServiceKey, ServiceRevision, NodeId | None], list[CreateTask | MoveTask]] = {}
    for action in actions:
        key = (action.slot.service_key, action.service_revision, action.pinned_to)
        alike.setdefault(key, []).append(action)
    groups: list[TaskGroup] = []
    for (service, revision, pinned_to), members in alike.items():
        record = record_of(snapshot, service, revision)
        if record is None:
            continue
        project = snapshot.projects.get(service.project)
        group = TaskGroup(
            service,
            record.spec,
            tuple(member.slot for member in members),
            max(record.spec.mode.replicas, len(members)),
            pinned_to,
        )
        groups.append(group if project is None else _of_project(group, project.spec.gang, snapshot))
    return groups


def _of_project(group: TaskGroup, is_gang: bool, snapshot: Snapshot) -> TaskGroup:
    """Return a group with what its project asks for as a whole."""
    project = snapshot.projects[group.service.project]
    return TaskGroup(
        group.service,
        group.spec,
        group.slots,
        group.replicas_wanted,
        group.pinned_to,
        project.spec.policy,
        group.service.project if is_gang else "",
    )


def _is_same(before: _Seen | None, now: _Seen) -> bool:
    """Return whether a row need not be made again. Equal values count as the same object."""
    return (
        before is not None
        and before.assignment is now.assignment
        and before.accepts_new is now.accepts_new
        and (before.record is now.record or before.record == now.record)
        and (before.info is now.info or before.info == now.info)
    )


def _placement_node(snapshot: Snapshot, seen: _Seen) -> PlacementNode:
    info = seen.info
    return PlacementNode(
        seen.record.node_id,
        seen.record.name,
        _UNKNOWN_CAPACITY if info is None else info.capacity,
        seen.accepts_new,
        seen.record.labels,
        seen.record.taints,
        Platform() if info is None else info.platform,
        tuple(_shares(snapshot, seen.assignment)),
    )


def _shares(snapshot: Snapshot, assignment: Assignment | None) -> Sequence[RunningShare]:
    """Return what is assigned to a node, tasks of one revision together."""
    totals: Counter[tuple[ServiceKey, ServiceRevision]] = Counter()
    ending: Counter[tuple[ServiceKey, ServiceRevision]] = Counter()
    devices: dict[tuple[ServiceKey, ServiceRevision], list[tuple[str, ...]]] = {}
    for task in () if assignment is None else assignment.tasks:
        kind = (task.slot.service_key, task.service_revision)
        totals[kind] += 1
        ending[kind] += task.stop
        if task.gpu_ids:
            devices.setdefault(kind, []).append(task.gpu_ids)
    shares: list[RunningShare] = []
    for (service, revision), count in totals.items():
        record = record_of(snapshot, service, revision)
        assert record is not None, f"revision {revision} of {service} is assigned and not kept"
        spec = record.spec
        shares.append(
            RunningShare(
                service,
                count,
                spec.task.reservations,
                spec,
                tuple(devices.get((service, revision), ())),
                pinned=_is_pinned(spec),
                ending=ending[(service, revision)],
            )
        )
    return shares


def _is_pinned(spec: ServiceSpec) -> bool:
    mounts = spec.task.container.mounts
    return any(mount.kind in _PINNING_MOUNTS and mount.source for mount in mounts)
