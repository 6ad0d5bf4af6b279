"""How are a runtime's events kept for one who listens, within bounds?

A listener that does not keep up loses its backlog and gets RECONNECTED in its place: look again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from node.runtime.base import RuntimeEvent, RuntimeEventKind

__all__ = ["BACKLOG_EVENTS_MAX", "RECONNECTED", "Listener"]

BACKLOG_EVENTS_MAX: Final = 4096  # some events for each of 508 containers
RECONNECTED: Final = RuntimeEvent(RuntimeEventKind.RECONNECTED, "", None, 0.0)


class Listener:
    """What one listener has not taken yet."""

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id
        self._backlog: deque[RuntimeEvent] = deque()
        self._is_news = asyncio.Event()
        self._is_ended = False
        self._error: BaseException | None = None

    def put(self, event: RuntimeEvent) -> None:
        """Add an event if it concerns this listener."""
        if event.container_id not in ("", self._container_id) and self._container_id:
            return
        if len(self._backlog) >= BACKLOG_EVENTS_MAX:
            self._backlog.clear()
            event = RECONNECTED
        self._backlog.append(event)
        self._is_news.set()

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing will come any more, because of a bug if there is an error."""
        self._is_ended = True
        self._error = error
        self._is_news.set()

    async def next(self) -> RuntimeEvent | None:
        """Wait for the next event and return it, or None at the end."""
        while not self._backlog:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                return None
            self._is_news.clear()
            await self._is_news.wait()
        return self._backlog.popleft()

    async def __aiter__(self) -> AsyncIterator[RuntimeEvent]:
        """Yield events until the end."""
        while (event := await self.next()) is not None:
            yield event
