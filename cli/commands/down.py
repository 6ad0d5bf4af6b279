"""Stop and remove all of a project."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cli.context import Context
from cli.exits import ExitCode
from cli.naming import add_project
from cli.waiting import add_waiting

if TYPE_CHECKING:
    from dray.client import Client

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_project(parser)
    parser.add_argument(
        "-v", "--volumes", action="store_true", help="remove its named volumes, too: data is lost"
    )
    add_waiting(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Remove the project, and wait until its last task has ended."""
    import asyncio

    return asyncio.run(_remove(given, context))


async def _remove(given: argparse.Namespace, context: Context) -> ExitCode:
    import asyncio

    from cli.naming import project_of
    from cli.session import connected, tell_warnings
    from cli.texts import counted

    project = project_of(given, context)
    async with connected(context) as client:
        reply = await client.remove_project(project, remove_volumes=given.volumes)
        tell_warnings(context, reply.header)
        if given.detach:
            print(
                f"project {project}: {counted(reply.tasks, 'task')} to be stopped", file=context.out
            )
            return ExitCode.CONVERGED
        try:
            async with asyncio.timeout(given.timeout):
                await _until_gone(client, project)
        except TimeoutError:
            context.warn(f"project {project} is still being removed after {given.timeout:g} s")
            return ExitCode.TIMED_OUT
    volumes = f", {counted(len(reply.volumes), 'volume')}" if reply.volumes else ""
    print(f"project {project}: removed, {counted(reply.tasks, 'task')}{volumes}", file=context.out)
    return ExitCode.CONVERGED


async def _until_gone(client: Client, project: str) -> None:
    """Wait for the project's end: a watch tells it, or that it was gone before."""
    from dray.views import WatchKind

    is_there = False
    async for reply in client.watch([WatchKind.PROJECT], project):
        if reply.is_reset:
            is_there = False
        for change in reply.changes:
            if change.project is not None and change.is_deleted:
                return
            is_there = is_there or change.project is not None
        if reply.is_complete and not is_there:
            return
