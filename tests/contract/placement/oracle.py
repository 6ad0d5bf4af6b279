"""Is a placement right? The guarantees of `place`, written a second time: slow, and plain to read.

Nothing here shares code or arithmetic with the product: no columns, no masks, one node at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dray.model import (
    ConstraintOp,
    NetworkMode,
    PlacementConstraint,
    PublishMode,
    ServiceKey,
    ServiceSpec,
    TaintEffect,
)
from dray.names import NodeId
from scheduler.placement import PlacementNode, PlacementResult, RefusalReason, TaskGroup

__all__ = ["check"]


@dataclass(slots=True)
class _Room:
    """One node as it fills up.

    Attributes:
        node: The node.
        free: What is left, by reason of refusal; a resource it is not limited in is absent.
        replicas: Tasks on it, by service.
    """

    node: PlacementNode
    free: dict[RefusalReason, int]
    replicas: Counter[ServiceKey] = field(default_factory=Counter)

    def take(self, service: ServiceKey, asked: dict[RefusalReason, int], count: int = 1) -> None:
        """Give room to tasks of a service."""
        for reason in self.free:
            self.free[reason] -= asked[reason] * count
        self.replicas[service] += count


def check(
    nodes: Sequence[PlacementNode], groups: tuple[TaskGroup, ...], result: PlacementResult
) -> None:
    """Assert that a result keeps every guarantee of `place`, slot by slot."""
    rooms = {node.node_id: _room(node) for node in nodes}
    where = {placed.slot: placed.node_id for placed in result.placed}
    refused = {slot: unplaced for unplaced in result.unplaced for slot in unplaced.slots}
    asked = [slot for group in groups for slot in group.slots]
    answered = [placed.slot for placed in result.placed]
    answered_no = [slot for unplaced in result.unplaced for slot in unplaced.slots]
    assert sorted(answered + answered_no) == sorted(asked), "not exactly one answer for each slot"
    order = {slot: position for position, slot in enumerate(asked)}
    assert answered == sorted(answered, key=order.__getitem__)
    assert answered_no == sorted(answered_no, key=order.__getitem__)
    for group in groups:
        for slot in group.slots:
            if slot in where:
                _check_placed(rooms, group, where[slot])
                continue
            reasons = Counter(_refusal(room, group) for room in rooms.values())
            assert None not in reasons, f"{slot} was refused although a node will do"
            given = {count.reason: count.nodes for count in refused[slot].refusals}
            assert given == dict(reasons), "the reasons do not count every node once"
            counts = [count.nodes for count in refused[slot].refusals]
            assert counts == sorted(counts, reverse=True), "the most frequent reason is not first"
            assert sum(counts) == len(rooms)


def _check_placed(rooms: dict[NodeId, _Room], group: TaskGroup, node_id: NodeId) -> None:
    room = rooms[node_id]
    reason = _refusal(room, group)
    assert reason is None, f"placed on {room.node.name} against: {reason}"
    others_without = [
        other
        for other in rooms.values()
        if other is not room
        and other.replicas[group.service] == 0
        and _refusal(other, group) is None
    ]
    room.take(group.service, _asked(group.spec))
    if group.replicas_wanted >= 2 and others_without:
        held = room.replicas[group.service]
        assert held < group.replicas_wanted, f"{room.node.name} holds all of {group.service}"


def _room(node: PlacementNode) -> _Room:
    capacity = node.capacity
    free = {
        RefusalReason.CPU: capacity.cpu_millis,
        RefusalReason.MEMORY: capacity.memory_bytes,
        RefusalReason.TASKS: capacity.tasks_max,
    }
    if capacity.disk_bytes:
        free[RefusalReason.DISK] = capacity.disk_bytes
    if capacity.pids:
        free[RefusalReason.PIDS] = capacity.pids
    room = _Room(node, free)
    for share in node.running:
        spec = share.reservations
        asked = {
            RefusalReason.CPU: spec.cpu_millis,
            RefusalReason.MEMORY: spec.memory_bytes,
            RefusalReason.DISK: spec.disk_bytes,
            RefusalReason.PIDS: spec.pids,
            RefusalReason.TASKS: 1,
        }
        room.take(share.service, asked, share.count)
    return room


def _asked(spec: ServiceSpec) -> dict[RefusalReason, int]:
    reservations = spec.task.reservations
    return {
        RefusalReason.CPU: reservations.cpu_millis,
        RefusalReason.MEMORY: reservations.memory_bytes,
        RefusalReason.DISK: reservations.disk_bytes,
        RefusalReason.PIDS: reservations.pids,
        RefusalReason.TASKS: 1,
    }


def _refusal(room: _Room, group: TaskGroup) -> RefusalReason | None:
    """Return the first reason, in the order of `RefusalReason`, why a node will not do."""
    found = {*_fixed_refusals(room.node, group), *_unknown(group.spec)}
    per_node_max = group.spec.placement.replicas_per_node_max
    if per_node_max and room.replicas[group.service] >= per_node_max:
        found.add(RefusalReason.REPLICAS_PER_NODE)
    asked = _asked(group.spec)
    found |= {reason for reason, free in room.free.items() if 0 < asked[reason] > free}
    return next((reason for reason in RefusalReason if reason in found), None)


def _fixed_refusals(node: PlacementNode, group: TaskGroup) -> set[RefusalReason]:
    spec = group.spec
    found = set()
    if not node.accepts_new:
        found.add(RefusalReason.NOT_READY)
    if group.pinned_to is not None and group.pinned_to != node.node_id:
        found.add(RefusalReason.PINNED_ELSEWHERE)
    if not all(_holds(node, constraint) for constraint in spec.placement.constraints):
        found.add(RefusalReason.CONSTRAINT)
    names = [node.platform.os, node.platform.architecture, node.platform.variant]
    mine = {"/".join(names[:2]), "/".join(names)}
    image_platform = spec.task.container.image.platform
    for wanted in (set(spec.placement.platforms), {image_platform} - {""}):
        if wanted and not wanted & mine:
            found.add(RefusalReason.PLATFORM)
    for taint in node.taints:
        tolerated = any(
            each.key == taint.key
            and each.value in ("", taint.value)
            and (taint.effect is TaintEffect.NO_SCHEDULE or each.effect is taint.effect)
            for each in spec.dray.tolerations
        )
        if not tolerated:
            found.add(RefusalReason.TAINT)
    return found


def _holds(node: PlacementNode, constraint: PlacementConstraint) -> bool:
    values: dict[str, str | None] = {
        "node.id": node.node_id,
        "node.hostname": node.name,
        "node.name": node.name,
        "node.role": "worker",
        "node.platform.os": node.platform.os,
        "node.platform.arch": node.platform.architecture,
    }
    if constraint.key.startswith("node.labels."):
        value = dict(node.labels).get(constraint.key[len("node.labels.") :])
    elif constraint.key in values:
        value = values[constraint.key]
    else:
        return False
    if constraint.op is ConstraintOp.EQUAL:
        return value == constraint.value
    return value != constraint.value


def _unknown(spec: ServiceSpec) -> set[RefusalReason]:
    """Return what is asked and cannot be counted yet; a later version takes its line out."""
    reservations = spec.task.reservations
    found = set()
    if reservations.gpu or reservations.devices:
        found.add(RefusalReason.GPU)
    if reservations.generic:
        found.add(RefusalReason.GENERIC)
    if spec.dray.affinities:
        found.add(RefusalReason.AFFINITY)
    if spec.task.network_mode in (NetworkMode.SERVICE, NetworkMode.CONTAINER):
        found.add(RefusalReason.AFFINITY)
    if spec.dray.priority or spec.dray.preempt:
        found.add(RefusalReason.PRIORITY)
    if any(port.mode is PublishMode.HOST for port in spec.ports):
        found.add(RefusalReason.PORT)
    if any(key.startswith("engine.") for key in spec.placement.spread_over):
        found.add(RefusalReason.PREFERENCE)
    return found
