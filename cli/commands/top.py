"""Watch nodes and tasks at work: the unwell first, then the busiest."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Final

from cli.context import Context
from cli.exits import ExitCode
from dray.errors import DrayError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from cli.topview import TopState
    from dray.client import Client

__all__ = ["add_arguments", "run"]

REDRAW_S: Final = 1.0  # ages grow although nothing changes
REDRAW_MIN_S: Final = 0.1  # many changes in a row are drawn once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("-p", "--project-name", metavar="NAME", default="", help="only its tasks")
    parser.add_argument("--once", action="store_true", help="show it once, and end")


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Show them until a key or Ctrl-C ends it."""
    return asyncio.run(_run(given, context))


async def _run(given: argparse.Namespace, context: Context) -> ExitCode:
    from rich.console import Console

    from cli.session import connected
    from cli.topview import TopState

    is_once = given.once or not context.out.isatty()
    console = Console(
        file=context.out, no_color=not context.settings.is_color, highlight=False, markup=False
    )
    state, news = TopState(), asyncio.Event()
    async with connected(context) as client:
        if is_once:
            await _learn(client, given.project_name, state, news, is_once=True)
            console.print(_screen(state, 1_000, has_keys=False))
            return ExitCode.CONVERGED
        try:
            async with asyncio.TaskGroup() as group:
                learning = group.create_task(
                    _learn(client, given.project_name, state, news), name="news of the cluster"
                )
                await _draw(console, state, news)
                learning.cancel()
        except* DrayError as errors:
            raise errors.exceptions[0] from None
    return ExitCode.CONVERGED


async def _learn(
    client: Client, project: str, state: TopState, news: asyncio.Event, *, is_once: bool = False
) -> None:
    """Fold what the cluster tells; with `is_once` only until all of it is told."""
    from dray.views import WatchKind

    kinds = [WatchKind.NODE, WatchKind.TASK]
    async for reply in client.watch(kinds, project, with_usage=True):
        state.fold(reply.changes, is_reset=reply.is_reset)
        state.is_known = state.is_known or reply.is_complete
        news.set()
        if is_once and reply.is_complete:
            return


async def _draw(console: Console, state: TopState, news: asyncio.Event) -> None:
    """Draw again whenever there is something new, until `q`."""
    from rich.live import Live

    from cli.keys import keys_to
    from cli.topview import TaskOrder

    ended = False

    def pressed(key: str) -> None:
        nonlocal ended
        ended = ended or key == "q"
        state.order = next((each for each in TaskOrder if each.value == key), state.order)
        news.set()

    with (
        Live(console=console, auto_refresh=False, screen=True) as live,
        keys_to(pressed),
    ):
        while not ended:
            live.update(_screen(state, console.height, has_keys=True), refresh=True)
            await asyncio.sleep(REDRAW_MIN_S)
            try:
                async with asyncio.timeout(REDRAW_S - REDRAW_MIN_S):
                    await news.wait()
            except TimeoutError:
                pass
            news.clear()


def _screen(state: TopState, lines: int, *, has_keys: bool) -> RenderableType:
    from cli.topscreen import screen
    from dray.clock import SystemClock

    return screen(state, lines=lines, now_s=SystemClock().unix_s(), has_keys=has_keys)
