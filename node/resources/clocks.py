"""Is the machine's clock what the schedulers' is? Pure; nothing is decided from the answer.

A clock that is off does no harm to what runs: durations are measured on the monotonic clock. But
people read times of several machines beside one another, logs are merged by them, and certificates
have dates. So it is a fault that is told, with the next step.

A message of the scheduler says when it was sent. It has travelled for an unknown time, never less
than nothing: of several messages the one that travelled least says most. An answer bounds its way
by the time since the question.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["OFF_MAX_S", "WAY_MAX_S", "ClockCheck"]

OFF_MAX_S: Final = 2.0  # s that clocks may differ: NTP keeps far below, and people read seconds
WAY_MAX_S: Final = 2.0  # s that a message that nobody asked for is taken to travel at most
_MESSAGES_KEPT: Final = 8


class ClockCheck:
    """What the messages of one stream say about the machine's clock."""

    def __init__(self) -> None:
        """Know nothing yet."""
        # (their clock minus our monotonic one, the longest way the message may have had)
        self._heard: deque[tuple[float, float]] = deque(maxlen=_MESSAGES_KEPT)

    def forget(self) -> None:
        """Begin again: the next messages come from another scheduler."""
        self._heard.clear()

    def heard(self, sent_unix_s: float, at_s: float, asked_at_s: float | None = None) -> None:
        """Take a message.

        Args:
            sent_unix_s: The scheduler's clock when it sent it; 0: it did not say.
            at_s: Now, on our monotonic clock.
            asked_at_s: When we asked for it; None: it came by itself.
        """
        if sent_unix_s > 0:
            way_max_s = WAY_MAX_S if asked_at_s is None else at_s - asked_at_s
            self._heard.append((sent_unix_s - at_s, way_max_s))

    def off_s(self, at_s: float, unix_s: float) -> float:
        """Return how far our clock is at least ahead of theirs (below 0: behind); 0: it is right.

        Args:
            at_s: Now, on our monotonic clock.
            unix_s: Now, on the clock in question.
        """
        if not self._heard:
            return 0.0
        theirs, way_max_s = max(self._heard)
        most_s = unix_s - at_s - theirs
        least_s = most_s - way_max_s
        if least_s > OFF_MAX_S:
            return least_s
        return most_s if most_s < -OFF_MAX_S else 0.0

    def fault(self, at_s: float, unix_s: float) -> str:
        """Return a sentence for people, with the next step; empty: the clock is right."""
        off_s = self.off_s(at_s, unix_s)
        if off_s == 0.0:
            return ""
        side = "ahead of" if off_s > 0 else "behind"
        return (
            f"this machine's clock is {abs(off_s):.0f} s {side} the leader's: set both by NTP "
            "(chrony or systemd-timesyncd); logs of several nodes are merged by their clocks"
        )
