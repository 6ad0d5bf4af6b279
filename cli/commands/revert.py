"""Give a service the content of an older revision, as a new one."""

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
    parser.add_argument("service", metavar="[PROJECT/]SERVICE")
    parser.add_argument(
        "revision", nargs="?", type=int, help="default: the one before the newest; see `history`"
    )
    add_project(parser)
    add_waiting(parser)
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Revert the service, and wait until it is so."""
    import asyncio

    return asyncio.run(_revert(given, context))


async def _revert(given: argparse.Namespace, context: Context) -> ExitCode:
    from cli.changes import ChangesView
    from cli.naming import named
    from cli.session import connected
    from cli.waiting import finish

    name = named(given.service, given, context)
    async with connected(context) as client:
        reply = await client.revert_service(name.project, name.service, given.revision)
        changes = () if reply.service is None else (reply.service,)
        view = ChangesView(name.project, 0, changes)
        return await finish(client, context, given, name.project, view)
