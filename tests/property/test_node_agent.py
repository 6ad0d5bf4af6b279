"""Does a node keep its promises when its daemon is killed between any two steps?

The real agent runs on the fake engine; a script of assignments, crashes, kills and faults is drawn;
after each step the invariants are looked at, and at the end the node must be where its last
assignment says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dray.model import AttemptState, RestartPolicy
from dray.names import TaskId
from node.runtime.base import Refusal, Refused
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import Call, FakeEngine
from tests.node_agent import IMAGE, Rig, a_task, an_entry, task_id

SHM = Path("/dev/shm")  # noqa: S108  (a folder of its own there: each step is synced to the disk)
MEMORY = SHM if SHM.is_dir() else None
TASKS_MAX = 3
SHARES = st.frozensets(st.integers(1, TASKS_MAX))
STEPS = st.one_of(
    st.tuples(st.just("assign"), SHARES),
    st.tuples(st.just("turns"), st.integers(0, 12)),
    st.tuples(st.just("kill"), st.integers(0, 12)),
    st.tuples(st.just("crash"), st.integers(0, 5)),
    st.tuples(st.just("refuse"), st.sampled_from(Call)),
    st.tuples(st.just("away"), st.integers(0, 12)),
)


class Machine(Rig):
    """A machine with the fake engine, and what has been seen of its tasks."""

    def __init__(self, folder: Path) -> None:
        seconds = itertools.count(1_700_000_000)
        self.engine = FakeEngine(lambda: float(next(seconds)), images=[IMAGE])
        self.seen: dict[TaskId, tuple[int, AttemptState]] = {}
        self.wanted: dict[int, int] = {}
        self._numbers = itertools.count(1)
        super().__init__(folder, lambda: FakeRuntime(self.engine))

    def check(self) -> None:
        """Look at what must hold at every moment."""
        if self.running.done():
            self.running.result()
        running: set[TaskId] = set()
        for container in self.engine.containers.values():
            if container.is_running:
                owner = container.request.identity.task_id
                assert owner not in running, f"two containers of {owner} run"
                running.add(owner)
        for owner, report in self.agent.book.reports.items():
            version = (report.attempt, report.state)
            assert version >= self.seen.get(owner, version), f"{owner} went back to {version}"
            self.seen[owner] = version

    async def turns(self, count: int) -> None:
        """Let the daemon take some turns, looking after each."""
        for _ in range(count):
            await asyncio.sleep(0)
            self.check()

    def crash(self, number: int) -> None:
        """End one of the containers that run."""
        alive = [c.container_id for c in self.engine.containers.values() if c.is_running]
        if alive:
            self.engine.end(alive[number % len(alive)], 1)

    async def share(self, slots: frozenset[int]) -> None:
        """Assign a task for each of these slots; one that comes back is another task."""
        for slot in slots - self.wanted.keys():
            self.wanted[slot] = next(self._numbers)
        for slot in self.wanted.keys() - slots:
            del self.wanted[slot]
        entry = an_entry(restart=RestartPolicy(delay_s=0.0))
        tasks = [a_task(number) for number in sorted(self.wanted.values())]
        await self.assign(*tasks, entries=(entry,))

    def is_settled(self) -> bool:
        """Return whether exactly the wanted tasks run, and nothing is left of others."""
        known = self.agent.book.states
        owners = {c.request.identity.task_id for c in self.engine.containers.values()}
        alive = {
            c.request.identity.task_id for c in self.engine.containers.values() if c.is_running
        }
        wanted = {task_id(number) for number in self.wanted.values()}
        return known.keys() == wanted and owners == wanted == alive


async def play(machine: Machine, script: list[tuple[str, object]]) -> None:
    """Carry out a script, one daemon after another, and check where it ends."""
    left = list(script)
    while True:
        async with machine.daemon():
            if machine.revision:
                await machine.share(frozenset(machine.wanted))  # a leader repeats what stands
            while left:
                verb, what = left.pop(0)
                if verb == "kill":
                    assert isinstance(what, int)
                    await machine.turns(what)
                    break
                await act(machine, verb, what)
                machine.check()
            else:
                await settle(machine)
                return


async def act(machine: Machine, verb: str, what: object) -> None:
    """Carry out one step."""
    if verb == "assign":
        assert isinstance(what, frozenset)
        await machine.share(what)
    elif verb == "refuse":
        assert isinstance(what, Call)
        machine.engine.refuse(what, Refused(Refusal.OTHER, "no"))
    elif verb == "crash":
        assert isinstance(what, int)
        machine.crash(what)
    else:
        assert isinstance(what, int)
        if verb == "away":
            machine.engine.go_away()
        await machine.turns(what)
        machine.engine.come_back()


async def settle(machine: Machine) -> None:
    """Wait until the node is where its last assignment says."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while not machine.is_settled():
                number = machine.agent.book.changed.number
                if not machine.is_settled():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await machine.agent.book.changed.wait(number)
                machine.check()
    assert machine.is_settled(), dict(machine.agent.book.states)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=14))
def test_a_node_killed_between_any_two_steps_goes_on(script: list[tuple[str, object]]) -> None:
    """No task has two running containers, none goes back, and the last assignment is reached."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        asyncio.run(play(Machine(Path(folder) / "node"), script))
