"""Which slots are next, when is a rollout over, and what does a failure do? Step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import FailureAction, ServiceRecord, ServiceRevision, UpdatePolicy
from dray.views import RolloutState
from scheduler.rollout import RolloutStep, SlotView, advance, target_of
from scheduler.store.records import RolloutBatch, RolloutVerdict
from tests.builders import a_key, a_record, a_service

OLD, NEW = ServiceRevision(1), ServiceRevision(2)
WAITS = SlotView(old=OLD)
COMING = SlotView(has_new=True)
WELL = SlotView(has_new=True, is_well=True)
FAILED = SlotView(has_new=True, has_failed=True)
BOTH = SlotView(old=OLD, has_new=True)  # start-first: the old one stands by


def a_change(policy: UpdatePolicy | None = None, back: UpdatePolicy | None = None) -> ServiceRecord:
    """Return revision 2 of a service."""
    spec = replace(a_service(), update=policy or UpdatePolicy(), rollback=back or UpdatePolicy())
    return a_record(spec, revision=2)


def a_verdict(
    *batches: RolloutBatch,
    state: RolloutState = RolloutState.RUNNING,
    failed: tuple[int, ...] = (),
) -> RolloutVerdict:
    """Return a rollout from revision 1 to 2."""
    return RolloutVerdict(a_key(), state, OLD, NEW, 0.0, batches, failed)


def step(
    record: ServiceRecord,
    verdict: RolloutVerdict | None,
    *views: SlotView,
    now_s: float = 100.0,
    can_go_back: bool = True,
) -> RolloutStep:
    """Return the next step with these slots, from 1."""
    slots = dict(enumerate(views, 1))
    return advance(record, verdict, slots, now_s, can_go_back=can_go_back)


def batches(found: RolloutStep) -> list[tuple[int, ...]]:
    """Return the slots of a step's batches."""
    assert found.verdict is not None
    return [batch.slots for batch in found.verdict.batches]


def test_without_old_tasks_there_is_no_rollout() -> None:
    """A new service, or one whose tasks all do the same, needs none."""
    assert step(a_change(), None, WELL, SlotView()) == RolloutStep(None, NEW)


@pytest.mark.parametrize(
    ("parallelism", "first", "waiting"),
    [(1, (1,), {2, 3}), (2, (1, 2), {3}), (0, (1, 2, 3), set())],
)
def test_the_first_batch(parallelism: int, first: tuple[int, ...], waiting: set[int]) -> None:
    """It has so many slots; all others keep their tasks."""
    found = step(a_change(UpdatePolicy(parallelism)), None, WAITS, WAITS, WAITS)
    assert found.verdict is not None
    assert (found.verdict.state, found.verdict.from_revision) == (RolloutState.RUNNING, OLD)
    assert batches(found) == [first]
    assert found.waiting == waiting


def test_nothing_happens_until_a_batch_is_settled() -> None:
    """A task that is coming, or has not been made yet, is waited for."""
    for view in (COMING, BOTH, SlotView(), WAITS):
        found = step(a_change(), a_verdict(RolloutBatch((1,))), view, WAITS)
        assert batches(found) == [(1,)]
        assert found.waiting == {2}


def test_the_next_batch_begins_after_the_delay() -> None:
    """The time runs from when the batch was seen to be settled, and is named."""
    record = a_change(UpdatePolicy(delay_s=10.0))
    found = step(record, a_verdict(RolloutBatch((1,))), WELL, WAITS)
    assert found.verdict is not None
    assert found.verdict.batches == (RolloutBatch((1,), 100.0),)
    assert found.wake_at_unix_s == 110.0
    assert batches(step(record, found.verdict, WELL, WAITS, now_s=109.0)) == [(1,)]
    assert (2,) in batches(step(record, found.verdict, WELL, WAITS, now_s=110.0))


def test_it_ends_when_the_last_batch_was_watched() -> None:
    """Completed only after `monitor_s`."""
    record = a_change(UpdatePolicy(monitor_s=5.0))
    settled = a_verdict(RolloutBatch((2,), 100.0))
    assert step(record, settled, WELL, WELL, now_s=104.0).wake_at_unix_s == 105.0
    found = step(record, settled, WELL, WELL, now_s=105.0)
    assert found.verdict is not None
    assert (found.verdict.state, found.verdict.batches) == (RolloutState.COMPLETED, ())
    assert step(record, found.verdict, WELL, WELL, now_s=106.0).verdict == found.verdict


def test_what_comes_up_old_after_the_end_is_a_rollout_again() -> None:
    """A task of the old revision that is found later is replaced, too."""
    done = a_verdict(state=RolloutState.COMPLETED)
    assert batches(step(a_change(), done, WELL, WAITS)) == [(2,)]


@pytest.mark.parametrize("is_settled", [True, False])
def test_a_failure_pauses(is_settled: bool) -> None:
    """While the batch comes up, and as long as it is watched after that."""
    batch = RolloutBatch((1,), 98.0 if is_settled else 0.0)
    found = step(a_change(), a_verdict(batch), FAILED, WAITS, WAITS)
    assert found.verdict is not None
    assert found.verdict.state is RolloutState.PAUSED
    assert found.waiting == {2, 3}
    again = step(a_change(), found.verdict, WELL, WAITS, WAITS)
    assert (again.verdict, again.waiting) == (found.verdict, frozenset({2, 3}))


def test_why_a_task_failed_is_in_the_message() -> None:
    """Whoever deployed reads it when the tasks that failed are gone."""
    failed = SlotView(has_new=True, has_failed=True, why="it ended with exit code 3")
    found = step(a_change(), a_verdict(RolloutBatch((1,))), failed, WAITS)
    assert found.verdict is not None
    assert found.verdict.message.endswith("failed at web.1: it ended with exit code 3")


def test_a_failure_after_the_watch_does_not_count() -> None:
    """A slot whose batch is past its monitoring fails on its own account."""
    record = a_change(UpdatePolicy(monitor_s=5.0))
    verdict = a_verdict(RolloutBatch((1,), 90.0), RolloutBatch((2,), 100.0))
    found = step(record, step(record, verdict, WELL, WELL, WAITS).verdict, FAILED, WELL, WAITS)
    assert found.verdict is not None
    assert found.verdict.state is RolloutState.RUNNING
    assert found.verdict.failed_slots == ()


@pytest.mark.parametrize(("ratio", "is_borne"), [(0.0, False), (0.3, False), (0.5, True)])
def test_a_share_of_failures_is_borne(ratio: float, is_borne: bool) -> None:
    """More than the share of all slots stops it; a failed slot is not waited for."""
    record = a_change(UpdatePolicy(failure_ratio_max=ratio))
    found = step(record, a_verdict(RolloutBatch((1,))), FAILED, WAITS)
    assert found.verdict is not None
    assert (found.verdict.state is RolloutState.RUNNING) is is_borne
    assert ((2,) in batches(found)) is is_borne


def test_a_rollback_goes_to_the_last_whole_revision_by_its_own_policy() -> None:
    """It replaces what is new, batch by batch, and ends as rolled back."""
    record = a_change(
        UpdatePolicy(failure_action=FailureAction.ROLLBACK), UpdatePolicy(parallelism=2)
    )
    failed = step(record, a_verdict(RolloutBatch((1,))), FAILED, WAITS)
    assert failed.verdict is not None
    assert failed.verdict.state is RolloutState.ROLLING_BACK
    assert failed.wake_at_unix_s == 100.0
    assert target_of(record, failed.verdict) == OLD
    new_is_old = SlotView(old=NEW)
    back = step(record, failed.verdict, new_is_old, WELL)
    assert (back.target, batches(back)) == (OLD, [(1,)])
    watched = step(record, back.verdict, WELL, WELL)
    done = step(record, watched.verdict, WELL, WELL, now_s=200.0)
    assert done.verdict is not None
    assert done.verdict.state is RolloutState.ROLLED_BACK
    assert done.verdict.message == "replacing by revision 2 failed at web.1"
    assert step(record, done.verdict, WELL, WELL, now_s=300.0).target == OLD


def test_without_the_old_revision_a_rollback_is_a_pause() -> None:
    """What is no longer kept cannot be put back, and the message says so."""
    record = a_change(UpdatePolicy(failure_action=FailureAction.ROLLBACK))
    found = step(record, a_verdict(RolloutBatch((1,))), FAILED, can_go_back=False)
    assert found.verdict is not None
    assert found.verdict.state is RolloutState.PAUSED
    assert "no longer kept" in found.verdict.message


@pytest.mark.parametrize("state", [RolloutState.RUNNING, RolloutState.PAUSED])
def test_a_newer_revision_begins_anew_and_remembers_what_was_whole(state: RolloutState) -> None:
    """What is gone back to is the revision before the one that never came up whole."""
    newer = replace(a_change(), revision=ServiceRevision(3))
    views = (SlotView(old=NEW), WAITS)
    found = step(newer, a_verdict(RolloutBatch((1,)), state=state, failed=(1,)), *views)
    assert found.verdict is not None
    assert (found.verdict.from_revision, found.verdict.to_revision) == (OLD, 3)
    assert found.verdict.failed_slots == ()


def test_new_tasks_without_a_batch_count_against_the_next_one() -> None:
    """A step that was committed in part does not let more than `parallelism` be away."""
    record = a_change(UpdatePolicy(parallelism=2))
    found = step(record, None, COMING, WAITS, WAITS, WAITS)
    assert batches(found) == [(2,)]
    assert batches(step(record, None, COMING, COMING, WAITS)) == []
