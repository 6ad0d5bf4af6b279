"""Which implementations of `reconcile` are held to its contract?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from dray.names import IdFactory
from scheduler.reconcile import Observed, Plan, reconcile
from scheduler.store.snapshot import Snapshot

__all__ = ["RECONCILES", "Reconcile"]

Reconcile: TypeAlias = Callable[[Snapshot, Observed, float, IdFactory], Plan]

RECONCILES: Final[dict[str, Reconcile]] = {"smallest": reconcile}
