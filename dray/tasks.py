"""How does a daemon keep its loops running, and how does it stop? The supervisor and the signals.

A daemon is a handful of named loops. Each is started from fresh state, so that a bug in one round
costs a restart and not the daemon:

- a *bug* (`InternalError`, a failed assertion, any exception that is no `DrayError`) is logged with
  its traceback, and the loop starts again after a back-off;
- a *retryable* `DrayError` that reached the loop's end is logged as a warning, and the loop starts
  again after a back-off;
- any other `DrayError` ends the daemon: somebody has to act, and the message says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import random
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final

from dray.clock import Clock
from dray.errors import DrayError, InternalError
from dray.log import Logger, bound
from dray.retry import Backoff

__all__ = [
    "HEALTHY_AFTER_S",
    "LOOPS_MAX",
    "RESTART_BACKOFF",
    "STOP_GRACE_S",
    "LoopStatus",
    "Supervisor",
    "run_until_signal",
]

LOOPS_MAX: Final = (
    64  # loops of one daemon: they are few and named; many things are one loop's work
)
RESTART_BACKOFF: Final = Backoff(first_s=0.2, max_s=30.0)
HEALTHY_AFTER_S: Final = 60.0  # a loop that ran this long starts its back-off anew
STOP_GRACE_S: Final = 30.0  # from the signal to giving up on a clean end; systemd kills after 90 s


class _End(enum.Enum):
    """How one run of a loop ended."""

    DONE = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """How one loop is doing, for the health service and the metrics.

    Attributes:
        name: The loop.
        is_running: Whether it runs now; False in its back-off and after its end.
        restarts: How often it was started again since the daemon began.
        last_error: Why it last failed; empty: it never did.
    """

    name: str
    is_running: bool = False
    restarts: int = 0
    last_error: str = ""


@dataclass(slots=True)
class _Loop:
    name: str
    run: Callable[[], Awaitable[None]]
    status: LoopStatus
    failures: int = 0


class Supervisor:
    """Runs a daemon's loops side by side until they end, one fails for good, or it is cancelled."""

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        log: Logger,
        backoff: Backoff = RESTART_BACKOFF,
    ) -> None:
        """Make a supervisor without loops.

        Args:
            clock: Measures how long loops ran, and waits.
            rng: Draws the jitter of the back-off.
            log: Gets a line for every start again and every end.
            backoff: How long to wait before a failed loop is started again.
        """
        self._clock = clock
        self._rng = rng
        self._log = log
        self._backoff = backoff
        self._loops: dict[str, _Loop] = {}
        self._is_started = False

    def add(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Add a loop before `run`.

        Args:
            name: Its name, once per daemon: the `component` of its log lines.
            run: Called for every start. It builds its state anew and returns when it is done.
        """
        assert not self._is_started, f"loop {name} comes too late"
        assert name not in self._loops, f"two loops are called {name}"
        assert len(self._loops) < LOOPS_MAX, f"more than {LOOPS_MAX} loops"
        self._loops[name] = _Loop(name, run, LoopStatus(name))

    def statuses(self) -> tuple[LoopStatus, ...]:
        """Return how each loop is doing, in the order they were added."""
        return tuple(loop.status for loop in self._loops.values())

    async def run(self) -> None:
        """Run all loops; return when all are done. Cancelling it cancels them and waits for them.

        Raises:
            DrayError: One that ended a loop for good. The others were cancelled first. Of several
                the first.
        """
        self._is_started = True
        try:
            async with asyncio.TaskGroup() as group:
                for loop in self._loops.values():
                    group.create_task(self._keep_running(loop), name=loop.name)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    async def _keep_running(self, loop: _Loop) -> None:
        with bound(component=loop.name):
            while await self._run_once(loop) is _End.FAILED:
                delay_s = self._backoff.delay_s(loop.failures, self._rng)
                await self._clock.sleep(delay_s)
                loop.status = LoopStatus(
                    loop.name, False, loop.status.restarts + 1, loop.status.last_error
                )

    async def _run_once(self, loop: _Loop) -> _End:
        """Run a loop from its start to its end; the one place that catches every exception."""
        start_s = self._clock.monotonic_s()
        loop.status = LoopStatus(
            loop.name, True, loop.status.restarts, last_error=loop.status.last_error
        )
        last_error = loop.status.last_error
        try:
            await loop.run()
        except Exception as error:  # broad on purpose: nowhere else in a daemon
            last_error = str(error) or type(error).__name__
            if self._clock.monotonic_s() - start_s >= HEALTHY_AFTER_S:
                loop.failures = 0
            loop.failures += 1
            self._report(loop, error)
            if _is_final(error):
                raise
            return _End.FAILED
        else:
            self._log.info("loop done")
            return _End.DONE
        finally:
            loop.status = LoopStatus(loop.name, False, loop.status.restarts, last_error)

    def _report(self, loop: _Loop, error: Exception) -> None:
        fields = {"error": str(error), "restarts": loop.status.restarts}
        if isinstance(error, DrayError) and not isinstance(error, InternalError):
            write = self._log.error if _is_final(error) else self._log.warning
            write("loop failed", error_code=error.code.name, **fields)
        else:
            self._log.error("loop has a bug", exc_info=error, **fields)


def _is_final(error: Exception) -> bool:
    """Return whether starting again cannot help."""
    is_bug = isinstance(error, InternalError) or not isinstance(error, DrayError)
    return not is_bug and not getattr(error, "retryable", False)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure that came first; the others are of loops that it cancelled."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def run_until_signal(
    main: Coroutine[Any, Any, None],
    *,
    log: Logger,
    grace_s: float = STOP_GRACE_S,
    signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT),
) -> signal.Signals | None:
    """Run a daemon until it ends by itself or is told to stop.

    The first signal cancels `main`, which then says goodbye and cleans up. A second one, or the end
    of the grace period, gives up waiting.

    Args:
        main: The daemon.
        log: Gets a line for each signal.
        grace_s: How long a clean end may take.
        signals: What means stop.

    Returns:
        The signal that ended it, or None when it ended by itself.

    Raises:
        InternalError: It did not end within the grace period; the process should exit now.
        Exception: Whatever `main` raised, also while it stopped.
    """
    received: asyncio.Queue[signal.Signals] = asyncio.Queue(maxsize=2)
    task = asyncio.create_task(main, name="main")
    with _handled(signals, received):
        waiting = asyncio.create_task(received.get(), name="signals")
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await task
                return None
            stop = waiting.result()
            log.info("stopping on a signal", signal=stop.name)
            task.cancel()
            waiting = asyncio.create_task(received.get(), name="signals")
            await asyncio.wait(
                {task, waiting}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not task.done():
                raise InternalError("did not stop cleanly", hint="the process ends as it is")
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return stop
        finally:
            waiting.cancel()
            task.cancel()


@contextlib.contextmanager
def _handled(
    signals: tuple[signal.Signals, ...], received: asyncio.Queue[signal.Signals]
) -> Iterator[None]:
    """Put the signals into the queue while the block runs."""
    loop = asyncio.get_running_loop()

    def take(number: signal.Signals) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            received.put_nowait(number)

    for number in signals:
        loop.add_signal_handler(number, functools.partial(take, number))
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
