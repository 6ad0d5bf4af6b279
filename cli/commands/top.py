"""Watch nodes and tasks at work, until Ctrl-C."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cli.context import Context
from cli.exits import ExitCode

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from cli.topview import TopState

__all__ = ["add_arguments", "run"]

REDRAW_S = 1.0
LINES_AROUND = 8  # headings and space


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("-p", "--project-name", metavar="NAME", default="", help="only its tasks")
    parser.add_argument("--once", action="store_true", help="show it once, and end")


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show them, the busiest and the unwell first."""
    import asyncio

    return asyncio.run(_run(given, context))


async def _run(given: argparse.Namespace, context: Context) -> ExitCode:
    from rich.console import Console
    from rich.live import Live

    from cli.session import connected
    from cli.topview import TopState
    from dray.clock import SystemClock
    from dray.views import WatchKind

    state, clock = TopState(), SystemClock()
    console = Console(
        file=context.out, no_color=not context.settings.is_color, highlight=False, markup=False
    )
    kinds = [WatchKind.NODE, WatchKind.TASK]
    async with connected(context) as client:
        with Live(console=console, auto_refresh=False, screen=not given.once) as live:
            drawn_s = 0.0
            async for reply in client.watch(kinds, given.project_name, with_usage=True):
                state.fold(reply.changes, is_reset=reply.is_reset)
                now_s = clock.monotonic_s()
                if reply.is_complete or now_s - drawn_s >= REDRAW_S:
                    drawn_s = now_s
                    live.update(_drawn(state, console, clock.unix_s()), refresh=True)
                if given.once and reply.is_complete:
                    return ExitCode.CONVERGED
    return ExitCode.CONVERGED


def _drawn(state: TopState, console: Console, now_s: float) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from cli.render import grid

    rows = max(0, console.height - LINES_AROUND)
    nodes = state.nodes(rows // 3)
    tasks = state.tasks(rows - len(nodes.rows), now_s)
    return Group(Text(state.headline()), Text(), grid(nodes), Text(), grid(tasks))
