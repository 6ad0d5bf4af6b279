"""When does a project that is being removed go, and what of its volumes?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import NodeCondition, ProjectSpec, VolumeSpec
from scheduler.reconcile import (
    NodeObservation,
    Observed,
    Plan,
    ProjectDrop,
    VerdictDrop,
    VolumeRemoval,
    reconcile,
)
from scheduler.reconcile.removed import AGAIN_S
from scheduler.store.records import ProjectRecord, VolumePin
from scheduler.store.snapshot import Snapshot, VolumeKey
from tests.builders import CountingIds, a_node, a_record, a_snapshot, a_task, an_info, node_id

NOW_S = 1_000.0
OWN = VolumeSpec("data", "shop_data")
FOREIGN = VolumeSpec("ext", "ext", external=True)
SHARED = VolumeSpec("both", "both")
PIN = VolumePin("shop", "shop_data", node_id(1), 5.0, is_made=True)


def removing(*, with_volumes: bool = True, pins: tuple[VolumePin, ...] = (PIN,)) -> Snapshot:
    """Return two nodes and project shop, of which nothing runs any more; blog stays."""
    shop = ProjectSpec("shop", volumes=(OWN, FOREIGN, SHARED))
    blog = ProjectSpec("blog", volumes=(SHARED,))
    return replace(
        a_snapshot(nodes=[a_node(1), a_node(2)]),
        projects={
            "shop": ProjectRecord(shop, is_removing=True, remove_volumes=with_volumes),
            "blog": ProjectRecord(blog),
        },
        volume_pins={VolumeKey(pin.project, pin.volume): pin for pin in pins},
    )


def having(*volumes: set[str] | None) -> Observed:
    """Return n1, n2 … with these volumes; None: one that has not said yet."""
    return Observed(
        {
            node_id(number): NodeObservation(
                NodeCondition.READY,
                0.0,
                an_info(number),
                volumes=frozenset(names or ()),
                has_all_volumes=names is not None,
            )
            for number, names in enumerate(volumes, start=1)
        }
    )


def plan_of(snapshot: Snapshot, observed: Observed) -> Plan:
    """Return the plan."""
    return reconcile(snapshot, observed, NOW_S, CountingIds())


def test_nodes_remove_its_own_volumes_alone() -> None:
    """On every node that has one; external ones and those of other projects stay."""
    everything = {"shop_data", "ext", "both"}
    plan = plan_of(removing(), having(everything, everything))
    assert plan.removals == (
        VolumeRemoval(node_id(1), "shop", ("shop_data",)),
        VolumeRemoval(node_id(2), "shop", ("shop_data",)),
    )
    assert plan.verdicts == ()
    assert plan.wake_at_unix_s == NOW_S + AGAIN_S
    assert [note.subject for note in plan.notes] == ["shop"]


def test_when_they_are_gone_their_pins_go_and_then_the_project() -> None:
    """One after the other: what was cut short is taken up again."""
    gone = having({"ext", "both"}, {"ext"})
    plan = plan_of(removing(), gone)
    assert (plan.removals, [type(each) for each in plan.verdicts]) == ((), [VerdictDrop])
    plan = plan_of(removing(pins=()), gone)
    assert plan.verdicts == (ProjectDrop("shop", "project removed"),)


@pytest.mark.parametrize("observed", [Observed(), having(None, {"ext"})], ids=["away", "unsaid"])
def test_a_node_that_cannot_say_is_waited_for(observed: Observed) -> None:
    """Unknown is not gone: the project stays until its node has said what it has."""
    plan = plan_of(removing(), observed)
    assert (plan.removals, plan.verdicts) == ((), ())
    assert "n1" in plan.notes[0].message


def test_a_node_that_was_removed_is_not_waited_for() -> None:
    """What it had went with it."""
    snapshot = removing(pins=(replace(PIN, node_id=node_id(9)),))
    plan = plan_of(snapshot, having(set(), set()))
    assert [type(each) for each in plan.verdicts] == [VerdictDrop]


def test_volumes_stay_unless_their_removal_was_asked_for() -> None:
    """Then the project goes at once, and its pins stay with its data."""
    plan = plan_of(removing(with_volumes=False), having({"shop_data"}, set()))
    assert plan.removals == ()
    assert plan.verdicts == (ProjectDrop("shop", "project removed"),)


def test_nothing_is_removed_under_a_task() -> None:
    """While one is assigned its data is in use."""
    running = a_snapshot([a_record()], {1: [a_task(1)]}, nodes=[a_node(2)])
    snapshot = replace(removing(), assignments=running.assignments)
    plan = plan_of(snapshot, having({"shop_data"}, set()))
    assert plan.removals == ()
    assert not any(isinstance(each, ProjectDrop) for each in plan.verdicts)
