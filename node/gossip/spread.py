"""What is still to be told to others, and how often? Also: how items fill datagrams.

News is infectious for a while: an item rides along on whatever is sent, a bounded number of times
that grows with the logarithm of the cluster, and is then dropped; hearing it again counts as half
of one. Whoever missed it learns of it from a digest that differs (`sync`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["ITEMS_MAX", "SpreadQueue", "fill", "sends_max"]

ITEMS_MAX: Final = 1_024  # news at once; the one sent most often makes room for more
LOOKED_AT_MAX: Final = 64  # items tried for one datagram
HEARD_COUNTS: Final = 0.5  # of a send: with a whole one, one update in fifty waits for a digest


def sends_max(members: int, factor: int) -> int:
    """Return how often an item is sent: factor · ⌈log10(members + 1)⌉, in integers."""
    return factor * len(str(max(1, members)))


def fill(items: Iterable[bytes], room_bytes: int) -> Iterator[list[bytes]]:
    """Yield groups of items, in order, each of at most `room_bytes`. Every item must fit one."""
    group: list[bytes] = []
    size = 0
    for item in items:
        assert len(item) <= room_bytes, f"an item of {len(item)} bytes, {room_bytes} are left"
        if size + len(item) > room_bytes:
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item)
    if group:
        yield group


class SpreadQueue:
    """Items by subject, those sent least first. A newer item about a subject replaces its older."""

    def __init__(self) -> None:
        self._items: OrderedDict[object, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def has(self, subject: object) -> bool:
        """Return whether an item about this subject is still to be sent."""
        return subject in self._items

    def put(self, subject: object, item: bytes) -> None:
        """Spread an item from now on."""
        self._items.pop(subject, None)
        if len(self._items) >= ITEMS_MAX:
            self._items.popitem()
        self._items[subject] = (item, 0)
        self._items.move_to_end(subject, last=False)

    def heard(self, subject: object) -> None:
        """Count that somebody told us what we tell: it is known already, here and there."""
        known = self._items.get(subject)
        if known is not None:
            self._items[subject] = (known[0], known[1] + HEARD_COUNTS)

    def take(self, room_bytes: int, times_max: int) -> list[bytes]:
        """Return items that fit, and count them as sent once more.

        Args:
            room_bytes: What they may take together.
            times_max: After how many sends an item is dropped.
        """
        chosen: list[object] = []
        taken: list[bytes] = []
        for looked_at, (subject, (item, _)) in enumerate(self._items.items()):
            if looked_at >= LOOKED_AT_MAX or room_bytes < 0:
                break
            if len(item) <= room_bytes:
                chosen.append(subject)
                taken.append(item)
                room_bytes -= len(item)
        for subject in chosen:
            item, times = self._items.pop(subject)
            if times + 1 < times_max:
                self._items[subject] = (item, times + 1)
        return taken
