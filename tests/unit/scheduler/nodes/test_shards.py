"""Does a view stay what it was while the map goes on changing, and does it know what changed?"""

from __future__ import annotations

import itertools
import random

from dray.names import TaskId
from scheduler.nodes.shards import Shards, ShardView, changed_keys
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


def test_views_know_what_was_written_between_them() -> None:
    """Of any two views the changed keys are found, also when others were taken in between."""
    shards: Shards[TaskId, tuple[int]] = Shards()
    views: list[ShardView[TaskId, tuple[int]]] = []
    rng = random.Random(5)
    for _ in range(40):
        for _ in range(rng.randrange(4)):
            key = task_id(rng.randrange(30))
            if rng.random() < 0.3:
                shards.drop(key)
            else:
                shards.put(key, (rng.randrange(3),))
        views.append(shards.view())
    for first, second in itertools.combinations(views, 2):
        assert second.written_since(first) is not None
        for one, other in ((first, second), (second, first)):
            found = changed_keys(one, other)
            assert len(found) == len(set(found))
            assert set(found) == set(changed_keys(dict(one), dict(other)))


def test_what_was_written_is_forgotten_in_bounds() -> None:
    """Beyond the bound, and between maps, everything is compared: the answer is the same."""
    shards: Shards[TaskId, int] = Shards(written_keys_max=10)
    start = shards.view()
    for number in range(5):
        shards.put(task_id(number), number)
    near = shards.view()
    assert near.written_since(start) == {task_id(number) for number in range(5)}
    for number in range(5, 11):
        shards.put(task_id(number), number)
    far = shards.view()
    assert far.written_since(near) == {task_id(number) for number in range(5, 11)}
    assert far.written_since(start) is None
    assert set(changed_keys(start, far)) == {task_id(number) for number in range(11)}
    for number in range(40):
        shards.put(task_id(number), -1)
    last = shards.view()
    assert last.written_since(far) is None
    assert set(changed_keys(far, last)) == {task_id(number) for number in range(40)}
    assert last.written_since(last) == set()
    assert last.written_since(Shards[TaskId, int]().view()) is None
