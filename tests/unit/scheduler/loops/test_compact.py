"""Is history forgotten by time and by growth, and never what a watch may still need?"""

from __future__ import annotations

from dray.model import StoreRevision
from scheduler.loops.compact import (
    EVERY_S,
    GROWTH_BYTES,
    KEEP_MIN_S,
    KEEP_S,
    LOOK_EVERY_S,
    Compaction,
)

MIB = 1_048_576


class Clock:
    """Looks at a store that gets a revision a second."""

    def __init__(self) -> None:
        self.compaction = Compaction()
        self.now_s = 1_000.0

    def look(self, size_bytes: int = MIB) -> StoreRevision | None:
        """Return what is to be forgotten after the time of one look."""
        self.now_s += LOOK_EVERY_S
        return self.compaction.due(StoreRevision(int(self.now_s)), size_bytes, self.now_s)


def test_history_is_forgotten_by_time() -> None:
    """Every five minutes, what is older than a minute."""
    clock = Clock()
    found = [(clock.now_s, due) for _ in range(100) if (due := clock.look()) is not None]
    assert len(found) >= 2
    for now_s, due in found:
        assert now_s - LOOK_EVERY_S - due <= KEEP_S + LOOK_EVERY_S
        assert now_s - due >= KEEP_S - LOOK_EVERY_S
    assert found[1][0] - found[0][0] >= EVERY_S


def test_history_is_forgotten_when_the_database_grows() -> None:
    """A quarter of a GiB of growth is reason enough; the newest revisions stay all the same."""
    clock = Clock()
    assert clock.look() is None
    assert clock.look() is None
    due = clock.look(MIB + GROWTH_BYTES)
    assert due is not None
    assert clock.now_s - due >= KEEP_MIN_S
    assert clock.look(MIB + GROWTH_BYTES) is None, "growth counts from there"


def test_a_store_that_went_back_is_not_compacted_ahead_of_itself() -> None:
    """Revisions of before a restore are not asked for."""
    clock = Clock()
    for _ in range(10):
        clock.look()
    older = StoreRevision(5)
    assert clock.compaction.due(older, MIB + GROWTH_BYTES, clock.now_s + 1) is None
    due = clock.compaction.due(StoreRevision(6), MIB + GROWTH_BYTES, clock.now_s + 30)
    assert due == older
