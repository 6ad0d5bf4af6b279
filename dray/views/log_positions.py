"""How does a broken stream of log lines go on without losing or doubling one? By positions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from dray.names import TaskId
from dray.views.streams import LogLine, LogPosition, LogQuery

__all__ = ["LogPositions"]

_ATTEMPTS_KEPT: Final = 2  # of a task: as many as its node keeps the output of


class LogPositions:
    """How far the lines of a stream were read, by task and attempt."""

    def __init__(self, positions: Iterable[LogPosition] = ()) -> None:
        """Begin where earlier streams came to."""
        self._positions: dict[TaskId, dict[int, LogPosition]] = {}
        for position in positions:
            self._put(position)

    def note(self, lines: Iterable[LogLine]) -> None:
        """Note lines that were read, in the order in which they came."""
        for line in lines:
            before = self._positions.get(line.task_id, {}).get(line.attempt)
            is_same = before is not None and before.unix_ns == line.unix_ns
            count = before.lines + 1 if before is not None and is_same else 1
            self._put(LogPosition(line.task_id, line.attempt, line.unix_ns, count))

    def _put(self, position: LogPosition) -> None:
        attempts = self._positions.setdefault(position.task_id, {})
        attempts[position.attempt] = position
        if len(attempts) > _ATTEMPTS_KEPT:
            del attempts[min(attempts)]

    def rest_of(self, query: LogQuery, began_unix_s: float) -> LogQuery:
        """Return the query for what is left of another one.

        Args:
            query: What was asked for at first.
            began_unix_s: When: of an attempt of which no line was read before, all since then is
                wanted if no earlier line was (a tail of 0), and all that there is otherwise.
        """
        since_s = query.since_unix_s
        if query.tail == 0:
            since_s = began_unix_s if since_s is None else max(since_s, began_unix_s)
        read_to = tuple(each for task in self._positions.values() for each in task.values())
        return replace(query, tail=None, since_unix_s=since_s, read_to=read_to)
