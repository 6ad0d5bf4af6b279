"""What does the leader do, again and again? Snapshot, reconcile, place, commit, dispatch.

A round is woken by the store, by a report of a node, by the time that the last plan named, and
every `FULL_EVERY_S` in any case. It plans from whole state, so that a lost wake-up costs a delay
and never a result. Planning runs in a worker thread: nodes' streams are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import ChainMap, Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, cast

from dray.clock import Clock
from dray.errors import AmbiguousWrite, DrayError
from dray.log import CanonicalLine, Logger, canonical_line
from dray.model import Assignment, SlotKey, StoreRevision
from dray.names import IdFactory
from dray.retry import Backoff
from dray.views import RoundStatus
from scheduler.api.events import EVENT_DRAFTS_MAX, EventDraft, appended, desired_events
from scheduler.election.election import LeaderTerm
from scheduler.loops.commit import (
    KEYS_MAX,
    Batch,
    batches_of,
    fences_of,
    operation_batches,
    verdict_batches,
)
from scheduler.loops.dirty import Dirty
from scheduler.loops.dispatch import Dispatch
from scheduler.loops.fleet import Fleet
from scheduler.loops.plan import RoundPlan, plan_round
from scheduler.loops.steps import Step
from scheduler.loops.tell import condition_events, leader_event, pending_of, round_events
from scheduler.metrics import Metrics
from scheduler.nodes.streams import NodeStreams
from scheduler.placement import PlacementRules
from scheduler.reconcile import (
    CreateTask,
    ForgetTask,
    MoveTask,
    Scope,
    StopTask,
    VolumeRemoval,
    subject_of,
)
from scheduler.reconcile.removed import AGAIN_S
from scheduler.store.base import Committed, Conflict, Put, Store, Txn
from scheduler.store.keys import LEADER, assignment_key
from scheduler.store.mirror import Mirror
from scheduler.store.records import VolumePin
from scheduler.store.snapshot import Snapshot, VolumeKey

__all__ = ["DEBOUNCE_S", "FULL_EVERY_S", "Rounds"]

DEBOUNCE_S: Final = 0.02  # what comes together is planned together
FULL_EVERY_S: Final = 60.0  # everything is looked at, dirty or not
FULL_SHARE: Final = 20  # or this many times as long as one takes, when the cluster is large
CONFLICTS_MAX: Final = 5  # of one round; the next one starts from the same state
CATCH_UP_S: Final = 2.0  # for the mirror to show what a conflict named
# After rounds that the store refused. Longer than a round takes, short beside a slot that waits.
FAILED_PAUSE: Final = Backoff(first_s=0.5, max_s=2.0)


class _End(enum.Enum):
    """How a commit ended."""

    DONE = 1
    CONFLICT = 2
    DEPOSED = 3


@dataclass(slots=True)
class _Outcome:
    """What came of committing a plan.

    Attributes:
        revisions: Mod revisions of keys: those that were written, then the snapshot's.
        revision: The store's revision after it.
        steps: What was carried out in this round.
        pins: Volumes that were pinned.
    """

    revisions: ChainMap[str, StoreRevision]
    revision: StoreRevision
    steps: list[Step]
    pins: dict[VolumeKey, VolumePin] = field(default_factory=dict)


class Rounds:
    """The rounds of one term."""

    def __init__(
        self,
        term: LeaderTerm,
        *,
        store: Store,
        mirror: Mirror,
        streams: NodeStreams,
        executor: ThreadPoolExecutor,
        ids: IdFactory,
        leader_name: str,
        on_news: Callable[[RoundStatus | None], None],
        metrics: Metrics,
        clock: Clock,
        log: Logger,
        rules: PlacementRules | None = None,
        keys_max: int = KEYS_MAX,
    ) -> None:
        """Describe the rounds; `run` makes them.

        Args:
            term: What is led.
            store: Where commits go.
            mirror: The store's content.
            streams: What nodes report, and where assignments go.
            executor: One thread for planning.
            ids: Makes ids of tasks.
            leader_name: The address of this scheduler, for people.
            on_news: Told when reports have come, and of every round.
            metrics: Counts.
            clock: Its clocks.
            log: Gets one line a round.
            rules: What the operator said of placement; None: nothing.
            keys_max: Assignments and pins of one transaction, at most.
        """
        self._term = term
        self._store = store
        self._mirror = mirror
        self._streams = streams
        self._executor = executor
        self._ids = ids
        self._on_news = on_news
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._keys_max = keys_max
        self._fleet = Fleet(rules)
        self._dirty = Dirty()
        self._full_at_s = 0.0  # when everything is looked at; infinite: it is being looked at
        self._full_took_s = 0.0
        self._scope = Scope({}, frozenset())
        self._batches: list[Batch] = []
        self._told_steps = 0  # of this round, those whose events are drafted
        self._dispatch = Dispatch(streams, clock)
        self._seen = StoreRevision(-1)
        # A plan from before the election, or from before the last commit, would do things twice.
        self._committed = StoreRevision(term.epoch.create_revision)
        self._before: Snapshot | None = None
        self._pending: dict[SlotKey, str] = {}
        self._notes: dict[str, str] = {}
        self._removed_at_s: dict[VolumeRemoval, float] = {}
        self._wake_at_unix_s: float | None = None
        epoch = term.epoch
        shown = f"{epoch.generation}/{epoch.create_revision}"
        self._drafts: list[EventDraft] = [leader_event(leader_name, shown)]

    @property
    def pending(self) -> Mapping[SlotKey, str]:
        """Why slots had no node in the last round: one sentence each. Replaced, never changed."""
        return self._pending

    @property
    def notes(self) -> Mapping[str, str]:
        """What the last plan left alone or let wait, by subject: "shop/web". Replaced as well."""
        return self._notes

    async def run(self) -> None:
        """Make rounds until cancelled."""
        reason = "elected"
        failures = 0
        while True:
            written = self._committed
            try:
                if await self._round(reason) is _End.DEPOSED:
                    self._log.warning("commit was fenced off", reason="another scheduler leads")
                    await asyncio.Event().wait()  # the election ends the term
            except DrayError as error:
                if not (error.retryable or isinstance(error, AmbiguousWrite)):
                    self._log.error("round failed", error=str(error), error_code=error.code.name)
                # A round that wrote something came forward: the store is there, if unreliable.
                failures = 1 if self._committed > written else failures + 1
                await self._clock.sleep(FAILED_PAUSE.step_s(failures))
                reason = "last round failed"
                continue
            failures = 0
            reason = await self._wait()
            await self._clock.sleep(DEBOUNCE_S)

    async def _wait(self) -> str:
        """Return what woke the next round."""
        if self._dirty.has_more:
            return "more"
        pause_s = FULL_EVERY_S
        if self._wake_at_unix_s is not None:
            pause_s = min(pause_s, max(0.0, self._wake_at_unix_s - self._clock.unix_s()))
        reasons = {
            asyncio.create_task(self._mirror.wait_changed(self._seen)): "store",
            asyncio.create_task(self._streams.wait_changed()): "reports",
            asyncio.create_task(self._clock.sleep(pause_s)): "time",
        }
        try:
            done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in reasons:
                task.cancel()
            await asyncio.wait(reasons)
        return "+".join(sorted(reasons[task] for task in done))

    async def _round(self, reason: str) -> _End:
        """Plan and commit until nothing is in the way; log one line."""
        start_s = self._clock.monotonic_s()
        conflicts = 0
        done: list[Step] = []
        self._told_steps = 0
        self._on_news(None)
        with canonical_line(self._log, "round", self._clock, reason=reason) as line:
            while True:
                await self._mirror.wait_revision(self._committed)
                snapshot = self._mirror.snapshot
                self._seen = snapshot.revision
                await self._dispatch.catch_up(snapshot)
                planned = await self._planned(snapshot)
                revisions = ChainMap({}, cast("dict[str, StoreRevision]", snapshot.mod_revisions))
                outcome = _Outcome(revisions, snapshot.revision, done)
                end = await self._commit(planned, outcome)
                if end is not _End.CONFLICT or conflicts == CONFLICTS_MAX:
                    break
                conflicts += 1
                await self._catch_up(outcome.revision)
            status = _status(planned, outcome, self._clock, start_s, conflicts, reason)
            _describe(line, planned, status, outcome)
        if end is _End.DONE:
            self._notes = self._notes_after(planned)
            is_timed = planned.plan.wake_at_unix_s is not None
            self._dirty.done(self._scope, planned.waiting, planned.left, is_timed=is_timed)
            if self._full_at_s == math.inf and not self._dirty.is_sweeping:
                pause_s = max(FULL_EVERY_S, FULL_SHARE * self._full_took_s)
                self._full_at_s = self._clock.monotonic_s() + pause_s
        self._metrics.observe_round(status)
        self._on_news(status)
        return end

    async def _planned(self, snapshot: Snapshot) -> RoundPlan:
        """Return the plan, made in the worker thread."""
        observed = self._streams.observations.observed()
        now_unix_s = self._clock.unix_s()
        is_full = self._clock.monotonic_s() >= self._full_at_s
        wake_at_unix_s = self._wake_at_unix_s
        is_time = wake_at_unix_s is not None and now_unix_s >= wake_at_unix_s

        def plan() -> tuple[Scope, RoundPlan, list[Batch]]:
            scope = self._dirty.scope(snapshot, observed, is_full=is_full, is_time=is_time)
            planned = plan_round(
                snapshot,
                observed,
                self._fleet,
                epoch=self._term.epoch,
                now_unix_s=now_unix_s,
                ids=self._ids,
                scope=scope,
            )
            batches = batches_of(snapshot, planned.steps, self._term.epoch, keys_max=self._keys_max)
            return scope, planned, list(batches)

        start_s = self._clock.monotonic_s()
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._executor, plan)
        self._scope, planned, self._batches = answer
        named = [planned.plan.wake_at_unix_s, None if is_time else wake_at_unix_s]
        self._wake_at_unix_s = min((each for each in named if each is not None), default=None)
        if is_full:
            self._full_at_s, self._full_took_s = math.inf, 0.0
        self._full_took_s += self._clock.monotonic_s() - start_s
        return planned

    async def _commit(self, planned: RoundPlan, outcome: _Outcome) -> _End:
        """Write verdicts, then steps, then events; what is written is told to nodes at once."""
        snapshot = planned.snapshot
        for batch in (*verdict_batches(snapshot, planned.plan.verdicts), *self._batches):
            if (end := await self._write(planned, batch, outcome)) is not _End.DONE:
                return end
        if (end := await self._remove_volumes(planned)) is not _End.DONE:
            return end
        return await self._tell(planned, outcome)

    async def _remove_volumes(self, planned: RoundPlan) -> _End:
        """Tell nodes which volumes go with their project, if this is still the leader.

        Data that is gone does not come back: the fence is asked although nothing is written.
        """
        now_s = self._clock.monotonic_s()
        asked = planned.plan.removals
        known = self._removed_at_s
        due = [each for each in asked if now_s - known.get(each, -math.inf) >= AGAIN_S]
        if due:
            answer = await self._commit_txn(Txn(fences_of(planned.snapshot, self._term.fence), ()))
            if isinstance(answer, Conflict):
                return self._why(answer)
        for each in due:
            self._streams.remove_volumes(each.node_id, each.project, each.names)
        self._removed_at_s = {each: known.get(each, now_s) for each in asked}
        self._removed_at_s |= dict.fromkeys(due, now_s)
        return _End.DONE

    async def _write(self, planned: RoundPlan, batch: Batch, outcome: _Outcome) -> _End:
        """Commit one batch and note what it made."""
        fences = fences_of(planned.snapshot, self._term.fence)
        values = {each.key: each.value for each in batch.operations if isinstance(each, Put)}
        for assignment in batch.assignments:
            key = assignment_key(assignment.node_id)
            self._mirror.expect(key, values[key], assignment)
        answer = await self._commit_txn(batch.txn(fences, outcome.revisions))
        outcome.revision = answer.revision
        if isinstance(answer, Conflict):
            return self._why(answer)
        for operation in batch.operations:
            outcome.revisions[operation.key] = StoreRevision(0)  # gone, unless it was put
        outcome.revisions.update(dict.fromkeys(batch.keys, answer.revision))
        outcome.steps += batch.steps
        self._metrics.observe_tasks(**_counts(batch.steps))
        for step in batch.steps:
            outcome.pins.update({VolumeKey(p.project, p.volume): p for _, p in step.pins})
        written = [replace(each, mod_revision=answer.revision) for each in batch.assignments]
        await self._push(planned.snapshot, written, outcome)
        return _End.DONE

    async def _push(self, snapshot: Snapshot, written: list[Assignment], outcome: _Outcome) -> None:
        if written:
            await self._dispatch.committed(snapshot, written, outcome.pins)

    async def _commit_txn(self, txn: Txn) -> Committed | Conflict:
        """Commit; when the answer is lost, wait until the mirror shows what became of it."""
        start_s, before = self._clock.monotonic_s(), self._mirror.revision
        try:
            answer = await self._store.commit(txn)
        except AmbiguousWrite:
            reading = await self._store.get(LEADER)
            await self._catch_up(reading.revision)
            raise
        self._metrics.observe_commit(self._clock.monotonic_s() - start_s)
        if isinstance(answer, Committed):
            self._committed = answer.revision
        self._mirror.saw_revision(answer.revision, before)
        return answer

    def _why(self, conflict: Conflict) -> _End:
        """Return whether a conflict means that this scheduler leads no longer."""
        fence = self._term.fence
        for item in conflict.current:
            if item.key == fence.key and item.create_revision == fence.revision:
                return _End.CONFLICT
        return _End.DEPOSED

    async def _catch_up(self, revision: StoreRevision) -> None:
        """Wait until the mirror shows a revision, a bounded time."""
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self._mirror.wait_revision(revision)
        except TimeoutError:
            self._log.warning("mirror is behind", revision=revision)

    async def _tell(self, planned: RoundPlan, outcome: _Outcome) -> _End:
        """Store events of what was asked, reported and done since the last round."""
        snapshot = planned.snapshot
        drafts = [*self._drafts]
        if self._before is not None:
            drafts += desired_events(self._before, snapshot)
        drafts += condition_events(snapshot, self._streams.take_changes())
        fresh_steps = outcome.steps[self._told_steps :]
        self._told_steps = len(outcome.steps)
        drafts += round_events(planned, fresh_steps[:EVENT_DRAFTS_MAX])
        pending, fresh = pending_of(planned, self._pending)
        if _all_known(planned):
            drafts += fresh
            self._pending = {**self._still_pending(snapshot), **pending}
        self._before = snapshot
        self._drafts = drafts[-EVENT_DRAFTS_MAX:]
        puts = appended(
            snapshot.events,
            self._drafts,
            now_unix_s=self._clock.unix_s(),
            events_max=snapshot.cluster.limits.events_max,
        )
        for batch in operation_batches(puts):
            if (end := await self._write(planned, batch, outcome)) is not _End.DONE:
                return end
        self._drafts = []
        return _End.DONE

    def _still_pending(self, snapshot: Snapshot) -> dict[SlotKey, str]:
        """Return the pending slots that this round did not look at, of services that still are."""
        looked = self._scope.services
        assert looked is not None, "a round looks at a part"
        return {
            slot: why
            for slot, why in self._pending.items()
            if slot.service_key not in looked and slot.service_key in snapshot.services
        }

    def _notes_after(self, planned: RoundPlan) -> dict[str, str]:
        """Return what is let wait, of this plan and of the services that it did not look at."""
        looked = self._scope.services
        assert looked is not None, "a round looks at a part"
        others = planned.snapshot.services.keys() - looked
        kept = {subject_of(key) for key in others} & self._notes.keys()
        found = {subject: self._notes[subject] for subject in kept}
        for note in planned.plan.notes:
            before = found.get(note.subject)
            found[note.subject] = f"{before}; {note.message}" if before else note.message
        return found


def _all_known(planned: RoundPlan) -> bool:
    """Return whether every node was judged: before that, a lack of room is no news."""
    nodes = planned.observed.nodes
    return all(node_id in nodes and nodes[node_id].info for node_id in planned.snapshot.nodes)


def _status(
    planned: RoundPlan,
    outcome: _Outcome,
    clock: Clock,
    start_s: float,
    conflicts: int,
    reason: str,
) -> RoundStatus:
    return RoundStatus(
        clock.unix_s(),
        clock.monotonic_s() - start_s,
        **_counts(outcome.steps),
        unplaced=planned.unplaced,
        conflicts=conflicts,
        reason=reason,
    )


def _counts(steps: Sequence[Step]) -> dict[str, int]:
    """Return how many tasks were created, stopped and moved."""
    done = Counter(type(step.action) for step in steps)
    return {"created": done[CreateTask], "stopped": done[StopTask], "moved": done[MoveTask]}


def _describe(
    line: CanonicalLine, planned: RoundPlan, status: RoundStatus, outcome: _Outcome
) -> None:
    """Add what was committed, and beside it how much the plan held."""
    line.add(
        **planned.plan.fields(),
        created=status.created,
        stopped=status.stopped,
        moved=status.moved,
        forgotten=sum(isinstance(step.action, ForgetTask) for step in outcome.steps),
        unplaced=status.unplaced,
        conflicts=status.conflicts,
        revision=outcome.revision,
    )
