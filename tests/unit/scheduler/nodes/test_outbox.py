"""Is the right thing sent next, once, and never too much?"""

from __future__ import annotations

from dataclasses import replace

from dray.model import Assignment, ProjectParts, StoreRevision
from scheduler.nodes.messages import (
    AssignmentPush,
    NodeConfig,
    Ping,
    Resync,
    SpecPush,
)
from scheduler.nodes.outbox import PUSH_SPECS_MAX, UNSENT_MESSAGES_MAX, Outbox
from tests.builders import (
    CLUSTER_ID,
    EPOCH,
    a_node,
    a_record,
    a_service,
    a_slot,
    a_task,
    node_id,
)


def an_assignment(revision: int, *services: str, of: int = 1) -> Assignment:
    """Return an assignment with one task of each service, complete with what they run."""
    records = [a_record(a_service(name), revision=of) for name in services]
    tasks = tuple(
        a_task(number, a_slot(1, name), revision=of) for number, name in enumerate(services, 1)
    )
    specs = tuple(record.spec_entry for record in records)
    return Assignment(CLUSTER_ID, node_id(1), EPOCH, StoreRevision(revision), tasks, specs)


def taken(outbox: Outbox) -> AssignmentPush:
    """Return the next message, which is an assignment."""
    message = outbox.take()
    assert isinstance(message, AssignmentPush), message
    return message


def test_the_latest_assignment_wins() -> None:
    """Of several unsent assignments one is sent, the last."""
    outbox = Outbox()
    for revision in (1, 2, 3):
        outbox.put_assignment(an_assignment(revision, "web"), ())
    assert taken(outbox).assignment.mod_revision == 3
    assert outbox.take() is None


def test_an_older_assignment_does_not_follow_a_newer_one() -> None:
    """What comes out of order, and what was sent already, is no news."""
    outbox = Outbox()
    outbox.put_assignment(an_assignment(3, "web"), ())
    taken(outbox)
    outbox.put_assignment(an_assignment(2, "web"), ())
    outbox.put_assignment(an_assignment(3, "web"), ())
    assert not outbox
    outbox.put_assignment(an_assignment(3, "web"), (ProjectParts("shop"),))
    assert taken(outbox).projects == (ProjectParts("shop"),)


def test_what_tasks_run_is_sent_once() -> None:
    """A revision that the stream has carried is left out, until no task has referred to it."""
    outbox = Outbox()
    outbox.put_assignment(an_assignment(1, "web", "db"), ())
    assert [spec.service.service for spec in taken(outbox).assignment.specs] == ["web", "db"]
    outbox.put_assignment(an_assignment(2, "web", "job"), ())
    assert [spec.service.service for spec in taken(outbox).assignment.specs] == ["job"]
    outbox.put_assignment(an_assignment(3, "web", "db"), ())
    assert [spec.service.service for spec in taken(outbox).assignment.specs] == ["db"]
    outbox.put_assignment(an_assignment(4, "web", "db", of=2), ())
    assert len(taken(outbox).assignment.specs) == 2


def test_many_revisions_go_ahead_of_the_assignment() -> None:
    """What does not fit into one message is sent before, and each revision once."""
    names = [f"s{number:02}" for number in range(2 * PUSH_SPECS_MAX + 1)]
    outbox = Outbox()
    outbox.put_assignment(an_assignment(1, *names), ())
    ahead = [outbox.take(), outbox.take()]
    assert all(isinstance(message, SpecPush) for message in ahead)
    push = taken(outbox)
    sent = [spec for message in ahead if isinstance(message, SpecPush) for spec in message.specs]
    assert [spec.service.service for spec in (*sent, *push.assignment.specs)] == names
    assert len(push.assignment.tasks) == len(names)


def test_small_messages_come_first_and_are_bounded() -> None:
    """A ping never waits behind an assignment; a node that does not read is given up."""
    outbox = Outbox()
    outbox.put_assignment(an_assignment(1, "web"), ())
    assert all(outbox.put(Ping(number)) for number in range(UNSENT_MESSAGES_MAX))
    assert not outbox.put(Ping(0))
    assert outbox.take() == Ping(0)


def test_what_is_whole_each_time_replaces_the_unsent_one() -> None:
    """Two configurations or two requests to send everything again are one."""
    outbox = Outbox()
    config = NodeConfig(a_node())
    for message in (config, Resync("a"), replace(config, removed_nodes=(node_id(2),)), Resync("b")):
        assert outbox.put(message)
    assert outbox.take() == NodeConfig(a_node(), removed_nodes=(node_id(2),))
    assert outbox.take() == Resync("b")
    assert outbox.take() is None
