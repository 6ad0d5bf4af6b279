"""Which nodes are refused for a task now, and for which reasons?"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.ask import Ask, TaskGroup
from scheduler.placement.filters import Mask
from scheduler.placement.near import nearness, port_room
from scheduler.placement.node import RESOURCES, TASKS
from scheduler.placement.result import RefusalCount, RefusalReason
from scheduler.placement.room import Room, devices_fit

__all__ = ["conditions", "first_reasons", "resource_reason"]

_ORDER: Final = {reason: position for position, reason in enumerate(RefusalReason)}
_RESOURCE_REASONS: Final = (
    RefusalReason.CPU,
    RefusalReason.MEMORY,
    RefusalReason.DISK,
    RefusalReason.PIDS,
    RefusalReason.TASKS,
)


def resource_reason(column: int) -> RefusalReason:
    """Return the reason that stands for a resource column."""
    return _RESOURCE_REASONS[column] if column < len(RESOURCES) else RefusalReason.GENERIC


def conditions(room: Room, group: TaskGroup, ask: Ask) -> list[Mask]:
    """Return every condition that nodes must meet to take one task of the group as things are."""
    view = room.view
    masks: list[Mask] = [(RefusalReason.NOT_READY, view.accepts_new)]
    if group.pinned_to is not None:
        pinned = np.zeros(len(view.nodes), dtype=np.bool_)
        if group.pinned_to in view.rows:
            pinned[view.rows[group.pinned_to]] = True
        masks.append((RefusalReason.PINNED_ELSEWHERE, pinned))
    masks += room.fixed(ask).masks
    masks += _by_others(room, group, ask)
    free = room.board.free
    masks.append((RefusalReason.TASKS, free[:, TASKS] >= 1))
    masks += [
        (resource_reason(column), free[:, column] >= ask.amounts[column])
        for column in ask.columns
        if column != TASKS
    ]
    if ask.gpu is not None:
        devices = room.board.usable_devices(ask, slice(None))
        enough = devices_fit(devices, ask.gpu.count, ask.gpu.millis_per_gpu)
        masks.append((RefusalReason.GPU, enough))
    return masks


def _by_others(room: Room, group: TaskGroup, ask: Ask) -> list[Mask]:
    """Return the conditions that hang on where tasks are."""
    masks: list[Mask] = []
    n_nodes = len(room.view.nodes)
    own = np.zeros(n_nodes, dtype=np.int64)
    for row, count in room.replicas[group.service].items():
        own[row] = count
    per_node_max = ask.spec.placement.replicas_per_node_max
    if per_node_max:
        masks.append((RefusalReason.REPLICAS_PER_NODE, own < per_node_max))
    near = nearness(room, group, ask)
    if near is not None:
        allowed = near.allowed.copy()
        for cap in near.caps:
            have = np.bincount(cap.codes + 1, own, minlength=2)
            have[0] = 0
            allowed &= have[cap.codes + 1] < cap.most
        masks.append((RefusalReason.AFFINITY, allowed))
    if ask.ports:
        masks.append((RefusalReason.PORT, port_room(room, ask) >= 1))
    return masks


def first_reasons(masks: list[Mask], n_nodes: int) -> tuple[NDArray[np.int64], list[RefusalCount]]:
    """Return the first reason of each node, and how many nodes each reason refused.

    Args:
        masks: The conditions, in any order.
        n_nodes: Nodes.

    Returns:
        int64[n_nodes], positions in `RefusalReason`, -1 where nothing is refused; and the counts,
        most frequent first.
    """
    reasons = np.full(n_nodes, -1, dtype=np.int64)
    for reason, mask in sorted(masks, key=lambda item: _ORDER[item[0]]):
        reasons[(reasons < 0) & ~mask] = _ORDER[reason]
    counts = np.bincount(reasons + 1, minlength=len(_ORDER) + 1)[1:].tolist()
    ranked = sorted(
        ((reason, counts[position]) for reason, position in _ORDER.items() if counts[position]),
        key=lambda item: (-item[1], _ORDER[item[0]]),
    )
    return reasons, [RefusalCount(reason, nodes) for reason, nodes in ranked]
