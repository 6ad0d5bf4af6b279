"""What does placement need to know of a node, and of the tasks on it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, overload

from dray.model import (
    GpuRequest,
    NodeCapacity,
    Platform,
    PublishMode,
    ResourceReservations,
    ServiceKey,
    ServiceSpec,
    StringMap,
    Taint,
)
from dray.names import NodeId

__all__ = [
    "RESOURCES",
    "TASKS",
    "NodeClass",
    "NodeRows",
    "PlacementNode",
    "PlacementRules",
    "PortUse",
    "RunningShare",
    "TaskKind",
    "host_ports",
    "kind_of",
    "kind_row",
    "repels",
]

RESOURCES: Final = ("cpu_millis", "memory_bytes", "disk_bytes", "pids", "tasks")
"""The first columns of the resource matrices; generic resources follow, sorted by name.

A node that does not report disk or pids (0) is not limited in them.
"""

TASKS: Final = RESOURCES.index("tasks")

BLOCK_NODES: Final = 128
"""Nodes in one block of `NodeRows`."""

_PERCENT: Final = 100
_NO_RESERVE: Final = ResourceReservations()


@dataclass(frozen=True, slots=True)
class RunningShare:
    """Tasks of one service on one node: how many, and what each has reserved.

    Attributes:
        service: The service.
        count: Tasks.
        reservations: Of each task.
        spec: What they are of, which says their ports, labels, rules and priority. None: not known;
            such tasks only take room, and are never moved or displaced.
        gpu_ids: The devices of each task that has GPUs, by the driver's ids. Tasks that are not
            told of are given devices here, tightly; so it is exact only when all are told.
        pinned: Their data is on this node: they are never moved.
        ending: How many of them were told to end. They have their room until they have ended.
    """

    service: ServiceKey
    count: int
    reservations: ResourceReservations
    spec: ServiceSpec | None = None
    gpu_ids: tuple[tuple[str, ...], ...] = ()
    pinned: bool = False
    ending: int = 0


@dataclass(frozen=True, slots=True)
class PlacementNode:
    """One node as placement needs it.

    Attributes:
        node_id: Its id.
        name: Its name (`node.hostname`).
        capacity: What it has for tasks.
        accepts_new: Ready and active: the leader's judgement of condition, availability and faults.
        labels: Its labels.
        taints: What keeps tasks away.
        platform: Its platform.
        running: What is assigned to it, whether or not it runs already; also what is to end and
            has not ended yet.
    """

    node_id: NodeId
    name: str
    capacity: NodeCapacity
    accepts_new: bool = True
    labels: StringMap = ()
    taints: tuple[Taint, ...] = ()
    platform: Platform = Platform()
    running: tuple[RunningShare, ...] = ()


class NodeRows(Sequence[PlacementNode]):
    """Nodes by row. Immutable; a copy with other nodes in some rows shares all other blocks.

    One tuple of 10,000 would be copied whole for each round, which costs more than the round.
    """

    __slots__ = ("_blocks", "_count")

    def __init__(self, nodes: Sequence[PlacementNode]) -> None:
        """Hold these nodes."""
        self._count = len(nodes)
        starts = range(0, self._count, BLOCK_NODES)
        self._blocks = [tuple(nodes[start : start + BLOCK_NODES]) for start in starts]

    def replaced(self, nodes: Mapping[int, PlacementNode]) -> NodeRows:
        """Return the same with other nodes in the rows that are named."""
        changed: dict[int, list[PlacementNode]] = {}
        for row, node in nodes.items():
            number, index = divmod(row, BLOCK_NODES)
            if number not in changed:
                changed[number] = list(self._blocks[number])
            changed[number][index] = node
        copied = NodeRows(())
        copied._count = self._count
        copied._blocks = blocks = list(self._blocks)
        for number, block in changed.items():
            blocks[number] = tuple(block)
        return copied

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> PlacementNode: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[PlacementNode, ...]: ...
    def __getitem__(self, row: int | slice) -> PlacementNode | tuple[PlacementNode, ...]:
        if isinstance(row, slice):
            return tuple(self)[row]
        if not 0 <= row < self._count:
            raise IndexError(row)
        return self._blocks[row // BLOCK_NODES][row % BLOCK_NODES]

    def __iter__(self) -> Iterator[PlacementNode]:
        for block in self._blocks:
            yield from block

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeRows) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


@dataclass(frozen=True, slots=True)
class NodeClass:
    """How nodes of one class (the value of their label `class`) are used.

    Attributes:
        name: Value of the label; empty: nodes without it.
        reserve: What is kept for the system, beside what the node has taken off itself.
        cpu_percent: How much of the rest is given out, 100 to 1000: above 100 is overcommitted.
        memory_percent: The same of memory.
    """

    name: str = ""
    reserve: ResourceReservations = _NO_RESERVE
    cpu_percent: int = _PERCENT
    memory_percent: int = _PERCENT


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """What an operator can say of placement.

    Attributes:
        zone_label: Label of nodes that fail together; replicas are kept apart over its values.
        price_label: Label with a node's price, a decimal number; cheaper nodes fill first.
        class_label: Label with a node's class.
        classes: Classes of nodes, each name once. Other nodes give out just what they have.
        preempts_across_projects: Whether a task may displace tasks of other projects.
    """

    zone_label: str = "zone"
    price_label: str = "price"
    class_label: str = "class"
    classes: tuple[NodeClass, ...] = ()
    preempts_across_projects: bool = False


class PortUse(NamedTuple):
    """A port of a node, or a range of which one is taken, on one address (empty: on all)."""

    protocol: int
    first: int
    last: int
    host_ip: str


class TaskKind(NamedTuple):
    """What tells tasks apart for the mix: their reservations without Docker's device options."""

    amounts: tuple[int, int, int, int]
    generic: tuple[tuple[str, int], ...]
    gpu: GpuRequest | None


def kind_of(reservations: ResourceReservations) -> TaskKind:
    """Return the kind of tasks with these reservations."""
    return TaskKind(
        (
            reservations.cpu_millis,
            reservations.memory_bytes,
            reservations.disk_bytes,
            reservations.pids,
        ),
        tuple((each.kind, each.quantity) for each in reservations.generic),
        reservations.gpu,
    )


def kind_row(kind: TaskKind, resources: tuple[str, ...]) -> list[int]:
    """Return what one task of a kind takes, by the names of the columns."""
    generic = dict(kind.generic)
    return [*kind.amounts, 1, *(generic.get(name, 0) for name in resources[len(RESOURCES) :])]


def repels(spec: ServiceSpec) -> bool:
    """Return whether a service must not have certain others near it."""
    return any(rule.anti and rule.required for rule in spec.dray.affinities)


def host_ports(spec: ServiceSpec) -> list[PortUse]:
    """Return the ports of the node that a task of the service takes.

    One that the node chooses freely takes none that others could name.
    """
    return [
        PortUse(
            port.protocol.value,
            port.published,
            port.published_end or port.published,
            "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip,  # noqa: S104 - compared
        )
        for port in spec.ports
        if port.mode is PublishMode.HOST and port.published
    ]
