"""Is what stays put aside after a long look, and looked at again when that is asked for?"""

from __future__ import annotations

import gc

from scheduler.collector import COLLECT_AFTER, LONG_S, collect_sparingly, look_at_all_again


class _Ring:
    def __init__(self) -> None:
        self.own = self


def test_what_stays_is_put_aside_after_a_long_look() -> None:
    """A short look changes nothing; after a long one nothing is looked at until it is asked for."""
    limits, now_s, step_s = gc.get_threshold(), 0.0, 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += step_s
        return now_s

    end = collect_sparingly(clock)
    try:
        assert gc.get_threshold() == COLLECT_AFTER
        gc.collect()
        assert gc.get_freeze_count() == 0
        ring = _Ring()
        step_s = LONG_S
        gc.collect()
        assert gc.get_freeze_count() > 0
        del ring
        step_s = 0.0
        assert not any(isinstance(each, _Ring) for each in gc.get_objects())
        look_at_all_again()
        assert gc.get_freeze_count() == 0
        assert gc.collect() > 0
        assert not any(isinstance(each, _Ring) for each in gc.get_objects())
    finally:
        end()
    assert gc.get_threshold() == limits
