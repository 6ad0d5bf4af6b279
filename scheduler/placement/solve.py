"""Which node gets which task? `place` answers for all new tasks of a round at once.

Guarantees, whatever the input:

- Pure and deterministic: the same arguments give the same result, whatever the order of the nodes;
  ties go to the lower node id.
- Exact: no node is ever given more than it has, in any resource (integers throughout).
- Complete: a task is refused only when no node will do at the moment of its turn, and the reasons
  count every node once.
- Apart: no node gets all replicas of a service of two or more while another node that will do has
  none of them.
- Even, where it is asked for: among the nodes that keep the replicas apart, those win whose value
  of the first `spread_over` attribute has the fewest replicas; within it the second, and so on.

It packs by the score of `score.py` (or goes emptiest first with the policy SPREAD), by full scan
over CPU, memory, disk, pids and addresses, constraints, platforms, taints and
max_replicas_per_node. What it does not know yet (GPUs, generic resources, host ports, affinities,
priorities, attributes it has never heard of) it refuses for every node, with that reason, rather
than placing as if it had not been asked for. Gangs are a matter of whole projects and do not get
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dray.model import PackingPolicy, ServiceKey, ServiceSpec, SlotKey
from dray.names import NodeId
from scheduler.placement.cluster import RESOURCES, ClusterView, reservation_row, taken_from
from scheduler.placement.filters import Mask, attribute_reader, service_masks
from scheduler.placement.prefer import Preference, cluster_mix
from scheduler.placement.result import (
    Placed,
    PlacementResult,
    RefusalCount,
    RefusalReason,
    Unplaced,
)
from scheduler.placement.score import Mix

__all__ = ["TaskGroup", "place"]

_Wish: TypeAlias = NDArray[np.int64] | NDArray[np.float64]
"""A column[n_nodes] of which the least value is the best."""

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
        project_policy: What the service's policy INHERIT stands for; INHERIT here means BINPACK.
    """

    service: ServiceKey
    spec: ServiceSpec
    slots: tuple[SlotKey, ...]
    replicas_wanted: int
    pinned_to: NodeId | None = None
    project_policy: PackingPolicy = PackingPolicy.INHERIT


def place(cluster: ClusterView, groups: tuple[TaskGroup, ...]) -> PlacementResult:
    """Return a node for every slot of every group, or why there is none.

    Args:
        cluster: The cluster as it is; not changed.
        groups: What needs a node, in the order of their turns.
    """
    free = cluster.free.copy()
    mix = cluster_mix(
        cluster, [(group.spec.task.reservations, len(group.slots)) for group in groups]
    )
    replicas = {service: column.copy() for service, column in cluster.replicas.items()}
    placed: list[Placed] = []
    unplaced: list[Unplaced] = []
    for group in groups:
        column = replicas.setdefault(group.service, np.zeros(len(cluster.nodes), dtype=np.int64))
        done, refused = _place_group(cluster, group, free, column, mix)
        placed += done
        unplaced += refused
    return PlacementResult(tuple(placed), tuple(unplaced))


def _place_group(
    cluster: ClusterView,
    group: TaskGroup,
    free: NDArray[np.int64],
    replicas: NDArray[np.int64],
    mix: Mix,
) -> tuple[list[Placed], list[Unplaced]]:
    """Place one group, slot by slot; `free` and `replicas` are updated."""
    demand = reservation_row(group.spec.task.reservations)
    preference = Preference(cluster, free, demand, _policy(group), mix)
    fixed = service_masks(cluster, group.spec, group.pinned_to)
    branches = _branches(cluster, group.spec.placement.spread_over)
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
        wishes: list[_Wish] = [
            _crowding(replicas, group.replicas_wanted),
            *_branch_counts(branches, replicas),
            preference.values,
            _unused(cluster, free),
        ]
        row = _first_choice(fits, wishes)
        free[row] = taken_from(free[row], demand)
        preference.renew(row)
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


def _first_choice(fits: NDArray[np.bool_], wishes: list[_Wish]) -> int:
    """Return the row that fits and is least in the first wish, then the second, then by row.

    Args:
        fits: bool[n_nodes]; at least one is True.
        wishes: The most important first.
    """
    rows = np.flatnonzero(fits)
    for wish in wishes:
        values = wish[rows]
        rows = rows[values == values.min()]
    return int(rows[0])


def _crowding(replicas: NDArray[np.int64], replicas_wanted: int) -> NDArray[np.int64]:
    """Return by how many replicas a node would exceed all but one of the service: int64[n_nodes].

    Zero on every node that leaves a replica for another one. It also tells nodes apart that hold
    old tasks beside the new ones while a service is being replaced.
    """
    if replicas_wanted < 2:
        return np.zeros_like(replicas)
    return np.maximum(replicas + 2 - replicas_wanted, 0)


def _branches(cluster: ClusterView, spread_over: tuple[str, ...]) -> list[NDArray[np.intp]]:
    """Return, for each attribute to spread over, the branch that each node is in: intp[n_nodes].

    Nodes are in one branch when they agree in that attribute and in all before it. Nodes without
    the label share a branch.
    """
    paths: list[tuple[str | None, ...]] = [() for _ in cluster.nodes]
    branches = []
    for read in filter(None, map(attribute_reader, spread_over)):  # unknown ones refuse all nodes
        paths = [(*path, read(node)) for path, node in zip(paths, cluster.nodes, strict=True)]
        numbers = {path: number for number, path in enumerate(dict.fromkeys(paths))}
        branches.append(np.array([numbers[path] for path in paths], dtype=np.intp))
    return branches


def _branch_counts(
    branches: list[NDArray[np.intp]], replicas: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Yield, for each attribute, the replicas in the branch of each node: int64[n_nodes]."""
    for branch in branches:
        counts = np.zeros(len(branch), dtype=np.int64)
        np.add.at(counts, branch, replicas)
        yield counts[branch]


def _unused(cluster: ClusterView, free: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 1 for nodes without any task, else 0: of two alike, a new one is not opened."""
    tasks = RESOURCES.index("tasks")
    unused: NDArray[np.int64] = (free[:, tasks] >= cluster.capacity[:, tasks]).astype(np.int64)
    return unused


def _policy(group: TaskGroup) -> PackingPolicy:
    """Return how the group is packed: BINPACK or SPREAD."""
    policy = group.spec.dray.policy
    if policy is PackingPolicy.INHERIT:
        policy = group.project_policy
    return PackingPolicy.BINPACK if policy is PackingPolicy.INHERIT else policy


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
