"""Does the name server's process run before all others of the machine?

It does, in a real-time class, as long as it needs little: a query takes some microseconds, and who
waits for a name on a busy machine waits for nothing else. When it needs much (a flood of queries),
it is a process as any other, with a good niceness, until it has been modest for a while: nobody who
asks too much shall stop the machine. The decision is pure (`Urgency`), `apply` carries it out.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

__all__ = ["LOOK_S", "Urgency", "apply"]

LOOK_S: Final = 0.2  # between two looks at what it has used
SHARE_MAX: Final = 0.3  # of one processor, above which it is not modest: 20,000 queries a second
MODEST_FOR_S: Final = 3.0
NICENESS: Final = -10


class Urgency:
    """Whether the process may run before all others, from what it has used lately."""

    def __init__(self) -> None:
        """Begin as one that may."""
        self.is_urgent = True
        self._modest_s = 0.0

    def note(self, used_s: float, passed_s: float) -> bool:
        """Return whether that has changed.

        Args:
            used_s: Processor time since the last call.
            passed_s: Time since then, > 0.
        """
        was_urgent = self.is_urgent
        if used_s > SHARE_MAX * passed_s:
            self._modest_s = 0.0
            self.is_urgent = False
        else:
            self._modest_s += passed_s
            self.is_urgent = was_urgent or self._modest_s >= MODEST_FOR_S
        return self.is_urgent is not was_urgent


def apply(*, is_urgent: bool) -> None:
    """Give this process its class; where that is not permitted it stays as it is."""
    with contextlib.suppress(OSError):
        if is_urgent:
            flags = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, flags, os.sched_param(1))
        else:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
