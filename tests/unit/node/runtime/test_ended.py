"""Is the end of a container's process noticed, and of no other?"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from node.runtime.ended import noticing_end

LIMIT_S = 10.0


def own_group() -> str:
    """Return a part of the name of the control group that this process and its children are in."""
    return Path("/proc/self/cgroup").read_text().splitlines()[-1]


@pytest.mark.parametrize("is_its", [True, False], ids=["its-group", "another-group"])
async def test_the_end_is_noticed(is_its: bool) -> None:
    """The kernel tells of a process in the container's group; another one is not believed."""
    group = await asyncio.to_thread(own_group) if is_its else "f" * 64
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-c", "input()"), stdin=asyncio.subprocess.PIPE
    )
    noticed = asyncio.Event()
    async with noticing_end(process.pid, group, noticed.set):
        assert not noticed.is_set()
        process.kill()
        await process.wait()
        if is_its:
            async with asyncio.timeout(LIMIT_S):
                await noticed.wait()
    assert noticed.is_set() is is_its


@pytest.mark.parametrize("process_id", [0, 2**22 + 1], ids=["none", "no-such"])
async def test_nothing_to_notice(process_id: int) -> None:
    """A container without a process, or whose process is gone by then, is just waited for."""
    noticed = asyncio.Event()
    async with noticing_end(process_id, "f" * 64, noticed.set):
        await asyncio.sleep(0)
    assert not noticed.is_set()
