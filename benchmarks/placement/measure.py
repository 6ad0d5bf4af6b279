"""What does each policy reach on each kind of input? One function a section of the report."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from benchmarks.placement.hindsight import most_allocated_percent
from benchmarks.placement.policies import OURS, POLICIES, RANDOM_POLICIES
from benchmarks.placement.simulate import Policy, fill, open_on_demand, smallest_fleet
from benchmarks.placement.workload import (
    Timeline,
    Workload,
    inflated,
    lower_bound,
    read_dlrm,
    read_nodes,
    read_pods,
    replicated_mix,
    service_mix,
    variant,
    without_gpus,
    without_limits,
)

__all__ = [
    "BOUND",
    "MIXES",
    "Options",
    "Report",
    "measure_dlrm",
    "measure_gpu_mix",
    "measure_identical",
    "measure_mix",
    "measure_openb",
]

Figures: TypeAlias = dict[str, float]
Report: TypeAlias = dict[str, dict[str, Figures]]
"""Figures by section and policy; what belongs to no policy is under `BOUND`."""

BOUND: Final = "bound"
"""Nodes that no packing can do without; of GPUs, what nobody who refuses nothing can exceed."""

MIXES: Final = ("default", "cpu250", "multigpu50", "gpuspec33", "gpushare100")
FIRST_SEED: Final = 42
OPENB_NODE: Final = (128_000, 768 * 1024)
REPLICAS: Final = 3
DLRM_NODE: Final = (192_000, 1024_000, 2048_000, 100_000)
"""The traces do not say what identical nodes are like: both are assumptions."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Attributes:
        policies: Names in `POLICIES`.
        repeats: Runs of policies that draw lots; their means are reported.
        seeds: Runs of each mix on GPU nodes.
    """

    policies: tuple[str, ...]
    repeats: int
    seeds: int

    def runs(self, name: str) -> range:
        """Return the seeds for this policy: one for those that draw no lots."""
        return range(1, 1 + (self.repeats if name in RANDOM_POLICIES else 1))


def measure_openb(nodes: Path, pods: Path, options: Options) -> Report:
    """Return which share of the trace's demand its own nodes took, in order of creation."""
    fleet, models = read_nodes(nodes)
    workload = read_pods(pods, models)
    found: dict[str, Figures] = {}
    for name in options.policies:
        runs = [
            fill(fleet, workload, POLICIES[name](workload, seed)) for seed in options.runs(name)
        ]
        figures = [
            {**run.placed_percent(workload), "nodes_used": float((run.sim.tasks > 0).sum())}
            for run in runs
        ]
        found[name] = _mean(figures)
    return {"openb, share placed, %": found}


def measure_gpu_mix(nodes: Path, pods: Path, name: str, options: Options) -> Report:
    """Return the GPU allocation of FGD's set-up: GPU nodes, 130 % of demand, shuffled."""
    fleet, models = read_nodes(nodes, gpu_nodes_only=True)
    workload = variant(read_pods(pods, models), name, fleet)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    runs: dict[str, list[float]] = {policy: [] for policy in (BOUND, *options.policies)}
    for seed in seeds:
        tasks = inflated(workload, int(fleet.gpus.sum()), seed)
        runs[BOUND].append(most_allocated_percent(fleet, tasks))
        for policy in options.policies:
            filled = fill(fleet, tasks, POLICIES[policy](workload, seed))
            runs[policy].append(filled.gpu_allocation_percent())
    found = {
        policy: {
            "gpu": round(statistics.mean(each), 2),
            "deviation": round(float(np.std(each)), 2),
            "seeds": float(len(each)),
        }
        for policy, each in runs.items()
    }
    return {f"GPU nodes at 130 %, {name}, GPU allocation, %": found}


def measure_mix(seed: int, count: int, options: Options) -> Report:
    """Return the smallest fleets for the made-up services."""
    node, workload = service_mix(seed, count)
    _, apart = replicated_mix(seed, count, REPLICAS)
    together = without_limits(apart)
    ours = Options((OURS,), options.repeats, options.seeds)
    return {
        f"mix {seed}, {count} services, smallest fleet": _fleets(node, workload, options),
        f"mix {seed}, services of {REPLICAS} replicas": _fleets(node, together, ours),
        f"mix {seed}, services of {REPLICAS} replicas, apart": _fleets(node, apart, ours),
    }


def measure_identical(nodes: Path, pods: Path, options: Options) -> Report:
    """Return the smallest fleets for openb's CPU and memory."""
    _, models = read_nodes(nodes)
    workload = without_gpus(read_pods(pods, models))
    return {"openb CPU and memory, smallest fleet": _fleets(OPENB_NODE, workload, options)}


def measure_dlrm(path: Path, options: Options) -> Report:
    """Return the nodes in use over 31 days of arrivals and departures."""
    timeline = read_dlrm(path)
    found: dict[str, Figures] = {}
    for name in options.policies:
        figures = []
        for seed in options.runs(name):
            policy = POLICIES[name](timeline.workload, seed)
            peak, mean = open_on_demand(DLRM_NODE, timeline, policy, _nodes_max(timeline))
            figures.append({"peak": float(peak), "mean": round(mean, 1)})
        found[name] = _mean(figures)
    return {"DLRM, nodes in use": found}


def _nodes_max(timeline: Timeline) -> int:
    """Return twice the nodes that all instances would fill at once by volume."""
    workload = timeline.workload
    demand = np.array([workload.kinds[task].amounts for task in workload.tasks], dtype=np.int64)
    return 2 * int((demand.sum(axis=0) / np.array(DLRM_NODE)).max()) + 1


def _fleets(node: tuple[int, ...], workload: Workload, options: Options) -> dict[str, Figures]:
    bound = lower_bound(node, workload)
    found: dict[str, Figures] = {BOUND: {"nodes": float(bound)}}
    for name in options.policies:
        sizes = [
            float(smallest_fleet(node, workload, _maker(name, workload, seed), bound))
            for seed in options.runs(name)
        ]
        found[name] = {"nodes": statistics.mean(sizes)}
    return found


def _maker(name: str, workload: Workload, seed: int) -> Callable[[], Policy]:
    return lambda: POLICIES[name](workload, seed)


def _mean(figures: list[Figures]) -> Figures:
    return {key: round(statistics.mean(each[key] for each in figures), 2) for key in figures[0]}
