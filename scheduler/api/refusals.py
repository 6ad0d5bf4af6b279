"""What does each node lack for a task? The whole list that `dray explain` shows, with numbers."""

from __future__ import annotations

from typing import Final

from dray.units import format_bytes, format_cpus
from dray.views import NodeRefusal
from scheduler.placement import ClusterView, RefusalReason, TaskGroup
from scheduler.placement.ask import Ask
from scheduler.placement.conditions import conditions, resource_reason
from scheduler.placement.node import RESOURCES, TASKS
from scheduler.placement.room import Room

__all__ = ["NODES_MAX", "node_refusals"]

NODES_MAX: Final = 100
MIB: Final = 1024**2
_BYTES: Final = frozenset({RefusalReason.MEMORY, RefusalReason.DISK})


def node_refusals(view: ClusterView, group: TaskGroup) -> tuple[NodeRefusal, ...]:
    """Return everything that stands against each node, the one with the least first."""
    room = Room(view, [group])
    ask = room.ask(group)
    masks = conditions(room, group, ask)
    found = []
    for row, node in enumerate(view.nodes):
        reasons = [reason for reason, mask in masks if not mask[row]]
        if reasons:
            texts = tuple(dict.fromkeys(_text(room, ask, row, reason) for reason in reasons))
            found.append(NodeRefusal(node.name, texts))
    found.sort(key=lambda refusal: (len(refusal.reasons), refusal.node))
    return tuple(found[:NODES_MAX])


def _text(room: Room, ask: Ask, row: int, reason: RefusalReason) -> str:
    """Return why a node was refused: "memory: asks 2GiB, free 1.2GiB of 8GiB"."""
    for column in ask.columns:
        if column == TASKS or column >= len(RESOURCES) or resource_reason(column) is not reason:
            continue
        asked = int(ask.amounts[column])
        free = max(int(room.board.free[row, column]), 0)
        whole = int(room.view.capacity[row, column])
        told = [_amount(each, reason) for each in (asked, free, whole)]
        return f"{reason.value}: asks {told[0]}, free {told[1]} of {told[2]}"
    return reason.value


def _amount(value: int, reason: RefusalReason) -> str:
    if reason in _BYTES:
        return format_bytes(value // MIB * MIB if value >= MIB else value)
    return format_cpus(value) if reason is RefusalReason.CPU else str(value)
