"""Run a scheduler, or show its settings."""

from __future__ import annotations

import argparse

from cli.context import Context
from cli.daemons import add_daemon_actions, run_daemon

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_daemon_actions(parser, "scheduler")


def run(given: argparse.Namespace, _context: Context) -> int:
    """Hand over to the daemon."""
    return run_daemon("scheduler", given.action, given.settings)
