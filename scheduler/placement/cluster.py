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
    "ClusterView",
    "PlacementNode",
    "RunningShare",
    "cluster_view",
    "reservation_row",
]

RESOURCES: Final = ("cpu_millis", "memory_bytes", "disk_bytes", "pids", "tasks")
"""Columns of the resource matrices.

A node that does not report disk or pids (0) is not limited in them.
"""

_UNLIMITED: Final = np.iinfo(np.int64).max // 4  # sums of a few of these do not overflow


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
        running: What is assigned to it, whether or not it runs already.
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
        free: int64[n_nodes, len(RESOURCES)]; negative when a node shrank below what it runs.
        accepts_new: bool[n_nodes].
        replicas: int64[n_nodes] by service: tasks of it on each node; a service without any is
            absent.
    """

    nodes: tuple[PlacementNode, ...]
    capacity: NDArray[np.int64]
    free: NDArray[np.int64]
    accepts_new: NDArray[np.bool_]
    replicas: Mapping[ServiceKey, NDArray[np.int64]]


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
    """Return the columns of these nodes, sorted by node id."""
    ordered = tuple(sorted(nodes, key=lambda node: node.node_id))
    capacity = np.array([_capacity_row(node.capacity) for node in ordered], dtype=np.int64)
    capacity = capacity.reshape(len(ordered), len(RESOURCES))
    free = capacity.copy()
    replicas: dict[ServiceKey, NDArray[np.int64]] = {}
    for row, node in enumerate(ordered):
        for share in node.running:
            free[row] -= reservation_row(share.reservations) * share.count
            column = replicas.setdefault(share.service, np.zeros(len(ordered), dtype=np.int64))
            column[row] += share.count
    accepts_new = np.array([node.accepts_new for node in ordered], dtype=np.bool_)
    return ClusterView(ordered, capacity, free, accepts_new, replicas)


def _capacity_row(capacity: NodeCapacity) -> list[int]:
    return [
        capacity.cpu_millis,
        capacity.memory_bytes,
        capacity.disk_bytes or _UNLIMITED,
        capacity.pids or _UNLIMITED,
        capacity.tasks_max,
    ]
