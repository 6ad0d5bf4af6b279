"""How is a log line shown? Pure: the line in, its text out."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from cli.texts import instant

if TYPE_CHECKING:
    from dray.views import LogLine

__all__ = ["LinePrinter"]

_COLORS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # of terminals; red is for errors
_PREFIX_MIN: Final = 12  # characters: short names line up


class LinePrinter:
    """Writes lines, each with who wrote it, in a colour that is the same for one slot."""

    def __init__(self, *, has_prefix: bool, has_time: bool, is_color: bool) -> None:
        """Choose what comes before a line."""
        self._has_prefix = has_prefix
        self._has_time = has_time
        self._is_color = is_color
        self._width = _PREFIX_MIN
        self._is_open: set[tuple[str, int]] = set()

    def text(self, line: LogLine) -> str:
        """Return a line as it is written; parts of one long line follow one another."""
        key = (line.task_id, line.attempt)
        body = line.line.decode(errors="replace")
        head = "" if key in self._is_open else self._head(line)
        if line.is_partial:
            self._is_open.add(key)
            return head + body
        self._is_open.discard(key)
        return f"{head}{body}\n"

    def _head(self, line: LogLine) -> str:
        head = ""
        if self._has_prefix:
            slot = line.slot
            name = f"{slot.service}.{slot.slot}" if slot else line.task_id[:8]
            self._width = max(self._width, len(name))
            head = f"{name:<{self._width}} | "
            if self._is_color:
                color = _COLORS[zlib.crc32(name.encode()) % len(_COLORS)]
                head = f"\x1b[{color}m{head}\x1b[0m"
        if self._has_time:
            head += f"{instant(line.unix_ns / 1e9)} "
        return head
