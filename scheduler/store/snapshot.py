"""What does the leader see of the store? One immutable view of everything at one revision.

A round plans from a `Snapshot` and commits against the mod revisions in it, so nothing that changed
meanwhile is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dray.model import (
    Assignment,
    ClusterRecord,
    ContentRef,
    Event,
    GossipKey,
    NodeRecord,
    ServiceKey,
    ServiceRecord,
    ServiceRevision,
    SlotKey,
    StoreRevision,
)
from dray.names import NodeId, SchedulerId
from scheduler.store.records import (
    CronVerdict,
    JobVerdict,
    LeaderRecord,
    NodeVerdict,
    ProjectRecord,
    RolloutVerdict,
    SchedulerRecord,
    VolumePin,
)

__all__ = ["JobVerdict", "Leader", "Snapshot", "VolumeKey", "differing"]

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True, order=True)
class VolumeKey:
    """A named volume of a project: its Docker name is what it is known by."""

    project: str
    volume: str


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, and the create revision of its key: the other half of its epoch."""

    record: LeaderRecord
    create_revision: StoreRevision


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is stored, at one revision, but for bytes of contents and kept answers.

    Attributes:
        cluster: The cluster itself.
        revision: Store revision of the view.
        services: The newest revision of every service that should run. A service that is not here
            is to end.
        revisions: Older kept revisions, for tasks that still run one, and for people. The newest
            is in `services`, and comes here when another one follows or the service is removed.
        nodes: The registry.
        assignments: What every node should run. A node without one was never assigned anything:
            *unknown*, not empty.
        volume_pins: On which node a volume's data is.
        rollouts: How the replacement of services' tasks stands.
        job_verdicts: Slots of jobs that ended.
        projects: What was asked for each project as a whole.
        contents: What is stored of configs, secrets and credentials, by key of the store.
        keyring: Keys of gossip.
        leader: Who leads; None: nobody, at that revision.
        schedulers: Those that run, each on a lease.
        node_names: Whose a name is.
        subnets: Whose a subnet is, by its position in the cluster's range.
        vips: Whose an address of the services' range is.
        node_verdicts: What was concluded about nodes for good.
        cron_verdicts: Last ticks of services that run by the clock.
        events: The events of each slot of the ring.
        mod_revisions: Mod revision of every key that exists, by key: what a compare-and-set names.
    """

    cluster: ClusterRecord
    revision: StoreRevision
    services: Mapping[ServiceKey, ServiceRecord] = field(default_factory=dict)
    revisions: Mapping[tuple[ServiceKey, ServiceRevision], ServiceRecord] = field(
        default_factory=dict
    )
    nodes: Mapping[NodeId, NodeRecord] = field(default_factory=dict)
    assignments: Mapping[NodeId, Assignment] = field(default_factory=dict)
    volume_pins: Mapping[VolumeKey, VolumePin] = field(default_factory=dict)
    rollouts: Mapping[ServiceKey, RolloutVerdict] = field(default_factory=dict)
    job_verdicts: Mapping[SlotKey, JobVerdict] = field(default_factory=dict)
    projects: Mapping[str, ProjectRecord] = field(default_factory=dict)
    contents: Mapping[str, ContentRef] = field(default_factory=dict)
    keyring: tuple[GossipKey, ...] = ()
    leader: Leader | None = None
    schedulers: Mapping[SchedulerId, SchedulerRecord] = field(default_factory=dict)
    node_names: Mapping[str, NodeId] = field(default_factory=dict)
    subnets: Mapping[int, NodeId] = field(default_factory=dict)
    vips: Mapping[str, ServiceKey] = field(default_factory=dict)
    node_verdicts: Mapping[NodeId, NodeVerdict] = field(default_factory=dict)
    cron_verdicts: Mapping[ServiceKey, CronVerdict] = field(default_factory=dict)
    events: Mapping[int, tuple[Event, ...]] = field(default_factory=dict)
    mod_revisions: Mapping[str, StoreRevision] = field(default_factory=dict)


def differing(before: Mapping[_Key, object], after: Mapping[_Key, object]) -> list[_Key]:
    """Return the keys whose values are not the same object in two snapshots' mappings.

    Snapshots share what did not change between them.
    """
    if before is after:
        return []
    return [key for key in {**before, **after} if before.get(key) is not after.get(key)]
