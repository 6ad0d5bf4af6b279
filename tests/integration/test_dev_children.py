"""Are the processes of `dray dev` kept running, given up with a reason, and ended in order?"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cli.dev.children import Child, Children
from dray.errors import FailedPrecondition
from dray.retry import Backoff

QUICK = Backoff(first_s=0.01, max_s=0.02)
LIMIT_S = 20.0
# Says its process id, then waits for its end and tells of it.
WAITS = """
import os, pathlib, signal, sys
path = pathlib.Path(sys.argv[1])
def end(*_):
    with path.open("a") as file:
        file.write(f"end {sys.argv[2]}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
with path.open("a") as file:
    file.write(f"start {os.getpid()}\\n")
while True:
    signal.pause()
"""


def _read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def _lines(path: Path) -> list[str]:
    return await asyncio.to_thread(_read, path)


def _after(path: Path, count: int) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        return len(await _lines(path)) >= count

    return is_ready


def _waiting(path: Path, name: str, ready_after: int) -> Child:
    command = (sys.executable, "-c", WAITS, str(path), name)
    return Child(name, command, _after(path, ready_after), ready_limit_s=LIMIT_S)


async def test_a_child_that_ends_is_started_again(tmp_path: Path) -> None:
    """A killed process has a successor, and the person is told."""
    told: list[str] = []
    children = Children(tmp_path, told.append, random.Random(1), QUICK)
    path = tmp_path / "told"
    await children.start(_waiting(path, "a", 1))
    keeping = asyncio.create_task(children.keep_running())
    os.kill(int((await _lines(path))[0].split()[1]), signal.SIGKILL)
    async with asyncio.timeout(LIMIT_S):
        while len(await _lines(path)) < 2:
            await asyncio.sleep(0.01)
    assert told == ["a ended with status -9 and is started again"]
    keeping.cancel()
    await asyncio.wait({keeping})
    await children.stop()
    assert [line.split()[0] for line in await _lines(path)] == ["start", "start", "end"]


async def test_children_end_in_reverse(tmp_path: Path) -> None:
    """What was started last ends first."""
    children = Children(tmp_path, print, random.Random(1), QUICK)
    path = tmp_path / "told"
    await children.start(_waiting(path, "a", 1))
    await children.start(_waiting(path, "b", 2))
    await children.stop()
    assert (await _lines(path))[2:] == ["end b", "end a"]


async def test_a_child_that_never_gets_ready_says_why(tmp_path: Path) -> None:
    """The end of its log is in the message."""
    children = Children(tmp_path, print, random.Random(1), QUICK)
    command = (sys.executable, "-c", "import sys; sys.exit('no such port')")
    child = Child("a", command, _after(tmp_path / "nothing", 1), ready_limit_s=LIMIT_S)
    with pytest.raises(FailedPrecondition, match=r"(?s)a ended with status 1; .*no such port"):
        await children.start(child)
    await children.stop()


async def test_a_child_that_keeps_ending_is_given_up(tmp_path: Path) -> None:
    """Five ends in a minute are enough."""
    children = Children(tmp_path, print, random.Random(1), QUICK)

    async def at_once() -> bool:
        return True

    await children.start(Child("a", (sys.executable, "-c", "print('ouch')"), at_once))
    with pytest.raises(FailedPrecondition, match=r"(?s)ended 5 times in a minute.*ouch"):
        async with asyncio.timeout(LIMIT_S):
            await children.keep_running()
    await children.stop()
