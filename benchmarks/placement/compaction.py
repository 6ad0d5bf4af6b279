"""How many nodes does compaction free, beside an exact packing and the bound that none exceeds?"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace
from typing import Final, TypeAlias

import highspy
import numpy as np
from numpy.typing import NDArray

from benchmarks.placement.workload import service_mix
from dray.model import (
    ContainerSpec,
    ImageOptions,
    NodeCapacity,
    ResourceReservations,
    ServiceKey,
    ServiceSpec,
    SlotKey,
    TaskTemplate,
)
from dray.names import NodeId
from scheduler.placement import (
    ClusterView,
    PlacementNode,
    RunningShare,
    TaskGroup,
    cluster_view,
    place,
    plan_moves,
)

__all__ = ["exact_freed", "half_empty", "measure_compaction"]

MIB: Final = 1024**2
SOLVER_S: Final = 120.0
SMALL: Final = (24, 0.5)
LARGE: Final = ((100, 0.5), (300, 0.5))
Figures: TypeAlias = dict[str, float]


def half_empty(seed: int, nodes: int, stay: float) -> ClusterView:
    """Return a fleet that was packed full with the service mix and lost many of its tasks.

    Args:
        seed: Of the mix, and of which tasks leave.
        nodes: Nodes of 8 cores and 16 GiB.
        stay: Share of the tasks that stay.
    """
    size, workload = service_mix(seed, nodes * 11)
    fleet = [
        PlacementNode(NodeId(f"n{number:05}"), f"n{number}", NodeCapacity(size[0], size[1] * MIB))
        for number in range(nodes)
    ]
    groups = []
    for number, task in enumerate(workload.tasks):
        cpu, memory = workload.kinds[task].amounts
        name = f"s{number}"
        spec = ServiceSpec(
            name,
            TaskTemplate(
                ContainerSpec(ImageOptions("image")), ResourceReservations(cpu, memory * MIB)
            ),
        )
        groups.append(TaskGroup(ServiceKey("shop", name), spec, (SlotKey("shop", name, 1),), 1))
    placed = {each.slot.service: each.node_id for each in place(cluster_view(fleet), groups).placed}
    rng = np.random.default_rng(seed)
    running: dict[NodeId, list[RunningShare]] = {}
    for group in groups:
        where = placed.get(group.service.service)
        if where is not None and rng.random() < stay:
            share = RunningShare(group.service, 1, group.spec.task.reservations, group.spec)
            running.setdefault(where, []).append(share)
    return cluster_view(
        [replace(node, running=tuple(running.get(node.node_id, ()))) for node in fleet]
    )


def bound_freed(view: ClusterView, budget_moves: int) -> int:
    """Return how many nodes no plan can free more of.

    By the volume of what runs, and by the budget: a node is freed by a move of each of its tasks,
    so no more of them can be freed than of those with the fewest.
    """
    used = (view.capacity - view.free)[:, :2].sum(axis=0)
    needed = max(
        math.ceil(int(total) / int(size))
        for total, size in zip(used, view.capacity[0, :2], strict=True)
    )
    tasks = sorted(sum(share.count for share in node.running) for node in view.nodes)
    moves = np.cumsum([count for count in tasks if count])
    return min(_used_nodes(view) - needed, int((moves <= budget_moves).sum()))


def _used_nodes(view: ClusterView) -> int:
    return sum(bool(node.running) for node in view.nodes)


def exact_freed(view: ClusterView, budget_moves: int) -> tuple[int, bool]:
    """Return how many nodes can be freed at all, any task moved anywhere, and whether it is proven.

    Alike tasks are one kind: z[kind, node] of them are on a node in the end, and a move is one more
    of a kind on a node than there was. It needs no order in which the moves can be made, so it is
    at least as good as any plan.
    """
    kinds, have = _kinds(view)
    n_kinds, n_nodes = have.shape
    capacity = view.capacity[0, :2]
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.silent()
    solver.setOptionValue("time_limit", SOLVER_S)
    open_ = [solver.addBinary() for _ in range(n_nodes)]
    kept = [
        [solver.addIntegral(0, int(have[kind].sum())) for _ in range(n_nodes)]
        for kind in range(n_kinds)
    ]
    come = [
        [solver.addVariable(0, int(have[kind].sum())) for _ in range(n_nodes)]
        for kind in range(n_kinds)
    ]
    for node in range(n_nodes):
        for column in range(2):
            load = sum(int(kinds[k][column]) * kept[k][node] for k in range(n_kinds))
            solver.addConstr(load <= int(capacity[column]) * open_[node])
        for kind in range(n_kinds):
            solver.addConstr(kept[kind][node] - come[kind][node] <= int(have[kind, node]))
    for kind in range(n_kinds):
        solver.addConstr(sum(kept[kind]) == int(have[kind].sum()))
    solver.addConstr(sum(each for row in come for each in row) <= budget_moves)
    solver.minimize(sum(open_))
    is_proven = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    used = round(solver.getObjectiveValue())
    return n_nodes - used, is_proven


def _kinds(view: ClusterView) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Return the kinds of tasks, and how many of each are on each used node."""
    counts: list[Counter[tuple[int, int]]] = []
    for node in view.nodes:
        if node.running:
            counts.append(Counter())
            for share in node.running:
                kind = (share.reservations.cpu_millis, share.reservations.memory_bytes)
                counts[-1][kind] += share.count
    kinds = sorted({kind for each in counts for kind in each})
    have = np.array([[each[kind] for each in counts] for kind in kinds], dtype=np.int64)
    return kinds, have


def measure_compaction(seeds: int = 3) -> dict[str, dict[str, Figures]]:
    """Return freed nodes beside the exact ones (small fleets) and the bound (large ones)."""
    found: dict[str, Figures] = {}
    for (nodes, stay), is_small in ((SMALL, True), *((large, False) for large in LARGE)):
        for part in (1.0, 0.25):
            rows = [_one(seed, nodes, stay, part, is_small) for seed in range(1, seeds + 1)]
            figures = {key: round(sum(row[key] for row in rows), 2) for key in rows[0]}
            best = figures["exact"] if is_small else figures["bound"]
            figures["percent"] = round(100 * figures["freed"] / best, 1)
            found[f"{nodes} nodes, {stay:.0%} of the tasks, budget {part:.0%}"] = figures
    return {"compaction, freed nodes": found}


def _one(seed: int, nodes: int, stay: float, part: float, is_small: bool) -> Figures:
    view = half_empty(seed, nodes, stay)
    budget = int(part * view.tasks)
    start_s = time.perf_counter()
    plan = plan_moves(view, budget)
    figures = {
        "freed": float(len(plan.emptied)),
        "moves": float(len(plan.moves)),
        "bound": float(bound_freed(view, budget)),
        "seconds": time.perf_counter() - start_s,
    }
    if is_small:
        exact, is_proven = exact_freed(view, budget)
        figures |= {"exact": float(exact), "proven": float(is_proven)}
    return figures
