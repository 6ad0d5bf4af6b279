"""Which Compose files does a command line mean? The rules of `docker compose`, as a pure function.

Files named by `-f` come first, then `$COMPOSE_FILE`, then the first of the usual names in the
working directory or the nearest folder above it, with its override file.
"""

from __future__ import annotations

import argparse
import os.path
from collections.abc import Callable, Mapping
from typing import Final

from cli.exits import UsageError
from dray.compose import LoadRequest
from dray.model import string_map

__all__ = ["NAMES", "load_request"]

NAMES: Final = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDES: Final = tuple(name.replace(".y", ".override.y") for name in NAMES)


def load_request(
    given: argparse.Namespace,
    environment: Mapping[str, str],
    folder: str,
    exists: Callable[[str], bool],
) -> LoadRequest:
    """Return what to load.

    Args:
        given: The flags of `cli.arguments.add_compose`.
        environment: Variables.
        folder: The working directory, absolute.
        exists: Whether there is a file of that name.

    Raises:
        UsageError: No file is named and none is found.
    """
    files = given.files or _from_variable(environment) or _found(folder, exists)
    if not files:
        raise UsageError(
            f"there is no {NAMES[0]} in {folder} or above it", hint="name a Compose file with -f"
        )
    profiles = given.profiles or [
        name.strip() for name in environment.get("COMPOSE_PROFILES", "").split(",")
    ]
    directory = given.project_directory
    env_files = given.env_files
    return LoadRequest(
        files=tuple(_absolute(folder, path) for path in files),
        project_name=given.project_name or environment.get("COMPOSE_PROJECT_NAME") or None,
        project_directory=_absolute(folder, directory) if directory else None,
        profiles=tuple(name for name in profiles if name),
        environment=string_map(environment),
        env_files=tuple(_absolute(folder, path) for path in env_files) if env_files else None,
        allow_ignored=given.allow_ignored,
    )


def _from_variable(environment: Mapping[str, str]) -> list[str]:
    separator = environment.get("COMPOSE_PATH_SEPARATOR") or ":"
    return [path for path in environment.get("COMPOSE_FILE", "").split(separator) if path]


def _found(folder: str, exists: Callable[[str], bool]) -> list[str]:
    while True:
        base = _first(folder, NAMES, exists)
        if base:
            override = _first(folder, _OVERRIDES, exists)
            return [base, override] if override else [base]
        parent = os.path.dirname(folder)
        if parent == folder:
            return []
        folder = parent


def _first(folder: str, names: tuple[str, ...], exists: Callable[[str], bool]) -> str:
    paths = (os.path.join(folder, name) for name in names)
    return next((path for path in paths if exists(path)), "")


def _absolute(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))
