"""Which node gets which task? Pure, vectorised placement over numpy columns, one row a node."""

from scheduler.placement.cluster import ClusterView, PlacementNode, RunningShare, cluster_view
from scheduler.placement.result import (
    Placed,
    PlacementResult,
    RefusalCount,
    RefusalReason,
    Unplaced,
)
from scheduler.placement.solve import TaskGroup, place

__all__ = [
    "ClusterView",
    "Placed",
    "PlacementNode",
    "PlacementResult",
    "RefusalCount",
    "RefusalReason",
    "RunningShare",
    "TaskGroup",
    "Unplaced",
    "cluster_view",
    "place",
]
