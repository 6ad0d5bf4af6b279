"""Is the work of thousands of streams spread over passes of the event loop?"""

from __future__ import annotations

import asyncio
import itertools

from scheduler.nodes.turns import Turns

PIECES = 20
AT_ONCE = 3


async def test_so_many_pieces_in_one_pass() -> None:
    """All are ready at once; each pass does a few of them, in the order in which they came."""
    turns = Turns(AT_ONCE)
    done: list[int] = []

    async def work(number: int) -> None:
        async with turns:
            done.append(number)

    counts = [0]
    async with asyncio.TaskGroup() as group:
        for number in range(PIECES):
            group.create_task(work(number))
        while len(done) < PIECES:
            await asyncio.sleep(0)
            counts.append(len(done))
    assert done == list(range(PIECES))
    assert max(after - before for before, after in itertools.pairwise(counts)) <= AT_ONCE


async def test_a_piece_that_fails_gives_its_turn_back() -> None:
    """Nobody waits for ever behind it."""
    turns = Turns(1)
    for _ in range(3):
        try:
            async with turns:
                raise ValueError
        except ValueError:
            pass
    async with asyncio.timeout(5), turns:
        pass
