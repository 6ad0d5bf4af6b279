"""Show what happened in the cluster, and why."""

from __future__ import annotations

import argparse

from cli.arguments import add_format, duration_s
from cli.context import Context
from cli.exits import ExitCode

__all__ = ["add_arguments", "run"]

EVENTS_MAX = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("-p", "--project-name", metavar="NAME", default="", help="about a project")
    parser.add_argument("--service", default="", help="about this service of the project")
    parser.add_argument("-n", "--node", default="", help="about this node")
    parser.add_argument(
        "--since",
        type=duration_s,
        metavar="DURATION",
        help="not older than this: 30s, 10m, 2h (default: any)",
    )
    parser.add_argument(
        "--tail", type=int, default=50, metavar="N", help="the newest N, 1 to 1000 (default: 50)"
    )
    parser.add_argument("--warnings", action="store_true", help="only warnings and errors")
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show the newest events that match, the oldest of them first."""
    from cli.exits import UsageError
    from cli.lists import EventsView
    from cli.session import ask
    from dray.clock import SystemClock
    from dray.model import EventLevel

    if not 1 <= given.tail <= EVENTS_MAX:
        raise UsageError(f"--tail takes 1 to {EVENTS_MAX}, not {given.tail}")
    now_s = SystemClock().unix_s()
    since_s = now_s - given.since if given.since is not None else None
    reply = ask(
        context,
        lambda client: client.list_events(
            project=given.project_name,
            service=given.service,
            node=given.node,
            level_min=EventLevel.WARNING if given.warnings else EventLevel.INFO,
            since_unix_s=since_s,
            items_max=given.tail,
        ),
    )
    context.show(EventsView(tuple(reversed(reply.events)), now_s))
    return ExitCode.CONVERGED
