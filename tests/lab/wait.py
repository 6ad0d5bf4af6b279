"""How do tests wait for a condition, with a bound, and without sleeping for luck?"""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.lab.errors import LabError

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T | None],
    what: str,
    *,
    deadline_s: float = 30.0,
    poll_s: float = 0.02,
    ignore: tuple[type[BaseException], ...] = (),
) -> T:
    """Return the first true value of a condition.

    Args:
        condition: Asked again and again.
        what: What is waited for, for the message: "the engine answers".
        deadline_s: Seconds until this gives up.
        poll_s: Seconds between two questions.
        ignore: Exceptions of the condition that count as "not yet".

    Raises:
        LabError: It was not true in time; the last ignored exception is its cause.
    """
    end = time.monotonic() + deadline_s
    last: BaseException | None = None
    while True:
        try:
            if value := condition():
                return value
        except ignore as err:
            last = err
        if time.monotonic() > end:
            raise LabError(f"waited {deadline_s:g} s in vain until {what}") from last
        time.sleep(poll_s)
