"""Is exactly what may be served served, whatever is wrong with the rest?"""

from __future__ import annotations

import pytest

from dray.model import Endpoint, EndpointView, Epoch, Health, MemberState, SlotKey
from dray.names import NodeId, TaskId, id_text
from node.discovery import Standing, has_ready, select, standing

ALIVE, SUSPECT, STALLED, DEAD, LEFT = MemberState


def view(
    slot: int = 1,
    *,
    state: MemberState = ALIVE,
    health: Health = Health.NONE,
    draining: bool = False,
    epoch: int = 1,
    task: int = 0,
    networks: tuple[str, ...] = ("shop_default",),
    is_daemon_down: bool = False,
) -> EndpointView:
    """Return an endpoint of shop/web."""
    task_id = TaskId(id_text((task or slot).to_bytes(16, "big")))
    endpoint = Endpoint(
        SlotKey("shop", "web", slot),
        task_id,
        Epoch(1, epoch),
        f"10.192.0.{slot}",
        health=health,
        draining=draining,
        networks=networks,
    )
    return EndpointView(endpoint, NodeId(id_text(b"n" * 16)), state, is_daemon_down)


def left_alone(
    slot: int = 1, health: Health = Health.NONE, *, draining: bool = False
) -> EndpointView:
    """Return an endpoint whose node's daemon alone is down."""
    return view(slot, state=DEAD, health=health, draining=draining, is_daemon_down=True)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (view(), (Standing.READY, "running")),
        (view(health=Health.HEALTHY), (Standing.READY, "healthy")),
        (view(health=Health.STARTING), (Standing.NOT_READY, "starting")),
        (view(health=Health.UNHEALTHY), (Standing.NOT_READY, "unhealthy")),
        (view(draining=True, health=Health.HEALTHY), (Standing.NOT_READY, "draining")),
        (view(state=SUSPECT), (Standing.RESERVE, "node is suspect")),
        (view(state=STALLED), (Standing.RESERVE, "node is stalled")),
        (view(state=STALLED, health=Health.UNHEALTHY), (Standing.NOT_READY, "unhealthy")),
        (view(state=DEAD), (Standing.LOST, "node is dead")),
        (view(state=DEAD, draining=True), (Standing.LOST, "node is dead")),
        (left_alone(), (Standing.RESERVE, "node's daemon is down")),
        (left_alone(health=Health.HEALTHY), (Standing.RESERVE, "node's daemon is down")),
        (left_alone(health=Health.UNHEALTHY), (Standing.NOT_READY, "unhealthy")),
        (left_alone(draining=True), (Standing.NOT_READY, "draining")),
        (view(state=LEFT), (Standing.GONE, "node has left")),
    ],
    ids=[
        "no-check",
        "healthy",
        "starting",
        "unhealthy",
        "draining",
        "suspect",
        "stalled",
        "stalled-and-unhealthy",
        "dead",
        "dead-and-draining",
        "daemon-down",
        "daemon-down-and-healthy",
        "daemon-down-and-unhealthy",
        "daemon-down-and-draining",
        "left",
    ],
)
def test_standing(found: EndpointView, expected: tuple[Standing, str]) -> None:
    """Health, draining and the state of the node decide how fit an endpoint is."""
    assert standing(found) == expected


READY, RESERVE = view(1), view(2, state=STALLED)
STARTING, LOST, GONE = view(3, health=Health.STARTING), view(4, state=DEAD), view(5, state=LEFT)


@pytest.mark.parametrize(
    ("known", "used", "is_last_resort"),
    [
        ((READY, RESERVE, STARTING, LOST, GONE), (READY,), False),
        ((RESERVE, STARTING, LOST, GONE), (RESERVE,), False),
        ((READY, left_alone(6), STARTING, LOST), (READY,), False),
        ((left_alone(6), STARTING, LOST), (left_alone(6),), False),
        ((RESERVE, left_alone(6), STARTING), (RESERVE, left_alone(6)), False),
        ((left_alone(6, Health.UNHEALTHY), LOST), (left_alone(6, Health.UNHEALTHY),), True),
        ((STARTING, LOST, GONE), (STARTING,), True),
        ((LOST, GONE), (LOST,), True),
        ((GONE,), (), False),
        ((), (), False),
    ],
    ids=[
        "ready",
        "reserve",
        "ready-before-daemon-down",
        "daemon-down-before-not-ready",
        "daemon-down-beside-stalled",
        "daemon-down-and-unhealthy",
        "not-ready",
        "lost",
        "gone",
        "none",
    ],
)
def test_the_best_standing_that_is_there_is_served(
    known: tuple[EndpointView, ...], used: tuple[EndpointView, ...], is_last_resort: bool
) -> None:
    """Something is served as long as anything is known to run, and it is the best there is."""
    selection = select(known)
    assert selection.used == used
    assert selection.is_last_resort is is_last_resort
    assert [each.view for each in selection.judged] == list(known)
    assert [each.view for each in selection.judged if each.is_used] == list(used)


def test_the_newest_task_of_a_slot_is_served() -> None:
    """Of two ready tasks of one slot only that of the higher (epoch, task id) is served."""
    old, new, other = view(1, epoch=1, task=9), view(1, epoch=2, task=3), view(2)
    selection = select((old, new, other))
    assert selection.used == (new, other)
    assert selection.judged[0].reason == "older task of the slot"
    twin = view(1, epoch=2, task=4)
    assert select((new, twin)).used == (twin,)


def test_a_new_task_that_is_not_ready_displaces_nothing() -> None:
    """While the replacement starts, the old task of the slot goes on being served."""
    old, new = view(1, epoch=1, task=9), view(1, epoch=2, task=3, health=Health.STARTING)
    assert select((old, new)).used == (old,)


def test_other_networks_are_not_served() -> None:
    """An asker gets only endpoints that share a network with it, not even as a last resort."""
    near, far = view(1), view(2, networks=("shop_back",))
    selection = select((near, far), frozenset({"shop_default"}))
    assert selection.used == (near,)
    assert selection.judged[1].reason == "another network"
    assert select((far,), frozenset({"shop_default"})).used == ()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], False),
        ([view(draining=True), view(2, health=Health.STARTING)], False),
        ([view(state=DEAD), view(2, state=LEFT)], False),
        ([view(draining=True), view(2)], True),
        ([view(2, state=SUSPECT)], True),
        ([left_alone()], True),
    ],
    ids=["nothing", "none-yet", "none-any-more", "another", "perhaps", "daemon-down"],
)
def test_clients_have_somewhere_to_go(found: list[EndpointView], expected: bool) -> None:
    """Only what takes new work counts."""
    assert has_ready(found) is expected
