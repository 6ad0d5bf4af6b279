"""How does what `dray top` knows get onto the terminal?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cli.topview import TaskOrder
from cli.views import Table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable

    from cli.topview import TopState

__all__ = ["screen"]

KEYS: Final = "q quit   sort by: c CPU   m memory   s slot"
_GOOD: Final = frozenset({"ready", "running", "completed"})
_PASSING: Final = frozenset({"starting", "pending", "stopping"})


def screen(state: TopState, *, lines: int, now_s: float, has_keys: bool) -> RenderableType:
    """Return all that fits a terminal of so many lines."""
    from rich.console import Group
    from rich.text import Text

    if not state.is_known:
        return Text("asking the cluster …", style="dim")
    nodes, tasks = state.tables(lines, now_s)
    parts: list[RenderableType] = [
        Text(state.headline(), style="bold", no_wrap=True, overflow="ellipsis"),
        Text(state.use(), no_wrap=True, overflow="ellipsis"),
        Text(),
        _grid(nodes, ""),
        Text(),
        _grid(tasks, {TaskOrder.CPU: "CPU", TaskOrder.MEMORY: "MEMORY"}.get(state.order, "SLOT")),
    ]
    if has_keys:
        parts.append(Text(KEYS, style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _grid(table: Table, sorted_by: str) -> RichTable:
    """Return a table whose lines are never folded: the screen has a line for each row."""
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold cyan")
    for column in table.columns:
        name = f"{column} ▾" if column == sorted_by else column
        drawn.add_column(name, no_wrap=True, overflow="ellipsis")
    for row in table.rows:
        style = _style(row[1])
        drawn.add_row(*(Text(cell, style if at == 1 else "") for at, cell in enumerate(row)))
    return drawn


def _style(state: str) -> str:
    if state in _GOOD:
        return "green"
    return "yellow" if state.partition(",")[0] in _GOOD | _PASSING else "bold red"
