"""Change how many replicas services have."""

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
    parser.add_argument("scales", nargs="+", metavar="[PROJECT/]SERVICE=REPLICAS")
    add_project(parser)
    add_waiting(parser)
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Scale the services, and wait until they are so."""
    import asyncio

    return asyncio.run(_scale(given, context))


async def _scale(given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.changes import ChangesView
    from cli.session import connected
    from cli.waiting import finish

    project, replicas = _wanted(given, context)
    async with connected(context) as client:
        reply = await client.scale_services(project, replicas)
        view = ChangesView(project, reply.revision, reply.services)
        return await finish(client, context, given, project, view)


def _wanted(given: argparse.Namespace, context: Context) -> tuple[str, dict[str, int]]:
    from cli.exits import UsageError
    from cli.naming import named

    projects: set[str] = set()
    replicas: dict[str, int] = {}
    for text in given.scales:
        name, equals, number = text.partition("=")
        if not equals or not number.isdecimal():
            raise UsageError(f"{text!r} is no scale", hint="write SERVICE=REPLICAS, as web=3")
        meant = named(name, given, context)
        projects.add(meant.project)
        replicas[meant.service] = int(number)
    if len(projects) > 1:
        raise UsageError(
            f"services of {len(projects)} projects at once", hint="scale one project at a time"
        )
    return projects.pop(), replicas
