"""What time is it? The one place of the library that reads clocks, and a clock for tests.

Three clocks, never mixed: `monotonic_s` for durations and deadlines, `boottime_s` for grants that
must run out although the machine was suspended, `unix_s` for what people read.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Final, Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]

_SETTLE_TURNS: Final = 20  # turns of the event loop that woken tasks get before time moves on


class Clock(Protocol):
    """Where adapters read the time and wait; an argument, so that tests decide it."""

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start; never goes back, stands still in a suspend."""
        ...

    def boottime_s(self) -> float:
        """Return seconds since the machine booted; counts a suspend as well."""
        ...

    def unix_s(self) -> float:
        """Return seconds since 1970; jumps when somebody sets the clock."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Wait on the monotonic clock; zero or less lets others run once."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic_s(self) -> float:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic()

    def boottime_s(self) -> float:
        """Return CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def unix_s(self) -> float:
        """Return CLOCK_REALTIME."""
        return time.time()

    async def sleep(self, duration_s: float) -> None:
        """Wait in the event loop."""
        await asyncio.sleep(duration_s)


class ManualClock:
    """Virtual time for tests: it passes only in `advance`, and wakes sleepers in order.

    Sleepers wake one due time after another, those of the same time in the order in which they went
    to sleep, and run until they wait again before time moves on. So a run is the same every time.
    A task that waits for something else than this clock (a socket, a thread) is not waited for.
    """

    def __init__(
        self,
        *,
        monotonic_s: float = 1_000.0,
        boottime_s: float = 2_000.0,
        unix_s: float = 1_700_000_000.0,
    ) -> None:
        """Start the three clocks at different values, so that a mix-up shows."""
        self._monotonic_s = monotonic_s
        self._boottime_s = boottime_s
        self._unix_s = unix_s
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic_s(self) -> float:
        """Return the virtual monotonic time."""
        return self._monotonic_s

    def boottime_s(self) -> float:
        """Return the virtual time since boot."""
        return self._boottime_s

    def unix_s(self) -> float:
        """Return the virtual wall clock."""
        return self._unix_s

    @property
    def sleeper_count(self) -> int:
        """How many tasks sleep on this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, duration_s: float) -> None:
        """Wait until `advance` has moved time that far."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due_at_s = self._monotonic_s + duration_s
        heapq.heappush(self._sleepers, (due_at_s, next(self._order), future))
        await future

    async def advance(self, duration_s: float) -> None:
        """Let time pass, wake who is due on the way, and let them run until they wait again."""
        assert duration_s >= 0, duration_s
        end_at_s = self._monotonic_s + duration_s
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end_at_s:
            due_at_s, _, future = heapq.heappop(self._sleepers)
            self._pass_until(due_at_s)
            if not future.done():
                future.set_result(None)
                await self._settle()
        self._pass_until(end_at_s)

    def suspend(self, duration_s: float) -> None:
        """Let the machine sleep: all clocks but the monotonic one go on, nobody runs."""
        self._boottime_s += duration_s
        self._unix_s += duration_s

    def set_unix(self, unix_s: float) -> None:
        """Set the wall clock, as an operator or NTP would."""
        self._unix_s = unix_s

    def _pass_until(self, monotonic_s: float) -> None:
        duration_s = monotonic_s - self._monotonic_s
        self._monotonic_s = monotonic_s  # exactly, so that sleepers meet their own deadline
        self._boottime_s += duration_s
        self._unix_s += duration_s

    async def _settle(self) -> None:
        for _ in range(_SETTLE_TURNS):
            await asyncio.sleep(0)
