"""What does one group of tasks ask of nodes, in the terms of the columns?"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dray.model import (
    GPU_MILLIS_WHOLE,
    Affinity,
    AffinityTarget,
    GpuRequest,
    NetworkMode,
    PackingPolicy,
    ServiceKey,
    ServiceSpec,
    SlotKey,
)
from dray.names import NodeId
from scheduler.placement.cluster import ClusterView, reservation_row
from scheduler.placement.lineage import attribute_reader
from scheduler.placement.node import PortUse, host_ports, kind_of
from scheduler.placement.result import RefusalReason
from scheduler.placement.score import Demand

__all__ = ["MODELS_MAX", "Ask", "TaskGroup", "ask_of", "gpu_demand"]

MODELS_MAX: Final = 62
"""Models of GPUs that the score tells apart; further ones count as the last."""


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """New tasks of one service that are alike: they are placed as one.

    Attributes:
        service: The service.
        spec: What is asked of nodes.
        slots: Slots that need a node, in order.
        replicas_wanted: Tasks that the service has in all when everything is placed.
        pinned_to: The only node that will do (a volume's data is there), or None.
        project_policy: What the service's policy INHERIT stands for; INHERIT here means BINPACK.
        gang: Groups with the same name are placed all or not at all; empty: alone.
    """

    service: ServiceKey
    spec: ServiceSpec
    slots: tuple[SlotKey, ...]
    replicas_wanted: int
    pinned_to: NodeId | None = None
    project_policy: PackingPolicy = PackingPolicy.INHERIT
    gang: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A group's wishes that do not change while it is placed.

    Attributes:
        spec: The service.
        amounts: int64[n_resources], what one task takes.
        floor: int64[n_resources], what a node must have free: nothing asked for is no matter.
        columns: Resources of which it takes some; that of tasks is always among them.
        demand: The same for the choice of devices.
        gpu: GPUs, or None.
        model_ok: bool[n_models], which models will do; None: any.
        policy: BINPACK or SPREAD.
        ports: Ports of the node.
        rules: Near to and away from what.
        refused: What cannot be had on any node.
        fixed: What its conditions on nodes' attributes depend on.
        key: What its order of nodes depends on: the cluster aside, equal keys mean equal orders.
    """

    spec: ServiceSpec
    amounts: NDArray[np.int64]
    floor: NDArray[np.int64]
    columns: tuple[int, ...]
    demand: Demand
    gpu: GpuRequest | None
    model_ok: NDArray[np.bool_] | None
    policy: PackingPolicy
    ports: tuple[PortUse, ...]
    rules: tuple[Affinity, ...]
    refused: tuple[RefusalReason, ...]
    fixed: Hashable
    key: Hashable


def ask_of(view: ClusterView, spec: ServiceSpec, project_policy: PackingPolicy) -> Ask:
    """Return what a service asks for."""
    reservations = spec.task.reservations
    amounts = reservation_row(reservations, view.resources)
    gpu = reservations.gpu
    policy = spec.dray.policy
    if policy is PackingPolicy.INHERIT:
        policy = project_policy
    if policy is PackingPolicy.INHERIT:
        policy = PackingPolicy.BINPACK
    image_platform = spec.task.container.image.platform
    refused = _refused(view, spec)
    fixed = (
        spec.placement.constraints,
        spec.placement.platforms,
        image_platform,
        spec.dray.tolerations,
        refused,
    )
    models = gpu.models if gpu is not None else ()
    return Ask(
        spec,
        amounts,
        np.where(amounts > 0, amounts, np.iinfo(np.int64).min),
        tuple(int(column) for column in np.flatnonzero(amounts)),
        gpu_demand(view.models, gpu, amounts),
        gpu,
        np.array([model in models for model in view.models], dtype=np.bool_) if models else None,
        policy,
        tuple(host_ports(spec)),
        _rules(spec),
        refused,
        fixed,
        (fixed, kind_of(reservations), policy),
    )


def gpu_demand(
    models: tuple[str, ...], gpu: GpuRequest | None, amounts: NDArray[np.int64]
) -> Demand:
    """Return what a task takes as the score counts it.

    Args:
        models: The cluster's models of GPUs.
        gpu: What it asks of them.
        amounts: int64[n], of the resources that the score looks at.
    """
    if gpu is None:
        return Demand(amounts)
    known = {min(code, MODELS_MAX) for code, name in enumerate(models) if name in gpu.models}
    bits = sum(1 << code for code in known) if gpu.models else -1
    return Demand(amounts, gpu.count, gpu.millis_per_gpu, bits)


def _rules(spec: ServiceSpec) -> tuple[Affinity, ...]:
    """Return the service's rules; one that borrows another's network is beside that one."""
    if spec.task.network_mode is not NetworkMode.SERVICE:
        return spec.dray.affinities
    lender = Affinity(AffinityTarget.SERVICE, spec.task.network_mode_target, required=True)
    return (*spec.dray.affinities, lender)


def _refused(view: ClusterView, spec: ServiceSpec) -> tuple[RefusalReason, ...]:
    """Return what the service asks for and no node of this cluster can give.

    Refused everywhere, never ignored.
    """
    reservations = spec.task.reservations
    preferences = spec.placement.spread_over
    generic = {each.kind for each in reservations.generic}
    gpu = reservations.gpu
    asked = {
        RefusalReason.PREFERENCE: any(attribute_reader(key) is None for key in preferences),
        RefusalReason.DEVICE: any(
            each.device_ids or each.count < 0 or "gpu" not in each.capabilities
            for each in reservations.devices
        ),
        RefusalReason.AFFINITY: spec.task.network_mode is NetworkMode.CONTAINER,
        RefusalReason.GPU: gpu is not None and not 1 <= gpu.millis_per_gpu <= GPU_MILLIS_WHOLE,
        RefusalReason.GENERIC: not generic <= set(view.resources),
    }
    return tuple(reason for reason, is_asked in asked.items() if is_asked)
