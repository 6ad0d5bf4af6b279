"""Which nodes must be told something, and is it sent? From the store to the nodes' streams.

Level-triggered: each round compares what every node was last told with what is stored, so that what
an earlier leader committed, or a round that was cut short, reaches the node as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from dray.clock import Clock
from dray.model import Assignment, Epoch, ProjectParts, StoreRevision
from dray.names import NodeId
from scheduler.nodes.parts import share_of
from scheduler.store.records import VolumePin
from scheduler.store.snapshot import Snapshot, VolumeKey, differing

__all__ = ["Dispatch", "Dispatcher"]

_TURN_S: Final = 0.005  # between two chances for other tasks to run


class Dispatcher(Protocol):
    """Takes assignments to nodes: of several for one node the latest, at most one unsent."""

    async def push(
        self, node_id: NodeId, assignment: Assignment, projects: tuple[ProjectParts, ...]
    ) -> None:
        """Send a node its assignment, now or when it connects."""
        ...


class Dispatch:
    """What nodes were told in one term."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        """Start as if nobody had been told anything."""
        self._dispatcher = dispatcher
        self._clock = clock
        self._told: dict[NodeId, tuple[Epoch, StoreRevision]] = {}
        self._projects: dict[NodeId, tuple[Assignment, frozenset[str]]] = {}
        self._last: Snapshot | None = None

    async def catch_up(self, snapshot: Snapshot) -> int:
        """Tell every node what it does not know yet; return how many were told.

        Args:
            snapshot: What is stored.
        """
        changed = set() if self._last is None else _changed_projects(self._last, snapshot)
        due = [
            node_id
            for node_id, assignment in snapshot.assignments.items()
            if self._told.get(node_id) != assignment.version
            or (changed and not changed.isdisjoint(self._projects_of(assignment)))
        ]
        due = [node_id for node_id in due if not self._knows_more(node_id, snapshot)]
        for node_id in [each for each in self._told if each not in snapshot.nodes]:
            del self._told[node_id]
            self._projects.pop(node_id, None)
        await self._push_all(snapshot, due)
        self._last = snapshot
        return len(due)

    async def committed(
        self,
        snapshot: Snapshot,
        assignments: Iterable[Assignment],
        pins: Mapping[VolumeKey, VolumePin],
    ) -> None:
        """Tell nodes what was just committed, before the mirror has it.

        Args:
            snapshot: What the round was planned from.
            assignments: What was committed, with its mod revision.
            pins: Volumes that were pinned since the snapshot.
        """
        fresh = {each.node_id: each for each in assignments}
        volume_pins = {**snapshot.volume_pins, **pins} if pins else snapshot.volume_pins
        await self._push_all(
            replace(snapshot, assignments=fresh, volume_pins=volume_pins), list(fresh)
        )

    def _knows_more(self, node_id: NodeId, snapshot: Snapshot) -> bool:
        """Return whether a node was told something later than the mirror shows."""
        told = self._told.get(node_id)
        return told is not None and told > snapshot.assignments[node_id].version

    async def _push_all(self, snapshot: Snapshot, node_ids: Iterable[NodeId]) -> None:
        turn_at_s = self._clock.monotonic_s() + _TURN_S
        for node_id in node_ids:
            share = share_of(snapshot, node_id)
            assert share is not None, node_id
            await self._dispatcher.push(node_id, share.assignment, share.projects)
            self._told[node_id] = share.assignment.version
            if self._clock.monotonic_s() >= turn_at_s:
                await self._clock.sleep(0)
                turn_at_s = self._clock.monotonic_s() + _TURN_S

    def _projects_of(self, assignment: Assignment) -> frozenset[str]:
        kept = self._projects.get(assignment.node_id)
        if kept is None or kept[0] is not assignment:
            names = frozenset(task.slot.project for task in assignment.tasks)
            kept = self._projects[assignment.node_id] = (assignment, names)
        return kept[1]


def _changed_projects(before: Snapshot, after: Snapshot) -> set[str]:
    """Return the projects of which something changed that their nodes are told."""
    changed = set(differing(before.projects, after.projects))
    changed |= {key.project for key in differing(before.services, after.services)}
    return changed | {key.project for key in differing(before.volume_pins, after.volume_pins)}
