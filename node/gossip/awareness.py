"""How well does this node itself do? A node does not judge others by what it misses itself.

The *score* (Lifeguard's local health) rises when helpers do not answer, when others suspect this
node and when its own loop runs late; it falls with every probe that is answered. Probes wait longer
by 1 + score, and are no rarer: on a busy machine nobody would be missed for many seconds.
Lateness also suspends verdicts, for as long as it was; so it raises the score by little.
"""

from __future__ import annotations

from typing import Final

__all__ = ["JUMP_S", "Awareness"]

JUMP_S: Final = 1.0  # a loop that stood still this long was stopped, or its machine was
LATE_SCORE_MAX: Final = 2  # lateness alone raises the score to this
REPORTED_FOR_S: Final = 30.0  # lateness is a fault of the node for this long


class Awareness:
    """One node's health as it sees it, and the times in which it was no judge."""

    def __init__(self, score_max: int, late_after_s: float) -> None:
        self._score_max = score_max
        self._late_after_s = late_after_s
        self._score = 0
        self._no_judge_until_s = float("-inf")
        self._worst: tuple[float, float] = (float("-inf"), 0.0)
        self.late = 0

    @property
    def score(self) -> int:
        """Return the score, 0 (well) to its maximum."""
        return self._score

    @property
    def scale(self) -> int:
        """Return how many times as long as usual probes wait."""
        return 1 + self._score

    def add(self, points: int) -> None:
        """Raise the score, or lower it by negative points."""
        self._score = max(0, min(self._score_max, self._score + points))

    def note_lateness(self, lateness_s: float, now_s: float) -> bool:
        """Take how late the loop ran; return whether that is too late to judge anybody."""
        if lateness_s <= self._late_after_s:
            return False
        self.late += 1
        # One standstill makes many timers late.
        if self.may_judge(now_s) and self._score < LATE_SCORE_MAX:
            self.add(1)
        self._no_judge_until_s = max(self._no_judge_until_s, now_s + min(lateness_s, JUMP_S))
        if now_s - self._worst[0] > REPORTED_FOR_S or lateness_s > self._worst[1]:
            self._worst = (now_s, lateness_s)
        return True

    def may_judge(self, now_s: float) -> bool:
        """Return whether the loop has run in time for as long as it was late before."""
        return now_s >= self._no_judge_until_s

    def judge_again_in_s(self, now_s: float) -> float:
        """Return how long verdicts are still suspended."""
        return max(0.0, self._no_judge_until_s - now_s)

    def lateness_s(self, now_s: float) -> float:
        """Return the greatest lateness of the last half minute."""
        at_s, lateness_s = self._worst
        return lateness_s if now_s - at_s <= REPORTED_FOR_S else 0.0
