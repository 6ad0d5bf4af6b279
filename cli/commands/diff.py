"""Show what differs between two revisions of a service."""

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
    parser.add_argument(
        "from_revision", nargs="?", type=int, metavar="FROM", help="default: the one before TO"
    )
    parser.add_argument(
        "to_revision", nargs="?", type=int, metavar="TO", help="default: the newest"
    )
    add_project(parser)
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show the differences, and which of them replace tasks."""
    from cli.changes import DiffView
    from cli.naming import named
    from cli.session import ask

    name = named(given.service, given, context)
    reply = ask(
        context,
        lambda client: client.diff_revisions(
            name.project, name.service, given.from_revision, given.to_revision
        ),
    )
    context.show(DiffView(reply.from_revision, reply.to_revision, reply.changes))
    return ExitCode.CONVERGED
