"""How does one task get from command to command? One loop a task, around the pure machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from dray.clock import Clock
from dray.errors import DrayError, InternalError
from dray.model import AttemptState
from dray.names import TaskId
from node.agent.book import Book
from node.agent.requests import Work
from node.agent.steps import Steps
from node.agent.tasks import (
    Command,
    CommandKind,
    DeadlinePassed,
    Event,
    StepFailed,
    StepRefused,
    TaskState,
    WaitOver,
    command,
)
from node.runtime.base import PullProgress, Refusal, Refused

__all__ = ["Surroundings", "TaskRunner"]

_INTERRUPTIBLE: Final = frozenset({CommandKind.WAIT, CommandKind.PULL, CommandKind.WATCH})
"""Commands that end at once when the task is told to end.

Making and starting a container are not: who leaves them half done does not know what there is.
"""


class Surroundings(Protocol):
    """What a task's loop needs to know of the node."""

    def work(self, state: TaskState) -> Work:
        """Return what the task's newest attempt runs."""
        ...

    def is_listed(self, task_id: TaskId) -> bool:
        """Return whether the node's share lists the task."""
        ...

    async def may_start(self, task_id: TaskId) -> None:
        """Return once the node may begin an attempt of the task: gate open, dependencies there."""
        ...

    def progress(self, reference: str, progress: PullProgress | None) -> None:
        """Note how far an image is; None: it is there, or given up."""
        ...


class TaskRunner:
    """Runs one task until it is forgotten."""

    def __init__(
        self, task_id: TaskId, book: Book, steps: Steps, surroundings: Surroundings, clock: Clock
    ) -> None:
        """Make a runner of a task that the book knows."""
        self.task_id = task_id
        self._book = book
        self._steps = steps
        self._around = surroundings
        self._clock = clock
        self._scope: asyncio.Timeout | None = None
        self._actions: dict[CommandKind, Callable[[TaskState], object]] = {}

    def poke(self) -> None:
        """Look at the task again, because somebody else changed it."""
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Carry out one command after the other until the task is forgotten."""
        while (state := self._book.states.get(self.task_id)) is not None:
            now = command(state)
            if now.kind is CommandKind.REST:
                if await self._rest(state):
                    return
                continue
            event = await self._carry_out(now, state)
            if event is not None and self.task_id in self._book.states:
                self._book.apply(self.task_id, event)

    async def _carry_out(self, now: Command, state: TaskState) -> Event | None:
        """Return what came of a command; None: it was interrupted."""
        try:
            if now.kind in _INTERRUPTIBLE:
                return await self._interruptible(now, state)
            return await self._timed(now, state)
        except InternalError:
            raise
        except DrayError as error:
            if error.retryable:
                return StepFailed(str(error))
            return StepRefused(Refused(Refusal.OTHER, str(error)))

    async def _interruptible(self, now: Command, state: TaskState) -> Event | None:
        try:
            async with asyncio.timeout(None) as self._scope:
                await self._pause(now)
                return await self._do(now.kind, state)
        except TimeoutError:
            return None
        finally:
            self._scope = None

    async def _timed(self, now: Command, state: TaskState) -> Event | None:
        if not await self._paused(now):
            return None
        if now.kind is CommandKind.STOP:
            return await self._steps.stop(self._around.work(state), state)
        assert now.deadline_at_s is not None, state
        left_s = now.deadline_at_s - self._clock.monotonic_s()
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                return await self._do(now.kind, state)
        except TimeoutError:
            return DeadlinePassed()

    async def _paused(self, now: Command) -> bool:
        """Wait until the command is due; return False if the task is to be looked at before."""
        try:
            async with asyncio.timeout(None) as self._scope:
                await self._pause(now)
                return True
        except TimeoutError:
            return False
        finally:
            self._scope = None

    async def _pause(self, now: Command) -> None:
        """Wait until the command is due."""
        left_s = now.until_at_s - self._clock.monotonic_s()
        if left_s > 0:
            await self._clock.sleep(left_s)

    async def _do(self, kind: CommandKind, state: TaskState) -> Event | None:
        work = self._around.work(state)
        match kind:
            case CommandKind.WAIT:
                if state.state is AttemptState.PENDING:
                    await self._around.may_start(self.task_id)
                return WaitOver()
            case CommandKind.PULL:
                return await self._pull(work)
            case CommandKind.CREATE:
                await self._book.flushed()  # the number of the attempt, before a container has it
                await self._steps.clean_former(work)
                return await self._steps.create(work)
            case CommandKind.START:
                return await self._steps.start(work, state)
            case CommandKind.WATCH:
                return await self._steps.watch(state)
            case CommandKind.STOP | CommandKind.REST:
                raise AssertionError(kind)

    async def _pull(self, work: Work) -> Event:
        reference = work.entry.template.container.image.reference

        def note(progress: PullProgress) -> None:
            self._around.progress(reference, progress)

        try:
            return await self._steps.pull(work, note)
        finally:
            self._around.progress(reference, None)

    async def _rest(self, state: TaskState) -> bool:
        """Wait for news of an ended task; return whether it was forgotten."""
        if self._around.is_listed(self.task_id) or self.task_id in self._book.orphans:
            try:
                async with asyncio.timeout(None) as self._scope:
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                return False
            finally:
                self._scope = None
        try:
            await self._book.flushed()
            await self._steps.forget(self._around.work(state), state)
        except DrayError as error:
            if not error.retryable:
                raise
            await self._clock.sleep(1.0)
            return False
        if self._around.is_listed(self.task_id):
            return False  # it came back meanwhile
        self._book.remove(self.task_id)
        return True
