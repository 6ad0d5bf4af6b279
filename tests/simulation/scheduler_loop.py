"""How does real asyncio code run in virtual time? A loop that jumps to the next timer.

Nothing waits for the machine: when nobody can run, the clock is moved to the next timer. So 100
seconds of a cluster take as long as what happens in them, and a run is the same every time, as
long as nothing in it depends on threads, sockets or the machine's clocks.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

__all__ = ["InlineExecutor", "LoopClock", "VirtualLoop", "run_virtual"]

_T = TypeVar("_T")
UNIX_AT_START_S = 1_700_000_000.0


class _NoWaiting(selectors.DefaultSelector):
    """A selector that never waits: it moves the loop's clock instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let virtual time pass, and report no events."""
        assert timeout is not None, "everybody waits, and nothing is going to happen"
        self.loop.pass_time(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, from 0."""

    def __init__(self) -> None:
        """Start at 0 seconds."""
        selector = _NoWaiting()
        selector.loop = self
        self._now_s = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time."""
        return self._now_s

    def pass_time(self, duration_s: float) -> None:
        """Let time pass."""
        self._now_s += max(0.0, duration_s)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Call soon: there is only one thread."""
        return self.call_soon(callback, *args, context=context)


class Pausable(Protocol):
    """What may be stopped."""

    paused_at_s: float

    @property
    def is_paused(self) -> bool:
        """Whether it is stopped."""
        ...

    async def __call__(self) -> None:
        """Wait while it is stopped."""
        ...


class LoopClock:
    """The `Clock` of a virtual loop, as one process reads it.

    While the process is stopped it does not come back from its sleep, and what still runs of it (a
    timeout of asyncio) sees the time at which it was stopped: it notices nothing before it goes on.
    """

    def __init__(self, loop: VirtualLoop, gate: Pausable) -> None:
        """Read a loop's time.

        Args:
            loop: The loop.
            gate: Whether the process runs.
        """
        self._loop = loop
        self._gate = gate

    def monotonic_s(self) -> float:
        """Return the virtual time."""
        return self._gate.paused_at_s if self._gate.is_paused else self._loop.time()

    def boottime_s(self) -> float:
        """Return the virtual time."""
        return self.monotonic_s()

    def unix_s(self) -> float:
        """Return the virtual time as a wall clock."""
        return UNIX_AT_START_S + self.monotonic_s()

    async def sleep(self, duration_s: float) -> None:
        """Wait, and longer while paused."""
        await asyncio.sleep(max(0.0, duration_s))
        await self._gate()


class InlineExecutor(ThreadPoolExecutor):
    """An executor without threads: what is submitted is done at once."""

    def submit(self, call: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Do it now."""
        future: Future[_T] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        return future


def run_virtual(main: Callable[[VirtualLoop], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine to its end in a loop of its own, from 0 seconds."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending, timeout=60.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
