"""Is a clock that is off told apart from a message that took long?"""

from __future__ import annotations

import pytest

from node.resources.clocks import OFF_MAX_S, WAY_MAX_S, ClockCheck

NOW_UNIX_S = 1_700_000_000.0


@pytest.mark.parametrize("off_s", [-3600.0, -3.0, 0.0, 1.5, 3.5, 86_400.0])
def test_an_answer_shows_how_far_the_clock_is_off(off_s: float) -> None:
    """Asked and answered within 0.2 s: only what is beyond the limit is told, with its size."""
    check = ClockCheck()
    check.heard(NOW_UNIX_S, at_s=100.2, asked_at_s=100.0)
    fault = check.fault(100.2, NOW_UNIX_S + off_s)
    if abs(off_s) <= OFF_MAX_S:
        assert fault == ""
    else:
        assert ("behind" if off_s < 0 else "ahead of") in fault
        assert check.off_s(100.2, NOW_UNIX_S + off_s) == pytest.approx(off_s, abs=0.21)


def test_a_slow_answer_is_no_fault_but_a_later_one_may_be() -> None:
    """A leader that was busy for 30 s says little; the message that travelled least says most."""
    check = ClockCheck()
    check.heard(NOW_UNIX_S, at_s=130.0, asked_at_s=100.0)
    assert check.fault(130.0, NOW_UNIX_S + 30.0) == ""
    check.heard(NOW_UNIX_S + 40.0, at_s=140.0)
    assert check.fault(140.0, NOW_UNIX_S + 40.0) == ""
    assert "ahead" in check.fault(140.0, NOW_UNIX_S + 40.0 + OFF_MAX_S + WAY_MAX_S + 1.0)


def test_a_clock_that_is_set_meanwhile_shows_without_a_message() -> None:
    """The step is seen against the monotonic clock; setting it right ends the fault."""
    check = ClockCheck()
    check.heard(NOW_UNIX_S, at_s=100.0, asked_at_s=99.9)
    assert check.fault(200.0, NOW_UNIX_S + 100.0) == ""
    assert "behind" in check.fault(200.0, NOW_UNIX_S + 40.0)
    assert check.fault(201.0, NOW_UNIX_S + 101.0) == ""


def test_who_was_told_nothing_says_nothing() -> None:
    """No stream, or a scheduler that does not say its time: no fault."""
    check = ClockCheck()
    assert check.fault(1.0, NOW_UNIX_S) == ""
    check.heard(0.0, at_s=1.0, asked_at_s=1.0)
    assert check.fault(1.0, NOW_UNIX_S) == ""
    check.heard(NOW_UNIX_S, at_s=1.0, asked_at_s=1.0)
    check.forget()
    assert check.fault(1.0, NOW_UNIX_S + 99.0) == ""
