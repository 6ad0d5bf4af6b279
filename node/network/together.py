"""How do many callers at once cost one run? Who comes while one is under way shares the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["Together"]


class Together:
    """Something that brings the state of the moment somewhere: once is enough for all who wait."""

    def __init__(self, run: Callable[[], Awaitable[None]], lock: asyncio.Lock) -> None:
        """Run under a lock that others may hold too."""
        self._run = run
        self._lock = lock
        self._asked = self._done = 0

    async def done(self) -> None:
        """Return once a run that began after this call has succeeded.

        What a run raises is raised to the caller that made it; who waited makes the next.
        """
        self._asked += 1
        asked = self._asked
        async with self._lock:
            if self._done >= asked:
                return
            asked = self._asked
            await self._run()
            self._done = asked
