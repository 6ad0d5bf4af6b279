"""Which implementations of `place` are held to its contract?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from scheduler.placement import ClusterView, PlacementResult, TaskGroup, place

__all__ = ["PLACES", "Place"]

Place: TypeAlias = Callable[[ClusterView, tuple[TaskGroup, ...]], PlacementResult]

PLACES: Final[dict[str, Place]] = {"scan": place}
