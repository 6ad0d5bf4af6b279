"""How is a slot, seen from what was asked for?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["SlotState", "SlotStateCount"]


class SlotState(enum.Enum):
    """How a slot is, seen from what was asked for."""

    PENDING = 1
    """It has no task yet; the reason says why."""
    STARTING = 2
    """It has a task that does not run yet."""
    RUNNING = 3
    """Its task runs; its check, if it has one, does not say unhealthy."""
    UNHEALTHY = 4
    FAILED = 5
    """Its task failed and waits for its next attempt, or for good."""
    COMPLETED = 6
    """A job's task that ended well."""
    STOPPING = 7
    """Its task is being stopped and has no successor."""
    UNKNOWN = 8
    """It has a task, and nobody can say how it is."""


@dataclass(frozen=True, slots=True)
class SlotStateCount:
    """How many slots are in a state."""

    state: SlotState
    count: int = 0
