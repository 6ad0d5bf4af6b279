"""What is every other member held to be? Rumours in, suspicions, and what ends them.

A suspicion has an accuser whose own probes failed. The *witnesses* of a member (the next members of
the ring of ids that are alive) are told at once and look for themselves; each that finds nothing
becomes an accuser too, and shortens the time that the suspect has to refute. Only witnesses use
that short time. Before a verdict the suspect gets a last chance, and direct word from it outranks
what anybody says. The verdict is STALLED when any accuser's kernel probe was accepted (the machine
lives, the daemon does not move), else DEAD.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Final

from dray.model import Member, MemberState, ReachKind
from dray.names import NodeId
from node.gossip.awareness import Awareness
from node.gossip.contacts import Contacts
from node.gossip.core import EvidenceChanged, MemberChanged, ProbeReach
from node.gossip.counts import Counts
from node.gossip.datagrams import encode_rumour
from node.gossip.evidence import Evidence
from node.gossip.facts import FactStore
from node.gossip.members import (
    INCARNATION_MAX,
    Rumour,
    announced,
    is_daemon_down,
    is_here,
    precedence,
    rumour_of,
)
from node.gossip.messages import Ack, Gossip, Ping, Verify
from node.gossip.outbox import Outbox, address_of
from node.gossip.parameters import suspicion_timeout_s
from node.gossip.roster import Change, Roster

__all__ = ["SUSPICION", "VERIFY", "Judge"]

SUSPICION: Final = "suspicion"
VERIFY: Final = "verify"
ACCUSERS_MAX: Final = 16  # counted of one suspicion
REACH_TOLD_S: Final = 2.5  # so long it is what a probe without any answer has found
REACH_KEPT_S: Final = 1.0  # a kernel's answer older than this is asked for again
SILENT_CHECKS: Final = 2  # of a stalled member's kernel, after which it counts as gone
VOUCH_S: Final = 4.0  # a witness tells the others this often that a stalled member still speaks
# Who is no witness of a stalled member hears little of it: it waits so much longer with a verdict.
STALLED_SHARE: Final = 4.0


@dataclass(slots=True)
class Suspicion:
    """One suspicion of one (life, incarnation) of a member.

    Attributes:
        life: See above.
        incarnation: See above.
        since_s: When it began, or began anew.
        is_witness: Whether this node is to look for itself, and may use the short time.
        needed: How many must agree for the shortest time.
        chances_left: Pings left before the verdict.
        accusers: Who accuses first hand, and what its kernel probe found.
        reach: What this node's own kernel probe found.
        reach_at_s: When.
        verify_left: Pings left of this node's own look; None: it does not look now.
        verify_since_s: When that look began.
        silent_checks: Of a stalled member, one after another.
        word_at_s: When a stalled member last said anything, to this node or another witness.
        vouched_at_s: When this node last told the other witnesses that it did.
    """

    life: int
    incarnation: int
    since_s: float
    is_witness: bool
    needed: int
    chances_left: int
    accusers: dict[NodeId, ReachKind | None] = field(default_factory=dict)
    reach: ReachKind | None = None
    reach_at_s: float = float("-inf")
    verify_left: int | None = None
    verify_since_s: float = 0.0
    silent_checks: int = 0
    word_at_s: float = float("-inf")
    vouched_at_s: float = float("-inf")

    def reaches(self) -> set[ReachKind | None]:
        """Return everything that kernel probes found."""
        return {*self.accusers.values(), self.reach}


class Judge:
    """Holds the suspicions of one core. Called with rumours, timers and what probes found."""

    def __init__(
        self,
        out: Outbox,
        store: FactStore,
        roster: Roster,
        contacts: Contacts,
        evidence: Evidence,
        awareness: Awareness,
        counts: Counts,
    ) -> None:
        self._out = out
        self._parameters = out.parameters
        self._me = out.identity.node_id
        self._store = store
        self._roster = roster
        self._contacts = contacts
        self._evidence = evidence
        self._awareness = awareness
        self._counts = counts
        self._suspicions: dict[NodeId, Suspicion] = {}

    @property
    def suspects(self) -> int:
        """How many members are suspect or stalled."""
        return len(self._suspicions)

    # ---- rumours

    def believe(
        self, rumour: Rumour, now_s: float, *, is_direct: bool = False, is_own: bool = False
    ) -> None:
        """Take a rumour if it is news.

        Args:
            rumour: What is said.
            now_s: Now.
            is_direct: The member said so itself.
            is_own: This node concluded it.
        """
        if rumour.node_id == self._me:
            self._refute(rumour)
            return
        if not is_own and self._is_doubtful(rumour, now_s):
            rumour = dataclasses.replace(rumour, state=MemberState.SUSPECT)
        change = self._roster.believe(rumour, now_s, is_direct=is_direct)
        if change is None:
            known = self._store.member(rumour.node_id)
            if known is not None and precedence(known) == precedence(rumour):
                self._out.queue.heard(rumour.node_id)
            if rumour.state is MemberState.SUSPECT and rumour.accuser is not None:
                self._confirm(rumour, rumour.accuser, now_s)
            return
        self._out.queue.put(rumour.node_id, encode_rumour(rumour))
        self._follow(change, rumour, now_s)
        if change.before is None or announced(change.before) != announced(change.after):
            self._out.add(MemberChanged(change.before, change.after))

    def witnesses(self, node_id: NodeId) -> tuple[list[Member], bool]:
        """Return the other witnesses of a member, and whether this node is one."""
        chosen: list[Member] = []
        for candidate in self._roster.present_from(node_id):
            member = self._store.member(candidate)
            if member is not None and member.state is MemberState.ALIVE:
                chosen.append(member)
                if len(chosen) == self._parameters.witnesses:
                    break
        if len(chosen) < self._parameters.witnesses:
            return chosen, True
        last = chosen[-1].node_id
        is_one = (self._me < node_id, self._me) < (last < node_id, last)
        return (chosen[:-1] if is_one else chosen), is_one

    def watched(self) -> set[NodeId]:
        """Return those present of whom this node is a witness."""
        found: set[NodeId] = set()
        between = 0
        for node_id in self._roster.present_before(self._me):
            found.add(node_id)
            member = self._store.member(node_id)
            between += member is not None and member.state is MemberState.ALIVE
            if between == self._parameters.witnesses:
                break
        return found

    def _is_doubtful(self, rumour: Rumour, now_s: float) -> bool:
        """Return whether a death is only to be looked into.

        It is hearsay about somebody whom this node has just heard; or nobody vouches for it (it
        comes from a sync, perhaps with what was cut off) and nobody accuses the member here.
        """
        if rumour.state is not MemberState.DEAD:
            return False
        suspicion = self._suspicions.get(rumour.node_id)
        if rumour.accuser is None and (suspicion is None or not suspicion.accusers):
            return True
        return self._contacts.heard_within(rumour.node_id, self._parameters.contact_s, now_s)

    def _follow(self, change: Change, rumour: Rumour, now_s: float) -> None:
        """Do what a change of state asks for."""
        before, after = change.before, change.after
        if before is not None and before.life < after.life:
            self._contacts.forget(after.node_id)
        elif before is not None and before.state is MemberState.DEAD and is_here(after):
            self._counts.false_alarms += 1
        if after.state is MemberState.SUSPECT:
            self._begin(after, rumour, now_s)
        elif after.state is MemberState.STALLED:
            self._begin_stall(after, now_s)
        else:
            self._end(after.node_id)

    def _refute(self, rumour: Rumour) -> None:
        """Contradict what is said of this node, with an incarnation above it."""
        me = self._out.me()
        is_old = (rumour.life, rumour.incarnation) < (me.life, me.incarnation)
        if is_old or precedence(rumour) == precedence(me) or me.state is MemberState.LEFT:
            return
        if rumour.life > me.life or rumour.incarnation >= INCARNATION_MAX:
            # Another daemon with this id, a removal, or a lie: no word of ours outranks it.
            self._counts.own += 1
            return
        self._counts.refutations += 1
        self._awareness.add(1)
        me = dataclasses.replace(me, incarnation=rumour.incarnation + 1)
        self._store.put_member(me)
        self._out.queue.put(me.node_id, encode_rumour(rumour_of(me)))

    # ---- suspicions

    def accuse(self, member: Member, reach: ReachKind | None, now_s: float) -> None:
        """Take it that this node's own probe of a member failed in every way."""
        suspicion = self._suspicions.get(member.node_id)
        found = reach
        if found is None and suspicion is not None and now_s - suspicion.reach_at_s < REACH_TOLD_S:
            found = suspicion.reach  # its kernel has been asked, and answers later than a verdict
        self.note(member, found or ReachKind.SILENT, now_s)
        if member.state is MemberState.ALIVE:
            self._counts.suspicions += 1
            rumour = self._accusation(member, MemberState.SUSPECT, reach)
            self.believe(rumour, now_s, is_own=True)
            others, _ = self.witnesses(member.node_id)
            message = Verify(member.node_id, member.life, member.incarnation)
            for witness in others:
                self._out.send_to_member(witness, message, (encode_rumour(rumour),))
        elif member.state is MemberState.SUSPECT and suspicion is not None:
            self._agree(suspicion, member, reach, now_s)

    def asked_to_verify(self, message: Verify, accuser: NodeId, now_s: float) -> None:
        """Take a request to look at a suspect."""
        member = self._store.member(message.target)
        if member is None or message.target == self._me:
            return
        if (message.life, message.incarnation) != (member.life, member.incarnation):
            return
        if member.state is MemberState.ALIVE:
            rumour = self._accusation(member, MemberState.SUSPECT, None)
            self.believe(dataclasses.replace(rumour, accuser=accuser), now_s)
        suspicion = self._suspicions.get(message.target)
        member = self._store.member(message.target)
        if suspicion is None or member is None or member.state is not MemberState.SUSPECT:
            return
        if not suspicion.is_witness:
            suspicion.is_witness = True
            self._arm_end(message.target, suspicion, now_s)
        if suspicion.verify_left is None and self._me not in suspicion.accusers:
            self._verify(suspicion, member, now_s)

    def _begin(self, member: Member, rumour: Rumour, now_s: float) -> None:
        others, is_witness = self.witnesses(member.node_id)
        accuser = rumour.accuser
        is_counted = accuser == self._me or any(one.node_id == accuser for one in others)
        agreeing = len(others) + is_witness - is_counted
        suspicion = Suspicion(
            member.life,
            member.incarnation,
            now_s,
            is_witness,
            min(self._parameters.confirmations, agreeing),
            self._parameters.last_chances,
        )
        if accuser is not None:
            suspicion.accusers[accuser] = rumour.reach
        self._suspicions[member.node_id] = suspicion
        self._arm_end(member.node_id, suspicion, now_s)
        if is_witness and accuser != self._me:
            self._verify(suspicion, member, now_s)

    def _confirm(self, rumour: Rumour, accuser: NodeId, now_s: float) -> None:
        """Count one more accuser of a suspicion that is known."""
        suspicion = self._suspicions.get(rumour.node_id)
        member = self._store.member(rumour.node_id)
        if suspicion is None or member is None or member.state is not MemberState.SUSPECT:
            return
        if (rumour.life, rumour.incarnation) != (suspicion.life, suspicion.incarnation):
            return
        is_known = accuser in suspicion.accusers
        if is_known and rumour.reach in (None, suspicion.accusers[accuser]):
            return
        if not is_known and len(suspicion.accusers) >= ACCUSERS_MAX:
            return
        suspicion.accusers[accuser] = rumour.reach
        if len(suspicion.accusers) <= self._parameters.confirmations + 1:
            self._out.queue.put((rumour.node_id, accuser), encode_rumour(rumour))
        self._arm_end(rumour.node_id, suspicion, now_s)

    def _agree(
        self, suspicion: Suspicion, member: Member, reach: ReachKind | None, now_s: float
    ) -> None:
        """Become one more accuser, and tell those who count."""
        accusers = suspicion.accusers
        if self._me in accusers and reach in (None, accusers[self._me]):
            return
        suspicion.accusers[self._me] = reach
        item = encode_rumour(self._accusation(member, MemberState.SUSPECT, reach))
        self._out.queue.put((member.node_id, self._me), item)
        others, _ = self.witnesses(member.node_id)
        for witness in others:
            self._out.send_to_member(witness, Gossip(), (item,))
        self._arm_end(member.node_id, suspicion, now_s)

    def _arm_end(self, node_id: NodeId, suspicion: Suspicion, now_s: float) -> None:
        """Arm the end of a suspicion by who agrees so far."""
        parameters = self._parameters
        timeout_s = parameters.suspicion_s * parameters.suspicion_factor
        if suspicion.is_witness:
            confirmed = max(0, len(suspicion.accusers) - 1)
            timeout_s = suspicion_timeout_s(parameters, confirmed, suspicion.needed)
            refused = list(suspicion.accusers.values()).count(ReachKind.REFUSED)
            if refused >= 2:  # a single one may be a restart
                timeout_s = min(timeout_s, parameters.refused_s)
                suspicion.chances_left = min(suspicion.chances_left, 1)
        self._out.arm(SUSPICION, node_id, max(now_s, suspicion.since_s + timeout_s))

    def _end(self, node_id: NodeId) -> None:
        if self._suspicions.pop(node_id, None) is not None:
            self._out.timers.disarm_for(SUSPICION, node_id)
            self._out.timers.disarm_for(VERIFY, node_id)

    # ---- looking for oneself

    def _verify(self, suspicion: Suspicion, member: Member, now_s: float) -> None:
        suspicion.verify_left = self._parameters.verify_pings
        suspicion.verify_since_s = now_s
        self._probe_reach(member)
        self._verify_step(suspicion, member, now_s)

    def on_verify(self, node_id: NodeId, now_s: float) -> None:
        """Go on with a look at a suspect."""
        suspicion = self._suspicions.get(node_id)
        member = self._store.member(node_id)
        if suspicion is None or member is None or suspicion.verify_left is None:
            return
        contact = self._contacts.of(node_id)
        if contact.last_s is not None and contact.last_s >= suspicion.verify_since_s:
            suspicion.verify_left = None  # it lives, and will refute
            self.note(member, ReachKind.ANSWERED, now_s)
        elif not self._awareness.may_judge(now_s):
            self._verify(suspicion, member, now_s)
        elif suspicion.verify_left > 0:
            self._verify_step(suspicion, member, now_s)
        else:
            suspicion.verify_left = None
            self.note(member, suspicion.reach or ReachKind.SILENT, now_s)
            self._agree(suspicion, member, suspicion.reach, now_s)

    def _verify_step(self, suspicion: Suspicion, member: Member, now_s: float) -> None:
        assert suspicion.verify_left is not None, "a look has pings left"
        self._ping(member)
        suspicion.verify_left -= 1
        if suspicion.reach is ReachKind.REFUSED:  # then nobody is there to answer
            suspicion.verify_left = 0
        self._out.arm(VERIFY, member.node_id, now_s + self._parameters.verify_gap_s)

    def found_reach(self, member: Member, reach: ReachKind, now_s: float) -> None:
        """Take what a member's kernel answered."""
        suspicion = self._suspicions.get(member.node_id)
        if suspicion is None:
            if not is_here(member):
                self.note(member, reach, now_s)
            return
        suspicion.reach, suspicion.reach_at_s = reach, now_s
        if member.state is MemberState.STALLED:
            self.note(member, reach, now_s)
            if reach is ReachKind.ANSWERED:
                self.heard_stalled(member, now_s)
        elif self._me in suspicion.accusers:
            self.note(member, reach, now_s)
            self._agree(suspicion, member, reach, now_s)

    # ---- stalled members

    def heard_stalled(self, member: Member, now_s: float) -> None:
        """Take it that a stalled member has sent something: it moves, if slowly."""
        suspicion = self._suspicions.get(member.node_id)
        if suspicion is None or member.state is not MemberState.STALLED:
            return
        suspicion.word_at_s = now_s
        if suspicion.is_witness and now_s - suspicion.vouched_at_s >= VOUCH_S:
            suspicion.vouched_at_s = now_s
            others, _ = self.witnesses(member.node_id)
            for witness in others:
                word = Ack(0, member.node_id, member.life, member.incarnation)
                self._out.send_to_member(witness, word)

    def vouched(self, node_id: NodeId, life: int, now_s: float) -> None:
        """Take another node's word that a member has answered it: no evidence, and no death."""
        suspicion = self._suspicions.get(node_id)
        if suspicion is not None and suspicion.life == life:
            suspicion.word_at_s = now_s

    # ---- verdicts

    def on_end(self, node_id: NodeId, now_s: float) -> None:
        """Take it that a suspect's time is over, or that a stalled member is to be looked at."""
        suspicion = self._suspicions.get(node_id)
        member = self._store.member(node_id)
        if suspicion is None or member is None:
            return
        parameters = self._parameters
        if not self._awareness.may_judge(now_s):
            wait_s = self._awareness.judge_again_in_s(now_s) + parameters.last_chance_gap_s
            suspicion.chances_left = max(suspicion.chances_left, 1)
            self._out.arm(SUSPICION, node_id, now_s + wait_s)
        elif self._contacts.heard_within(node_id, parameters.contact_s, now_s):
            self._ping(member)
            suspicion.chances_left = parameters.last_chances
            self._out.arm(SUSPICION, node_id, now_s + parameters.contact_s / 2)
        elif member.state is MemberState.STALLED:
            self._check_stalled(suspicion, member, now_s)
        elif suspicion.chances_left > 0:
            suspicion.chances_left -= 1
            self._ping(member)
            if suspicion.reach is None or now_s - suspicion.reach_at_s > REACH_KEPT_S:
                self._probe_reach(member)
            self._out.arm(SUSPICION, node_id, now_s + parameters.last_chance_gap_s)
        else:
            self._declare(suspicion, member, now_s)

    def _declare(self, suspicion: Suspicion, member: Member, now_s: float) -> None:
        reaches = suspicion.reaches()
        if ReachKind.ACCEPTED in reaches and suspicion.reach is not ReachKind.REFUSED:
            self._counts.stalls += 1
            rumour = self._accusation(member, MemberState.STALLED, ReachKind.ACCEPTED)
        else:
            self._counts.deaths += 1
            is_refused = ReachKind.REFUSED in reaches
            reach = ReachKind.REFUSED if is_refused else ReachKind.SILENT
            rumour = self._accusation(member, MemberState.DEAD, reach)
        self.believe(rumour, now_s, is_own=True)

    def _begin_stall(self, member: Member, now_s: float) -> None:
        _, is_witness = self.witnesses(member.node_id)
        known = self._suspicions.get(member.node_id)
        is_witness |= known is not None and known.is_witness
        suspicion = Suspicion(member.life, member.incarnation, now_s, is_witness, 0, 0)
        if known is not None:
            suspicion.reach, suspicion.reach_at_s = known.reach, known.reach_at_s
        self._suspicions[member.node_id] = suspicion
        self._arm_stall(suspicion, member, now_s)

    def _arm_stall(self, suspicion: Suspicion, member: Member, now_s: float) -> None:
        parameters = self._parameters
        is_witness = suspicion.is_witness
        wait_s = parameters.stalled_check_s if is_witness else parameters.stalled_s
        self._out.arm(SUSPICION, member.node_id, now_s + wait_s)

    def _check_stalled(self, suspicion: Suspicion, member: Member, now_s: float) -> None:
        is_gone = suspicion.reach in (ReachKind.SILENT, ReachKind.REFUSED)
        suspicion.silent_checks = suspicion.silent_checks + 1 if is_gone else 0
        lasted_s = now_s - max(suspicion.since_s, suspicion.word_at_s)
        share = 1.0 if suspicion.is_witness else STALLED_SHARE
        longest_s = self._parameters.stalled_s * share
        if suspicion.silent_checks >= SILENT_CHECKS or lasted_s >= longest_s:
            self._counts.deaths += 1
            reach = suspicion.reach or ReachKind.ACCEPTED
            self.believe(self._accusation(member, MemberState.DEAD, reach), now_s, is_own=True)
            return
        self._ping(member)
        self._probe_reach(member)
        self._arm_stall(suspicion, member, now_s)

    def forgive(self, now_s: float) -> None:
        """Begin all suspicions anew: this node stood still, and missed what would have ended them.

        Who agrees still counts; the suspects get their time again.
        """
        for node_id, suspicion in sorted(self._suspicions.items()):
            suspicion.since_s = now_s
            suspicion.chances_left = self._parameters.last_chances
            suspicion.accusers.pop(self._me, None)
            member = self._store.member(node_id)
            assert member is not None, "only members are suspected"
            if member.state is MemberState.STALLED:
                self._arm_stall(suspicion, member, now_s)
                continue
            if suspicion.verify_left is not None or suspicion.is_witness:
                self._verify(suspicion, member, now_s)
            self._arm_end(node_id, suspicion, now_s)

    def note(self, member: Member, reach: ReachKind, now_s: float) -> None:
        """Write down what this node's own probes found of a member."""
        if self._evidence.note(member.node_id, member.life, reach, now_s):
            self._out.add(EvidenceChanged(self._evidence.number))
        known = self._store.member(member.node_id)
        if known is not None:
            after = dataclasses.replace(known, seen=reach, seen_at_s=now_s)
            self._store.put_member(after)
            if is_daemon_down(known) is not is_daemon_down(after):
                self._out.add(MemberChanged(known, after))

    # ---- inside

    def _ping(self, member: Member) -> None:
        self._out.send_to_member(member, Ping(self._out.next_sequence(), member.node_id))

    def _probe_reach(self, member: Member) -> None:
        ping = Ping(self._out.next_sequence(), member.node_id)
        data = self._out.compose_to_member(member, ping)
        deadline_s = self._parameters.reach_timeout_s
        self._out.add(ProbeReach(member.node_id, address_of(member), deadline_s, data))

    def _accusation(self, member: Member, state: MemberState, reach: ReachKind | None) -> Rumour:
        return Rumour(
            member.node_id,
            member.life,
            member.incarnation,
            state,
            accuser=self._me,
            reach=reach,
        )
