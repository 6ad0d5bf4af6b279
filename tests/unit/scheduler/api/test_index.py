"""Is the index always what a new one would be, at the cost of what has changed?"""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from dray.model import TaskAssignment
from scheduler.api.index import HeldTask, TaskIndex
from scheduler.store.snapshot import Snapshot
from tests.builders import a_key, a_slot, a_snapshot, a_task, node_id, task_id

SERVICES = ("db", "web")


def tasks(numbers: Iterable[int]) -> list[TaskAssignment]:
    """Return tasks of these numbers, of either service."""
    return [a_task(n, a_slot(n % 5 + 1, SERVICES[n % 2])) for n in sorted(numbers)]


def shown(index: TaskIndex) -> dict[str, list[HeldTask]]:
    """Return what an index holds."""
    return {name: index.of_service(a_key(name)) for name in SERVICES}


SHARES = st.dictionaries(st.integers(1, 4), st.frozensets(st.integers(1, 30), max_size=6))


@given(st.lists(SHARES, min_size=1, max_size=6))
def test_an_index_that_was_updated_is_like_a_new_one(
    steps: list[dict[int, frozenset[int]]],
) -> None:
    """Whatever comes and goes, also tasks that are on two nodes for a moment."""
    index = TaskIndex()
    for shares in steps:
        snapshot = a_snapshot(tasks={node: tasks(numbers) for node, numbers in shares.items()})
        index.update(snapshot)
        fresh = TaskIndex()
        fresh.update(snapshot)
        assert shown(index) == shown(fresh)
        assert set(index.services()) == set(fresh.services())
        assert index.behind(snapshot) == []
        for number in range(1, 31):
            held = index.task(task_id(number))
            holders = {node_id(node) for node, numbers in shares.items() if number in numbers}
            assert held is None or held.node_id in holders


def test_only_what_changed_is_looked_at() -> None:
    """An assignment that is the same object was indexed already."""
    index = TaskIndex()
    first = a_snapshot(tasks={1: tasks([1, 2]), 2: tasks([3])})
    index.update(first)
    kept = index.copy()
    second = Snapshot(
        first.cluster,
        first.revision,
        assignments={**first.assignments, **a_snapshot(tasks={2: tasks([4])}).assignments},
    )
    assert index.behind(second) == [node_id(2)]
    index.update(second, [node_id(2)])
    assert index.task(task_id(3)) is None
    assert index.tasks == 3
    assert [held.task.task_id for held in kept.of_service(a_key("web"))] == [
        task_id(1),
        task_id(3),
    ]
