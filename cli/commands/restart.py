"""Replace all tasks of services by new ones of the same spec, by their update policy."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode
from cli.naming import add_project
from cli.waiting import add_waiting

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "services",
        nargs="*",
        metavar="[PROJECT/]SERVICE",
        help="only these (default: all of the project)",
    )
    add_project(parser)
    add_waiting(parser)
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Restart the services, and wait until they run again."""
    import asyncio

    return asyncio.run(_restart(given, context))


async def _restart(given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.changes import ChangesView
    from cli.naming import services_of
    from cli.session import connected
    from cli.waiting import finish

    project, services = services_of(given.services, given, context)
    async with connected(context) as client:
        reply = await client.restart_services(project, services)
        view = ChangesView(project, reply.revision, reply.services)
        return await finish(client, context, given, project, view)
