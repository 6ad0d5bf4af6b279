"""Does the node still know after a start which task holds what?"""

from __future__ import annotations

import pytest

from dray.model import ServiceKey
from node.network.attachments import AttachedTask, Attachments, adopted, pack, released, unpack
from node.network.balance import HeldPort
from node.network.ipam import Allocated, allocate, empty_pool
from node.network.isolation import LocalTask
from tests.unit.node.network.builders import LAYOUT, task_id

ADDRESS = "10.192.2.2"
TASK = AttachedTask(
    ServiceKey("shop", "web"),
    LocalTask(ADDRESS, "02:42:0a:c0:02:02", ("shop_default",), True),
    (HeldPort("tcp", "", 8080, 80),),
)


def attached() -> Attachments:
    """Return a state in which task 1 is attached."""
    outcome = allocate(empty_pool(LAYOUT.subnet), task_id(1), 0.0)
    assert isinstance(outcome, Allocated)
    assert outcome.address == ADDRESS
    return Attachments(outcome.pool, {task_id(1): TASK})


def test_what_is_written_is_read() -> None:
    """The file holds addresses, rests, networks and ports."""
    state = released(adopted(attached(), task_id(2), "10.192.2.5"), task_id(2), 77.5)
    assert state.pool.resting == {"10.192.2.5": 77.5}
    assert unpack(pack(state), LAYOUT.subnet) == state


@pytest.mark.parametrize(
    "data",
    [None, b"", b"{", b"[]", b'{"format": 1}', pack(attached()).replace(b"2.0/23", b"4.0/23")],
    ids=["none", "empty", "torn", "list", "short", "other-subnet"],
)
def test_a_file_that_says_nothing_useful(data: bytes | None) -> None:
    """It is as good as none: what runs is adopted from the engine."""
    assert unpack(data, LAYOUT.subnet) == Attachments(empty_pool(LAYOUT.subnet))


def test_adopting_a_known_task_changes_nothing() -> None:
    """Its networks and ports are remembered."""
    state = attached()
    assert adopted(state, task_id(1), ADDRESS) is state
    assert state.tasks == {task_id(1): TASK}


def test_adopting_an_unknown_task() -> None:
    """It is on no network until it is attached; one that was remembered there has lost it."""
    state = adopted(attached(), task_id(2), ADDRESS)
    assert set(state.tasks) == {task_id(2)}
    assert state.tasks[task_id(2)].filtered.networks == ()
    assert adopted(state, task_id(3), "192.0.2.1") is state
