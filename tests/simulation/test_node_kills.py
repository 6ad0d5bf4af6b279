"""What if a node's daemon is killed at any one of its steps? All of them are tried in turn.

A step is what outlives the daemon: a write to its disk, a call that changes the engine. The life
of some tasks (start, crash, restart, stop, replacement) is played once to count the steps; then
again for each of them, with a daemon that dies right before it, and with one that dies right after
it. The next daemon must find its way: no task with two containers, none without a task, none gone
back.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dray.errors import DrayError, Unavailable
from dray.model import AttemptState, ImageOptions
from node.agent.assign import Share
from node.agent.disk import Disk
from node.runtime.base import (
    ContainerRequest,
    Created,
    Pulled,
    PullProgress,
    Refused,
    RegistryCredentials,
    Started,
)
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine
from tests.node_agent import task_id
from tests.node_machine import MEMORY, Machine, settle

T = TypeVar("T")
STEPS_MIN = 30  # of the story below; fewer would mean that they are not counted


class Death:
    """When a daemon dies: before or after its n-th step."""

    def __init__(self, at: int, *, is_after: bool) -> None:
        """Die at this step, from 1; 0: never."""
        self.at, self.is_after = at, is_after
        self.steps = 0
        self.is_dead = False
        self.came = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def begin(self) -> int:
        """Return the number of a step that begins; 0: the daemon is dead."""
        if self.is_dead:
            return 0
        self.steps += 1
        if self.steps == self.at and not self.is_after:
            self._die()
            return 0
        return self.steps

    def end(self, number: int) -> None:
        """Note that a step is done."""
        if number == self.at and self.is_after:
            self._die()

    def _die(self) -> None:
        self.is_dead = True
        self._loop.call_soon_threadsafe(self.came.set)


class MortalDisk(Disk):
    """A disk on which a dead daemon writes nothing."""

    def __init__(self, folder: Path, death: Death) -> None:
        """Write in a folder until death."""
        super().__init__(folder)
        self._death = death

    def write_share(self, share: Share) -> None:
        """Keep what the node should run."""
        self._step(lambda: Disk.write_share(self, share))

    def write_tasks(self, data: bytes) -> None:
        """Keep what is known of the tasks."""
        self._step(lambda: Disk.write_tasks(self, data))

    def _step(self, write: Callable[[], None]) -> None:
        number = self._death.begin()
        if not number:
            raise Unavailable("the daemon is dead")
        write()
        self._death.end(number)


class MortalRuntime(FakeRuntime):
    """A runtime through which a dead daemon changes nothing and hears nothing."""

    def __init__(self, engine: FakeEngine, death: Death) -> None:
        """Speak to an engine until death."""
        super().__init__(engine)
        self._death = death

    async def pull(
        self,
        image: ImageOptions,
        *,
        credentials: RegistryCredentials | None = None,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> Pulled | Refused:
        """Bring an image to the node."""
        return await self._step(super().pull(image, credentials=credentials, progress=progress))

    async def create(self, request: ContainerRequest) -> Created | Refused:
        """Make a container."""
        return await self._step(super().create(request))

    async def start(self, container_id: str) -> Started | Refused:
        """Start a container."""
        return await self._step(super().start(container_id))

    async def stop(self, container_id: str, *, signal: str, grace_s: float) -> None:
        """Stop a container."""
        await self._step(super().stop(container_id, signal=signal, grace_s=grace_s))

    async def remove(self, container_id: str) -> None:
        """Remove a container."""
        await self._step(super().remove(container_id))

    async def _step(self, call: Coroutine[Any, Any, T]) -> T:
        number = self._death.begin()
        if not number:
            call.close()
            await asyncio.get_running_loop().create_future()
        done = await call
        self._death.end(number)
        if self._death.is_dead:
            await asyncio.get_running_loop().create_future()
        return done


class MortalMachine(Machine):
    """A machine whose first daemon dies at a step; the next one lives."""

    death: Death | None = None

    def dies(self, death: Death) -> None:
        """Let the next daemon die so."""
        self.death = death
        self.connect = lambda: MortalRuntime(self.engine, death)

    def lives(self) -> None:
        """Let the next daemon live."""
        self.death = None
        self.connect = lambda: FakeRuntime(self.engine)

    def disk(self) -> Disk:
        """Return the disk of a new daemon."""
        return super().disk() if self.death is None else MortalDisk(self.folder, self.death)


async def story(machine: Machine) -> None:
    """Start, crash, restart, stop and replace tasks."""
    await machine.share(frozenset({1, 2}))
    await settle(machine)
    machine.crash(0)
    await machine.until(
        lambda: any(report.attempt == 2 for report in machine.agent.book.reports.values()),
        "a second attempt",
    )
    await settle(machine)
    await machine.share(frozenset({2}))
    await settle(machine)
    await machine.share(frozenset({1, 2}))
    await settle(machine)
    await machine.share(frozenset())
    await settle(machine)


def lived(folder: Path, at: int, *, is_after: bool) -> int:
    """Play the story with a daemon that dies at a step, and the next one; return its steps."""
    return asyncio.run(_lived(MortalMachine(folder), at, is_after=is_after))


async def _lived(machine: MortalMachine, at: int, *, is_after: bool) -> int:
    death = Death(at, is_after=is_after)
    machine.dies(death)
    async with machine.daemon():
        telling = asyncio.create_task(story(machine))
        dying = asyncio.create_task(death.came.wait())
        await asyncio.wait({telling, dying}, return_when=asyncio.FIRST_COMPLETED)
        for task in (telling, dying):
            task.cancel()
        await asyncio.wait({telling, dying})
        if not telling.cancelled():
            failure = telling.exception()
            if failure is not None and not (death.is_dead and isinstance(failure, DrayError)):
                raise failure
    if at:
        assert death.is_dead, f"there is no step {at}"
        machine.lives()
        async with machine.daemon():
            await machine.share(frozenset(machine.wanted))  # a leader repeats what stands
            await settle(machine)
            await machine.share(frozenset())
            await settle(machine)
    assert all(
        machine.seen.get(task_id(number), (1, AttemptState.PENDING))[0] <= 3 for number in range(9)
    ), "attempts were begun that nothing asked for"
    return death.steps


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_daemon_may_die_at_any_step(is_after: bool) -> None:
    """Whatever was done last, the next daemon ends where the last assignment says."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        steps = lived(Path(folder) / "0", 0, is_after=is_after)
        assert steps >= STEPS_MIN
        for at in range(1, steps - 2):  # the last writes are coalesced: their number varies
            try:
                lived(Path(folder) / f"{at}", at, is_after=is_after)
            except AssertionError as error:
                if str(error).startswith("there is no step"):
                    break
                error.add_note(f"killed at step {at} of {steps}")
                raise
