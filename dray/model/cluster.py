"""What the cluster as a whole is, and what has happened in it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dray.model.extensions import SessionAffinity
from dray.model.service import JOB_KINDS, ServiceSpec
from dray.model.state import TaskSpecEntry
from dray.model.task import ServiceKey, ServiceRevision
from dray.model.values import StringMap
from dray.names import ClusterId, RequestId

__all__ = [
    "ClusterLimits",
    "ClusterRecord",
    "Event",
    "EventKind",
    "EventLevel",
    "GossipKey",
    "ServiceRecord",
]


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """Limits of one cluster, set when it is made (DESIGN section 11).

    Attributes:
        nodes_max: Nodes in the registry.
        tasks_per_node_max: Tasks of one node.
        events_max: Events kept.
        revisions_max: Revisions kept of one service.
        assignment_bytes_max: Size of one node's stored assignment.
        facts_bytes_max: Size of one node's gossip facts.
    """

    nodes_max: int = 10_000
    tasks_per_node_max: int = 508
    events_max: int = 10_000
    revisions_max: int = 20
    assignment_bytes_max: int = 1_048_576
    facts_bytes_max: int = 32_768


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """The cluster itself, as `/dray/v1/cluster` holds it.

    Attributes:
        cluster_id: Random id, made once by `dray init`.
        generation: Raised by every restore from a backup, from 1.
        range_cidr: Range that the nodes' subnets come from.
        node_prefix_length: Prefix length of a node's subnet.
        vip_range_cidr: Range of the services' own addresses.
        range6_cidr: IPv6 range; empty: IPv6 is off.
        min_version: Oldest version of dray that may connect.
        limits: Limits.
        created_unix_s: When it was made.
    """

    cluster_id: ClusterId
    generation: int = 1
    range_cidr: str = "10.192.0.0/11"
    node_prefix_length: int = 23
    vip_range_cidr: str = "10.224.0.0/16"
    range6_cidr: str = ""
    min_version: str = ""
    limits: ClusterLimits = ClusterLimits()
    created_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GossipKey:
    """A key of the gossip keyring; its material never shows in `repr` or logs.

    Attributes:
        key_id: Number sent in clear with every datagram, 0 to 255.
        material: 32 bytes (AES-256-GCM).
        primary: Whether new datagrams are sealed with it; all keys open.
    """

    key_id: int
    material: bytes
    primary: bool = False

    def __repr__(self) -> str:
        """Return the key's number, never its material."""
        size = len(self.material)
        return f"GossipKey(key_id={self.key_id}, material=<{size} bytes>, primary={self.primary})"


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One kept revision of a service.

    Attributes:
        project: The project.
        spec: What was asked.
        revision: Its number.
        created_unix_s: When it was accepted.
        request_id: The call that made it.
        vip: The service's own address; empty with DNSRR.
        reverted_from: The revision that `dray revert` took this content from; 0: none.
    """

    project: str
    spec: ServiceSpec
    revision: ServiceRevision
    created_unix_s: float
    request_id: RequestId
    vip: str = ""
    reverted_from: int = 0

    @property
    def spec_entry(self) -> TaskSpecEntry:
        """What the revision's tasks run, as nodes get it."""
        spec = self.spec
        return TaskSpecEntry(
            ServiceKey(self.project, spec.name),
            self.revision,
            spec.task,
            spec.ports,
            spec.depends_on,
            is_job=spec.mode.kind in JOB_KINDS,
            singleton=spec.dray.singleton,
            client_ip_affinity=spec.dray.session_affinity is SessionAffinity.CLIENT_IP,
        )


class EventLevel(enum.Enum):
    """How much an event should worry its reader."""

    INFO = 1
    WARNING = 2
    ERROR = 3


class EventKind(enum.Enum):
    """What kind of thing happened."""

    PROJECT = 1
    SERVICE = 2
    TASK = 3
    NODE = 4
    ROLLOUT = 5
    JOB = 6
    VOLUME = 7
    LEADER = 8
    CLUSTER = 9


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, and why.

    Attributes:
        sequence: Number within the cluster; only grows.
        unix_s: When.
        kind: What it is about.
        level: How grave.
        subject: The object's name as people write it: "shop/web.2", "node n3".
        message: One sentence.
        reason: A constant phrase that programs can match: "node down", "image not found".
        fields: Further facts by name.
    """

    sequence: int
    unix_s: float
    kind: EventKind
    level: EventLevel
    subject: str
    message: str
    reason: str = ""
    fields: StringMap = ()
