"""Do suspicions begin, agree, end and heal as the rules say? Driven by hand, without a network."""

from __future__ import annotations

import dataclasses

import pytest

from dray.model import FaultKind, MemberState, ReachKind
from dray.names import NodeId
from node.gossip.core import (
    Address,
    EvidenceChanged,
    MemberChanged,
    Remove,
    TimerKey,
    ViewChanged,
)
from node.gossip.datagrams import encode, encode_rumour
from node.gossip.members import Rumour
from node.gossip.messages import (
    Ack,
    Datagram,
    Gossip,
    NotMe,
    Ping,
    Sender,
    Verify,
    cluster_tag,
)
from tests.contract.facts.builders import node_id
from tests.unit.node.gossip.bench import (
    CLUSTER,
    ME,
    PARAMETERS,
    A,
    B,
    Bench,
    C,
    buried,
    probe_of,
    sender,
    suspected,
)


def accusation(by: Sender, about: Sender, reach: ReachKind | None = None) -> bytes:
    """Return the rumour by which a node accuses another."""
    rumour = Rumour(
        about.node_id, about.life, about.incarnation, MemberState.SUSPECT, accuser=by.node_id
    )
    return encode_rumour(dataclasses.replace(rumour, reach=reach))


def test_witnesses_are_told_at_once() -> None:
    """The first suspector asks the witnesses of the suspect to look, with the accusation."""
    bench = Bench()
    bench.hear(A, Gossip())
    probe_of(bench)
    for other in (B, C):
        bench.hear(other, Gossip())
    bench.fire("ask", A.node_id)
    sent = bench.fire("verdict", A.node_id)
    asked = {to: d for to, d in sent if isinstance(d.message, Verify)}
    assert set(asked) == {B.address, C.address}
    assert asked[B.address].message == Verify(A.node_id, A.life, A.incarnation)
    assert {r.accuser for r in asked[B.address].items if isinstance(r, Rumour)} == {ME.node_id}


def test_a_witness_looks_for_itself_and_agrees() -> None:
    """Asked to verify, it pings the suspect and asks its kernel; silence makes it agree."""
    bench = Bench()
    for other in (A, B, C):
        bench.hear(other, Gossip())
    bench.now_s += 3.0
    sent = bench.hear(B, Verify(A.node_id, A.life, A.incarnation))
    assert bench.state("a") is MemberState.SUSPECT
    pings = sum(to == A.address and isinstance(d.message, Ping) for to, d in sent)
    told: list[tuple[Address, Datagram]] = []
    while TimerKey("verify", A.node_id) in bench.timers:
        sent = bench.fire("verify", A.node_id)
        pings += sum(to == A.address and isinstance(d.message, Ping) for to, d in sent)
        told = sent
    assert pings == PARAMETERS.verify_pings
    assert {to for to, _ in told} == {B.address, C.address}
    assert [(e.target, e.reach) for e in bench.core.evidence(bench.now_s)] == [
        (A.node_id, ReachKind.SILENT)
    ]
    assert any(isinstance(effect, EvidenceChanged) for effect in bench.told)


def test_a_witness_that_is_answered_does_not_agree() -> None:
    """Whoever answers its witness is no suspect to it for longer than it takes to refute."""
    bench = Bench()
    for other in (A, B, C):
        bench.hear(other, Gossip())
    bench.now_s += 3.0
    bench.hear(B, Verify(A.node_id, A.life, A.incarnation))
    bench.hear(A, Gossip())
    bench.fire("verify", A.node_id)
    assert TimerKey("verify", A.node_id) not in bench.timers
    (found,) = bench.core.evidence(bench.now_s)
    assert (found.target, found.reach) == (A.node_id, ReachKind.ANSWERED)
    assert found.last_contact_s == pytest.approx(PARAMETERS.verify_gap_s)


def test_agreement_shortens_a_suspicion() -> None:
    """Each witness that agrees brings the end nearer, down to the shortest time."""
    bench = Bench()
    others = [sender(name, 10 + index) for index, name in enumerate("defgh")]
    for other in (A, *others):
        bench.hear(other, Gossip())
    bench.now_s += 3.0
    start_s = bench.now_s
    ends = []
    for other in others[:4]:
        bench.hear(other, Gossip(), accusation(other, A))
        ends.append(bench.timers[TimerKey("suspicion", A.node_id)].at_s - start_s)
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == pytest.approx(PARAMETERS.suspicion_s * PARAMETERS.suspicion_factor)
    assert ends[3] == pytest.approx(PARAMETERS.suspicion_s)
    bench.hear(others[0], Gossip(), accusation(others[0], A))
    assert bench.timers[TimerKey("suspicion", A.node_id)].at_s - start_s == ends[3]


def test_two_refusals_end_it_sooner() -> None:
    """Two kernels' word that nobody listens there ends it soon; a single one may be a restart."""
    bench = Bench()
    for other in (A, B, C):
        bench.hear(other, Gossip())
    bench.now_s += 3.0
    start_s = bench.now_s
    bench.hear(B, Gossip(), accusation(B, A, ReachKind.REFUSED))
    one_s = bench.timers[TimerKey("suspicion", A.node_id)].at_s - start_s
    bench.hear(C, Gossip(), accusation(C, A, ReachKind.REFUSED))
    two_s = bench.timers[TimerKey("suspicion", A.node_id)].at_s - start_s
    assert one_s > two_s == pytest.approx(PARAMETERS.refused_s)
    buried(bench)
    assert bench.member("a").heard_reach is ReachKind.REFUSED


def test_what_a_dead_members_kernel_says_is_told() -> None:
    """Readers are told when a dead member's machine answers without its daemon, and no more."""
    bench = Bench()
    suspected(bench)
    buried(bench)
    bench.told.clear()
    for reach in (ReachKind.REFUSED, ReachKind.REFUSED, ReachKind.SILENT):
        bench.reach("a", reach)
    changes = [effect for effect in bench.told if isinstance(effect, MemberChanged)]
    assert [(c.before.seen, c.after.seen) for c in changes if c.before is not None] == [
        (ReachKind.SILENT, ReachKind.REFUSED),
        (ReachKind.REFUSED, ReachKind.SILENT),
    ]
    assert sum(isinstance(effect, ViewChanged) for effect in bench.told) == 2


def test_an_accepted_connection_is_a_stall() -> None:
    """A suspect whose kernel accepts is STALLED, stays present, and is dead only much later."""
    bench = Bench()
    suspected(bench)
    bench.reach("a", ReachKind.ACCEPTED)
    buried(bench)
    assert bench.state("a") is MemberState.STALLED
    start_s = bench.now_s

    def is_dead() -> bool:
        bench.reach("a", ReachKind.ACCEPTED)
        return bench.state("a") is MemberState.DEAD

    bench.until("suspicion", A.node_id, is_dead)
    assert bench.now_s - start_s == pytest.approx(PARAMETERS.stalled_s, abs=1.0)


@pytest.mark.parametrize("by", ["itself", "another witness"])
def test_a_starved_member_that_still_speaks_is_not_buried(by: str) -> None:
    """A word now and then, though it never refutes, puts the death of a stalled member off."""
    bench = Bench()
    for other in (A, B, C):
        bench.hear(other, Gossip())
    probe_until_suspected(bench)
    bench.reach("a", ReachKind.ACCEPTED)
    buried(bench)
    start_s = bench.now_s
    heard_s = start_s
    told: list[NodeId] = []
    while bench.now_s < start_s + 3 * PARAMETERS.stalled_s:
        assert bench.state("a") is MemberState.STALLED
        if bench.now_s - heard_s > PARAMETERS.stalled_s - 3.0:
            heard_s = bench.now_s
            by_other = by == "another witness"
            sent = (
                bench.hear(B, Ack(0, A.node_id, A.life, 0))
                if by_other
                else bench.hear(A, Ack(9_999))
            )
            told += [
                d.message.about for _, d in sent if isinstance(d.message, Ack) and d.message.about
            ]
        bench.reach("a", ReachKind.ACCEPTED)
        bench.fire("suspicion", A.node_id)
    assert set(told) == (set() if by == "another witness" else {A.node_id}), "others are told"

    def is_dead() -> bool:
        bench.reach("a", ReachKind.ACCEPTED)
        return bench.state("a") is MemberState.DEAD

    bench.until("suspicion", A.node_id, is_dead)
    assert bench.now_s - heard_s == pytest.approx(PARAMETERS.stalled_s, abs=2.0)


def probe_until_suspected(bench: Bench) -> None:
    """Let the core probe its members, who answer but for a, until it suspects a."""
    for _ in range(20):
        (to, sent), *_ = bench.fire("probe")
        assert isinstance(sent.message, Ping)
        if to == A.address:
            bench.fire("ask", A.node_id)
            bench.fire("verdict", A.node_id)
            assert bench.state("a") is MemberState.SUSPECT
            return
        answering = B if to == B.address else C
        bench.hear(answering, Ack(sent.message.sequence))
    raise AssertionError("a was never probed")


def test_a_stalled_machine_that_is_gone_is_dead_soon() -> None:
    """Once the kernel of a stalled member is silent in two checks it is dead."""
    bench = Bench()
    suspected(bench)
    bench.reach("a", ReachKind.ACCEPTED)
    buried(bench)
    start_s = bench.now_s

    def is_dead() -> bool:
        bench.reach("a", ReachKind.SILENT)
        return bench.state("a") is MemberState.DEAD

    bench.until("suspicion", A.node_id, is_dead)
    assert bench.now_s - start_s <= 3 * PARAMETERS.stalled_check_s


def test_a_stalled_member_comes_back_with_a_word() -> None:
    """A stalled member that goes on is told what it is held to be, and is alive by refuting it."""
    bench = Bench()
    suspected(bench)
    bench.reach("a", ReachKind.ACCEPTED)
    buried(bench)
    told = [item for _, d in bench.hear(A, Gossip()) for item in d.items]
    assert MemberState.STALLED in {r.state for r in told if isinstance(r, Rumour)}
    bench.hear(sender("a", 2, incarnation=1), Gossip())
    assert bench.state("a") is MemberState.ALIVE


def test_direct_word_outranks_hearsay() -> None:
    """The death of somebody who has just been heard is taken for a suspicion."""
    bench = Bench()
    bench.hear(A, Gossip())
    bench.now_s += PARAMETERS.contact_s / 2
    death = Rumour(A.node_id, A.life, 0, MemberState.DEAD, accuser=C.node_id)
    bench.hear(B, Gossip(), encode_rumour(death))
    assert bench.state("a") is MemberState.SUSPECT
    bench.now_s += PARAMETERS.contact_s
    bench.hear(B, Gossip(), encode_rumour(death))
    assert bench.state("a") is MemberState.DEAD


def test_a_death_that_nobody_vouches_for_is_a_suspicion() -> None:
    """What a sync tells of the dead counts where the member is accused already, nowhere else."""
    bench = Bench()
    for other in (A, B, C):
        bench.hear(other, Gossip())
    bench.now_s += 3.0
    told = encode_rumour(Rumour(A.node_id, A.life, 0, MemberState.DEAD))
    bench.hear(B, Gossip(), told)
    assert bench.state("a") is MemberState.SUSPECT
    bench.hear(C, Gossip(), told)
    assert bench.state("a") is MemberState.SUSPECT, "twice told is not vouched for"
    bench.hear(C, Gossip(), accusation(C, A))
    bench.hear(B, Gossip(), told)
    assert bench.state("a") is MemberState.DEAD


def test_who_is_heard_is_not_buried() -> None:
    """As long as anything comes from a suspect directly its end is put off."""
    bench = Bench()
    suspected(bench)
    for _ in range(20):
        bench.hear(A, Gossip())
        bench.fire("suspicion", A.node_id)
        assert bench.state("a") is MemberState.SUSPECT


def test_another_owner_of_an_address_says_so() -> None:
    """A ping for another node is answered by NotMe, and that counts as a refusal."""
    bench = Bench()
    sent = bench.hear(A, Ping(7, node_id("former")))
    assert (A.address, NotMe(7)) in [(to, d.message) for to, d in sent]
    ping = probe_of(bench)
    bench.fire("ask", A.node_id)
    new = sender("new", A.address.port)
    bench.hear(new, NotMe(ping.sequence))
    bench.fire("verdict", A.node_id)
    assert [e.reach for e in bench.core.evidence(bench.now_s)] == [ReachKind.REFUSED]


def test_an_answer_on_a_stream_is_life() -> None:
    """Who answers by TCP and not by UDP is no suspect; three times in a row it is a fault."""
    bench = Bench()
    bench.hear(A, Gossip())
    for _ in range(3):
        ping = probe_of(bench)
        bench.fire("ask", A.node_id)
        data = encode(cluster_tag(CLUSTER), A, 0, Ack(ping.sequence))
        bench.reach("a", ReachKind.ANSWERED, data)
        bench.fire("verdict", A.node_id)
        assert bench.state("a") is MemberState.ALIVE
    ((kind, text),) = bench.core.faults(bench.now_s)
    assert kind is FaultKind.UDP_BLOCKED
    assert "a answers gossip by TCP and not by UDP" in text


def test_a_stream_answer_of_somebody_else_is_none() -> None:
    """An answer that does not come from the target, or is junk, is no sign of its life."""
    bench = Bench()
    bench.hear(A, Gossip())
    ping = probe_of(bench)
    bench.fire("ask", A.node_id)
    bench.reach("a", ReachKind.ANSWERED, encode(cluster_tag(CLUSTER), B, 0, Ack(ping.sequence)))
    bench.reach("a", ReachKind.ANSWERED, b"junk")
    bench.fire("verdict", A.node_id)
    assert bench.state("a") is MemberState.SUSPECT


def test_a_link_of_one_direction_is_a_fault() -> None:
    """Somebody who is heard, reached by helpers and never answers directly: a link is half cut."""
    bench = Bench()
    bench.hear(A, Gossip())
    bench.hear(B, Gossip())
    missed = 0
    while missed < 5:
        missed += _vouched(bench)
        bench.hear(A, Gossip())
    kinds = [kind for kind, _ in bench.core.faults(bench.now_s)]
    assert kinds == [FaultKind.ONE_WAY_LINK]
    assert bench.state("a") is MemberState.ALIVE


def _vouched(bench: Bench) -> int:
    """Let a period pass in which a answers b only; return how often a was probed."""
    missed = 0
    for _, sent in bench.fire("probe"):
        ping = sent.message
        assert isinstance(ping, Ping)
        if ping.target == B.node_id:
            bench.hear(B, Ack(ping.sequence))
            continue
        missed += 1
        bench.fire("ask", A.node_id)
        bench.hear(B, Ack(ping.sequence, A.node_id, A.life, A.incarnation))
        bench.fire("verdict", A.node_id)
    return missed


def test_who_is_reached_through_helpers_alone_is_looked_at_again() -> None:
    """Three probes in a row, one each period, are a finding; an answer ends it and the looking."""
    bench = Bench()
    bench.hear(A, Gossip())
    bench.hear(B, Gossip())
    missed = periods = 0
    while missed < 3:
        assert [each for each in bench.core.evidence(bench.now_s) if each.target == A.node_id] == []
        missed += _vouched(bench)
        periods += 1
    assert periods <= 4, "after the first one a is probed in every period"
    [found] = [each for each in bench.core.evidence(bench.now_s) if each.target == A.node_id]
    assert found.reach is ReachKind.SILENT
    assert bench.state("a") is MemberState.ALIVE
    for _, sent in bench.fire("probe"):
        assert isinstance(sent.message, Ping)
        bench.hear(A if sent.message.target == A.node_id else B, Ack(sent.message.sequence))
    [found] = [each for each in bench.core.evidence(bench.now_s) if each.target == A.node_id]
    assert found.reach is ReachKind.ANSWERED
    assert len(bench.fire("probe")) == 1, "whose turn it is, and nobody beside"


def test_a_clone_is_a_fault() -> None:
    """Another daemon that gossips with this node's id, in another life, is reported."""
    bench = Bench()
    bench.hear(Sender(ME.node_id, 11, 0, "me", Address("127.0.0.9", 9)), Gossip())
    assert [kind for kind, _ in bench.core.faults(bench.now_s)] == [FaultKind.CLONE]
    assert bench.core.faults(bench.now_s + 100.0) == ()


def test_a_removed_member_stays_removed() -> None:
    """No later life of a member that an operator removed comes back, not even an unknown one's."""
    bench = Bench()
    bench.hear(A, Gossip())
    bench.core.handle(Remove((A.node_id, B.node_id)), bench.now_s)
    for back in (sender("a", 2, life=99, incarnation=3), sender("b", 3, life=99)):
        assert bench.hear(back, Ping(1, None)) == []
        assert bench.state(back.name) is MemberState.LEFT
    told = [item for _, d in bench.hear(C, Ping(1, None)) for item in d.items]
    assert {(r.node_id, r.state) for r in told if isinstance(r, Rumour)} >= {
        (A.node_id, MemberState.LEFT),
        (B.node_id, MemberState.LEFT),
    }
    bench.now_s += PARAMETERS.gone_keep_s + 1.0
    bench.fire("heal")
    assert bench.state("a") is MemberState.LEFT, "it is not forgotten either"


def test_most_silent_means_cut_off() -> None:
    """Who cannot reach most of the others labels its evidence, and still gives it."""
    bench = Bench()
    for other in (A, B, C):
        bench.hear(other, Gossip())
    bench.now_s += 3.0
    for other in (A, B):
        bench.hear(C, Verify(other.node_id, other.life, other.incarnation))
        while TimerKey("verify", other.node_id) in bench.timers:
            bench.fire("verify", other.node_id)
    evidence = bench.core.evidence(bench.now_s)
    assert {(e.reach, e.cut_off) for e in evidence} == {(ReachKind.SILENT, True)}
    assert len(evidence) == 2
