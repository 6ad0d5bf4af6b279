"""Which slots may have the new revision now? One step of a rollout, from stored state alone.

A rollout replaces the tasks of a service batch by batch. What it must remember is in its
`RolloutVerdict`: the batches whose tasks may still fail, the slots that failed, when it began.
Which tasks there are is read from the assignments each time, so a step that was committed in part
is an ordinary beginning of the next one.

- A batch has `parallelism` slots (0: all). It is *settled* when every new task of it is well, or
  failed; the next one begins `delay_s` later.
- A new task that fails within `monitor_s` after its batch settled counts. When more than
  `failure_ratio_max` of all slots have failed: PAUSE stops for good, CONTINUE goes on, ROLLBACK
  puts the old revision back by the rules of `rollback`.
- It is over when all slots are replaced and the last batch has been settled for `monitor_s`.
- Times are the leader's, when it first knew; a new leader does not start them anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from dray.model import (
    FailureAction,
    ServiceKey,
    ServiceRecord,
    ServiceRevision,
    UpdatePolicy,
)
from dray.views import RolloutState
from scheduler.store.records import RolloutBatch, RolloutVerdict

__all__ = ["BATCHES_MAX", "GOING", "RolloutStep", "SlotView", "advance", "target_of"]

BATCHES_MAX: Final = 1_000  # remembered; older ones count as past their monitoring
GOING: Final = frozenset({RolloutState.RUNNING, RolloutState.ROLLING_BACK})
"""While a rollout is in one of these states it looks at its slots."""
_UNDONE: Final = frozenset({RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class SlotView:
    """What a rollout sees of one slot.

    Attributes:
        old: Revision of the live task that does other work than the target; None: there is none.
        has_new: A task of the target's work is there.
        is_well: … and it serves.
        has_failed: … and it failed: ended, or started again, or unhealthy.
        why: … as its node says; empty: it does not.
    """

    old: ServiceRevision | None = None
    has_new: bool = False
    is_well: bool = False
    has_failed: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """What follows for a service.

    Attributes:
        verdict: How the rollout stands; None: there is none.
        target: What slots get that may have it.
        waiting: Slots whose task must not be replaced yet; all others get `target`.
        wake_at_unix_s: When time alone brings the next step; None: never.
    """

    verdict: RolloutVerdict | None
    target: ServiceRevision
    waiting: frozenset[int] = frozenset()
    wake_at_unix_s: float | None = None


def target_of(record: ServiceRecord, verdict: RolloutVerdict | None) -> ServiceRevision:
    """Return which revision a service's tasks are brought to."""
    is_own = verdict is not None and verdict.to_revision == record.revision
    if verdict is not None and is_own and verdict.state in _UNDONE:
        return verdict.from_revision
    return record.revision


def advance(
    record: ServiceRecord,
    verdict: RolloutVerdict | None,
    slots: Mapping[int, SlotView],
    now_unix_s: float,
    *,
    can_go_back: bool = False,
) -> RolloutStep:
    """Return the next step of a service's rollout.

    Args:
        record: The newest revision.
        verdict: How its rollout stood; None: there was none.
        slots: The slots that the service wants, as seen with `target_of(record, verdict)`. None
            need be named while the rollout is not `GOING` and every task has the target.
        now_unix_s: The leader's wall clock.
        can_go_back: The revision to go back to is still kept.
    """
    last = verdict
    if verdict is not None and verdict.to_revision != record.revision:
        verdict = None
    target = target_of(record, verdict)
    has_old = any(view.old is not None for view in slots.values())
    if verdict is None:
        if not has_old:
            return RolloutStep(None, target)
        verdict = _begin(record, last, slots, now_unix_s)
    elif verdict.state is RolloutState.COMPLETED and has_old:
        verdict = _begin(record, verdict, slots, now_unix_s)
    if verdict.state is RolloutState.PAUSED:
        return RolloutStep(verdict, target, _waiting(slots, verdict))
    if verdict.state not in GOING:
        return RolloutStep(verdict, target)
    is_back = verdict.state is RolloutState.ROLLING_BACK
    policy = record.spec.rollback if is_back else record.spec.update
    verdict = _count_failures(verdict, slots)
    if _is_too_many(verdict, policy, len(slots)):
        why = next((slots[each].why for each in verdict.failed_slots if each in slots), "")
        failed = _fail(verdict, policy, why, can_go_back=can_go_back, now_unix_s=now_unix_s)
        if failed is not None:  # the next step looks at a rollback with its own target
            return RolloutStep(failed, target, _waiting(slots, failed), now_unix_s)
    return _go_on(verdict, policy, target, slots, now_unix_s)


def _begin(
    record: ServiceRecord,
    last: RolloutVerdict | None,
    slots: Mapping[int, SlotView],
    now_unix_s: float,
) -> RolloutVerdict:
    """Return a new rollout; what it goes back to is the last revision that was whole."""
    from_revision = max(view.old for view in slots.values() if view.old is not None)
    if last is not None and last.state is not RolloutState.COMPLETED:
        from_revision = last.from_revision
    service = ServiceKey(record.project, record.spec.name)
    return RolloutVerdict(service, RolloutState.RUNNING, from_revision, record.revision, now_unix_s)


def _go_on(
    verdict: RolloutVerdict,
    policy: UpdatePolicy,
    target: ServiceRevision,
    slots: Mapping[int, SlotView],
    now_unix_s: float,
) -> RolloutStep:
    """Settle the current batch, begin the next one, or end the rollout."""
    batches = list(verdict.batches)
    if batches and not batches[-1].settled_unix_s and _is_settled(batches[-1], verdict, slots):
        batches[-1] = replace(batches[-1], settled_unix_s=now_unix_s)
    left = _left(verdict, batches, slots)
    wake_at: float | None = None
    settled = batches[-1].settled_unix_s if batches else now_unix_s
    if settled and left:
        due = settled + (policy.delay_s if batches else 0.0)
        if now_unix_s >= due:
            size = (policy.parallelism or len(left)) - _loose(batches, slots)
            if size > 0:
                batches.append(RolloutBatch(tuple(left[:size])))
        else:
            wake_at = due
    elif settled and batches:
        due = settled + policy.monitor_s
        if now_unix_s >= due:
            return RolloutStep(_end(verdict), target)
        wake_at = due
    elif settled:  # nothing was replaced by a batch, and nothing is left to be
        return RolloutStep(_end(verdict), target)
    recent = [
        batch for batch in batches[:-1] if now_unix_s < batch.settled_unix_s + policy.monitor_s
    ]
    verdict = replace(verdict, batches=(*recent, *batches[-1:])[-BATCHES_MAX:])
    return RolloutStep(verdict, target, _waiting(slots, verdict), wake_at)


def _end(verdict: RolloutVerdict) -> RolloutVerdict:
    is_back = verdict.state is RolloutState.ROLLING_BACK
    state = RolloutState.ROLLED_BACK if is_back else RolloutState.COMPLETED
    message = verdict.message if is_back else ""
    return replace(verdict, state=state, batches=(), message=message)


def _waiting(slots: Mapping[int, SlotView], verdict: RolloutVerdict) -> frozenset[int]:
    """Return the slots that must keep their task: not in a batch, nothing new there."""
    begun = {number for batch in verdict.batches for number in batch.slots}
    return frozenset(
        number
        for number, view in slots.items()
        if view.old is not None and not view.has_new and number not in begun
    )


def _left(
    verdict: RolloutVerdict, batches: list[RolloutBatch], slots: Mapping[int, SlotView]
) -> list[int]:
    begun = {number for batch in batches for number in batch.slots} | set(verdict.failed_slots)
    return sorted(
        number
        for number, view in slots.items()
        if view.old is not None and not view.has_new and number not in begun
    )


def _loose(batches: list[RolloutBatch], slots: Mapping[int, SlotView]) -> int:
    """Return how many new tasks are on their way without a batch.

    A step that was committed in part leaves them behind, and so does scaling up.
    """
    begun = {number for batch in batches for number in batch.slots}
    return sum(
        view.has_new and not view.is_well and not view.has_failed
        for number, view in slots.items()
        if number not in begun
    )


def _is_settled(
    batch: RolloutBatch, verdict: RolloutVerdict, slots: Mapping[int, SlotView]
) -> bool:
    """Return whether every slot of a batch is well, failed, or no longer wanted."""
    return all(
        number in verdict.failed_slots or number not in slots or slots[number].is_well
        for number in batch.slots
    )


def _count_failures(verdict: RolloutVerdict, slots: Mapping[int, SlotView]) -> RolloutVerdict:
    watched = {number for batch in verdict.batches for number in batch.slots}
    failed = {number for number in watched if number in slots and slots[number].has_failed}
    if failed <= set(verdict.failed_slots):
        return verdict
    return replace(verdict, failed_slots=tuple(sorted(failed | set(verdict.failed_slots))))


def _is_too_many(verdict: RolloutVerdict, policy: UpdatePolicy, total: int) -> bool:
    return len(verdict.failed_slots) > policy.failure_ratio_max * total


def _fail(
    verdict: RolloutVerdict, policy: UpdatePolicy, why: str, *, can_go_back: bool, now_unix_s: float
) -> RolloutVerdict | None:
    """Return how a rollout that failed stands, and why; None: it goes on."""
    service = verdict.service.service
    shown = ", ".join(f"{service}.{number}" for number in verdict.failed_slots[:5])
    is_back = verdict.state is RolloutState.ROLLING_BACK
    what = "putting back" if is_back else "replacing by"
    revision = verdict.from_revision if is_back else verdict.to_revision
    message = f"{what} revision {revision} failed at {shown}{f': {why}' if why else ''}"
    if policy.failure_action is FailureAction.CONTINUE:
        return None
    if policy.failure_action is FailureAction.ROLLBACK and not is_back and can_go_back:
        return replace(
            verdict,
            state=RolloutState.ROLLING_BACK,
            started_unix_s=now_unix_s,
            batches=(),
            failed_slots=(),
            message=message,
        )
    if policy.failure_action is FailureAction.ROLLBACK and not is_back:
        message += f"; revision {verdict.from_revision} is no longer kept"
    return replace(verdict, state=RolloutState.PAUSED, message=message)
