"""Does virtual time pass only when told, in order, and does real time pass at all?"""

from __future__ import annotations

import asyncio

from dray.clock import Clock, ManualClock, SystemClock


async def _note(clock: Clock, duration_s: float, name: str, woken: list[tuple[str, float]]) -> None:
    await clock.sleep(duration_s)
    woken.append((name, clock.monotonic_s()))


async def test_sleepers_wake_in_order_at_their_own_time() -> None:
    """Whoever is due first wakes first and sees its own time, not the end of the step."""
    clock = ManualClock(monotonic_s=0.0)
    woken: list[tuple[str, float]] = []
    async with asyncio.TaskGroup() as group:
        for name, duration_s in (("c", 3.0), ("a", 1.0), ("b", 1.0)):
            group.create_task(_note(clock, duration_s, name, woken))
        await clock.advance(2.5)
        assert woken == [("a", 1.0), ("b", 1.0)]
        assert clock.sleeper_count == 1
        await clock.advance(0.5)
    assert woken == [("a", 1.0), ("b", 1.0), ("c", 3.0)]
    assert clock.monotonic_s() == 3.0


async def test_who_sleeps_again_is_woken_within_one_step() -> None:
    """A loop that sleeps 1 s each round runs ten rounds in a step of ten seconds."""
    clock = ManualClock()
    rounds: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(1.0)
            rounds.append(clock.monotonic_s())

    task = asyncio.create_task(tick())
    start_s = clock.monotonic_s()
    await clock.advance(10.0)
    assert rounds == [start_s + number for number in range(1, 11)]
    task.cancel()


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    """Cancelling a sleeper leaves nobody to wake, and time still passes."""
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(5.0))
    await clock.advance(1.0)
    task.cancel()
    await clock.advance(10.0)
    assert task.cancelled()
    assert clock.sleeper_count == 0


async def test_sleeping_for_nothing_lets_others_run() -> None:
    """Zero and negative durations give way once, on either clock, and wait for no step."""
    for clock in (ManualClock(), SystemClock()):
        ran: list[str] = []
        other = asyncio.create_task(_note(ManualClock(), 0.0, "other", []))
        await clock.sleep(0.0)
        await clock.sleep(-1.0)
        ran.append("self")
        assert ran == ["self"]
        await other


def test_the_three_clocks_part_in_a_suspend() -> None:
    """A suspended machine's monotonic clock stands still; setting the date moves only the date."""
    clock = ManualClock(monotonic_s=1.0, boottime_s=2.0, unix_s=3.0)
    clock.suspend(3600.0)
    assert (clock.monotonic_s(), clock.boottime_s(), clock.unix_s()) == (1.0, 3602.0, 3603.0)
    clock.set_unix(5.0)
    assert (clock.monotonic_s(), clock.boottime_s(), clock.unix_s()) == (1.0, 3602.0, 5.0)


async def test_all_clocks_pass_with_the_step() -> None:
    """A step moves the three clocks alike."""
    clock = ManualClock(monotonic_s=1.0, boottime_s=2.0, unix_s=3.0)
    await clock.advance(10.0)
    assert (clock.monotonic_s(), clock.boottime_s(), clock.unix_s()) == (11.0, 12.0, 13.0)


async def test_the_machines_clocks_go_forward() -> None:
    """The real clock sleeps at least as long as asked, measured on both of its steady clocks."""
    clock = SystemClock()
    before = (clock.monotonic_s(), clock.boottime_s())
    await clock.sleep(0.01)
    assert clock.monotonic_s() - before[0] >= 0.009
    assert clock.boottime_s() - before[1] >= 0.009
    assert clock.unix_s() > 1_700_000_000
