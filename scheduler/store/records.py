"""What does the scheduler keep in its store beside the values of `dray.model`?

One class for each kind of value; `codec` turns them into bytes and back. The messages of the same
name are in `proto/scheduler/store/v1/records.proto`: a field goes into both.
"""

from __future__ import annotations

from dataclasses import dataclass

from dray.model import (
    ContentRef,
    Event,
    GossipKey,
    ProjectSpec,
    ServiceKey,
    ServiceRevision,
    SlotKey,
)
from dray.names import ClusterId, NodeId, RequestId, SchedulerId
from dray.views import RolloutState

__all__ = [
    "ContentRecord",
    "CronVerdict",
    "EventBatch",
    "JobVerdict",
    "KeyringRecord",
    "LeaderRecord",
    "NodeVerdict",
    "ProjectRecord",
    "RequestRecord",
    "RevisionCounter",
    "RolloutBatch",
    "RolloutVerdict",
    "SchedulerRecord",
    "VolumePin",
]


@dataclass(frozen=True, slots=True)
class LeaderRecord:
    """Who leads. Its key's create revision is the other half of the epoch.

    Attributes:
        scheduler_id: The scheduler.
        cluster_id: Whose leader it is.
        generation: Generation of the cluster when it was elected.
        address: Where nodes and users reach it, "10.0.0.1:7400".
        node_id: Node id of its host; None: it runs on a machine that is no node.
        version: Its version of dray.
        since_unix_s: When it was elected.
        lease: Its lease, that who has proof of its death may revoke.
    """

    scheduler_id: SchedulerId
    cluster_id: ClusterId
    generation: int
    address: str
    node_id: NodeId | None = None
    version: str = ""
    since_unix_s: float = 0.0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class SchedulerRecord:
    """A scheduler that runs, kept on a lease.

    Attributes:
        scheduler_id: The scheduler.
        address: Where nodes and users reach it, "10.0.0.1:7400".
        version: Its version of dray.
        node_id: Node id of its host; None: it runs on a machine that is no node.
        since_unix_s: When it started.
    """

    scheduler_id: SchedulerId
    address: str
    version: str = ""
    node_id: NodeId | None = None
    since_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class KeyringRecord:
    """The keys of gossip: all of them open, the primary one seals. At most 8."""

    keys: tuple[GossipKey, ...] = ()


@dataclass(frozen=True, slots=True)
class RevisionCounter:
    """How far the revisions of a service have come: its name and its highest number."""

    service: str
    service_revision: ServiceRevision


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """A project, without its services and contents. Its revision is the key's mod revision.

    Attributes:
        spec: What was asked, with `services` empty and without the bytes of configs and secrets.
        contents: Its configs, secrets and registry credentials; each is stored under its digest.
        created_unix_s: When it was first applied.
        updated_unix_s: When it was last applied.
        is_removing: Its services are gone; the record goes when its last task has ended.
        remove_volumes: Its volumes go with it.
        counters: The last revision number of each service that it ever had, sorted by name: a
            service that comes back goes on counting. At most 1,000.
        request_id: The call that wrote it last; None: no call did.
    """

    spec: ProjectSpec
    contents: tuple[ContentRef, ...] = ()
    created_unix_s: float = 0.0
    updated_unix_s: float = 0.0
    is_removing: bool = False
    remove_volumes: bool = False
    counters: tuple[RevisionCounter, ...] = ()
    request_id: RequestId | None = None


@dataclass(frozen=True, slots=True)
class ContentRecord:
    """The bytes of a config, a secret or credentials; they never show in `repr`.

    Attributes:
        ref: What it is.
        content: The bytes; sealed for secrets and credentials.
        salt: Salt of the digest; empty for configs.
        sealed_by: Number of the key that sealed it; 0: it is not sealed.
        created_unix_s: When it was stored.
    """

    ref: ContentRef
    content: bytes = b""
    salt: bytes = b""
    sealed_by: int = 0
    created_unix_s: float = 0.0

    def __repr__(self) -> str:
        """Return what it is and its size, never its bytes."""
        return f"ContentRecord(ref={self.ref!r}, content=<{len(self.content)} bytes>)"


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """The answer to a call that may be repeated.

    Attributes:
        request_id: The call.
        method: Name of the method; another one with the same id is refused.
        request_sha256: Digest of what was asked; another request with the same id is refused.
        reply: The reply, serialised.
        answered_unix_s: When it was answered.
    """

    request_id: RequestId
    method: str
    request_sha256: bytes = b""
    reply: bytes = b""
    answered_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Some events, by sequence, in one slot of the ring."""

    events: tuple[Event, ...] = ()


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
class VolumePin:
    """Where a volume's data is.

    Attributes:
        project: The project.
        volume: Name of the Docker volume, or path of the bind mount.
        node_id: The node.
        since_unix_s: When it was pinned.
        is_made: The node has reported it: from then on it is never made again, empty.
    """

    project: str
    volume: str
    node_id: NodeId
    since_unix_s: float = 0.0
    is_made: bool = False


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """What the leader has concluded about a node for good.

    Attributes:
        node_id: The node.
        down_since_unix_s: Since when it is down; 0: it is not.
    """

    node_id: NodeId
    down_since_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RolloutBatch:
    """Slots that a rollout replaces together.

    Attributes:
        slots: Their numbers, ascending.
        settled_unix_s: Since when the new tasks of all of them are well, or given up; 0: not yet.
    """

    slots: tuple[int, ...] = ()
    settled_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RolloutVerdict:
    """How the replacement of a service's tasks by those of a newer revision stands.

    Attributes:
        service: The service.
        state: How far it is.
        from_revision: Revision that is replaced, and put back when it fails.
        to_revision: Revision that replaces it.
        started_unix_s: When it began.
        batches: Those whose tasks may still fail, by time; the last one is the newest.
        failed_slots: Slots whose new task failed, ascending.
        message: One sentence on how it stands, or why it stopped.
    """

    service: ServiceKey
    state: RolloutState
    from_revision: ServiceRevision
    to_revision: ServiceRevision
    started_unix_s: float = 0.0
    batches: tuple[RolloutBatch, ...] = ()
    failed_slots: tuple[int, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class CronVerdict:
    """The last tick of a service that runs by the clock."""

    service: ServiceKey
    tick_unix_s: float
