"""Show which few moves would even out the nodes, or empty some of them."""

from __future__ import annotations

import argparse

from cli.arguments import add_format
from cli.context import Context
from cli.exits import ExitCode

__all__ = ["add_arguments", "run"]

MOVES_MAX = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--plan", action="store_true", required=True, help="only show: nothing is moved"
    )
    parser.add_argument("--compact", action="store_true", help="empty nodes, do not even them out")
    parser.add_argument(
        "--moves", type=int, default=100, metavar="N", help="at most N moves (default: 100)"
    )
    add_format(parser)


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show the moves in their order; each is valid after those before it."""
    from cli.changes import PlanView
    from cli.exits import UsageError
    from cli.session import ask
    from cli.settings import OutputFormat
    from dray.views import RebalanceGoal

    if not 1 <= given.moves <= MOVES_MAX:
        raise UsageError(f"--moves takes 1 to {MOVES_MAX}, not {given.moves}")
    goal = RebalanceGoal.COMPACT if given.compact else RebalanceGoal.EVEN
    reply = ask(context, lambda client: client.plan_rebalance(goal, given.moves))
    context.show(PlanView(reply.moves))
    if context.settings.output_format in (None, OutputFormat.TABLE):
        freed = ", ".join(reply.freed_nodes)
        print(f"{len(reply.moves)} moves" + (f"; empties {freed}" if freed else ""))
    return ExitCode.CONVERGED
