"""How does a person see that something goes on? Lines in a pipe, a moving table on a terminal."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.context import Context
    from cli.waiting import Outcome, Progress, Standing

__all__ = ["shown_progress", "standing_parts"]

BAR_COLUMNS: Final = 10
REDRAWS_PER_S: Final = 8


@contextlib.contextmanager
def shown_progress(context: Context, progress: Progress) -> Iterator[Callable[[list[str]], None]]:
    """Give the function that is called with the lines of every change.

    On a terminal one line for each service is drawn again and again in place, and stays as it was
    at the end; elsewhere the lines are written one after the other.
    """
    if not context.err.isatty():
        yield lambda lines: context.err.writelines(f"{line}\n" for line in lines)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    console = Console(
        file=context.err, no_color=not context.settings.is_color, highlight=False, markup=False
    )
    spinner = Spinner("dots")
    with Live(
        console=console,
        get_renderable=lambda: _drawn(progress, spinner, console.height - 2),
        refresh_per_second=REDRAWS_PER_S,
    ) as live:
        yield lambda _: live.refresh()


def standing_parts(standing: Standing, now_unix_s: float) -> tuple[str, str, str, str]:
    """Return a service's name, bar, count and text; `now_unix_s` is the wall clock."""
    share = standing.done / standing.desired if standing.desired else 0.0
    filled = int(share * BAR_COLUMNS)  # full only when all are
    bar = "█" * filled + "░" * (BAR_COLUMNS - filled)
    text = f"{standing.text}; {standing.problem}" if standing.problem else standing.text
    left_s = math.ceil(standing.watched_until_unix_s - now_unix_s)
    if left_s > 0:
        text += f": {left_s} s left"
    return standing.service, bar, f"{standing.done}/{standing.desired}", text


def _drawn(progress: Progress, spinner: RenderableType, rows_max: int) -> RenderableType:
    """Return the services that are not ready first, as many as fit."""
    from rich.table import Table
    from rich.text import Text

    from cli.waiting import Outcome
    from dray.clock import SystemClock

    found, now_unix_s = progress.standings(), SystemClock().unix_s()
    if len(found) > rows_max > 0:
        found.sort(key=lambda each: each.outcome is Outcome.CONVERGED)
        found = found[:rows_max]
    table = Table.grid(padding=(0, 2, 0, 0))
    for each in found:
        service, bar, count, text = standing_parts(each, now_unix_s)
        style = _style(each.outcome)
        mark = spinner if each.outcome is Outcome.PENDING else Text(_MARKS[each.outcome.name])
        table.add_row(
            mark, Text(service, style="bold"), Text(bar, style=style), Text(count), Text(text)
        )
    return table


_MARKS: Final = {"CONVERGED": "✔", "ROLLED_BACK": "↩", "PAUSED": "✘"}


def _style(outcome: Outcome) -> str:
    return {"CONVERGED": "green", "PENDING": "cyan"}.get(outcome.name, "red")
