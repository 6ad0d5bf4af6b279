"""Is a call repeated exactly as long as it may help?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from dray.clock import ManualClock
from dray.errors import DrayError, InvalidRequest, Unavailable
from dray.retry import Backoff, Retry, retry


@pytest.mark.parametrize(
    ("failures", "step_s"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (8, 5.0), (10**9, 5.0)],
)
def test_steps_double_up_to_the_cap(failures: int, step_s: float) -> None:
    """Steps grow by the factor, never above the cap, also after a billion failures."""
    assert Backoff().step_s(failures) == pytest.approx(step_s)


def test_chance_takes_at_most_half_of_a_step() -> None:
    """Every delay lies between half of its step and the whole, and delays differ."""
    rng = random.Random(3)
    delays = [Backoff(1.0, 8.0).delay_s(3, rng) for _ in range(1000)]
    assert 2.0 <= min(delays) < 2.1
    assert 3.9 < max(delays) <= 4.0


@pytest.mark.parametrize(
    "make",
    [lambda: Backoff(0.0, 1.0), lambda: Backoff(2.0, 1.0), lambda: Backoff(factor=0.5)],
    ids=["no first step", "cap below the first", "shrinking"],
)
def test_a_wrong_backoff_is_a_bug(make: Callable[[], Backoff]) -> None:
    """Bounds are asserted when the value is made, not when the first failure comes."""
    with pytest.raises(AssertionError):
        make()


class _Peer:
    """Fails with the given errors, one a call, then answers; notes when it was called."""

    def __init__(self, clock: ManualClock, *errors: DrayError) -> None:
        self.clock = clock
        self.errors = list(errors)
        self.called_at_s: list[float] = []
        self.remaining_s: list[float] = []

    async def call(self, remaining_s: float) -> str:
        self.called_at_s.append(self.clock.monotonic_s())
        self.remaining_s.append(remaining_s)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def _retried(
    peer: _Peer, *, duration_s: float = 10.0, attempts_max: int = 100, seen: list[Retry]
) -> str:
    """Run `retry` while virtual time passes."""
    task = asyncio.create_task(
        retry(
            peer.call,
            clock=peer.clock,
            rng=random.Random(1),
            duration_s=duration_s,
            backoff=Backoff(1.0, 4.0),
            attempts_max=attempts_max,
            on_retry=seen.append,
        )
    )
    await peer.clock.advance(1000.0)
    assert task.done()
    return await task


async def test_the_answer_of_the_first_success_is_returned() -> None:
    """Two failures are waited out with growing delays; the third call's answer is the result."""
    peer = _Peer(ManualClock(monotonic_s=0.0), Unavailable("a"), Unavailable("b"))
    seen: list[Retry] = []
    assert await _retried(peer, seen=seen) == "answer"
    first, second = seen
    assert (first.failures, first.error.message, second.failures) == (1, "a", 2)
    assert peer.called_at_s == pytest.approx([0.0, first.delay_s, first.delay_s + second.delay_s])
    assert peer.remaining_s == pytest.approx([10.0 - at_s for at_s in peer.called_at_s])


async def test_what_a_retry_cannot_heal_is_raised_at_once() -> None:
    """An error that is not retryable is raised after one call."""
    peer = _Peer(ManualClock(), InvalidRequest("no"))
    with pytest.raises(InvalidRequest, match="no"):
        await _retried(peer, seen=[])
    assert len(peer.called_at_s) == 1


async def test_no_call_begins_after_the_deadline() -> None:
    """When the next wait would outlast the time, the last error is raised without that wait."""
    peer = _Peer(ManualClock(monotonic_s=0.0), *[Unavailable(str(n)) for n in range(100)])
    seen: list[Retry] = []
    with pytest.raises(Unavailable) as caught:
        await _retried(peer, seen=seen)
    assert caught.value.message == str(len(seen))
    assert max(peer.called_at_s) < 10.0
    assert min(peer.remaining_s) > 0.0


async def test_calls_are_counted() -> None:
    """The most calls are made, and no more."""
    peer = _Peer(ManualClock(), *[Unavailable("x") for _ in range(100)])
    with pytest.raises(Unavailable):
        await _retried(peer, attempts_max=3, seen=[])
    assert len(peer.called_at_s) == 3


async def test_other_exceptions_pass() -> None:
    """A bug in the call is not repeated."""

    async def call(_remaining_s: float) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await retry(call, clock=ManualClock(), rng=random.Random(1), duration_s=1.0)
