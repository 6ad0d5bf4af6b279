"""Does a daemon that starts go on where it was, whatever it finds?"""

from __future__ import annotations

import dataclasses

import pytest

from dray.model import AttemptState, Health, RestartPolicy, SlotKey
from dray.names import ClusterId, TaskId
from node.agent.adoption import adopted, newest_containers
from node.agent.tasks import CommandKind, Now, TaskRules, TaskState, command
from node.runtime.base import Container, ContainerIdentity, ContainerState

S, C = AttemptState, ContainerState
NOW = Now(100.0, 1_700_000_000.0)
RULES = TaskRules(RestartPolicy(delay_s=5.0))
SLOT = SlotKey("shop", "web", 1)


def a_container(
    state: ContainerState = C.RUNNING, *, attempt: int = 1, task: str = "a", **changes: object
) -> Container:
    """Return a container of a task."""
    identity = ContainerIdentity(ClusterId("c"), TaskId(task), attempt, SLOT)
    exit_code = 1 if state is C.EXITED else None
    base = Container(f"c{attempt}", f"n{attempt}", identity, state, exit_code=exit_code)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def a_state(state: AttemptState, attempt: int = 1, **changes: object) -> TaskState:
    """Return what was written down of a task."""
    base = TaskState(TaskId("a"), SLOT, attempt=attempt, state=state)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def adopt(
    state: TaskState | None, container: Container | None, *, is_reboot: bool = False
) -> TaskState | None:
    """Adopt a task at the usual time."""
    return adopted(state, container, RULES, NOW, is_reboot=is_reboot)


@pytest.mark.parametrize(
    ("before", "container", "to"),
    [
        (S.PENDING, None, S.PENDING),
        (S.PULLING, None, S.PULLING),
        (S.CREATING, None, S.CREATING),
        (S.CREATING, a_container(C.CREATED), S.CREATING),
        (S.CREATING, a_container(C.RUNNING), S.CREATING),
        (S.STARTING, a_container(C.CREATED), S.STARTING),
        (S.STARTING, a_container(C.RUNNING), S.STARTING),
        (S.STARTING, a_container(C.EXITED), S.FAILED),
        (S.STARTING, None, S.FAILED),
        (S.RUNNING, a_container(C.RUNNING), S.RUNNING),
        (S.RUNNING, a_container(C.EXITED), S.FAILED),
        (S.RUNNING, None, S.FAILED),
        (S.STOPPING, a_container(C.RUNNING), S.STOPPING),
        (S.STOPPING, a_container(C.EXITED), S.STOPPING),
        (S.STOPPING, None, S.STOPPING),
        (S.STOPPED, a_container(C.EXITED), S.STOPPED),
        (S.FAILED, None, S.FAILED),
    ],
)
def test_every_step_is_entered_again(
    before: AttemptState, container: Container | None, to: AttemptState
) -> None:
    """What runs is left alone, what ended has ended, and unfinished steps are made again."""
    state = adopt(a_state(before), container)
    assert state is not None
    assert state.state is to
    assert state.attempt == 1
    if container is not None:
        assert state.container_id == container.container_id


def test_nothing_known_and_nothing_there_is_nothing() -> None:
    """There is no task without a state and a container."""
    assert adopt(None, None) is None


def test_a_container_that_nobody_wrote_down_is_taken_as_it_is() -> None:
    """Its labels say whose it is; it is watched, never touched."""
    state = adopt(None, a_container(attempt=3, ipv4_address="10.192.0.9"))
    assert state is not None
    assert (state.attempt, state.state, state.address) == (3, S.RUNNING, "10.192.0.9")
    assert command(state).kind is CommandKind.WATCH
    created = adopt(None, a_container(C.CREATED))
    assert created is not None
    assert created.state is S.STARTING


def test_a_later_attempt_than_the_one_written_down_wins() -> None:
    """(attempt, state) never goes back, also when the last write was lost."""
    state = adopt(a_state(S.FAILED, ends_unix_s=(1.0,)), a_container(attempt=2))
    assert state is not None
    assert (state.attempt, state.state, state.ends_unix_s) == (2, S.RUNNING, (1.0,))


def test_a_container_of_an_older_attempt_says_nothing_of_the_newest() -> None:
    """It is kept for its output only."""
    state = adopt(a_state(S.PULLING, attempt=2), a_container(C.EXITED, attempt=1))
    assert state is not None
    assert (state.attempt, state.state) == (2, S.PULLING)


def test_a_restart_of_the_machine_is_not_the_tasks_failure() -> None:
    """Its next attempt is due at once and its policy's limits are untouched."""
    for container in (a_container(C.EXITED, exit_code=0), None):
        state = adopt(a_state(S.RUNNING, failures=4), container, is_reboot=True)
        assert state is not None
        assert (state.state, state.failures, state.ends_unix_s) == (S.FAILED, 0, ())
        assert state.next_attempt_unix_s == NOW.unix_s
        assert "machine was restarted" in state.reason


def test_a_back_off_goes_on_for_what_is_left_of_it() -> None:
    """Also when the clock was set back meanwhile: it has a cap."""
    state = adopt(a_state(S.FAILED, next_attempt_unix_s=NOW.unix_s + 7), None)
    assert state is not None
    assert state.wait_until_at_s == NOW.at_s + 7
    state = adopt(a_state(S.FAILED, next_attempt_unix_s=NOW.unix_s + 9e6), None)
    assert state is not None
    assert state.wait_until_at_s == NOW.at_s + 600


def test_health_is_looked_at() -> None:
    """A check that changed meanwhile is known at once."""
    state = adopt(a_state(S.RUNNING, health=Health.STARTING), a_container(health=Health.HEALTHY))
    assert state is not None
    assert state.health is Health.HEALTHY


def test_containers_are_sorted_by_task_and_attempt() -> None:
    """The newest of each task counts; strangers are left out."""
    old, new, other = a_container(attempt=1), a_container(attempt=2), a_container(task="b")
    stranger = Container("x", "x", None, C.RUNNING)
    for order in ([old, new, other, stranger], [stranger, new, old, other]):
        found = newest_containers(order)
        assert dict(found.newest) == {TaskId("a"): new, TaskId("b"): other}
        assert found.outdated == (old,)
