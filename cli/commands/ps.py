"""List slots and their tasks."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "services", nargs="*", metavar="[PROJECT/]SERVICE", help="only these services"
    )
    parser.add_argument(
        "-p", "--project-name", metavar="NAME", default="", help="only this project"
    )
    parser.add_argument("-n", "--node", default="", help="only tasks on this node")
    parser.add_argument(
        "-a", "--all", action="store_true", help="also tasks that have ended and are still known"
    )
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show every slot: what it runs, where, and why not."""
    from cli.exits import UsageError
    from cli.lists import TasksView
    from cli.session import ask
    from dray.clock import SystemClock

    project, services = given.project_name, given.services
    if services and all("/" in text for text in services):
        from cli.naming import services_of  # brings the loader of Compose files: 30 ms

        project, services = services_of(services, given, context)
    elif services and not project:
        raise UsageError("a service needs its project", hint="write PROJECT/SERVICE, or add -p")
    reply = ask(
        context,
        lambda client: client.list_tasks(project, services, node=given.node, with_ended=given.all),
    )
    if reply.header.is_observed is False:
        context.warn("no leader can be asked: how tasks are is unknown")
    context.show(TasksView(reply.tasks, SystemClock().unix_s()))
    return ExitCode.CONVERGED
