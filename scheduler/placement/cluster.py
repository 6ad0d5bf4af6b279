"""What does placement see of the cluster? Columns of integers, one row a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dray.model import (
    NodeCapacity,
    Platform,
    ResourceReservations,
    ServiceKey,
    StringMap,
    Taint,
)
from dray.names import NodeId

__all__ = [
    "RESOURCES",
    "UNLIMITED",
    "ClusterView",
    "PlacementNode",
    "RunningShare",
    "cluster_view",
    "reservation_row",
    "taken_from",
]

RESOURCES: Final = ("cpu_millis", "memory_bytes", "disk_bytes", "pids", "tasks")
"""Columns of the resource matrices.

A node that does not report disk or pids (0) is not limited in them.
"""

UNLIMITED: Final = int(np.iinfo(np.int64).max)
"""Free amount of a resource that the node is not limited in: it is never counted down."""

_FREE_MIN: Final = -(2**62)  # deficits are cut off here, far below any real one


@dataclass(frozen=True, slots=True)
class RunningShare:
    """Tasks of one service on one node: how many, and what each has reserved."""

    service: ServiceKey
    count: int
    reservations: ResourceReservations


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


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The cluster at one moment.

    Attributes:
        nodes: The nodes, by node id; row i of every column is `nodes[i]`.
        capacity: int64[n_nodes, len(RESOURCES)], in the units of `RESOURCES`.
        free: int64[n_nodes, len(RESOURCES)]; negative when a node shrank below what it runs,
            `UNLIMITED` where the node is not limited.
        accepts_new: bool[n_nodes].
        replicas: int64[n_nodes] by service: tasks of it on each node; a service without any is
            absent.
    """

    nodes: tuple[PlacementNode, ...]
    capacity: NDArray[np.int64]
    free: NDArray[np.int64]
    accepts_new: NDArray[np.bool_]
    replicas: Mapping[ServiceKey, NDArray[np.int64]]


def taken_from(free: NDArray[np.int64], demand: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what is left of one node's free amounts once a task has its share.

    Args:
        free: int64[len(RESOURCES)].
        demand: int64[len(RESOURCES)], from `reservation_row`.
    """
    return np.where(free == UNLIMITED, free, free - demand)


def reservation_row(reservations: ResourceReservations) -> NDArray[np.int64]:
    """Return what one task takes: int64[len(RESOURCES)]."""
    return np.array(
        [
            reservations.cpu_millis,
            reservations.memory_bytes,
            reservations.disk_bytes,
            reservations.pids,
            1,
        ],
        dtype=np.int64,
    )


def cluster_view(nodes: Sequence[PlacementNode]) -> ClusterView:
    """Return the columns of these nodes, sorted by node id; no two have the same id."""
    ordered = tuple(sorted(nodes, key=lambda node: node.node_id))
    assert len({node.node_id for node in ordered}) == len(ordered), "a node is there twice"
    capacity = np.array([_capacity_row(node.capacity) for node in ordered], dtype=np.int64)
    capacity = capacity.reshape(len(ordered), len(RESOURCES))
    free = np.array([_free_row(node) for node in ordered], dtype=np.int64).reshape(capacity.shape)
    replicas: dict[ServiceKey, NDArray[np.int64]] = {}
    for row, node in enumerate(ordered):
        for share in node.running:
            column = replicas.setdefault(share.service, np.zeros(len(ordered), dtype=np.int64))
            column[row] += share.count
    accepts_new = np.array([node.accepts_new for node in ordered], dtype=np.bool_)
    return ClusterView(ordered, capacity, free, accepts_new, replicas)


def _capacity_row(capacity: NodeCapacity) -> list[int]:
    """Return a node's amounts; the largest number loses one unit to be told from UNLIMITED."""
    limited_max = UNLIMITED - 1
    return [
        min(capacity.cpu_millis, limited_max),
        min(capacity.memory_bytes, limited_max),
        min(capacity.disk_bytes, limited_max) or UNLIMITED,
        min(capacity.pids, limited_max) or UNLIMITED,
        capacity.tasks_max,
    ]


def _free_row(node: PlacementNode) -> list[int]:
    """Return what is free on a node, in Python's integers: sums of what is reserved may be huge."""
    free = _capacity_row(node.capacity)
    for share in node.running:
        taken = reservation_row(share.reservations).tolist()
        free = [
            have if have == UNLIMITED else have - amount * share.count
            for have, amount in zip(free, taken, strict=True)
        ]
    return [max(have, _FREE_MIN) for have in free]
