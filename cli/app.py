"""How does a command line become a call of one verb, quickly, and with an honest exit status?

Built on argparse, and each verb's module is imported only when it is called: start-up is what a
user feels. A fresh process that imports the parser took, best of 21 interleaved runs on two busy
cores: no parser 14 ms, argparse 37, click 8.5 164, typer 0.29 226, cyclopts 5.4 312. The budget of
`dray --help` is 150 ms; `benchmarks/cli_start.py` measures it.
"""

from __future__ import annotations

import argparse
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final, NoReturn

from cli.exits import ExitCode, UsageError, exit_code_of
from dray.errors import DrayError

__all__ = ["VERBS", "help_of", "main"]

# New objects before the collector of cycles looks: what a command makes is shown, and goes.
LOOK_AFTER: Final = 100_000
HELP_COLUMNS_MIN: Final = 30
HELP_COLUMNS_DEFAULT: Final = 80  # of what is not a terminal
HELP_COLUMNS_MAX: Final = 100  # longer lines are hard to read

VERBS: Final[Mapping[str, str]] = {
    "up": "make the cluster run a Compose project",
    "down": "stop and remove all of a project",
    "ls": "list projects",
    "ps": "list slots and their tasks",
    "logs": "show what services write",
    "exec": "run a command in a running container",
    "cp": "copy files into a running container, or out of it",
    "scale": "change how many replicas services have",
    "restart": "replace all tasks of services by new ones",
    "history": "list the kept revisions of a service",
    "diff": "show what differs between two revisions",
    "revert": "give a service the content of an older revision",
    "explain": "say why a service is not as it should be",
    "events": "show what happened, and why",
    "status": "show how the cluster is",
    "top": "watch nodes and tasks at work",
    "node": "look at nodes and change them, or run the node daemon",
    "dns": "show what a node's DNS answers, and why",
    "rebalance": "show which moves would even out or empty nodes",
    "config": "check a Compose file and show what it comes to",
    "schema": "print the JSON Schema of Compose files, for editors",
    "init": "make a cluster, once",
    "scheduler": "run a scheduler on this machine",
    "dev": "run a whole cluster on this machine",
    "completion": "print a script that completes commands in a shell",
    "version": "show versions",
}
"""Every verb with its line in the help; `cli.commands.<verb>` does it."""


def main(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: The command line after the program's name; None: that of the process.
        environment: The environment; None: that of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 is no reason to fail
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments, environment)
        sys.stdout.flush()
    except DrayError as error:
        return _end(str(error), exit_code_of(error))
    except KeyboardInterrupt:
        return _end("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        return _discard_output(ExitCode.OUTPUT_CLOSED)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.ENOSPC and not place:
            place = "cannot write the output: "
        return _discard_output(_end(f"{place}{error.strerror}", ExitCode.REFUSED))
    return status


def _run(arguments: Sequence[str], environment: Mapping[str, str] | None) -> int:
    parser = _parser()
    given, rest = parser.parse_known_args(list(arguments))
    verb: str | None = given.verb
    if rest:
        program = f"dray {verb}" if verb else "dray"
        raise UsageError(
            f"unrecognized arguments: {' '.join(rest)}", hint=f"see `{program} --help`"
        )
    if verb is None:
        parser.print_help()
        return ExitCode.USAGE
    module = _module(verb)
    from cli.context import Context
    from cli.settings import CliSettings

    if not hasattr(given, "settings"):  # a daemon knows best itself
        gc.set_threshold(LOOK_AFTER)
    settings = CliSettings.load(vars(given), environment)
    status: int = module.run(given, Context(settings, sys.stdout, sys.stderr))
    return status


def _end(text: str, status: ExitCode) -> ExitCode:
    """Say on standard error why the command ends, in one line and without a traceback."""
    try:
        print(f"dray: {text}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        return ExitCode.OUTPUT_CLOSED
    return status


def _discard_output(status: ExitCode) -> ExitCode:
    """Let what is still unwritten go nowhere: the interpreter would fail on it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"cli.commands.{verb}")


def _help(prog: str) -> argparse.HelpFormatter:
    """Return a formatter as wide as the terminal; argparse's own way imports three archivers."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        columns = HELP_COLUMNS_DEFAULT
    columns = min(max(columns, HELP_COLUMNS_MIN), HELP_COLUMNS_MAX)
    return argparse.HelpFormatter(prog, width=columns - 2, max_help_position=columns // 3)


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are `UsageError`s, and which never guesses abbreviations.

    Attributes:
        takes_rest: Whether all arguments are handed on as they are, as `settings`: a daemon has a
            parser of its own.
    """

    takes_rest = False

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_help, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, or hand everything on."""
        if self.takes_rest:
            return argparse.Namespace(settings=list(args)), []
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line."""
        raise UsageError(message, hint=f"see `{self.prog} --help`")


class _VerbParser(_Parser):
    """The parser of one verb, which gets its arguments when it is first used."""

    verb = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Import the verb's module, let it add its arguments, and parse."""
        if self.verb:
            module, self.verb = _module(self.verb), ""
            self.description = module.__doc__
            _add_common(self)
            module.add_arguments(self)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dray",
        description="Run Compose projects on a cluster of machines.",
        epilog="`dray COMMAND --help` shows a command's own options.",
    )
    _add_common(parser)
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="verb", parser_class=_VerbParser
    )
    for verb, text in VERBS.items():
        verbs.add_parser(verb, help=text).verb = verb
    return parser


def help_of(verb: str) -> str:
    """Return the help of a verb."""
    parser = _VerbParser(prog=f"dray {verb}")
    module = _module(verb)
    _add_common(parser)
    module.add_arguments(parser)
    return parser.format_help()


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes, before the verb and after it."""
    parser.add_argument(
        "--host",
        metavar="HOST:PORT[,…]",
        default=argparse.SUPPRESS,
        help="schedulers to talk to; any of them will do (default: $DRAY_HOST, or this machine's)",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=argparse.SUPPRESS,
        help="talk to other machines without TLS; whoever listens in controls the cluster",
    )
