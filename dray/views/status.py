"""How is the cluster as a whole?"""

from __future__ import annotations

from dataclasses import dataclass

from dray.addresses import HostPort
from dray.model import ClusterRecord, Epoch, NodeCondition
from dray.names import NodeId, SchedulerId
from dray.views.header import NO_HEADER, ResponseHeader
from dray.views.slots import SlotStateCount

__all__ = [
    "ConditionCount",
    "EtcdStatus",
    "GetClusterInfoResponse",
    "GetStatusResponse",
    "LeaderStatus",
    "RotateGossipKeyResponse",
    "RoundStatus",
    "SchedulerStatus",
]


@dataclass(frozen=True, slots=True)
class ConditionCount:
    """How many nodes are in a condition."""

    condition: NodeCondition
    count: int = 0


@dataclass(frozen=True, slots=True)
class LeaderStatus:
    """Who leads.

    Attributes:
        scheduler_id: Its id.
        epoch: Its term.
        address: Where nodes and users reach it; None: it did not say.
        node_id: Node id of its host; None: not a node.
        since_unix_s: When it was elected.
    """

    scheduler_id: SchedulerId
    epoch: Epoch
    address: HostPort | None = None
    node_id: NodeId | None = None
    since_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SchedulerStatus:
    """One scheduler: its id, where it is reached, its version, whether it leads."""

    scheduler_id: SchedulerId
    address: HostPort | None = None
    version: str = ""
    is_leader: bool = False


@dataclass(frozen=True, slots=True)
class EtcdStatus:
    """One server of etcd.

    Attributes:
        endpoint: Its address, as the scheduler was given it.
        is_healthy: It answered and knows a leader.
        is_leader: It is etcd's own leader.
        version: Its version; empty: it did not answer.
        db_size_bytes: Size of its database.
        db_size_in_use_bytes: The part of it in use.
        db_quota_bytes: Its space quota; 0: not known.
        problems: What is wrong, one sentence each, with the next step.
    """

    endpoint: str
    is_healthy: bool = False
    is_leader: bool = False
    version: str = ""
    db_size_bytes: int = 0
    db_size_in_use_bytes: int = 0
    db_quota_bytes: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoundStatus:
    """One round of the leader.

    Attributes:
        unix_s: When it ended.
        duration_s: How long it took.
        created: Tasks created.
        stopped: Tasks stopped.
        moved: Slots moved.
        unplaced: Slots without room.
        conflicts: Conflicts at the commit: other writers were first, and it was planned again.
        reason: What woke it.
    """

    unix_s: float = 0.0
    duration_s: float = 0.0
    created: int = 0
    stopped: int = 0
    moved: int = 0
    unplaced: int = 0
    conflicts: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GetClusterInfoResponse:
    """Which cluster this is, and what the scheduler that answered is."""

    header: ResponseHeader = NO_HEADER
    cluster: ClusterRecord | None = None
    version: str = ""
    wire_minor: int = 0


@dataclass(frozen=True, slots=True)
class GetStatusResponse:
    """How the cluster is.

    Attributes:
        header: Who answers.
        leader: None: there is none.
        schedulers: Those that the leader or the store knows, at most 16.
        etcd: The servers of etcd, at most 16.
        nodes: Number of nodes in each condition that occurs; all UNKNOWN without a leader.
        slots: Number of slots in each state that occurs.
        last_round: The leader's; None: none was made yet, or there is no leader.
        orphans: Containers on all nodes that no assignment explains.
    """

    header: ResponseHeader = NO_HEADER
    leader: LeaderStatus | None = None
    schedulers: tuple[SchedulerStatus, ...] = ()
    etcd: tuple[EtcdStatus, ...] = ()
    nodes: tuple[ConditionCount, ...] = ()
    slots: tuple[SlotStateCount, ...] = ()
    last_round: RoundStatus | None = None
    orphans: int = 0


@dataclass(frozen=True, slots=True)
class RotateGossipKeyResponse:
    """The keys of gossip afterwards: the new one's number, and all that nodes accept."""

    header: ResponseHeader = NO_HEADER
    key_id: int = 0
    key_ids: tuple[int, ...] = ()
