"""What does the users' API need of the rest of the scheduler? The ports that others implement.

The API keeps nothing between calls. What is stored it reads from a mirror and writes through the
`Store`; what only the leader knows it asks of a `Leadership`; what only a node knows it asks
through a `RelayBroker`. Each port says what is *unknown*, never guesses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from dray.addresses import HostPort
from dray.model import AttemptReport, Epoch, SlotKey, StoreRevision, TaskUsage, WitnessEvidence
from dray.names import NodeId, SchedulerId, TaskId
from dray.views import (
    CopyOptions,
    DnsAnswer,
    DnsQuery,
    ExecInput,
    ExecOutput,
    ExecStart,
    LogLines,
    LogNotice,
    LogQuery,
    MembersAnswer,
    Orphan,
    RoundStatus,
)
from scheduler.reconcile import Observed
from scheduler.store.snapshot import Snapshot

__all__ = [
    "CopyFrom",
    "CopyInto",
    "LeaderInfo",
    "LeaderMemory",
    "Leadership",
    "MembersQuery",
    "Relay",
    "RelayBroker",
    "RelayInput",
    "RelayOutput",
    "RelayPurpose",
    "SnapshotSource",
]


class SnapshotSource(Protocol):
    """The store as this scheduler's mirror has it; `scheduler.store.mirror.Mirror` is one."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest view.

        Raises:
            Unavailable: Nothing has been read yet.
        """
        ...

    async def wait_changed(self, after: StoreRevision) -> Snapshot:
        """Return a view of another revision than `after`, as soon as there is one."""
        ...

    async def wait_revision(self, revision: StoreRevision) -> None:
        """Wait until the view holds what was committed then. The caller bounds the time."""
        ...


@dataclass(frozen=True, slots=True)
class LeaderInfo:
    """Who leads, as the leader key says.

    Attributes:
        scheduler_id: Its id.
        epoch: Its term.
        address: Where nodes and users reach it.
        node_id: Node id of its host; None: no node.
        since_unix_s: When it was elected.
        version: Its version of dray; empty: not known.
    """

    scheduler_id: SchedulerId
    epoch: Epoch
    address: HostPort
    node_id: NodeId | None = None
    since_unix_s: float = 0.0
    version: str = ""


@dataclass(frozen=True, slots=True)
class LeaderMemory:
    """What the leader holds beside the store, at one moment. Immutable.

    Attributes:
        observed: What nodes report and are held to be.
        usage: What tasks use; an absent task is unknown.
        evidence: What nodes' own probes find of one another.
        orphans: Containers that no assignment explains, by node.
        condition_reasons: One sentence on each node's condition.
        pending_reasons: Why slots have no task: one sentence each, of the last round.
        notes: What the last round left alone or let wait, by subject: "shop/web".
        earlier: Attempts of tasks that another one has followed, newest first.
        last_round: Its last round; None: none yet.
    """

    observed: Observed
    usage: Mapping[TaskId, TaskUsage] = field(default_factory=dict)
    evidence: tuple[WitnessEvidence, ...] = ()
    orphans: Mapping[NodeId, tuple[Orphan, ...]] = field(default_factory=dict)
    condition_reasons: Mapping[NodeId, str] = field(default_factory=dict)
    pending_reasons: Mapping[SlotKey, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    earlier: Mapping[TaskId, tuple[AttemptReport, ...]] = field(default_factory=dict)
    last_round: RoundStatus | None = None


class Leadership(Protocol):
    """Who leads, and what the leader knows when it is this scheduler."""

    def leader(self) -> LeaderInfo | None:
        """Return who leads; None: nobody, as far as this scheduler knows."""
        ...

    def memory(self) -> LeaderMemory | None:
        """Return what this scheduler holds as the leader; None: it does not lead."""
        ...

    async def wait_memory(self, after: LeaderMemory | None) -> LeaderMemory | None:
        """Return `memory()` once it is another object than `after`; None when it leads no more."""
        ...

    async def remove_orphans(self, node_id: NodeId, task_ids: tuple[TaskId, ...]) -> None:
        """Tell a node to end orphans.

        Raises:
            NotLeader: Another scheduler leads.
            Unavailable: The node has no stream.
        """
        ...


# --- relays ---


@dataclass(frozen=True, slots=True)
class MembersQuery:
    """Asks what a node's gossip holds of all members."""


@dataclass(frozen=True, slots=True)
class CopyFrom:
    """Pack a path of a container and send it."""

    options: CopyOptions


@dataclass(frozen=True, slots=True)
class CopyInto:
    """Unpack what is sent into a container."""

    options: CopyOptions


RelayPurpose: TypeAlias = LogQuery | ExecStart | CopyFrom | CopyInto | MembersQuery | DnsQuery
"""What a relay is opened for. A `TaskTarget` in it names a task by its id."""

RelayInput: TypeAlias = ExecInput | bytes
"""What goes to the node: input of a command, or a piece of a tar archive."""

RelayOutput: TypeAlias = LogLines | LogNotice | ExecOutput | MembersAnswer | DnsAnswer | bytes
"""What comes from the node; bytes are a piece of a tar archive."""


class Relay(Protocol):
    """One call of a user, carried to a node."""

    def output(self) -> AsyncIterator[RelayOutput]:
        """Yield what the node sends, until its end. For one reader.

        Raises:
            DrayError: The node said that it failed, and why.
            Unavailable: The node or the way to it was lost: what came is not whole.
        """
        ...

    async def send(self, message: RelayInput) -> None:
        """Send something to the node; waits while the node does not read.

        Raises:
            Unavailable: The relay has ended.
        """
        ...

    async def end_input(self) -> None:
        """Tell the node that the archive is whole. Nothing is sent after it."""
        ...

    @property
    def copied_bytes(self) -> int:
        """Bytes of content that a copy moved; 0 until its end was read."""
        ...


class RelayBroker(Protocol):
    """Opens relays to nodes; only the leader can."""

    def open(self, node_id: NodeId, purpose: RelayPurpose) -> AbstractAsyncContextManager[Relay]:
        """Ask a node for a relay and wait for it, at most 5 s.

        Leaving the context ends the relay: the node ends what it did for it.

        Raises:
            NotLeader: Another scheduler leads.
            Unavailable: The node has no stream, or did not open the relay in time.
            ResourceExhausted: Too many relays are open.
        """
        ...
