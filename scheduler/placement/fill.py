"""Which nodes do the tasks of one group go to? All of them at once, in the time of the nodes.

The answer is that of placing the tasks one by one, each on the node that ranks first at its turn.
Tasks of a group are alike, so what the first, second … task would meet on a node can be computed
beforehand: an *entry* for each. A node's next entry is taken when its rank is the least of all
nodes' next ones; hence entries are taken in the order of the highest rank up to them on their node.
Only the nodes that rank first are looked at so far ahead, as many as are needed.

Wishes that weigh more than ranks come on top of it, the last one first: each sorts the entries by
how many replicas their branch (a zone, a rack, the node itself) has by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dray.model import GPU_MILLIS_WHOLE, PackingPolicy
from scheduler.placement.ask import Ask, TaskGroup
from scheduler.placement.cluster import UNLIMITED, taken_from
from scheduler.placement.lineage import LABEL_PREFIX
from scheduler.placement.near import Cap, Nearness, nearness, port_room
from scheduler.placement.node import TASKS
from scheduler.placement.room import COST_SHIFT, NOWHERE, PRICE_SHIFT, Board, Room, steps_lost
from scheduler.placement.score import room_of

__all__ = ["Filled", "apart_most", "branches", "fill", "zone_codes"]

BLOCK_ROWS: Final = 2**14
"""Entries whose steps are computed at once: it bounds the memory."""

ROWS_MIN: Final = 64
ROWS_SHARE: Final = 8
"""Rows that are looked at first: so many, and one for so many tasks."""

GROWTH: Final = 4
"""By how much more is looked ahead when it was not enough."""

_LOW_BITS: Final = 2**PRICE_SHIFT - 1
_PHASES: Final = 3


@dataclass(frozen=True, slots=True)
class Filled:
    """Where the first tasks of a group go; the others find no room.

    Attributes:
        rows: Row of each task, in the order of the slots.
        devices: Devices of each, by index; empty without GPUs.
    """

    rows: list[int]
    devices: list[list[int]]


def apart_most(replicas_wanted: int) -> int:
    """Return how many replicas of a service one node, or zone, gets while another has room: half.

    A single replica has nothing to be kept apart from.
    """
    return (replicas_wanted + 1) // 2


def zone_codes(room: Room) -> NDArray[np.intp] | None:
    """Return the zone of each node, intp[n_nodes]; None when all are in one."""
    found = room.view.attributes.codes(LABEL_PREFIX + room.view.rules.zone_label)
    assert found is not None
    codes, numbers = found
    return codes if len(numbers) > 1 else None


def branches(room: Room, spread_over: tuple[str, ...]) -> list[NDArray[np.intp]]:
    """Return, for each attribute to spread over, the branch that each node is in: intp[n_nodes].

    Nodes are in one branch when they agree in that attribute and in all before it. Nodes without
    the label share a branch.
    """
    attributes = room.view.attributes
    kept: list[NDArray[np.intp]] | None = attributes.masks.get(("branches", spread_over))
    if kept is not None:
        return kept
    found: list[NDArray[np.intp]] = []
    path = np.zeros(len(room.view.nodes), dtype=np.intp)
    for key in spread_over:
        read = attributes.codes(key)
        if read is not None:  # unknown ones refuse all nodes
            path = np.unique(path * len(read[1]) + read[0], return_inverse=True)[1].astype(np.intp)
            found.append(path)
    attributes.keep(("branches", spread_over), found)
    return found


def fill(room: Room, group: TaskGroup) -> Filled:
    """Give room to as many tasks of a group as find any, and return where they go."""
    ask = room.ask(group)
    near = nearness(room, group, ask)
    count = len(group.slots)
    if count == 1 and near is None and not ask.ports and not ask.spec.placement.spread_over:
        row = _one(room, group, ask)
        if row is not None:
            return _taken_one(room, group, ask, row)
    rows: list[int] = []
    devices: list[list[int]] = []
    for phase in range(_PHASES):
        while len(rows) < count:
            rest = 1 if near is not None and near.needs_seed else count - len(rows)
            chosen = _Chooser(room, group, ask, near, phase).choose(rest)
            if not len(chosen):
                break
            done = _taken(room, group, ask, chosen)
            rows += done.rows
            devices += done.devices
            near = nearness(room, group, ask)
    return Filled(rows, devices)


def _taken(room: Room, group: TaskGroup, ask: Ask, chosen: NDArray[np.intp]) -> Filled:
    """Give the room, and the devices, of the chosen rows away."""
    rows: list[int] = chosen.tolist()
    if len(rows) == 1:
        return _taken_one(room, group, ask, rows[0])
    devices = [room.device_of(ask, row) for row in rows] if ask.gpu is not None else []
    taken = tuple(
        (row, device) for row, each in zip(rows, devices, strict=False) for device in each
    )
    different, counts = np.unique(chosen, return_counts=True)
    room.take(group, ask, different.tolist(), counts.tolist(), taken)
    return Filled(rows, devices)


def _taken_one(room: Room, group: TaskGroup, ask: Ask, row: int) -> Filled:
    if ask.gpu is None:
        room.take(group, ask, [row], [1])
        return Filled([row], [])
    devices = room.device_of(ask, row)
    room.take(group, ask, [row], [1], tuple((row, device) for device in devices))
    return Filled([row], [devices])


def _one(room: Room, group: TaskGroup, ask: Ask) -> int | None:
    """Return the row for a single task; None when there is none that keeps its replicas apart."""
    if group.pinned_to is not None:
        row = room.view.rows.get(group.pinned_to)
        if row is None or ask.spec.placement.replicas_per_node_max:
            return None
        return row if room.ranks(ask)[row] < NOWHERE else None
    return room.first(ask, _barred(room, group, ask))


def _barred(room: Room, group: TaskGroup, ask: Ask) -> NDArray[np.bool_] | None:
    """Return where one more replica would be too many: bool[n_nodes]; None: nowhere.

    That is where others of its service are, on nodes and in zones that have as many as they may.
    """
    apart = apart_most(group.replicas_wanted) if group.replicas_wanted > 1 else UNLIMITED
    most = min(apart, ask.spec.placement.replicas_per_node_max or UNLIMITED)
    zones = zone_codes(room) if apart < UNLIMITED else None
    if most == UNLIMITED or (zones is None and room.replicas.most_at(group.service) < most):
        return None
    own = room.replicas[group.service]
    rows = np.fromiter(own.keys(), dtype=np.intp, count=len(own))
    counts = np.fromiter(own.values(), dtype=np.int64, count=len(own))
    full = rows[counts >= most]
    full_zones = np.zeros(0, dtype=np.intp)
    if zones is not None and len(rows):
        full_zones = np.flatnonzero(np.bincount(zones[rows], counts) >= apart)
    if not len(full) and not len(full_zones):
        return None
    barred = np.zeros(len(room.view.nodes), dtype=np.bool_)
    barred[full] = True
    for zone in full_zones:  # two at most: a zone is full with half of the replicas
        barred |= zones == zone
    return barred


class _Chooser:
    """Chooses rows for tasks of a group, as the room is now.

    In phase 0 replicas are kept apart over nodes and zones; in phase 1 over nodes; in phase 2 no
    node is left that could keep them apart, and the least crowded one comes first.

    Where domains that may hold only so many tasks cut across what tasks are spread over, or across
    one another, it chooses one at a time: what is full then changes what is even.
    """

    def __init__(
        self, room: Room, group: TaskGroup, ask: Ask, near: Nearness | None, phase: int
    ) -> None:
        self._room = room
        self._ask = ask
        own = room.replicas[group.service]
        self._own_rows = np.fromiter(own.keys(), dtype=np.intp, count=len(own))
        self._own_counts = np.fromiter(own.values(), dtype=np.int64, count=len(own))
        zones = zone_codes(room) if group.replicas_wanted > 1 else None
        self._caps = list(near.caps) if near is not None else []
        most = apart_most(group.replicas_wanted) if group.replicas_wanted > 1 else UNLIMITED
        if phase == 0 and zones is not None:
            self._caps.append(Cap(zones, most))
        self._levels = [np.arange(len(room.view.nodes))] if phase == _PHASES - 1 else []
        self._levels += [zones] if phase > 0 and zones is not None else []
        self._levels += near.spreads if near is not None else ()
        self._levels += branches(room, ask.spec.placement.spread_over)
        self._is_stepwise = not all(
            _refines(level, cap.codes) for cap in self._caps for level in self._levels
        )
        self._is_stepwise |= len(self._caps) > 1
        self._group, self._near = group, near
        self._apart = UNLIMITED if phase == _PHASES - 1 else most

    def _find_rows(self, group: TaskGroup, near: Nearness | None, apart: int, look_at: int) -> None:
        """Set the rows that will do, in order, their ranks, and how many tasks each takes.

        Args:
            group: The group.
            near: What is said about nodes near to other tasks.
            apart: Tasks of the service that one node may have.
            look_at: Rows that are enough, those that rank first; `_last_rank` says where it ends.
        """
        room, ask = self._room, self._ask
        ranks = room.ranks(ask)
        if group.pinned_to is None:
            rows = np.flatnonzero(ranks < NOWHERE)
        else:
            row = room.view.rows.get(group.pinned_to)
            is_open = row is not None and ranks[row] < NOWHERE
            rows = np.array([row] if is_open else [], dtype=np.intp)
        if near is not None:
            rows = rows[near.allowed[rows]]
        self._last_rank = NOWHERE
        if near is None and not self._levels and not self._caps and len(rows) > look_at:
            self._last_rank = int(np.partition(ranks[rows], look_at)[look_at])
            rows = rows[ranks[rows] <= self._last_rank]
        most = _most(room.board, ask, rows)
        if len(self._own_rows) or apart < UNLIMITED or ask.spec.placement.replicas_per_node_max:
            have = np.zeros(len(room.view.nodes), dtype=np.int64)
            have[self._own_rows] = self._own_counts
            limit = min(apart, ask.spec.placement.replicas_per_node_max or UNLIMITED)
            most = np.minimum(most, limit - have[rows])
        if ask.ports:
            most = np.minimum(most, port_room(room, ask)[rows])
        kept = most > 0
        self._rows = rows[kept]
        self._most = most[kept]
        self._ranks = ranks[self._rows]
        if near is not None and near.cost is not None:
            self._ranks = self._ranks + (near.cost[self._rows] << COST_SHIFT)

    def choose(self, count: int) -> NDArray[np.intp]:
        """Return the row of each of the first tasks, at most `count`, in order: intp[n]."""
        look_at = ROWS_MIN + count // ROWS_SHARE
        self._find_rows(self._group, self._near, self._apart, look_at)
        chosen = self._choose(count)
        beyond = len(chosen) < count or self._highest > self._last_rank
        if self._last_rank == NOWHERE or not beyond:
            return chosen
        self._find_rows(self._group, self._near, self._apart, len(self._room.view.nodes))
        return self._choose(count)

    def _choose(self, count: int) -> NDArray[np.intp]:
        self._highest = 0
        if not len(self._rows):
            return self._rows
        if count == 1 and not self._levels and not self._caps:
            return self._rows[[self._ranks.argmin()]]
        if self._is_stepwise:
            count = 1
        most = np.minimum(self._most, count)
        leaf = self._leaves()
        by_leaf = np.lexsort((self._ranks, leaf))
        before = _sums_before(leaf[by_leaf], most[by_leaf])
        need = count // (int(leaf.max()) + 1) + 1
        while True:
            is_seen = np.zeros(len(most), dtype=np.bool_)
            is_seen[by_leaf] = before < need
            chosen, is_certain = self._among(np.flatnonzero(is_seen), most, leaf, by_leaf, count)
            if is_certain or is_seen.all():
                return self._rows[chosen]
            need *= GROWTH

    def _leaves(self) -> NDArray[np.intp]:
        """Return a number for the innermost branch that each row is in: intp[n_rows]."""
        leaf = np.zeros(len(self._rows), dtype=np.intp)
        for codes in self._levels:
            mine = codes[self._rows]
            leaf = np.unique(leaf * (int(mine.max()) + 1) + mine, return_inverse=True)[1]
        return leaf.astype(np.intp)

    def _among(
        self,
        seen: NDArray[np.intp],
        most: NDArray[np.int64],
        leaf: NDArray[np.intp],
        by_leaf: NDArray[np.intp],
        count: int,
    ) -> tuple[NDArray[np.intp], bool]:
        """Return the choice (indices of rows) if only some rows are looked at, and if it is exact.

        Args:
            seen: Indices of the rows that are looked at, ascending.
            most: int64[n_rows], tasks that each takes.
            leaf: intp[n_rows], innermost branches.
            by_leaf: Indices of all rows by leaf, rank and row.
            count: Tasks.
        """
        owner, keys = _entries(self._room.board, self._ask, self._rows, self._ranks, seen, most)
        is_open, limit_rank, limit_row = _unseen(seen, leaf, by_leaf, self._ranks)
        mine = leaf[owner]
        is_safe = (keys < limit_rank[mine]) | (
            (keys == limit_rank[mine]) & (owner < limit_row[mine])
        )
        owner, keys = owner[is_safe], keys[is_safe]
        order = np.argsort(keys, kind="stable")
        for codes in reversed(self._levels):
            level = self._level(codes, owner[order])
            order = order[np.argsort(level, kind="stable")]
        for cap in self._caps:
            order = order[self._level(cap.codes, owner[order]) < cap.most]
        chosen = owner[order[:count]]
        self._highest = int(keys[order[len(chosen) - 1]]) if len(chosen) else 0
        if not is_open.any():
            return chosen, True
        if len(chosen) < count:
            return chosen, False
        if not self._levels:
            return chosen, True
        left = np.bincount(leaf[owner], minlength=len(is_open))
        used = np.bincount(leaf[chosen], minlength=len(is_open))
        return chosen, not bool((is_open & (used >= left)).any())

    def _level(self, codes: NDArray[np.intp], owner: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return how many replicas the branch of each entry has before it: int64[n_entries].

        -1 where the node is in no branch.

        Args:
            codes: intp[n_nodes], branches.
            owner: Rows' indices of the entries in the order in which they come.
        """
        have = np.bincount(
            codes[self._own_rows] + 1, self._own_counts, minlength=int(codes.max()) + 2
        ).astype(np.int64)
        mine = codes[self._rows[owner]]
        level: NDArray[np.int64] = _ranks_within(mine) + have[mine + 1]
        return np.where(mine < 0, -1, level)


def _refines(codes: NDArray[np.intp], other: NDArray[np.intp]) -> bool:
    """Return whether nodes in one branch are always in one branch of the other kind too."""
    pairs = np.unique(codes * (int(other.max(initial=0)) + 2) + other + 1)
    return len(pairs) == len(np.unique(codes))


def _most(board: Board, ask: Ask, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return how many tasks each row has room for: int64[n_rows]."""
    free = board.free[rows]
    most: NDArray[np.int64] = free[:, TASKS].copy()
    for column in ask.columns:
        if column != TASKS:
            have = free[:, column]
            room = np.where(have == UNLIMITED, UNLIMITED, have // ask.amounts[column])
            np.minimum(most, room, out=most)
    if ask.gpu is not None:
        devices = np.maximum(board.usable_devices(ask, rows), 0)
        if ask.gpu.millis_per_gpu == GPU_MILLIS_WHOLE:
            shares = (devices == GPU_MILLIS_WHOLE).sum(axis=1) // ask.gpu.count
        else:
            shares = (devices // ask.gpu.millis_per_gpu).sum(axis=1)
        np.minimum(most, shares, out=most)
    return most


def _entries(
    board: Board,
    ask: Ask,
    rows: NDArray[np.intp],
    ranks: NDArray[np.int64],
    seen: NDArray[np.intp],
    most: NDArray[np.int64],
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return the entries of the rows that are looked at: index of the row, and highest rank so far.

    Both are [n_entries], by row and then in the order of the tasks on it.
    """
    counts = most[seen]
    owner = np.repeat(seen, counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    number = np.arange(len(owner)) - starts
    if ask.gpu is None:
        steps = _steps_by_amounts(board, ask, rows, owner, number, counts)
    else:
        steps = _steps_by_devices(board, ask, rows[seen], counts)
    first = ranks[owner]
    low = np.where(number == 0, first & _LOW_BITS, steps << 1)
    segment = np.repeat(np.arange(len(seen)), counts) << PRICE_SHIFT
    highest = np.maximum.accumulate(low + segment) - segment
    return owner, (first & ~_LOW_BITS) + highest


def _steps_by_amounts(
    board: Board,
    ask: Ask,
    rows: NDArray[np.intp],
    owner: NDArray[np.intp],
    number: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the steps of every entry after the first of its row; those of the first are 0."""
    steps = np.zeros(len(owner), dtype=np.int64)
    later = np.flatnonzero(number > 0)
    scored = ask.amounts[board.scored]
    for start in range(0, len(later), BLOCK_ROWS):
        block = later[start : start + BLOCK_ROWS]
        at = rows[owner[block]]
        taken = number[block][:, None]
        if ask.policy is PackingPolicy.SPREAD:
            steps[block] = board.emptiness(ask, at, board.free[at] - taken * ask.amounts)
            continue
        devices = board.gpu_free[at]
        room = board.room[at] - taken * scored
        after = board.worth(at, room - scored, devices)
        steps[block] = steps_lost(board.worth(at, room, devices), after)
    return steps


def _steps_by_devices(
    board: Board, ask: Ask, rows: NDArray[np.intp], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the steps of every entry of these rows, task after task, as devices fill up."""
    starts = np.cumsum(counts) - counts
    steps = np.zeros(int(counts.sum()), dtype=np.int64)
    free, devices = board.free[rows], board.gpu_free[rows]
    for number in range(int(counts.max(initial=0))):
        alive = np.flatnonzero(counts > number)
        at = rows[alive]
        next_free = taken_from(free[alive], ask.amounts)
        next_devices = board.devices_after(ask, at, devices[alive])
        if ask.policy is PackingPolicy.SPREAD:
            steps[starts[alive] + number] = board.emptiness(ask, at, free[alive])
        else:
            before = board.worth(at, room_of(free[alive][:, board.scored]), devices[alive])
            after = board.worth(at, room_of(next_free[:, board.scored]), next_devices)
            steps[starts[alive] + number] = steps_lost(before, after)
        free[alive], devices[alive] = next_free, next_devices
    return steps


def _unseen(
    seen: NDArray[np.intp],
    leaf: NDArray[np.intp],
    by_leaf: NDArray[np.intp],
    ranks: NDArray[np.int64],
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Return, by leaf, whether rows of it are not looked at, and rank and index of the first one.

    Each is [n_leaves]; a rank is beyond all others where there is none.
    """
    n_leaves = int(leaf.max()) + 1
    is_unseen = np.ones(len(leaf), dtype=np.bool_)
    is_unseen[seen] = False
    rest = by_leaf[is_unseen[by_leaf]][::-1]  # so that the first one of a leaf is written last
    limit_rank = np.full(n_leaves, np.iinfo(np.int64).max)
    limit_row = np.zeros(n_leaves, dtype=np.int64)
    limit_rank[leaf[rest]] = ranks[rest]
    limit_row[leaf[rest]] = rest
    return limit_rank < np.iinfo(np.int64).max, limit_rank, limit_row


def _sums_before(leaf: NDArray[np.intp], most: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for rows sorted by leaf, how many tasks the rows before them in the leaf take."""
    before: NDArray[np.int64] = np.cumsum(most) - most
    if not len(leaf):
        return before
    is_first = np.append(True, leaf[1:] != leaf[:-1])
    starts = before[is_first]
    result: NDArray[np.int64] = before - starts[np.cumsum(is_first) - 1]
    return result


def _ranks_within(codes: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return how many equal codes come before each: int64[n]."""
    order = np.argsort(codes, kind="stable")
    result = np.empty(len(codes), dtype=np.int64)
    result[order] = _sums_before(codes[order], np.ones(len(codes), dtype=np.int64))
    return result
