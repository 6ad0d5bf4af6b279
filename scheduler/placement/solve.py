"""Which node gets which task? `place` answers for all new tasks of a round at once.

Guarantees, whatever the input:

- Pure and deterministic: the same arguments give the same result, whatever the order of the nodes;
  ties go to the lower node id.
- Exact: no node is ever given more than it has, in any resource (integers throughout).
- Complete: a task is refused only when no node will do at the moment of its turn, and the reasons
  count every node once.
- Turns: higher priority first; then what others want to be near to; then what takes the largest
  part of a node, since big tasks find room only while there is some. `PlacementResult.turns` tells.
- Apart: while another node that will do has room for fewer, no node gets more than half of the
  replicas of a service of two or more (rounded up); likewise no zone, where nodes have that label.
  So no node and no zone holds all of them.
- Even, where it is asked for: among the nodes that keep the replicas apart, those win whose value
  of the first `spread_over` attribute has the fewest replicas; within it the second, and so on.
- Near: required affinities are kept, also those that others state about the task; preferred ones
  weigh more than prices, prices more than the score.
- Whole: of the groups of a gang, all slots are placed or none.

It packs by the score of `score.py` (or goes emptiest first with the policy SPREAD). What no node of
the cluster can give (devices that are no GPUs or named by their ids, unknown attributes) is refused
for every node, with that reason, rather than placed as if it had not been asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.placement.ask import TaskGroup
from scheduler.placement.cluster import ClusterView
from scheduler.placement.conditions import conditions
from scheduler.placement.explain import explain
from scheduler.placement.fill import Filled, fill
from scheduler.placement.order import turns_of
from scheduler.placement.preempt import evictions
from scheduler.placement.result import (
    Eviction,
    PlacedGroup,
    PlacementResult,
    RefusalReason,
    Unplaced,
)
from scheduler.placement.room import Room

__all__ = ["Placer", "place"]


def place(cluster: ClusterView, groups: Sequence[TaskGroup]) -> PlacementResult:
    """Return a node for every slot of every group, or why there is none.

    Args:
        cluster: The cluster as it is; not changed.
        groups: What needs a node, in any order.
    """
    placer = Placer(cluster, groups)
    result = placer.place(groups)
    placer.close()
    return result


class Placer:
    """Places groups on one view, call after call; what was placed before has its room.

    Not for two threads at once.
    """

    def __init__(self, cluster: ClusterView, expected: Sequence[TaskGroup] = ()) -> None:
        """Begin with a view.

        Args:
            cluster: The cluster as it is; not changed.
            expected: What is to be placed, as far as it is known; the score looks at its mix.
        """
        self._room = Room(cluster, expected)

    def place(self, groups: Sequence[TaskGroup]) -> PlacementResult:
        """Return a node for every slot of every group, or why there is none."""
        if len(groups) == 1 and len(groups[0].slots) == 1:
            filled = fill(self._room, groups[0])
            if filled.rows:
                return PlacementResult((self._answer(groups[0], filled),), turns=(0,))
        turns = turns_of(self._room.view, groups)
        placed: dict[int, PlacedGroup] = {}
        unplaced: dict[int, Unplaced] = {}
        evicted: list[Eviction] = []
        start = 0
        while start < len(turns):
            end = _end_of_gang(groups, turns, start)
            evicted += self._turn(groups, turns[start:end], placed, unplaced)
            start = end
        return PlacementResult(
            tuple(placed[index] for index in sorted(placed)),
            tuple(unplaced[index] for index in sorted(unplaced)),
            tuple(evicted),
            tuple(turns),
        )

    def close(self) -> None:
        """Leave what was computed to whoever places on this view, or one folded from it, next."""
        self._room.keep()

    def _turn(
        self,
        groups: Sequence[TaskGroup],
        members: Sequence[int],
        placed: dict[int, PlacedGroup],
        unplaced: dict[int, Unplaced],
    ) -> list[Eviction]:
        """Place one group, or the groups of one gang; add to `placed` and `unplaced`."""
        mark = len(self._room.takes)
        filled: dict[int, Filled] = {}
        for index in members:
            group = groups[index]
            filled[index] = fill(self._room, group)
            if len(filled[index].rows) < len(group.slots):
                unplaced[index] = self._refusal(group, len(filled[index].rows))
        refused = [index for index in members if index in unplaced]
        if refused and groups[members[0]].gang:
            self._room.take_back(mark)
            for index in members:
                unplaced[index] = self._refusal(groups[index], 0, unplaced.get(index))
            return []
        for index in members:
            if filled[index].rows:
                placed[index] = self._answer(groups[index], filled[index])
        found: list[Eviction] = []
        for index in refused:
            if groups[index].spec.dray.preempt:
                found += evictions(self._room, groups[index], unplaced[index].slots)
        return found

    def _answer(self, group: TaskGroup, filled: Filled) -> PlacedGroup:
        nodes = self._room.view.nodes
        node_ids = tuple([nodes[row].node_id for row in filled.rows])
        if not filled.devices:
            return PlacedGroup(group.service, group.slots[: len(node_ids)], node_ids)
        gpu_ids = tuple(
            tuple(nodes[row].capacity.gpus[device].id for device in devices)
            for row, devices in zip(filled.rows, filled.devices, strict=True)
        )
        return PlacedGroup(group.service, group.slots[: len(node_ids)], node_ids, gpu_ids)

    def _refusal(self, group: TaskGroup, done: int, before: Unplaced | None = None) -> Unplaced:
        """Return why the slots after the first ones have no node.

        Args:
            group: The group.
            done: Slots that have one.
            before: What its gang was given up for, when it was this group.
        """
        ask = self._room.ask(group)
        masks = conditions(self._room, group, ask)
        if group.gang:
            nowhere = np.zeros(len(self._room.view.nodes), dtype=np.bool_)
            masks.append((RefusalReason.GANG, nowhere))
        found = explain(self._room, group, masks, group.slots[done:])
        return found if before is None else explain_again(found, before)


def explain_again(whole: Unplaced, before: Unplaced) -> Unplaced:
    """Return the refusal of a gang's group that had found no room itself: its advice stays."""
    return Unplaced(whole.slots, whole.refusals, before.nearest, before.advice)


def _end_of_gang(groups: Sequence[TaskGroup], turns: Sequence[int], start: int) -> int:
    """Return where the turns of the gang that begins there end."""
    gang = groups[turns[start]].gang
    end = start + 1
    while gang and end < len(turns) and groups[turns[end]].gang == gang:
        end += 1
    return end
