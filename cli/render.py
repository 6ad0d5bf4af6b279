"""How does a view get onto the terminal, or into a pipe?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TextIO

from cli.settings import OutputFormat
from cli.views import Table, View

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

__all__ = ["PIPE_WIDTH", "grid", "show", "show_plain", "table_text"]

# Columns of what is not a terminal: nothing is folded or cut for a program that reads it.
PIPE_WIDTH: Final = 10_000
# Bell, backspace and vertical movements, which rich takes out of what it prints as well.
_NOT_PRINTED: Final = dict.fromkeys((7, 8, 11, 12, 13))


def show(view: View, output_format: OutputFormat, stream: TextIO, *, is_color: bool = True) -> None:
    """Write a view.

    Args:
        view: What to show.
        output_format: For people or for programs.
        stream: Where to.
        is_color: Whether a terminal gets colours.
    """
    if output_format is not OutputFormat.TABLE:
        show_plain(view.plain(), output_format, stream)
        return
    table = view.table()
    lines = None if stream.isatty() else _lines(table)
    if lines is not None and _widest(lines) <= PIPE_WIDTH:
        stream.write("".join(f"{line}\n" for line in lines).translate(_NOT_PRINTED))
        return  # a pipe needs nothing of rich, whose import costs as much as that of gRPC
    table_text(table, _console(stream, is_color=is_color))


def show_plain(value: object, output_format: OutputFormat, stream: TextIO) -> None:
    """Write plain values as JSON or YAML, in the order they have."""
    if output_format is OutputFormat.JSON:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        return
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    yaml.dump(value, stream, Dumper=dumper, sort_keys=False, allow_unicode=True, width=PIPE_WIDTH)


def table_text(table: Table, console: Console) -> None:
    """Write a table that fits the console: what is too long is folded, never cut."""
    lines = _lines(table)
    if lines is None or _widest(lines) > console.width:
        console.print(grid(table))
        return
    # Rich takes a second for 2,000 rows; nothing is folded here, so nothing needs its layout.
    from rich.text import Text

    console.print(Text(lines[0], style="bold"), soft_wrap=True)
    if len(lines) > 1:
        console.print(Text("\n".join(lines[1:])), soft_wrap=True)


def _lines(table: Table) -> list[str] | None:
    """Return a table's lines as `grid` draws them where nothing is folded; None: it must be."""
    rows = (table.columns, *table.rows)
    if any("\n" in cell or "\t" in cell for row in rows for cell in row):
        return None
    is_ascii = all("".join(row).isascii() for row in rows)
    measure = len if is_ascii else _cells
    widths = [max(map(measure, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [cell + " " * (width - measure(cell)) for cell, width in zip(row, widths, strict=True)]
        )
        for row in rows
    ]


def _widest(lines: list[str]) -> int:
    """Return how many columns lines take; all of them have the same width."""
    return _cells(lines[0])


def _cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def grid(table: Table) -> RichTable:
    """Return a table as rich draws it."""
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns:
        drawn.add_column(column, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _console(stream: TextIO, *, is_color: bool) -> Console:
    from rich.console import Console

    class OurConsole(Console):
        """A console that leaves a closed pipe to the program, which knows its status."""

        def on_broken_pipe(self) -> None:
            """Raise the `BrokenPipeError` that is being handled again."""
            raise

    return OurConsole(
        file=stream,
        width=None if stream.isatty() else PIPE_WIDTH,
        color_system="auto" if is_color else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
