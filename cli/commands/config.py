"""Check a Compose file and show what it comes to."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.arguments import add_compose, add_format
from cli.context import Context
from cli.exits import ExitCode
from cli.settings import OutputFormat

if TYPE_CHECKING:
    from dray.compose import LoadRequest, Problem
    from dray.compose.canonical import Canonical, Reading

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_compose(parser)
    add_format(parser, OutputFormat.YAML, OutputFormat.JSON)
    parser.add_argument(
        "--no-interpolate", action="store_true", help="leave variables as they are written"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("-q", "--quiet", action="store_true", help="only check")
    shown.add_argument("--services", action="store_true", help="only names, one on a line")
    shown.add_argument("--images", action="store_true", help="only images, one on a line")
    shown.add_argument("--volumes", action="store_true", help="only volumes, one on a line")
    shown.add_argument(
        "--hash",
        metavar="SERVICES",
        help='only a digest of each service: names with commas between them, or "*"',
    )
    shown.add_argument(
        "--check",
        action="store_true",
        help="print all that is wrong, or else what cannot be carried out or has no effect",
    )


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Load the project; show it, or everything that is wrong with it."""
    from dataclasses import replace

    from cli.compose_files import load_request
    from dray.compose.canonical import read_project
    from dray.files import DiskFiles

    files = DiskFiles()
    environment = dict(context.settings.environment)
    request = load_request(given, environment, str(Path.cwd()), files.exists)
    request = replace(request, interpolate=not given.no_interpolate)
    reading = read_project(request, files)
    canonical = reading.canonical
    if canonical is None or (reading.problems and not request.interpolate):
        return _refuse(reading.problems.sorted(), context)
    if request.interpolate:
        status = _check(reading, canonical, request, context, is_full=given.check)
        if status is not ExitCode.CONVERGED or given.check:
            return status
    if not given.quiet and not given.check:
        _show(canonical.config, given, context)
    return ExitCode.CONVERGED


def _refuse(problems: Iterable[Problem], context: Context) -> ExitCode:
    for problem in problems:
        context.warn(str(problem))
    return ExitCode.REFUSED


def _check(
    reading: Reading, canonical: Canonical, request: LoadRequest, context: Context, *, is_full: bool
) -> ExitCode:
    """Say what is wrong with the project.

    What dray cannot carry out does not keep a project from being shown: only `--check` is about it.
    """
    from dray.compose.load import problems_of, refusals_of
    from dray.compose.project import to_project

    projected = to_project(canonical, allow_ignored=request.allow_ignored)
    if problems := problems_of(reading, projected):
        status = _refuse(problems, context)
        if is_full:
            told = {problem.path for problem in problems}
            _list_refusals((each for each in projected.refusals if each.path not in told), context)
        return status
    for problem in canonical.warnings:
        context.warn(f"warning: {problem}")
    if not is_full and not request.allow_ignored:
        return ExitCode.CONVERGED
    for problem in projected.ignored:
        context.warn(f"ignored: {problem}")
    refused = refusals_of(projected) if is_full else ()
    _list_refusals(refused, context)
    return ExitCode.REFUSED if refused else ExitCode.CONVERGED


def _list_refusals(refused: Iterable[Problem], context: Context) -> None:
    for problem in refused:
        context.warn(f"refused: {problem}")


def _show(config: Mapping[str, Any], given: argparse.Namespace, context: Context) -> None:
    if given.services:
        _lines(context, sorted(config["services"]))
    elif given.images:
        name = config["name"]
        services = config["services"].items()
        _lines(context, [each.get("image") or f"{name}-{key}" for key, each in services])
    elif given.volumes:
        _lines(context, sorted(config.get("volumes") or ()))
    elif given.hash is not None:
        _lines(context, _digests(config, given.hash))
    else:
        from cli.render import show_plain
        from dray.compose.printed import yaml_text
        from dray.compose.shape import json_view

        if context.settings.output_format is OutputFormat.JSON:
            show_plain(json_view(config), OutputFormat.JSON, context.out)
        else:
            context.out.write(yaml_text(config, escape=not given.no_interpolate))


def _lines(context: Context, lines: list[str]) -> None:
    context.out.writelines(f"{line}\n" for line in lines)


def _digests(config: Mapping[str, Any], wanted: str) -> list[str]:
    """Return a line for each wanted service: its name and a digest of what it is."""
    import hashlib
    import json

    from cli.exits import UsageError

    services = config["services"]
    names = sorted(services) if wanted == "*" else wanted.split(",")
    lines = []
    for name in names:
        if name not in services:
            raise UsageError(f"there is no service {name!r}", hint="see --services")
        text = json.dumps(services[name], sort_keys=True, separators=(",", ":"))
        lines.append(f"{name} {hashlib.sha256(text.encode()).hexdigest()}")
    return lines
