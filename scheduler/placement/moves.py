"""Which few moves empty nodes, or even them out? Plans for people to look at and for rollouts.

Every move is start-first: the new task starts, then the old one ends. A plan is valid at every
step: when the moves are made in order, each finds room on its node, with all conditions kept, while
the old task still has its own.

Compaction closes a set of nodes at once and places all their tasks on nodes that stay, so that no
task moves twice. The set is the longest beginning of an order of the nodes (fewest tasks first,
least loaded first) that finds room within the budget, and then whatever single nodes can still be
added. Rebalancing moves tasks off the fullest node to where most is free, as long as that lowers
the higher load of the two.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dray.model import (
    PackingPolicy,
    ServiceKey,
    ServiceModeKind,
    ServiceSpec,
    SlotKey,
)
from dray.names import NodeId
from scheduler.placement.ask import TaskGroup
from scheduler.placement.cluster import ClusterView, folded
from scheduler.placement.fill import fill
from scheduler.placement.lineage import Lineage
from scheduler.placement.node import TASKS, PlacementNode, RunningShare
from scheduler.placement.room import Room
from scheduler.placement.solve import place

__all__ = ["Move", "MoveGoal", "MovePlan", "plan_moves"]

ADDED_MAX: Final = 16
"""Single nodes that are tried beyond the longest beginning."""

GAIN_MIN: Final = 0.02
"""By how much a move must lower the load of the fuller node, in parts of a node."""


class MoveGoal(enum.Enum):
    """What moves are for."""

    COMPACT = 1
    """Empty as many nodes as possible."""
    REBALANCE = 2
    """Use all nodes evenly, for instance after one has returned."""


@dataclass(frozen=True, slots=True)
class Move:
    """One task of a service leaves a node for another one, start-first.

    Attributes:
        service: Whose task; any one of the service on that node.
        from_node: Where it is.
        to_node: Where its successor goes.
        gpu_ids: The devices that the successor gets.
    """

    service: ServiceKey
    from_node: NodeId
    to_node: NodeId
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MovePlan:
    """Moves in the order in which they can be made.

    Attributes:
        moves: The moves.
        emptied: Nodes that have no task afterwards and had some before.
        load_max_before: The highest load of a node: the larger of its shares of CPU and memory.
        load_max_after: The same after all moves.
    """

    moves: tuple[Move, ...]
    emptied: tuple[NodeId, ...]
    load_max_before: float
    load_max_after: float


def plan_moves(
    cluster: ClusterView, budget_moves: int, goal: MoveGoal = MoveGoal.COMPACT
) -> MovePlan:
    """Return the moves that do most for the goal.

    Tasks stay where they are whose data is there, of which at most one copy may run, that are
    ending, that are jobs' or global services', or of which nothing is known but their size.

    Args:
        cluster: The cluster as it is; not changed.
        budget_moves: The most moves, >= 0.
        goal: What they are for.
    """
    cluster = replace(cluster, lineage=Lineage(), position=0, drift=0)  # others go on from theirs
    before = float(_loads(cluster, cluster.free).max(initial=0.0))
    if goal is MoveGoal.REBALANCE:
        moves, after = _rebalance(cluster, budget_moves)
        return MovePlan(moves, (), before, after)
    moves, emptied = _compact(cluster, budget_moves)
    after = float(_loads(cluster, _free_after(cluster, moves)).max(initial=0.0))
    return MovePlan(moves, emptied, before, after)


def is_movable(share: RunningShare) -> bool:
    """Return whether the tasks of a share may be moved."""
    spec = share.spec
    if spec is None or share.pinned or share.ending or spec.dray.singleton:
        return False
    return spec.mode.kind is ServiceModeKind.REPLICATED


def _loads(cluster: ClusterView, free: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the larger of each node's used shares of CPU and memory: float64[n_nodes]."""
    capacity = cluster.capacity[:, :2].astype(np.float64)
    used = capacity - free[:, :2]
    shares: NDArray[np.float64] = np.divide(
        used, capacity, out=np.zeros_like(used), where=capacity > 0
    ).max(axis=1)
    return shares


def _free_after(cluster: ClusterView, moves: Iterable[Move]) -> NDArray[np.int64]:
    """Return what is free once the moves were made."""
    room = Room(cluster)
    for move in moves:
        source, target = cluster.rows[move.from_node], cluster.rows[move.to_node]
        share = _share_of(cluster.nodes[source], move.service)
        assert share.spec is not None
        ask = room.ask(_group(move.service, share.spec, 1))
        room.board.free[source] += ask.amounts
        room.board.free[target] -= ask.amounts
    return room.board.free


def _share_of(node: PlacementNode, service: ServiceKey) -> RunningShare:
    return next(each for each in node.running if each.service == service and each.spec is not None)


def _group(service: ServiceKey, spec: ServiceSpec, count: int) -> TaskGroup:
    """Return successors of running tasks; their slots' numbers mean nothing."""
    slots = tuple(
        SlotKey(service.project, service.service, number) for number in range(1, count + 1)
    )
    return TaskGroup(service, spec, slots, spec.mode.replicas + 1)


# ---- compaction ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Closing:
    """Moves that empty a set of rows."""

    rows: frozenset[int]
    moves: tuple[Move, ...]

    @property
    def worth(self) -> tuple[int, int]:
        """More emptied nodes are better, then fewer moves."""
        return (len(self.rows), -len(self.moves))


def _compact(
    cluster: ClusterView, budget_moves: int
) -> tuple[tuple[Move, ...], tuple[NodeId, ...]]:
    """Return the moves of the best set of nodes to close, and the nodes."""
    rows = [row for row, node in enumerate(cluster.nodes) if _can_close(node)]
    tasks = cluster.capacity[:, TASKS] - cluster.free[:, TASKS]
    loads = _loads(cluster, cluster.free)
    orders: list[Callable[[int], tuple[float, float]]] = [
        lambda row: (float(tasks[row]), float(loads[row])),
        lambda row: (float(loads[row]), float(tasks[row])),
    ]
    best = _Closing(frozenset(), ())
    for order in orders:
        found = _longest(cluster, sorted(rows, key=order), budget_moves)
        best = max(best, found, key=lambda each: each.worth)
    emptied = tuple(cluster.nodes[row].node_id for row in sorted(best.rows))
    return best.moves, emptied


def _can_close(node: PlacementNode) -> bool:
    return bool(node.running) and all(is_movable(share) for share in node.running)


def _longest(cluster: ClusterView, order: Sequence[int], budget_moves: int) -> _Closing:
    """Return the longest beginning of an order that can be closed, and what can be added to it."""
    sizes = np.cumsum([0, *(sum(s.count for s in cluster.nodes[row].running) for row in order)])
    most = _closable_most(cluster)
    high = min(int(np.searchsorted(sizes, budget_moves, side="right")) - 1, most)
    low, best = 0, _Closing(frozenset(), ())
    while low < high:
        middle = (low + high + 1) // 2
        found = _closed(cluster, order[:middle])
        if found is None:
            high = middle - 1
        else:
            low, best = middle, found
    for row in order[low : low + ADDED_MAX]:
        size = sum(share.count for share in cluster.nodes[row].running)
        if len(best.moves) + size > budget_moves or len(best.rows) >= most:
            continue
        found = _closed(cluster, [*best.rows, row])
        best = found if found is not None else best
    return best


def _closable_most(cluster: ClusterView) -> int:
    """Return how many nodes in use could be empty at most: the largest hold all the rest."""
    in_use = np.flatnonzero(cluster.free[:, TASKS] < cluster.capacity[:, TASKS])
    needed = 0
    for column in range(2):  # CPU and memory, in which every node is limited
        capacity = np.sort(cluster.capacity[in_use, column].astype(np.float64))[::-1]
        used = (cluster.capacity[in_use, column] - cluster.free[in_use, column]).astype(np.float64)
        needed = max(needed, int(np.searchsorted(np.cumsum(capacity), used.sum())) + 1)
    return max(len(in_use) - needed, 0)


def _closed(cluster: ClusterView, rows: Sequence[int]) -> _Closing | None:
    """Return the moves that empty these rows at once; None when some task finds no room."""
    closing = set(rows)
    shut = [
        replace(node, accepts_new=False)
        for row, node in enumerate(cluster.nodes)
        if node.accepts_new and (row in closing or not node.running)
    ]
    view = folded(cluster, shut)
    sources: dict[tuple[ServiceKey, int], list[NodeId]] = {}
    specs: dict[tuple[ServiceKey, int], ServiceSpec] = {}
    for row in sorted(closing):
        node = cluster.nodes[row]
        for share in node.running:
            assert share.spec is not None
            key = (share.service, id(share.spec))  # revisions of a service are moved apart
            sources.setdefault(key, []).extend([node.node_id] * share.count)
            specs[key] = share.spec
    groups = [_group(key[0], specs[key], len(listed)) for key, listed in sources.items()]
    result = place(view, groups)
    if result.unplaced:
        return None
    moves: list[Move] = []
    placed = list(zip(result.groups, sources.values(), strict=True))
    for group, listed in (placed[turn] for turn in result.turns):  # what others need near, first
        gpu_ids = group.gpu_ids or ((),) * len(listed)
        moves += [
            Move(group.service, source, target, devices)
            for source, target, devices in zip(listed, group.node_ids, gpu_ids, strict=True)
        ]
    return _Closing(frozenset(closing), tuple(moves))


# ---- rebalancing ---------------------------------------------------------------------------------


def _rebalance(cluster: ClusterView, budget_moves: int) -> tuple[tuple[Move, ...], float]:
    """Return moves from the fullest nodes, and the highest load after them."""
    room = Room(cluster)
    loads = _loads(cluster, cluster.free)
    left = [_movable_tasks(node) for node in cluster.nodes]
    is_done = np.array([not each for each in left], dtype=np.bool_)
    moves: list[Move] = []
    while len(moves) < budget_moves and not is_done.all():
        source = int(np.where(is_done, -1.0, loads).argmax())
        move = _best_move(room, source, loads, left[source])
        if move is None:
            is_done[source] = True
            continue
        moves.append(move)
        loads = _loads(cluster, room.board.free)
    return tuple(moves), float(loads.max(initial=0.0))


def _movable_tasks(node: PlacementNode) -> dict[ServiceKey, int]:
    """Return how many tasks of each service may leave.

    Tasks with GPUs stay: who has which device would have to be known. So do those of a service of
    which the node runs several revisions: it is being replaced.
    """
    shares = Counter(share.service for share in node.running)
    return {
        share.service: share.count
        for share in node.running
        if is_movable(share) and share.reservations.gpu is None and shares[share.service] == 1
    }


def _best_move(
    room: Room, source: int, loads: NDArray[np.float64], left: dict[ServiceKey, int]
) -> Move | None:
    """Make the move off a node that lowers the higher load most; None: none lowers it enough."""
    view = room.view
    groups = {service: _spread(service, _share_of(view.nodes[source], service)) for service in left}
    best: tuple[float, ServiceKey] | None = None
    for service in sorted(left):
        outcome = _try(room, source, groups[service])
        if outcome is not None and (best is None or outcome[0] < best[0]):
            best = (outcome[0], service)
        if outcome is not None:
            room.take_back(outcome[2])
    if best is None or best[0] > loads[source] - GAIN_MIN:
        return None
    service = best[1]
    made = _try(room, source, groups[service])
    assert made is not None
    room.release(groups[service], source)
    left[service] -= 1
    if not left[service]:
        del left[service]
    return Move(service, view.nodes[source].node_id, view.nodes[made[1]].node_id)


def _try(room: Room, source: int, group: TaskGroup) -> tuple[float, int, int] | None:
    """Place a successor; return the higher load then, its row, and the mark to take it back to."""
    view = room.view
    mark = len(room.takes)
    rows = fill(room, group).rows
    if not rows:
        return None
    if rows[0] == source:
        room.take_back(mark)
        return None
    amounts = room.ask(group).amounts[:2]
    capacity = np.maximum(view.capacity[[source, rows[0]], :2], 1)
    own = 1 - (room.board.free[source, :2] + amounts) / capacity[0]
    other = 1 - room.board.free[rows[0], :2] / capacity[1]
    return max(float(own.max()), float(other.max())), rows[0], mark


def _spread(service: ServiceKey, share: RunningShare) -> TaskGroup:
    """Return a successor that goes where most is free."""
    spec = share.spec
    assert spec is not None
    return _group(service, replace(spec, dray=replace(spec.dray, policy=PackingPolicy.SPREAD)), 1)
