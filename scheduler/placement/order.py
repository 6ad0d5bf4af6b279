"""In which order do the groups of a round have their turns?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dray.model import AffinityTarget, NetworkMode, ServiceKey
from scheduler.placement.ask import TaskGroup
from scheduler.placement.cluster import UNLIMITED, ClusterView, reservation_row
from scheduler.placement.node import TASKS

__all__ = ["turns_of"]

DEPTH_MAX: Final = 16
"""Links of a chain of services near to one another that are followed."""

_Key: TypeAlias = tuple[int, int, float]


def turns_of(view: ClusterView, groups: Sequence[TaskGroup]) -> list[int]:
    """Return the positions of the groups in the order of their turns.

    Higher priority first; then what stands alone before what must be near it; then what takes the
    largest part of an average node; then as they were given. A gang's groups come together, where
    the first of them comes.
    """
    if len(groups) <= 1:
        return list(range(len(groups)))
    depths = _depths(groups)
    average = _average(view)
    keys: list[_Key] = [
        (-group.spec.dray.priority, depths.get(group.service, 0), -_size(view, group, average))
        for group in groups
    ]
    first: dict[str, tuple[_Key, int]] = {}
    for index, group in enumerate(groups):
        if group.gang:
            first[group.gang] = min(
                first.get(group.gang, (keys[index], index)), (keys[index], index)
            )
    return sorted(
        range(len(groups)),
        key=lambda index: (first.get(groups[index].gang, (keys[index], index)), keys[index], index),
    )


def _depths(groups: Sequence[TaskGroup]) -> dict[ServiceKey, int]:
    """Return how long the chain of services is that each must be near to; a ring is cut."""
    wanted = {group.service: _lenders(group) for group in groups}
    chained = {service: each & wanted.keys() - {service} for service, each in wanted.items()}
    depths = dict.fromkeys((service for service, each in chained.items() if each), 1)
    for _ in range(DEPTH_MAX):
        deeper = {
            service: 1 + max(depths.get(other, 0) for other in chained[service])
            for service in depths
        }
        if deeper == depths:
            break
        depths = deeper
    return depths


def _lenders(group: TaskGroup) -> set[ServiceKey]:
    """Return the services that the group must be near to, as far as it names them."""
    spec = group.spec
    names = [
        rule.key
        for rule in spec.dray.affinities
        if rule.required and not rule.anti and rule.target is AffinityTarget.SERVICE
    ]
    if spec.task.network_mode is NetworkMode.SERVICE:
        names.append(spec.task.network_mode_target)
    project = group.service.project
    return {
        ServiceKey(*name.split("/", 1)) if "/" in name else ServiceKey(project, name)
        for name in names
    }


def _average(view: ClusterView) -> NDArray[np.float64]:
    """Return what an average node has, float64[n_resources]; infinite where it is not limited."""
    if not len(view.nodes):
        return np.ones(len(view.resources))
    kept = view.attributes.masks.get("average")
    if kept is not None and kept[0] is view.capacity:
        known: NDArray[np.float64] = kept[1]
        return known
    limited = np.where(view.capacity == UNLIMITED, np.inf, view.capacity.astype(np.float64))
    average: NDArray[np.float64] = limited.mean(axis=0)
    average[average <= 0] = np.inf
    average[TASKS] = np.inf
    view.attributes.keep("average", (view.capacity, average))
    return average


def _size(view: ClusterView, group: TaskGroup, average: NDArray[np.float64]) -> float:
    """Return the largest part of an average node that a task takes; GPUs come before all."""
    reservations = group.spec.task.reservations
    share = float((reservation_row(reservations, view.resources) / average).max())
    gpu = reservations.gpu
    return share if gpu is None else share + gpu.count * gpu.millis_per_gpu
