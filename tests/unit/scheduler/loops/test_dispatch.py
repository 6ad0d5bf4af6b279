"""Does every node hear what it must, once, and also what another leader has committed?"""

from __future__ import annotations

from dataclasses import replace

from dray.clock import SystemClock
from dray.model import Assignment, ProjectParts, ProjectSpec, StoreRevision
from dray.names import NodeId
from scheduler.loops.dispatch import Dispatch
from scheduler.store.records import ProjectRecord
from scheduler.store.snapshot import Snapshot
from tests.builders import a_node, a_record, a_snapshot, a_task, node_id


class Told:
    """A dispatcher that remembers."""

    def __init__(self) -> None:
        self.pushes: list[tuple[NodeId, StoreRevision]] = []

    async def push(
        self, node_id: NodeId, assignment: Assignment, projects: tuple[ProjectParts, ...]
    ) -> None:
        """Remember who was told which version; the revisions that it runs come with it."""
        assert len(assignment.specs) == len({task.slot.service for task in assignment.tasks})
        assert [parts.project for parts in projects] == ["shop"] * bool(assignment.tasks)
        self.pushes.append((node_id, assignment.mod_revision))

    def taken(self) -> list[tuple[NodeId, StoreRevision]]:
        """Return what was told since the last call."""
        taken, self.pushes = self.pushes, []
        return taken


def at(snapshot: Snapshot, number: int, revision: int) -> Snapshot:
    """Return the snapshot with one node's assignment written at another revision."""
    assignment = snapshot.assignments[node_id(number)]
    fresh = replace(assignment, mod_revision=StoreRevision(revision))
    return replace(snapshot, assignments={**snapshot.assignments, node_id(number): fresh})


async def test_a_node_is_told_what_it_does_not_know_yet() -> None:
    """All of them at first, then those whose assignment was written again."""
    told = Told()
    dispatch = Dispatch(told, SystemClock())
    snapshot = a_snapshot([a_record()], {1: [a_task(1)], 2: []})
    assert await dispatch.catch_up(snapshot) == 2
    assert sorted(told.taken()) == [(node_id(1), 1), (node_id(2), 1)]
    assert await dispatch.catch_up(snapshot) == 0
    assert await dispatch.catch_up(at(snapshot, 2, 7)) == 1
    assert told.taken() == [(node_id(2), 7)]


async def test_what_was_committed_is_told_before_the_mirror_has_it() -> None:
    """And not again when the mirror shows it, nor taken back while it is behind."""
    told = Told()
    dispatch = Dispatch(told, SystemClock())
    snapshot = a_snapshot([a_record()], {1: [a_task(1)]})
    await dispatch.catch_up(snapshot)
    later = at(snapshot, 1, 9)
    told.taken()
    await dispatch.committed(snapshot, later.assignments.values(), {})
    assert told.taken() == [(node_id(1), 9)]
    await dispatch.catch_up(snapshot)
    await dispatch.catch_up(later)
    assert told.taken() == []


async def test_a_change_of_a_project_reaches_the_nodes_that_run_it() -> None:
    """What tasks bring along has changed, though the assignment has not."""
    told = Told()
    dispatch = Dispatch(told, SystemClock())
    snapshot = a_snapshot([a_record()], {1: [a_task(1)], 2: []}, nodes=[a_node(3)])
    await dispatch.catch_up(snapshot)
    told.taken()
    changed = replace(snapshot, projects={"shop": ProjectRecord(ProjectSpec("shop"))})
    assert await dispatch.catch_up(changed) == 1
    assert told.taken() == [(node_id(1), 1)]
