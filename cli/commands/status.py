"""Show how the cluster is: leader, etcd, nodes, slots and the last round."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_format(parser)


def run(_given: argparse.Namespace, context: Context) -> ExitCode:
    """Show the status; the exit status says whether there is a leader."""
    from cli.session import ask
    from cli.standing import StatusView
    from dray.clock import SystemClock

    reply = ask(context, lambda client: client.get_status())
    context.show(StatusView(reply, SystemClock().unix_s()))
    return ExitCode.CONVERGED if reply.leader is not None else ExitCode.REFUSED
