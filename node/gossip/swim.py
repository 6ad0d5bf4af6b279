"""How does a node learn who is there, who has died, and what they publish? The core.

A `SwimCore` is a `Core`: events in, effects out, no clock, no socket, no randomness of its own.
node/gossip/README.md has the rules in prose. The parts have a file each: `probing`, `judge`,
`syncing`; they share a store, a roster and an outbox, and this class leads events to them.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from dray.model import (
    Fact,
    FactView,
    FaultKind,
    Member,
    MemberState,
    ReachKind,
    WitnessEvidence,
)
from dray.names import NodeId
from node.gossip.awareness import JUMP_S, Awareness
from node.gossip.contacts import Contacts
from node.gossip.core import (
    Address,
    DatagramReceived,
    Effect,
    Event,
    FactRefused,
    Join,
    Leave,
    MemberChanged,
    ProbeReach,
    PublishFact,
    RanLate,
    ReachProbed,
    Remove,
    Rng,
    StreamReceived,
    TimerFired,
    ViewChanged,
)
from node.gossip.counts import Counts
from node.gossip.datagrams import decode, decode_streamed, encode_rumour
from node.gossip.evidence import Evidence
from node.gossip.facts import FactStore, Merge
from node.gossip.identity import Identity
from node.gossip.judge import SUSPICION, VERIFY, Judge
from node.gossip.members import LIFE_MAX, Rumour, is_here, rumour_of
from node.gossip.messages import (
    Ack,
    Behind,
    Datagram,
    FactPiece,
    Gossip,
    Nack,
    NotMe,
    Ping,
    PingRequest,
    Pull,
    PullAnswer,
    Sender,
    SyncBuckets,
    SyncFacts,
    SyncMembers,
    Verify,
)
from node.gossip.outbox import Outbox, address_of
from node.gossip.own_facts import OwnFacts
from node.gossip.parameters import Parameters
from node.gossip.pieces import ASSEMBLIES_MAX, Pieces
from node.gossip.probing import ASK, NACK, PROBE, PROBES_MAX, RELAYS_MAX, VERDICT, Probing
from node.gossip.roster import MEMBERS_KNOWN_MAX, Roster
from node.gossip.spread import ITEMS_MAX
from node.gossip.sync import pieces_of
from node.gossip.syncing import PULL, Syncing
from node.gossip.wire import Malformed

__all__ = ["SwimCore"]

SPREAD: Final = "spread"
JOIN: Final = "join"
HEAL: Final = "heal"
FIRST_SPREAD_S: Final = 0.02  # news after a rest: what comes with it goes along
SPREAD_DATAGRAMS_MAX: Final = 4  # to one member at a time, when much is to be told
BACKLOG_ITEMS: Final = 8  # two datagrams of endpoints: more than that is much
SEEDS_MAX: Final = 256  # addresses to join by, those of an earlier life included
SEEDS_ASKED: Final = 16  # of them at a time
SPREAD_PIECES_MAX: Final = 4  # of a fact that rides along: about 100 endpoints
FAREWELL_PEERS: Final = 8  # who is told at once that this node leaves
CONTACT_SHOWN_S: Final = 1.0  # the view's times of contact are at most this old
REMOVED_MAX: Final = 256  # members that one command removes
ONE_WAY_PROBES: Final = 5  # missed in a row by somebody who is heard: a link of one direction
BLOCKED_PROBES: Final = 3  # answered on streams only, in a row
CLONE_S: Final = 60.0  # for so long another daemon with this id is a fault
LATE_FAULT_S: Final = 0.5  # a loop that runs this late is a fault


class SwimCore:
    """The protocol of one node. See `node.gossip.core.Core` for what it promises."""

    def __init__(
        self, identity: Identity, parameters: Parameters, rng: Rng, first_sequence: int = 0
    ) -> None:
        """Make the core of a node that knows nobody.

        Args:
            identity: Who it is, in this life.
            parameters: The same on all nodes.
            rng: Its own generator.
            first_sequence: Number of its first view: above those of a core that it replaces.
        """
        self.counts = counts = Counts()
        self._identity = identity
        self._parameters = parameters
        self._rng = rng
        self._store = store = FactStore(first_sequence)
        self._roster = roster = Roster(store, rng)
        self._contacts = contacts = Contacts()
        self._evidence = evidence = Evidence()
        self._out = out = Outbox(identity, parameters, store, roster)
        late_after_s = parameters.probe_timeout_min_s / 2
        self._awareness = awareness = Awareness(parameters.health_max, late_after_s)
        self._judge = Judge(out, store, roster, contacts, evidence, awareness, counts)
        self._probing = Probing(
            out, store, roster, contacts, evidence, awareness, self._judge, counts
        )
        self._syncing = Syncing(out, store, rng, counts)
        self._pieces = Pieces()
        self._own_facts = OwnFacts(store, identity.node_id, identity.life)
        self._seeds: tuple[Address, ...] = ()
        self._is_leaving = False
        self._spread_at_s = float("-inf")
        self._cloned_at_s = float("-inf")
        self._overdue_s = float("-inf")  # the probe time whose lateness was noted
        at = identity.address
        store.put_member(
            Member(
                identity.node_id,
                identity.name,
                at.host,
                at.port,
                identity.life,
                0,
                MemberState.ALIVE,
            )
        )

    # ---- the port

    def start(self, now_s: float) -> list[Effect]:
        """Return the first effects. Called once, before any event."""
        self._probing.begin(now_s, self._rng.random() * self._parameters.probe_period_s)
        self._out.arm(HEAL, "", now_s + self._parameters.heal_period_s)
        return self._take_effects(now_s)

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Take one event and return what is to be done, in order."""
        due_s = self._probing.next_at_s
        if now_s > due_s > self._overdue_s and not isinstance(event, TimerFired):
            self._overdue_s = due_s
            self._note_lateness(now_s - due_s, now_s)
        match event:
            case DatagramReceived():
                self._on_data(event.data, event.source, 0, now_s)
            case TimerFired():
                self._on_timer(event, now_s)
            case Leave():
                self._on_leave()
            case _ if self._is_leaving:
                pass
            case StreamReceived():
                if event.stream_id < 0 or self._syncing.is_awaited(event.stream_id):
                    self._on_data(event.data, event.source, event.stream_id, now_s)
            case ReachProbed():
                self._on_reach(event, now_s)
            case RanLate():
                self._note_lateness(event.lateness_s, now_s)
            case Join():
                own = self._identity.address
                self._seeds = tuple(seed for seed in event.seeds if seed != own)[:SEEDS_MAX]
                self._on_join(now_s)
            case PublishFact():
                self._on_publish(event, now_s)
            case Remove():
                self._on_remove(event, now_s)
        return self._take_effects(now_s)

    def adopt(self, known: FactStore) -> None:
        """Begin with what another store has, this node included; before it knows anybody.

        For simulations: a real node learns from its peers.
        """
        self._store.adopt(known)
        self._roster.adopt(self._identity.node_id)
        self._own_facts.adopt()

    def view(self) -> FactView:
        """Return the current view."""
        return self._store.view()

    @property
    def digest(self) -> int:
        """The digest of everybody present and their facts: equal in equal views."""
        return self._store.digest

    def evidence(self, now_s: float) -> tuple[WitnessEvidence, ...]:
        """Return what this node's own probes find of others, by target."""
        found: list[WitnessEvidence] = []
        is_cut_off = self._is_cut_off()
        watched = self._judge.watched()
        for node_id in sorted(self._store):
            member = self._store.member(node_id)
            assert member is not None, "the store has what it lists"
            finding = self._evidence.of(node_id, member.life)
            if finding is None or member.state is MemberState.LEFT:
                continue
            if not finding.is_told(now_s) and node_id not in watched:
                continue
            last_s = self._contacts.of(node_id).last_s
            found.append(
                WitnessEvidence(
                    self._identity.node_id,
                    node_id,
                    member.life,
                    finding.reach,
                    max(0.0, now_s - finding.since_s),
                    None if last_s is None else max(0.0, now_s - last_s),
                    is_cut_off,
                )
            )
        return tuple(found)

    def faults(self, now_s: float) -> tuple[tuple[FaultKind, str], ...]:
        """Return what is wrong with this node's network or time."""
        found: list[tuple[FaultKind, str]] = []
        for node_id, contact in self._contacts.items():
            member = self._store.member(node_id)
            if member is None or not is_here(member):
                continue
            if contact.streamed >= BLOCKED_PROBES:
                text = f"{member.name} answers gossip by TCP and not by UDP: open UDP port "
                found.append((FaultKind.UDP_BLOCKED, f"{text}{member.gossip_port} between nodes"))
            elif contact.missed >= ONE_WAY_PROBES and self._contacts.heard_within(
                node_id, 2.0 * ONE_WAY_PROBES * self._parameters.probe_period_s, now_s
            ):
                text = f"{member.name} is heard and does not answer: look for a filter or route "
                found.append((FaultKind.ONE_WAY_LINK, f"{text}that works in one direction"))
        if now_s - self._cloned_at_s < CLONE_S:
            text = "another daemon gossips with this node's id: one of the two has a copied data "
            found.append((FaultKind.CLONE, f"{text}folder; remove it there"))
        lateness_s = self._awareness.lateness_s(now_s)
        if lateness_s >= LATE_FAULT_S:
            text = f"the gossip loop ran {lateness_s:.1f} s late: the machine is starved of CPU"
            found.append((FaultKind.DAEMON_LATE, text))
        return tuple(found)

    def is_spreading(self, name: str) -> bool:
        """Return whether a fact of this node is still being told for the first time.

        An empty name asks about the node's own state: its leaving.
        """
        if not name:
            return self._out.queue.has(self._identity.node_id)
        key = self._own_facts.key(name)
        return any(self._out.queue.has((key, index)) for index in range(SPREAD_PIECES_MAX))

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how large each part of the state is, and how large it may become."""
        timers_max = 8 + 4 * MEMBERS_KNOWN_MAX + PROBES_MAX + RELAYS_MAX
        return {
            **self._roster.sizes(),
            **self._probing.sizes(),
            "contacts": (len(self._contacts), MEMBERS_KNOWN_MAX),
            "evidence": (len(self._evidence), MEMBERS_KNOWN_MAX),
            "suspicions": (self._judge.suspects, MEMBERS_KNOWN_MAX),
            "timers": (len(self._out.timers), timers_max),
            "news": (len(self._out.queue), ITEMS_MAX),
            "pieces": (len(self._pieces), ASSEMBLIES_MAX),
        }

    def counted(self) -> dict[str, int]:
        """Return what was counted since the start, by name."""
        return {**dataclasses.asdict(self.counts), "late": self._awareness.late}

    def _take_effects(self, now_s: float) -> list[Effect]:
        has_news = self._roster.present and len(self._out.queue)
        if has_news and not self._out.timers.is_armed_for(SPREAD, ""):
            at_s = max(now_s + FIRST_SPREAD_S, self._spread_at_s + self._parameters.gossip_period_s)
            self._out.arm(SPREAD, "", at_s)
        for node_id in self._roster.take_forgotten():
            self._contacts.forget(node_id)
            self._evidence.forget(node_id)
        out, is_member_changed = self._out.take()
        keys = self._store.take_changed_keys()
        if keys or is_member_changed:
            out.append(ViewChanged(self._store.sequence, keys))
        return out

    # ---- timers and time

    def _on_timer(self, event: TimerFired, now_s: float) -> None:
        due_s = self._out.timers.take(event)
        kind, about = event.key.kind, event.key.node_id
        if due_s is None or (self._is_leaving and kind != SPREAD):
            return
        self._note_lateness(max(event.lateness_s, now_s - due_s), now_s)
        if kind == PROBE:
            self._probing.on_period(now_s)
        elif kind == ASK:
            self._probing.on_ask(NodeId(about), now_s)
        elif kind == VERDICT:
            self._probing.on_verdict(NodeId(about), now_s)
        elif kind == NACK:
            self._probing.on_nack_due(about)
        elif kind == SUSPICION:
            self._judge.on_end(NodeId(about), now_s)
        elif kind == VERIFY:
            self._judge.on_verify(NodeId(about), now_s)
        elif kind == SPREAD:
            self._on_spread(now_s)
        elif kind == PULL:
            self._syncing.on_pull_timeout()
        elif kind == JOIN:
            self._on_join(now_s)
        elif kind == HEAL:
            self._on_heal(now_s)

    def _note_lateness(self, lateness_s: float, now_s: float) -> None:
        """Take how late this node ran; after a standstill nobody is judged by what it missed."""
        if self._awareness.note_lateness(lateness_s, now_s) and lateness_s > JUMP_S:
            self._probing.drop_all()
            self._probing.begin(now_s, self._parameters.probe_period_s * self._rng.random())
            self._judge.forgive(now_s)

    def _on_spread(self, now_s: float) -> None:
        self._spread_at_s = now_s
        backlog = 1 + len(self._out.queue) // BACKLOG_ITEMS
        fanout = self._parameters.gossip_fanout
        for member in self._roster.to_tell(self._identity.node_id, fanout):
            for _ in range(min(backlog, SPREAD_DATAGRAMS_MAX)):
                if len(self._out.queue) > 0:
                    self._out.send_to_member(member, Gossip())

    def _on_join(self, now_s: float) -> None:
        """Ask some seeds; others after a while, unless one has answered by then."""
        seeds = self._seeds
        start = self._rng.randrange(len(seeds)) if len(seeds) > SEEDS_ASKED else 0
        for seed in (seeds[start:] + seeds[:start])[:SEEDS_ASKED]:
            self._out.send(seed, Ping(self._out.next_sequence(), None))
        if seeds:
            self._out.arm(JOIN, "", now_s + self._parameters.join_period_s)

    def _on_heal(self, now_s: float) -> None:
        """Look for who may have come back, and forget what is old."""
        self._out.arm(HEAL, "", now_s + self._parameters.heal_period_s)
        dead = self._roster.random_dead()
        if dead is not None:
            ping = Ping(self._out.next_sequence(), dead.node_id)
            self._out.send_to_member(dead, ping)
            if self._judge.witnesses(dead.node_id)[1]:
                data = self._out.compose_to_member(dead, ping)
                deadline_s = self._parameters.reach_timeout_s
                self._out.add(ProbeReach(dead.node_id, address_of(dead), deadline_s, data))
        if self._seeds and not self._out.timers.is_armed_for(JOIN, ""):
            seed = self._seeds[self._rng.randrange(len(self._seeds))]
            if not self._roster.is_address_present(seed):
                self._out.send(seed, Ping(self._out.next_sequence(), None))
        self._store.drop_tombstones(now_s - self._parameters.tombstone_keep_s)
        self._roster.forget_gone(now_s - self._parameters.gone_keep_s)

    # ---- what arrives

    def _on_data(self, data: bytes, source: Address, stream_id: int, now_s: float) -> None:
        """Take a datagram (stream id 0) or a message of a stream."""
        datagram = decode(data) if stream_id == 0 else decode_streamed(data)
        if isinstance(datagram, Malformed):
            self.counts.junk += 1
        elif datagram.cluster_tag != self._out.tag:
            self.counts.foreign += 1
        elif datagram.sender.node_id == self._identity.node_id:
            self.counts.own += 1
            if datagram.sender.life != self._identity.life:
                self._cloned_at_s = now_s
        elif not self._is_leaving:
            self._on_good(datagram, source, stream_id, now_s)

    def _on_good(self, datagram: Datagram, source: Address, stream_id: int, now_s: float) -> None:
        before = self._store.member(datagram.sender.node_id)
        was_here = before is not None and is_here(before)
        sender = self._hear(datagram.sender, before, now_s)
        if sender is None:
            self.counts.stale += 1
            return
        for item in datagram.items:
            if isinstance(item, Rumour):
                self._judge.believe(item, now_s)
            else:
                self._on_piece(item, now_s)
        if stream_id:
            self._on_stream_message(datagram, sender, source, stream_id, now_s)
            return
        self._on_message(datagram, sender, source, now_s)
        if isinstance(datagram.message, Ping | Ack):
            self._syncing.compare(datagram.digest, source, now_s, is_back=not was_here)
        member = self._store.member(sender.node_id)
        if member is not None and member.state not in (MemberState.ALIVE, MemberState.LEFT):
            self._out.send(source, Gossip(), (encode_rumour(rumour_of(member)),))
            self._judge.heard_stalled(member, now_s)

    def _hear(self, sender: Sender, known: Member | None, now_s: float) -> Member | None:
        """Take what a datagram says by merely being there; None: its sender does not count."""
        if known is not None and sender.life < known.life:
            return None
        is_news = known is None or (sender.life, sender.incarnation) > (
            known.life,
            known.incarnation,
        )
        if is_news:
            self._judge.believe(
                Rumour(
                    sender.node_id,
                    sender.life,
                    sender.incarnation,
                    MemberState.ALIVE,
                    sender.name,
                    sender.address,
                ),
                now_s,
                is_direct=True,
            )
        member = self._store.member(sender.node_id)
        if member is None:
            return None
        self._contacts.of(sender.node_id).last_s = now_s
        shown_s = member.last_contact_at_s
        if shown_s is None or now_s - shown_s >= CONTACT_SHOWN_S:
            self._store.put_member(dataclasses.replace(member, last_contact_at_s=now_s))
        return member

    def _on_message(
        self, datagram: Datagram, sender: Member, source: Address, now_s: float
    ) -> None:
        message = datagram.message
        match message:
            case Ping():
                if message.target in (None, self._identity.node_id):
                    self._out.send(source, Ack(message.sequence))
                else:
                    self._out.send(source, NotMe(message.sequence))
            case Ack():
                self._on_seed_answered(source, now_s)
                self._probing.on_ack(message, sender, now_s, is_streamed=False)
            case PingRequest():
                self._probing.on_request(message, source, now_s)
            case Nack():
                self._probing.on_nack(message)
            case NotMe():
                self._probing.on_not_me(message, source)
            case Verify():
                self._judge.asked_to_verify(message, sender.node_id, now_s)
            case Behind():
                self._syncing.pull(source, now_s)
            case SyncBuckets() | SyncMembers() | SyncFacts():
                self._syncing.on_message(message, source)
            case Gossip() | Pull() | PullAnswer():
                pass  # items were all; the others come on streams only

    def _on_stream_message(
        self, datagram: Datagram, sender: Member, source: Address, stream_id: int, now_s: float
    ) -> None:
        message = datagram.message
        if stream_id < 0 and isinstance(message, Pull):
            self._syncing.answer(stream_id, message)
        elif stream_id < 0 and isinstance(message, Ping):
            if message.target == self._identity.node_id:
                self._out.answer(stream_id, Ack(message.sequence))
        elif stream_id > 0 and isinstance(message, PullAnswer):
            self._syncing.on_answer(stream_id, message, now_s)

    def _on_seed_answered(self, source: Address, now_s: float) -> None:
        if source in self._seeds and self._out.timers.is_armed_for(JOIN, ""):
            self._out.timers.disarm_for(JOIN, "")
            self._syncing.pull(source, now_s)

    def _on_reach(self, event: ReachProbed, now_s: float) -> None:
        member = self._store.member(event.target)
        if member is None:
            return
        if event.reach is ReachKind.ANSWERED:
            self._on_reach_answer(event, now_s)
            return
        self._probing.found_reach(event.target, event.reach)
        self._judge.found_reach(member, event.reach, now_s)

    def _on_reach_answer(self, event: ReachProbed, now_s: float) -> None:
        """Take a target's own answer to a ping on a stream: it lives."""
        datagram = decode(event.data)
        if isinstance(datagram, Malformed) or datagram.cluster_tag != self._out.tag:
            self.counts.junk += 1
            return
        if datagram.sender.node_id != event.target:
            return
        sender = self._hear(datagram.sender, self._store.member(event.target), now_s)
        if sender is None or not isinstance(datagram.message, Ack):
            return
        self._probing.on_ack(datagram.message, sender, now_s, is_streamed=True)
        self._judge.found_reach(sender, ReachKind.ANSWERED, now_s)

    # ---- commands

    def _on_leave(self) -> None:
        if self._is_leaving:
            return
        me = self._out.me()
        left = dataclasses.replace(me, state=MemberState.LEFT)
        self._store.put_member(left)
        self._out.queue.put(left.node_id, encode_rumour(rumour_of(left)))
        self._out.add(MemberChanged(me, left))
        for member in self._roster.sample(FAREWELL_PEERS):
            self._out.send_to_member(member, Gossip())
        self._is_leaving = True

    def _on_remove(self, command: Remove, now_s: float) -> None:
        """End members for good: no life of theirs outranks the last one there can be."""
        for node_id in command.node_ids[:REMOVED_MAX]:
            rumour = Rumour(node_id, LIFE_MAX, 0, MemberState.LEFT)
            if node_id != self._identity.node_id:
                self._roster.expect(node_id)
                self._judge.believe(rumour, now_s, is_own=True)

    def _on_publish(self, command: PublishFact, now_s: float) -> None:
        written = self._own_facts.publish(command, now_s)
        if isinstance(written, FactRefused):
            self._out.add(written)
        elif written is not None:
            self._spread(written)

    # ---- facts

    def _spread(self, fact: Fact) -> None:
        """Let a fact ride along, if it is not large; what is larger is found by digests."""
        pieces = pieces_of(fact)
        if len(pieces) <= SPREAD_PIECES_MAX:
            for index, piece in enumerate(pieces):
                self._out.queue.put((fact.key, index), piece)

    def _on_piece(self, piece: FactPiece, now_s: float) -> None:
        known = self._store.facts_of(piece.key.node_id)
        old = known.facts.get(piece.key.name)
        if old is not None and old.version >= piece.version:
            if old.version == piece.version:
                self._out.queue.heard((piece.key, piece.index))
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

    # ---- inside

    def _is_cut_off(self) -> bool:
        """Return whether this node cannot reach most of those that it knew."""
        known = away = 0
        for node_id in self._store:
            member = self._store.member(node_id)
            if member is None or member.state is MemberState.LEFT:
                continue
            if node_id != self._identity.node_id:
                known += 1
                away += member.state is not MemberState.ALIVE
        return known > 1 and 2 * away > known
