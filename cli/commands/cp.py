"""Copy files into a running container, or out of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cli.context import Context
from cli.exits import ExitCode
from cli.naming import add_project

if TYPE_CHECKING:
    from pathlib import Path

    from dray.views import TaskTarget

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_project(parser)
    parser.add_argument("-a", "--archive", action="store_true", help="keep owner and group")
    parser.add_argument("-L", "--follow-link", action="store_true", help="copy what links point at")
    parser.add_argument("source", metavar="SOURCE", help="PATH, or [PROJECT/]SERVICE[.SLOT]:PATH")
    parser.add_argument("target", metavar="TARGET", help="PATH, or [PROJECT/]SERVICE[.SLOT]:PATH")


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Copy, and say how much."""
    import asyncio

    from cli.exits import UsageError

    source = _in_container(given.source)
    target = _in_container(given.target)
    if (source is None) == (target is None):
        raise UsageError(
            "one side must be in a container, the other one here",
            hint="dray cp ./file web:/srv/, or dray cp web:/srv/file .",
        )
    if source is not None:
        return asyncio.run(_out(given, context, *source))
    assert target is not None
    from pathlib import Path

    here = Path(given.source).absolute()
    if not here.exists():
        raise UsageError(f"there is no {here}")
    return asyncio.run(_in(given, context, here, *target))


def _in_container(text: str) -> tuple[str, str] | None:
    """Return the name and the path of `NAME:PATH`; None for a path of this machine."""
    name, colon, path = text.partition(":")
    is_here = not colon or not name or name[0] in "./~" or not path.startswith("/")
    return None if is_here else (name, path)


def _target(given: argparse.Namespace, context: Context, name: str) -> TaskTarget:
    from cli.naming import named
    from dray.views import TaskTarget

    meant = named(name, given, context)
    return TaskTarget(project=meant.project, service=meant.service, slot=meant.slot)


async def _out(given: argparse.Namespace, context: Context, name: str, path: str) -> ExitCode:
    import asyncio
    import posixpath
    import tempfile
    from pathlib import Path

    from cli.archives import unpack
    from cli.session import connected
    from dray.views import CopyOptions

    options = CopyOptions(
        _target(given, context, name), path, given.archive, follow_links=given.follow_link
    )
    with tempfile.TemporaryFile() as spool:
        async with connected(context) as client:
            async for piece in client.copy_from_task(options):
                await asyncio.to_thread(spool.write, piece)
        spool.seek(0)
        place = Path(given.target)
        if given.follow_link and await asyncio.to_thread(place.is_dir):
            place /= posixpath.basename(path.rstrip("/"))  # the link's name, not that of its target
        copied_bytes = await asyncio.to_thread(unpack, spool, place, keep_owner=given.archive)
    print(f"{copied_bytes} bytes copied from {given.source} to {place}", file=context.out)
    return ExitCode.CONVERGED


async def _in(
    given: argparse.Namespace, context: Context, here: Path, name: str, path: str
) -> ExitCode:
    from cli.archives import packed, place_in_container
    from cli.session import connected
    from dray.views import CopyOptions

    target = _target(given, context, name)
    async with connected(context) as client:
        folder, entry = await place_in_container(client, target, path, here.name)
        options = CopyOptions(target, folder, given.archive)
        archive = packed(here, entry, follow_links=given.follow_link)
        reply = await client.copy_to_task(options, archive)
    print(f"{reply.copied_bytes} bytes copied to {given.target}", file=context.out)
    return ExitCode.CONVERGED
