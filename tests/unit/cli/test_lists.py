"""Do lists show people what matters, and programs the names that scripts rely on?"""

from __future__ import annotations

from typing import Any

from cli.lists import EventsView, HistoryView, MembersView, NodesView, ProjectsView, TasksView
from cli.views import View
from dray.model import Event, EventKind, EventLevel, MemberState, NodeCondition, ReachKind
from dray.views import GossipMember, Project, SlotState, SlotStateCount
from tests.builders import a_record, a_slot, node_id
from tests.unit.cli.views_builders import NOW_S, a_node_view, a_task_view


def _plain(view: Any) -> list[dict[str, Any]]:
    found = view.plain()
    assert isinstance(found, list)
    return found


def test_tasks_have_the_names_that_scripts_rely_on() -> None:
    """`ps --format json` has these names in this order, and times in UTC."""
    from dray.views import Task

    waiting = Task(a_slot(2), SlotState.PENDING, reason="no node has 2 GiB")
    running, pending = _plain(TasksView([a_task_view(), waiting], NOW_S))
    assert list(running) == [
        "project",
        "service",
        "slot",
        "task_id",
        "node",
        "state",
        "health",
        "image",
        "address",
        "since",
        "exit_code",
        "attempt",
        "reason",
    ]
    assert (running["state"], running["health"], running["attempt"]) == ("running", "healthy", 2)
    assert running["since"] == "2023-11-14T22:12:20.000Z"
    assert (pending["task_id"], pending["node"], pending["attempt"]) == ("", "", None)
    assert (pending["state"], pending["reason"]) == ("pending", "no node has 2 GiB")


def test_tasks_say_their_health_to_people() -> None:
    """A check that is not content is beside the state; one that is content says nothing."""
    view = TasksView([a_task_view(), a_task_view(2, state=SlotState.UNHEALTHY)], NOW_S)
    rows = view.table().rows
    assert [row[1] for row in rows] == ["running", "unhealthy (unhealthy)"]
    assert [row[5] for row in rows] == ["1 min", "1 min"]


def test_nodes_have_the_names_that_scripts_rely_on() -> None:
    """`node ls --format json` has these names in this order."""
    view = NodesView([a_node_view(), a_node_view(2, condition=NodeCondition.DOWN, is_full=True)])
    first, second = _plain(view)
    assert list(first) == [
        "id",
        "name",
        "address",
        "condition",
        "faults",
        "availability",
        "labels",
        "capacity",
        "reserved",
        "used",
        "version",
    ]
    assert (first["labels"], first["used"]["cpu_millis"]) == ({"zone": "a"}, 2000)
    assert (second["condition"], second["faults"]) == ("down", ["disk_full"])
    assert view.table().rows[0][5:7] == ("1.5 of 4", "1.0 GiB of 8.0 GiB")


def test_projects_events_history_and_members() -> None:
    """Each list has a row and an object an item."""
    project = Project("shop", 7, NOW_S - 90, NOW_S - 90, 2, (SlotStateCount(SlotState.RUNNING, 3),))
    event = Event(1, NOW_S - 5, EventKind.NODE, EventLevel.WARNING, "node n1", "is down", "silent")
    member = GossipMember(node_id(1), "n1", None, 5, 1, MemberState.SUSPECT, ReachKind.SILENT, 1.25)
    views: list[tuple[View, str]] = [
        (ProjectsView([project], NOW_S), "3 running"),
        (EventsView([event], NOW_S), "is down"),
        (HistoryView([a_record()], NOW_S), "1"),
        (MembersView([member]), "suspect"),
    ]
    for view, shown in views:
        (row,) = view.table().rows
        assert shown in row, row
        assert len(_plain(view)) == 1
