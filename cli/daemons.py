"""How does the command line start what it does not contain: a daemon, or `dray init`?

The programs are independent (`scheduler` and `node` have dependencies of their own, which a client
may lack), so a part of one is called by its name, and a missing one is explained.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_daemon_actions", "load_part", "run_daemon"]

_ACTIONS = ("run", "config")


def add_daemon_actions(parser: argparse.ArgumentParser, program: str) -> None:
    """Add the two words of a daemon's verb; what follows them is the daemon's own.

    Args:
        parser: The verb's parser.
        program: "scheduler" or "node".
    """
    parser.add_argument(
        "action", choices=_ACTIONS, help="run the daemon, or show its settings as they come out"
    )
    import argparse

    parser.add_argument(
        "settings",
        nargs=argparse.REMAINDER,
        metavar="SETTING …",
        help=f"see `dray {program} run --help`",
    )


def run_daemon(program: str, action: str, arguments: Sequence[str]) -> int:
    """Hand the rest of the command line to a daemon, and return its exit status.

    Raises:
        FailedPrecondition: This installation lacks the daemon's dependencies.
    """
    status: int = load_part(f"{program}.__main__", program).main(action, arguments)
    return status


def load_part(module: str, program: str) -> ModuleType:
    """Import a module of another program by its name.

    Args:
        module: Its dotted name.
        program: The extra of the package that brings what it needs.

    Raises:
        FailedPrecondition: This installation lacks a dependency of it.
    """
    from dray.errors import FailedPrecondition

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"this installation cannot be a {program}: the module {error.name} is missing",
            hint=f"install dray[{program}]",
        ) from error
