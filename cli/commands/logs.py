"""Show what services write, merged over nodes in the order of time."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cli.arguments import duration_s
from cli.context import Context
from cli.exits import ExitCode
from cli.naming import add_project

if TYPE_CHECKING:
    from dray.views import LogQuery

__all__ = ["add_arguments", "run"]

TAIL_MAX = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "services",
        nargs="*",
        metavar="[PROJECT/]SERVICE[.SLOT]",
        help="only these (default: all of the project)",
    )
    add_project(parser, has_short_file=False)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    parser.add_argument(
        "-n", "--tail", default="100", metavar="N", help='last lines of each task, or "all" (100)'
    )
    parser.add_argument(
        "--since", type=duration_s, metavar="DURATION", help="not older than this: 10m, 2h"
    )
    parser.add_argument(
        "--until", type=duration_s, metavar="DURATION", help="older than this: 10m, 2h"
    )
    parser.add_argument("-t", "--timestamps", action="store_true", help="show when")
    parser.add_argument("--no-log-prefix", action="store_true", help="do not show who")


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show the lines until they end, or until Ctrl-C."""
    import asyncio

    return asyncio.run(_show(given, context))


async def _show(given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.loglines import LinePrinter
    from cli.session import connected

    query = _query(given, context)
    is_color = context.settings.is_color and context.out.isatty()
    printer = LinePrinter(
        has_prefix=not given.no_log_prefix, has_time=given.timestamps, is_color=is_color
    )
    async with connected(context) as client:
        async for reply in client.stream_logs(query):
            context.out.writelines(printer.text(line) for line in reply.lines)
            context.out.flush()
            for notice in reply.notices:
                context.warn(notice.message)
    return ExitCode.CONVERGED


def _query(given: argparse.Namespace, context: Context) -> LogQuery:
    from cli.exits import UsageError
    from cli.naming import named, project_of
    from dray.clock import SystemClock
    from dray.views import LogQuery

    names = [named(text, given, context) for text in given.services]
    projects = {name.project for name in names} or {project_of(given, context)}
    slots = tuple(sorted({name.slot for name in names if name.slot}))
    if len(projects) > 1 or (slots and len({name.service for name in names}) > 1):
        raise UsageError(
            "logs of several projects, or of slots of several services, at once",
            hint="ask for one of them at a time",
        )
    if given.tail != "all" and not (given.tail.isdecimal() and int(given.tail) <= TAIL_MAX):
        raise UsageError(f"--tail takes 0 to {TAIL_MAX} or all, not {given.tail!r}")
    now_s = SystemClock().unix_s()
    return LogQuery(
        project=projects.pop(),
        services=tuple(sorted({name.service for name in names})),
        slots=slots,
        tail=None if given.tail == "all" else int(given.tail),
        since_unix_s=now_s - given.since if given.since is not None else None,
        until_unix_s=now_s - given.until if given.until is not None else None,
        follow=given.follow,
    )
