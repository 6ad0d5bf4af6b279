"""How much room is left while a round places its tasks, and in which order are nodes liked?

`Room` is the one mutable thing of placement: a copy of a view's columns, counted down as tasks are
placed. For each kind of task it keeps one whole number a node, its *rank*: what is dear comes last,
then what loses by the score, then what is unused; `NOWHERE` where the task does not fit. A rank
depends on its own node alone, so only nodes that have changed are ranked anew.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dray.model import GPU_MILLIS_WHOLE, PackingPolicy, ServiceKey, ServiceSpec
from dray.names import NodeId
from scheduler.placement.ask import MODELS_MAX, Ask, TaskGroup, ask_of, gpu_demand
from scheduler.placement.cluster import UNLIMITED, ClusterView, NodeCounts, taken_from
from scheduler.placement.filters import FixedMasks, fixed_masks
from scheduler.placement.lineage import Kept
from scheduler.placement.node import TASKS, PortUse, TaskKind, kind_of, kind_row, repels
from scheduler.placement.score import (
    LOSS_STEP,
    Columns,
    Mix,
    device_for,
    make_mix,
    room_of,
    worth_of,
)

__all__ = ["COST_SHIFT", "NOWHERE", "PRICE_SHIFT", "Board", "Ranked", "Room", "Take", "steps_lost"]

NOWHERE: Final = 2**62
"""Rank of a node on which the task does not fit."""

COST_SHIFT: Final = 44
"""Preferences weigh more than prices."""

PRICE_SHIFT: Final = 25
"""Prices weigh more than the score: 24 bits of it, and one for unused nodes."""

FEW_ROWS: Final = 256
"""Up to so many rows are ranked whether the task fits or not: that is faster."""

STEPS_MAX: Final = 2**24 - 1
SPREAD_STEPS: Final = 2**20
"""Steps of the share of CPU and memory that the policy SPREAD counts by."""

ARRIVING_SHARE: Final = 8
"""Rounds of less than one such part of what runs are scored by the mix of what runs."""

_ROUNDING: Final = 1e-9
_BOARD: Final = "board"  # what the columns of boards are kept as
_Key = TypeVar("_Key", bound=Hashable)


class Counts(Generic[_Key]):
    """Tasks by something and row, counted on from what a view says; copied when first asked for."""

    def __init__(self, base: Mapping[_Key, NodeCounts], rows: Mapping[NodeId, int]) -> None:
        """Begin with the view's counts."""
        self._base = base
        self._rows = rows
        self._mine: dict[_Key, dict[int, int]] = {}
        self._waiting: dict[_Key, list[tuple[int, int]]] = {}  # not counted in until it is asked

    def __getitem__(self, key: _Key) -> dict[int, int]:
        """Return the counts by row; what has none is absent."""
        found = self._mine.get(key)
        if found is None:
            told = self._base.get(key, {})
            found = self._mine[key] = {self._rows[node_id]: n for node_id, n in told.items()}
            for row, count in self._waiting.pop(key, ()):
                self.add(key, row, count)
        return found

    def most_at(self, key: _Key) -> int:
        """Return a number that the counts of this do not exceed on any row."""
        if key in self._mine:
            return max(self._mine[key].values(), default=0)
        come = sum(max(count, 0) for _, count in self._waiting.get(key, ()))
        return max(self._base.get(key, {}).values(), default=0) + come

    def known(self) -> Iterable[_Key]:
        """Return everything that is or was counted, in no order."""
        return self._base.keys() | self._mine.keys() | self._waiting.keys()

    def add(self, key: _Key, row: int, count: int) -> None:
        """Count on."""
        mine = self._mine.get(key)
        if mine is None:
            self._waiting.setdefault(key, []).append((row, count))
            return
        mine[row] = mine.get(row, 0) + count
        if not mine[row]:
            del mine[row]


@dataclass(frozen=True, slots=True)
class Take:
    """Tasks that were given room: enough to take it back.

    Attributes:
        service: The service.
        ask: What each took.
        rows: Each once.
        counts: Tasks on each.
        devices: Row and device of every share of a GPU.
    """

    service: ServiceKey
    ask: Ask
    rows: list[int]
    counts: list[int]
    devices: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Scoring:
    """What to score by: the mix, and intp[n], the resources that some kind in it asks for."""

    mix: Mix
    columns: NDArray[np.intp]


class Ranked:
    """Ranks of one kind of task.

    Attributes:
        ask: The task.
        scored: float64[n_scored], what it takes of what the score looks at.
        allowed: bool[n_nodes], where it may run at all.
        ranks: int64[n_nodes]; `NOWHERE` where they are stale.
        after: float64[n_nodes], the value of each node once it has taken one.
        is_stale: bool[n_nodes], where the node has changed and has no rank yet.
        seen: How much of the room's log the ranks know of.
    """

    __slots__ = ("after", "allowed", "ask", "is_stale", "ranks", "scored", "seen")

    def __init__(
        self,
        ask: Ask,
        scored: NDArray[np.intp],
        allowed: NDArray[np.bool_],
        ranks: NDArray[np.int64],
        after: NDArray[np.float64],
        is_stale: NDArray[np.bool_],
    ) -> None:
        """Keep the columns; they are changed in place."""
        self.ask = ask
        self.scored = ask.amounts[scored].astype(np.float64)
        self.allowed = allowed
        self.ranks = ranks
        self.after = after
        self.is_stale = is_stale
        self.seen = 0

    def outdate(self, rows: NDArray[np.intp]) -> None:
        """Have no ranks of these rows until they are asked for."""
        self.is_stale[rows] = True
        self.ranks[rows] = NOWHERE


class Board:
    """Free amounts, and how nodes rank by them.

    Attributes:
        free: int64[n_nodes, n_resources].
        gpu_free: int64[n_nodes, n_devices].
        values: float64[n_nodes], what the free amounts are worth to the mix; NaN: not known.
        scored: intp[n_scored], the resources that the score looks at.
        room: float64[n_nodes, n_scored], what is free of them, as the score takes it.
        low: int64[n_nodes], what a rank holds beside the score: the price, and 1 for unused nodes.
        has_unknown: Some values are not known.
    """

    def __init__(
        self, view: ClusterView, scoring: Scoring, kept: tuple[Kept, NDArray[np.intp]] | None
    ) -> None:
        """Begin with a view.

        Args:
            view: The cluster.
            scoring: What to score by.
            kept: Columns of a board of another view, and the rows that differ; None: all anew.
        """
        self.scored = scoring.columns
        self._view = view
        self._mix = scoring.mix
        self._model = np.minimum(view.gpu_model[:, 0], MODELS_MAX) if view.gpu_model.size else None
        if kept is None:
            self.free = free = view.free.copy(order="K")
            self.gpu_free = view.gpu_free.copy()
            self.values = np.full(len(free), np.nan)
            self.room = room_of(free[:, scoring.columns])
            prices = view.attributes.price_ranks(view.rules.price_label) << PRICE_SHIFT
            self.low = prices | (free[:, TASKS] >= view.capacity[:, TASKS])
        else:
            self.free, self.gpu_free, self.values, self.room, self.low = kept[0].columns
            self.reset(view, kept[1])
        self.has_unknown = True

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """What a board of the next view can begin with."""
        return self.free, self.gpu_free, self.values, self.room, self.low

    def reset(self, view: ClusterView, rows: NDArray[np.intp]) -> None:
        """Take the amounts of some rows from a view."""
        self.free[rows] = view.free[rows]
        self.gpu_free[rows] = view.gpu_free[rows]
        self.amounts(rows)

    def fits(self, ask: Ask, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return where there is room for one more task: bool[n_rows]."""
        found: NDArray[np.bool_] = np.logical_and.reduce(self.free[rows] >= ask.floor, axis=1)
        if ask.gpu is not None:
            devices = self.usable_devices(ask, rows)
            found &= devices_fit(devices, ask.gpu.count, ask.gpu.millis_per_gpu)
        return found

    def usable_devices(self, ask: Ask, rows: NDArray[np.intp] | slice) -> NDArray[np.int64]:
        """Return what is free of devices that will do, else -1: int64[n_rows, n_devices]."""
        devices = self.gpu_free[rows]
        if ask.model_ok is None or not devices.size:
            return devices
        return np.where(ask.model_ok[self._view.gpu_model[rows]], devices, -1)

    def rank(self, kind: Ranked, rows: NDArray[np.intp]) -> None:
        """Renew the ranks of some rows for a kind of task; they are stale no more."""
        kind.is_stale[rows] = False
        fits = self.fits(kind.ask, rows)
        fits &= kind.allowed[rows]
        if len(rows) <= FEW_ROWS and (kind.ask.gpu is None or self._model is not None):
            kind.ranks[rows] = np.where(fits, self._ranks(kind, rows), NOWHERE)
            return
        kind.ranks[rows] = NOWHERE
        if fits.any():
            kind.ranks[rows[fits]] = self._ranks(kind, rows[fits])

    def _ranks(self, kind: Ranked, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return the rank of each row on which the task fits; that of another means nothing."""
        ask = kind.ask
        if ask.policy is PackingPolicy.SPREAD:
            return (self.emptiness(ask, rows, self.free[rows]) << 1) | (self.low[rows] & 1)
        if self.has_unknown:
            self._learn()
        room = self.room[rows]
        room -= kind.scored
        devices = self.gpu_free if self._model is None else self.gpu_free[rows]
        after = self.worth(rows, room, self.devices_after(ask, rows, devices))
        kind.after[rows] = after
        return (steps_lost(self.values[rows], after) << 1) | self.low[rows]

    def _learn(self) -> None:
        """Value the rows whose value is not known."""
        rows = np.flatnonzero(np.isnan(self.values))
        self.values[rows] = self.worth(rows, self.room[rows], self.gpu_free[rows])
        self.has_unknown = False

    def amounts(self, rows: NDArray[np.intp]) -> None:
        """Take note of other free amounts of some rows; their values have to be found anew."""
        if not len(rows):
            return
        free = self.free[rows]
        self.room[rows] = room_of(free[:, self.scored])
        self.values[rows] = np.nan
        self.has_unknown = True
        is_unused = free[:, TASKS] >= self._view.capacity[rows, TASKS]
        self.low[rows] = (self.low[rows] & -2) | is_unused

    def emptiness(
        self, ask: Ask, rows: NDArray[np.intp], free: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return less the more would be left of these free amounts of CPU and memory."""
        left = free[:, :2].astype(np.float64) - ask.amounts[:2]
        share = (left / np.maximum(self._view.capacity[rows, :2], 1)).sum(axis=1)
        steps: NDArray[np.int64] = np.clip((2 - share) * SPREAD_STEPS, 0, STEPS_MAX).astype(
            np.int64
        )
        return steps

    def worth(
        self, rows: NDArray[np.intp], room: NDArray[np.float64], devices: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return what such free amounts of these rows would be worth: float64[n_rows].

        Args:
            rows: Which rows; their GPUs' models count.
            room: float64[n_rows, n_scored].
            devices: int64[n_rows, n_devices].
        """
        models = rows if self._model is None else self._model[rows]  # not looked at without GPUs
        return worth_of(room, devices, models, self._mix)

    def devices_after(
        self, ask: Ask, rows: NDArray[np.intp], devices: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return what is free of the devices once each row has taken a task that fits."""
        if ask.gpu is None:
            return devices
        usable = devices
        if ask.model_ok is not None:
            usable = np.where(ask.model_ok[self._view.gpu_model[rows]], devices, -1)
        after = usable.copy()
        if ask.gpu.millis_per_gpu >= GPU_MILLIS_WHOLE:
            whole = usable == GPU_MILLIS_WHOLE
            after[whole & (whole.cumsum(axis=1) <= ask.gpu.count)] = 0
        else:
            millis = ask.gpu.millis_per_gpu
            enough = np.where(usable >= millis, usable, GPU_MILLIS_WHOLE + 1)
            after[np.arange(len(after)), enough.argmin(axis=1)] -= millis
        return after if ask.model_ok is None else np.where(usable >= 0, after, devices)


def steps_lost(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many whole steps of value are lost.

    A node holds at most as much of a resource as all nodes together, so there are fewer steps than
    ten times nodes times resources, far below `STEPS_MAX`.
    """
    return ((before - after) * (1 / LOSS_STEP) + _ROUNDING).astype(np.int64)


def devices_fit(devices: NDArray[np.int64], count: int, millis: int) -> NDArray[np.bool_]:
    """Return where so many devices have that much left: bool[n_rows]."""
    enough: NDArray[np.bool_] = (devices >= millis).sum(axis=1) >= count
    return enough


class Room:
    """A cluster that fills up. Not for two threads at once; its view is.

    Attributes:
        view: What it began with.
        board: The free amounts now.
        replicas: Tasks of services by row, now.
        ports: Tasks that take ports, by row, now.
        services: Specifications of what runs and what was placed.
        repellers: Those of them that no others may be put near to.
        takes: What was placed, in order, for taking back.
        evicted: How many tasks are to end in this round, by row and service.
    """

    def __init__(self, view: ClusterView, groups: Iterable[TaskGroup] = ()) -> None:
        """Begin with a view.

        Args:
            view: The cluster.
            groups: What is to be placed; it counts in the mix.
        """
        self.view = view
        scoring, self._is_shared = _scoring(view, groups)
        kept = view.lineage.take(_BOARD, view.position) if self._is_shared else None
        self.board = Board(view, scoring, kept)
        self.replicas = Counts(view.replicas, view.rows)
        self.ports = Counts[PortUse](view.ports, view.rows)
        self.services: dict[ServiceKey, ServiceSpec] = {}
        self.repellers = dict(view.repellers)
        self.takes: list[Take] = []
        self.evicted: dict[tuple[int, ServiceKey], int] = {}
        self._log: list[int] = []
        self._ranked: dict[Hashable, Ranked] = {}
        self._known: dict[int, Ranked] = {}  # by identity of asks, all of which are kept below
        self._asks: dict[Hashable, Ask] = {}

    def ask(self, group: TaskGroup) -> Ask:
        """Return what a group asks for; a specification is read once in a lineage."""
        key = (id(group.spec), group.project_policy)
        found = self._asks.get(key)
        if found is None:  # the ask holds the specification, so its identity is not used again
            found = self.view.lineage.asks.get(key)
            if found is None:
                found = ask_of(self.view, group.spec, group.project_policy)
                self.view.lineage.keep_ask(key, found)
            self._asks[key] = found
        return found

    def fixed(self, ask: Ask) -> FixedMasks:
        """Return the conditions that hang on nodes' attributes."""
        return fixed_masks(self.view.attributes, ask)

    def ranks(self, ask: Ask) -> NDArray[np.int64]:
        """Return the rank of every node for one more task: int64[n_nodes]. Not to be changed."""
        kind = self._kind(ask)
        rows = np.flatnonzero(kind.is_stale)
        if len(rows):
            self.board.rank(kind, rows)
        return kind.ranks

    def first(self, ask: Ask, barred: NDArray[np.bool_] | None = None) -> int | None:
        """Return the lowest row that ranks first for one more task; None: there is none.

        A rank is not below what it holds beside the score: only changed rows that could come first
        are ranked anew.

        Args:
            ask: The task.
            barred: bool[n_nodes], rows that are left out; None: no row is.
        """
        kind = self._kind(ask)
        if not len(kind.ranks):
            return None
        row, rank = _least(kind.ranks, barred)
        rows = (kind.is_stale if barred is None else kind.is_stale & ~barred).nonzero()[0]
        if len(rows) and ask.policy is not PackingPolicy.SPREAD:
            rows = rows[self.board.low[rows] + (rows >= row) <= rank]
        if len(rows):
            self.board.rank(kind, rows)
            row, rank = _least(kind.ranks, barred)
        return row if rank < NOWHERE else None

    def _kind(self, ask: Ask) -> Ranked:
        """Return the ranks of a kind of task, those of rows that have changed marked."""
        found = self._known.get(id(ask))
        if found is None:
            found = self._ranked.get(ask.key) or self._first_ranks(ask)
            self._ranked[ask.key] = self._known[id(ask)] = found
        if found.seen < len(self._log):
            found.outdate(np.array(self._log[found.seen :], dtype=np.intp))
            found.seen = len(self._log)
        return found

    def _first_ranks(self, ask: Ask) -> Ranked:
        """Return the ranks of the view; those that its lineage knows need not be found again."""
        view, board = self.view, self.board
        allowed = self.fixed(ask).all & view.accepts_new
        taken = view.lineage.take(ask.key, view.position) if self._is_shared else None
        if taken is not None:
            kept, rows = taken
            found = Ranked(ask, board.scored, allowed, *kept.columns)
            found.outdate(rows)
            return found
        n_nodes = len(view.nodes)
        ranks = np.full(n_nodes, NOWHERE, dtype=np.int64)
        unknown, stale = np.full(n_nodes, np.nan), np.ones(n_nodes, dtype=np.bool_)
        return Ranked(ask, board.scored, allowed, ranks, unknown, stale)

    def keep(self) -> None:
        """Leave what was computed to the rooms of this view and of those folded from it.

        The room is not to be used any more.
        """
        if not self._is_shared:
            return
        lineage, position = self.view.lineage, self.view.position
        changed = np.array(sorted(set(self._log)), dtype=np.intp)
        for key, kind in self._ranked.items():
            kind.outdate(changed)  # the view knows nothing of what was placed
            lineage.keep(key, Kept((kind.ranks, kind.after, kind.is_stale), position))
        self.board.reset(self.view, changed)
        lineage.keep(_BOARD, Kept(self.board.columns, position))

    def take(
        self,
        group: TaskGroup,
        ask: Ask,
        rows: list[int],
        counts: list[int],
        devices: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """Give room to tasks of a group; the caller has seen that they fit.

        Args:
            group: The group.
            ask: What each takes.
            rows: Each once.
            counts: Tasks on each.
            devices: Row and device of every share of a GPU; they are counted down already.
        """
        take = Take(group.service, ask, rows, counts, devices)
        self.takes.append(take)
        self.services[group.service] = group.spec
        if ask.rules and repels(group.spec):
            self.repellers[group.service] = group.spec
        if len(rows) == 1 and counts[0] == 1:
            self._count_one(take, rows[0])
        else:
            self._count(take, 1)

    def take_back(self, mark: int) -> None:
        """Undo what was taken after `takes` had so many entries."""
        while len(self.takes) > mark:
            take = self.takes.pop()
            for row, device in take.devices:
                assert take.ask.gpu is not None
                self.board.gpu_free[row, device] += take.ask.gpu.millis_per_gpu
            self._count(take, -1)

    def release(self, group: TaskGroup, row: int) -> None:
        """Give back the room of one task of a group that ran on a node, but not devices."""
        self._count(Take(group.service, self.ask(group), [row], [1], ()), -1)

    def withhold(self, row: int, free: NDArray[np.int64], devices: NDArray[np.int64]) -> None:
        """Give no more than these amounts of a node to anyone.

        Args:
            row: The node.
            free: int64[n_resources].
            devices: int64[n_devices].
        """
        self.board.gpu_free[row] = devices
        self.board.free[row] = free
        self.board.amounts(np.array([row], dtype=np.intp))
        self._log.append(row)

    def _count_one(self, take: Take, row: int) -> None:
        """Count one task in; its kind's ranks are current."""
        board, ask = self.board, take.ask
        free = board.free
        for column in ask.columns:
            have = free[row, column]
            if have != UNLIMITED:
                free[row, column] = have - ask.amounts[column]
        kind = self._known[id(ask)]
        room = board.room[row]
        room -= kind.scored
        board.values[row] = after = kind.after[row]
        board.has_unknown |= bool(after != after)
        board.low[row] &= -2
        self._log.append(row)
        self.replicas.add(take.service, row, 1)
        for use in ask.ports:
            self.ports.add(use, row, 1)

    def _count(self, take: Take, sign: int) -> None:
        board, ask = self.board, take.ask
        rows = np.array(take.rows, dtype=np.intp)
        taken = np.array(take.counts, dtype=np.int64)[:, None] * (ask.amounts * sign)
        board.free[rows] = taken_from(board.free[rows], taken)
        board.amounts(rows)
        self._log += take.rows
        for row, count in zip(take.rows, take.counts, strict=True):
            self.replicas.add(take.service, row, count * sign)
            for use in ask.ports:
                self.ports.add(use, row, count * sign)

    def device_of(self, ask: Ask, row: int) -> list[int]:
        """Return which devices one more task gets on a node where it fits; count them down."""
        if ask.gpu is None:
            return []
        rows = np.array([row], dtype=np.intp)
        chosen = device_for(self.board.usable_devices(ask, rows)[0], ask.demand).tolist()
        self.board.gpu_free[row, chosen] -= ask.gpu.millis_per_gpu
        return list(chosen)


def _least(ranks: NDArray[np.int64], barred: NDArray[np.bool_] | None) -> tuple[int, int]:
    """Return the lowest row with the least rank of those that are not barred, and that rank."""
    seen = ranks if barred is None else np.where(barred, NOWHERE, ranks)
    row = int(seen.argmin())
    return row, int(seen[row])


# ---- the mix -------------------------------------------------------------------------------------


def _scoring(view: ClusterView, groups: Iterable[TaskGroup]) -> tuple[Scoring, bool]:
    """Return what to score by, and whether it is that of the view's lineage."""
    arriving: dict[TaskKind, int] = {}
    for group in groups:
        kind = kind_of(group.spec.task.reservations)
        arriving[kind] = arriving.get(kind, 0) + len(group.slots)
    if sum(arriving.values()) * ARRIVING_SHARE <= view.tasks:
        if view.lineage.scoring is None:
            view.lineage.scoring = _make_scoring(view, view.kinds)
        kept: Scoring = view.lineage.scoring
        return kept, True
    kinds = dict(view.kinds)
    for kind, count in arriving.items():
        kinds[kind] = kinds.get(kind, 0) + count
    return _make_scoring(view, kinds), False


def _make_scoring(view: ClusterView, kinds: Mapping[TaskKind, int]) -> Scoring:
    """Return the mix of these kinds; their order does not matter."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], repr(item[0])))
    amounts = np.array([kind_row(kind, view.resources) for kind, _ in ordered], dtype=np.int64)
    amounts = amounts.reshape(len(ordered), len(view.resources))
    asked: NDArray[np.bool_] = np.asarray(amounts.any(axis=0))
    asked[TASKS] = False
    columns = np.flatnonzero(asked) if asked.any() else np.array([0])
    demands = [
        gpu_demand(view.models, kind.gpu, amounts[number, columns])
        for number, (kind, _) in enumerate(ordered)
    ]
    has_gpus = view.gpu_model.size > 0
    model = view.gpu_model[:, 0] if has_gpus else np.zeros(len(view.nodes), dtype=np.int64)
    seen = Columns(view.capacity[:, columns], view.free[:, columns], view.gpu_free, model)
    return Scoring(make_mix(seen, demands, [float(count) for _, count in ordered]), columns)
