"""Is a placement right? The guarantees of `place`, written a second time: slow, and plain to read.

Nothing here shares code or arithmetic with the product: no columns, no masks, one node at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dray.model import (
    Affinity,
    AffinityTarget,
    ConstraintOp,
    NetworkMode,
    PlacementConstraint,
    PublishMode,
    ResourceReservations,
    ServiceKey,
    ServiceSpec,
    SlotKey,
    TaintEffect,
)
from dray.names import NodeId
from scheduler.placement import PlacementNode, PlacementResult, RefusalReason, TaskGroup, Unplaced

__all__ = ["check"]

_WHOLE = 1000


@dataclass(slots=True)
class _Room:
    """One node as it fills up.

    Attributes:
        node: The node.
        free: What is left, by reason of refusal; a resource it is not limited in is absent.
        generic: What is left of generic resources, by kind.
        devices: Thousandths left of each GPU, by id.
        replicas: Tasks on it, by service.
        ports: Ports of it that are taken: protocol, first, last, address.
    """

    node: PlacementNode
    free: dict[RefusalReason, int]
    generic: Counter[str] = field(default_factory=Counter)
    devices: dict[str, int] = field(default_factory=dict)
    replicas: Counter[ServiceKey] = field(default_factory=Counter)
    ports: list[tuple[object, int, int, str]] = field(default_factory=list)

    def take(
        self, service: ServiceKey, reservations: ResourceReservations, gpu_ids: tuple[str, ...]
    ) -> None:
        """Give room to one task."""
        asked = _asked(reservations)
        for reason in self.free:
            self.free[reason] -= asked[reason]
        for each in reservations.generic:
            self.generic[each.kind] -= each.quantity
        for gpu_id in gpu_ids:
            assert reservations.gpu is not None
            self.devices[gpu_id] -= reservations.gpu.millis_per_gpu
        self.replicas[service] += 1


@dataclass(slots=True)
class _World:
    """The nodes as they fill up, and what is known of services, wherever they run."""

    rooms: dict[NodeId, _Room]
    specs: dict[ServiceKey, ServiceSpec] = field(default_factory=dict)
    repellers: dict[ServiceKey, ServiceSpec] = field(default_factory=dict)


def check(
    nodes: Sequence[PlacementNode], groups: tuple[TaskGroup, ...], result: PlacementResult
) -> None:
    """Assert that a result keeps every guarantee of `place`, slot by slot."""
    world = _world(sorted(nodes, key=lambda each: each.node_id))
    where = {placed.slot: placed for placed in result.placed}
    refused = {slot: unplaced for unplaced in result.unplaced for slot in unplaced.slots}
    _check_answers(groups, result)
    assert sorted(result.turns) == list(range(len(groups))), "a turn is missing or there twice"
    alone = [groups[turn].spec.dray.priority for turn in result.turns if not groups[turn].gang]
    assert alone == sorted(alone, reverse=True), "a lower priority came first"
    _check_evictions(world, groups, result)
    given_up = {
        group.gang for group in groups if group.gang and any(s in refused for s in group.slots)
    }
    for turn in result.turns:
        group = groups[turn]
        is_given_up = group.gang in given_up
        for slot in group.slots:
            if slot in where:
                assert not is_given_up, f"{slot} was placed although its gang was not"
                _check_placed(world, group, where[slot].node_id, where[slot].gpu_ids)
            else:
                _check_refused(world, group, slot, refused[slot], is_given_up)


def _check_evictions(world: _World, groups: tuple[TaskGroup, ...], result: PlacementResult) -> None:
    """Nobody ends for an equal, of another project, or beyond what runs."""
    asking = {slot: group.spec.dray for group in groups for slot in group.slots}
    waiting = {slot for unplaced in result.unplaced for slot in unplaced.slots}
    ended: Counter[tuple[NodeId, ServiceKey]] = Counter()
    for each in result.evictions:
        assert each.slot in waiting
        assert asking[each.slot].preempt
        assert each.service.project == each.slot.project
        ended[each.node_id, each.service] += each.count
        shares = [
            share
            for share in world.rooms[each.node_id].node.running
            if share.service == each.service and share.spec is not None
        ]
        lower = [s for s in shares if s.spec and s.spec.dray.priority < asking[each.slot].priority]
        assert ended[each.node_id, each.service] <= sum(share.count for share in lower)


def _check_answers(groups: tuple[TaskGroup, ...], result: PlacementResult) -> None:
    asked = [slot for group in groups for slot in group.slots]
    answered = [placed.slot for placed in result.placed]
    answered_no = [slot for unplaced in result.unplaced for slot in unplaced.slots]
    assert sorted(answered + answered_no) == sorted(asked), "not exactly one answer for each slot"
    order = {slot: position for position, slot in enumerate(asked)}
    assert answered == sorted(answered, key=order.__getitem__)
    assert answered_no == sorted(answered_no, key=order.__getitem__)


def _check_refused(
    world: _World,
    group: TaskGroup,
    slot: SlotKey,
    unplaced: Unplaced,
    is_given_up: bool,
) -> None:
    counts = [count.nodes for count in unplaced.refusals]
    assert counts == sorted(counts, reverse=True), "the most frequent reason is not first"
    assert sum(counts) == len(world.rooms), "the reasons do not count every node once"
    assert unplaced.advice, "there is no word of advice"
    assert (unplaced.nearest is None) == (not world.rooms)
    if unplaced.nearest is not None:
        assert unplaced.nearest.node_id in world.rooms
    if is_given_up:
        return  # what it met before it was taken back is not known here
    reasons = Counter(_refusal(world, room, group) for room in world.rooms.values())
    assert None not in reasons, f"{slot} was refused although a node will do"
    given = {count.reason: count.nodes for count in unplaced.refusals}
    assert given == dict(reasons), "the reasons are not the right ones"


def _check_placed(
    world: _World, group: TaskGroup, node_id: NodeId, gpu_ids: tuple[str, ...]
) -> None:
    rooms = world.rooms
    room = rooms[node_id]
    reason = _refusal(world, room, group)
    assert reason is None, f"placed on {room.node.name} against: {reason}"
    others = [each for each in rooms.values() if _refusal(world, each, group) is None]
    mine = _crowding(rooms, room, group)
    least = min(_crowding(rooms, each, group) for each in others)
    assert mine == least, f"{room.node.name} is crowded by {mine}, another one by {least}"
    if not any(rule.anti for rule in group.spec.dray.affinities):
        rivals = [each for each in others if _crowding(rooms, each, group) == least]
        counts = _branch_counts(rooms, room, group)
        assert counts == min(_branch_counts(rooms, each, group) for each in rivals), "not even"
    _check_devices(room, group, gpu_ids)
    room.take(group.service, group.spec.task.reservations, gpu_ids)
    room.ports += _ports(group.spec)
    world.specs[group.service] = group.spec
    if _repels(group.spec):
        world.repellers[group.service] = group.spec


def _check_devices(room: _Room, group: TaskGroup, gpu_ids: tuple[str, ...]) -> None:
    gpu = group.spec.task.reservations.gpu
    if gpu is None:
        assert not gpu_ids
        return
    assert len(set(gpu_ids)) == len(gpu_ids) == gpu.count
    models = {each.id: each.model for each in room.node.capacity.gpus}
    for gpu_id in gpu_ids:
        assert room.devices[gpu_id] >= gpu.millis_per_gpu, "a device is over-committed"
        assert not gpu.models or models[gpu_id] in gpu.models


def _crowding(rooms: dict[NodeId, _Room], room: _Room, group: TaskGroup) -> tuple[int, int]:
    """Return by how many replicas a node, and a zone, would exceed half of them."""
    wanted = group.replicas_wanted
    if wanted < 2:
        return (0, 0)
    half = -(-wanted // 2)
    zones = {_label(each.node, "zone") for each in rooms.values()}
    own = room.replicas[group.service]
    zone = _label(room.node, "zone")
    beside = sum(
        each.replicas[group.service] for each in rooms.values() if _label(each.node, "zone") == zone
    )
    return (max(own + 1 - half, 0), max(beside + 1 - half, 0) if len(zones) > 1 else 0)


def _branch_counts(rooms: dict[NodeId, _Room], room: _Room, group: TaskGroup) -> list[int]:
    """Return the replicas in the branch of each attribute to spread over."""
    counts = []
    path: list[str] = []
    for key in group.spec.placement.spread_over:
        path.append(key)
        mine = [_attribute(room.node, each) for each in path]
        counts.append(
            sum(
                other.replicas[group.service]
                for other in rooms.values()
                if [_attribute(other.node, each) for each in path] == mine
            )
        )
    return counts


def _world(nodes: Sequence[PlacementNode]) -> _World:
    """Return the nodes, in order; of several specifications of a service the last one counts."""
    world = _World({node.node_id: _room(node) for node in nodes})
    for share in (share for node in nodes for share in node.running if share.spec is not None):
        assert share.spec is not None
        world.specs[share.service] = share.spec
    world.repellers = {key: spec for key, spec in world.specs.items() if _repels(spec)}
    return world


def _repels(spec: ServiceSpec) -> bool:
    return any(rule.anti and rule.required for rule in spec.dray.affinities)


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
    room.generic.update({each.kind: each.quantity for each in capacity.generic})
    room.devices = {gpu.id: _WHOLE for gpu in capacity.gpus}
    for share in node.running:
        for number in range(share.count):
            gpu_ids = share.gpu_ids[number] if share.gpu_ids else ()
            room.take(share.service, share.reservations, gpu_ids)
            if share.spec is not None:
                room.ports += _ports(share.spec)
    return room


def _asked(reservations: ResourceReservations) -> dict[RefusalReason, int]:
    return {
        RefusalReason.CPU: reservations.cpu_millis,
        RefusalReason.MEMORY: reservations.memory_bytes,
        RefusalReason.DISK: reservations.disk_bytes,
        RefusalReason.PIDS: reservations.pids,
        RefusalReason.TASKS: 1,
    }


def _refusal(world: _World, room: _Room, group: TaskGroup) -> RefusalReason | None:
    """Return the first reason, in the order of `RefusalReason`, why a node will not do."""
    spec = group.spec
    found = {*_fixed_refusals(room.node, group), *_unknown(spec)}
    per_node_max = spec.placement.replicas_per_node_max
    if per_node_max and room.replicas[group.service] >= per_node_max:
        found.add(RefusalReason.REPLICAS_PER_NODE)
    asked = _asked(spec.task.reservations)
    found |= {reason for reason, free in room.free.items() if 0 < asked[reason] > free}
    for each in spec.task.reservations.generic:
        if room.generic[each.kind] < each.quantity:
            found.add(RefusalReason.GENERIC)
    if not _devices_do(room, group):
        found.add(RefusalReason.GPU)
    if not _near_enough(world, room, group):
        found.add(RefusalReason.AFFINITY)
    if not all(_port_is_free(room, port) for port in _ports(spec)):
        found.add(RefusalReason.PORT)
    return next((reason for reason in RefusalReason if reason in found), None)


def _devices_do(room: _Room, group: TaskGroup) -> bool:
    gpu = group.spec.task.reservations.gpu
    if gpu is None:
        return True
    usable = [
        each
        for each in room.node.capacity.gpus
        if room.devices[each.id] >= gpu.millis_per_gpu
        and (not gpu.models or each.model in gpu.models)
    ]
    return len(usable) >= gpu.count


def _ports(spec: ServiceSpec) -> list[tuple[object, int, int, str]]:
    """Return what a task takes of its node's ports."""
    return [
        (port.protocol, port.published, port.published_end or port.published, port.host_ip)
        for port in spec.ports
        if port.mode is PublishMode.HOST and port.published
    ]


def _port_is_free(room: _Room, port: tuple[object, int, int, str]) -> bool:
    protocol, first, last, address = port
    taken = 0
    for other_protocol, other_first, other_last, other_address in room.ports:
        is_apart = other_protocol is not protocol or other_last < first or last < other_first
        is_elsewhere = bool(address and other_address and address != other_address)
        taken += not is_apart and not is_elsewhere
    return taken < last - first + 1


def _near_enough(world: _World, room: _Room, group: TaskGroup) -> bool:
    """Return whether required affinities hold: the group's own, and those about it."""
    rules = [rule for rule in group.spec.dray.affinities if rule.required]
    if group.spec.task.network_mode is NetworkMode.SERVICE:
        lender = group.spec.task.network_mode_target
        rules.append(Affinity(AffinityTarget.SERVICE, lender, required=True))
    for rule in rules:
        if rule.target is AffinityTarget.NODE_LABEL:
            is_near = _label(room.node, rule.key) == rule.value
        else:
            is_near = bool(_seen_by(world, room, rule, group.service, group))
        if rule.anti and is_near:
            return False
        if not rule.anti and not is_near and not _is_first_of_all(world, rule, group):
            return False
    return not any(_is_kept_away(world, room, other, group) for other in world.rooms.values())


def _is_kept_away(world: _World, room: _Room, other: _Room, group: TaskGroup) -> bool:
    """Return whether what runs on another node forbids the group on this one."""
    return any(
        rule.anti
        and rule.required
        and service != group.service
        and other.replicas[service] > 0
        and _is_about(rule, service.project, group.service, group.spec)
        and _same_domain(room.node, other.node, rule.topology)
        for service, spec in world.repellers.items()
        for rule in spec.dray.affinities
    )


def _is_first_of_all(world: _World, rule: Affinity, group: TaskGroup) -> bool:
    """Return whether a rule is about the group itself, and nothing that it is about runs yet."""
    if rule.target is AffinityTarget.NODE_LABEL:
        return False
    if not _is_about(rule, group.service.project, group.service, group.spec):
        return False
    return not any(
        count
        and _is_about(
            rule,
            group.service.project,
            service,
            group.spec if service == group.service else world.specs.get(service),
        )
        for room in world.rooms.values()
        for service, count in room.replicas.items()
    )


def _seen_by(
    world: _World, room: _Room, rule: Affinity, by: ServiceKey, group: TaskGroup
) -> list[ServiceKey]:
    """Return the services in the node's domain that a rule is about."""
    found = []
    for other in world.rooms.values():
        if not _same_domain(room.node, other.node, rule.topology):
            continue
        for service, count in other.replicas.items():
            spec = group.spec if service == group.service else world.specs.get(service)
            if count and _is_about(rule, by.project, service, spec):
                found.append(service)
    return found


def _is_about(rule: Affinity, project: str, service: ServiceKey, spec: ServiceSpec | None) -> bool:
    if rule.target is AffinityTarget.SERVICE:
        named = rule.key if "/" in rule.key else f"{project}/{rule.key}"
        return named == f"{service.project}/{service.service}"
    is_label = rule.target is AffinityTarget.SERVICE_LABEL
    return is_label and spec is not None and dict(spec.labels).get(rule.key) == rule.value


def _same_domain(node: PlacementNode, other: PlacementNode, topology: str) -> bool:
    if not topology:
        return node.node_id == other.node_id
    label = _label(node, topology)
    return label is not None and label == _label(other, topology)


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
    if not constraint.key.startswith("node.labels.") and constraint.key not in _ATTRIBUTES:
        return False
    value = _attribute(node, constraint.key)
    if constraint.op is ConstraintOp.EQUAL:
        return value == constraint.value
    return value != constraint.value


_ATTRIBUTES = (
    "node.id",
    "node.hostname",
    "node.name",
    "node.role",
    "node.platform.os",
    "node.platform.arch",
)


def _attribute(node: PlacementNode, key: str) -> str | None:
    values: dict[str, str | None] = {
        "node.id": node.node_id,
        "node.hostname": node.name,
        "node.name": node.name,
        "node.role": "worker",
        "node.platform.os": node.platform.os,
        "node.platform.arch": node.platform.architecture,
    }
    return values[key] if key in values else _label(node, key.removeprefix("node.labels."))


def _label(node: PlacementNode, name: str) -> str | None:
    return dict(node.labels).get(name)


def _unknown(spec: ServiceSpec) -> set[RefusalReason]:
    """Return what is asked and no node can give."""
    found = set()
    for device in spec.task.reservations.devices:
        if device.count < 0 or device.device_ids or "gpu" not in device.capabilities:
            found.add(RefusalReason.DEVICE)
    if spec.task.network_mode is NetworkMode.CONTAINER:
        found.add(RefusalReason.AFFINITY)
    if any(key.startswith("engine.") for key in spec.placement.spread_over):
        found.add(RefusalReason.PREFERENCE)
    return found
