"""Does a daemon outlive its bugs, end when it must, and stop when it is told to?"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import Any

import pytest

from dray.clock import ManualClock
from dray.errors import FailedPrecondition, InternalError, Unavailable
from dray.retry import Backoff
from dray.tasks import HEALTHY_AFTER_S, Supervisor, run_until_signal


class _Log:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def of(self, event: str) -> list[tuple[str, dict[str, Any]]]:
        return [(level, fields) for level, name, fields in self.lines if name == event]


class _Loop:
    """A loop that fails with one exception a start, then runs until cancelled."""

    def __init__(self, *errors: Exception, runs_s: float = 0.0) -> None:
        self.errors = list(errors)
        self.runs_s = runs_s
        self.started_at_s: list[float] = []
        self.is_cancelled = False

    async def run(self) -> None:
        self.started_at_s.append(CLOCK.get().monotonic_s())
        await CLOCK.get().sleep(self.runs_s)
        if self.errors:
            raise self.errors.pop(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


class _Current:
    """The clock of the running test."""

    def __init__(self) -> None:
        self.clock = ManualClock()

    def get(self) -> ManualClock:
        return self.clock


CLOCK = _Current()


@pytest.fixture
def clock() -> ManualClock:
    """A fresh clock at 0, also for the loops."""
    CLOCK.clock = ManualClock(monotonic_s=0.0)
    return CLOCK.clock


@pytest.fixture
def log() -> _Log:
    """A fresh log."""
    return _Log()


@pytest.fixture
def supervisor(clock: ManualClock, log: _Log) -> Supervisor:
    """A supervisor without loops."""
    return Supervisor(clock=clock, rng=random.Random(1), log=log, backoff=Backoff(1.0, 4.0))


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "bug", [InternalError("broken"), AssertionError("broken"), KeyError("broken")], ids=repr
)
async def test_a_bug_costs_a_restart(
    supervisor: Supervisor, clock: ManualClock, log: _Log, bug: Exception
) -> None:
    """A loop with a bug is logged with the traceback and started again; the others run on."""
    broken, sound = _Loop(bug), _Loop()
    supervisor.add("broken", broken.run)
    supervisor.add("sound", sound.run)
    task = asyncio.create_task(supervisor.run())
    await clock.advance(1.0)
    assert len(broken.started_at_s) == 2
    assert len(sound.started_at_s) == 1
    ((level, fields),) = log.of("loop has a bug")
    assert (level, fields["exc_info"]) == ("error", bug)
    assert [status.restarts for status in supervisor.statuses()] == [1, 0]
    assert "broken" in supervisor.statuses()[0].last_error
    await _stop(task)
    assert broken.is_cancelled
    assert sound.is_cancelled


async def test_restarts_back_off_and_recover(supervisor: Supervisor, clock: ManualClock) -> None:
    """Delays grow up to the cap while a loop fails at once, and start anew once it ran well."""
    loop = _Loop(*[KeyError("x") for _ in range(5)])
    supervisor.add("loop", loop.run)
    task = asyncio.create_task(supervisor.run())
    await clock.advance(100.0)
    delays = [b - a for a, b in zip(loop.started_at_s, loop.started_at_s[1:], strict=False)]
    assert [0.5 <= delays[0] <= 1.0, 1.0 <= delays[1] <= 2.0] == [True, True]
    assert all(2.0 <= delay <= 4.0 for delay in delays[2:])
    await _stop(task)

    loop = _Loop(*[KeyError("x") for _ in range(5)], runs_s=HEALTHY_AFTER_S + 1)
    patient = Supervisor(clock=clock, rng=random.Random(1), log=_Log(), backoff=Backoff(1.0, 99.0))
    patient.add("loop", loop.run)
    task = asyncio.create_task(patient.run())
    await clock.advance(HEALTHY_AFTER_S * 10)
    gaps = [b - a for a, b in zip(loop.started_at_s, loop.started_at_s[1:], strict=False)]
    assert len(gaps) == 5
    assert max(gaps) <= HEALTHY_AFTER_S + 2.0
    await _stop(task)


async def test_a_passing_failure_is_a_warning(
    supervisor: Supervisor, clock: ManualClock, log: _Log
) -> None:
    """A retryable error that reached the end of a loop is logged without a traceback."""
    loop = _Loop(Unavailable("etcd is away"))
    supervisor.add("loop", loop.run)
    task = asyncio.create_task(supervisor.run())
    await clock.advance(1.0)
    ((level, fields),) = log.of("loop failed")
    assert (level, fields["error_code"]) == ("warning", "UNAVAILABLE")
    assert "exc_info" not in fields
    assert len(loop.started_at_s) == 2
    await _stop(task)


async def test_a_final_error_ends_the_daemon(
    supervisor: Supervisor, clock: ManualClock, log: _Log
) -> None:
    """An error that needs somebody to act cancels the other loops and is raised as itself."""
    error = FailedPrecondition("the store is empty", hint="run `dray init`")
    broken, sound = _Loop(error), _Loop()
    supervisor.add("sound", sound.run)
    supervisor.add("broken", broken.run)
    with pytest.raises(FailedPrecondition) as caught:
        await supervisor.run()
    assert caught.value is error
    assert sound.is_cancelled
    assert log.of("loop failed")[0][0] == "error"
    assert not any(status.is_running for status in supervisor.statuses())


async def test_loops_that_are_done_end_the_daemon(supervisor: Supervisor, log: _Log) -> None:
    """A loop may return; when all have, so does the supervisor."""

    async def nothing() -> None: ...

    supervisor.add("a", nothing)
    supervisor.add("b", nothing)
    await supervisor.run()
    assert len(log.of("loop done")) == 2


async def test_loops_are_named_once_and_in_time(supervisor: Supervisor) -> None:
    """Two loops of one name, or one added too late, are bugs."""
    supervisor.add("a", _Loop().run)
    with pytest.raises(AssertionError, match="two loops"):
        supervisor.add("a", _Loop().run)
    task = asyncio.create_task(supervisor.run())
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="too late"):
        supervisor.add("b", _Loop().run)
    await _stop(task)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_cleanly(log: _Log, number: signal.Signals) -> None:
    """The first signal cancels the daemon, which may still clean up; the signal is returned."""
    steps: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("goodbye said")

    assert await run_until_signal(main(), log=log) is number
    assert steps == ["goodbye said"]
    assert log.of("stopping on a signal") == [("info", {"signal": number.name})]
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


async def test_an_end_without_a_signal_is_told_apart(log: _Log) -> None:
    """A daemon that ends by itself returns None, one that fails raises what it raised."""

    async def done() -> None: ...

    async def broken() -> None:
        raise FailedPrecondition("no cluster")

    assert await run_until_signal(done(), log=log) is None
    with pytest.raises(FailedPrecondition, match="no cluster"):
        await run_until_signal(broken(), log=log)


async def test_an_error_while_stopping_is_raised(log: _Log) -> None:
    """What goes wrong in the clean-up after a signal is not swallowed."""

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            raise Unavailable("goodbye was not sent")

    with pytest.raises(Unavailable, match="goodbye"):
        await run_until_signal(main(), log=log)


@pytest.mark.parametrize("is_second_signal", [False, True], ids=["grace is over", "second signal"])
async def test_a_daemon_that_hangs_is_given_up(log: _Log, is_second_signal: bool) -> None:
    """The end of the grace period, or a second signal, ends the wait for a clean-up that hangs."""
    release = asyncio.Event()

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if is_second_signal:
                os.kill(os.getpid(), signal.SIGTERM)
            await release.wait()

    grace_s = 60.0 if is_second_signal else 0.02
    with pytest.raises(InternalError, match="did not stop cleanly"):
        await run_until_signal(main(), log=log, grace_s=grace_s)
    release.set()
