"""Show the version of this program."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode
from cli.settings import OutputFormat
from dray import __version__

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_format(parser)


def run(_given: argparse.Namespace, context: Context) -> ExitCode:
    """Show the client's version."""
    import platform

    from cli.render import show
    from cli.views import ComponentVersion, VersionsView

    system = f"{platform.system().lower()}/{platform.machine()}"
    client = ComponentVersion("client", __version__, platform.python_version(), system)
    settings = context.settings
    output_format = settings.output_format or OutputFormat.TABLE
    show(VersionsView((client,)), output_format, context.out, is_color=settings.is_color)
    return ExitCode.CONVERGED
