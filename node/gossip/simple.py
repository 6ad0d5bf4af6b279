"""How does a node learn who is there, who has died, and what they publish? The smallest version.

SWIM without its refinements (node/gossip/README.md has the rules in prose): every period one member
is pinged, in a random order in which everybody has a turn; if it does not answer, a few helpers
ping it; if they do not reach it either it is suspected, and dead unless it refutes in time. News
rides on every datagram, a bounded number of times, and what is missed is found by digests.

A `SimpleCore` is a `Core`: events in, effects out, no clock, no socket, no randomness of its own.
Its datagrams are neither encrypted nor authenticated, see `messages`: loopback only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from dray.errors import InvalidRequest
from dray.model import Fact, FactView, Member, MemberState, ReachKind
from dray.names import ClusterId, NodeId
from node.gossip.core import (
    DATAGRAM_BYTES_MAX,
    Address,
    DatagramReceived,
    Effect,
    Event,
    FactRefused,
    Join,
    Leave,
    MemberChanged,
    PublishFact,
    Rng,
    SendDatagram,
    TimerFired,
    TimerKey,
    ViewChanged,
)
from node.gossip.facts import FactStore, Merge
from node.gossip.members import INCARNATION_MAX, Rumour, announced, precedence, rumour_of
from node.gossip.messages import (
    BUCKETS,
    Ack,
    Datagram,
    FactPiece,
    Gossip,
    Message,
    Ping,
    PingRequest,
    Sender,
    SyncBuckets,
    SyncFacts,
    SyncMembers,
    cluster_tag,
    decode,
    encode,
    encode_rumour,
)
from node.gossip.own_facts import OwnFacts
from node.gossip.parameters import Parameters
from node.gossip.pieces import ASSEMBLIES_MAX, Pieces
from node.gossip.roster import MEMBERS_KNOWN_MAX, Roster
from node.gossip.spread import ITEMS_MAX, SpreadQueue, fill, sends_max
from node.gossip.sync import Reply, answer_buckets, answer_facts, answer_members, pieces_of
from node.gossip.timers import Timers
from node.gossip.wire import Malformed, WireError

__all__ = ["Counts", "Identity", "SimpleCore"]

SEEDS_MAX: Final = 16
RELAYS_MAX: Final = 256  # pings on behalf of others that are unanswered; the oldest is given up
REPLY_DATAGRAMS_MAX: Final = 16  # sent in answer to one datagram of a sync; the rest waits
SPREAD_PIECES_MAX: Final = 4  # of a fact that rides along: about 100 endpoints
FAREWELL_PEERS: Final = 8  # who is told at once that this node leaves
SEQUENCES: Final = 2**32

_PROBE: Final = TimerKey("probe")
_ASK: Final = TimerKey("ask")
_VERDICT: Final = TimerKey("verdict")
_SPREAD: Final = TimerKey("spread")
_JOIN: Final = TimerKey("join")
_HEAL: Final = TimerKey("heal")
_SUSPICION: Final = "suspicion"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is: for one life of its daemon nothing of it changes."""

    cluster_id: ClusterId
    node_id: NodeId
    name: str
    address: Address
    life: int

    def __post_init__(self) -> None:
        """Check that it can be told to others.

        Raises:
            InvalidRequest: An id, the name, the address or the life is malformed.
        """
        try:
            data = encode(bytes(8), self.sender(0), 0, Gossip())
        except WireError as error:
            raise InvalidRequest(f"node {self.name!r} cannot gossip: {error}") from error
        problem = decode(data)
        if isinstance(problem, Malformed):
            raise InvalidRequest(f"node {self.name!r} cannot gossip: {problem.reason}")

    def sender(self, incarnation: int) -> Sender:
        """Return how this node signs its datagrams."""
        return Sender(self.node_id, self.life, incarnation, self.name, self.address)


@dataclass(slots=True)
class Counts:
    """What was dropped or done, since the start; for metrics.

    Attributes:
        junk: Datagrams that nobody's encoder wrote.
        foreign: Of another cluster.
        own: That bear this node's id: a clone, or a loop.
        stale: Of an older life of their sender, or of one that there is no room for.
        suspicions: Raised by this node's own probes.
        refutations: Of suspicions of this node.
        late: Judgements put off because this node itself ran late.
        syncs: Begun by this node.
    """

    junk: int = 0
    foreign: int = 0
    own: int = 0
    stale: int = 0
    suspicions: int = 0
    refutations: int = 0
    late: int = 0
    syncs: int = 0


@dataclass(slots=True)
class _Probe:
    """The probe under way: whether the target answered itself, or through a helper."""

    sequence: int
    target: NodeId
    sent_at_s: float
    is_answered: bool = False
    is_vouched: bool = False


@dataclass(frozen=True, slots=True)
class _Relay:
    """A ping sent on behalf of somebody."""

    asker: Address
    sequence: int
    target: NodeId


class SimpleCore:
    """The protocol of one node. See `node.gossip.core.Core` for what it promises."""

    def __init__(self, identity: Identity, parameters: Parameters, rng: Rng) -> None:
        self.counts = Counts()
        self._identity = identity
        self._parameters = parameters
        self._rng = rng
        self._tag = cluster_tag(identity.cluster_id)
        self._store = FactStore()
        self._timers = Timers()
        self._queue = SpreadQueue()
        self._pieces = Pieces()
        self._roster = Roster(self._store, rng)
        self._own_facts = OwnFacts(self._store, identity.node_id, identity.life)
        self._relays: dict[int, _Relay] = {}  # oldest first
        self._seeds: tuple[Address, ...] = ()
        self._probe: _Probe | None = None
        self._sequence = 0
        self._agreed_at_s = self._synced_at_s = float("-inf")
        self._is_leaving = False
        self._out: list[Effect] = []
        address = identity.address
        self._store.put_member(
            Member(
                identity.node_id,
                identity.name,
                address.host,
                address.port,
                identity.life,
                0,
                MemberState.ALIVE,
            )
        )

    # ---- the port

    def start(self, now_s: float) -> list[Effect]:
        """Return the first effects. Called once, before any event."""
        first_s = self._rng.random() * self._parameters.probe_period_s
        self._arm(_PROBE, now_s + first_s)
        self._arm(_HEAL, now_s + self._parameters.heal_period_s)
        return self._take_effects()

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Take one event and return what is to be done, in order."""
        match event:
            case DatagramReceived():
                self._on_datagram(event, now_s)
            case TimerFired():
                self._on_timer(event, now_s)
            case Leave():
                self._on_leave()
            case _ if self._is_leaving:
                pass
            case Join():
                own = self._identity.address
                self._seeds = tuple(seed for seed in event.seeds if seed != own)[:SEEDS_MAX]
                self._on_join(now_s)
            case PublishFact():
                self._on_publish(event, now_s)
            case _:
                pass  # streams and kernel answers: this version asks for none
        self._wake_spread(now_s)
        return self._take_effects()

    def view(self) -> FactView:
        """Return the current view."""
        return self._store.view()

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how large each part of the state is, and how large it may become."""
        return {
            **self._roster.sizes(),
            "timers": (len(self._timers), 6 + MEMBERS_KNOWN_MAX),
            "news": (len(self._queue), ITEMS_MAX),
            "relays": (len(self._relays), RELAYS_MAX),
            "pieces": (len(self._pieces), ASSEMBLIES_MAX),
        }

    def _take_effects(self) -> list[Effect]:
        out, self._out = self._out, []
        keys = self._store.take_changed_keys()
        if keys or any(isinstance(effect, MemberChanged) for effect in out):
            out.append(ViewChanged(self._store.sequence, keys))
        return out

    def _arm(self, key: TimerKey, at_s: float) -> None:
        self._out.append(self._timers.arm(key, at_s))

    # ---- sending

    def _me(self) -> Member:
        me = self._store.member(self._identity.node_id)
        assert me is not None, "a node is always a member of its own view"
        return me

    def _send(self, to: Address, message: Message, items: Iterable[bytes] = ()) -> None:
        """Send a message with `items`, and as much news as fits beside them."""
        sender = self._identity.sender(self._me().incarnation)
        data = encode(self._tag, sender, self._store.digest, message) + b"".join(items)
        times_max = sends_max(self._roster.present + 1, self._parameters.spread_factor)
        news = self._queue.take(DATAGRAM_BYTES_MAX - len(data), times_max)
        data += b"".join(news)
        assert len(data) <= DATAGRAM_BYTES_MAX, "items are chosen to fit"
        self._out.append(SendDatagram(to, data))

    def _send_to_member(self, member: Member, message: Message) -> None:
        """Send to a member and, if we do not hold it to be alive, tell it so: it may refute."""
        items = () if member.state is MemberState.ALIVE else (encode_rumour(rumour_of(member)),)
        self._send(Address(member.address, member.gossip_port), message, items)

    def _next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) % SEQUENCES
        return self._sequence

    # ---- timers

    def _on_timer(self, event: TimerFired, now_s: float) -> None:
        due_s = self._timers.take(event)
        if due_s is None or (self._is_leaving and event.key != _SPREAD):
            return
        lateness_s = max(event.lateness_s, now_s - due_s)
        if event.key.kind == _SUSPICION:
            self._on_suspicion_end(NodeId(event.key.node_id), lateness_s, now_s)
        elif event.key == _PROBE:
            self._on_probe(now_s)
        elif event.key == _ASK:
            self._on_ask()
        elif event.key == _VERDICT:
            self._on_verdict(lateness_s, now_s)
        elif event.key == _SPREAD:
            self._on_spread()
        elif event.key == _JOIN:
            self._on_join(now_s)
        elif event.key == _HEAL:
            self._on_heal(now_s)

    def _is_too_late(self, lateness_s: float) -> bool:
        """Return whether this node ran so late that it missed what it would judge others by."""
        is_late = lateness_s > self._parameters.probe_timeout_s / 2
        self.counts.late += is_late
        return is_late

    def _on_probe(self, now_s: float) -> None:
        self._arm(_PROBE, now_s + self._parameters.probe_period_s)
        member = self._roster.next_target()
        if member is None:
            return
        self._probe = _Probe(self._next_sequence(), member.node_id, now_s)
        self._send_to_member(member, Ping(self._probe.sequence, member.node_id))
        self._arm(_ASK, now_s + self._parameters.probe_timeout_s)
        self._arm(_VERDICT, now_s + self._parameters.probe_verdict_s)

    def _on_ask(self) -> None:
        probe = self._probe
        member = self._store.member(probe.target) if probe is not None else None
        if probe is None or probe.is_answered or member is None:
            return
        request = PingRequest(
            probe.sequence, probe.target, Address(member.address, member.gossip_port)
        )
        for helper in self._roster.sample(self._parameters.helpers, but=probe.target):
            self._send_to_member(helper, request)

    def _on_verdict(self, lateness_s: float, now_s: float) -> None:
        probe, self._probe = self._probe, None
        member = self._store.member(probe.target) if probe is not None else None
        if probe is None or probe.is_answered or member is None or self._is_too_late(lateness_s):
            return
        member = dataclasses.replace(member, seen=ReachKind.SILENT, seen_at_s=now_s)
        self._store.put_member(member)
        if not probe.is_vouched and member.state is MemberState.ALIVE:
            self.counts.suspicions += 1
            state = MemberState.SUSPECT
            self._believe(Rumour(member.node_id, member.life, member.incarnation, state), now_s)

    def _on_suspicion_end(self, node_id: NodeId, lateness_s: float, now_s: float) -> None:
        member = self._store.member(node_id)
        if member is None or member.state is not MemberState.SUSPECT:
            return
        if self._is_too_late(lateness_s):
            self._arm(TimerKey(_SUSPICION, node_id), now_s + self._parameters.probe_period_s)
            return
        self._believe(Rumour(node_id, member.life, member.incarnation, MemberState.DEAD), now_s)

    def _wake_spread(self, now_s: float) -> None:
        has_news = self._roster.present and len(self._queue)
        if has_news and not self._timers.is_armed(_SPREAD):
            self._arm(_SPREAD, now_s + self._parameters.gossip_period_s)

    def _on_spread(self) -> None:
        for member in self._roster.sample(self._parameters.gossip_fanout):
            if len(self._queue) > 0:
                self._send_to_member(member, Gossip())

    def _on_join(self, now_s: float) -> None:
        """Ask every seed; again after a while, unless one has answered by then."""
        for seed in self._seeds:
            self._send(seed, Ping(self._next_sequence(), None))
        if self._seeds:
            self._arm(_JOIN, now_s + self._parameters.join_period_s)

    def _on_heal(self, now_s: float) -> None:
        """Look for who may have come back, and forget what is old."""
        self._arm(_HEAL, now_s + self._parameters.heal_period_s)
        dead = self._roster.random_dead()
        if dead is not None:
            self._send_to_member(dead, Ping(self._next_sequence(), dead.node_id))
        if self._seeds:
            seed = self._seeds[self._rng.randrange(len(self._seeds))]
            self._send(seed, Ping(self._next_sequence(), None))
        self._store.drop_tombstones(now_s - self._parameters.tombstone_keep_s)
        self._roster.forget_gone(now_s - self._parameters.gone_keep_s)

    # ---- datagrams

    def _on_datagram(self, event: DatagramReceived, now_s: float) -> None:
        datagram = decode(event.data)
        if isinstance(datagram, Malformed):
            self.counts.junk += 1
        elif datagram.cluster_tag != self._tag:
            self.counts.foreign += 1
        elif datagram.sender.node_id == self._identity.node_id:
            self.counts.own += 1
        elif not self._is_leaving:
            self._on_good_datagram(datagram, event.source, now_s)

    def _on_good_datagram(self, datagram: Datagram, source: Address, now_s: float) -> None:
        sender = self._hear(datagram.sender, now_s)
        if sender is None:
            self.counts.stale += 1
            return
        for item in datagram.items:
            if isinstance(item, Rumour):
                self._believe(item, now_s)
            else:
                self._on_piece(item, now_s)
        message = datagram.message
        self._on_message(message, sender, source, now_s)
        if isinstance(message, Ping | Ack):
            self._compare(datagram.digest, source, now_s)
        member = self._store.member(sender.node_id)
        if member is not None and member.state in (MemberState.SUSPECT, MemberState.DEAD):
            self._send(source, Gossip(), (encode_rumour(rumour_of(member)),))

    def _hear(self, sender: Sender, now_s: float) -> Member | None:
        """Take what a datagram says by merely being there; None: its sender does not count."""
        known = self._store.member(sender.node_id)
        if known is not None and sender.life < known.life:
            return None
        rumour = Rumour(
            sender.node_id,
            sender.life,
            sender.incarnation,
            MemberState.ALIVE,
            sender.name,
            sender.address,
        )
        self._believe(rumour, now_s, is_direct=True)
        member = self._store.member(sender.node_id)
        if member is not None:
            member = dataclasses.replace(member, last_contact_at_s=now_s)
            self._store.put_member(member)
        return member

    def _on_message(self, message: Message, sender: Member, source: Address, now_s: float) -> None:
        match message:
            case Ping():
                if message.target in (None, self._identity.node_id):
                    self._send(source, Ack(message.sequence))
            case Ack():
                self._on_ack(message, sender, source, now_s)
            case PingRequest():
                self._on_ping_request(message, source)
            case Gossip():
                pass
            case SyncBuckets():
                first = self._rng.randrange(BUCKETS)
                lists = answer_buckets(self._store, message, first)
                self._reply(source, Reply(messages=list(islice(lists, REPLY_DATAGRAMS_MAX))))
            case SyncMembers():
                self._reply(source, answer_members(self._store, message))
            case SyncFacts():
                self._reply(source, answer_facts(self._store, message))

    def _on_ack(self, ack: Ack, sender: Member, source: Address, now_s: float) -> None:
        if source in self._seeds:
            self._timers.disarm(_JOIN)
        probe = self._probe
        if ack.about is not None:
            known = self._store.member(ack.about)
            if probe is None or probe.sequence != ack.sequence or probe.target != ack.about:
                return
            probe.is_vouched = True
            if known is not None and (ack.life, ack.incarnation) > (known.life, known.incarnation):
                claimed = dataclasses.replace(known, state=MemberState.ALIVE)
                rumour = rumour_of(claimed)
                self._believe(
                    dataclasses.replace(rumour, life=ack.life, incarnation=ack.incarnation), now_s
                )
        elif probe is not None and (probe.sequence, probe.target) == (ack.sequence, sender.node_id):
            self._on_probe_answered(probe, sender.node_id, now_s)
        else:
            self._pass_on(ack, sender)

    def _on_probe_answered(self, probe: _Probe, node_id: NodeId, now_s: float) -> None:
        member = self._store.member(node_id)
        if member is None or probe.is_answered:
            return
        probe.is_answered = True
        rtt_s = now_s - probe.sent_at_s
        if member.rtt_s is not None:
            rtt_s = member.rtt_s + (rtt_s - member.rtt_s) / 8  # as TCP smooths it (RFC 6298)
        seen = ReachKind.ANSWERED
        self._store.put_member(dataclasses.replace(member, seen=seen, seen_at_s=now_s, rtt_s=rtt_s))

    def _on_ping_request(self, request: PingRequest, source: Address) -> None:
        if len(self._relays) >= RELAYS_MAX:
            del self._relays[next(iter(self._relays))]
        sequence = self._next_sequence()
        self._relays[sequence] = _Relay(source, request.sequence, request.target)
        self._send(request.address, Ping(sequence, request.target))

    def _pass_on(self, ack: Ack, sender: Member) -> None:
        relay = self._relays.get(ack.sequence)
        if relay is not None and relay.target == sender.node_id:
            del self._relays[ack.sequence]
            answer = Ack(relay.sequence, sender.node_id, sender.life, sender.incarnation)
            self._send(relay.asker, answer)

    # ---- syncs

    def _compare(self, digest: int, source: Address, now_s: float) -> None:
        """Begin a sync when a peer's digest has differed for a while, and not too often."""
        if digest == self._store.digest:
            self._agreed_at_s = now_s
            return
        is_lasting = now_s - self._agreed_at_s > self._parameters.sync_after_s
        if is_lasting and now_s - self._synced_at_s >= self._parameters.sync_period_s:
            self._synced_at_s = now_s
            self.counts.syncs += 1
            self._send(source, SyncBuckets(tuple(self._store.bucket_digests)))

    def _reply(self, to: Address, reply: Reply) -> None:
        """Send a reply, or as much of it as one datagram may cause."""
        room_bytes = DATAGRAM_BYTES_MAX - len(
            encode(self._tag, self._identity.sender(0), 0, Gossip())
        )
        # From another place each time, or what is beyond the limit would never have its turn.
        first = self._rng.randrange(len(reply.items)) if reply.items else 0
        items = reply.items[first:] + reply.items[:first]
        groups = list(islice(fill(items, room_bytes), REPLY_DATAGRAMS_MAX))
        for group in groups:
            self._send(to, Gossip(), group)
        for message in reply.messages[: REPLY_DATAGRAMS_MAX - len(groups)]:
            self._send(to, message)

    # ---- members

    def _believe(self, rumour: Rumour, now_s: float, *, is_direct: bool = False) -> None:
        """Take a rumour if it is news. `is_direct`: the member said so itself."""
        if rumour.node_id == self._identity.node_id:
            self._refute(rumour)
            return
        change = self._roster.believe(rumour, now_s, is_direct=is_direct)
        if change is None:
            return
        self._queue.put(rumour.node_id, encode_rumour(rumour))
        key = TimerKey(_SUSPICION, rumour.node_id)
        if rumour.state is MemberState.SUSPECT:
            self._arm(key, now_s + self._parameters.suspicion_s)
        else:
            self._timers.disarm(key)
        if change.before is None or announced(change.before) != announced(change.after):
            self._out.append(MemberChanged(change.before, change.after))

    def _refute(self, rumour: Rumour) -> None:
        """Contradict what is said of this node, with an incarnation above it."""
        me = self._me()
        is_old = (rumour.life, rumour.incarnation) < (me.life, me.incarnation)
        if is_old or precedence(rumour) == precedence(me) or self._is_leaving:
            return
        if rumour.life > me.life or rumour.incarnation >= INCARNATION_MAX:
            self.counts.own += (
                1  # another daemon with this id, or a lie: no word of ours outranks it
            )
            return
        self.counts.refutations += 1
        me = dataclasses.replace(me, incarnation=rumour.incarnation + 1)
        self._store.put_member(me)
        self._queue.put(me.node_id, encode_rumour(rumour_of(me)))

    def _on_leave(self) -> None:
        if self._is_leaving:
            return
        me = self._me()
        left = dataclasses.replace(me, state=MemberState.LEFT)
        self._store.put_member(left)
        self._queue.put(left.node_id, encode_rumour(rumour_of(left)))
        self._out.append(MemberChanged(me, left))
        for member in self._roster.sample(FAREWELL_PEERS):
            self._send_to_member(member, Gossip())
        self._is_leaving = True

    # ---- facts

    def _on_publish(self, command: PublishFact, now_s: float) -> None:
        written = self._own_facts.publish(command, now_s)
        if isinstance(written, FactRefused):
            self._out.append(written)
        elif written is not None:
            self._spread(written)

    def _spread(self, fact: Fact) -> None:
        """Let a fact ride along, if it is not large; what is larger is found by digests."""
        pieces = pieces_of(fact)
        if len(pieces) <= SPREAD_PIECES_MAX:
            for index, piece in enumerate(pieces):
                self._queue.put((fact.key, index), piece)

    def _on_piece(self, piece: FactPiece, now_s: float) -> None:
        known = self._store.facts_of(piece.key.node_id)
        old = known.facts.get(piece.key.name)
        if old is not None and old.version >= piece.version:
            return
        fact = self._pieces.add(piece)
        if fact is None:
            return
        if fact.key.node_id == self._identity.node_id:
            defence = self._own_facts.defend(fact, now_s)
            if defence is not None:
                self._spread(defence)
        elif self._store.merge(fact, now_s) is Merge.TAKEN:
            self._spread(fact)
