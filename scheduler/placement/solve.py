"""Which node gets which task? `place` answers for all new tasks of a round at once.

Guarantees, whatever the input:

- Pure and deterministic: the same arguments give the same result; ties go to the lower node id.
- Exact: no node is ever given more than it has, in any resource (integers throughout).
- Complete: a task is refused only when no node will do at the moment of its turn, and the reasons
  count every node once.
- Apart: no node gets all replicas of a service of two or more while another node that will do has
  none of them.

This is the smallest useful version: best fit by full scan over CPU, memory, disk, pids and
addresses, constraints, platforms, taints and max_replicas_per_node. What it does not know yet
(GPUs, generic resources, host ports, affinities, gangs, priorities) it refuses for every node, with
that reason, rather than placing as if it had not been asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dray.model import ServiceKey, ServiceSpec, SlotKey
from dray.names import NodeId
from scheduler.placement.cluster import ClusterView, reservation_row
from scheduler.placement.filters import Mask, service_masks
from scheduler.placement.result import (
    Placed,
    PlacementResult,
    RefusalCount,
    RefusalReason,
    Unplaced,
)

__all__ = ["TaskGroup", "place"]

_RESOURCE_REASONS = (
    RefusalReason.CPU,
    RefusalReason.MEMORY,
    RefusalReason.DISK,
    RefusalReason.PIDS,
    RefusalReason.TASKS,
)


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """New tasks of one service that are alike: they are placed as one.

    Attributes:
        service: The service.
        spec: What is asked of nodes.
        slots: Slots that need a node, in order.
        replicas_wanted: Tasks that the service has in all when everything is placed.
        pinned_to: The only node that will do (a volume's data is there), or None.
    """

    service: ServiceKey
    spec: ServiceSpec
    slots: tuple[SlotKey, ...]
    replicas_wanted: int
    pinned_to: NodeId | None = None


def place(cluster: ClusterView, groups: tuple[TaskGroup, ...]) -> PlacementResult:
    """Return a node for every slot of every group, or why there is none.

    Args:
        cluster: The cluster as it is; not changed.
        groups: What needs a node, in the order of their turns.
    """
    free = cluster.free.copy()
    replicas = {service: column.copy() for service, column in cluster.replicas.items()}
    placed: list[Placed] = []
    unplaced: list[Unplaced] = []
    for group in groups:
        column = replicas.setdefault(group.service, np.zeros(len(cluster.nodes), dtype=np.int64))
        done, refused = _place_group(cluster, group, free, column)
        placed += done
        unplaced += refused
    return PlacementResult(tuple(placed), tuple(unplaced))


def _place_group(
    cluster: ClusterView,
    group: TaskGroup,
    free: NDArray[np.int64],
    replicas: NDArray[np.int64],
) -> tuple[list[Placed], list[Unplaced]]:
    """Place one group, slot by slot; `free` and `replicas` are updated."""
    demand = reservation_row(group.spec.task.reservations)
    fixed = service_masks(cluster, group.spec, group.pinned_to)
    per_node_max = group.spec.placement.replicas_per_node_max
    placed: list[Placed] = []
    for position, slot in enumerate(group.slots):
        masks = [*fixed, *_capacity_masks(free, demand)]
        if per_node_max:
            masks.append((RefusalReason.REPLICAS_PER_NODE, replicas < per_node_max))
        fits = np.logical_and.reduce([mask for _, mask in masks])
        if not fits.any():
            rest = group.slots[position:]
            return placed, [Unplaced(rest, _count_refusals(masks, len(cluster.nodes)))]
        row = _best_row(cluster, fits, free - demand, replicas, group.replicas_wanted)
        free[row] -= demand
        replicas[row] += 1
        placed.append(Placed(slot, cluster.nodes[row].node_id))
    return placed, []


def _capacity_masks(free: NDArray[np.int64], demand: NDArray[np.int64]) -> list[Mask]:
    """Return, for each resource that is asked for, which nodes have enough: bool[n_nodes]."""
    return [
        (reason, free[:, column] >= demand[column])
        for column, reason in enumerate(_RESOURCE_REASONS)
        if demand[column] > 0
    ]


def _best_row(
    cluster: ClusterView,
    fits: NDArray[np.bool_],
    free_after: NDArray[np.int64],
    replicas: NDArray[np.int64],
    replicas_wanted: int,
) -> int:
    """Return the row of the fullest node that fits, keeping the replicas of one service apart.

    A node that would hold all replicas comes after every node that would not.
    """
    capacity = np.maximum(cluster.capacity, 1)
    score = (free_after[:, :2] / capacity[:, :2]).sum(axis=1)  # free share of CPU and memory
    would_hold_all = (replicas + 1 >= replicas_wanted) & (replicas_wanted > 1)
    score = np.where(would_hold_all, score + 1e3, score)
    return int(np.argmin(np.where(fits, score, np.inf)))


def _count_refusals(masks: list[Mask], n_nodes: int) -> tuple[RefusalCount, ...]:
    """Return how many nodes each reason refused.

    Each node counts once, by its first reason in `RefusalReason`'s order.
    """
    order = {reason: position for position, reason in enumerate(RefusalReason)}
    open_rows = np.ones(n_nodes, dtype=np.bool_)
    counts: dict[RefusalReason, int] = {}
    for reason, mask in sorted(masks, key=lambda item: order[item[0]]):
        refused = open_rows & ~mask
        if refused.any():
            counts[reason] = counts.get(reason, 0) + int(refused.sum())
        open_rows &= mask
    ranked = sorted(counts.items(), key=lambda item: (-item[1], order[item[0]]))
    return tuple(RefusalCount(reason, nodes) for reason, nodes in ranked)
