"""Which nodes may a service run on at all? One mask a condition, with the reason it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dray.model import (
    ConstraintOp,
    NetworkMode,
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

__all__ = ["Mask", "attribute_reader", "service_masks"]

Mask: TypeAlias = tuple[RefusalReason, NDArray[np.bool_]]
"""A reason, and bool[n_nodes]: True where the condition holds."""

AttributeReader: TypeAlias = Callable[[PlacementNode], str | None]

_LABEL_PREFIX: Final = "node.labels."
_ATTRIBUTES: Final[dict[str, AttributeReader]] = {
    "node.id": lambda node: node.node_id,
    "node.hostname": lambda node: node.name,
    "node.name": lambda node: node.name,
    "node.role": lambda node: "worker",  # control-plane processes are no nodes
    "node.platform.os": lambda node: node.platform.os,
    "node.platform.arch": lambda node: node.platform.architecture,
}
_BORROWED_STACKS: Final = frozenset({NetworkMode.SERVICE, NetworkMode.CONTAINER})


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
    masks += [
        _mask(cluster, RefusalReason.PLATFORM, _platform_test(wanted))
        for wanted in _wanted_platforms(spec)
    ]
    if any(node.taints for node in cluster.nodes):
        tolerations = spec.dray.tolerations
        masks.append(
            _mask(cluster, RefusalReason.TAINT, lambda n: _tolerated(n.taints, tolerations))
        )
    masks += [(reason, np.zeros(len(cluster.nodes), dtype=np.bool_)) for reason in _not_yet(spec)]
    return masks


def attribute_reader(key: str) -> AttributeReader | None:
    """Return what reads `node.hostname`, `node.labels.x` … of a node; None: there is no such key.

    The reader returns None for a node without that label.
    """
    if key.startswith(_LABEL_PREFIX):
        label = key.removeprefix(_LABEL_PREFIX)
        return lambda node: dict(node.labels).get(label)
    return _ATTRIBUTES.get(key)


def _mask(
    cluster: ClusterView, reason: RefusalReason, test: Callable[[PlacementNode], bool]
) -> Mask:
    return reason, np.array([test(node) for node in cluster.nodes], dtype=np.bool_)


def _constraint_test(constraint: PlacementConstraint) -> Callable[[PlacementNode], bool]:
    """Return the test of a constraint; one about an unknown attribute holds nowhere."""
    read = attribute_reader(constraint.key)
    if read is None:
        return lambda node: False
    is_equal_asked = constraint.op is ConstraintOp.EQUAL
    return lambda node: (read(node) == constraint.value) is is_equal_asked


def _wanted_platforms(spec: ServiceSpec) -> list[tuple[str, ...]]:
    """Return lists of platforms; a node must be one of each list."""
    image_platform = spec.task.container.image.platform
    asked = [spec.placement.platforms, (image_platform,) if image_platform else ()]
    return [each for each in asked if each]


def _platform_test(wanted: tuple[str, ...]) -> Callable[[PlacementNode], bool]:
    return lambda node: _platform_fits(node.platform, wanted)


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
    preferences = spec.placement.spread_over
    borrows_stack = spec.task.network_mode in _BORROWED_STACKS
    asked = {
        RefusalReason.PREFERENCE: any(attribute_reader(key) is None for key in preferences),
        RefusalReason.AFFINITY: bool(spec.dray.affinities) or borrows_stack,
        RefusalReason.PRIORITY: spec.dray.priority != 0 or spec.dray.preempt,
        RefusalReason.PORT: any(port.mode is PublishMode.HOST for port in spec.ports),
        RefusalReason.GPU: reservations.gpu is not None or bool(reservations.devices),
        RefusalReason.GENERIC: bool(reservations.generic),
    }
    return [reason for reason, is_asked in asked.items() if is_asked]
