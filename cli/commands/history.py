"""List the kept revisions of a service."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode
from cli.naming import add_project

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("service", metavar="[PROJECT/]SERVICE")
    add_project(parser)
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show the revisions, newest first."""
    from cli.lists import HistoryView
    from cli.naming import named
    from cli.session import ask
    from dray.clock import SystemClock

    name = named(given.service, given, context)
    reply = ask(context, lambda client: client.list_revisions(name.project, name.service))
    context.show(HistoryView(reply.revisions, SystemClock().unix_s()))
    return ExitCode.CONVERGED
