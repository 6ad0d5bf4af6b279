"""What runs as `dray scheduler run`?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from dray.clock import SystemClock
from dray.log import configure, get_logger
from dray.tasks import run_until_signal
from scheduler.collector import collect_sparingly
from scheduler.server import Server
from scheduler.settings import SchedulerSettings

__all__ = ["main"]

SWITCH_S: Final = 0.001  # planning, in its thread, gives way to leases and streams so often


def main(action: str, arguments: Sequence[str]) -> int:
    """Run a scheduler until it is told to stop, or show its settings; return the exit status.

    Args:
        action: "run" or "config".
        arguments: The settings' flags.

    Raises:
        DrayError: A setting is wrong, or the scheduler cannot go on; the message says what to do.
    """
    settings = SchedulerSettings.load(arguments)
    if action == "config":
        for setting in settings.describe():
            print(f"{setting.name} = {setting.value}  # {setting.source}")
        return 0
    configure(level=settings.log_level, log_format=settings.log_format)
    sys.setswitchinterval(SWITCH_S)
    collect_sparingly(SystemClock().monotonic_s)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: SchedulerSettings) -> None:
    log = get_logger("scheduler")
    await run_until_signal(Server(settings, log=log).run(), log=log)


if __name__ == "__main__":
    sys.exit(main("run", sys.argv[1:]))
