"""What goes in and out of the gossip core?

The port between the protocol and the driver that owns sockets and timers.

A core is a pure state machine: `handle(event, now_s)` takes one event and returns effects, in the
order in which they are to be carried out. It owns no clock, no socket and no randomness but the
generator it was given; the same events with the same seed give the same effects. The driver
promises:

- `now_s` is monotonic and never goes back. A jump forward (a paused machine) is passed on as it is:
  the core notices it.
- Effects are carried out in order. A datagram may be lost, delayed, doubled or reordered; that is
  the network.
- A timer fires once, at or after its time. A later `ArmTimer` of the same key replaces it: the
  driver passes the generation back, and the core ignores one that is not the newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from dray.model import FactKey, FactView, FaultKind, Member, ReachKind, WitnessEvidence
from dray.names import NodeId

__all__ = [
    "DATAGRAM_BYTES_MAX",
    "STREAM_MESSAGE_BYTES_MAX",
    "Address",
    "AnswerStream",
    "ArmTimer",
    "Core",
    "DatagramReceived",
    "Effect",
    "Event",
    "EvidenceChanged",
    "FactRefused",
    "Join",
    "Leave",
    "MemberChanged",
    "OpenStream",
    "ProbeReach",
    "PublishFact",
    "RanLate",
    "ReachProbed",
    "Remove",
    "Rng",
    "SendDatagram",
    "StreamReceived",
    "TimerFired",
    "TimerKey",
    "ViewChanged",
]

# With its seal (30 bytes, `sealing`) and IP and UDP headers it has below 1,240: fits every path
# with VXLAN or WireGuard on it without fragments.
DATAGRAM_BYTES_MAX: Final = 1_160
STREAM_MESSAGE_BYTES_MAX: Final = 1_048_576  # one chunk of a full sync


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a peer's gossip listens: IP address and port (UDP and TCP)."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, order=True)
class TimerKey:
    """What a timer is for.

    A kind of the core's own ("probe", "suspicion" …) and the member it is about, or empty.
    """

    kind: str
    node_id: str = ""


class Rng(Protocol):
    """The seeded generator that a core is given; `random.Random` is one."""

    def random(self) -> float:
        """Return a number from 0 up to, and without, 1."""
        ...

    def randrange(self, stop: int, /) -> int:
        """Return an integer from 0 up to, and without, `stop`."""
        ...


# Events: what the driver tells the core.


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """A datagram arrived; `data` is as it came, at most 64 KiB, and not to be trusted."""

    source: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamReceived:
    """One message of a TCP exchange arrived, at most `STREAM_MESSAGE_BYTES_MAX`, not to be trusted.

    The answer to an `OpenStream` has its `stream_id`, from 1. A peer's request has a negative one,
    new each time; it is answered by an `AnswerStream` among the effects of this event, or not.
    """

    source: Address
    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The timer of `key` that was armed with `generation` is due.

    `lateness_s`: how much later than asked the driver ran.
    """

    key: TimerKey
    generation: int
    lateness_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ReachProbed:
    """What the kernel of `target` answered to a TCP connect, or that nothing came back in time.

    ANSWERED: its user space sent `data` back on the connection, not to be trusted.
    """

    target: NodeId
    reach: ReachKind
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class RanLate:
    """The driver's loop ran this much later than it should have: the machine is starved."""

    lateness_s: float


@dataclass(frozen=True, slots=True)
class Join:
    """Command: make contact with these addresses.

    Repeated by the core until one of them answers.
    """

    seeds: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """Command: tell the peers that this node goes away on purpose."""


@dataclass(frozen=True, slots=True)
class PublishFact:
    """Command: publish a value of this node's own fact, or None to delete it.

    Unchanged values cost nothing. One beyond the limits gives a `FactRefused`.
    """

    name: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Remove:
    """Command: an operator has removed these members for good; none of their lives comes back."""

    node_ids: tuple[NodeId, ...]


Event: TypeAlias = (
    DatagramReceived
    | StreamReceived
    | TimerFired
    | ReachProbed
    | RanLate
    | Join
    | Leave
    | PublishFact
    | Remove
)


# Effects: what the core asks of the driver.


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send one datagram of at most `DATAGRAM_BYTES_MAX`; a failure to send is a loss."""

    to: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Connect, send one message, and pass the answer back as `StreamReceived` with this id.

    Within `deadline_s` seconds; else nothing comes back.
    """

    to: Address
    stream_id: int
    data: bytes
    deadline_s: float


@dataclass(frozen=True, slots=True)
class AnswerStream:
    """Send one message, of at most `STREAM_MESSAGE_BYTES_MAX`, to the peer that asked on it."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Call back with `TimerFired` at `at_s` on the monotonic clock.

    Replaces an earlier one of the same key.
    """

    key: TimerKey
    generation: int
    at_s: float


@dataclass(frozen=True, slots=True)
class ProbeReach:
    """Try a TCP connect to a member's gossip port and report what its kernel did as `ReachProbed`.

    Once connected, `data` is sent as a stream's message; an answer counts as ANSWERED. Within
    `deadline_s`.
    """

    target: NodeId
    to: Address
    deadline_s: float
    data: bytes


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member's state, life or address is another one than before.

    `before` is None for a new member.
    """

    before: Member | None
    after: Member


@dataclass(frozen=True, slots=True)
class ViewChanged:
    """Facts, or states of members, changed: readers take the newer view (`Core.view`).

    At most one an event, the last of its effects. `keys`: the facts that changed, in order.
    """

    sequence: int
    keys: tuple[FactKey, ...]


@dataclass(frozen=True, slots=True)
class FactRefused:
    """A `PublishFact` was refused: `reason` names the limit. The earlier value stands."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class EvidenceChanged:
    """What this node's own probes find of somebody is another than before (`Core.evidence`).

    `number` grows with each change.
    """

    number: int


Effect: TypeAlias = (
    SendDatagram
    | OpenStream
    | AnswerStream
    | ArmTimer
    | ProbeReach
    | MemberChanged
    | EvidenceChanged
    | FactRefused
    | ViewChanged
)


class Core(Protocol):
    """The gossip protocol of one node, without input or output."""

    def start(self, now_s: float) -> list[Effect]:
        """Return the first effects (timers). Called once, before any event."""
        ...

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Take one event and return what is to be done, in order.

        Never raises for anything that a peer sent: junk is counted and dropped. After any event the
        state is whole.
        """
        ...

    def view(self) -> FactView:
        """Return the current view. O(1): views share what did not change."""
        ...

    def evidence(self, now_s: float) -> tuple[WitnessEvidence, ...]:
        """Return what this node's own probes find of others, by target.

        Everybody whom they do not reach, and those of whom it is a witness.
        """
        ...

    def faults(self, now_s: float) -> tuple[tuple[FaultKind, str], ...]:
        """Return what is wrong with this node's network or time, with a sentence for people."""
        ...

    def is_spreading(self, name: str) -> bool:
        """Return whether a fact of this node is still being told for the first time.

        An empty name asks about the node's own state: its leaving.
        """
        ...

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how large each part of the state is, and how large it may become."""
        ...

    def counted(self) -> dict[str, int]:
        """Return what was counted since the start, by name; for metrics."""
        ...
