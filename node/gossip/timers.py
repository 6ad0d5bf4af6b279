"""Which timers are armed, and is one that fires still meant?

Every arming gets a new generation. A timer that fires with any other than the newest of its key is
one that was replaced or disarmed meanwhile, and is to be ignored.
"""

from __future__ import annotations

from node.gossip.core import ArmTimer, TimerFired, TimerKey

__all__ = ["Timers"]


class Timers:
    """The armed timers of one core, one a key."""

    def __init__(self) -> None:
        self._armed: dict[TimerKey, tuple[int, float]] = {}
        self._generation = 0

    def __len__(self) -> int:
        return len(self._armed)

    def is_armed(self, key: TimerKey) -> bool:
        """Return whether a timer of this key is to fire."""
        return key in self._armed

    def is_armed_for(self, kind: str, about: str) -> bool:
        """Return whether a timer of this kind and member is to fire."""
        return TimerKey(kind, about) in self._armed

    def arm(self, key: TimerKey, at_s: float) -> ArmTimer:
        """Return the effect that arms a timer; an earlier one of this key no longer counts."""
        self._generation += 1
        self._armed[key] = (self._generation, at_s)
        return ArmTimer(key, self._generation, at_s)

    def arm_for(self, kind: str, about: str, at_s: float) -> ArmTimer:
        """Return the effect that arms the timer of a kind and member."""
        return self.arm(TimerKey(kind, about), at_s)

    def disarm(self, key: TimerKey) -> None:
        """Let the timer of this key, if there is one, no longer count."""
        self._armed.pop(key, None)

    def disarm_for(self, kind: str, about: str) -> None:
        """Let the timer of a kind and member no longer count."""
        self.disarm(TimerKey(kind, about))

    def take(self, fired: TimerFired) -> float | None:
        """Return when a timer that fired was due, and take it off; None if it no longer counts."""
        armed = self._armed.get(fired.key)
        if armed is None or armed[0] != fired.generation:
            return None
        del self._armed[fired.key]
        return armed[1]
