"""When does the interpreter look for cycles? In small portions, and once at what stays.

A large deployment makes millions of values, all of which stay. The collector's own limits (700, 10,
10) spend a quarter of the leader's time on them; and each time that there is a quarter more of them
it looks at all: 1 s of processor time at 400,000 tasks, during which nobody renews the lease. So
objects are looked at less often, and after a long look everything that is there is put aside. What
is put aside goes as soon as nobody refers to it, as always; only cycles among it would stay, which
is why all of it is looked at again when a term, with all that it knew, is over.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final

__all__ = ["collect_sparingly", "look_at_all_again"]

# New objects before the first look; looks before the second one; second looks before the third.
# The last one is at 800,000 objects: 0.3 s of processor time at most.
COLLECT_AFTER: Final = (20_000, 10, 4)
LONG_S: Final = 0.05


def collect_sparingly(now_s: Callable[[], float]) -> Callable[[], None]:
    """Have the collector of this process look seldom, and put aside what stays.

    Args:
        now_s: A monotonic clock, seconds.

    Returns:
        A function that ends it and puts the limits back.
    """
    before = gc.get_threshold()
    start_s = now_s()

    def note(phase: str, info: dict[str, Any]) -> None:
        nonlocal start_s
        if info["generation"] < 2:
            return
        if phase == "start":
            start_s = now_s()
        elif now_s() - start_s >= LONG_S:
            gc.freeze()

    def end() -> None:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)
        gc.unfreeze()

    gc.callbacks.append(note)
    gc.set_threshold(*COLLECT_AFTER)
    return end


def look_at_all_again() -> None:
    """Let the collector's next look be at everything."""
    gc.unfreeze()
