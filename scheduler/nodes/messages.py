"""What passes over a node's stream, as values? The messages of node.proto, up and down.

`wire.py` turns them into protobuf and back; everything else in this package speaks these. Relays'
purposes are passed on as they are: nothing here looks into them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from dray.addresses import HostPort
from dray.model import (
    Assignment,
    AttemptReport,
    ClusterRecord,
    Epoch,
    Fault,
    GossipKey,
    NodeCapacity,
    NodeInfo,
    NodeRecord,
    NodeUsage,
    ProjectParts,
    StoreRevision,
    TaskSpecEntry,
    TaskUsage,
    WitnessEvidence,
)
from dray.names import NodeId, SchedulerId, TaskId
from dray.views import Orphan

__all__ = [
    "AssignmentPush",
    "AssignmentResult",
    "AttemptReports",
    "Down",
    "EvidenceReport",
    "FaultReport",
    "Goodbye",
    "GoodbyeKind",
    "Hello",
    "NodeConfig",
    "NodeVolume",
    "NotLeader",
    "OpenRelay",
    "OrphanReport",
    "Ping",
    "Pong",
    "PullProgress",
    "Refused",
    "RefusedReason",
    "RemoveOrphans",
    "RemoveVolumes",
    "Resync",
    "SpecPush",
    "Up",
    "UsageReport",
    "VolumeReport",
    "Welcome",
]


class GoodbyeKind(enum.Enum):
    """How a node leaves."""

    RESTART = 1
    """The daemon stops for a restart; its containers go on, nothing is moved."""
    SHUTDOWN = 2
    """The node is going away: its tasks are moved first, start-first."""


class RefusedReason(enum.Enum):
    """Why a node may not connect; the numbers are the wire's."""

    WRONG_CLUSTER = 1
    CLONE = 2
    TOO_OLD = 3
    LEADER_TOO_OLD = 4
    NAME_TAKEN = 5
    NOT_REGISTERED = 6
    REMOVED = 7
    CLUSTER_FULL = 8
    OLD_EPOCH = 9
    PROTOCOL = 10


# ---- up: from the node


@dataclass(frozen=True, slots=True)
class Hello:
    """Who the node is, and what it has seen.

    Attributes:
        info: Who it is.
        cluster_id: The cluster that it belongs to; empty: it has joined none yet.
        generation: Generation that it last knew; 0: none.
        wire_minor: Minor version of the wire that it speaks.
        min_version: Oldest version of dray that it can work with; empty: any.
        epoch: Highest epoch that it has seen; None: none.
        held: Version of the assignment that it holds; None: it holds none.
        last_leader: What its probes find of the host of the leader that it last knew, or None.
        last_leader_epoch: Epoch of that leader, or None.
        is_new: It asks to be registered.
    """

    info: NodeInfo
    cluster_id: str = ""
    generation: int = 0
    wire_minor: int = 0
    min_version: str = ""
    epoch: Epoch | None = None
    held: tuple[Epoch, StoreRevision] | None = None
    last_leader: WitnessEvidence | None = None
    last_leader_epoch: Epoch | None = None
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far the fetching of an image is, bytes; a total of 0 is not known yet."""

    reference: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class AttemptReports:
    """The newest attempts of the node's tasks: all of them, or what changed."""

    is_complete: bool
    attempts: tuple[AttemptReport, ...] = ()
    forgotten: tuple[TaskId, ...] = ()
    pulls: tuple[PullProgress, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Use of resources; what is None is as before."""

    is_complete: bool
    node: NodeUsage | None = None
    tasks: tuple[TaskUsage, ...] = ()
    capacity: NodeCapacity | None = None


@dataclass(frozen=True, slots=True)
class FaultReport:
    """All faults of the node."""

    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """What the node's own probes found of others: all of it, or what changed."""

    is_complete: bool
    evidence: tuple[WitnessEvidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a ping."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The node leaves; with SHUTDOWN it waits for its tasks to move, at most so many seconds."""

    kind: GoodbyeKind
    drain_timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AssignmentResult:
    """Whether an assignment was accepted; if not, why."""

    epoch: Epoch
    mod_revision: StoreRevision
    is_accepted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OrphanReport:
    """All orphans of the node."""

    orphans: tuple[Orphan, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeVolume:
    """A named volume on the node: project, key under `volumes:`, Docker's name, driver, age."""

    project: str
    key: str
    name: str
    driver: str = ""
    created_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """Named volumes of the cluster's projects on the node: all of them, or what changed."""

    is_complete: bool
    volumes: tuple[NodeVolume, ...] = ()
    gone: tuple[str, ...] = ()


Up: TypeAlias = (
    Hello
    | AttemptReports
    | UsageReport
    | FaultReport
    | EvidenceReport
    | Pong
    | Goodbye
    | AssignmentResult
    | OrphanReport
    | VolumeReport
)


# ---- down: from the scheduler


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a node should know about itself and the cluster; whole each time."""

    record: NodeRecord
    keyring: tuple[GossipKey, ...] = ()
    gossip_seeds: tuple[HostPort, ...] = ()
    schedulers: tuple[HostPort, ...] = ()
    removed_nodes: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class Welcome:
    """The node is connected to the leader."""

    cluster: ClusterRecord
    config: NodeConfig
    scheduler_id: SchedulerId
    version: str
    leader_node_id: NodeId | None = None


@dataclass(frozen=True, slots=True)
class NotLeader:
    """Another scheduler leads, or none (None); the stream ends."""

    leader: HostPort | None = None
    epoch: Epoch | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The node may not connect; the stream ends."""

    reason: RefusedReason
    message: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AssignmentPush:
    """The node's share; its specs hold only revisions that the stream has not carried yet."""

    assignment: Assignment
    projects: tuple[ProjectParts, ...] = ()


@dataclass(frozen=True, slots=True)
class SpecPush:
    """Revisions sent ahead of an assignment."""

    specs: tuple[TaskSpecEntry, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a Pong."""

    sequence: int


@dataclass(frozen=True, slots=True)
class OpenRelay:
    """Asks the node to open a relay; the purpose is the wire's message, passed on as it is."""

    relay_id: bytes
    purpose: object


@dataclass(frozen=True, slots=True)
class Resync:
    """Asks for all reports again."""

    reason: str


@dataclass(frozen=True, slots=True)
class RemoveOrphans:
    """Accepts the loss of these orphans."""

    task_ids: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class RemoveVolumes:
    """Asks the node to remove these Docker volumes, which it has made for the project."""

    project: str
    names: tuple[str, ...]


Down: TypeAlias = (
    Welcome
    | NotLeader
    | Refused
    | AssignmentPush
    | SpecPush
    | Ping
    | NodeConfig
    | OpenRelay
    | Resync
    | RemoveOrphans
    | RemoveVolumes
)
