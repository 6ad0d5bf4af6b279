"""Would the simulation find it if the control plane broke its promises? It is made to, in ways."""

from __future__ import annotations

import pytest

from dray.model import NodeCondition
from dray.names import NodeId
from scheduler.loops import round as rounds
from scheduler.loops.commit import fences_of
from scheduler.reconcile.situation import Situation
from scheduler.store.base import Compare
from scheduler.store.snapshot import Snapshot
from tests.simulation.scheduler_world import broken_in

SEEDS_MAX = 40


def found(first: int) -> str:
    """Return what is broken in the first world that is, beginning with one that was once."""
    for seed in (first, *range(SEEDS_MAX)):
        broken, _ = broken_in(seed)
        if broken:
            return broken[0]
    return ""


def test_acts_on_an_unknown_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose stream is lost, and that a peer still hears, is held to be down."""

    def is_down(situation: Situation, node_id: NodeId) -> bool:
        node = situation.node(node_id)
        return node is not None and node.condition in (
            NodeCondition.DOWN,
            NodeCondition.UNREACHABLE,
        )

    monkeypatch.setattr(Situation, "is_down", is_down)
    assert "without a reason" in found(3)


def test_slots_that_are_not_replaced_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever done about a node that is down."""
    monkeypatch.setattr(Situation, "is_down", lambda *_: False)
    monkeypatch.setattr(Situation, "is_given_up", lambda *_, **__: False)
    assert "has had no task since" in found(5)


def test_a_missing_fence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that was stopped between plan and commit commits all the same."""

    def unfenced(snapshot: Snapshot, leader: Compare) -> tuple[Compare, ...]:
        return tuple(each for each in fences_of(snapshot, leader) if each != leader)

    monkeypatch.setattr(rounds, "fences_of", unfenced)
    monkeypatch.setattr(rounds.Rounds, "_why", lambda *_: rounds._End.CONFLICT)
    assert "after it had ended" in found(17)
