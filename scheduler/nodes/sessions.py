"""What does the leader answer on its nodes' streams? One machine for all streams of one term.

`handle(event, now_s) -> list[Effect]` decides; the driver (`service`, or a simulation) owns the
sockets, the store and the clock. A stream is a number that is never used twice.

- The node of a stream is admitted before (`registry`); here it is decided which of two streams with
  one node id stands: the higher life, of equal lives the newer stream.
- An assignment is told to the newest stream of its node, at most one unsent (`outbox`). The last
  version of every node is kept, so that a node which connects gets what was dispatched while it was
  away, even when the store's mirror is behind.
- On the first suspicion (some reporter does not reach a node) the leader pings on the node's own
  stream, and again every `PING_EVERY_S` while the suspicion lasts. No answer within
  `PONG_WITHIN_S`: the stream counts as lost; it is up again when anything comes over it. A leader
  that was itself asleep gives everybody that time again.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from dray.model import Assignment, ProjectParts
from dray.names import NodeId
from scheduler.nodes.messages import (
    AttemptReports,
    Down,
    Goodbye,
    GoodbyeKind,
    Hello,
    Ping,
    Pong,
    Refused,
    RefusedReason,
    Resync,
    Up,
    Welcome,
)
from scheduler.nodes.observations import ConditionChange, Observations

__all__ = [
    "LATE_S",
    "PING_EVERY_S",
    "PONG_WITHIN_S",
    "TICK_S",
    "Assigned",
    "Changed",
    "Closed",
    "Effect",
    "EndStream",
    "Event",
    "Judged",
    "Opened",
    "Push",
    "Received",
    "Sessions",
    "Share",
    "Tell",
    "Ticked",
]

PONG_WITHIN_S: Final = 1.0
PING_EVERY_S: Final = 1.0
TICK_S: Final = 0.1  # how often `Ticked` is due
LATE_S: Final = 0.5  # a tick this late: the leader was stopped, or starved

StreamNumber: TypeAlias = int


@dataclass(frozen=True, slots=True)
class Share:
    """What one node should run, and what its tasks' projects bring along."""

    assignment: Assignment
    projects: tuple[ProjectParts, ...] = ()


# ---- events


@dataclass(frozen=True, slots=True)
class Opened:
    """A node that may connect has said Hello; `share` is what the store holds for it, or None."""

    stream: StreamNumber
    hello: Hello
    welcome: Welcome
    share: Share | None
    now_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Received:
    """A message came over a stream."""

    stream: StreamNumber
    message: Up


@dataclass(frozen=True, slots=True)
class Closed:
    """A stream ended, whoever ended it."""

    stream: StreamNumber


@dataclass(frozen=True, slots=True)
class Assigned:
    """An assignment was committed."""

    node_id: NodeId
    share: Share


@dataclass(frozen=True, slots=True)
class Ticked:
    """`TICK_S` have passed; who is registered now."""

    registered: frozenset[NodeId]
    now_unix_s: float


Event: TypeAlias = Opened | Received | Closed | Assigned | Ticked


# ---- effects


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message."""

    stream: StreamNumber
    message: Down


@dataclass(frozen=True, slots=True)
class Push:
    """Send an assignment: it replaces an unsent one."""

    stream: StreamNumber
    share: Share


@dataclass(frozen=True, slots=True)
class EndStream:
    """Send what is unsent and then this message, if there is one; then end the stream."""

    stream: StreamNumber
    message: Refused | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """A round should look: something that planning depends on was reported."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class Judged:
    """Nodes are held to be something else than before."""

    changes: tuple[ConditionChange, ...]


Effect: TypeAlias = Tell | Push | EndStream | Changed | Judged


@dataclass(slots=True)
class _Pings:
    """What one stream was asked: the last ping's number and time, whether it is open; a resync."""

    sequence: int = 0
    sent_at_s: float = -PING_EVERY_S
    is_open: bool = False
    is_resynced: bool = False


class Sessions:
    """The streams of one term."""

    def __init__(self, observations: Observations, started_s: float) -> None:
        """Start without streams; what nodes say goes into `observations`."""
        self._observations = observations
        self._node_of: dict[StreamNumber, NodeId] = {}
        self._stream_of: dict[NodeId, StreamNumber] = {}
        self._sorted: list[NodeId] = []  # its keys, by id
        self._shares: dict[NodeId, Share] = {}
        self._pings: dict[StreamNumber, _Pings] = {}
        self._ticked_at_s = started_s
        self._registered: frozenset[NodeId] = frozenset()

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Take an event; return what is to be done, in order.

        Args:
            event: What happened.
            now_s: Monotonic clock; never goes back.
        """
        match event:
            case Opened():
                return self._open(event, now_s)
            case Received():
                return self._receive(event, now_s)
            case Closed():
                return self._close(event.stream, now_s)
            case Assigned():
                return self._assign(event)
            case Ticked():
                return self._tick(event, now_s)
            case _:
                assert_never(event)

    def stream_of(self, node_id: NodeId) -> StreamNumber | None:
        """Return a node's stream if there is one and it is not lost; else None."""
        stream = self._stream_of.get(node_id)
        return stream if stream is not None and self._observations.is_up(node_id) else None

    def share(self, node_id: NodeId) -> Share | None:
        """Return what a node was last told to run, or is to be told; None: nothing is known."""
        return self._shares.get(node_id)

    def nodes(self) -> list[NodeId]:
        """Return the nodes that have a stream, by id."""
        return list(self._sorted)

    def after(self, node_id: NodeId) -> Iterator[NodeId]:
        """Yield the other nodes that have a stream: those with higher ids, then from the lowest."""
        start = bisect.bisect_right(self._sorted, node_id)
        for each in itertools.chain(
            itertools.islice(self._sorted, start, None), itertools.islice(self._sorted, start)
        ):
            if each != node_id:
                yield each

    def may_leave(self, node_id: NodeId) -> bool:
        """Return whether a node that said goodbye for good has nothing left to run."""
        share = self._shares.get(node_id)
        return share is None or not share.assignment.tasks

    # ---- inside

    def _open(self, event: Opened, now_s: float) -> list[Effect]:
        info = event.hello.info
        node_id = info.node_id
        effects: list[Effect] = []
        standing = self._stream_of.get(node_id)
        if standing is not None:
            life = self._observations.life(node_id)
            if info.life < life and self._observations.is_up(node_id):
                message = (
                    f"another daemon with the id of {info.name} is connected since a later boot "
                    f"({life} > {info.life}): give one of the two an empty data folder"
                )
                self._observations.note_clone(node_id, message, event.now_unix_s)
                refused = Refused(RefusedReason.CLONE, message, retry_after_s=30.0)
                return [EndStream(event.stream, refused)]
            replaced = f"{info.name} has connected again, with the later life {info.life}"
            clone = Refused(RefusedReason.CLONE, replaced) if info.life != life else None
            effects.append(EndStream(standing, clone))
            self._drop(standing)
        self._node_of[event.stream] = node_id
        self._stream_of[node_id] = event.stream
        bisect.insort(self._sorted, node_id)
        self._pings[event.stream] = _Pings()
        self._observations.connected(event.hello, now_s)
        if event.share is not None:
            self._keep(node_id, event.share)
        effects.append(Tell(event.stream, event.welcome))
        share = self._shares.get(node_id)
        if share is not None:
            effects.append(Push(event.stream, share))
        return [*effects, Changed(node_id)]

    def _receive(self, event: Received, now_s: float) -> list[Effect]:
        node_id = self._node_of.get(event.stream)
        if node_id is None:
            return []  # of a stream that was replaced
        self._observations.answered(node_id, now_s)
        match event.message:
            case Hello():
                refused = Refused(RefusedReason.PROTOCOL, "a second Hello on one stream")
                return [EndStream(event.stream, refused), *self._close(event.stream, now_s)]
            case Pong(sequence):
                pings = self._pings[event.stream]
                pings.is_open &= sequence != pings.sequence
                return []
            case Goodbye(GoodbyeKind.RESTART):
                self._observations.take(node_id, event.message, now_s)
                return [EndStream(event.stream)]
            case _:
                has_news = self._observations.take(node_id, event.message, now_s)
                effects: list[Effect] = [Changed(node_id)] if has_news else []
                return [*self._resync(event, node_id), *effects]

    def _resync(self, event: Received, node_id: NodeId) -> list[Effect]:
        """Ask once for everything when a stream's first reports are only what has changed."""
        is_part = isinstance(event.message, AttemptReports) and not event.message.is_complete
        pings = self._pings[event.stream]
        if not is_part or pings.is_resynced or self._observations.has_all(node_id):
            return []
        pings.is_resynced = True
        return [Tell(event.stream, Resync("only changes were reported, and nothing before them"))]

    def _close(self, stream: StreamNumber, now_s: float) -> list[Effect]:
        node_id = self._node_of.get(stream)
        if node_id is None:
            return []
        self._drop(stream)
        self._observations.lost(node_id, now_s)
        return [Changed(node_id)]

    def _drop(self, stream: StreamNumber) -> None:
        node_id = self._node_of.pop(stream)
        del self._stream_of[node_id]
        del self._sorted[bisect.bisect_left(self._sorted, node_id)]
        del self._pings[stream]

    def _assign(self, event: Assigned) -> list[Effect]:
        self._keep(event.node_id, event.share)
        stream = self._stream_of.get(event.node_id)
        return [] if stream is None else [Push(stream, self._shares[event.node_id])]

    def _keep(self, node_id: NodeId, share: Share) -> None:
        """Keep a node's share unless a later one is known."""
        kept = self._shares.get(node_id)
        if kept is None or share.assignment.version >= kept.assignment.version:
            self._shares[node_id] = share

    def _tick(self, event: Ticked, now_s: float) -> list[Effect]:
        late_s = now_s - self._ticked_at_s
        self._ticked_at_s = now_s
        if late_s > LATE_S:
            for pings in self._pings.values():
                pings.sent_at_s += late_s  # answers may be waiting to be read
        effects: list[Effect] = []
        for node_id in self._observations.suspects():
            effects += self._suspect(node_id, now_s)
        self._lose_silent(now_s)
        for node_id in sorted(self._registered - event.registered):
            effects += self._remove(node_id)
        self._registered = event.registered
        changes = self._observations.judge(event.registered, now_s, event.now_unix_s)
        if changes:
            effects.append(Judged(changes))
        return [*effects, *self._end_leaving()]

    def _remove(self, node_id: NodeId) -> list[Effect]:
        """Forget a node that is no longer registered; one that has just joined is not yet."""
        self._shares.pop(node_id, None)
        stream = self._stream_of.get(node_id)
        if stream is not None:
            self._drop(stream)
        self._observations.forget(node_id)
        message = "an operator removed this node; empty its data folder to join as a new one"
        refused = Refused(RefusedReason.REMOVED, message, retry_after_s=30.0)
        ends: list[Effect] = [] if stream is None else [EndStream(stream, refused)]
        return [*ends, Changed(node_id)]

    def _suspect(self, node_id: NodeId, now_s: float) -> list[Effect]:
        stream = self._stream_of[node_id]
        pings = self._pings[stream]
        if pings.is_open or now_s - pings.sent_at_s < PING_EVERY_S:
            return []
        pings.sequence += 1
        pings.sent_at_s, pings.is_open = now_s, True
        return [Tell(stream, Ping(pings.sequence))]

    def _lose_silent(self, now_s: float) -> None:
        for stream, pings in self._pings.items():
            if pings.is_open and now_s - pings.sent_at_s >= PONG_WITHIN_S:
                pings.is_open = False
                self._observations.lost(self._node_of[stream], now_s)

    def _end_leaving(self) -> list[Effect]:
        """End the streams of nodes that leave for good and have nothing left to run."""
        return [
            EndStream(self._stream_of[node_id])
            for node_id in self._observations.leaving()
            if node_id in self._stream_of and self.may_leave(node_id)
        ]
