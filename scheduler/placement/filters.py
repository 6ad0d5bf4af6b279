"""Which nodes may a service run on at all? One mask a condition.

Each with the reason it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dray.model import (
    ConstraintOp,
    PlacementConstraint,
    Platform,
    PublishMode,
    ServiceSpec,
    Taint,
    TaintEffect,
    Toleration,
)
from dray.names import NodeId
from scheduler.placement.cluster import ClusterView, PlacementNode
from scheduler.placement.result import RefusalReason

__all__ = ["Mask", "service_masks"]

Mask: TypeAlias = tuple[RefusalReason, NDArray[np.bool_]]
"""A reason, and bool[n_nodes]: True where the condition holds."""


def service_masks(cluster: ClusterView, spec: ServiceSpec, pinned_to: NodeId | None) -> list[Mask]:
    """Return the conditions that do not change while the service's tasks are placed."""
    masks: list[Mask] = [(RefusalReason.NOT_READY, cluster.accepts_new)]
    if pinned_to is not None:
        masks.append(
            _mask(cluster, RefusalReason.PINNED_ELSEWHERE, lambda n: n.node_id == pinned_to)
        )
    masks += [
        _mask(cluster, RefusalReason.CONSTRAINT, _constraint_test(constraint))
        for constraint in spec.placement.constraints
    ]
    if wanted := _wanted_platforms(spec):
        masks.append(
            _mask(cluster, RefusalReason.PLATFORM, lambda n: _platform_fits(n.platform, wanted))
        )
    if any(node.taints for node in cluster.nodes):
        tolerations = spec.dray.tolerations
        masks.append(
            _mask(cluster, RefusalReason.TAINT, lambda n: _tolerated(n.taints, tolerations))
        )
    masks += [(reason, np.zeros(len(cluster.nodes), dtype=np.bool_)) for reason in _not_yet(spec)]
    return masks


def _mask(
    cluster: ClusterView, reason: RefusalReason, test: Callable[[PlacementNode], bool]
) -> Mask:
    return reason, np.array([test(node) for node in cluster.nodes], dtype=np.bool_)


def _constraint_test(constraint: PlacementConstraint) -> Callable[[PlacementNode], bool]:
    equal = constraint.op is ConstraintOp.EQUAL
    return lambda node: (_attribute(node, constraint.key) == constraint.value) is equal


def _attribute(node: PlacementNode, key: str) -> str | None:
    """Return the value of `node.id`, `node.hostname`, `node.labels.x` ….

    None when the node has none.
    """
    match key.split(".", 2):
        case ["node", "id"]:
            return node.node_id
        case ["node", "hostname" | "name"]:
            return node.name
        case ["node", "role"]:
            return "worker"
        case ["node", "platform", "os"]:
            return node.platform.os
        case ["node", "platform", "arch"]:
            return node.platform.architecture
        case ["node", "labels", label]:
            return dict(node.labels).get(label)
        case _:
            return None


def _wanted_platforms(spec: ServiceSpec) -> tuple[str, ...]:
    image_platform = spec.task.container.image.platform
    return (
        (*spec.placement.platforms, image_platform) if image_platform else spec.placement.platforms
    )


def _platform_fits(platform: Platform, wanted: tuple[str, ...]) -> bool:
    names = {
        f"{platform.os}/{platform.architecture}",
        f"{platform.os}/{platform.architecture}/{platform.variant}",
    }
    return any(name in names for name in wanted)


def _tolerated(taints: tuple[Taint, ...], tolerations: tuple[Toleration, ...]) -> bool:
    return all(any(_tolerates(each, taint) for each in tolerations) for taint in taints)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    covers = taint.effect is TaintEffect.NO_SCHEDULE or toleration.effect is taint.effect
    return covers and toleration.key == taint.key and toleration.value in ("", taint.value)


def _not_yet(spec: ServiceSpec) -> list[RefusalReason]:
    """Return what the service asks for and this version cannot count.

    Refused everywhere, never ignored.
    """
    reservations = spec.task.reservations
    asked = {
        RefusalReason.GPU: reservations.gpu is not None or bool(reservations.devices),
        RefusalReason.GENERIC: bool(reservations.generic),
        RefusalReason.AFFINITY: any(each.required for each in spec.dray.affinities),
        RefusalReason.PORT: any(port.mode is PublishMode.HOST for port in spec.ports),
    }
    return [reason for reason, is_asked in asked.items() if is_asked]
