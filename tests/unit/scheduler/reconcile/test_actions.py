"""Does a plan tell its numbers and its reasons?"""

from __future__ import annotations

from dray.model import ServiceRevision, StoreRevision, UpdateOrder
from scheduler.reconcile import ActionReason, CreateTask, ForgetTask, MoveTask, Plan, StopTask
from tests.builders import a_slot, node_id, task_id

REVISION = ServiceRevision(1)


def test_a_plan_is_one_line_of_numbers() -> None:
    """The round's log line says how much was planned, beside what was carried out of it."""
    stop = StopTask(a_slot(), task_id(1), node_id(1), ActionReason.SCALED_DOWN)
    forget = ForgetTask(a_slot(2), task_id(2), node_id(1), ActionReason.ENDED)
    create = CreateTask(a_slot(3), task_id(3), REVISION, ActionReason.NEW_SLOT)
    move = MoveTask(
        a_slot(4),
        task_id(4),
        node_id(1),
        task_id(5),
        REVISION,
        ActionReason.NODE_DOWN,
        UpdateOrder.STOP_FIRST,
    )
    plan = Plan(StoreRevision(9), (stop, stop, forget, create, create, create, move))
    assert plan.fields() == {"base_revision": 9, "planned": 7, "verdicts": 0}


def test_an_empty_plan_counts_nothing() -> None:
    """A plan without actions has every count, all of them zero."""
    assert set(Plan(StoreRevision(1)).fields().values()) == {0, 1}


def test_reasons_are_phrases_for_people() -> None:
    """Every reason reads as words, and no two are alike."""
    phrases = [reason.value for reason in ActionReason]
    assert len(set(phrases)) == len(phrases)
    assert all(phrase == phrase.lower() and "_" not in phrase for phrase in phrases)
