"""Does the machine of one task take the right step after everything that can happen?"""

from __future__ import annotations

import dataclasses

import pytest

from dray.model import (
    TERMINAL_ATTEMPT_STATES,
    AttemptState,
    Health,
    RestartCondition,
    RestartPolicy,
    SlotKey,
)
from dray.names import TaskId
from node.agent.restarts import DELAY_MAX_S
from node.agent.tasks import (
    PULLS_MAX,
    START_DEADLINE_S,
    CommandKind,
    ContainerCreated,
    ContainerEnded,
    ContainerGone,
    ContainerStarted,
    ContainerStopped,
    DeadlinePassed,
    Event,
    HealthSeen,
    HookFailed,
    ImageReady,
    Now,
    StepFailed,
    StepRefused,
    StopCause,
    TaskRules,
    TaskState,
    WaitOver,
    Wanted,
    attempt_report,
    command,
    step,
)
from node.runtime.base import Refusal, Refused

S = AttemptState
NOW = Now(100.0, 1_700_000_000.0)
RULES = TaskRules(RestartPolicy(delay_s=5.0))
NEVER = TaskRules(RestartPolicy(RestartCondition.NONE))
AWAY = StepFailed("the Docker Engine does not answer")
NO_IMAGE = StepRefused(Refused(Refusal.IMAGE_NOT_FOUND, "no such image: nginx:nope"))
NO_REGISTRY = StepRefused(Refused(Refusal.REGISTRY_UNREACHABLE, "registry is away", retryable=True))
EVENTS: tuple[Event, ...] = (
    Wanted(True),
    Wanted(False),
    WaitOver(),
    ImageReady("sha256:1"),
    ContainerCreated("c1", "10.192.0.5"),
    ContainerStarted(NOW.unix_s),
    HookFailed("hook"),
    ContainerEnded(0),
    ContainerEnded(1),
    ContainerGone(),
    HealthSeen(Health.HEALTHY),
    HealthSeen(Health.UNHEALTHY),
    ContainerStopped(),
    NO_IMAGE,
    NO_REGISTRY,
    AWAY,
    DeadlinePassed(),
)


def a_state(state: AttemptState = S.PENDING, **changes: object) -> TaskState:
    """Return a task in some state."""
    base = TaskState(TaskId("a" * 26), SlotKey("shop", "web", 1), state=state)
    if state in (S.CREATING, S.STARTING):
        base = dataclasses.replace(base, deadline_at_s=NOW.at_s + 50)
    if state >= S.STARTING:
        base = dataclasses.replace(base, container_id="c1")
    if state >= S.RUNNING:
        base = dataclasses.replace(base, started_unix_s=NOW.unix_s - 1)
    if state is S.STOPPING:
        base = dataclasses.replace(base, stop_cause=StopCause.ORDERED)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def run(state: TaskState, *events: Event, rules: TaskRules = RULES, now: Now = NOW) -> TaskState:
    """Return the state after some events."""
    for event in events:
        state = step(state, event, rules, now)
    return state


def test_a_task_runs_from_its_acceptance_to_running() -> None:
    """Each step leads to the next command, and what was learnt on the way is kept."""
    state, seen = a_state(), []
    for event in (
        WaitOver(),
        ImageReady("sha256:1"),
        ContainerCreated("c1", "10.192.0.5", "fd00::5"),
        ContainerStarted(NOW.unix_s),
    ):
        seen.append((state.state, command(state).kind))
        state = step(state, event, RULES, NOW)
    assert seen == [
        (S.PENDING, CommandKind.WAIT),
        (S.PULLING, CommandKind.PULL),
        (S.CREATING, CommandKind.CREATE),
        (S.STARTING, CommandKind.START),
    ]
    assert command(state).kind is CommandKind.WATCH
    report = attempt_report(state)
    assert (report.state, report.container_id, report.address) == (S.RUNNING, "c1", "10.192.0.5")
    assert (report.image_digest, report.address6) == ("sha256:1", "fd00::5")
    assert state.deadline_at_s is None


@pytest.mark.parametrize(
    ("state", "to"),
    [
        (S.PENDING, S.STOPPED),
        (S.PULLING, S.STOPPED),
        (S.CREATING, S.STOPPING),
        (S.STARTING, S.STOPPING),
        (S.RUNNING, S.STOPPING),
        (S.STOPPING, S.STOPPING),
        (S.COMPLETED, S.COMPLETED),
        (S.FAILED, S.FAILED),
        (S.REJECTED, S.REJECTED),
        (S.STOPPED, S.STOPPED),
    ],
)
def test_a_task_that_is_told_to_end_ends_from_everywhere(
    state: AttemptState, to: AttemptState
) -> None:
    """No container yet: it is over at once. One that may run is ended first. No other attempt."""
    due = {"next_attempt_unix_s": NOW.unix_s + 5} if state is S.FAILED else {}
    after = run(a_state(state, **due), Wanted(False))
    assert (after.state, after.is_wanted or state is S.STOPPED) == (to, state is S.STOPPED)
    done = run(after, ContainerStopped(), WaitOver())
    assert done.is_done
    assert done.attempt == 1
    assert run(done, Wanted(True)).state is done.state


@pytest.mark.parametrize(
    ("event", "to", "words"),
    [
        (ContainerEnded(0), S.COMPLETED, ""),
        (ContainerEnded(3), S.FAILED, "exit code 3"),
        (ContainerEnded(137), S.FAILED, "signal 9"),
        (ContainerEnded(137, oom_killed=True), S.FAILED, "out of memory"),
        (ContainerEnded(None), S.FAILED, "does not know"),
        (ContainerEnded(127, error="exec: no such file"), S.FAILED, "no such file"),
        (ContainerEnded(0, is_reboot=True), S.FAILED, "machine was restarted"),
        (ContainerGone(), S.FAILED, "removed by somebody else"),
        (ContainerGone(is_reboot=True), S.FAILED, "machine was restarted"),
    ],
)
def test_every_end_has_a_state_and_a_reason(event: Event, to: AttemptState, words: str) -> None:
    """Users read why a container ended; a new attempt is due after the policy's pause."""
    after = run(a_state(S.RUNNING), event)
    assert after.state is to
    assert words in after.reason
    pause_s = 0.0 if getattr(event, "is_reboot", False) else 5.0
    assert after.next_attempt_unix_s == NOW.unix_s + pause_s
    assert command(after).kind is CommandKind.WAIT
    again = run(after, WaitOver())
    assert (again.attempt, again.state, again.container_id) == (2, S.PENDING, "")


def test_an_image_that_does_not_exist_rejects_the_attempt_with_the_reason() -> None:
    """A no of the engine ends the attempt at once, in its words."""
    after = run(a_state(S.PULLING), NO_IMAGE)
    assert (after.state, after.reason) == (S.REJECTED, "no such image: nginx:nope")
    assert run(a_state(S.PULLING), NO_IMAGE, rules=NEVER).is_done


def test_a_registry_that_is_away_is_tried_again_before_the_attempt_ends() -> None:
    """The task stays in PULLING with the reason, with growing pauses, up to a limit."""
    state, waits = a_state(S.PULLING), []
    for _ in range(PULLS_MAX - 1):
        state = run(state, NO_REGISTRY)
        assert (state.state, state.reason) == (S.PULLING, "registry is away")
        waits.append(state.wait_until_at_s - NOW.at_s)
    assert waits == sorted(waits)
    assert run(state, NO_REGISTRY).state is S.REJECTED


def test_docker_away_ends_nothing_and_costs_no_start_time() -> None:
    """The step is made again, and the start deadline begins anew."""
    for at in (S.PULLING, S.CREATING, S.STARTING, S.RUNNING, S.STOPPING):
        after = run(a_state(at), AWAY)
        assert after.state is at
        assert after.wait_until_at_s > NOW.at_s
        assert command(after).kind is command(a_state(at)).kind
        if at in (S.CREATING, S.STARTING):
            assert after.deadline_at_s == NOW.at_s + START_DEADLINE_S


@pytest.mark.parametrize("at", [S.CREATING, S.STARTING])
def test_a_start_that_takes_too_long_is_ended_before_it_fails(at: AttemptState) -> None:
    """The container may start any moment: it is stopped first, then the attempt has failed."""
    late = run(a_state(at, reason="port 80 is taken"), DeadlinePassed())
    assert (late.state, late.stop_cause) == (S.STOPPING, StopCause.DEADLINE)
    after = run(late, ContainerStopped())
    assert after.state is S.FAILED
    assert "did not start within" in after.reason
    assert "port 80 is taken" in after.reason
    assert after.next_attempt_unix_s


def test_a_failed_start_hook_and_bad_health_end_the_container() -> None:
    """Both stop it as a stop would, and count as failures of the attempt."""
    hook = run(a_state(S.STARTING), HookFailed("post_start failed"), ContainerStopped())
    assert (hook.state, hook.reason) == (S.FAILED, "post_start failed")
    sick = run(a_state(S.RUNNING), HealthSeen(Health.UNHEALTHY))
    assert (sick.state, sick.stop_cause) == (S.STOPPING, StopCause.UNHEALTHY)
    assert run(sick, ContainerStopped()).state is S.FAILED
    assert run(sick, Wanted(False), ContainerStopped()).state is S.STOPPED


def test_health_is_told_and_changes_no_state() -> None:
    """A check that succeeds is news for discovery only."""
    after = run(a_state(S.RUNNING), HealthSeen(Health.HEALTHY))
    assert (after.state, after.health) == (S.RUNNING, Health.HEALTHY)
    assert run(after, HealthSeen(Health.HEALTHY)) is after


def test_pauses_grow_while_it_crashes_and_are_forgotten_when_it_ran_well() -> None:
    """A crash loop is slowed down to a cap; a container that ran on begins anew."""
    state, pauses = a_state(S.RUNNING), []
    for _ in range(6):
        ended = run(state, ContainerEnded(1))
        pauses.append(ended.next_attempt_unix_s - NOW.unix_s)
        state = dataclasses.replace(
            run(ended, WaitOver()), state=S.RUNNING, started_unix_s=NOW.unix_s - 1
        )
    assert pauses == [5.0, 10.0, 20.0, 40.0, DELAY_MAX_S, DELAY_MAX_S]
    assert attempt_report(state).restarts == 6
    well = dataclasses.replace(state, started_unix_s=NOW.unix_s - 3600)
    assert run(well, ContainerEnded(1)).next_attempt_unix_s == NOW.unix_s + 5.0


def test_a_policy_without_a_pause_still_slows_a_crash_loop_down() -> None:
    """`restart: always` restarts at once, then with growing pauses."""
    rules = TaskRules(RestartPolicy(delay_s=0.0))
    state, pauses = a_state(S.RUNNING), []
    for _ in range(3):
        ended = run(state, ContainerEnded(1), rules=rules)
        pauses.append(round(ended.next_attempt_unix_s - NOW.unix_s, 1))
        state = dataclasses.replace(run(ended, WaitOver(), rules=rules), state=S.RUNNING)
    assert pauses == [0.0, 0.2, 0.4]


@pytest.mark.parametrize(
    ("rules", "event", "is_restarted"),
    [
        (NEVER, ContainerEnded(1), False),
        (TaskRules(RestartPolicy(RestartCondition.ON_FAILURE)), ContainerEnded(0), False),
        (TaskRules(RestartPolicy(RestartCondition.ON_FAILURE)), ContainerEnded(1), True),
        (TaskRules(RestartPolicy(RestartCondition.UNLESS_STOPPED)), ContainerEnded(0), True),
        (TaskRules(RestartPolicy(), is_job=True), ContainerEnded(0), False),
        (TaskRules(RestartPolicy(), is_job=True), ContainerEnded(1), True),
        (TaskRules(RestartPolicy(attempts_max=0)), ContainerEnded(1), False),
    ],
)
def test_the_restart_policy_decides(rules: TaskRules, event: Event, is_restarted: bool) -> None:
    """Condition, kind of service and limit say whether another attempt follows."""
    after = run(a_state(S.RUNNING), event, rules=rules)
    assert bool(after.next_attempt_unix_s) is is_restarted
    assert after.is_done is not is_restarted


def test_a_limit_counts_only_what_ended_within_its_window() -> None:
    """Old failures are forgotten; the reason says which limit was reached."""
    rules = TaskRules(RestartPolicy(delay_s=0.0, attempts_max=2, window_s=60.0))
    recent = a_state(S.RUNNING, ends_unix_s=(NOW.unix_s - 20, NOW.unix_s - 10))
    given_up = run(recent, ContainerEnded(1), rules=rules)
    assert given_up.is_done
    assert "restarted 2 times within 60 s" in given_up.reason
    old = a_state(S.RUNNING, ends_unix_s=(NOW.unix_s - 200, NOW.unix_s - 100))
    assert not run(old, ContainerEnded(1), rules=rules).is_done


@pytest.mark.parametrize("at", list(AttemptState))
@pytest.mark.parametrize("event", EVENTS, ids=range(len(EVENTS)))
def test_no_event_sends_any_state_back(at: AttemptState, event: Event) -> None:
    """(attempt, state) only grows, an ended attempt stays ended, and there is always a command."""
    before = a_state(at)
    after = run(before, event)
    assert after.version >= before.version
    if at in TERMINAL_ATTEMPT_STATES and after.attempt == before.attempt:
        assert after.state is before.state
    assert command(after).kind in CommandKind
