"""How is the end of a container's process noticed before the engine has told of it?

The engine says that a container has died once it has taken its network apart, some tenths of a
second after the fact, longer on a busy machine; until then names and VIPs would lead there. The
kernel says so at once, through a file descriptor of the process (pidfd_open(2), Linux 5.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

__all__ = ["noticing_end"]


@contextlib.asynccontextmanager
async def noticing_end(
    process_id: int, container_id: str, notice: Callable[[], None]
) -> AsyncIterator[None]:
    """Call `notice` as soon as a container's process has ended, while the block runs.

    Nothing is called where the machine does not tell, or where the engine counts its processes
    elsewhere than this daemon: the process has to be in the container's control group.
    """
    descriptor = await asyncio.to_thread(_open, process_id, container_id)
    if descriptor is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(descriptor)
        notice()

    try:
        loop.add_reader(descriptor, ended)
        yield
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _open(process_id: int, container_id: str) -> int | None:
    """Return a descriptor of a container's process; None: there is none to be had."""
    if process_id <= 0:
        return None
    try:
        descriptor = os.pidfd_open(process_id)
    except OSError:
        return None
    try:
        # After the opening: until then the number may have become another process's.
        if container_id in Path(f"/proc/{process_id}/cgroup").read_text():
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
