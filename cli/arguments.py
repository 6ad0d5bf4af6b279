"""Which arguments do several verbs share?"""

from __future__ import annotations

import argparse

from cli.settings import OutputFormat
from dray.errors import InvalidRequest

__all__ = ["add_compose", "add_format", "duration_s"]


def duration_s(text: str) -> float:
    """Return the seconds of an argument such as 1m30s; a bare number is seconds, too."""
    from dray.units import parse_duration

    try:
        return float(text) if text.isdecimal() else parse_duration(text)
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_format(parser: argparse.ArgumentParser, *formats: OutputFormat) -> None:
    """Add `--format`.

    Args:
        parser: The verb's parser.
        formats: Those that the verb has; all of them when none is given.
    """
    names = [each.value for each in formats or OutputFormat]
    parser.add_argument("--format", choices=names, help="how the result is written")


def add_compose(parser: argparse.ArgumentParser) -> None:
    """Add what says which project is meant, as `docker compose` does."""
    parser.add_argument(
        "-f",
        "--file",
        dest="files",
        action="append",
        metavar="FILE",
        help="Compose file; repeat to merge (default: $COMPOSE_FILE, compose.yaml here or above)",
    )
    parser.add_argument("-p", "--project-name", metavar="NAME", help="name of the project")
    parser.add_argument(
        "--project-directory", metavar="DIR", help="folder that relative paths start from"
    )
    parser.add_argument(
        "--profile",
        dest="profiles",
        action="append",
        metavar="NAME",
        help='profile to switch on; repeat for more, "*" means all',
    )
    parser.add_argument(
        "--env-file",
        dest="env_files",
        action="append",
        metavar="FILE",
        help="variables in place of .env; repeat for more",
    )
    parser.add_argument(
        "--allow-ignored",
        action="store_true",
        help="go on although some keys have no effect here; they are listed",
    )
