"""What does a cluster say of its machines, and of what they see of one another?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dray.addresses import HostPort
from dray.model import (
    AttemptReport,
    Fault,
    MemberState,
    NodeCapacity,
    NodeCondition,
    NodeInfo,
    NodeRecord,
    NodeUsage,
    ReachKind,
    SlotKey,
    WitnessEvidence,
)
from dray.names import NodeId, TaskId
from dray.views.header import NO_HEADER, ResponseHeader
from dray.views.projects import PlannedAction

__all__ = [
    "GetNodeResponse",
    "GossipMember",
    "ListMembersResponse",
    "ListNodesResponse",
    "MembersAnswer",
    "Node",
    "Orphan",
    "PlanRebalanceResponse",
    "RebalanceGoal",
    "RemoveNodeResponse",
    "RemoveOrphansResponse",
    "UpdateNodeResponse",
]


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its registry entry and how it is.

    Attributes:
        record: Its registry entry.
        condition: What the leader holds it to be; UNKNOWN without a leader.
        condition_since_unix_s: Since when.
        condition_reason: Why, one sentence.
        faults: What is wrong with it beside that.
        info: What it said of itself when it connected; None: unknown.
        usage: What it uses; None: unknown.
        reserved: What placement has set aside on it.
        tasks: Number of its tasks.
        revision: Revision of the registry entry, for `if_revision`.
    """

    record: NodeRecord
    condition: NodeCondition
    condition_since_unix_s: float = 0.0
    condition_reason: str = ""
    faults: tuple[Fault, ...] = ()
    info: NodeInfo | None = None
    usage: NodeUsage | None = None
    reserved: NodeCapacity | None = None
    tasks: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Orphan:
    """One container that no assignment explains: its task, slot and newest attempt."""

    task_id: TaskId
    slot: SlotKey | None = None
    attempt: AttemptReport | None = None


@dataclass(frozen=True, slots=True)
class GetNodeResponse:
    """One node, its orphans, and what other nodes' probes find of it."""

    header: ResponseHeader = NO_HEADER
    node: Node | None = None
    orphans: tuple[Orphan, ...] = ()
    evidence: tuple[WitnessEvidence, ...] = ()


@dataclass(frozen=True, slots=True)
class ListNodesResponse:
    """Nodes by name."""

    header: ResponseHeader = NO_HEADER
    nodes: tuple[Node, ...] = ()
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class UpdateNodeResponse:
    """The node afterwards; with `dry_run` what the leader would do."""

    header: ResponseHeader = NO_HEADER
    node: Node | None = None
    actions: tuple[PlannedAction, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoveNodeResponse:
    """Slots that are planned elsewhere."""

    header: ResponseHeader = NO_HEADER
    moved: tuple[SlotKey, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoveOrphansResponse:
    """The orphans that end."""

    header: ResponseHeader = NO_HEADER
    orphans: tuple[Orphan, ...] = ()


@dataclass(frozen=True, slots=True)
class GossipMember:
    """One member of gossip as one node sees it; `Member` in the contract.

    Attributes:
        node_id: Its id.
        name: Its name; empty: not known.
        address: Where it is.
        life: Its life.
        incarnation: Its incarnation.
        state: What the node holds it to be.
        seen: What the node's own probes found last; None: it has not probed it yet.
        last_contact_s: Age of the last direct contact; None: never in this life.
        heard: What others say of it; None: nothing.
        heard_from: Who says so; None: itself.
        rtt_s: Median round-trip time of the last probes; None: none answered.
        flaps: How often it was taken for dead and came back, in this node's life.
        since_s: How long its state has been the same.
    """

    node_id: NodeId
    name: str = ""
    address: HostPort | None = None
    life: int = 0
    incarnation: int = 0
    state: MemberState = MemberState.ALIVE
    seen: ReachKind | None = None
    last_contact_s: float | None = None
    heard: MemberState | None = None
    heard_from: NodeId | None = None
    rtt_s: float | None = None
    flaps: int = 0
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class MembersAnswer:
    """What a node's gossip holds of all members, at most 1,000 in a message."""

    members: tuple[GossipMember, ...] = ()


@dataclass(frozen=True, slots=True)
class ListMembersResponse:
    """A node's view of gossip: all members, by name."""

    header: ResponseHeader = NO_HEADER
    members: tuple[GossipMember, ...] = ()


class RebalanceGoal(enum.Enum):
    """What a plan of moves aims at."""

    EVEN = 1
    """Even out the nodes."""
    COMPACT = 2
    """Empty as many nodes as possible."""


@dataclass(frozen=True, slots=True)
class PlanRebalanceResponse:
    """Moves, each valid after those before it, and names of the nodes that they empty."""

    header: ResponseHeader = NO_HEADER
    moves: tuple[PlannedAction, ...] = ()
    freed_nodes: tuple[str, ...] = ()
