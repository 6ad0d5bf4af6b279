"""When does a node compare what it knows with a peer, and by which way does the rest travel?

A digest rides on every ping and ack. One that differs for a while begins a sync by datagrams
(`sync`); whoever would have to send more than 8 kB says so, and the other side pulls it on a
stream, chunk by chunk. A node that joins pulls everything from the first seed that answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

from dray.names import NodeId
from node.gossip.core import Address, OpenStream, Rng
from node.gossip.counts import Counts
from node.gossip.facts import FactStore
from node.gossip.messages import (
    BUCKETS,
    Behind,
    Gossip,
    Message,
    Ping,
    Pull,
    PullAnswer,
    SyncBuckets,
    SyncFacts,
    SyncMembers,
)
from node.gossip.outbox import Outbox
from node.gossip.spread import fill
from node.gossip.sync import (
    Reply,
    answer_buckets,
    answer_facts,
    answer_members,
    answer_pull,
    pull_entries,
)

__all__ = ["PULL", "Syncing"]

PULL: Final = "pull"
REPLY_DATAGRAMS_MAX: Final = 16  # sent in answer to one datagram of a sync; the rest waits
BEHIND_BYTES: Final = 8_192  # more than this goes by stream
DOUBTED_MAX: Final = 16  # members asked after one datagram of a sync
CHUNKS_MAX: Final = 1_024  # of one pull: far above 1,000 nodes of 32 kB


@dataclass(slots=True)
class _Pull:
    """A pull under way."""

    stream_id: int
    source: Address
    chunks: int = 0


class Syncing:
    """The syncs of one core."""

    def __init__(self, out: Outbox, store: FactStore, rng: Rng, counts: Counts) -> None:
        self._out = out
        self._parameters = out.parameters
        self._store = store
        self._rng = rng
        self._counts = counts
        self._agreed_at_s = self._synced_at_s = float("-inf")
        self._pull: _Pull | None = None
        self._stream_id = 0

    def compare(self, digest: int, source: Address, now_s: float, *, is_back: bool) -> None:
        """Begin a sync when a peer's digest has differed for a while, and not too often.

        `is_back`: the peer was away until now, so the difference is old.
        """
        if digest == self._store.digest:
            self._agreed_at_s = now_s
            return
        is_lasting = is_back or now_s - self._agreed_at_s > self._parameters.sync_after_s
        period_s = self._parameters.sync_period_s
        if len(self._out.queue) and not is_back:  # news is on its way: most of it will arrive
            period_s = max(period_s, self._parameters.sync_busy_s)
        if is_lasting and now_s - self._synced_at_s >= period_s:
            self._synced_at_s = now_s
            self._counts.syncs += 1
            self._out.send(source, SyncBuckets(tuple(self._store.bucket_digests)))

    def on_message(self, message: SyncBuckets | SyncMembers | SyncFacts, source: Address) -> None:
        """Answer one step of a sync."""
        match message:
            case SyncBuckets():
                first = self._rng.randrange(BUCKETS)
                lists = answer_buckets(self._store, message, first)
                self._reply(source, Reply(messages=list(islice(lists, REPLY_DATAGRAMS_MAX))))
            case SyncMembers():
                self._reply(source, answer_members(self._store, message))
            case SyncFacts():
                self._reply(source, answer_facts(self._store, message))

    def _reply(self, to: Address, reply: Reply) -> None:
        """Send a reply, or as much of it as one datagram may cause."""
        groups: list[list[bytes]] = []
        if sum(map(len, reply.items)) > BEHIND_BYTES:
            self._out.send(to, Behind())
        else:
            groups = list(fill(reply.items, self._out.room_bytes()))
        for group in groups[:REPLY_DATAGRAMS_MAX]:
            self._out.send(to, Gossip(), group)
        messages: list[Message] = reply.messages[: REPLY_DATAGRAMS_MAX - len(groups)]
        for message in messages:
            self._out.send(to, message)
        for node_id in reply.doubted[:DOUBTED_MAX]:
            member = self._store.member(node_id)
            if member is not None:
                self._out.send_to_member(member, Ping(self._out.next_sequence(), node_id))

    # ---- streams

    def pull(self, source: Address, now_s: float) -> None:
        """Begin to pull everything that we lack, unless that is under way."""
        if self._pull is None:
            self._counts.pulls += 1
            self._ask(_Pull(0, source), None, now_s)

    def on_pull_timeout(self) -> None:
        """Give a pull up; a digest will show what is still missing."""
        self._pull = None

    def answer(self, stream_id: int, message: Pull) -> None:
        """Answer a peer's pull with one chunk."""
        answer, items = answer_pull(self._store, message)
        self._out.answer(stream_id, answer, items)

    def on_answer(self, stream_id: int, answer: PullAnswer, now_s: float) -> None:
        """Take it that a chunk has arrived; ask for the next one."""
        pull = self._pull
        if pull is None or pull.stream_id != stream_id:
            return
        self._pull = None
        self._out.timers.disarm_for(PULL, "")
        if answer.until is not None and pull.chunks < CHUNKS_MAX:
            self._ask(pull, answer.until, now_s)

    def is_awaited(self, stream_id: int) -> bool:
        """Return whether an answer with this id was asked for."""
        return self._pull is not None and self._pull.stream_id == stream_id

    def _ask(self, pull: _Pull, after: NodeId | None, now_s: float) -> None:
        self._stream_id += 1
        self._pull = _Pull(self._stream_id, pull.source, pull.chunks + 1)
        data = self._out.compose(pull_entries(self._store, after))
        timeout_s = self._parameters.pull_timeout_s
        self._out.add(OpenStream(pull.source, self._stream_id, data, timeout_s))
        self._out.arm(PULL, "", now_s + timeout_s)
