"""Which volumes must be there before a task starts, and which of them may be made? Pure.

A named volume pins its service to a node, so an empty one where data was expected is a loss that
nobody notices. Only names that the leader lists as `creatable_volumes` are made; any other must
exist. Volume mounts in the spec name the project's key; Docker gets the full name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from dray.model import Mount, MountKind, ProjectParts, VolumeSpec, string_map
from dray.names import ClusterId
from node.runtime.base import Refusal, Refused, Volume, VolumeRequest

__all__ = [
    "LABEL_VOLUME_CLUSTER",
    "LABEL_VOLUME_KEY",
    "LABEL_VOLUME_PROJECT",
    "VolumePlan",
    "removable_volumes",
    "volume_plan",
]

LABEL_VOLUME_CLUSTER: Final = "dray.cluster-id"
LABEL_VOLUME_PROJECT: Final = "dray.project"
LABEL_VOLUME_KEY: Final = "dray.volume"

_NAMED: Final = (MountKind.VOLUME, MountKind.CLUSTER)


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """What has to be done about a task's volumes.

    Attributes:
        mounts: Its mounts, with the full names of volumes.
        make: Volumes to make if they are missing.
        need: Names of volumes that must be there already.
    """

    mounts: tuple[Mount, ...]
    make: tuple[VolumeRequest, ...] = ()
    need: tuple[str, ...] = ()


def volume_plan(
    mounts: Iterable[Mount], parts: ProjectParts, cluster_id: ClusterId
) -> VolumePlan | Refused:
    """Return what has to be done about a task's volumes, or why it cannot be.

    Args:
        mounts: As the spec has them.
        parts: Of its project: the volumes' full names, drivers, and which may be made.
        cluster_id: The cluster, for the labels of what is made.
    """
    specs = {volume.key: volume for volume in parts.volumes}
    creatable = frozenset(parts.creatable_volumes)
    named: list[Mount] = []
    make: dict[str, VolumeRequest] = {}
    need: dict[str, None] = {}
    for mount in mounts:
        if mount.kind not in _NAMED or not mount.source:
            named.append(mount)
            continue
        spec = specs.get(mount.source)
        if spec is None:
            return Refused(
                Refusal.VOLUME_MISSING,
                f"the leader did not send the volume {mount.source} of project {parts.project}",
            )
        named.append(replace(mount, source=spec.name))
        if spec.name in creatable and not spec.external:
            make[spec.name] = _request(spec, parts.project, cluster_id)
        else:
            need[spec.name] = None
    return VolumePlan(tuple(named), tuple(make.values()), tuple(need))


def _request(spec: VolumeSpec, project: str, cluster_id: ClusterId) -> VolumeRequest:
    labels = {
        **dict(spec.labels),
        LABEL_VOLUME_CLUSTER: cluster_id,
        LABEL_VOLUME_PROJECT: project,
        LABEL_VOLUME_KEY: spec.key,
    }
    return VolumeRequest(spec.name, spec.driver or "local", spec.driver_opts, string_map(labels))


def removable_volumes(
    names: Iterable[str], volumes: Iterable[Volume], project: str, cluster_id: ClusterId
) -> tuple[str, ...]:
    """Return those of the named volumes that this cluster made for this project, by their labels.

    Args:
        names: Docker volumes whose data is not wanted any more.
        volumes: Those of the engine.
        project: The project that they were made for.
        cluster_id: The cluster.
    """
    wanted = frozenset(names)
    own = {(LABEL_VOLUME_CLUSTER, str(cluster_id)), (LABEL_VOLUME_PROJECT, project)}
    return tuple(each.name for each in volumes if each.name in wanted and own <= set(each.labels))
