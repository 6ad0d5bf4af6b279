"""What is the situation of a node, a task, a revision? The questions that planning asks.

A `Situation` is what one plan is made from: the snapshot, what was observed, the time, and who
holds what. It decides nothing; every answer is about now, and *unknown* is never an answer of yes.
"""

from __future__ import annotations

from collections.abc import Mapping

from dray.model import (
    TERMINAL_ATTEMPT_STATES,
    AttemptReport,
    AttemptState,
    Availability,
    Fault,
    FaultKind,
    Health,
    NodeCondition,
    ServiceKey,
    ServiceRecord,
    ServiceRevision,
)
from dray.names import IdFactory, NodeId, TaskId
from scheduler.reconcile.held import Held, HeldIndex
from scheduler.reconcile.observed import NodeObservation, Observed
from scheduler.store.snapshot import Snapshot

__all__ = ["BLOCKING_FAULTS", "SINGLETON_MARGIN_S", "Held", "Situation", "accepts_new"]

SINGLETON_MARGIN_S = 12.0  # a grant of 10 s and 2 s for clocks, after its node was found down
BLOCKING_FAULTS = frozenset({FaultKind.DISK_FULL, FaultKind.INODES_LOW, FaultKind.DOCKER_AWAY})
_UP = frozenset({NodeCondition.READY, NodeCondition.ISOLATED})


def accepts_new(snapshot: Snapshot, observed: Observed, node_id: NodeId) -> bool:
    """Return whether new tasks may go to a node, as far as it is in order: placement asks, too."""
    record, node = snapshot.nodes.get(node_id), observed.nodes.get(node_id)
    return (
        record is not None
        and node is not None
        and record.availability is Availability.ACTIVE
        and node.condition is NodeCondition.READY
        and not node.is_leaving
        and not _blocks(node.faults)
    )


class Situation:
    """What one plan is made from."""

    def __init__(
        self,
        snapshot: Snapshot,
        observed: Observed,
        now_unix_s: float,
        ids: IdFactory,
        held: Mapping[ServiceKey, Mapping[int, list[Held]]] | None = None,
    ) -> None:
        """Look at the assignments once, unless `held` knows them already."""
        self.snapshot = snapshot
        self.observed = observed
        self.now_unix_s = now_unix_s
        self.ids = ids
        self.wake_at_unix_s: float | None = None
        self.held = HeldIndex(snapshot) if held is None else held
        self._same: dict[tuple[ServiceKey, ServiceRevision, ServiceRevision], bool] = {}

    def wake_at(self, at_unix_s: float) -> None:
        """Have the next round not later than that."""
        if self.wake_at_unix_s is None or at_unix_s < self.wake_at_unix_s:
            self.wake_at_unix_s = at_unix_s

    def new_task_id(self) -> TaskId:
        """Return the id of a new task."""
        return TaskId(self.ids.new())

    # ---- nodes

    def node(self, node_id: NodeId) -> NodeObservation | None:
        """Return what is held of a node; None: nothing is known."""
        return self.observed.nodes.get(node_id)

    def node_name(self, node_id: NodeId) -> str:
        """Return a node's name for people; its id when it is not registered."""
        record = self.snapshot.nodes.get(node_id)
        return record.name if record else node_id

    def is_registered(self, node_id: NodeId) -> bool:
        """Return whether a node is in the registry; one that is not was removed for good."""
        return node_id in self.snapshot.nodes

    def is_down(self, node_id: NodeId) -> bool:
        """Return whether a node was found to be down."""
        node = self.node(node_id)
        return node is not None and node.condition is NodeCondition.DOWN

    def is_isolated(self, node_id: NodeId) -> bool:
        """Return whether a node's peers cannot reach it."""
        node = self.node(node_id)
        return node is not None and node.condition is NodeCondition.ISOLATED

    def is_drained(self, node_id: NodeId) -> bool:
        """Return whether a node is to be empty: its operator says so, or it is leaving."""
        record, node = self.snapshot.nodes.get(node_id), self.node(node_id)
        is_asked = record is not None and record.availability is Availability.DRAIN
        return is_asked or (node is not None and node.is_leaving)

    def accepts_new(self, node_id: NodeId) -> bool:
        """Return whether new tasks may go to a node."""
        return accepts_new(self.snapshot, self.observed, node_id)

    # ---- tasks

    def attempt(self, item: Held) -> AttemptReport | None:
        """Return what was last heard of a task; None: nothing."""
        return self.observed.attempts.get(item.task.task_id)

    def is_given_up(self, item: Held, *, is_singleton: bool = False) -> bool:
        """Return whether a task's node is gone, so that nothing of the task is awaited.

        A singleton's is given up only when its last grant has run out as well.
        """
        if not self.is_registered(item.node_id):
            return True
        node = self.node(item.node_id)
        if node is None or node.condition is not NodeCondition.DOWN:
            return False
        over_at_s = node.since_unix_s + SINGLETON_MARGIN_S
        if is_singleton and self.now_unix_s < over_at_s:
            self.wake_at(over_at_s)
            return False
        return True

    def has_ended(self, item: Held, *, is_singleton: bool = False) -> bool:
        """Return whether nothing of a task runs or will, as far as anybody can say.

        False when that is unknown, and while its node is about to restart it.
        """
        return self.is_given_up(item, is_singleton=is_singleton) or self.has_reported_end(item)

    def has_reported_end(self, item: Held) -> bool:
        """Return whether a task's end was reported, and its node will not restart it."""
        attempt = self.attempt(item)
        if attempt is None or attempt.next_attempt_unix_s > 0:
            return False
        return attempt.state in TERMINAL_ATTEMPT_STATES

    def serves(self, item: Held) -> bool:
        """Return whether a task was reported to run and be healthy, on a node that is not lost."""
        attempt, node = self.attempt(item), self.node(item.node_id)
        if attempt is None or (node is not None and node.condition not in _UP):
            return False
        is_well = attempt.health in (Health.NONE, Health.HEALTHY)
        return attempt.state is AttemptState.RUNNING and is_well

    # ---- revisions

    def record_of(self, service: ServiceKey, revision: ServiceRevision) -> ServiceRecord | None:
        """Return a revision of a service; None: it is no longer kept."""
        newest = self.snapshot.services.get(service)
        if newest is not None and newest.revision == revision:
            return newest
        return self.snapshot.revisions.get((service, revision))

    def same_work(self, service: ServiceKey, one: ServiceRevision, other: ServiceRevision) -> bool:
        """Return whether tasks of two revisions run the same, so that none need be replaced.

        Of a revision that is no longer kept nobody knows: its tasks are replaced.
        """
        if one == other:
            return True
        key = (service, min(one, other), max(one, other))
        if key not in self._same:
            a, b = self.record_of(service, one), self.record_of(service, other)
            self._same[key] = (
                a is not None
                and b is not None
                and (a.spec.task, a.spec.ports) == (b.spec.task, b.spec.ports)
            )
        return self._same[key]


def _blocks(faults: tuple[Fault, ...]) -> bool:
    return any(fault.kind in BLOCKING_FAULTS for fault in faults)
