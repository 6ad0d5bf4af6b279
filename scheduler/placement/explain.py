"""Why is there no node, which one comes closest, and what is the smallest change that would help?

The words are those of the Compose file, so that people find what to change in it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dray.model import GPU_MILLIS_WHOLE, ConstraintOp, PlacementConstraint, SlotKey
from dray.units import format_bytes, format_cpus
from scheduler.placement.ask import Ask, TaskGroup
from scheduler.placement.conditions import first_reasons, resource_reason
from scheduler.placement.filters import Mask
from scheduler.placement.lineage import LABEL_PREFIX
from scheduler.placement.node import RESOURCES, TASKS, PlacementNode
from scheduler.placement.result import Nearest, RefusalReason, Shortage, Unplaced
from scheduler.placement.room import Room

__all__ = ["explain"]

_AMOUNTS: Final = frozenset(
    {
        RefusalReason.CPU,
        RefusalReason.MEMORY,
        RefusalReason.DISK,
        RefusalReason.PIDS,
        RefusalReason.GPU,
        RefusalReason.GENERIC,
    }
)
_MIB: Final = 1024**2
_VALUES_MAX: Final = 5  # of a label, in a sentence
_MORE: Final = "only a node that has more"
_RESERVED: Final = "deploy.resources.reservations"


def explain(
    room: Room, group: TaskGroup, masks: list[Mask], slots: tuple[SlotKey, ...]
) -> Unplaced:
    """Return the refusal of these slots.

    Args:
        room: The cluster as it is at the group's turn.
        group: The group.
        masks: Every condition; no node meets all of them.
        slots: The slots without a node.
    """
    nodes = room.view.nodes
    reasons, counts = first_reasons(masks, len(nodes))
    if not nodes:
        return Unplaced(slots, (), None, "the cluster has no nodes: add one with dray node run")
    told = ", ".join(f"{count.reason.value} ({count.nodes})" for count in counts)
    of_nodes = "the only node" if len(nodes) == 1 else f"all {len(nodes)} nodes"
    nearest = _nearest(room, room.ask(group), masks, reasons)
    change = _change(room, group, nearest)
    advice = f"{group.service.service} was refused by {of_nodes}: {told}. {nearest.name} {change}"
    return Unplaced(slots, tuple(counts), nearest, advice)


def _nearest(room: Room, ask: Ask, masks: list[Mask], reasons: NDArray[np.int64]) -> Nearest:
    """Return the node that fails the fewest conditions, then lacks the least."""
    n_nodes = len(room.view.nodes)
    failed = np.zeros(n_nodes, dtype=np.int64)
    for reason, mask in masks:
        if reason not in _AMOUNTS and reason is not RefusalReason.GANG:
            failed += ~mask
    lacking = _lacking(room, ask)
    row = int(np.lexsort((lacking, failed))[0])
    shortages = _shortages(room, ask, row)
    first = list(RefusalReason)[int(reasons[row])] if failed[row] else None
    node = room.view.nodes[row]
    return Nearest(node.node_id, node.name, first, shortages)


def _lacking(room: Room, ask: Ask) -> NDArray[np.float64]:
    """Return the sum of the parts of what is asked for that each node lacks: float64[n_nodes]."""
    free = room.board.free
    lacking = np.zeros(len(free))
    for column in ask.columns:
        amount = float(ask.amounts[column])
        lacking += np.maximum(1 - np.maximum(free[:, column].astype(np.float64), 0) / amount, 0)
    if ask.gpu is not None:
        asked = ask.gpu.count * ask.gpu.millis_per_gpu
        usable = _usable_millis(room, ask)
        lacking += np.maximum(1 - usable / asked, 0)
    return lacking


def _usable_millis(room: Room, ask: Ask) -> NDArray[np.int64]:
    """Return what of a node's GPUs comes nearest to what is asked for: int64[n_nodes]."""
    assert ask.gpu is not None
    devices = np.maximum(room.board.usable_devices(ask, slice(None)), 0)
    if ask.gpu.millis_per_gpu == GPU_MILLIS_WHOLE:
        whole: NDArray[np.int64] = (devices == GPU_MILLIS_WHOLE).sum(axis=1) * GPU_MILLIS_WHOLE
        return whole
    most: NDArray[np.int64] = devices.max(axis=1, initial=0)
    return most


def _shortages(room: Room, ask: Ask, row: int) -> tuple[Shortage, ...]:
    view = room.view
    free = room.board.free[row]
    found = [
        Shortage(
            resource_reason(column),
            int(ask.amounts[column]),
            max(int(free[column]), 0),
            view.resources[column] if column >= len(RESOURCES) else "",
        )
        for column in ask.columns
        if column != TASKS and free[column] < ask.amounts[column]
    ]
    known = set(view.resources[len(RESOURCES) :])
    found += [
        Shortage(RefusalReason.GENERIC, each.quantity, 0, each.kind)
        for each in ask.spec.task.reservations.generic
        if each.kind not in known
    ]
    if ask.gpu is not None:
        asked = ask.gpu.count * ask.gpu.millis_per_gpu
        usable = int(_usable_millis(room, ask)[row])
        if usable < asked:
            found.append(Shortage(RefusalReason.GPU, asked, usable))
    return tuple(found)


def _change(room: Room, group: TaskGroup, nearest: Nearest) -> str:
    """Return what stands between the nearest node and the task, and what would change that."""
    node = room.view.nodes[room.view.rows[nearest.node_id]]
    if nearest.reason is None and nearest.shortages:
        lacks = [_shortage(each) for each in nearest.shortages]
        changes = [change for each in nearest.shortages if (change := _less(each))]
        told = f"comes closest: it has {' and '.join(lacks)}"
        is_all = len(changes) == len(nearest.shortages)
        return f"{told}; {' and '.join(changes) if is_all else _MORE} would fit"
    if nearest.reason is None:
        return "would do, but the project is placed whole or not at all (x-dray.gang)"
    return f"comes closest: {_condition(room, group, node, nearest.reason)}"


def _shortage(shortage: Shortage) -> str:
    """Return what the node has and what the service asks for."""
    match shortage.reason:
        case RefusalReason.CPU:
            free, asked = format_cpus(shortage.free), format_cpus(shortage.asked)
            return f"{free} of {asked} CPUs free"
        case RefusalReason.MEMORY | RefusalReason.DISK:
            free, asked = _bytes(shortage.free), format_bytes(shortage.asked)
            return f"{free} of {asked} {shortage.reason.value} free"
        case RefusalReason.GPU:
            asked = format_cpus(shortage.asked)
            return f"{format_cpus(shortage.free)} of {asked} GPUs free for it"
        case _:
            name = shortage.kind or shortage.reason.value
            return f"{shortage.free} of {shortage.asked} {name} free"


def _less(shortage: Shortage) -> str:
    """Return the line of the Compose file that would fit; empty: none would."""
    if not shortage.free:
        return ""
    match shortage.reason:
        case RefusalReason.CPU:
            return f'{_RESERVED}.cpus: "{format_cpus(shortage.free)}"'
        case RefusalReason.MEMORY:
            return f"{_RESERVED}.memory: {_bytes(shortage.free)}"
        case RefusalReason.DISK:
            return f"x-dray.disk: {_bytes(shortage.free)}"
        case RefusalReason.PIDS:
            return f"deploy.resources.limits.pids: {shortage.free}"
        case RefusalReason.GPU:
            if shortage.asked < GPU_MILLIS_WHOLE:
                return f"x-dray.gpu.fraction: {format_cpus(shortage.free)}"
            return f"x-dray.gpu.count: {shortage.free // GPU_MILLIS_WHOLE}"
        case _:
            return f"{_RESERVED}.generic_resources: {shortage.kind} {shortage.free}"


def _bytes(size_bytes: int) -> str:
    """Return a size in whole MiB, rounded down, where that is something."""
    return format_bytes(size_bytes // _MIB * _MIB if size_bytes >= _MIB else size_bytes)


def _condition(room: Room, group: TaskGroup, node: PlacementNode, reason: RefusalReason) -> str:
    """Return what the node fails, and what would change it."""
    spec = group.spec
    match reason:
        case RefusalReason.CONSTRAINT:
            return _constraints(room, group, node)
        case RefusalReason.TAINT:
            taints = ", ".join(f"{t.key}={t.value}" if t.value else t.key for t in node.taints)
            return f"it is tainted; x-dray.tolerations: [{taints}] would bear that"
        case RefusalReason.PLATFORM:
            platform = f"{node.platform.os}/{node.platform.architecture}"
            return f"it is {platform}; an image for it, and platform: {platform}, would run there"
        case RefusalReason.REPLICAS_PER_NODE:
            most = spec.placement.replicas_per_node_max
            have = room.replicas[group.service].get(room.view.rows[node.node_id], most)
            told = f"it runs {have}; deploy.placement.max_replicas_per_node: {have + 1}"
            return f"{told} would fit"
        case RefusalReason.PINNED_ELSEWHERE:
            return "it has no copy of the volume's data; x-dray.volume_loss: accept gives it up"
        case RefusalReason.AFFINITY:
            return "x-dray.affinity, x-dray.anti_affinity or network_mode keeps the service off it"
        case RefusalReason.PORT:
            ports = ", ".join(str(use.first) for use in room.ask(group).ports)
            return f"a port of it is taken (ports in mode: host: {ports}); mode: ingress shares it"
        case RefusalReason.TASKS:
            return "its subnet has no address left; add a node"
        case RefusalReason.NOT_READY:
            return "it takes no new tasks: it is not ready, paused or draining"
        case RefusalReason.PREFERENCE:
            return "a spread in deploy.placement.preferences names what nodes do not have"
        case RefusalReason.DEVICE:
            return f"{_RESERVED}.devices names devices that only count and capabilities: [gpu] can"
        case _:
            return f"{reason.value} keeps the service off it"


def _constraints(room: Room, group: TaskGroup, node: PlacementNode) -> str:
    """Return the constraints that the node fails, which values there are, and what would hold."""
    told = []
    row = room.view.rows[node.node_id]
    for constraint in group.spec.placement.constraints:
        found = room.view.attributes.codes(constraint.key)
        sign = "==" if constraint.op is ConstraintOp.EQUAL else "!="
        text = f"{constraint.key} {sign} {constraint.value}"
        if found is None:
            told.append(f"{text} names what nodes do not have")
            continue
        codes, numbers = found
        is_equal = int(codes[row]) == numbers.get(constraint.value, -1)
        if is_equal is (constraint.op is ConstraintOp.EQUAL):
            continue
        values = sorted(value for value in numbers if value is not None)
        names = ", ".join(values[:_VALUES_MAX]) + (" …" if len(values) > _VALUES_MAX else "")
        own = next((value for value, code in numbers.items() if code == codes[row]), None)
        change = _holding(node, constraint, own)
        told.append(f"{text} does not hold (nodes have {names or 'no such label'}); {change}")
    return f"of deploy.placement.constraints, {' and '.join(told)}"


def _holding(node: PlacementNode, constraint: PlacementConstraint, own: str | None) -> str:
    """Return the smallest change with which a constraint would hold on the node.

    Args:
        node: The node.
        constraint: What it fails.
        own: The node's value; None: it has no such label.
    """
    if constraint.op is ConstraintOp.NOT_EQUAL:
        return "without it the service would fit"
    if own is not None:
        return f"{constraint.key} == {own} would"
    label = constraint.key.removeprefix(LABEL_PREFIX)
    return f"dray node label {node.name} {label}={constraint.value} would make it hold"
