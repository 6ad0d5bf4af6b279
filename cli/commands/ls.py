"""List projects."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_format(parser)


def run(_given: argparse.Namespace, context: Context) -> ExitCode:
    """Show every project with its slots by state."""
    from cli.lists import ProjectsView
    from cli.session import ask
    from dray.clock import SystemClock

    reply = ask(context, lambda client: client.list_projects())
    context.show(ProjectsView(reply.projects, SystemClock().unix_s()))
    return ExitCode.CONVERGED
