"""Which project, service or slot does a command line mean?

`PROJECT/SERVICE.SLOT` names all of it. A part that is left out comes from `-p`, from
`$COMPOSE_PROJECT_NAME`, or from the Compose file here or above, as with `docker compose`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.compose_files import load_request
from cli.context import Context
from cli.exits import UsageError

__all__ = ["Named", "add_project", "named", "project_of", "services_of"]


@dataclass(frozen=True, slots=True)
class Named:
    """What was named: a project, perhaps one of its services, perhaps one of its slots (else 0)."""

    project: str
    service: str = ""
    slot: int = 0


def add_project(parser: argparse.ArgumentParser, *, has_short_file: bool = True) -> None:
    """Add what says which project is meant; without `-f` where that means something else."""
    parser.add_argument(
        "-p",
        "--project-name",
        metavar="NAME",
        help="name of the project (default: that of the Compose file here or above)",
    )
    parser.add_argument(
        *(["-f"] if has_short_file else []),
        "--file",
        dest="files",
        action="append",
        metavar="FILE",
        help="Compose file",
    )


def named(text: str, given: argparse.Namespace, context: Context) -> Named:
    """Return what `[PROJECT/]SERVICE[.SLOT]` means.

    Raises:
        UsageError: It is malformed, or no project can be told.
    """
    project, slash, rest = text.rpartition("/")
    service, dot, number = rest.rpartition(".")
    if not dot or not number.isdecimal():
        service, number = rest, "0"
    if not service or (slash and not project):
        raise UsageError(f"{text!r} names no service", hint="write [PROJECT/]SERVICE[.SLOT]")
    return Named(project or project_of(given, context), service, int(number))


def services_of(
    texts: Sequence[str], given: argparse.Namespace, context: Context
) -> tuple[str, list[str]]:
    """Return the project that `[PROJECT/]SERVICE`s are of, and their names.

    Raises:
        UsageError: One is malformed, they are of several projects, or no project can be told.
    """
    if not texts:
        return project_of(given, context), []
    found = [named(text, given, context) for text in texts]
    projects = {each.project for each in found}
    if len(projects) > 1:
        raise UsageError(
            f"services of {len(projects)} projects at once", hint="name those of one at a time"
        )
    return projects.pop(), [each.service for each in found]


def project_of(given: argparse.Namespace, context: Context) -> str:
    """Return the project's name.

    Raises:
        UsageError: Nothing says which; the hint says how to.
    """
    environment = dict(context.settings.environment)
    told: str = given.project_name or environment.get("COMPOSE_PROJECT_NAME", "")
    return told or _of_file(given, environment)


def _of_file(given: argparse.Namespace, environment: dict[str, str]) -> str:
    from dray.compose.canonical import read_project
    from dray.files import DiskFiles

    files = DiskFiles()
    whole = argparse.Namespace(
        files=given.files,
        project_name=None,
        project_directory=None,
        profiles=["*"],
        env_files=None,
        allow_ignored=True,
    )
    try:
        request = load_request(whole, environment, str(Path.cwd()), files.exists)
    except UsageError as error:
        raise UsageError(
            "which project is meant? There is no Compose file here",
            hint="name it with -p PROJECT, or write PROJECT/SERVICE",
        ) from error
    canonical = read_project(request, files).canonical
    if canonical is None:
        raise UsageError(
            f"{request.files[0]} does not say which project it is: it has mistakes",
            hint="see `dray config`, or name the project with -p",
        )
    return str(canonical.config["name"])
