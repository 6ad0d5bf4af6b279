"""What does placement answer? A node for each task, or the reasons why there is none."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dray.model import SlotKey
from dray.names import NodeId

__all__ = ["Placed", "PlacementResult", "RefusalCount", "RefusalReason", "Unplaced"]


class RefusalReason(enum.Enum):
    """Why a node was refused; the value is the phrase that people see.

    Checked in this order: the first counts.
    """

    NOT_READY = "not ready"
    PINNED_ELSEWHERE = "a volume's data is on another node"
    CONSTRAINT = "placement constraint"
    PLATFORM = "platform"
    TAINT = "taint"
    PREFERENCE = "placement preference"
    REPLICAS_PER_NODE = "max_replicas_per_node"
    AFFINITY = "affinity"
    PRIORITY = "priority"
    TASKS = "no address left"
    PORT = "host port taken"
    CPU = "CPU"
    MEMORY = "memory"
    DISK = "disk"
    PIDS = "pids"
    GPU = "GPU"
    GENERIC = "generic resource"


@dataclass(frozen=True, slots=True)
class Placed:
    """A slot's new task goes to this node."""

    slot: SlotKey
    node_id: NodeId


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How many nodes were refused for one reason.

    Every node counts once, by the first reason that holds.
    """

    reason: RefusalReason
    nodes: int


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Slots of one group for which no node will do.

    Attributes:
        slots: The slots, in order.
        refusals: Counts that add up to the number of nodes, most frequent first.
    """

    slots: tuple[SlotKey, ...]
    refusals: tuple[RefusalCount, ...]


@dataclass(frozen=True, slots=True)
class PlacementResult:
    """Every slot that was asked for is in exactly one of the two.

    In the order in which it was asked for.
    """

    placed: tuple[Placed, ...]
    unplaced: tuple[Unplaced, ...]
