"""Which tasks of lower priority should end so that one of higher priority finds room?

Of all ways to make room on one node, the one is chosen whose highest victim is lowest, then the one
with the fewest victims, then the lowest sum of priorities, then the lower node id. Victims are
never of equal or higher priority, and of the same project unless the operator's rules say else.
Ports and replica limits are not made room for: nodes that lack those are left alone.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dray.model import ServiceKey, ServiceSpec, SlotKey
from scheduler.placement.ask import Ask, TaskGroup
from scheduler.placement.cluster import reservation_row, taken_from
from scheduler.placement.conditions import conditions
from scheduler.placement.node import PlacementNode, RunningShare
from scheduler.placement.result import Eviction, RefusalReason
from scheduler.placement.room import Room, devices_fit

__all__ = ["SLOTS_MAX", "evictions"]

SLOTS_MAX: Final = 64
"""Slots of one group for which room is made in one round; the others wait for the next."""

EXACT_KINDS_MAX: Final = 6
EXACT_VICTIMS_MAX: Final = 3
"""Up to these, all combinations are tried; beyond, see `_fewest`."""

_NOBODY: Final = -(2**31)
"""Below all priorities: nobody needs to end, what is ending already suffices."""

_FREED: Final = frozenset(
    {
        RefusalReason.TASKS,
        RefusalReason.CPU,
        RefusalReason.MEMORY,
        RefusalReason.DISK,
        RefusalReason.PIDS,
        RefusalReason.GPU,
        RefusalReason.GENERIC,
    }
)


class _Worth(NamedTuple):
    """What a way to make room costs; the least is the best."""

    highest: int
    victims: int
    total: int
    row: int


@dataclass(frozen=True, slots=True)
class _Victims:
    """Tasks of one share that may end, `tasks` at a time, at most `count` times."""

    service: ServiceKey
    priority: int
    count: int
    tasks: int
    amounts: NDArray[np.int64]
    devices: NDArray[np.int64]


_Chosen: TypeAlias = tuple[tuple[_Victims, int], ...]
_Way: TypeAlias = tuple[_Worth, _Chosen]


def evictions(room: Room, group: TaskGroup, slots: Sequence[SlotKey]) -> list[Eviction]:
    """Return what should end for these slots, in order, as far as it helps.

    The room that becomes free, and what is free already on those nodes and needed, is withheld from
    whatever is placed later in the round.
    """
    ask = room.ask(group)
    open_rows = np.ones(len(room.view.nodes), dtype=np.bool_)
    for reason, mask in conditions(room, group, ask):
        if reason not in _FREED:
            open_rows &= mask
    ways = [
        way
        for row in sorted(_candidates(room, group))
        if open_rows[row] and (way := _way(room, group, ask, row)) is not None
    ]
    heapq.heapify(ways)
    found: list[Eviction] = []
    most = group.spec.placement.replicas_per_node_max
    for slot in slots[:SLOTS_MAX]:
        if not ways:
            break
        worth, chosen = heapq.heappop(ways)
        row = worth.row
        node_id = room.view.nodes[row].node_id
        found += [
            Eviction(slot, node_id, victims.service, n * victims.tasks) for victims, n in chosen
        ]
        _withhold(room, ask, row, chosen)
        if not most and not ask.rules and not ask.ports:  # else one a node is all that is safe
            again = _way(room, group, ask, row)
            if again is not None:
                heapq.heappush(ways, again)
    return found


def _candidates(room: Room, group: TaskGroup) -> set[int]:
    """Return the rows with tasks that may be displaced."""
    view = room.view
    rows: set[int] = set()
    for service, spec in view.services.items():
        if _may_end(room, group, spec, service):
            rows.update(view.rows[node_id] for node_id in view.replicas[service])
    return rows


def _victims(room: Room, group: TaskGroup, row: int) -> Iterator[_Victims]:
    """Yield what may end on a node."""
    view = room.view
    node = view.nodes[row]
    for share in node.running:
        if share.spec is None or not _may_end(room, group, share.spec, share.service):
            continue
        ended = share.ending + room.evicted.get((row, share.service), 0)
        amounts = reservation_row(share.reservations, view.resources)
        priority = share.spec.dray.priority
        if share.reservations.gpu is None:
            none = np.zeros(view.gpu_free.shape[1], dtype=np.int64)
            if share.count > ended:
                yield _Victims(share.service, priority, share.count - ended, 1, amounts, none)
        elif not ended and len(share.gpu_ids) == share.count:  # else who has which is not known
            devices = _devices_of(node, share, view.gpu_free.shape[1])
            whole = amounts * share.count
            yield _Victims(share.service, priority, 1, share.count, whole, devices)


def _devices_of(node: PlacementNode, share: RunningShare, n_devices: int) -> NDArray[np.int64]:
    """Return what the tasks of a share have of each device: int64[n_devices]."""
    assert share.reservations.gpu is not None
    devices = np.zeros(n_devices, dtype=np.int64)
    numbers = {gpu.id: index for index, gpu in enumerate(node.capacity.gpus)}
    for device_id in (each for task in share.gpu_ids for each in task if each in numbers):
        devices[numbers[device_id]] += share.reservations.gpu.millis_per_gpu
    return devices


def _may_end(room: Room, group: TaskGroup, spec: ServiceSpec, service: ServiceKey) -> bool:
    across = room.view.rules.preempts_across_projects
    is_lower = spec.dray.priority < group.spec.dray.priority
    return is_lower and (across or service.project == group.service.project)


def _ending(room: Room, row: int) -> NDArray[np.int64]:
    """Return what a node gets back from tasks that are ending already: int64[n_resources]."""
    view = room.view
    total = np.zeros(len(view.resources), dtype=np.int64)
    for share in view.nodes[row].running:
        if share.ending:
            total += reservation_row(share.reservations, view.resources) * share.ending
    return total


def _way(room: Room, group: TaskGroup, ask: Ask, row: int) -> _Way | None:
    """Return the best way to make room for one more task on a node, or None."""
    free = taken_from(room.board.free[row], -_ending(room, row))
    devices = room.board.gpu_free[row]
    victims = sorted(_victims(room, group, row), key=lambda each: each.priority)
    for highest in sorted({each.priority for each in victims} | {_NOBODY}):
        allowed = [each for each in victims if each.priority <= highest]
        everyone = tuple((each, each.count) for each in allowed)
        if not _suffices(room, ask, row, free, devices, everyone):
            continue
        chosen = _fewest(lambda tried: _suffices(room, ask, row, free, devices, tried), allowed)
        count = sum(n * each.tasks for each, n in chosen)
        total = sum(n * each.tasks * each.priority for each, n in chosen)
        return _Worth(highest, count, total, row), chosen
    return None


def _suffices(
    room: Room,
    ask: Ask,
    row: int,
    free: NDArray[np.int64],
    devices: NDArray[np.int64],
    chosen: _Chosen,
) -> bool:
    """Return whether the task fits once these have ended."""
    after, idle = _freed(free, devices, chosen)
    if (after[list(ask.columns)] < ask.amounts[list(ask.columns)]).any():
        return False
    if ask.gpu is None:
        return True
    usable = idle
    if ask.model_ok is not None:
        usable = np.where(ask.model_ok[room.view.gpu_model[row]], idle, -1)
    return bool(devices_fit(usable[None, :], ask.gpu.count, ask.gpu.millis_per_gpu)[0])


def _freed(
    free: NDArray[np.int64], devices: NDArray[np.int64], chosen: _Chosen
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the free amounts and devices once these have ended."""
    for victims, n in chosen:
        free = taken_from(free, -victims.amounts * n)
        devices = np.where(devices >= 0, devices + victims.devices * n, devices)
    return free, devices


def _fewest(suffices: Callable[[_Chosen], bool], allowed: list[_Victims]) -> _Chosen:
    """Return the fewest victims that suffice; all of them do.

    Exact for few kinds and victims; else the highest and smallest are spared one kind after the
    other.
    """
    if suffices(()):
        return ()
    if len(allowed) <= EXACT_KINDS_MAX:
        for size in range(1, EXACT_VICTIMS_MAX + 1):
            best: tuple[int, _Chosen] | None = None
            for combination in combinations_with_replacement(range(len(allowed)), size):
                tried = tuple((allowed[k], n) for k, n in sorted(Counter(combination).items()))
                if all(n <= each.count for each, n in tried) and suffices(tried):
                    total = sum(n * each.priority for each, n in tried)
                    if best is None or total < best[0]:
                        best = (total, tried)
            if best is not None:
                return best[1]
    counts = [each.count for each in allowed]
    by_need = sorted(
        range(len(allowed)), key=lambda k: (-allowed[k].priority, allowed[k].amounts.tolist())
    )
    for k in by_need:
        low, high = 0, counts[k]  # the least number of this kind with all others as they are
        while low < high:
            middle = (low + high) // 2
            counts[k] = middle
            if suffices(tuple(zip(allowed, counts, strict=True))):
                high = middle
            else:
                low = middle + 1
        counts[k] = high
    return tuple((each, n) for each, n in zip(allowed, counts, strict=True) if n)


def _withhold(room: Room, ask: Ask, row: int, chosen: _Chosen) -> None:
    """Keep what the task needs of the node from those that come later in the round."""
    free, devices = room.board.free[row], room.board.gpu_free[row]
    after, idle = _freed(taken_from(free, -_ending(room, row)), devices, chosen)
    left = np.minimum(free, taken_from(after, ask.amounts))
    rows = np.array([row], dtype=np.intp)
    kept = room.board.devices_after(ask, rows, idle[None, :])[0] if ask.gpu is not None else idle
    room.withhold(row, left, np.minimum(devices, kept))
    for victims, n in chosen:
        key = (row, victims.service)
        room.evicted[key] = room.evicted.get(key, 0) + n * victims.tasks
