"""What does placement answer? A node for each task, or the reasons why there is none."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

from dray.model import ServiceKey, SlotKey
from dray.names import NodeId

__all__ = [
    "Eviction",
    "Nearest",
    "Placed",
    "PlacedGroup",
    "PlacementResult",
    "RefusalCount",
    "RefusalReason",
    "Shortage",
    "Unplaced",
]


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
    DEVICE = "device that is no GPU, or named by its id"
    REPLICAS_PER_NODE = "max_replicas_per_node"
    AFFINITY = "affinity"
    TASKS = "no address left"
    PORT = "host port taken"
    CPU = "CPU"
    MEMORY = "memory"
    DISK = "disk"
    PIDS = "pids"
    GPU = "GPU"
    GENERIC = "generic resource"
    GANG = "the project is placed whole or not at all"


@dataclass(frozen=True, slots=True)
class Placed:
    """A slot's new task goes to this node.

    Attributes:
        slot: The slot.
        node_id: The node.
        gpu_ids: The devices that the task gets, by the driver's ids; empty without GPUs.
    """

    slot: SlotKey
    node_id: NodeId
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacedGroup:
    """What was placed of one group.

    Attributes:
        service: The service.
        slots: Its slots that have a node now, in order.
        node_ids: The node of each.
        gpu_ids: The devices of each; empty when the service asks for no GPUs.
    """

    service: ServiceKey
    slots: tuple[SlotKey, ...]
    node_ids: tuple[NodeId, ...]
    gpu_ids: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How many nodes were refused for one reason.

    Every node counts once, by the first reason that holds.
    """

    reason: RefusalReason
    nodes: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """What a node lacks for a task.

    Attributes:
        reason: Of what.
        asked: What the task asks for, in the resource's unit; thousandths of GPUs.
        free: What the node has left, of GPUs on the devices that the task could use.
        kind: Which generic resource; empty for others.
    """

    reason: RefusalReason
    asked: int
    free: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The node that comes closest, and what stands between.

    Attributes:
        node_id: Its id.
        name: Its name.
        reason: The condition that it fails, when it is not amounts that it lacks.
        shortages: The amounts that it lacks.
    """

    node_id: NodeId
    name: str
    reason: RefusalReason | None
    shortages: tuple[Shortage, ...]


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Slots of one group for which no node will do.

    Attributes:
        slots: The slots, in order.
        refusals: Counts that add up to the number of nodes, most frequent first.
        nearest: The node that comes closest; None without nodes.
        advice: Why, and the smallest change that would help, in the words of the Compose file.
    """

    slots: tuple[SlotKey, ...]
    refusals: tuple[RefusalCount, ...]
    nearest: Nearest | None = None
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Eviction:
    """Tasks that are to end so that a slot of higher priority gets their room.

    The slot is among the unplaced ones; it is placed by a later round, when they have ended. Nobody
    else is given the room in this round.

    Attributes:
        slot: Whom they make room for.
        node_id: Where.
        service: Whose tasks.
        count: How many, any of them.
    """

    slot: SlotKey
    node_id: NodeId
    service: ServiceKey
    count: int


@dataclass(frozen=True)
class PlacementResult:
    """Every slot that was asked for is in exactly one of the two.

    In the order in which it was asked for.

    Attributes:
        groups: What was placed, group by group.
        unplaced: What was not.
        evictions: What should end for it, where services may displace others.
        turns: Positions of the groups that were asked for, in the order in which they were placed.
    """

    groups: tuple[PlacedGroup, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    evictions: tuple[Eviction, ...] = ()
    turns: tuple[int, ...] = ()

    @cached_property
    def placed(self) -> tuple[Placed, ...]:
        """The slots that have a node, one by one; made when first asked for."""
        return tuple(
            Placed(slot, node_id, group.gpu_ids[index] if group.gpu_ids else ())
            for group in self.groups
            for index, (slot, node_id) in enumerate(zip(group.slots, group.node_ids, strict=True))
        )
