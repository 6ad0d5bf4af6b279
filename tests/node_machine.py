"""One machine with the fake engine, whose promises are looked at after every step."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path

from dray.model import AttemptState, Health, ProjectParts, RestartPolicy
from dray.names import TaskId
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine
from tests.node_agent import IMAGE, Rig, a_task, an_entry, task_id

SHM = Path("/dev/shm")  # noqa: S108  (a folder of its own there: each step is synced to the disk)
MEMORY = SHM if SHM.is_dir() else None


class Machine(Rig):
    """A machine with the fake engine, and what has been seen of its tasks."""

    def __init__(self, folder: Path) -> None:
        seconds = itertools.count(1_700_000_000)
        self.engine = FakeEngine(lambda: float(next(seconds)), images=[IMAGE])
        self.seen: dict[TaskId, tuple[int, AttemptState]] = {}
        self.wanted: dict[int, int] = {}
        self.entry = an_entry(restart=RestartPolicy(delay_s=0.0))
        self.parts = ProjectParts("shop")
        self._numbers = itertools.count(1)
        super().__init__(folder, lambda: FakeRuntime(self.engine))

    def check(self) -> None:
        """Look at what must hold at every moment."""
        if self.running.done():
            self.running.result()
        orphans = self.agent.book.orphans
        assert not orphans, f"there are containers without a task: {orphans}"
        running: set[TaskId] = set()
        made: set[tuple[TaskId, int]] = set()
        for container in self.engine.containers.values():
            identity = container.request.identity
            attempt = (identity.task_id, identity.attempt)
            assert attempt not in made, f"two containers of one attempt: {attempt}"
            made.add(attempt)
            if container.is_running:
                owner = identity.task_id
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

    def sicken(self, number: int) -> None:
        """Let the health check of one of the containers that run fail."""
        alive = [c.container_id for c in self.engine.containers.values() if c.is_running]
        if alive:
            self.engine.set_health(alive[number % len(alive)], Health.UNHEALTHY)

    async def share(self, slots: frozenset[int]) -> None:
        """Assign a task for each of these slots; one that comes back is another task."""
        for slot in slots - self.wanted.keys():
            self.wanted[slot] = next(self._numbers)
        for slot in self.wanted.keys() - slots:
            del self.wanted[slot]
        tasks = [a_task(number) for number in sorted(self.wanted.values())]
        await self.assign(*tasks, entries=(self.entry,), parts=self.parts)

    def is_settled(self) -> bool:
        """Return whether exactly the wanted tasks run, and nothing is left of others."""
        known = self.agent.book.states
        owners = {c.request.identity.task_id for c in self.engine.containers.values()}
        alive = {
            c.request.identity.task_id for c in self.engine.containers.values() if c.is_running
        }
        wanted = {task_id(number) for number in self.wanted.values()}
        return known.keys() == wanted and owners == wanted == alive


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
