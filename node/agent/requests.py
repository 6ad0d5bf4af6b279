"""Which container does an attempt of a task need, and what must be there before it? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from dray.model import (
    NO_EPOCH,
    ContainerSpec,
    ContentKind,
    ContentRef,
    DeviceRequest,
    FileMount,
    ImageOptions,
    Mount,
    NetworkMode,
    ProjectParts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    TaskAssignment,
    TaskSpecEntry,
    TaskTemplate,
    string_map,
)
from dray.names import ClusterId, TaskId, dns_label
from node.runtime.base import (
    ContainerIdentity,
    ContainerNetwork,
    ContainerRequest,
    Refusal,
    Refused,
)

__all__ = [
    "FileRequest",
    "Work",
    "container_name",
    "container_request",
    "device_requests",
    "file_requests",
    "lenders_needed",
    "own_network",
    "registry_of",
    "unexplained_work",
]

_SERVICE_MODE: Final = "service:"


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt of one task, with all that it refers to.

    Attributes:
        cluster_id: The node's cluster.
        node_name: The node.
        task: The task.
        entry: What its service revision runs.
        parts: What its project brings along.
        attempt: Number of the container run.
    """

    cluster_id: ClusterId
    node_name: str
    task: TaskAssignment
    entry: TaskSpecEntry
    parts: ProjectParts
    attempt: int

    @property
    def identity(self) -> ContainerIdentity:
        """Whose container it is."""
        return ContainerIdentity(self.cluster_id, self.task.task_id, self.attempt, self.task.slot)


def container_name(work: Work) -> str:
    """Return the Docker name of an attempt's container: the same one whenever it is asked for.

    So a container that was made just before the daemon died is found again.
    """
    slot = work.task.slot
    label = f"{slot.project}-{dns_label(slot.service)}-{slot.slot}"
    return f"dray-{label}-{work.task.task_id[:10]}-{work.attempt}"


def unexplained_work(
    cluster_id: ClusterId, node_name: str, task_id: TaskId, slot: SlotKey, attempt: int
) -> Work:
    """Return an attempt of which nothing but its container is known any more: enough to end it."""
    nothing = TaskTemplate(ContainerSpec(ImageOptions("")))
    revision = ServiceRevision(0)
    return Work(
        cluster_id,
        node_name,
        TaskAssignment(task_id, slot, revision, NO_EPOCH, stop=True),
        TaskSpecEntry(slot.service_key, revision, nothing),
        ProjectParts(slot.project),
        attempt,
    )


def lenders_needed(work: Work) -> tuple[ServiceKey, ...]:
    """Return the services whose container on this node lends something to this one: its stack …."""
    template, security = work.entry.template, work.entry.template.container.security
    modes = (security.pid_mode, security.ipc_mode)
    names = [mode.removeprefix(_SERVICE_MODE) for mode in modes if mode.startswith(_SERVICE_MODE)]
    if template.network_mode is NetworkMode.SERVICE:
        names.append(template.network_mode_target)
    return tuple(ServiceKey(work.task.slot.project, name) for name in dict.fromkeys(names))


def own_network(work: Work, lenders: Mapping[ServiceKey, str]) -> ContainerNetwork | None:
    """Return how a container is attached that is on no network of the cluster; None: it is on one.

    Args:
        work: The attempt.
        lenders: Container ids of the services that `lenders_needed` names.
    """
    template = work.entry.template
    match template.network_mode:
        case NetworkMode.HOST:
            return ContainerNetwork("host")
        case NetworkMode.NONE:
            return ContainerNetwork("none")
        case NetworkMode.SERVICE:
            lender = ServiceKey(work.task.slot.project, template.network_mode_target)
            return ContainerNetwork(f"container:{lenders[lender]}")
        case NetworkMode.CONTAINER:
            return ContainerNetwork(f"container:{template.network_mode_target}")
        case NetworkMode.CLUSTER:
            return None


def container_request(
    work: Work,
    network: ContainerNetwork,
    *,
    mounts: tuple[Mount, ...],
    files: tuple[tuple[str, str], ...] = (),
    lenders: Mapping[ServiceKey, str],
) -> ContainerRequest:
    """Return the container of an attempt.

    Args:
        work: The attempt.
        network: How it is attached.
        mounts: Its mounts, with the full names of volumes.
        files: (path on the node, path in the container) of its configs and secrets.
        lenders: Container ids of the services that `lenders_needed` names.
    """
    template = work.entry.template
    security = replace(
        template.container.security,
        pid_mode=_mode(template.container.security.pid_mode, work, lenders),
        ipc_mode=_mode(template.container.security.ipc_mode, work, lenders),
    )
    slot = work.task.slot
    shares_stack = network.name.startswith(("container:", "host"))
    hostname = f"{dns_label(slot.service)}-{slot.slot}"[-63:].lstrip("-")
    return ContainerRequest(
        name=container_name(work),
        identity=work.identity,
        spec=replace(template.container, mounts=mounts, security=security),
        network=network,
        devices=device_requests(template.reservations.devices, work.task.gpu_ids),
        files=files,
        hostname="" if shares_stack or template.container.hostname else hostname,
        environment=string_map(_environment(work)),
    )


def device_requests(
    devices: tuple[DeviceRequest, ...], gpu_ids: tuple[str, ...]
) -> tuple[DeviceRequest, ...]:
    """Return which devices Docker is asked for: of GPUs those that placement has chosen.

    Args:
        devices: As the spec has them.
        gpu_ids: The chosen ones, in the order in which the requests get them; empty: none is.
    """
    left = list(gpu_ids)
    named = []
    for device in devices:
        is_gpu = device.driver == "nvidia" or "gpu" in device.capabilities
        if not is_gpu or device.device_ids or not left:
            named.append(device)
            continue
        count = len(left) if device.count < 0 else max(device.count, 1)
        named.append(replace(device, count=0, device_ids=tuple(left[:count])))
        del left[:count]
    if left:  # asked for beside Compose's devices
        named.append(DeviceRequest("nvidia", device_ids=tuple(left), capabilities=("gpu",)))
    return tuple(named)


def _mode(mode: str, work: Work, lenders: Mapping[ServiceKey, str]) -> str:
    if not mode.startswith(_SERVICE_MODE):
        return mode
    lender = ServiceKey(work.task.slot.project, mode.removeprefix(_SERVICE_MODE))
    return f"container:{lenders[lender]}"


def _environment(work: Work) -> dict[str, str]:
    """Return what dray tells a container about itself."""
    task, slot = work.task, work.task.slot
    epoch = task.epoch
    return {
        "DRAY_PROJECT": slot.project,
        "DRAY_SERVICE": slot.service,
        "DRAY_SLOT": str(slot.slot),
        "DRAY_TASK": task.task_id,
        "DRAY_NODE": work.node_name,
        # for stores that compare it: of two writers the one with the higher fence is right
        "DRAY_FENCE": f"{epoch.generation:08d}.{epoch.create_revision:016d}.{task.task_id}",
    }


@dataclass(frozen=True, slots=True)
class FileRequest:
    """A config or secret that an attempt needs as a file."""

    content: ContentRef
    mount: FileMount


def file_requests(work: Work) -> tuple[FileRequest, ...] | Refused:
    """Return the files that an attempt needs, or what the leader did not send."""
    container = work.entry.template.container
    known = {(ref.kind, ref.key): ref for ref in work.parts.contents}
    found = []
    for kind, mounts in (
        (ContentKind.CONFIG, container.configs),
        (ContentKind.SECRET, container.secrets),
    ):
        for mount in mounts:
            ref = known.get((kind, mount.source))
            if ref is None:
                what = kind.name.lower()
                return Refused(
                    Refusal.MOUNT_MISSING, f"the {what} {mount.source} is not in the cluster"
                )
            found.append(FileRequest(ref, mount))
    return tuple(found)


def registry_of(reference: str) -> str:
    """Return the host of the registry that an image reference names, as credentials are keyed."""
    first, separator, _ = reference.partition("/")
    if separator and ("." in first or ":" in first or first == "localhost"):
        return first
    return "docker.io"
