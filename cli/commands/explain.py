"""Say why a service is not as it was asked to be, and what would let it run."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode
from cli.naming import add_project

__all__ = ["add_arguments", "run"]

LOG_LINES_MAX = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("service", metavar="[PROJECT/]SERVICE")
    parser.add_argument(
        "--lines", type=int, default=10, metavar="N", help="log lines of a failure (default: 10)"
    )
    add_project(parser)
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Explain what is pending, node by node, and what is restarting, by its last attempts."""
    from cli.exits import UsageError
    from cli.naming import named
    from cli.session import ask
    from cli.settings import OutputFormat
    from cli.standing import ExplainView

    if not 0 <= given.lines <= LOG_LINES_MAX:
        raise UsageError(f"--lines takes 0 to {LOG_LINES_MAX}, not {given.lines}")
    name = named(given.service, given, context)
    reply = ask(
        context, lambda client: client.explain_service(name.project, name.service, given.lines)
    )
    view = ExplainView(reply)
    if context.settings.output_format in (None, OutputFormat.TABLE):
        context.out.writelines(f"{line}\n" for line in view.lines())
    else:
        context.show(view)
    return ExitCode.CONVERGED
