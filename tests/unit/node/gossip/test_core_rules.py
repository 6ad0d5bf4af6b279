"""Does the core follow the protocol's rules, one by one? Driven by hand, without a network."""

from __future__ import annotations

import pytest

from dray.errors import InvalidRequest
from dray.model import Fact, FactKey, FactVersion, MemberState, ReachKind
from dray.names import ClusterId
from node.gossip.core import (
    Address,
    DatagramReceived,
    MemberChanged,
    ProbeReach,
    RanLate,
    TimerFired,
    TimerKey,
)
from node.gossip.datagrams import encode
from node.gossip.identity import Identity
from node.gossip.members import Rumour
from node.gossip.messages import (
    Ack,
    Gossip,
    Nack,
    Ping,
    PingRequest,
    Sender,
    cluster_tag,
)
from node.gossip.sync import pieces_of
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
    datagram,
    probe_of,
    rumour,
    sender,
    suspected,
)


def test_a_ping_is_answered_where_it_came_from() -> None:
    """A ping for us, or for whoever is here, is answered; one for another node is not."""
    bench = Bench()
    for target in (None, ME.node_id):
        (to, answer), *_ = bench.hear(A, Ping(7, target))
        assert to == A.address
        assert answer.message == Ack(7)
    sent = bench.hear(A, Ping(8, node_id("somebody else")))
    assert not any(isinstance(d.message, Ack) for _, d in sent)


def test_every_datagram_introduces_its_sender() -> None:
    """Whoever speaks is a member from then on, where it says it is, and its contact is noted."""
    bench = Bench()
    bench.hear(A, Gossip())
    member = bench.member("a")
    assert (member.state, member.gossip_port) == (MemberState.ALIVE, 2)
    assert member.last_contact_at_s == bench.now_s
    assert member.seen is None, "what it says of itself is no probe of ours"


def test_another_cluster_is_dropped() -> None:
    """A datagram of another cluster, or one that bears our own id, is counted and dropped."""
    bench = Bench()
    data = encode(cluster_tag(ClusterId("other")), A, 0, Ping(1, None))
    assert bench.core.handle(DatagramReceived(A.address, data), 100.0) == []
    assert bench.core.handle(datagram(ME, Ping(1, None)), 100.0) == []
    assert (bench.core.counts.foreign, bench.core.counts.own) == (1, 1)


def test_an_older_life_is_dropped() -> None:
    """Once a new life was heard of, a late datagram of the older one changes nothing."""
    bench = Bench()
    bench.hear(sender("a", 5, life=2), Gossip())
    assert bench.hear(A, Ping(1, None)) == []
    assert (bench.member("a").life, bench.member("a").gossip_port) == (2, 5)
    assert bench.core.counts.stale == 1


def test_a_probe_that_is_answered() -> None:
    """An answer to our own probe is seen evidence, with its time, and measures the round trip."""
    bench = Bench()
    bench.hear(A, Gossip())
    ping = probe_of(bench)
    bench.now_s += 0.04
    bench.hear(A, Ack(ping.sequence))
    member = bench.member("a")
    assert member.seen is ReachKind.ANSWERED
    assert member.seen_at_s == bench.now_s
    assert member.rtt_s == pytest.approx(0.04)
    assert bench.fire("ask", A.node_id) == []
    assert bench.state("a") is MemberState.ALIVE
    assert TimerKey("verdict", A.node_id) not in bench.timers


def test_an_answer_from_another_does_not_count() -> None:
    """Somebody else's answer with the right number does not answer for the target."""
    bench = Bench()
    bench.hear(A, Gossip())
    ping = probe_of(bench)
    bench.hear(B, Ack(ping.sequence))
    bench.fire("ask", A.node_id)
    bench.fire("verdict", A.node_id)
    assert bench.state("a") is MemberState.SUSPECT


def test_helpers_are_asked_and_vouch() -> None:
    """Without an answer others are asked; who is reached by a helper is silent, not suspect."""
    bench = Bench()
    bench.hear(A, Gossip())
    ping = probe_of(bench)
    for other in (B, C):
        bench.hear(other, Gossip())
    asked = bench.fire("ask", A.node_id)
    assert [(to, d.message) for to, d in asked[:1]] == [(A.address, ping)], "it is pinged again"
    assert {to for to, _ in asked[1:]} == {B.address, C.address}
    assert all(d.message == PingRequest(ping.sequence, A.node_id, A.address) for _, d in asked[1:])
    (reach,) = (effect for effect in bench.told if isinstance(effect, ProbeReach))
    assert (reach.target, reach.to) == (A.node_id, A.address)
    bench.hear(B, Ack(ping.sequence, A.node_id, A.life, A.incarnation))
    bench.fire("verdict", A.node_id)
    assert bench.state("a") is MemberState.ALIVE
    assert bench.core.evidence(bench.now_s) == (), "hearsay is no evidence of ours"


@pytest.mark.parametrize(
    ("nacks", "scale"),
    [
        pytest.param(0, 3.0, id="nobody: it may be this node, which waits longer by each of two"),
        pytest.param(1, 1.0, id="one of two: this node is heard, the other one is gone as well"),
        pytest.param(2, 1.0, id="both"),
    ],
)
def test_a_node_doubts_itself_when_no_helper_answers(nacks: int, scale: float) -> None:
    """Half of a cluster that is cut off is no reason to wait longer for the rest."""
    bench = Bench()
    bench.hear(A, Gossip())
    ping = probe_of(bench)
    for other in (B, C):
        bench.hear(other, Gossip())
    bench.fire("ask", A.node_id)
    for helper in (B, C)[:nacks]:
        bench.hear(helper, Nack(ping.sequence))
    bench.fire("verdict", A.node_id)
    assert bench.state("a") is MemberState.SUSPECT
    bench.fire("probe")
    waits_s = [t.at_s - bench.now_s for key, t in bench.timers.items() if key.kind == "ask"]
    usual_s = (PARAMETERS.probe_timeout_min_s + PARAMETERS.probe_timeout_max_s) / 2
    assert waits_s == [pytest.approx(scale * usual_s)] * 2, "one is suspect, so two are probed"


def test_a_helper_says_when_it_was_not_answered() -> None:
    """A helper whom the target does not answer says that it lives itself."""
    bench = Bench()
    bench.hear(A, PingRequest(99, B.node_id, B.address))
    ((to, sent),) = bench.fire("nack", next(k.node_id for k in bench.timers if k.kind == "nack"))
    assert (to, sent.message) == (A.address, Nack(99))


def test_a_helper_passes_the_answer_on() -> None:
    """Asked to probe, it pings the target, and its answer goes to who asked, once."""
    bench = Bench()
    bench.hear(B, Gossip())
    sent = bench.hear(A, PingRequest(99, B.node_id, B.address))
    pings = [(to, d.message) for to, d in sent if isinstance(d.message, Ping)]
    assert [to for to, _ in pings] == [B.address]
    passed = bench.hear(B, Ack(pings[0][1].sequence))
    assert (A.address, Ack(99, B.node_id, B.life, B.incarnation)) in [
        (to, d.message) for to, d in passed
    ]
    assert bench.hear(B, Ack(pings[0][1].sequence)) == []


def test_silence_is_suspicion_then_death() -> None:
    """Who answers neither us nor helpers is suspect, and dead after the suspicion's time."""
    bench = Bench()
    suspected(bench)
    start_s = bench.now_s
    assert buried(bench) == PARAMETERS.last_chances
    # Nobody else could agree, so it is twice the shortest time.
    last_chances_s = PARAMETERS.last_chances * PARAMETERS.last_chance_gap_s
    assert bench.now_s - start_s == pytest.approx(2 * PARAMETERS.suspicion_s + last_chances_s)
    assert bench.state("a") is MemberState.DEAD
    changes = [e.after.state for e in bench.told if isinstance(e, MemberChanged)]
    assert changes == [MemberState.ALIVE, MemberState.SUSPECT, MemberState.DEAD]


def test_a_suspect_hears_of_it_and_refutes() -> None:
    """A suspect that speaks is told at once; its raised incarnation ends the suspicion."""
    bench = Bench()
    suspected(bench)
    told = [item for _, d in bench.hear(A, Gossip()) for item in d.items]
    assert Rumour(A.node_id, 1, 0, MemberState.SUSPECT, accuser=ME.node_id) in told
    assert bench.state("a") is MemberState.SUSPECT, "its silence is not explained by an old word"
    bench.hear(sender("a", 2, incarnation=1), Gossip())
    assert bench.state("a") is MemberState.ALIVE
    timer = bench.timers[TimerKey("suspicion", A.node_id)]
    bench.core.handle(TimerFired(timer.key, timer.generation), timer.at_s)
    assert bench.state("a") is MemberState.ALIVE, "the timer of an ended suspicion is void"


def test_an_ended_suspicion_does_not_shorten_the_next() -> None:
    """Suspected again, a member has the whole time again: the first timer is an old generation."""
    bench = Bench()
    suspected(bench)
    first = bench.timers[TimerKey("suspicion", A.node_id)]
    bench.hear(sender("a", 2, incarnation=1), Gossip())
    bench.now_s += 2.0
    bench.hear(B, Gossip(), rumour(A, MemberState.SUSPECT, incarnation=1))
    assert bench.state("a") is MemberState.SUSPECT
    bench.core.handle(TimerFired(first.key, first.generation), first.at_s)
    assert bench.state("a") is MemberState.SUSPECT


def test_it_refutes_what_is_said_of_itself() -> None:
    """Held dead by others, it raises its incarnation above theirs, and spreads that."""
    bench = Bench()
    bench.hear(B, Gossip(), rumour(ME, MemberState.DEAD, incarnation=4))
    assert bench.member("me").incarnation == 5
    assert bench.state("me") is MemberState.ALIVE
    (_, answer), *_ = bench.hear(B, Ping(1, None))
    assert answer.sender.incarnation == 5
    assert bench.core.counts.refutations == 1
    bench.hear(B, Gossip(), rumour(ME, MemberState.SUSPECT, incarnation=4))
    assert bench.member("me").incarnation == 5, "an older word needs no answer"


def test_a_rumour_of_a_later_life_of_ours_is_not_refuted() -> None:
    """Another daemon with our id and a later life cannot be outranked: counted, nothing more."""
    bench = Bench()
    clone = Sender(ME.node_id, 11, 0, "me", ME.address)
    bench.hear(B, Gossip(), rumour(clone, MemberState.SUSPECT))
    assert bench.member("me").life == 10
    assert bench.core.counts.own == 1


@pytest.mark.parametrize("kind", ["ask", "suspicion"])
def test_it_does_not_judge_by_time_it_missed(kind: str) -> None:
    """A timer that fires late (this machine stood still) ends in no suspicion and no death."""
    bench = Bench()
    if kind == "suspicion":
        suspected(bench)
        bench.fire(kind, A.node_id, late_s=30.0)
        assert bench.state("a") is MemberState.SUSPECT
        buried(bench)
        assert bench.state("a") is MemberState.DEAD, "put off, not given up"
    else:
        bench.hear(A, Gossip())
        probe_of(bench)
        bench.fire(kind, A.node_id, late_s=30.0)
        assert TimerKey("verdict", A.node_id) not in bench.timers
        assert bench.state("a") is MemberState.ALIVE
    assert bench.core.counted()["late"] == 1


def test_its_own_lateness_suspends_verdicts() -> None:
    """While the driver says that the loop runs late, a verdict waits."""
    bench = Bench()
    bench.hear(A, Gossip())
    probe_of(bench)
    bench.fire("ask", A.node_id)
    bench.core.handle(RanLate(0.9), bench.now_s + 0.2)
    bench.fire("verdict", A.node_id)
    assert bench.state("a") is MemberState.ALIVE
    bench.fire("verdict", A.node_id)
    assert bench.state("a") is MemberState.SUSPECT, "put off, not given up"


def test_a_busy_machine_misses_nobody_for_longer() -> None:
    """However often the loop runs late, probes stay as frequent, and wait three times as long."""
    bench = Bench()
    bench.hear(A, Gossip())
    for _ in range(20):
        bench.now_s += 0.2
        bench.core.handle(RanLate(0.08), bench.now_s)
    probe_of(bench)
    begun_s = bench.now_s
    assert bench.timers[TimerKey("probe", "")].at_s == begun_s + PARAMETERS.probe_period_s
    least_s, most_s = PARAMETERS.probe_timeout_min_s, PARAMETERS.probe_timeout_max_s
    usual_s = (least_s + most_s) / 2  # nobody was measured
    asked_s = bench.timers[TimerKey("ask", A.node_id)].at_s - begun_s
    assert asked_s == pytest.approx(3 * usual_s)


def test_the_dead_are_pinged_and_told() -> None:
    """Now and then a dead member is pinged with the word of its death; its answer revives it."""
    bench = Bench()
    suspected(bench)
    buried(bench)
    (to, sent), *_ = bench.fire("heal")
    assert to == A.address
    assert isinstance(sent.message, Ping)
    death = Rumour(A.node_id, 1, 0, MemberState.DEAD, accuser=ME.node_id, reach=ReachKind.SILENT)
    assert sent.items[0] == death
    bench.hear(sender("a", 2, incarnation=1), Ack(sent.message.sequence))
    assert bench.state("a") is MemberState.ALIVE
    assert bench.member("a").flaps == 1


def test_the_gone_are_forgotten() -> None:
    """After its time a dead member and its facts are gone, and word of its death brings nothing."""
    bench = Bench()
    suspected(bench)
    buried(bench)
    bench.now_s += PARAMETERS.gone_keep_s + 1.0
    bench.fire("heal")
    assert bench.core.view().member(A.node_id) is None
    bench.hear(B, Gossip(), rumour(A, MemberState.DEAD))
    assert bench.core.view().member(A.node_id) is None


def test_a_deleted_fact_that_turns_up_is_deleted_again() -> None:
    """A copy that outlived its tombstone elsewhere is met by its owner with a new deletion."""
    bench = Bench()
    bench.publish("node:x", b"old")
    bench.publish("node:x", None)
    bench.now_s += PARAMETERS.tombstone_keep_s + 1.0
    bench.fire("heal")
    zombie = Fact(FactKey(ME.node_id, "node:x"), FactVersion(10, 1), b"old")
    bench.hear(B, Gossip(), *pieces_of(zombie))
    assert bench.core.view().fact(zombie.key) is None
    spread = [item for _, d in bench.fire("spread") for item in d.items]
    deletions = [item for item in spread if not isinstance(item, Rumour) and item.data is None]
    assert [item.version for item in deletions] == [FactVersion(10, 3)]


def test_an_older_value_of_its_own_fact_is_ignored() -> None:
    """What it published itself stands against an older copy, without a new version."""
    bench = Bench()
    bench.publish("node:x", b"old")
    bench.publish("node:x", b"new")
    copy = Fact(FactKey(ME.node_id, "node:x"), FactVersion(10, 1), b"old")
    bench.hear(B, Gossip(), *pieces_of(copy))
    fact = bench.core.view().fact(copy.key)
    assert fact is not None
    assert (fact.value, fact.version.version) == (b"new", 2)


@pytest.mark.parametrize(
    ("name", "host", "life"), [("n" * 64, "127.0.0.1", 1), ("n", "here", 1), ("n", "::1", 0)]
)
def test_an_identity_that_cannot_be_told_is_refused(name: str, host: str, life: int) -> None:
    """A name, address or life that no datagram can carry is refused at once, not in mid-work."""
    with pytest.raises(InvalidRequest, match="cannot gossip"):
        Identity(CLUSTER, ME.node_id, name, Address(host, 1), life)
