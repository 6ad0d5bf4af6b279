"""Can any order of events make a scheduler lead when it must not, or stop asking for ever?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dray.model import Epoch, StoreRevision
from dray.names import SchedulerId
from scheduler.election.machine import (
    Campaign,
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

TTL_S = 5
IDS = [SchedulerId(an_id(number)) for number in (1, 2)]
LEASES = st.integers(1, 4).map(LeaseId)
REVISIONS = st.integers(1, 30).map(StoreRevision)
LEADERS = st.builds(
    lambda owner, lease, created, generation: Leader(
        LeaderRecord(owner, CLUSTER_ID, generation, "127.0.0.1:1", lease=lease), created
    ),
    st.sampled_from(IDS),
    LEASES,
    REVISIONS,
    st.integers(1, 2),
)
ANSWERS: dict[type[Effect], type[Event]] = {Grant: NotGranted, Renew: NotRenewed, Revoke: Revoked}
EVENTS = st.one_of(
    st.just(Tick()),
    st.builds(StoreSeen, st.none() | LEADERS, st.integers(1, 2), REVISIONS),
    st.builds(LeaseGranted, LEASES, st.just(float(TTL_S)), st.floats(0, 40)),
    st.builds(LeaseRenewed, LEASES, st.just(float(TTL_S)), st.floats(0, 40)),
    st.just(NotGranted()),
    st.just(NotRenewed()),
    st.builds(LeaseEnded, LEASES),
    st.builds(Won, LEASES, st.integers(1, 2), REVISIONS),
    st.builds(NotWon, REVISIONS),
    st.builds(DeathProved, REVISIONS, st.just("proved")),
    st.just(Revoked()),
    st.builds(EpochMet, st.builds(Epoch, st.integers(1, 2), REVISIONS)),
    st.just(TermEnded()),
    st.just(Stopping()),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 3)), max_size=40))
def test_terms_never_overlap_and_end_with_the_lease(steps: list[tuple[Event, float]]) -> None:
    """Whatever is told: a term begins only after the last one ended, with a lease that is good.

    Nothing is asked for while it is on its way, no campaign is made against a leader that is seen,
    and no term outlives its lease or a higher epoch.
    """
    machine = ElectionMachine(Parameters(IDS[0], TTL_S))
    now_s = 0.0
    is_leading = is_ending = is_stopping = False
    highest = Epoch(0, 0)
    shown: StoreSeen | None = None
    for event, pause_s in steps:
        now_s += pause_s
        shown = event if isinstance(event, StoreSeen) else shown
        if isinstance(event, EpochMet):
            highest = max(highest, event.epoch)
        if isinstance(event, TermEnded):
            is_ending = False
        is_stopping = is_stopping or isinstance(event, Stopping)
        for effect in machine.handle(event, now_s):
            match effect:
                case StartTerm():
                    assert not is_leading
                    assert not is_ending
                    assert not is_stopping
                    is_leading = True
                case EndTerm():
                    assert is_leading
                    is_leading, is_ending = False, True
                case Campaign():
                    assert shown is not None
                    assert shown.leader is None
                    assert not is_leading
                    assert not is_ending
                    assert highest <= Epoch(shown.generation, shown.revision)
                    assert machine.position <= Epoch(shown.generation, shown.revision)
                case _:
                    pass
        assert is_leading == (machine.role is Role.LEADING)
        if is_leading:
            assert machine.valid_until_s > now_s
            assert highest <= machine.epoch


@given(st.lists(EVENTS, max_size=30))
def test_a_machine_never_falls_asleep(events: list[Event]) -> None:
    """Unless it stops, something is on its way or there is a time to wake up at."""
    machine = ElectionMachine(Parameters(IDS[0], TTL_S))
    asked: set[type[Effect]] = set()
    for event in events:
        if isinstance(event, Stopping):
            return
        asked -= {effect for effect, answer in ANSWERS.items() if isinstance(event, answer)}
        if isinstance(event, LeaseGranted):
            asked.discard(Grant)
        asked |= {type(effect) for effect in machine.handle(event, 0.0)}
        assert machine.wake_at_s is not None or Grant in asked


@given(st.lists(EVENTS, max_size=30))
def test_time_that_has_come_leads_somewhere(events: list[Event]) -> None:
    """Waking up at the time that was named does not name the same time again: no busy loop."""
    machine = ElectionMachine(Parameters(IDS[0], TTL_S))
    for event in events:
        machine.handle(event, 0.0)
    wakes = 0
    now_s = 0.0
    while (wake_at_s := machine.wake_at_s) is not None and wakes < 50:
        if wake_at_s > now_s:
            now_s = wake_at_s
        elif wakes:
            raise AssertionError(f"woken again at {wake_at_s}, now {now_s}")
        machine.handle(Tick(), now_s)
        wakes += 1
    assert wakes < 50, "it wakes up without end and without an answer"
