"""May a service run on a node at all, whatever room there is?

Only what stays the same while tasks are placed: constraints, platforms, taints. Placement checks
the same for new tasks, and counts what it refuses. Here it is asked where a service has a task on
every node, and whether a task may stay when labels, taints or constraints have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dray.model import (
    ConstraintOp,
    NodeInfo,
    NodeRecord,
    PlacementConstraint,
    ServiceSpec,
    Taint,
    TaintEffect,
    Toleration,
)

__all__ = ["suits"]

_LABEL_PREFIX: Final = "node.labels."
_ATTRIBUTES: Final[dict[str, Callable[[NodeRecord, NodeInfo], str]]] = {
    "node.id": lambda record, _: record.node_id,
    "node.hostname": lambda record, _: record.name,
    "node.name": lambda record, _: record.name,
    "node.role": lambda _, __: "worker",
    "node.platform.os": lambda _, info: info.platform.os,
    "node.platform.arch": lambda _, info: info.platform.architecture,
}


def suits(spec: ServiceSpec, record: NodeRecord, info: NodeInfo, *, has_task: bool = False) -> bool:
    """Return whether a service may run on a node.

    Args:
        spec: The service.
        record: The node's entry in the registry.
        info: What the node said of itself.
        has_task: It runs there already: only a taint NO_EXECUTE keeps it from staying.
    """
    if not (spec.placement.constraints or record.taints or _platforms(spec)):
        return True  # nearly all services, on nearly all nodes
    taints = [
        each for each in record.taints if not has_task or each.effect is TaintEffect.NO_EXECUTE
    ]
    return (
        all(_holds(each, record, info) for each in spec.placement.constraints)
        and all(_is_one_of(info, wanted) for wanted in _platforms(spec))
        and all(_is_borne(taint, spec.dray.tolerations) for taint in taints)
    )


def _holds(constraint: PlacementConstraint, record: NodeRecord, info: NodeInfo) -> bool:
    if constraint.key.startswith(_LABEL_PREFIX):
        value = dict(record.labels).get(constraint.key.removeprefix(_LABEL_PREFIX))
    else:
        read = _ATTRIBUTES.get(constraint.key)
        if read is None:
            return False
        value = read(record, info)
    return (value == constraint.value) is (constraint.op is ConstraintOp.EQUAL)


def _platforms(spec: ServiceSpec) -> list[tuple[str, ...]]:
    own = spec.task.container.image.platform
    return [each for each in (spec.placement.platforms, (own,) if own else ()) if each]


def _is_one_of(info: NodeInfo, wanted: tuple[str, ...]) -> bool:
    platform = info.platform
    name = f"{platform.os}/{platform.architecture}"
    return name in wanted or f"{name}/{platform.variant}" in wanted


def _is_borne(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    return any(
        each.key == taint.key
        and each.value in ("", taint.value)
        and (taint.effect is TaintEffect.NO_SCHEDULE or each.effect is taint.effect)
        for each in tolerations
    )
