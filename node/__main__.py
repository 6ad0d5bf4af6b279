"""What runs as `dray node run`?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from dray.log import configure, get_logger
from dray.tasks import STOP_GRACE_S, run_until_signal
from node.server import Server
from node.settings import NodeSettings

__all__ = ["main"]


def main(action: str, arguments: Sequence[str]) -> int:
    """Run the node daemon until it is told to stop, or show something; return the exit status.

    Args:
        action: "run", "config" (the settings as they come out) or "doctor" (what is wrong with the
            machine's network).
        arguments: The settings' flags.

    Raises:
        DrayError: A setting is wrong, or the daemon cannot go on; the message says what to do.
    """
    settings = NodeSettings.load(arguments)
    if action == "config":
        for setting in settings.describe():
            print(f"{setting.name} = {setting.value}  # {setting.source}")
        return 0
    if action == "doctor":
        from node.doctor import diagnose

        return asyncio.run(diagnose(settings, sys.stdout))
    configure(level=settings.log_level, log_format=settings.log_format)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: NodeSettings) -> None:
    log = get_logger("node")
    grace_s = STOP_GRACE_S + settings.drain_on_stop_s
    await run_until_signal(Server(settings, log=log).run(), log=log, grace_s=grace_s)


if __name__ == "__main__":
    sys.exit(main("run", sys.argv[1:]))
