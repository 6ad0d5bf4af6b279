"""Does the leader remember why a task was started again, and no more than that?"""

from __future__ import annotations

from dray.model import AttemptReport, AttemptState
from scheduler.nodes.messages import AttemptReports
from scheduler.nodes.observations import EARLIER_MAX, Observations
from tests.builders import node_id, task_id


def report(attempt: int, state: AttemptState, exit_code: int | None = None) -> AttemptReport:
    """Return what a node says of one attempt."""
    return AttemptReport(task_id(1), attempt, state, exit_code=exit_code)


def told(memory: Observations, *reports: AttemptReport, gone: bool = False) -> None:
    """Let the node report."""
    forgotten = (task_id(1),) if gone else ()
    memory.take(node_id(1), AttemptReports(False, reports, forgotten), 1.0)


def test_former_attempts_are_kept_newest_first() -> None:
    """Each attempt that another one followed is kept as it was last reported, a few of them."""
    memory = Observations(0.0)
    for attempt in range(1, 15):
        told(memory, report(attempt, AttemptState.RUNNING))
        told(memory, report(attempt, AttemptState.FAILED, exit_code=attempt))
    kept = memory.earlier()[task_id(1)]
    assert [each.exit_code for each in kept] == list(range(13, 13 - EARLIER_MAX, -1))
    assert memory.observed().attempts[task_id(1)].exit_code == 14


def test_a_task_that_is_forgotten_leaves_nothing() -> None:
    """What a node has forgotten is not remembered here either."""
    memory = Observations(0.0)
    told(memory, report(1, AttemptState.FAILED, 1))
    told(memory, report(2, AttemptState.RUNNING))
    assert len(memory.earlier()[task_id(1)]) == 1
    told(memory, gone=True)
    assert memory.earlier() == {}
