"""What is every verb given? Its settings and where it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO

from cli.settings import CliSettings

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

    def warn(self, text: str) -> None:
        """Tell the person something, without touching the results."""
        print(f"dray: {text}", file=self.err)
