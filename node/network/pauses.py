"""How long does the network rest between two looks at the machine? Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["REPAIR_PAUSE_MAX_S", "REPAIR_PAUSE_S", "WELL_PAUSE_MAX_S", "LookPauses"]

REPAIR_PAUSE_S: Final = 1.0  # at least between two looks at the machine, however much changes
REPAIR_PAUSE_MAX_S: Final = 10.0
REPAIR_SHARE_MAX: Final = 0.1  # of the time that is spent looking while things keep changing
WELL_PAUSE_MAX_S: Final = 5.0  # while they do and looks find nothing amiss: containers come and go


class LookPauses:
    """Doubles the pause while every look was woken at once and found nothing to repair."""

    def __init__(self) -> None:
        """Begin with the shortest pause."""
        self._well_s = REPAIR_PAUSE_S

    def after(self, took_s: float, *, is_calm: bool, is_well: bool) -> float:
        """Return the seconds until the next look may begin.

        Args:
            took_s: How long the look took.
            is_calm: Nothing had changed in the pause before it: it waited for a change.
            is_well: It found nothing amiss.
        """
        grown_s = min(2 * self._well_s, WELL_PAUSE_MAX_S)
        self._well_s = REPAIR_PAUSE_S if is_calm or not is_well else grown_s
        return min(max(self._well_s, took_s / REPAIR_SHARE_MAX), REPAIR_PAUSE_MAX_S)
