"""How do decisions about streams become messages? The driver of `Sessions` for one term.

Owns what the machine must not: the clock, the links that carry messages, and who waits for news.
One writer: everything here runs in one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Final

from dray.clock import Clock
from dray.errors import Unavailable
from dray.log import Logger
from dray.model import Assignment, Epoch, ProjectParts
from dray.names import NodeId, TaskId
from scheduler.nodes.messages import (
    Down,
    Hello,
    NodeConfig,
    OpenRelay,
    RemoveOrphans,
    RemoveVolumes,
    Up,
    Welcome,
)
from scheduler.nodes.observations import ConditionChange, Observations
from scheduler.nodes.outbox import Outbox
from scheduler.nodes.sessions import (
    TICK_S,
    Assigned,
    Changed,
    Closed,
    Effect,
    EndStream,
    Event,
    Judged,
    Opened,
    Push,
    Received,
    Sessions,
    Share,
    Tell,
    Ticked,
)

__all__ = ["CHANGES_KEPT_MAX", "Link", "NodeStreams"]

TICK_SHARE: Final = 4.0  # thousands of nodes that are not there yet are looked at less often
TICK_MAX_S: Final = 0.3
CHANGES_KEPT_MAX: Final = 20_000  # changes of condition that no round has taken yet


class Link:
    """The way down of one stream: what is unsent, and whether it is to end."""

    def __init__(self, stream: int) -> None:
        """Start with nothing to send."""
        self.stream = stream
        self.config: NodeConfig | None = None
        self._outbox = Outbox()
        self._news = asyncio.Event()
        self._last: Down | None = None
        self._is_ending = False

    def put(self, message: Down) -> None:
        """Add a message; a node that leaves too many unread is given up."""
        if not self._outbox.put(message):
            self._outbox, self._is_ending = Outbox(), True
        self._news.set()

    def put_share(self, share: Share) -> None:
        """Add an assignment; it replaces an unsent one."""
        self._outbox.put_assignment(share.assignment, share.projects)
        self._news.set()

    def end(self, message: Down | None = None) -> None:
        """Send what is unsent, then this, then nothing more."""
        if not self._is_ending:
            self._is_ending, self._last = True, message
            self._news.set()

    async def next(self) -> Down | None:
        """Return the next message to send, waiting for one; None: the stream is to end."""
        while True:
            message = self._outbox.take()
            if message is not None:
                return message
            if self._is_ending:
                last, self._last = self._last, None
                return last
            self._news.clear()
            await self._news.wait()


class NodeStreams:
    """The streams of one term, and what came of them. Serves as the round's dispatcher."""

    def __init__(
        self,
        epoch: Epoch,
        *,
        clock: Clock,
        log: Logger,
        registered: Callable[[], frozenset[NodeId]],
        expected: Iterable[NodeId] = (),
        numbers: Iterable[int] = (),
    ) -> None:
        """Begin a term without streams.

        Args:
            epoch: The term.
            clock: Its clocks.
            log: Gets a line for each change of a node's condition.
            registered: Returns the ids of all registered nodes.
            expected: Nodes that were not held to be down when the term began.
            numbers: Where numbers of streams come from; by default from 1.
        """
        self.epoch = epoch
        started_s = clock.monotonic_s()
        self.observations = Observations(started_s, expected)
        self._sessions = Sessions(self.observations, started_s)
        self._clock = clock
        self._log = log
        self._registered = registered
        self._numbers = iter(numbers) if numbers else itertools.count(1)
        self._links: dict[int, Link] = {}
        self._changed = asyncio.Event()
        self._changes: list[ConditionChange] = []
        self._is_over = False

    async def run(self) -> None:
        """Judge nodes and ping suspects until cancelled."""
        while True:
            start_s = self._clock.monotonic_s()
            self.tick()
            took_s = self._clock.monotonic_s() - start_s
            await self._clock.sleep(min(max(TICK_S, TICK_SHARE * took_s), TICK_MAX_S))

    def tick(self) -> None:
        """Look at what time alone changes; due every `TICK_S`."""
        self._handle(Ticked(self._registered(), self._clock.unix_s()))

    # ---- streams

    def open(self, hello: Hello, welcome: Welcome, share: Share | None) -> Link:
        """Take a node's new stream.

        Raises:
            Unavailable: The term is over.
        """
        if self._is_over:
            raise Unavailable("this scheduler leads no longer")
        link = Link(next(self._numbers))
        link.config = welcome.config
        self._links[link.stream] = link
        self._handle(Opened(link.stream, hello, welcome, share, self._clock.unix_s()))
        return link

    def receive(self, link: Link, message: Up) -> None:
        """Take a message of a node."""
        self._handle(Received(link.stream, message))

    def closed(self, link: Link) -> None:
        """Note that a stream has ended; more than once is fine."""
        link.end()
        if self._links.pop(link.stream, None) is not None:
            self._handle(Closed(link.stream))

    def close(self, message: Down) -> None:
        """End the term: every stream ends with this message."""
        self._is_over = True
        for link in self._links.values():
            link.end(message)
        self._changed.set()

    # ---- what the leader sends

    async def push(
        self, node_id: NodeId, assignment: Assignment, projects: tuple[ProjectParts, ...]
    ) -> None:
        """Send a node its assignment, now or when it connects; of several the latest.

        Args:
            node_id: The node.
            assignment: With every revision that its tasks run in `specs`.
            projects: One for each project with a task in it.
        """
        self._handle(Assigned(node_id, Share(assignment, projects)))

    def configure(self, node_id: NodeId, config: NodeConfig) -> None:
        """Send a node what it should know, if that differs from what its stream has carried.

        Gossip's seeds alone are no difference: they matter to a node that joins.
        """
        link = self._link(node_id)
        if link is None or (link.config is not None and _same(link.config, config)):
            return
        link.config = config
        link.put(config)

    def connected(self) -> list[NodeId]:
        """Return the nodes with a stream that is up, by id."""
        return [node_id for node_id in self._sessions.nodes() if self._link(node_id)]

    def connected_after(self, node_id: NodeId, count: int) -> list[NodeId]:
        """Return so many other nodes with a stream that is up: those next in the ring of ids."""
        others = (each for each in self._sessions.after(node_id) if self._link(each))
        return list(itertools.islice(others, count))

    def share(self, node_id: NodeId) -> Share | None:
        """Return what a node was last told to run, or is to be told; None: nothing is known."""
        return self._sessions.share(node_id)

    async def remove_orphans(self, node_id: NodeId, task_ids: tuple[TaskId, ...]) -> None:
        """Tell a node to end orphans.

        Raises:
            Unavailable: The node has no stream.
        """
        self._told(node_id, RemoveOrphans(task_ids))

    def remove_volumes(self, node_id: NodeId, project: str, names: tuple[str, ...]) -> None:
        """Tell a node to remove volumes of a project; one without a stream is not told."""
        link = self._link(node_id)
        if link is not None:
            link.put(RemoveVolumes(project, names))

    def open_relay(self, node_id: NodeId, message: OpenRelay) -> None:
        """Ask a node to open a relay.

        Raises:
            Unavailable: The node has no stream.
        """
        self._told(node_id, message)

    # ---- what came of it

    async def wait_changed(self) -> None:
        """Return when something that planning depends on was reported since the last return."""
        await self._changed.wait()
        self._changed.clear()

    def take_changes(self) -> tuple[ConditionChange, ...]:
        """Return the changes of condition since the last call, for events; at most so many."""
        changes, self._changes = tuple(self._changes), []
        return changes

    # ---- inside

    def _link(self, node_id: NodeId) -> Link | None:
        stream = self._sessions.stream_of(node_id)
        return None if stream is None else self._links.get(stream)

    def _told(self, node_id: NodeId, message: Down) -> None:
        link = self._link(node_id)
        if link is None:
            raise Unavailable(f"node {node_id} has no stream to the leader")
        link.put(message)

    def _handle(self, event: Event) -> None:
        for effect in self._sessions.handle(event, self._clock.monotonic_s()):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Tell(stream, message):
                if stream in self._links:
                    self._links[stream].put(message)
            case Push(stream, share):
                if stream in self._links:
                    self._links[stream].put_share(share)
            case EndStream(stream, message):
                if stream in self._links:
                    self._links[stream].end(message)
            case Changed():
                self._changed.set()
            case Judged(changes):
                self._note(changes)

    def _note(self, changes: tuple[ConditionChange, ...]) -> None:
        self._changes = [*self._changes, *changes][-CHANGES_KEPT_MAX:]
        self._changed.set()
        for change in changes:
            self._log.info(
                "node condition changed",
                node_id=change.node_id,
                condition=change.after.name,
                before=change.before.name,
            )


def _same(one: NodeConfig, other: NodeConfig) -> bool:
    return (one.record, one.keyring, one.schedulers, one.removed_nodes) == (
        other.record,
        other.keyring,
        other.schedulers,
        other.removed_nodes,
    )
