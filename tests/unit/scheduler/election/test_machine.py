"""Does a scheduler lead when it may, and only then? The election's rules, one by one."""

from __future__ import annotations

from dray.model import NO_EPOCH, Epoch, StoreRevision
from dray.names import SchedulerId
from scheduler.election.machine import (
    MARGIN_S,
    RETRY_S,
    Campaign,
    Complain,
    DeathProved,
    Effect,
    ElectionMachine,
    EndTerm,
    EpochMet,
    Event,
    Grant,
    LeaseEnded,
    LeaseGranted,
    LeaseRenewed,
    NotGranted,
    NotRenewed,
    NotWon,
    Parameters,
    Remember,
    Renew,
    Revoke,
    Revoked,
    Role,
    StartTerm,
    Stopping,
    StoreSeen,
    TermEnded,
    Tick,
    Won,
)
from scheduler.store.base import LeaseId
from scheduler.store.records import LeaderRecord
from scheduler.store.snapshot import Leader
from tests.builders import CLUSTER_ID, an_id

ME, OTHER = SchedulerId(an_id(1)), SchedulerId(an_id(2))
LEASE, NEXT_LEASE, OTHER_LEASE = LeaseId(11), LeaseId(12), LeaseId(21)
TTL_S = 6
START_S = 100.0


def leader(
    scheduler_id: SchedulerId = OTHER,
    *,
    lease: LeaseId = OTHER_LEASE,
    created: int = 50,
    generation: int = 1,
) -> Leader:
    """Return a leader as the store shows it."""
    record = LeaderRecord(scheduler_id, CLUSTER_ID, generation, "127.0.0.1:7400", lease=lease)
    return Leader(record, StoreRevision(created))


def seen(leads: Leader | None = None, *, revision: int = 60, generation: int = 1) -> StoreSeen:
    """Return what the mirror shows."""
    return StoreSeen(leads, generation, StoreRevision(revision))


class Rig:
    """A machine, fed one event after another at a given time."""

    def __init__(self, highest: Epoch = NO_EPOCH) -> None:
        self.machine = ElectionMachine(Parameters(ME, TTL_S), highest=highest)
        self.now_s = START_S

    def tell(self, *events: Event) -> list[Effect]:
        """Return the effects of events that happen now."""
        return [effect for event in events for effect in self.machine.handle(event, self.now_s)]

    def pass_time(self, duration_s: float) -> list[Effect]:
        """Let time go by, and return what the machine does then."""
        self.now_s += duration_s
        return self.tell(Tick())

    def lead(self, created: int = 61) -> None:
        """Bring the machine to lead, in term (1, created)."""
        assert self.tell(Tick()) == [Grant(TTL_S)]
        assert self.tell(LeaseGranted(LEASE, TTL_S, self.now_s), seen()) == [Campaign(LEASE, 1)]
        effects = self.tell(Won(LEASE, 1, StoreRevision(created)))
        assert effects == [Remember(Epoch(1, created)), StartTerm(Epoch(1, created))]


def test_it_asks_for_a_lease_and_campaigns_for_a_free_key() -> None:
    """From the start to the term: lease, campaign, term, with the epoch of the key."""
    rig = Rig()
    rig.lead()
    assert (rig.machine.role, rig.machine.epoch) == (Role.LEADING, Epoch(1, 61))
    assert rig.machine.valid_until_s == START_S + TTL_S


def test_it_follows_while_somebody_leads() -> None:
    """A leader key that is there is left alone."""
    rig = Rig()
    effects = rig.tell(Tick(), LeaseGranted(LEASE, TTL_S, START_S), seen(leader()))
    assert effects == [Grant(TTL_S), Remember(Epoch(1, 50))]
    assert rig.tell(seen(None)) == [Campaign(LEASE, 1)]


def test_it_does_nothing_twice_at_once() -> None:
    """An operation that is on its way is not asked for again."""
    rig = Rig()
    assert rig.tell(Tick(), Tick()) == [Grant(TTL_S)]
    assert rig.tell(LeaseGranted(LEASE, TTL_S, START_S), seen(), seen()) == [Campaign(LEASE, 1)]
    assert rig.pass_time(TTL_S / 3) == [Renew(LEASE)]
    assert rig.pass_time(0.1) == []


def test_a_failed_grant_is_tried_again() -> None:
    """Without a lease there is nothing to lead with, so it is asked for until there is one."""
    rig = Rig()
    rig.tell(Tick())
    assert rig.tell(NotGranted()) == []
    assert rig.machine.wake_at_s == START_S + RETRY_S
    assert rig.pass_time(RETRY_S) == [Grant(TTL_S)]


def test_a_leader_renews_every_third_of_the_lease() -> None:
    """Renewals come in time, and again soon after one failed."""
    rig = Rig()
    rig.lead()
    assert rig.machine.wake_at_s == START_S + TTL_S / 3
    assert rig.pass_time(2.0) == [Renew(LEASE)]
    assert rig.tell(NotRenewed()) == []
    assert rig.pass_time(RETRY_S) == [Renew(LEASE)]
    sent_at_s = rig.now_s
    assert rig.tell(LeaseRenewed(LEASE, TTL_S, sent_at_s)) == []
    assert rig.machine.valid_until_s == sent_at_s + TTL_S


def test_a_leader_without_renewal_ends_its_term_before_its_lease_does() -> None:
    """It counts from the moment of sending and does not need to be told."""
    rig = Rig()
    rig.lead()
    rig.pass_time(2.0)
    assert rig.pass_time(TTL_S - 2.0 - MARGIN_S - 0.01) == []
    assert rig.pass_time(0.01) == [EndTerm("the lease could not be renewed")]
    assert rig.machine.role is Role.ENDING


def test_a_late_answer_never_shortens_the_lease() -> None:
    """A renewal that was answered late is no reason to stop sooner."""
    rig = Rig()
    rig.lead()
    rig.tell(LeaseRenewed(LEASE, TTL_S, START_S - 3.0))
    assert rig.machine.valid_until_s == START_S + TTL_S


def test_the_term_ends_when_the_lease_is_gone() -> None:
    """The store says that the lease has ended: somebody revoked it."""
    rig = Rig()
    rig.lead()
    assert rig.tell(LeaseEnded(LEASE)) == [EndTerm("the lease has ended"), Grant(TTL_S)]


def test_the_term_ends_when_the_key_is_gone_or_anothers() -> None:
    """The store shows no leader, or another one, after the term began."""
    for shown in (None, leader(created=70)):
        rig = Rig()
        rig.lead()
        effects = rig.tell(seen(shown, revision=71))
        ended = "a higher epoch was met" if shown else "the leader key is gone"
        assert EndTerm(ended) in effects


def test_a_view_from_before_the_election_ends_nothing() -> None:
    """A mirror that lags behind shows the key that was there before."""
    rig = Rig()
    rig.lead()
    assert rig.tell(seen(None, revision=60)) == []


def test_the_term_ends_when_a_higher_epoch_is_met() -> None:
    """A node has seen a later leader: this one is deposed, and remembers that."""
    rig = Rig()
    rig.lead()
    effects = rig.tell(EpochMet(Epoch(1, 90)))
    assert effects == [Remember(Epoch(1, 90)), EndTerm("a higher epoch was met")]


def test_a_raised_generation_makes_a_new_term() -> None:
    """After a restore was told, the leader gives its key back and is elected anew."""
    rig = Rig()
    rig.lead()
    mine = leader(ME, lease=LEASE, created=61)
    assert rig.tell(seen(mine, revision=70, generation=2)) == [
        EndTerm("the generation has changed")
    ]
    (revoke,) = rig.tell(TermEnded())
    assert isinstance(revoke, Revoke)
    assert revoke.lease == LEASE
    effects = rig.tell(Revoked(), seen(None, revision=71, generation=2))
    assert effects == [Grant(TTL_S)]
    effects = rig.tell(LeaseGranted(NEXT_LEASE, TTL_S, rig.now_s))
    assert effects == [Campaign(NEXT_LEASE, 2)]


def test_nobody_campaigns_while_the_old_term_is_ending() -> None:
    """What was done in a term has ended before the next one can begin."""
    rig = Rig()
    rig.lead()
    rig.tell(EpochMet(Epoch(1, 65)))
    assert rig.tell(seen(None, revision=70)) == []
    assert rig.tell(TermEnded()) == [Campaign(LEASE, 1)]


def test_an_unnoticed_victory_is_a_victory() -> None:
    """The answer to the campaign was lost, the store shows our key with our lease: we lead."""
    rig = Rig()
    rig.tell(Tick(), LeaseGranted(LEASE, TTL_S, START_S), seen(), NotWon(StoreRevision(0)))
    effects = rig.tell(seen(leader(ME, lease=LEASE, created=61), revision=61))
    assert StartTerm(Epoch(1, 61)) in effects
    assert rig.machine.role is Role.LEADING
    assert rig.tell(Won(LEASE, 1, StoreRevision(61))) == []


def test_an_unnoticed_victory_below_an_epoch_that_was_met_is_none() -> None:
    """No term begins that would have to end at once: the key is brought down instead."""
    rig = Rig()
    own = leader(ME, lease=LEASE, created=55)
    effects = rig.tell(
        Tick(), EpochMet(Epoch(1, 58)), seen(own), LeaseGranted(LEASE, TTL_S, START_S)
    )
    assert not [each for each in effects if isinstance(each, StartTerm)]
    assert [each.lease for each in effects if isinstance(each, Revoke)] == [LEASE]
    assert rig.machine.role is Role.FOLLOWING


def test_a_lost_campaign_waits_for_the_mirror() -> None:
    """Somebody else won at a revision that the mirror does not show yet: no second try."""
    rig = Rig()
    rig.tell(Tick(), LeaseGranted(LEASE, TTL_S, START_S), seen(), NotWon(StoreRevision(65)))
    assert rig.pass_time(RETRY_S) == []
    assert rig.tell(seen(None, revision=66)) == [Campaign(LEASE, 1)]


def test_proof_of_death_revokes_the_leaders_lease_once() -> None:
    """The proof is about the leader that is seen; its lease goes, then the key is free."""
    rig = Rig()
    rig.tell(Tick(), LeaseGranted(LEASE, TTL_S, START_S), seen(leader()))
    assert rig.tell(DeathProved(StoreRevision(49), "too old")) == []
    proof = DeathProved(StoreRevision(50), "its address refuses connections")
    revoke = Revoke(OTHER_LEASE, "its address refuses connections")
    assert rig.tell(proof, proof) == [revoke]
    assert rig.tell(Revoked(), seen(leader())) == []
    assert rig.pass_time(RETRY_S) == [revoke]
    assert rig.tell(Revoked(), seen(None, revision=62)) == [Campaign(LEASE, 1)]


def test_an_earlier_life_of_this_scheduler_is_dead() -> None:
    """After a restart nobody waits for the lease of the process that is gone."""
    rig = Rig()
    earlier = leader(ME, lease=OTHER_LEASE)
    effects = rig.tell(Tick(), LeaseGranted(LEASE, TTL_S, START_S), seen(earlier))
    revoke = Revoke(OTHER_LEASE, "it is an earlier term or life of this scheduler")
    assert effects == [Grant(TTL_S), Remember(Epoch(1, 50)), revoke]


def test_who_met_a_higher_epoch_does_not_lead() -> None:
    """The store went back behind what was met: the operator is told, nobody leads."""
    rig = Rig(highest=Epoch(1, 500))
    effects = rig.tell(Tick(), LeaseGranted(LEASE, TTL_S, START_S), seen(revision=60))
    assert not [effect for effect in effects if isinstance(effect, Campaign)]
    (complaint,) = [effect for effect in effects if isinstance(effect, Complain)]
    assert "generation 1, revision 500 was seen before" in complaint.message
    assert "generation 1, revision 60" in complaint.message
    assert rig.tell(seen(revision=61)) != [], "the message names the revision"
    effects = rig.tell(seen(revision=62, generation=2))
    assert effects == [Complain(""), Campaign(LEASE, 2)]


def test_a_scheduler_that_stops_gives_its_lease_back() -> None:
    """The term ends first, then the lease goes, and the key with it, at once."""
    rig = Rig()
    rig.lead()
    assert rig.tell(Stopping()) == [EndTerm("the scheduler stops")]
    assert rig.tell(TermEnded()) == [Revoke(LEASE, "the scheduler stops")]
    assert rig.pass_time(60.0) == []
    assert rig.machine.wake_at_s is None


def test_a_lease_that_comes_while_stopping_is_given_back() -> None:
    """Nothing is left behind."""
    rig = Rig()
    rig.tell(Tick(), Stopping())
    assert rig.tell(LeaseGranted(LEASE, TTL_S, START_S)) == [Revoke(LEASE, "the scheduler stops")]


def test_a_victory_with_a_lease_that_is_gone_is_none() -> None:
    """The key went with the lease before the answer came."""
    rig = Rig()
    rig.tell(Tick(), LeaseGranted(LEASE, TTL_S, START_S), seen(), LeaseEnded(LEASE))
    effects = rig.tell(Won(LEASE, 1, StoreRevision(61)))
    assert not [effect for effect in effects if isinstance(effect, StartTerm)]
    assert rig.machine.role is Role.FOLLOWING


def test_a_leader_whose_store_went_back_leads_no_longer() -> None:
    """A store restored from a backup may still hold the leader's key: it is given up all the same.

    Nobody leads until the generation was raised.
    """
    rig = Rig()
    rig.lead()
    mine = leader(ME, lease=LEASE, created=61)
    assert rig.tell(seen(mine, revision=90)) == []
    assert rig.tell(seen(mine, revision=80)) == [EndTerm("the store went back")]
    (revoke,) = rig.tell(TermEnded())
    assert isinstance(revoke, Revoke)
    effects = rig.tell(Revoked(), LeaseGranted(NEXT_LEASE, TTL_S, START_S), seen(revision=81))
    assert not [effect for effect in effects if isinstance(effect, Campaign)]
    assert Campaign(NEXT_LEASE, 2) in rig.tell(seen(revision=82, generation=2))


def test_a_store_that_was_seen_further_before_the_start_is_not_led() -> None:
    """What a scheduler remembers of the store outlives its process."""
    machine = ElectionMachine(Parameters(ME, TTL_S), position=Epoch(1, 100))
    machine.handle(LeaseGranted(LEASE, TTL_S, START_S), START_S)
    (complaint,) = machine.handle(seen(revision=99), START_S)
    assert isinstance(complaint, Complain)
    assert machine.handle(seen(revision=100), START_S) == [Complain(""), Campaign(LEASE, 1)]
