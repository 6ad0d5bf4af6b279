"""How fast does placement decide? The core alone, on one core: no store, no RPC, no commit."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from dray.model import (
    ConstraintOp,
    ContainerSpec,
    ImageOptions,
    NodeCapacity,
    Placement,
    PlacementConstraint,
    ResourceReservations,
    ServiceKey,
    ServiceMode,
    ServiceSpec,
    SlotKey,
    TaskTemplate,
)
from dray.names import NodeId
from scheduler.placement import (
    PlacedGroup,
    PlacementNode,
    Placer,
    RunningShare,
    TaskGroup,
    cluster_view,
    folded,
    place,
)

__all__ = ["SPEED", "measure_speed"]

GIB: Final = 1024**3
PROJECT: Final = "shop"
SINGLES: Final = 20_000
NAIVE: Final = 5_000
SERVICES: Final = 256
KINDS: Final = 64
REPLICAS: Final = 400
"""Of a service, beyond what it runs already; a fifth of the services runs nothing yet."""

ROUNDS: Final = 300
WARM_ROUNDS: Final = 100
Figures: TypeAlias = dict[str, float]


def a_fleet(count: int, tasks_max: int = 508) -> list[PlacementNode]:
    """Return nodes of three sizes in ten zones, a fifth of them without fast disks."""
    sizes = ((16_000, 64 * GIB), (32_000, 128 * GIB), (64_000, 256 * GIB))
    return [
        PlacementNode(
            NodeId(f"n{number:06}"),
            f"n{number}",
            NodeCapacity(*sizes[number % 3], tasks_max=tasks_max),
            labels=(("disk", "hdd" if number % 5 == 0 else "ssd"), ("rack", f"r{number % 100}")),
        )
        for number in range(count)
    ]


def a_spec(name: str, cpu_millis: int, memory_mib: int, *, only_ssd: bool = False) -> ServiceSpec:
    """Return a service, with a constraint on the nodes or without."""
    rule = PlacementConstraint("node.labels.disk", ConstraintOp.EQUAL, "ssd")
    return ServiceSpec(
        name,
        TaskTemplate(
            ContainerSpec(ImageOptions("image")),
            ResourceReservations(cpu_millis, memory_mib * 1024**2),
        ),
        ServiceMode(),
        placement=Placement(constraints=(rule,) if only_ssd else ()),
    )


def some_specs(count: int, kinds: int, seed: int) -> list[ServiceSpec]:
    """Return services of so many kinds, every second one with a constraint."""
    rng = np.random.default_rng(seed)
    drawn = [
        (int(cpu), int(memory))
        for cpu, memory in zip(
            rng.integers(1, 41, kinds) * 50, rng.integers(1, 33, kinds) * 128, strict=True
        )
    ]
    return [
        a_spec(f"s{number}", *drawn[number % kinds], only_ssd=number % 2 == 1)
        for number in range(count)
    ]


def a_group(spec: ServiceSpec, slots: int, first: int = 1) -> TaskGroup:
    """Return new tasks of a service."""
    numbers = range(first, first + slots)
    return TaskGroup(
        ServiceKey(PROJECT, spec.name),
        spec,
        tuple(SlotKey(PROJECT, spec.name, number) for number in numbers),
        slots,
    )


def single_decisions() -> Figures:
    """Return decisions one at a time at 5,000 nodes, constraints on: rate and latency."""
    specs = some_specs(SERVICES, KINDS, 1)
    groups = [
        [a_group(specs[number % SERVICES], 1, first=number // SERVICES + 1)]
        for number in range(SINGLES)
    ]
    placer = Placer(cluster_view(a_fleet(5000)), [each[0] for each in groups])
    for each in groups[:SERVICES]:  # each kind has been met once
        placer.place(each)
    took_s = []
    start_cpu_s = time.process_time()
    start_s = time.perf_counter()
    for each in groups[SERVICES:]:
        before_s = time.perf_counter()
        placer.place(each)
        took_s.append(time.perf_counter() - before_s)
    total_s = time.perf_counter() - start_s
    return {
        "per_s": round(len(took_s) / total_s),
        "per_cpu_s": round(len(took_s) / (time.process_time() - start_cpu_s)),
        "p50_us": round(float(np.percentile(took_s, 50)) * 1e6, 1),
        "p99_us": round(float(np.percentile(took_s, 99)) * 1e6, 1),
    }


def naive_scan() -> Figures:
    """Return decisions by looking at all 5,000 nodes anew for each, beside which ours are seen.

    The least-allocated and balanced formula over CPU and memory, written plainly with numpy.
    """
    fleet = a_fleet(5000)
    capacity = np.array([[n.capacity.cpu_millis, n.capacity.memory_bytes] for n in fleet])
    is_ssd = np.array([n.labels[0][1] == "ssd" for n in fleet])
    free = capacity.copy()
    specs = some_specs(KINDS, KINDS, 1)
    asked = [np.array(_amounts(spec)) for spec in specs]
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for number in range(NAIVE):
        demand = asked[number % KINDS]
        fits = (free >= demand).all(axis=1)
        if number % 2:
            fits &= is_ssd
        left = (free - demand) / capacity
        score = left.sum(axis=1) - np.abs(left[:, 0] - left[:, 1])
        free[np.where(fits, score, -1.0).argmax()] -= demand
    total_s, total_cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    return {"per_s": round(NAIVE / total_s), "per_cpu_s": round(NAIVE / total_cpu_s)}


def _amounts(spec: ServiceSpec) -> tuple[int, int]:
    reservations = spec.task.reservations
    return reservations.cpu_millis, reservations.memory_bytes


def one_large_group() -> Figures:
    """Return the time for 100,000 identical tasks onto 10,000 nodes."""
    view = cluster_view(a_fleet(10_000))
    group = a_group(a_spec("web", 1000, 2048), 100_000)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    result = place(view, [group])
    took_s, took_cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    return {
        "seconds": round(took_s, 3),
        "cpu_seconds": round(took_cpu_s, 3),
        "placed": _placed(result.groups),
    }


def a_million() -> Figures:
    """Return the time for 1,000,000 tasks of 1,000 services onto 10,000 nodes, and the memory."""
    view = cluster_view(a_fleet(10_000))
    groups = [a_group(replace(spec), 1000) for spec in some_specs(1000, 1000, 2)]
    small = [
        replace(group, spec=a_spec(group.spec.name, 50 + 5 * (n % 60), 64 + 8 * (n % 97)))
        for n, group in enumerate(groups)
    ]
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    result = place(view, small)
    took_s, took_cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    return {
        "seconds": round(took_s, 2),
        "cpu_seconds": round(took_cpu_s, 2),
        "placed": _placed(result.groups),
        "resident_max_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def full_nodes(nodes: int, services: int, each: int) -> list[PlacementNode]:
    """Return nodes that run so many tasks of each service; a node has a few of many services."""
    specs = some_specs(services, 200, 3)
    keys = [ServiceKey(PROJECT, spec.name) for spec in specs]
    running: list[dict[int, int]] = [{} for _ in range(nodes)]
    for number in range(services * each):
        held = running[(number * 7919) % nodes]
        service = number * 31 // nodes % services
        held[service] = held.get(service, 0) + 1
    return [
        replace(
            node,
            running=tuple(
                RunningShare(keys[service], count, specs[service].task.reservations, specs[service])
                for service, count in held.items()
            ),
        )
        for node, held in zip(a_fleet(nodes), running, strict=True)
    ]


def one_less(node: PlacementNode) -> PlacementNode:
    """Return a node of which one task has ended."""
    first, *others = node.running
    less = (replace(first, count=first.count - 1),) if first.count > 1 else ()
    return replace(node, running=(*less, *others))


def small_rounds(zones: int = 1) -> Figures:
    """Return the time of rounds with ten changed tasks at 10,000 nodes and 200,000 tasks.

    Args:
        zones: With several, the tasks are replicas that are kept apart over nodes and zones.
    """
    nodes = full_nodes(10_000, 1000, 200)
    if zones > 1:
        nodes = [
            replace(node, labels=(*node.labels, ("zone", f"z{number % zones}")))
            for number, node in enumerate(nodes)
        ]
    view = cluster_view(nodes)
    specs = some_specs(1000, 200, 3)
    took_s, took_cpu_s = [], []
    for number in range(ROUNDS):
        rng = np.random.default_rng(number)
        chosen = rng.integers(0, len(specs), 10)
        groups = [
            replace(
                a_group(specs[service], 1, first=1000 + number),
                replicas_wanted=REPLICAS if zones > 1 else 1,
            )
            for service in chosen
        ]
        gone = [int(row) for row in rng.choice(10_000, 10, replace=False)]
        changed = [one_less(view.nodes[row]) for row in gone]
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        view = folded(view, changed)
        place(view, groups)
        took_s.append(time.perf_counter() - start_s)
        took_cpu_s.append(time.process_time() - start_cpu_s)
    return {
        "p50_ms": round(float(np.percentile(took_s[WARM_ROUNDS:], 50)) * 1e3, 2),
        "p50_cpu_ms": round(float(np.percentile(took_cpu_s[WARM_ROUNDS:], 50)) * 1e3, 2),
        "p99_ms": round(float(np.percentile(took_s[WARM_ROUNDS:], 99)) * 1e3, 2),
        "first_ms": round(took_s[0] * 1e3, 2),
    }


def memory_of_a_view() -> Figures:
    """Return what 10,000 nodes and 1,000,000 tasks cost, the nodes' values and the view of them.

    Each share is one task here, which is the worst case: a view costs by shares.
    """
    empty_mib = _resident_mib()
    nodes = full_nodes(10_000, 1000, 1000)
    start_s = time.perf_counter()
    view = cluster_view(nodes)
    took_s = time.perf_counter() - start_s
    return {
        "tasks": float(view.tasks),
        "shares": float(sum(len(node.running) for node in nodes)),
        "resident_mib": round(_resident_mib() - empty_mib),
        "built_s": round(took_s, 2),
    }


def _resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024**2


def _placed(groups: tuple[PlacedGroup, ...]) -> float:
    return float(sum(len(group.slots) for group in groups))


SPEED: Final[dict[str, Callable[[], Figures]]] = {
    "single decisions, 5,000 nodes, constraints": single_decisions,
    "the same by a naive full scan": naive_scan,
    "100,000 identical tasks onto 10,000 nodes": one_large_group,
    "1,000,000 tasks of 1,000 services onto 10,000 nodes": a_million,
    "rounds of 10 changed tasks, 10,000 nodes": small_rounds,
    "the same, replicas kept apart over 3 zones": partial(small_rounds, 3),
    "view of 10,000 nodes and 1,000,000 tasks": memory_of_a_view,
}


def measure_speed() -> dict[str, dict[str, Figures]]:
    """Return every figure; the core alone."""
    return {"speed of the core alone": {name: measure() for name, measure in SPEED.items()}}
