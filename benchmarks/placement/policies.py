"""How does each scheduler choose a node? dray's score, and the formulas of the others.

Read in the sources or papers of: kube-scheduler 1.20 (MostAllocated, LeastAllocated,
BalancedAllocation, numFeasibleNodesToFind), Nomad 2.0 (binpack on log2(n) or 2 random nodes),
SwarmKit (fewest tasks), Tetris (SIGCOMM'14), FGD (ATC'23; see `fgd`). Ties go to the lowest row,
except where the product breaks them at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.placement.fgd import FgdPolicy
from benchmarks.placement.simulate import Policy, Simulation
from benchmarks.placement.workload import Kind, Workload
from scheduler.placement.score import Columns, Demand, Mix, device_for, make_mix, score_rows

__all__ = ["OURS", "POLICIES", "RANDOM_POLICIES", "FormulaPolicy", "OurPolicy"]

_Formula: TypeAlias = Callable[
    [Simulation, Kind, NDArray[np.intp], np.random.Generator], NDArray[np.float64]
]
"""Scores of rows for a task; the highest wins."""

_Sample: TypeAlias = Callable[[int], int]
"""How many fitting nodes are looked at, of so many nodes."""

MIX_GROWTH: Final = 1.25
MIX_STEP: Final = 8
OURS: Final = "dray"


def _after(sim: Simulation, kind: Kind, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the free shares of CPU and memory after placement: float64[n, 2]."""
    left = sim.free[rows, :2] - np.array(kind.amounts[:2])
    shares: NDArray[np.float64] = left / np.maximum(sim.capacity[rows, :2], 1)
    return shares


def _all_free(sim: Simulation, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return what is free of every resource, GPUs last, by the largest node's capacity."""
    gpus = np.maximum(sim.gpu_free[rows], 0).sum(axis=1) / 1000
    free = np.column_stack([sim.free[rows], gpus])
    shares: NDArray[np.float64] = free / _largest(sim)
    return shares


def _largest(sim: Simulation) -> NDArray[np.float64]:
    largest = np.append(sim.capacity.max(axis=0), sim.gpu_capacity.max())
    at_least_one: NDArray[np.float64] = np.maximum(largest, 1).astype(np.float64)
    return at_least_one


def _demand(sim: Simulation, kind: Kind) -> NDArray[np.float64]:
    share: NDArray[np.float64] = np.array([*kind.amounts, kind.gpu_total / 1000]) / _largest(sim)
    return share


def _first(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    return -rows.astype(np.float64)


def _random(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    return rng.random(len(rows))


def _best_fit(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    left: NDArray[np.float64] = (_all_free(sim, rows) - _demand(sim, kind)).sum(axis=1)
    return -left


def _dot_product(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    return _all_free(sim, rows) @ _demand(sim, kind)


def _halved(percent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the whole-numbered mean of two columns."""
    mean: NDArray[np.float64] = np.floor(percent.sum(axis=1) / 2)
    return mean


def _least_allocated(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    percent = np.floor(_after(sim, kind, rows) * 100 + 1e-9)
    return _halved(percent)


def _most_allocated(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    percent = np.floor((1 - _after(sim, kind, rows)) * 100 + 1e-9)
    return _halved(percent)


def _balanced(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    after = _after(sim, kind, rows)
    return np.floor((1 - np.abs(after[:, 0] - after[:, 1]) / 2) * 100)


def _sum(*formulas: _Formula) -> _Formula:
    return lambda sim, kind, rows, rng: np.sum(
        [formula(sim, kind, rows, rng) for formula in formulas], axis=0
    )


def _nomad(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    exponents = (10.0 ** _after(sim, kind, rows)).sum(axis=1)
    score: NDArray[np.float64] = np.clip(20 - exponents, 0, 18) / 18
    return score


def _fewest_tasks(
    sim: Simulation, kind: Kind, rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    return -sim.tasks[rows].astype(np.float64)


def _kube_sample(n_nodes: int) -> int:
    """Return numFeasibleNodesToFind."""
    if n_nodes < 100:
        return n_nodes
    return max(100, n_nodes * max(5, 50 - n_nodes // 125) // 100)


class _Placing:
    """What all policies do alike: shares go to the fullest device that has enough."""

    def __init__(self, workload: Workload) -> None:
        self.kinds = workload.kinds
        self.demands = [
            Demand(
                np.array(kind.amounts, dtype=np.int64),
                kind.gpu_count,
                kind.gpu_millis,
                kind.gpu_models,
            )
            for kind in workload.kinds
        ]

    def arrived(self, sim: Simulation, number: int) -> None:
        """Learn nothing."""

    def devices(self, sim: Simulation, number: int, row: int) -> NDArray[np.intp]:
        """Return the devices that the task gets."""
        return device_for(sim.gpu_free[row], self.demands[number])


@dataclass(frozen=True, slots=True)
class _Rule:
    formula: _Formula
    random_ties: bool = False
    random_sample: _Sample | None = None
    turn_sample: _Sample | None = None  # the sample starts where the last one ended


class FormulaPolicy(_Placing):
    """A scheduler that is one formula over what fits, or over a sample of it."""

    def __init__(self, workload: Workload, rule: _Rule, seed: int) -> None:
        super().__init__(workload)
        self._rule = rule
        self._rng = np.random.default_rng(seed)
        self._turn = 0

    def choose(self, sim: Simulation, number: int, rows: NDArray[np.intp]) -> int:
        """Return the row with the highest score."""
        rows = self._sampled(sim, rows)
        scores = self._rule.formula(sim, self.kinds[number], rows, self._rng)
        if not self._rule.random_ties:
            return int(rows[scores.argmax()])
        best = np.flatnonzero(scores == scores.max())
        return int(rows[best[self._rng.integers(len(best))]])

    def _sampled(self, sim: Simulation, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        rule = self._rule
        if rule.random_sample is not None:
            count = rule.random_sample(max(sim.visible, 2))
            return self._rng.choice(rows, count, replace=False) if len(rows) > count else rows
        if rule.turn_sample is not None:
            start = np.searchsorted(rows, self._turn % sim.visible)
            count = rule.turn_sample(sim.visible)
            seen = np.concatenate([rows[start:], rows[:start]])[:count]
            if len(seen) == count:
                self._turn = int(seen[-1]) + 1
            return seen
        return rows


@dataclass(slots=True)
class _Cached:
    scores: NDArray[np.float64]
    versions: NDArray[np.int64] = field(repr=False)


class OurPolicy(_Placing):
    """dray's score; the mix is what has arrived so far, and is renewed as it grows.

    Tasks that ask for the same are one kind, whatever service they are of.
    """

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        keys = [
            (kind.amounts, kind.gpu_count, kind.gpu_millis, kind.gpu_models)
            for kind in workload.kinds
        ]
        first: dict[object, int] = {}
        self._alike = [first.setdefault(key, number) for number, key in enumerate(keys)]
        self._counts = [0.0] * len(workload.kinds)
        self._arrived = 0.0
        self._renew_at = 0.0
        self._mix: Mix | None = None
        self._cache: dict[int, _Cached] = {}

    def arrived(self, sim: Simulation, number: int) -> None:
        """Count the task in; renew the mix when it has grown by a quarter."""
        self._counts[self._alike[number]] += 1
        self._arrived += 1
        if self._arrived >= self._renew_at:
            seen = [number for number, count in enumerate(self._counts) if count]
            self._mix = make_mix(
                _columns(sim),
                [self.demands[number] for number in seen],
                [self._counts[number] for number in seen],
            )
            self._renew_at = self._arrived * MIX_GROWTH + MIX_STEP
            self._cache.clear()

    def choose(self, sim: Simulation, number: int, rows: NDArray[np.intp]) -> int:
        """Return the row that loses the least."""
        assert self._mix is not None
        number = self._alike[number]
        cached = self._cache.get(number)
        if cached is None:
            n_nodes = len(sim.free)
            cached = _Cached(np.zeros(n_nodes), np.full(n_nodes, -1, dtype=np.int64))
            self._cache[number] = cached
        stale = rows[cached.versions[rows] != sim.version[rows]]
        if len(stale):
            cached.scores[stale] = score_rows(_columns(sim), stale, self.demands[number], self._mix)
            cached.versions[stale] = sim.version[stale]
        return int(rows[cached.scores[rows].argmin()])


def _columns(sim: Simulation) -> Columns:
    return Columns(sim.capacity, sim.free, sim.gpu_free, sim.model)


def _log2(n_nodes: int) -> int:
    return max(2, math.ceil(math.log2(n_nodes)))


_RULES: Final = {
    "first fit": _Rule(_first),
    "best fit": _Rule(_best_fit),
    "Kubernetes MostAllocated": _Rule(_most_allocated, random_ties=True),
    "Kubernetes MostAllocated, sampled": _Rule(
        _most_allocated, random_ties=True, turn_sample=_kube_sample
    ),
    "Kubernetes MostAllocated + Balanced": _Rule(_sum(_most_allocated, _balanced), True),
    "Kubernetes default (Least + Balanced)": _Rule(_sum(_least_allocated, _balanced), True),
    "Kubernetes LeastAllocated": _Rule(_least_allocated, random_ties=True),
    "Nomad binpack, full scan": _Rule(_nomad),
    "Nomad binpack, service (log2 n)": _Rule(_nomad, random_sample=_log2),
    "Nomad binpack, batch (2)": _Rule(_nomad, random_sample=lambda n_nodes: 2),
    "Swarm, fewest tasks": _Rule(_fewest_tasks, random_ties=True),
    "Tetris dot product": _Rule(_dot_product),
    "random": _Rule(_random),
}


def _formula_factory(rule: _Rule) -> Callable[[Workload, int], Policy]:
    return lambda workload, seed: FormulaPolicy(workload, rule, seed)


POLICIES: Final[dict[str, Callable[[Workload, int], Policy]]] = {
    OURS: lambda workload, seed: OurPolicy(workload),
    **{name: _formula_factory(rule) for name, rule in _RULES.items()},
    "FGD": lambda workload, seed: FgdPolicy(workload),
}
"""By name: the policy for a workload and a seed. FGD alone is told the workload in advance."""

RANDOM_POLICIES: Final = frozenset(
    name for name, rule in _RULES.items() if rule.random_ties or rule.random_sample
) | {"random"}
"""Those of which several runs differ."""
