"""What happens when tasks are placed one by one, without look-ahead and without moving any?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.placement.workload import (
    DEVICES_MAX,
    WHOLE,
    Fleet,
    Kind,
    Timeline,
    Workload,
    identical_fleet,
)

__all__ = ["Filled", "Policy", "Simulation", "fill", "open_on_demand", "smallest_fleet"]

_FLEET_GROWTH = 1.15
_FLEET_MAX = 100_000


class Simulation:
    """A fleet while tasks come and go.

    Attributes:
        capacity: int64[n_nodes, n_resources].
        free: int64[n_nodes, n_resources].
        gpu_free: int64[n_nodes, n_devices], thousandths; -1: no such device.
        model: int64[n_nodes].
        tasks: int64[n_nodes], how many run.
        version: int64[n_nodes], counts the changes of a row.
        visible: How many of the first rows policies may look at.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.capacity = fleet.capacity.astype(np.int64)
        self.free = self.capacity.copy()
        n_devices = DEVICES_MAX if fleet.gpus.any() else 0
        present = np.arange(n_devices) < fleet.gpus[:, None]
        self.gpu_free = np.where(present, WHOLE, -1).astype(np.int64)
        self.gpu_capacity = fleet.gpus.astype(np.int64)
        self.model = fleet.model.astype(np.int64)
        self.tasks = np.zeros(len(self.free), dtype=np.int64)
        self.version = np.zeros(len(self.free), dtype=np.int64)
        self.visible = len(self.free)
        self._apps: dict[int, NDArray[np.int64]] = {}

    def fitting(self, kind: Kind, *, only_open: bool = False) -> NDArray[np.intp]:
        """Return the visible rows on which the task fits."""
        seen = slice(0, self.visible)
        fits = (self.free[seen] >= kind.amounts).all(axis=1)
        if kind.gpu_count:
            devices = self.gpu_free[seen]
            if kind.gpu_millis < WHOLE:
                fits &= devices.max(axis=1) >= kind.gpu_millis
            else:
                fits &= (devices == WHOLE).sum(axis=1) >= kind.gpu_count
            if kind.gpu_models != -1:
                fits &= ((kind.gpu_models >> self.model[seen]) & 1).astype(np.bool_)
        if kind.app_per_node_max and kind.app in self._apps:
            fits &= self._apps[kind.app][seen] < kind.app_per_node_max
        if only_open:
            fits &= self.tasks[seen] > 0
        return np.flatnonzero(fits)

    def take(self, kind: Kind, row: int, devices: NDArray[np.intp]) -> None:
        """Start a task."""
        self._count(kind, row, devices, 1)
        assert (self.free[row] >= 0).all(), "more than the node has"
        assert (self.gpu_free[row] >= -1).all(), "more than a device has"

    def give_back(self, kind: Kind, row: int, devices: NDArray[np.intp]) -> None:
        """End a task."""
        self._count(kind, row, devices, -1)

    def _count(self, kind: Kind, row: int, devices: NDArray[np.intp], sign: int) -> None:
        self.free[row] -= sign * np.array(kind.amounts, dtype=np.int64)
        self.gpu_free[row, devices] -= sign * kind.gpu_millis
        self.tasks[row] += sign
        self.version[row] += 1
        if kind.app_per_node_max:
            column = self._apps.setdefault(kind.app, np.zeros(len(self.free), dtype=np.int64))
            column[row] += sign


class Policy(Protocol):
    """A scheduler's choice among nodes."""

    def arrived(self, sim: Simulation, number: int) -> None:
        """Learn that a task of this kind came, placed or not."""

    def choose(self, sim: Simulation, number: int, rows: NDArray[np.intp]) -> int:
        """Return one of the rows, on all of which a task of this kind fits."""

    def devices(self, sim: Simulation, number: int, row: int) -> NDArray[np.intp]:
        """Return the devices that the task gets there."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What a fixed fleet took.

    Attributes:
        rows: Of each task, in the order of arrival; -1: did not fit anywhere.
        sim: The fleet afterwards.
    """

    rows: tuple[int, ...]
    sim: Simulation

    def placed_percent(self, workload: Workload) -> dict[str, float]:
        """Return which share of the demand was placed."""
        demand = np.array(
            [
                (1, *workload.kinds[task].amounts[:2], workload.kinds[task].gpu_total)
                for task in workload.tasks
            ],
            dtype=np.int64,
        )
        placed = demand[np.array(self.rows) >= 0].sum(axis=0)
        shares = 100.0 * placed / np.maximum(demand.sum(axis=0), 1)
        names = ("pods", "cpu", "memory", "gpu")
        return {name: round(float(x), 2) for name, x in zip(names, shares, strict=True)}

    def gpu_allocation_percent(self) -> float:
        """Return which share of the fleet's GPUs is taken."""
        capacity = int(self.sim.gpu_capacity.sum()) * WHOLE
        return 100.0 * (1 - int(np.maximum(self.sim.gpu_free, 0).sum()) / capacity)


def fill(fleet: Fleet, workload: Workload, policy: Policy, *, stop: bool = False) -> Filled:
    """Place tasks on a fixed fleet; what fits nowhere is dropped, or ends it with `stop`."""
    sim = Simulation(fleet)
    chosen: list[int] = []
    for number in workload.tasks:
        policy.arrived(sim, number)
        rows = sim.fitting(workload.kinds[number])
        row = policy.choose(sim, number, rows) if len(rows) else -1
        chosen.append(row)
        if row >= 0:
            sim.take(workload.kinds[number], row, policy.devices(sim, number, row))
        elif stop:
            break
    return Filled(tuple(chosen), sim)


def smallest_fleet(
    node: tuple[int, ...], workload: Workload, policy: Callable[[], Policy], bound: int
) -> int:
    """Return the smallest number of nodes, all in sight, that took everything, by bisection."""

    def takes_all(count: int) -> bool:
        filled = fill(identical_fleet(node, count), workload, policy(), stop=True)
        return filled.rows[-1] >= 0

    low, high = bound, bound + 8
    while not takes_all(high):
        low, high = high + 1, int(high * _FLEET_GROWTH) + 1
        assert high < _FLEET_MAX, "a task is larger than a node"
    while low < high:
        middle = (low + high) // 2
        if takes_all(middle):
            high = middle
        else:
            low = middle + 1
    return high


def open_on_demand(
    node: tuple[int, ...], timeline: Timeline, policy: Policy, nodes_max: int
) -> tuple[int, float]:
    """Return peak and mean of the nodes in use; one is opened only when no open one will do."""
    workload = timeline.workload
    sim = Simulation(identical_fleet(node, nodes_max))
    sim.visible = 0
    where: dict[int, tuple[int, NDArray[np.intp]]] = {}
    opened = peak = 0
    area = 0.0
    last_s = first_s = timeline.events[0][0]
    for time_s, task, arrives in timeline.events:
        area += opened * (time_s - last_s)
        last_s = time_s
        number = workload.tasks[task]
        kind = workload.kinds[number]
        if not arrives:
            row, devices = where.pop(task)
            sim.give_back(kind, row, devices)
            opened -= int(sim.tasks[row] == 0)
            continue
        policy.arrived(sim, number)
        rows = sim.fitting(kind, only_open=True)
        row = policy.choose(sim, number, rows) if len(rows) else _closed_row(sim)
        opened += int(sim.tasks[row] == 0)
        peak = max(peak, opened)
        where[task] = (row, policy.devices(sim, number, row))
        sim.take(kind, *where[task])
    return peak, area / (last_s - first_s)


def _closed_row(sim: Simulation) -> int:
    """Return the lowest row without tasks; a new one comes into sight when there is none."""
    closed = np.flatnonzero(sim.tasks[: sim.visible] == 0)
    if len(closed):
        return int(closed[0])
    sim.visible += 1
    return sim.visible - 1
