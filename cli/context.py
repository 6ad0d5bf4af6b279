"""What is every verb given? Its settings and where it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from cli.settings import CliSettings, OutputFormat

if TYPE_CHECKING:
    from cli.views import View

__all__ = ["Context"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a verb works with.

    Attributes:
        settings: Where the cluster is, and how output looks.
        out: Results: what a pipe reads.
        err: Progress, warnings and errors: what a person reads.
    """

    settings: CliSettings
    out: TextIO
    err: TextIO

    def show(self, view: View) -> None:
        """Write a result in the format that was asked for, by default a table."""
        from cli.render import show

        chosen = self.settings.output_format or OutputFormat.TABLE
        show(view, chosen, self.out, is_color=self.settings.is_color)

    def warn(self, text: str) -> None:
        """Tell the person something, without touching the results."""
        print(f"dray: {text}", file=self.err)
