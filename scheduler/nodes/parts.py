"""What is a node told beside its tasks' ids? Its share of a snapshot, complete, as values.

Stored assignments name service revisions; here what those run is put in, and what the tasks'
projects bring along: networks, volumes, contents, own addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from dray.model import (
    Assignment,
    ContentKind,
    ContentRef,
    MountKind,
    ProjectParts,
    ServiceAddress,
    ServiceKey,
    ServiceModeKind,
    ServiceRecord,
    ServiceRevision,
    VolumeSpec,
)
from dray.names import NodeId
from scheduler.nodes.sessions import Share
from scheduler.reconcile.volumes import is_local
from scheduler.store.records import ProjectRecord
from scheduler.store.snapshot import Snapshot, VolumeKey

__all__ = ["record_of", "share_of"]

_GLOBAL_KINDS: Final = frozenset({ServiceModeKind.GLOBAL, ServiceModeKind.GLOBAL_JOB})


def share_of(snapshot: Snapshot, node_id: NodeId) -> Share | None:
    """Return what a node should run, complete; None: it was never assigned anything."""
    assignment = snapshot.assignments.get(node_id)
    if assignment is None:
        return None
    wanted = sorted({(task.slot.service_key, task.service_revision) for task in assignment.tasks})
    records = [record for key, revision in wanted if (record := record_of(snapshot, key, revision))]
    specs = tuple(record.spec_entry for record in records)
    return Share(replace(assignment, specs=specs), _projects(snapshot, assignment, records))


def record_of(
    snapshot: Snapshot, service: ServiceKey, revision: ServiceRevision
) -> ServiceRecord | None:
    """Return a revision of a service, or None when it is no longer kept."""
    newest = snapshot.services.get(service)
    if newest is not None and newest.revision == revision:
        return newest
    return snapshot.revisions.get((service, revision))


def _projects(
    snapshot: Snapshot, assignment: Assignment, records: list[ServiceRecord]
) -> tuple[ProjectParts, ...]:
    names = sorted({task.slot.project for task in assignment.tasks})
    return tuple(
        _parts(snapshot, assignment.node_id, name, [r for r in records if r.project == name])
        for name in names
    )


def _parts(
    snapshot: Snapshot, node_id: NodeId, name: str, records: list[ServiceRecord]
) -> ProjectParts:
    addresses = tuple(
        sorted(
            {ServiceAddress(record.spec.name, record.vip) for record in records if record.vip},
            key=lambda each: (each.service, each.vip),
        )
    )
    project = snapshot.projects.get(name)
    if project is None:
        return ProjectParts(name, service_addresses=addresses)
    networks = {each.network for record in records for each in record.spec.task.networks}
    sources = _volume_sources(records)
    volumes = tuple(each for each in project.spec.volumes if each.key in sources)
    own = _volume_sources(each for each in records if each.spec.mode.kind in _GLOBAL_KINDS)
    creatable = sorted(
        volume.name
        for volume in volumes
        if not volume.external and (volume.key in own or _may_make(snapshot, name, volume, node_id))
    )
    return ProjectParts(
        name,
        tuple(each for each in project.spec.networks if each.key in networks),
        volumes,
        tuple(creatable),
        _contents(project, records),
        addresses,
    )


def _volume_sources(records: Iterable[ServiceRecord]) -> set[str]:
    """Return the keys of the volumes that tasks of these revisions mount."""
    return {
        mount.source
        for record in records
        for mount in record.spec.task.container.mounts
        if mount.kind in (MountKind.VOLUME, MountKind.CLUSTER)
    }


def _may_make(snapshot: Snapshot, project: str, volume: VolumeSpec, node_id: NodeId) -> bool:
    """Return whether a node may make a volume.

    One with data on the node only where it is pinned, and once; one whose data is elsewhere (its
    driver's matter) on any node.
    """
    if not is_local(volume):
        return True
    pin = snapshot.volume_pins.get(VolumeKey(project, volume.name))
    return pin is not None and pin.node_id == node_id and not pin.is_made


def _contents(project: ProjectRecord, records: Iterable[ServiceRecord]) -> tuple[ContentRef, ...]:
    """Return the configs and secrets that tasks mount, and all credentials of registries."""
    used: set[tuple[ContentKind, str]] = set()
    for record in records:
        container = record.spec.task.container
        used |= {(ContentKind.CONFIG, mount.source) for mount in container.configs}
        used |= {(ContentKind.SECRET, mount.source) for mount in container.secrets}
    return tuple(
        ref
        for ref in project.contents
        if ref.kind is ContentKind.REGISTRY_AUTH or (ref.kind, ref.key) in used
    )
