"""Is a view the same thing to people and to programs, whatever the width?"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import pytest
import yaml
from rich.console import Console

from cli.render import PIPE_WIDTH, show, table_text
from cli.settings import OutputFormat
from cli.views import ComponentVersion, Table, VersionsView

_VIEW = VersionsView(
    (
        ComponentVersion("client", "0.1.0", "3.11.2", "linux/x86_64"),
        ComponentVersion("scheduler n1 [bold]", "0.1.0", "3.13.0", "linux/aarch64"),
    )
)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Shown:
    shown: Table

    def table(self) -> Table:
        return self.shown

    def plain(self) -> object:
        return None


def _shown(table: Table, width: int) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False)
    table_text(table, console)
    return stream.getvalue().splitlines()


def test_a_table_has_headings_and_rows() -> None:
    """Columns are aligned, and text that looks like markup is shown as it is."""
    lines = [line.rstrip() for line in _shown(_VIEW.table(), 100)]
    assert lines == [
        "COMPONENT            VERSION  PYTHON  PLATFORM",
        "client               0.1.0    3.11.2  linux/x86_64",
        "scheduler n1 [bold]  0.1.0    3.13.0  linux/aarch64",
    ]


@pytest.mark.parametrize("width", [10, 20, 33, 47])
def test_a_narrow_terminal_folds_and_loses_nothing(width: int) -> None:
    """What does not fit is folded into further lines: no line is too long, no text is cut."""
    table = Table(("NAME", "WHY"), (("shop_web.1", "no node has 512MiB free"),))
    lines = _shown(table, width)
    assert max(map(len, lines)) <= width
    together = "".join(lines).replace(" ", "")
    assert sorted(together) == sorted("NAMEWHYshop_web.1nonodehas512MiBfree")


def test_a_pipe_gets_whole_lines() -> None:
    """What is not a terminal is never folded, however long a row is."""
    stream = io.StringIO()
    long = VersionsView((ComponentVersion("x" * 500, "1", "2", "3"),))
    show(long, OutputFormat.TABLE, stream)
    assert len(stream.getvalue().splitlines()) == 2


@pytest.mark.parametrize(
    "cells", [("web", ""), ("schlüssel: 店", "x"), ("[bold]\x1b", "bell\x07"), ("two\nlines", "\t")]
)
def test_a_pipe_gets_what_a_wide_terminal_would(cells: tuple[str, str]) -> None:
    """Without rich, the same characters come out as with it."""
    table = Table(("NAME", "WHY"), (cells, ("a", "b")))
    stream = io.StringIO()
    show(_Shown(table), OutputFormat.TABLE, stream)
    assert stream.getvalue().splitlines() == _shown(table, PIPE_WIDTH)


@pytest.mark.parametrize(
    ("stream", "is_color"), [(_Terminal(), False), (io.StringIO(), True)], ids=["off", "a pipe"]
)
def test_colours_go_only_where_they_may(stream: io.StringIO, is_color: bool) -> None:
    """A terminal with colours off gets no escape codes, and a pipe never does."""
    show(_VIEW, OutputFormat.TABLE, stream, is_color=is_color)
    assert "client" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


def test_programs_get_the_same_facts_in_both_formats() -> None:
    """JSON and YAML say the same, in the same order, beyond ASCII too."""
    view = VersionsView((ComponentVersion("schlüssel: 店", "0.1.0", "3.11", "linux"),))
    as_json, as_yaml = io.StringIO(), io.StringIO()
    show(view, OutputFormat.JSON, as_json)
    show(view, OutputFormat.YAML, as_yaml)
    assert json.loads(as_json.getvalue()) == yaml.safe_load(as_yaml.getvalue()) == view.plain()
    assert "店" in as_json.getvalue()
    assert list(json.loads(as_json.getvalue())[0]) == ["component", "version", "python", "platform"]


def test_a_row_of_the_wrong_length_is_a_bug() -> None:
    """A table whose rows do not fit its columns is not made."""
    with pytest.raises(AssertionError):
        Table(("A", "B"), (("1",),))
