"""What is placed where? Fleets and tasks, read from traces' CSV files or drawn from a seed."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ANY_MODEL",
    "Fleet",
    "Kind",
    "Timeline",
    "Workload",
    "identical_fleet",
    "inflated",
    "lower_bound",
    "read_dlrm",
    "read_nodes",
    "read_pods",
    "replicated_mix",
    "service_mix",
    "variant",
    "without_gpus",
    "without_limits",
]

DEVICES_MAX: Final = 8
WHOLE: Final = 1000
INFLATION: Final = 1.3
ANY_MODEL: Final = -1


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task.

    Attributes:
        amounts: Of each resource, in the fleet's units.
        gpu_count: GPUs.
        gpu_millis: Thousandths of each.
        gpu_models: Bit i: model i will do; -1: any.
        app: Number of the application, where tasks of one are limited per node; -1: none.
        app_per_node_max: That limit; 0: none.
    """

    amounts: tuple[int, ...]
    gpu_count: int = 0
    gpu_millis: int = 0
    gpu_models: int = ANY_MODEL
    app: int = -1
    app_per_node_max: int = 0

    @property
    def gpu_total(self) -> int:
        """Thousandths of GPUs in all."""
        return self.gpu_count * self.gpu_millis


@dataclass(frozen=True, slots=True)
class Fleet:
    """Nodes, empty.

    Attributes:
        capacity: int64[n_nodes, n_resources].
        gpus: int64[n_nodes], devices.
        model: int64[n_nodes].
    """

    capacity: NDArray[np.int64]
    gpus: NDArray[np.int64]
    model: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Workload:
    """Tasks in the order of their arrival: `tasks[i]` is an index into `kinds`."""

    kinds: tuple[Kind, ...]
    tasks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A workload with departures.

    Attributes:
        workload: The tasks.
        events: (time in seconds, task, arrives), in order.
    """

    workload: Workload
    events: tuple[tuple[float, int, bool], ...]


def _workload(kinds: list[Kind]) -> Workload:
    numbers: dict[Kind, int] = {}
    tasks = tuple(numbers.setdefault(kind, len(numbers)) for kind in kinds)
    return Workload(tuple(numbers), tasks)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_nodes(path: Path, *, gpu_nodes_only: bool = False) -> tuple[Fleet, dict[str, int]]:
    """Return the fleet of an openb node list (cpu_milli, memory_mib) and its models' numbers."""
    rows = _rows(path)
    models: dict[str, int] = {}
    for row in rows:
        models.setdefault(row["model"], len(models))
    if gpu_nodes_only:
        rows = [row for row in rows if int(row["gpu"])]
    return Fleet(
        np.array([[int(row["cpu_milli"]), int(row["memory_mib"])] for row in rows]),
        np.array([int(row["gpu"]) for row in rows]),
        np.array([models[row["model"]] for row in rows]),
    ), models


def read_pods(path: Path, models: dict[str, int]) -> Workload:
    """Return the tasks of an openb pod list in the order of their creation."""
    rows = _rows(path)
    if rows and "creation_time" in rows[0]:
        rows.sort(key=lambda row: float(row["creation_time"] or 0))
    return _workload([_pod(row, models) for row in rows])


def _pod(row: dict[str, str], models: dict[str, int]) -> Kind:
    gpus = int(row["num_gpu"])
    names = filter(None, (row.get("gpu_spec") or "").split("|"))
    wanted = [models[name] for name in names if name in models]
    mask = sum(1 << number for number in set(wanted)) if wanted else ANY_MODEL
    return Kind(
        (int(row["cpu_milli"]), int(row["memory_mib"])),
        gpu_count=gpus,
        gpu_millis=int(row["gpu_milli"]) if gpus else 0,
        gpu_models=mask if gpus else ANY_MODEL,
    )


def read_dlrm(path: Path, role: str = "CN") -> Timeline:
    """Return the instances of one role: CPU cores, memory GiB, disk GiB, RDMA %, in thousandths."""
    rows = [row for row in _rows(path) if row["role"] == role]
    apps: dict[str, int] = {}
    kinds: list[Kind] = []
    events: list[tuple[float, bool, int]] = []
    asked = ("cpu_request", "memory_request", "disk_request", "rdma_request")
    for number, row in enumerate(rows):
        per_node_max = int(row["max_instance_per_node"])
        kinds.append(
            Kind(
                tuple(round(float(row[name]) * 1000) for name in asked),
                app=apps.setdefault(row["app_name"], len(apps)),
                app_per_node_max=max(per_node_max, 0),
            )
        )
        start_s = float(row["creation_time"] or -1)
        events.append((start_s, True, number))
        if row["deletion_time"]:
            end_s = float(row["deletion_time"])
            events.append((end_s if end_s > start_s else start_s + 1, False, number))
    events.sort()  # departures before arrivals of the same second
    ordered = tuple((time_s, number, arrives) for time_s, arrives, number in events)
    return Timeline(_workload(kinds), ordered)


def service_mix(seed: int, count: int) -> tuple[tuple[int, int], Workload]:
    """Return a node (8 cores, 16 GiB) and services in T-shirt sizes: millicores and MiB.

    CPU and memory are drawn independently. This is made up, not a trace.
    """
    rng = np.random.default_rng(seed)
    cpu = rng.choice(
        [100, 250, 500, 1000, 2000, 4000], count, p=[0.2, 0.25, 0.25, 0.17, 0.09, 0.04]
    )
    memory = rng.choice(
        [128, 256, 512, 1024, 2048, 4096, 8192],
        count,
        p=[0.12, 0.2, 0.24, 0.2, 0.13, 0.08, 0.03],
    )
    return (8000, 16384), _workload(
        [Kind((int(a), int(b))) for a, b in zip(cpu, memory, strict=True)]
    )


def replicated_mix(seed: int, count: int, replicas: int) -> tuple[tuple[int, int], Workload]:
    """Return the node and that many tasks in all, as services of some replicas that come together.

    No node may hold all replicas of a service.
    """
    node, workload = service_mix(seed, count // replicas)
    kinds = [
        replace(workload.kinds[task], app=app, app_per_node_max=replicas - 1)
        for app, task in enumerate(workload.tasks)
        for _ in range(replicas)
    ]
    return node, _workload(kinds)


def identical_fleet(node: tuple[int, ...], count: int) -> Fleet:
    """Return that many nodes, all alike, without GPUs."""
    none = np.zeros(count, dtype=np.int64)
    return Fleet(np.tile(np.array(node, dtype=np.int64), (count, 1)), none, none)


def without_gpus(workload: Workload) -> Workload:
    """Return the same tasks, asking for CPU and memory only."""
    return _workload([Kind(workload.kinds[task].amounts) for task in workload.tasks])


def without_limits(workload: Workload) -> Workload:
    """Return the same tasks, as many of an application on a node as fit."""
    return _workload(
        [replace(workload.kinds[task], app=-1, app_per_node_max=0) for task in workload.tasks]
    )


def inflated(workload: Workload, gpus: int, seed: int, ratio: float = INFLATION) -> Workload:
    """Return the tasks shuffled, with random ones of them again until GPU demand is `ratio`."""
    rng = np.random.default_rng(seed)
    tasks = [workload.tasks[index] for index in rng.permutation(len(workload.tasks))]
    total = sum(workload.kinds[task].gpu_total for task in tasks)
    while total < ratio * gpus * WHOLE:
        task = workload.tasks[int(rng.integers(len(workload.tasks)))]
        tasks.append(task)
        total += workload.kinds[task].gpu_total
    return replace(workload, tasks=tuple(tasks))


def variant(workload: Workload, name: str, fleet: Fleet, seed: int = 5) -> Workload:
    """Return another mix made from these tasks, in the manner of the published variants.

    `cpu250`: CPU-only tasks are 2.5 times as many. `gpushare100`: every GPU task asks for a share.
    `multigpu50`: half of the GPU demand is of tasks of several. `gpuspec33`: a third of the tasks
    of one or two GPUs name a model, drawn by its number of devices. They are resampled here, and
    not the published lists.
    """
    rng = np.random.default_rng(seed)
    kinds = [workload.kinds[task] for task in workload.tasks]
    cpu = [kind for kind in kinds if not kind.gpu_count]
    gpu = [kind for kind in kinds if kind.gpu_count]

    def drawn(source: list[Kind], count: float) -> list[Kind]:
        return [source[index] for index in rng.integers(len(source), size=int(count))]

    if name == "cpu250":
        return _workload(gpu + drawn(cpu, 2.5 * len(cpu)))
    if name == "gpushare100":
        return _workload(cpu + drawn([kind for kind in gpu if kind.gpu_millis < WHOLE], len(gpu)))
    if name == "multigpu50":
        several = [kind for kind in gpu if kind.gpu_count > 1]
        others = [kind for kind in gpu if kind.gpu_count == 1]
        half = sum(kind.gpu_total for kind in gpu) / 2
        made = list(cpu)
        for source in (others, several):
            made += drawn(source, len(source) * half / sum(kind.gpu_total for kind in source))
        return _workload(made)
    if name == "gpuspec33":
        devices = np.repeat(fleet.model, fleet.gpus)
        named = [
            replace(kind, gpu_models=1 << int(devices[rng.integers(len(devices))]))
            if kind.gpu_count <= 2 and rng.random() < 1 / 3
            else kind
            for kind in gpu
        ]
        return _workload(cpu + named)
    assert name == "default", name
    return workload


def lower_bound(node: tuple[int, ...], workload: Workload) -> int:
    """Return how many nodes no packing can do without: volume and Martello and Toth's L2."""
    demand = np.array([workload.kinds[task].amounts for task in workload.tasks], dtype=np.int64)
    bound = 0
    for size, column in zip(node, demand.T, strict=True):
        bound = max(bound, math.ceil(column.sum() / size))
        for small in np.unique(column[(column > 0) & (2 * column <= size)]):
            huge = column > size - small
            big = (2 * column > size) & ~huge
            rest = (column >= small) & (2 * column <= size)
            spill = int(column[rest].sum()) - int((size - column[big]).sum())
            need = int(huge.sum()) + int(big.sum()) + max(0, math.ceil(spill / size))
            bound = max(bound, need)
    return bound
