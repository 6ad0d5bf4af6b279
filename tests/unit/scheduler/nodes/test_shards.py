"""Does a view stay what it was while the map goes on changing?"""

from __future__ import annotations

from dray.names import TaskId
from scheduler.nodes.shards import Shards
from tests.builders import task_id


def test_a_view_does_not_change() -> None:
    """Puts and drops after a view show in the next one only; equal moments share one view."""
    shards: Shards[TaskId, int] = Shards()
    for number in range(100):
        shards.put(task_id(number), number)
    before = shards.view()
    assert shards.view() is before
    shards.put(task_id(1), -1)
    shards.drop(task_id(2))
    shards.drop(task_id(500))
    after = shards.view()
    assert dict(before) == {task_id(number): number for number in range(100)}
    assert after[task_id(1)] == -1
    assert task_id(2) not in after
    assert (len(before), len(after)) == (100, 99)
    assert shards.get(task_id(2)) is None


def test_a_change_copies_one_part() -> None:
    """What did not change is the same object in both views."""
    shards: Shards[TaskId, tuple[int]] = Shards()
    for number in range(10_000):
        shards.put(task_id(number * 1000), (number,))
    before = shards.view()
    shards.put(task_id(5), (0,))
    after = shards.view()
    shared = sum(a is b for a, b in zip(before._parts, after._parts, strict=True))
    assert shared == len(before._parts) - 1
