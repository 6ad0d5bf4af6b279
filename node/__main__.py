"""What runs as `dray node run`?"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
from collections.abc import Sequence
from typing import Final

from dray.log import configure, get_logger
from dray.tasks import STOP_GRACE_S, run_until_signal
from node.server import Server
from node.settings import NodeSettings

__all__ = ["main"]

M_ARENA_MAX: Final = -8  # of glibc's malloc.h
ARENAS_MAX: Final = 2
# What the doctor does not need to know: it looks at the machine, where no unit's variables are set.
UNASKED: Final = ("--scheduler=127.0.0.1:7400", "--name=unasked", "--advertise=127.0.0.1")


def main(action: str, arguments: Sequence[str]) -> int:
    """Run the node daemon until it is told to stop, or show something; return the exit status.

    Args:
        action: "run", "config" (the settings as they come out) or "doctor" (what is wrong with the
            machine's network).
        arguments: The settings' flags.

    Raises:
        DrayError: A setting is wrong, or the daemon cannot go on; the message says what to do.
    """
    unasked = UNASKED if action == "doctor" else ()
    settings = NodeSettings.load([*unasked, *arguments])
    if action == "config":
        for setting in settings.describe():
            print(f"{setting.name} = {setting.value}  # {setting.source}")
        return 0
    if action == "doctor":
        from node.doctor import diagnose

        return asyncio.run(diagnose(settings, sys.stdout))
    configure(level=settings.log_level, log_format=settings.log_format)
    _limit_arenas()
    asyncio.run(_serve(settings))
    return 0


def _limit_arenas() -> None:
    """Keep the threads that call Docker from growing a heap each, which is never given back.

    They take turns at Python's lock, so they do not wait for each other here. Where the C library
    is not glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS_MAX)


async def _serve(settings: NodeSettings) -> None:
    log = get_logger("node")
    grace_s = STOP_GRACE_S + settings.drain_on_stop_s
    await run_until_signal(Server(settings, log=log).run(), log=log, grace_s=grace_s)


if __name__ == "__main__":
    sys.exit(main("run", sys.argv[1:]))
