"""Which numbers does a scheduler show to Prometheus?

One registry a process, served as text on the port of the settings. Names begin with
`dray_scheduler_`; the leader's are there on every scheduler, and stand still while it follows.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dray.model import NodeCondition
from dray.views import RoundStatus
from scheduler.store.base import StoreStatus

__all__ = ["Metrics"]

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The numbers of one scheduler."""

    def __init__(self) -> None:
        """Start at zero, with a registry of its own."""
        self.registry = CollectorRegistry()
        self._leading = self._gauge("leading", "1 while this scheduler leads")
        self._rounds = self._counter("rounds", "Rounds of the leader")
        self._round_seconds = Histogram(
            "dray_scheduler_round_seconds",
            "Time of a round, planning and commits",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._commit_seconds = Histogram(
            "dray_scheduler_commit_seconds",
            "Time of one transaction of the leader",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._conflicts = self._counter("conflicts", "Commits that found another writer")
        self._tasks = Counter(
            "dray_scheduler_tasks",
            "Tasks that the leader created, stopped or moved",
            ["action"],
            registry=self.registry,
        )
        self._unplaced = self._gauge("unplaced_slots", "Slots without room, in the last round")
        self._revision = self._gauge("store_revision", "Revision of the store in this copy")
        self._store_bytes = Gauge(
            "dray_scheduler_store_bytes",
            "Database of an etcd server",
            ["server", "part"],
            registry=self.registry,
        )
        self._store_healthy = Gauge(
            "dray_scheduler_store_healthy",
            "1 while an etcd server answers and has no alarm",
            ["server"],
            registry=self.registry,
        )
        self._nodes = Gauge(
            "dray_scheduler_nodes",
            "Nodes by condition, as the leader holds them",
            ["condition"],
            registry=self.registry,
        )

    def set_leading(self, is_leading: bool) -> None:
        """Note whether this scheduler leads."""
        self._leading.set(float(is_leading))

    def set_revision(self, revision: int) -> None:
        """Note the store revision of the copy in memory."""
        self._revision.set(revision)

    def observe_commit(self, duration_s: float) -> None:
        """Count one transaction."""
        self._commit_seconds.observe(duration_s)

    def observe_round(self, status: RoundStatus) -> None:
        """Count one round."""
        self._rounds.inc()
        self._round_seconds.observe(status.duration_s)
        self._conflicts.inc(status.conflicts)
        self._unplaced.set(status.unplaced)

    def observe_tasks(self, *, created: int, stopped: int, moved: int) -> None:
        """Count what one transaction has carried out."""
        for action, count in (("created", created), ("stopped", stopped), ("moved", moved)):
            self._tasks.labels(action).inc(count)

    def observe_store(self, status: StoreStatus) -> None:
        """Note how the servers of the store are."""
        for member in status.members:
            self._store_bytes.labels(member.address, "file").set(member.size_bytes)
            self._store_bytes.labels(member.address, "in_use").set(member.size_in_use_bytes)
            is_well = member.healthy and not member.alarms
            self._store_healthy.labels(member.address).set(float(is_well))

    def observe_nodes(self, counts: dict[NodeCondition, int]) -> None:
        """Note how many nodes are in each condition."""
        for condition in NodeCondition:
            self._nodes.labels(condition.name.lower()).set(counts.get(condition, 0))

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"dray_scheduler_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"dray_scheduler_{name}", text, registry=self.registry)
