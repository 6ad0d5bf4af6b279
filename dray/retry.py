"""When is a failed call made again? The one helper that repeats calls, and its pure part.

Only a `DrayError` that says so (`retryable`) is repeated. Never put a retry inside a retry: the
outermost caller that has a deadline owns it, and everything below reports its failure at once.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from dray.clock import Clock
from dray.errors import DrayError

__all__ = ["ATTEMPTS_MAX", "Backoff", "Retry", "retry"]

ATTEMPTS_MAX: Final = 1_000  # calls: an end also where a deadline was set far too late
_DOUBLINGS_MAX: Final = 64  # keeps the power within a float; any cap is reached long before

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after each failure in a row: growing, capped, spread by chance.

    A delay lies between half of its step and the whole of it. The lower half stays, so that a
    failing peer is never hammered; the upper half is drawn, so that callers that failed together do
    not come back together.

    Attributes:
        first_s: Step after the first failure, > 0. Smaller finds a healed peer sooner and costs it
            more calls.
        max_s: Largest step, >= `first_s`.
        factor: Growth from step to step, >= 1.
    """

    first_s: float = 0.1
    max_s: float = 5.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        """Check the bounds: a wrong one is a bug of whoever wrote it down."""
        assert 0 < self.first_s <= self.max_s, (self.first_s, self.max_s)
        assert 1 <= self.factor <= 1_000, self.factor

    def step_s(self, failures: int) -> float:
        """Return the step after so many failures in a row, >= 1, before chance shortens it."""
        assert failures >= 1, failures
        return min(self.max_s, self.first_s * self.factor ** min(failures - 1, _DOUBLINGS_MAX))

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """Return how long to wait after so many failures in a row, >= 1."""
        return self.step_s(failures) * rng.uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Retry:
    """One failure that is going to be repeated: how many so far, why, and after what wait."""

    failures: int
    error: DrayError
    delay_s: float


async def retry(
    call: Callable[[float], Awaitable[_T]],
    *,
    clock: Clock,
    rng: random.Random,
    duration_s: float,
    backoff: Backoff = Backoff(),
    attempts_max: int = ATTEMPTS_MAX,
    on_retry: Callable[[Retry], None] | None = None,
) -> _T:
    """Make a call until it succeeds, fails for good, or the time is over.

    Args:
        call: The call. It is given the seconds that are left, > 0, and keeps to them.
        clock: Measures the time and waits.
        rng: Draws the jitter.
        duration_s: Time for all calls and waits together.
        backoff: How long to wait after a failure.
        attempts_max: Most calls made, >= 1.
        on_retry: Told of every failure that is going to be repeated, to log or count it.

    Raises:
        DrayError: The last failure, when it is not retryable, no calls are left, or the wait before
            the next one would outlast the time.
    """
    assert duration_s > 0, duration_s
    assert attempts_max >= 1, attempts_max
    deadline_at_s = clock.monotonic_s() + duration_s
    failures = 0
    while True:
        try:
            return await call(deadline_at_s - clock.monotonic_s())
        except DrayError as error:
            failures += 1
            delay_s = backoff.delay_s(failures, rng)
            is_late = clock.monotonic_s() + delay_s >= deadline_at_s
            if not error.retryable or failures >= attempts_max or is_late:
                raise
            if on_retry is not None:
                on_retry(Retry(failures, error, delay_s))
        await clock.sleep(delay_s)
