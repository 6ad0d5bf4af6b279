"""What does the leader see of the store? One consistent.

Immutable view of everything at one revision.

A round plans from a `Snapshot` and commits against the mod revisions in it, so nothing that changed
meanwhile is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dray.model import (
    Assignment,
    ClusterRecord,
    NodeRecord,
    ServiceKey,
    ServiceRecord,
    ServiceRevision,
    SlotKey,
    StoreRevision,
)
from dray.names import NodeId

__all__ = ["JobVerdict", "Snapshot", "VolumeKey"]


@dataclass(frozen=True, slots=True, order=True)
class VolumeKey:
    """A named volume of a project: its Docker name is what it is known by."""

    project: str
    volume: str


@dataclass(frozen=True, slots=True)
class JobVerdict:
    """How one slot of a job ended, for good.

    Attributes:
        slot: The slot.
        service_revision: What it ran.
        exit_code: 0: it completed.
    """

    slot: SlotKey
    service_revision: ServiceRevision
    exit_code: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is stored, at one revision.

    Attributes:
        cluster: The cluster itself.
        revision: Store revision of the view.
        services: The newest revision of every service that should run. A service that is not here
            is to end.
        revisions: Every kept revision, for tasks that still run an older one.
        nodes: The registry.
        assignments: What every node should run. A node without one was never assigned anything:
            *unknown*, not empty.
        volume_pins: On which node a volume's data is.
        job_verdicts: Slots of jobs that ended.
    """

    cluster: ClusterRecord
    revision: StoreRevision
    services: Mapping[ServiceKey, ServiceRecord] = field(default_factory=dict)
    revisions: Mapping[tuple[ServiceKey, ServiceRevision], ServiceRecord] = field(
        default_factory=dict
    )
    nodes: Mapping[NodeId, NodeRecord] = field(default_factory=dict)
    assignments: Mapping[NodeId, Assignment] = field(default_factory=dict)
    volume_pins: Mapping[VolumeKey, NodeId] = field(default_factory=dict)
    job_verdicts: Mapping[SlotKey, JobVerdict] = field(default_factory=dict)
