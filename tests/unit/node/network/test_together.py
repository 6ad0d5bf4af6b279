"""Do many callers at once share one run, and does each get one that began after its call?"""

from __future__ import annotations

import asyncio

import pytest

from node.network.together import Together


class State:
    """A value, and what was brought somewhere of it."""

    def __init__(self) -> None:
        self.value = 0
        self.brought: list[int] = []
        self.gate = asyncio.Event()
        self.fails = 0
        self.together = Together(self.run, asyncio.Lock())

    async def run(self) -> None:
        """Bring the value of now, after a while."""
        value = self.value
        await self.gate.wait()
        if self.fails:
            self.fails -= 1
            raise OSError("no")
        self.brought.append(value)

    async def change(self) -> int:
        """Change the value, and return it once it was brought."""
        self.value += 1
        value = self.value
        await self.together.done()
        assert self.brought[-1] >= value
        return value


async def test_many_at_once_are_one_run() -> None:
    """The first one runs, all who come meanwhile share the next."""
    state = State()
    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(state.change())
        await asyncio.sleep(0)
        state.gate.set()
    assert state.brought == [1, 100]
    await state.change()
    assert state.brought[-1] == 101


async def test_a_failure_is_that_of_one_caller() -> None:
    """Those who waited for it run again, and are done when that succeeds."""
    state = State()
    state.fails = 1
    tasks = [asyncio.create_task(state.change()) for _ in range(10)]
    await asyncio.sleep(0)
    state.gate.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, OSError) for each in done) == 1
    assert state.brought == [10]


async def test_one_who_is_cancelled_leaves_the_others_alone() -> None:
    """Its run may have been cut short, so the next one runs again."""
    state = State()
    first = asyncio.create_task(state.change())
    others = [asyncio.create_task(state.change()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    state.gate.set()
    assert sorted(await asyncio.gather(*others)) == [2, 3, 4]
    assert state.brought == [4]
