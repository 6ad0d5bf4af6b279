"""Run a whole cluster on this machine: etcd, a scheduler and a node, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.context import Context
from cli.exits import ExitCode

if TYPE_CHECKING:
    from cli.dev import DevSettings

__all__ = ["add_arguments", "run"]

SOCKETS: Final = ("/var/run/docker.sock", "/run/docker.sock")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder of everything that the cluster keeps (default: ~/.local/share/dray/dev)",
    )
    parser.add_argument(
        "--docker-host",
        metavar="SOCKET",
        help="socket of the Docker Engine (default: $DOCKER_HOST, or unix:///var/run/docker.sock)",
    )
    parser.add_argument(
        "--api-port", type=int, default=7400, metavar="PORT", help="where it is reached (7400)"
    )


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Bring the cluster up and keep it up until a signal comes."""
    import asyncio
    import platform

    from cli.dev import DevSettings
    from cli.dev.cluster import node_name

    environment = dict(context.settings.environment)
    settings = DevSettings(
        data=_folder(given.data, environment),
        docker_host=given.docker_host or _engine(environment),
        node_name=node_name(platform.node()),
        api_port=given.api_port,
    )
    return asyncio.run(_run(settings, context))


async def _run(settings: DevSettings, context: Context) -> ExitCode:
    import asyncio
    import signal

    from cli.dev import DevCluster

    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, main.cancel)
    try:
        async with DevCluster(settings, lambda text: _say(context, text)).up() as children:
            _say(context, f"cluster    up at {settings.api}; its data is in {settings.data}")
            _say(context, "Try `dray up -f compose.yaml` in another terminal. Ctrl-C ends dray.")
            await children.keep_running()
    except asyncio.CancelledError:
        _say(context, "ended; containers keep running, and the next `dray dev` adopts them")
    return ExitCode.CONVERGED


def _say(context: Context, text: str) -> None:
    print(text, file=context.out, flush=True)


def _folder(given: str | None, environment: dict[str, str]) -> Path:
    if given:
        return Path(given).expanduser().absolute()
    base = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(base) / "dray" / "dev"


def _engine(environment: dict[str, str]) -> str:
    told = environment.get("DOCKER_HOST", "")
    if told.startswith("unix://"):
        return told
    return f"unix://{next((path for path in SOCKETS if os.path.exists(path)), SOCKETS[0])}"
