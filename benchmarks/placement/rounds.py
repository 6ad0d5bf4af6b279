"""Does the engine itself, in the rounds of a leader, pack as its score does in the simulation?

The same trace goes through `place` and `folded`: every round places so many tasks, each a service
of its own, by the mix of what runs and of what it has to place, and the next round sees them run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.placement.workload import ANY_MODEL, Fleet, Kind, read_nodes, read_pods
from dray.model import (
    ContainerSpec,
    Gpu,
    GpuRequest,
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
    PlacementNode,
    RunningShare,
    TaskGroup,
    cluster_view,
    folded,
    place,
)

__all__ = ["measure_rounds"]

MIB: Final = 1024**2
PROJECT: Final = "trace"
ROUNDS: Final = (1, 50)
"""Tasks in a round."""


def measure_rounds(nodes: Path, pods: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return which share of openb's demand the engine placed, by the size of its rounds."""
    fleet, models = read_nodes(nodes)
    workload = read_pods(pods, models)
    tasks = [workload.kinds[task] for task in workload.tasks]
    names = sorted(models, key=models.__getitem__)
    figures = {f"rounds of {size}": _placed(fleet, tasks, names, size) for size in ROUNDS}
    return {"openb through the engine, share placed, %": figures}


def _placed(fleet: Fleet, tasks: list[Kind], models: list[str], size: int) -> dict[str, float]:
    nodes = {node.node_id: node for node in _nodes(fleet, models)}
    specs = {kind: _spec(kind, models) for kind in tasks}
    view = cluster_view(list(nodes.values()))
    kinds: list[Kind] = []
    for start in range(0, len(tasks), size):
        groups = [
            _group(number, specs[kind]) for number, kind in enumerate(tasks[start : start + size])
        ]
        changed: dict[NodeId, PlacementNode] = {}
        for placed in place(view, groups).placed:
            kind = tasks[start + placed.slot.slot - 1]
            kinds.append(kind)
            spec = specs[kind]
            share = RunningShare(
                ServiceKey(PROJECT, f"{placed.slot.service}-{start}"),
                1,
                spec.task.reservations,
                spec,
                (placed.gpu_ids,) if placed.gpu_ids else (),
            )
            node = nodes[placed.node_id]
            nodes[placed.node_id] = changed[placed.node_id] = replace(
                node, running=(*node.running, share)
            )
        view = folded(view, changed.values())
    demand, taken = _sums(tasks), _sums(kinds)
    names = ("pods", "cpu", "memory", "gpu")
    return {name: round(100 * taken[name] / demand[name], 2) for name in names}


def _sums(kinds: list[Kind]) -> dict[str, int]:
    return {
        "pods": len(kinds),
        "cpu": sum(kind.amounts[0] for kind in kinds),
        "memory": sum(kind.amounts[1] for kind in kinds),
        "gpu": sum(kind.gpu_total for kind in kinds),
    }


def _nodes(fleet: Fleet, models: list[str]) -> list[PlacementNode]:
    return [
        PlacementNode(
            NodeId(f"n{number:06}"),
            f"n{number}",
            NodeCapacity(
                int(cpu),
                int(memory) * MIB,
                gpus=tuple(Gpu(str(index), models[model]) for index in range(int(gpus))),
            ),
        )
        for number, ((cpu, memory), gpus, model) in enumerate(
            zip(fleet.capacity, fleet.gpus, fleet.model, strict=True)
        )
    ]


def _spec(kind: Kind, models: list[str]) -> ServiceSpec:
    gpu = None
    if kind.gpu_count:
        named = [name for code, name in enumerate(models) if (kind.gpu_models >> code) & 1]
        wanted = () if kind.gpu_models == ANY_MODEL else tuple(named)
        gpu = GpuRequest(kind.gpu_count, kind.gpu_millis, wanted)
    reservations = ResourceReservations(kind.amounts[0], kind.amounts[1] * MIB, gpu=gpu)
    return ServiceSpec(PROJECT, TaskTemplate(ContainerSpec(ImageOptions("image")), reservations))


def _group(number: int, spec: ServiceSpec) -> TaskGroup:
    """Return the one task of a service; the slot's number says which of the round it is."""
    name = f"s{number}"
    return TaskGroup(ServiceKey(PROJECT, name), spec, (SlotKey(PROJECT, name, number + 1),), 1)
