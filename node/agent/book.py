"""What does the node know of its tasks, and since when is that safe on the disk?

The one owner of all `TaskState`s. Every event goes through `apply`; whoever waits for news is
woken. What the leader is told is what the disk holds, so that (attempt, state) never goes back, not
even when the daemon is killed between a step and its write. Writes are coalesced: a hundred steps
at once are one write.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from dray.clock import Clock
from dray.errors import DrayError
from dray.log import Logger
from dray.model import AttemptReport, AttemptState, RestartPolicy, ServiceKey
from dray.names import TaskId
from node.agent.assign import Share
from node.agent.stored import pack_task, pack_tasks
from node.agent.tasks import (
    REASON_LENGTH_MAX,
    Event,
    Now,
    TaskRules,
    TaskState,
    attempt_report,
    step,
)

__all__ = ["Book", "Signal"]

_WRITE_PAUSE_S = 0.01  # s: what happens meanwhile is one write
_WRITE_AGAIN_S = 1.0  # s between two tries while the disk takes nothing
_NO_RULES = TaskRules(RestartPolicy(delay_s=0.0))  # it waits for an assignment before it begins


class Signal:
    """A number that only grows, and waiting for it to be higher."""

    def __init__(self) -> None:
        self.number = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def send(self) -> None:
        """Raise the number and wake all who wait."""
        self.number += 1
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, after: int) -> int:
        """Return the number once it is above `after`."""
        while self.number <= after:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return self.number


@dataclass(frozen=True, slots=True)
class _Entry:
    """A task as it goes to the disk and to the leader; made once for each of its states."""

    state: TaskState
    report: AttemptReport
    packed: str


class Book:
    """All tasks of the node."""

    def __init__(self, clock: Clock, log: Logger, write: Callable[[bytes], None]) -> None:
        """Begin with no task.

        Args:
            clock: Dates what happens.
            log: Gets a line for every change of state.
            write: Puts the packed tasks on the disk; blocks; raises `DrayError`.
        """
        self._clock = clock
        self._log = log
        self._write = write
        self._boot_id = ""
        self._states: dict[TaskId, TaskState] = {}
        self._rules: dict[TaskId, TaskRules] = {}
        self._entries: dict[TaskId, _Entry] = {}
        self._persisted: dict[TaskId, AttemptReport] = {}
        self._persisted_number = -1
        self._writing = asyncio.Lock()
        self.orphans: frozenset[TaskId] = frozenset()
        self.changed = Signal()
        """Something about some task is new."""
        self.persisted = Signal()
        """What is on the disk is new."""

    @property
    def states(self) -> Mapping[TaskId, TaskState]:
        """All tasks."""
        return MappingProxyType(self._states)

    @property
    def reports(self) -> Mapping[TaskId, AttemptReport]:
        """What the disk holds of each task, as the leader is told."""
        return MappingProxyType(self._persisted)

    def now(self) -> Now:
        """Return the time on both clocks."""
        return Now(self._clock.monotonic_s(), self._clock.unix_s())

    def load(self, states: Iterable[TaskState], orphans: Iterable[TaskId], boot_id: str) -> None:
        """Take over the tasks that a former daemon left; the kernel's boot id goes with them."""
        self._boot_id = boot_id
        self._states = {state.task_id: state for state in states}
        self.orphans = frozenset(orphans) & self._states.keys()
        self.changed.send()

    def set_rules(self, share: Share) -> None:
        """Learn the rules of the share's tasks."""
        for task in share.assignment.tasks:
            entry = share.entry(task)
            self._rules[task.task_id] = TaskRules(entry.template.restart, is_job=entry.is_job)

    def rules(self, task_id: TaskId) -> TaskRules:
        """Return the rules of a task; the usual ones when its revision is not known."""
        return self._rules.get(task_id, _NO_RULES)

    def add(self, state: TaskState) -> None:
        """Begin a task."""
        assert state.task_id not in self._states, state
        self._states[state.task_id] = state
        self.changed.send()

    def apply(self, task_id: TaskId, event: Event) -> TaskState:
        """Fold an event into a task; return its state after it."""
        before = self._states[task_id]
        after = step(before, event, self.rules(task_id), self.now())
        if after is not before:
            self._states[task_id] = after
            self._tell(before, after)
            self.changed.send()
        return after

    def put(self, state: TaskState) -> None:
        """Replace what is known of a task by a later state of it."""
        before = self._states[state.task_id]
        assert state.version >= before.version, (before, state)
        if state != before:
            self._states[state.task_id] = state
            self.changed.send()

    def note(self, task_id: TaskId, reason: str) -> None:
        """Say why a waiting task waits."""
        state = self._states[task_id]
        if state.state is AttemptState.PENDING and state.reason != reason:
            self._states[task_id] = replace(state, reason=reason[:REASON_LENGTH_MAX])
            self.changed.send()

    def remove(self, task_id: TaskId) -> None:
        """Forget a task."""
        self._states.pop(task_id, None)
        self._rules.pop(task_id, None)
        self.orphans -= {task_id}
        self.changed.send()

    def by_service(self) -> Mapping[ServiceKey, list[TaskState]]:
        """Return the tasks by service."""
        found: defaultdict[ServiceKey, list[TaskState]] = defaultdict(list)
        for state in self._states.values():
            found[state.slot.service_key].append(state)
        return found

    def _tell(self, before: TaskState, after: TaskState) -> None:
        if after.version == before.version:
            return
        slot = after.slot
        failed = after.state in (AttemptState.FAILED, AttemptState.REJECTED)
        write = self._log.warning if failed else self._log.info
        write(
            "task changed",
            task_id=after.task_id,
            project=slot.project,
            slot=f"{slot.service}.{slot.slot}",
            attempt=after.attempt,
            outcome=after.state.name.lower(),
            reason=after.reason,
        )

    # ---- on the disk -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what changed, for as long as the daemon runs; a full disk is tried again.

        Raises:
            DrayError: The disk fails for good.
        """
        number = -1
        while True:
            number = await self.changed.wait(number)
            await asyncio.sleep(_WRITE_PAUSE_S)
            try:
                await self.flushed()
            except DrayError as error:
                if not error.retryable:
                    raise
                self._log.warning("tasks are not on the disk", error=str(error))
                await self._clock.sleep(_WRITE_AGAIN_S)
                number = -1

    async def flushed(self) -> None:
        """Return once all that has happened so far is on the disk.

        Many callers at once are one write: whoever waited for another one's finds it done.

        Raises:
            DrayError: The disk does not take it (retryable).
        """
        wanted = self.changed.number
        async with self._writing:
            if self._persisted_number >= wanted:
                return
            number = self.changed.number
            self._entries = {
                task_id: entry
                if (entry := self._entries.get(task_id)) is not None and entry.state is state
                else _Entry(state, attempt_report(state), pack_task(state))
                for task_id, state in self._states.items()
            }
            reports = {task_id: entry.report for task_id, entry in self._entries.items()}
            packed = [entry.packed for entry in self._entries.values()]
            data = pack_tasks(packed, self.orphans, self._boot_id)
            try:
                await asyncio.to_thread(self._write, data)
            except DrayError as error:
                self._persisted = _behind(self._persisted, reports, str(error))
                self.persisted.send()
                raise
            self._persisted = reports
            self._persisted_number = number
        self.persisted.send()


def _behind(
    persisted: Mapping[TaskId, AttemptReport], now: Mapping[TaskId, AttemptReport], why: str
) -> dict[TaskId, AttemptReport]:
    """Return what the leader is told while the disk takes nothing: the old states, and why."""
    told = {}
    for task_id, before in persisted.items():
        after = now.get(task_id)
        is_new = after is not None and (after.attempt, after.state) > (before.attempt, before.state)
        told[task_id] = replace(before, reason=why[:REASON_LENGTH_MAX]) if is_new else before
    return told
