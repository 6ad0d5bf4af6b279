"""Check a Compose file and show what it comes to."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.arguments import add_compose, add_format
from cli.context import Context
from cli.exits import ExitCode
from cli.settings import OutputFormat

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_compose(parser)
    add_format(parser, OutputFormat.YAML, OutputFormat.JSON)
    parser.add_argument("-q", "--quiet", action="store_true", help="only check")
    parser.add_argument("--services", action="store_true", help="only names, one on a line")


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Load the project; show it, or everything that is wrong with it."""
    from cli.compose_files import load_request
    from dray.compose import Rejected, load
    from dray.files import DiskFiles

    files = DiskFiles()
    environment = dict(context.settings.environment)
    request = load_request(given, environment, str(Path.cwd()), files.exists)
    result = load(request, files)
    if isinstance(result, Rejected):
        for problem in result.problems:
            context.warn(str(problem))
        return ExitCode.REFUSED
    for problem in result.ignored:
        context.warn(f"ignored: {problem}")
    if given.quiet:
        return ExitCode.CONVERGED
    if given.services:
        context.out.writelines(f"{service.name}\n" for service in result.project.services)
        return ExitCode.CONVERGED
    from cli.render import show_plain

    chosen = context.settings.output_format
    is_json = chosen is OutputFormat.JSON
    show_plain(result.config, OutputFormat.JSON if is_json else OutputFormat.YAML, context.out)
    return ExitCode.CONVERGED
