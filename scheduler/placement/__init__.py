"""Which node gets which task? Pure, vectorised placement over numpy columns, one row a node."""

from scheduler.placement.ask import TaskGroup
from scheduler.placement.cluster import ClusterView, cluster_view, folded
from scheduler.placement.moves import Move, MoveGoal, MovePlan, plan_moves
from scheduler.placement.node import NodeClass, PlacementNode, PlacementRules, RunningShare
from scheduler.placement.result import (
    Eviction,
    Nearest,
    Placed,
    PlacedGroup,
    PlacementResult,
    RefusalCount,
    RefusalReason,
    Shortage,
    Unplaced,
)
from scheduler.placement.solve import Placer, place

__all__ = [
    "ClusterView",
    "Eviction",
    "Move",
    "MoveGoal",
    "MovePlan",
    "Nearest",
    "NodeClass",
    "Placed",
    "PlacedGroup",
    "PlacementNode",
    "PlacementResult",
    "PlacementRules",
    "Placer",
    "RefusalCount",
    "RefusalReason",
    "RunningShare",
    "Shortage",
    "TaskGroup",
    "Unplaced",
    "cluster_view",
    "folded",
    "place",
    "plan_moves",
]
