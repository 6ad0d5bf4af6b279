"""Is the name server before all others only while it needs little?"""

from __future__ import annotations

from node.dns.urgency import LOOK_S, MODEST_FOR_S, Urgency


def after(*shares: float) -> Urgency:
    """Return what came of looks, each of which found such a share of a processor used."""
    urgency = Urgency()
    for share in shares:
        urgency.note(share * LOOK_S, LOOK_S)
    return urgency


def test_who_needs_little_stays_urgent() -> None:
    """Usual use changes nothing."""
    assert after(*[0.05] * 100).is_urgent


def test_a_flood_takes_it_at_once() -> None:
    """From the first look that found much used on it is as any other process."""
    assert not after(0.01, 0.9).is_urgent
    assert Urgency().note(0.9 * LOOK_S, LOOK_S)


def test_it_comes_back_after_a_while() -> None:
    """Only after it was modest for some time in a row."""
    calm = [0.1] * (round(MODEST_FOR_S / LOOK_S) + 1)
    assert after(0.9, *calm).is_urgent
    assert not after(0.9, *calm[2:]).is_urgent
    assert not after(0.9, *calm[2:], 0.9, *calm[2:]).is_urgent
