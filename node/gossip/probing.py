"""Who is probed when, and did it answer? SWIM's probes, direct and through helpers.

Each period one member is pinged, everybody once a round in an order drawn anew. Without an answer
within its usual time it is pinged again, a few helpers ping it, and its kernel is asked (a TCP
connect). What comes back through helpers ends a probe and is never evidence; if nothing comes back
at all, the judge hears of it. While several members are suspect, several are probed at a time.

A member that helpers reach and this node does not is alive, and may be cut off from most: its
witnesses probe it in each period, and what they find after `DOUBTED_PROBES` in a row is evidence.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from dray.model import Member, MemberState, ReachKind
from dray.names import NodeId
from node.gossip.awareness import Awareness
from node.gossip.contacts import Contacts
from node.gossip.core import Address, EvidenceChanged, ProbeReach
from node.gossip.counts import Counts
from node.gossip.evidence import Evidence
from node.gossip.facts import FactStore
from node.gossip.judge import Judge
from node.gossip.members import rumour_of
from node.gossip.messages import Ack, Nack, NotMe, Ping, PingRequest
from node.gossip.outbox import Outbox, address_of
from node.gossip.roster import Roster

__all__ = ["ASK", "NACK", "PROBE", "VERDICT", "Probing"]

PROBE: Final = "probe"
ASK: Final = "ask"
VERDICT: Final = "verdict"
NACK: Final = "nack"
RELAYS_MAX: Final = 256  # pings on behalf of others that are unanswered; the oldest is given up
PROBES_MAX: Final = 64  # under way at one time
DOUBTED_PROBES: Final = 3  # a quarter of the datagrams may be lost: 8 % of the probes, each
NACK_SHARE: Final = 1.2  # of the asker's least timeout: in time for its verdict


@dataclass(slots=True)
class _Probe:
    """A probe under way."""

    sequence: int
    life: int
    sent_at_s: float
    timeout_s: float
    asked: int = 0
    nacks: int = 0
    is_vouched: bool = False
    reach: ReachKind | None = None


@dataclass(frozen=True, slots=True)
class _Relay:
    """A ping sent on behalf of somebody."""

    asker: Address
    sequence: int
    target: NodeId


class Probing:
    """The probes of one core, and those that it makes for others."""

    def __init__(
        self,
        out: Outbox,
        store: FactStore,
        roster: Roster,
        contacts: Contacts,
        evidence: Evidence,
        awareness: Awareness,
        judge: Judge,
        counts: Counts,
    ) -> None:
        self._out = out
        self._parameters = out.parameters
        self._store = store
        self._roster = roster
        self._contacts = contacts
        self._evidence = evidence
        self._awareness = awareness
        self._judge = judge
        self._counts = counts
        self._probes: dict[NodeId, _Probe] = {}
        self._relays: dict[int, _Relay] = {}  # oldest first
        self._doubted: set[NodeId] = set()  # reached through helpers only
        self.next_at_s = 0.0  # when the next period begins

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how large each part is, and how large it may become."""
        return {
            "probes": (len(self._probes), PROBES_MAX),
            "relays": (len(self._relays), RELAYS_MAX),
            "doubted": (len(self._doubted), PROBES_MAX),
        }

    # ---- own probes

    def begin(self, now_s: float, delay_s: float) -> None:
        """Arm the first period."""
        self.next_at_s = now_s + delay_s
        self._out.arm(PROBE, "", self.next_at_s)

    def on_period(self, now_s: float) -> None:
        """Probe whose turn it is."""
        self.begin(now_s, self._parameters.probe_period_s)
        # Where one has died others may have, too.
        count = min(1 + self._judge.suspects, self._parameters.parallel_probes)
        for _ in range(count):
            member = self._roster.next_target()
            if member is not None and member.node_id not in self._probes:
                self._probe(member, now_s)
        for node_id in sorted(self._doubted):
            doubted = self._store.member(node_id)
            if doubted is None or doubted.state is not MemberState.ALIVE:
                self._doubted.discard(node_id)
            elif node_id not in self._probes:
                self._probe(doubted, now_s)

    def _probe(self, member: Member, now_s: float) -> None:
        if len(self._probes) >= PROBES_MAX:
            return
        parameters = self._parameters
        timeout_s = self._contacts.timeout_s(
            member.node_id, parameters.probe_timeout_min_s, parameters.probe_timeout_max_s
        )
        timeout_s *= self._awareness.scale
        probe = _Probe(self._out.next_sequence(), member.life, now_s, timeout_s)
        self._probes[member.node_id] = probe
        self._counts.probes += 1
        self._out.send_to_member(member, Ping(probe.sequence, member.node_id))
        self._out.arm(ASK, member.node_id, now_s + timeout_s)

    def on_ask(self, node_id: NodeId, now_s: float) -> None:
        """Ask again, ask others and ask its kernel: it has not answered in its usual time."""
        probe = self._probes.get(node_id)
        member = self._store.member(node_id)
        if probe is None or member is None:
            self._probes.pop(node_id, None)
            return
        parameters = self._parameters
        ping = Ping(probe.sequence, node_id)
        self._out.send_to_member(member, ping)
        where = address_of(member)
        for helper in self._roster.sample(parameters.helpers, but=node_id):
            probe.asked += helper.state is MemberState.ALIVE
            self._out.send_to_member(helper, PingRequest(probe.sequence, node_id, where))
        data = self._out.compose_to_member(member, ping)
        self._out.add(ProbeReach(node_id, where, parameters.reach_timeout_s, data))
        left_s = probe.timeout_s * (parameters.verdict_factor - 1)
        self._out.arm(VERDICT, node_id, now_s + left_s)

    def on_verdict(self, node_id: NodeId, now_s: float) -> None:
        """End a probe that was not answered directly, once this node may judge."""
        if node_id in self._probes and not self._awareness.may_judge(now_s):
            wait_s = self._awareness.judge_again_in_s(now_s) + self._parameters.last_chance_gap_s
            self._out.arm(VERDICT, node_id, now_s + wait_s)
            return
        probe = self._probes.pop(node_id, None)
        member = self._store.member(node_id)
        if probe is None or member is None or member.life != probe.life:
            return
        contact = self._contacts.of(node_id)
        contact.missed += 1
        if probe.is_vouched:
            if not contact.streamed and probe.reach in (None, ReachKind.SILENT):
                self._doubt(member, contact.missed, now_s)
            return
        self._counts.unanswered += 1
        if not probe.nacks:  # one helper's word is enough: what this node sends and hears arrives
            self._awareness.add(probe.asked)
        self._judge.accuse(member, probe.reach, now_s)

    def _doubt(self, member: Member, missed: int, now_s: float) -> None:
        """Look closer at a member that others reach and this node does not, if it is a witness."""
        _, is_witness = self._judge.witnesses(member.node_id)
        if not is_witness:
            self._doubted.discard(member.node_id)
        elif member.node_id in self._doubted or len(self._doubted) < PROBES_MAX:
            self._doubted.add(member.node_id)
            if missed >= DOUBTED_PROBES:
                self._judge.note(member, ReachKind.SILENT, now_s)

    def drop_all(self) -> None:
        """Forget every probe: this node stood still, and may have missed the answers."""
        for node_id in self._probes:
            self._out.timers.disarm_for(ASK, node_id)
            self._out.timers.disarm_for(VERDICT, node_id)
        self._probes.clear()

    # ---- answers

    def on_ack(self, ack: Ack, sender: Member, now_s: float, *, is_streamed: bool) -> None:
        """Take an answer: to a probe, through a helper, or to be passed on."""
        if ack.about is not None:
            self._on_vouched(ack, ack.about, now_s)
            return
        probe = self._probes.get(sender.node_id)
        if probe is None or probe.sequence != ack.sequence:
            if not is_streamed:
                self._pass_on(ack, sender)
            return
        contact = self._contacts.of(sender.node_id)
        if is_streamed:  # it lives; that datagrams do not arrive is another matter
            contact.streamed += 1
            probe.is_vouched = True
            return
        del self._probes[sender.node_id]
        self._doubted.discard(sender.node_id)
        self._out.timers.disarm_for(ASK, sender.node_id)
        self._out.timers.disarm_for(VERDICT, sender.node_id)
        self._contacts.note_answer(sender.node_id, now_s - probe.sent_at_s, now_s)
        self._awareness.add(-1)
        if self._evidence.note(sender.node_id, sender.life, ReachKind.ANSWERED, now_s):
            self._out.add(EvidenceChanged(self._evidence.number))
        known = self._store.member(sender.node_id)
        assert known is not None, "who has just been heard is a member"
        self._store.put_member(
            dataclasses.replace(
                known, seen=ReachKind.ANSWERED, seen_at_s=now_s, rtt_s=contact.rtt_s
            )
        )

    def on_nack(self, nack: Nack) -> None:
        """Take a helper's word that it lives."""
        for probe in self._probes.values():
            if probe.sequence == nack.sequence:
                probe.nacks += 1

    def on_not_me(self, message: NotMe, source: Address) -> None:
        """Take it that the address of a target has another owner: the target is gone."""
        for node_id, probe in self._probes.items():
            member = self._store.member(node_id)
            is_meant = probe.sequence == message.sequence
            if is_meant and member is not None and address_of(member) == source:
                probe.reach = ReachKind.REFUSED

    def found_reach(self, node_id: NodeId, reach: ReachKind) -> None:
        """Take what the kernel of a target answered."""
        probe = self._probes.get(node_id)
        if probe is not None and reach is not ReachKind.ANSWERED:
            probe.reach = reach

    def _on_vouched(self, ack: Ack, about: NodeId, now_s: float) -> None:
        self._judge.vouched(about, ack.life, now_s)
        probe = self._probes.get(about)
        known = self._store.member(about)
        if probe is None or probe.sequence != ack.sequence or known is None:
            return
        probe.is_vouched = True
        probe.nacks = probe.asked
        if (ack.life, ack.incarnation) > (known.life, known.incarnation):
            rumour = rumour_of(dataclasses.replace(known, state=MemberState.ALIVE))
            rumour = dataclasses.replace(rumour, life=ack.life, incarnation=ack.incarnation)
            self._judge.believe(rumour, now_s)

    # ---- for others

    def on_request(self, request: PingRequest, source: Address, now_s: float) -> None:
        """Ping somebody for a peer."""
        if len(self._relays) >= RELAYS_MAX:
            oldest = next(iter(self._relays))
            del self._relays[oldest]
            self._out.timers.disarm_for(NACK, str(oldest))
        sequence = self._out.next_sequence()
        self._relays[sequence] = _Relay(source, request.sequence, request.target)
        self._out.send(request.address, Ping(sequence, request.target))
        wait_s = NACK_SHARE * self._parameters.probe_timeout_min_s
        self._out.arm(NACK, str(sequence), now_s + wait_s)

    def on_nack_due(self, key: str) -> None:
        """Tell who asked that we live, and the target has not answered us."""
        relay = self._relays.get(int(key))
        if relay is not None:
            self._out.send(relay.asker, Nack(relay.sequence))

    def _pass_on(self, ack: Ack, sender: Member) -> None:
        relay = self._relays.get(ack.sequence)
        if relay is None or relay.target != sender.node_id:
            return
        del self._relays[ack.sequence]
        self._out.timers.disarm_for(NACK, str(ack.sequence))
        answer = Ack(relay.sequence, sender.node_id, sender.life, sender.incarnation)
        self._out.send(relay.asker, answer)
