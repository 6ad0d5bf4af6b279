"""Run a command in a running container."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from cli.context import Context
from cli.exits import ExitCode
from cli.naming import add_project

if TYPE_CHECKING:
    from dray.views import ExecStart

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_project(parser)
    parser.add_argument("-u", "--user", default="", help="user that runs it")
    parser.add_argument("-w", "--workdir", default="", metavar="DIR", help="folder to run it in")
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="a further variable"
    )
    parser.add_argument(
        "-T", "--no-tty", action="store_true", help="no terminal (default: one where there is one)"
    )
    parser.add_argument("--privileged", action="store_true", help="with all privileges")
    parser.add_argument("target", metavar="[PROJECT/]SERVICE[.SLOT]")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND …")


def run(given: argparse.Namespace, context: Context) -> int:
    """Run it here as if it ran here; its exit status is ours."""
    import asyncio

    from cli.exits import UsageError

    if not given.command:
        raise UsageError("there is no command", hint="dray exec SERVICE COMMAND …")
    has_tty = not given.no_tty and sys.stdin.isatty() and sys.stdout.isatty()
    return asyncio.run(_run(_start(given, context, has_tty), context))


def _start(given: argparse.Namespace, context: Context, has_tty: bool) -> ExecStart:
    from cli.naming import named
    from cli.terminal import terminal_size
    from dray.views import ExecStart, TaskTarget

    name = named(given.target, given, context)
    return ExecStart(
        TaskTarget(project=name.project, service=name.service, slot=name.slot),
        tuple(given.command),
        user=given.user,
        working_dir=given.workdir,
        environment=tuple(given.env),
        tty=has_tty,
        stdin=True,
        privileged=given.privileged,
        size=terminal_size() if has_tty else None,
    )


async def _run(start: ExecStart, context: Context) -> int:
    from cli.session import connected
    from cli.terminal import Terminal

    async with (
        connected(context) as client,
        client.exec(start) as session,
        Terminal(session, is_raw=start.tty) as terminal,
    ):
        async for output in session.output():
            if output.stdout:
                terminal.write(output.stdout)
            if output.stderr:
                terminal.write_error(output.stderr)
            if output.exit_code is not None:
                return output.exit_code
    return ExitCode.REFUSED
