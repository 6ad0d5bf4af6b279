"""Does looking at the machine cost little while containers come and go, and see damage soon?"""

from __future__ import annotations

from node.network.pauses import REPAIR_PAUSE_MAX_S, REPAIR_PAUSE_S, WELL_PAUSE_MAX_S, LookPauses


def test_looks_grow_rare_while_nothing_is_found() -> None:
    """Many starts in a row wake it again and again: each look waits longer, up to a limit."""
    pauses = LookPauses()
    waits_s = [pauses.after(0.05, is_calm=number == 0, is_well=True) for number in range(5)]
    assert waits_s == [REPAIR_PAUSE_S, 2.0, 4.0, WELL_PAUSE_MAX_S, WELL_PAUSE_MAX_S]


def test_damage_and_calm_bring_the_short_pause_back() -> None:
    """After a repair, and once changes have become rare, the next look may be soon."""
    for is_calm, is_well in ((False, False), (True, True), (True, False)):
        pauses = LookPauses()
        for _ in range(4):
            pauses.after(0.05, is_calm=False, is_well=True)
        assert pauses.after(0.05, is_calm=is_calm, is_well=is_well) == REPAIR_PAUSE_S


def test_slow_looks_take_a_tenth_of_the_time() -> None:
    """A machine that answers slowly is asked less often, but never less than every ten seconds."""
    pauses = LookPauses()
    assert pauses.after(0.4, is_calm=True, is_well=False) == 4.0
    assert pauses.after(30.0, is_calm=True, is_well=False) == REPAIR_PAUSE_MAX_S
