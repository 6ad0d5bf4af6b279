"""What if a node's daemon is killed at any one of its steps? All of them are tried in turn.

A step is what outlives the daemon: a write to its disk, a call that changes the engine. The life
of some tasks (start with a volume and a hook, crash, restart, failed health, stop, replacement) is
played once to count the steps; then again for each of them, with a daemon that dies right before
it, and with one that dies right after it. The next daemon must find its way: no task with two
containers, none without a task, none gone back. That the checks bite is shown by daemons that are
broken on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import tempfile
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
)
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dray.errors import DrayError, Unavailable
from dray.model import (
    AttemptState,
    Health,
    Hook,
    ImageOptions,
    Mount,
    MountKind,
    ProjectParts,
    RestartPolicy,
    VolumeSpec,
)
from dray.names import ClusterId
from node.agent.assign import Share
from node.agent.disk import Disk
from node.runtime.base import (
    Container,
    ContainerRequest,
    Created,
    ExecRequest,
    ExecSession,
    Pulled,
    PullProgress,
    Refused,
    RegistryCredentials,
    Started,
    VolumeRequest,
)
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine
from tests.node_agent import an_entry, task_id
from tests.node_machine import MEMORY, Machine, settle

T = TypeVar("T")
STEPS_MIN = 30  # of the story below; fewer would mean that they are not counted
ATTEMPTS_MAX = 5  # of a task in it; a death may cost one
STEPS = {
    *("write_share", "write_tasks", "pull", "ensure_volume", "create"),
    *("start", "exec", "stop", "remove"),
}
STATES = frozenset(AttemptState) - {AttemptState.COMPLETED, AttemptState.REJECTED}


class Death:
    """When a daemon dies: before or after its n-th step."""

    def __init__(self, at: int, *, is_after: bool) -> None:
        """Die at this step, from 1; 0: never."""
        self.at, self.is_after = at, is_after
        self.steps = 0
        self.step = ""
        """The step at which it died."""
        self.states: set[AttemptState] = set()
        """Those of its tasks at that moment."""
        self.look: Callable[[], set[AttemptState]] = set
        self.is_dead = False
        self.came = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def begin(self, name: str) -> int:
        """Return the number of a step that begins; 0: the daemon is dead."""
        if self.is_dead:
            return 0
        self.steps += 1
        if self.steps == self.at:
            self.step, self.states = name, self.look()
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
        self._step("write_share", lambda: Disk.write_share(self, share))

    def write_tasks(self, data: bytes) -> None:
        """Keep what is known of the tasks."""
        self._step("write_tasks", lambda: Disk.write_tasks(self, data))

    def _step(self, name: str, write: Callable[[], None]) -> None:
        number = self._death.begin(name)
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
        pulling = super().pull(image, credentials=credentials, progress=progress)
        return await self._step("pull", pulling)

    async def ensure_volume(self, request: VolumeRequest) -> Refused | None:
        """Make a volume."""
        return await self._step("ensure_volume", super().ensure_volume(request))

    async def create(self, request: ContainerRequest) -> Created | Refused:
        """Make a container."""
        return await self._step("create", super().create(request))

    async def start(self, container_id: str) -> Started | Refused:
        """Start a container."""
        return await self._step("start", super().start(container_id))

    @contextlib.asynccontextmanager
    async def exec(self, container_id: str, request: ExecRequest) -> AsyncIterator[ExecSession]:
        """Run a hook."""
        number = self._death.begin("exec")
        if not number:
            await asyncio.get_running_loop().create_future()
        async with super().exec(container_id, request) as session:
            yield session
            self._death.end(number)
            if self._death.is_dead:
                await asyncio.get_running_loop().create_future()

    async def stop(self, container_id: str, *, signal: str, grace_s: float) -> None:
        """Stop a container."""
        await self._step("stop", super().stop(container_id, signal=signal, grace_s=grace_s))

    async def remove(self, container_id: str) -> None:
        """Remove a container."""
        await self._step("remove", super().remove(container_id))

    async def _step(self, name: str, call: Coroutine[Any, Any, T]) -> T:
        number = self._death.begin(name)
        if not number:
            call.close()
            await asyncio.get_running_loop().create_future()
        done = await call
        self._death.end(number)
        if self._death.is_dead:
            await asyncio.get_running_loop().create_future()
        return done


class Broken(enum.Enum):
    """What a daemon does wrong."""

    NAMES = "a container's name is another one whenever it is made"
    ADOPTION = "the next daemon does not see what runs"
    DISK = "the tasks are not on the disk when their daemon believes so"


class NamesAnew(MortalRuntime):
    """Makes every container under a name of its own: who comes next does not find it."""

    async def create(self, request: ContainerRequest) -> Created | Refused:
        """Make a container."""
        name = f"{request.name}-{len(self._engine.containers)}"
        return await super().create(replace(request, name=name))


class SeesNothing(FakeRuntime):
    """Shows no container that an earlier daemon has made."""

    def __init__(self, engine: FakeEngine) -> None:
        """Show nothing yet."""
        super().__init__(engine)
        self._made: set[str] = set()

    async def create(self, request: ContainerRequest) -> Created | Refused:
        """Make a container, which is shown."""
        made = await super().create(request)
        if isinstance(made, Created):
            self._made |= {made.container_id, request.name}
        return made

    async def inspect(self, container_id: str, *, seen_within_s: float = 0.0) -> Container | None:
        """Return a container of its own."""
        if container_id not in self._made:
            return None
        return await super().inspect(container_id, seen_within_s=seen_within_s)

    async def containers(
        self, cluster_id: ClusterId, *, but: Collection[str] = ()
    ) -> tuple[Container, ...]:
        """Return none."""
        return ()

    async def running(self, cluster_id: ClusterId) -> Mapping[str, Health]:
        """Return none."""
        return {}


class Forgets(MortalDisk):
    """Takes the tasks and keeps nothing of them."""

    def write_tasks(self, data: bytes) -> None:
        """Do as if they were kept."""
        self._step("write_tasks", lambda: None)


class MortalMachine(Machine):
    """A machine whose first daemon dies at a step; the next one lives."""

    def __init__(self, folder: Path, broken: Broken | None = None) -> None:
        """Make a machine whose daemons are broken so."""
        super().__init__(folder)
        self.death: Death | None = None
        self.broken = broken
        self.entry = an_entry(
            restart=RestartPolicy(delay_s=0.02),  # long enough for a write between two attempts
            mounts=(Mount(MountKind.VOLUME, "data", "/data"),),
            post_start=(Hook(("true",)),),
        )
        volume = VolumeSpec("data", "shop_data")
        self.parts = ProjectParts("shop", volumes=(volume,), creatable_volumes=("shop_data",))

    def dies(self, death: Death) -> None:
        """Let the next daemon die so."""
        self.death = death
        death.look = lambda: {each.state for each in self.agent.book.states.values()}
        kind = NamesAnew if self.broken is Broken.NAMES else MortalRuntime
        self.connect = lambda: kind(self.engine, death)

    def lives(self) -> None:
        """Let the next daemon live."""
        self.death = None
        kind = SeesNothing if self.broken is Broken.ADOPTION else FakeRuntime
        self.connect = lambda: kind(self.engine)

    def disk(self) -> Disk:
        """Return the disk of a new daemon."""
        if self.death is None:
            return super().disk()
        kind = Forgets if self.broken is Broken.DISK else MortalDisk
        return kind(self.folder, self.death)


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
    machine.sicken(0)
    await machine.until(
        lambda: sum(report.attempt for report in machine.agent.book.reports.values()) == 4,
        "an attempt after a failed check",
    )
    await settle(machine)
    await machine.share(frozenset({2}))
    await settle(machine)
    await machine.share(frozenset({1, 2}))
    await settle(machine)
    await machine.share(frozenset())
    await settle(machine)


def lived(machine: MortalMachine, at: int, *, is_after: bool) -> Death:
    """Play the story with a daemon that dies at a step, and the next one; return how it died."""
    return asyncio.run(_lived(machine, at, is_after=is_after))


async def _lived(machine: MortalMachine, at: int, *, is_after: bool) -> Death:
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
    if not at:
        return death
    if death.is_dead:
        machine.lives()
        async with machine.daemon():
            await machine.share(frozenset(machine.wanted))  # a leader repeats what stands
            await settle(machine)
            await machine.share(frozenset())
            await settle(machine)
    assert all(
        machine.seen.get(task_id(number), (1, AttemptState.PENDING))[0] <= ATTEMPTS_MAX
        for number in range(9)
    ), "attempts were begun that nothing asked for"
    return death


def deaths(
    folder: Path, *, is_after: bool, broken: Broken | None = None
) -> Iterator[tuple[int, Death]]:
    """Play the story once for each of its steps; yield its number and how the daemon died."""
    steps = lived(MortalMachine(folder / "0"), 0, is_after=is_after).steps
    assert steps >= STEPS_MIN
    for at in itertools.count(1):
        try:
            death = lived(MortalMachine(folder / f"{at}", broken), at, is_after=is_after)
        except AssertionError as error:
            error.add_note(f"killed at step {at} of {steps}")
            raise
        if not death.is_dead:
            # Writes are coalesced, so that their number varies a little.
            assert at > steps / 2, f"there is no step {at}"
            return
        yield at, death


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_daemon_may_die_at_any_step(is_after: bool) -> None:
    """Whatever was done last, the next daemon ends where the last assignment says."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        found = [death for _, death in deaths(Path(folder), is_after=is_after)]
    assert {death.step for death in found} == STEPS
    states = frozenset[AttemptState]().union(*(death.states for death in found))
    assert states >= STATES, STATES - states


@pytest.mark.parametrize("broken", Broken)
def test_the_checks_bite(broken: Broken) -> None:
    """A daemon that does one thing wrong is found out at one of its deaths.

    By which check depends on what the next one was doing when it died.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        played = deaths(Path(folder), is_after=True, broken=broken)
        with pytest.raises(AssertionError) as found:
            list(played)
    assert any(note.startswith("killed at step") for note in getattr(found.value, "__notes__", ()))
