"""What runs, as its owners know it.

Tasks and their attempts, assignments, and what nodes report of them.

Three kinds of state never mix (DESIGN section 3): *desired* is `ServiceSpec`; *observed* is what
nodes report, or unknown; a *verdict* is what the leader concluded for good and stored.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dray.model.project import NetworkSpec, VolumeSpec
from dray.model.service import Dependency, PublishedPort, TaskTemplate
from dray.model.task import Epoch, Health, ServiceKey, ServiceRevision, SlotKey, StoreRevision
from dray.names import ClusterId, NodeId, TaskId

__all__ = [
    "Assignment",
    "ContentKind",
    "ContentRef",
    "Endpoint",
    "EndpointPort",
    "ProjectParts",
    "ServiceAddress",
    "TaskAssignment",
    "TaskSpecEntry",
]


@dataclass(frozen=True, slots=True)
class TaskAssignment:
    """One task that a node should run.

    Attributes:
        task_id: The task.
        slot: Its slot.
        service_revision: Which revision of the service.
        epoch: Term of the leader that placed it: of two tasks of one slot the one with the higher
            (epoch, task id) is right.
        stop: Whether the task is to end; it stays listed until its end was reported.
        gpu_ids: GPUs that placement has chosen for it on its node, by the driver's ids.
    """

    task_id: TaskId
    slot: SlotKey
    service_revision: ServiceRevision
    epoch: Epoch
    stop: bool = False
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskSpecEntry:
    """What a service revision runs: sent and stored once, however many tasks refer to it.

    `ServiceRecord.spec_entry` makes one.

    Attributes:
        service: The service.
        service_revision: Number of the revision, from 1.
        template: What each of its tasks runs.
        ports: Ports of the service that are reachable from outside.
        depends_on: Which services come first; the node waits for those that have a task on it.
        is_job: Its tasks end by themselves: never started from disk, never after a success.
        singleton: At most one copy at any time: never started from disk.
        client_ip_affinity: Connections of one client address through the service's own address go
            to one replica.
    """

    service: ServiceKey
    service_revision: ServiceRevision
    template: TaskTemplate
    ports: tuple[PublishedPort, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    is_job: bool = False
    singleton: bool = False
    client_ip_affinity: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that one node should run. An absent one means *unknown*: the node keeps what it runs.

    Only an empty one means stop.

    Attributes:
        cluster_id: Whose it is.
        node_id: Whose share it is.
        epoch: Term of the leader that wrote it.
        mod_revision: Store revision of the write. A node refuses a lower (epoch, mod_revision) than
            it has seen.
        tasks: Sorted by slot, then task id; at most `NodeCapacity.tasks_max`.
        specs: What the tasks' service revisions run, each once.
    """

    cluster_id: ClusterId
    node_id: NodeId
    epoch: Epoch
    mod_revision: StoreRevision
    tasks: tuple[TaskAssignment, ...] = ()
    specs: tuple[TaskSpecEntry, ...] = ()

    @property
    def version(self) -> tuple[Epoch, StoreRevision]:
        """What orders two assignments of one node."""
        return (self.epoch, self.mod_revision)


@dataclass(frozen=True, slots=True)
class ProjectParts:
    """What tasks on one node need of their project beside their own service.

    Attributes:
        project: The project.
        networks: Networks that tasks on this node are on.
        volumes: Volumes that tasks on this node mount.
        creatable_volumes: Names of Docker volumes that the node may make, as the leader has pinned
            them here. Any other must exist.
        contents: Configs, secrets and registry credentials that tasks on this node use.
        service_addresses: Own addresses of services that have tasks on this node.
    """

    project: str
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    creatable_volumes: tuple[str, ...] = ()
    contents: tuple[ContentRef, ...] = ()
    service_addresses: tuple[ServiceAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A service's own address in the cluster's range for services."""

    service: str
    vip: str


class ContentKind(enum.Enum):
    """What a piece of content is for."""

    CONFIG = 1
    """May be kept on disk."""
    SECRET = 2
    """Kept in memory only, never logged."""
    REGISTRY_AUTH = 3
    """The JSON of one entry of Docker's `auths`; kept in memory only, never logged."""


@dataclass(frozen=True, slots=True)
class ContentRef:
    """Names a piece of content; a node fetches it when a task needs it.

    Attributes:
        kind: What it is for.
        key: Key under the project's `configs:` or `secrets:`, or the registry's host.
        name: Full name in the cluster; empty for credentials.
        digest: SHA-256 of the content, 32 bytes. For secrets and credentials: of a random salt and
            the content, so that it gives nothing away.
        size_bytes: Size of the content, at most 500 kB.
        template_driver: "golang" to fill in placeholders; empty: none.
    """

    kind: ContentKind
    key: str
    name: str = ""
    digest: bytes = b""
    size_bytes: int = 0
    template_driver: str = ""


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """A port that an endpoint listens on.

    Number, protocol ("tcp", "udp"), and the name for SRV records or empty.
    """

    number: int
    protocol: str = "tcp"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running task as others reach it; published as part of a gossip fact.

    Attributes:
        slot: Its slot.
        task_id: The task.
        epoch: For one slot only the endpoint with the highest (epoch, task id) is answered.
        address: IPv4 address; empty without one.
        address6: IPv6 address; empty without one.
        health: What its check says.
        draining: Still running, takes no new connections.
        ports: Its ports.
        networks: Full names of the Compose networks that it is on, sorted.
        aliases: (network, alias) pairs, sorted.
    """

    slot: SlotKey
    task_id: TaskId
    epoch: Epoch
    address: str = ""
    address6: str = ""
    health: Health = Health.NONE
    draining: bool = False
    ports: tuple[EndpointPort, ...] = ()
    networks: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
