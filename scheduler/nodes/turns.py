"""How do thousands of streams share one event loop with the lease? They take turns.

A pass of the event loop runs everything that is ready. When 6,100 nodes connect to a new leader and
each says what it runs, one pass would be half a minute of work, and the lease would be over in the
middle of it. What costs time is done within a turn; there are so many turns in each pass.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

__all__ = ["AT_ONCE", "Turns"]

AT_ONCE: Final = 8  # pieces of work in one pass: a node's report of 328 tasks takes about 4 ms


class Turns:
    """So many pieces of work in one pass of the event loop, first come, first served.

    `async with turns:` around work that does not wait.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        """Start with all turns free."""
        self._free = asyncio.Semaphore(at_once)

    async def __aenter__(self) -> None:
        """Wait for a turn."""
        await self._free.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the turn to who comes next, in the next pass."""
        try:
            await asyncio.sleep(0)  # the clock's own sleep would be a timer's
        finally:
            self._free.release()
