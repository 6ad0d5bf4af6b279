"""What does a task do next, given what is known of its newest attempt? The state machine, pure.

One `TaskState` a task. `step` folds what happened into it; `command` says what to carry out now.
Both are tables over `AttemptState`, and neither looks at anything else: a daemon that was killed
between any two steps loads the state, looks at the container (`adoption.py`), and the same command
comes out again. Commands can be repeated at will: creating finds the container by its name,
starting and stopping leave alone what is done.

    PENDING → PULLING → CREATING → STARTING → RUNNING → STOPPING → STOPPED
                │           │          │          │          │
                └───────────┴──────────┴─ REJECTED└──────────┴─ COMPLETED, FAILED

Rules
- (attempt, state) never goes back. An event that a state has no entry for is late news: ignored.
- A container that may run is ended through STOPPING before its attempt ends, so that no task ever
  has two running containers.
- What Docker says of this container ends the attempt, with its words as the reason. Docker that
  does not answer ends nothing: the step is made again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeAlias

from dray.model import (
    TERMINAL_ATTEMPT_STATES,
    AttemptReport,
    AttemptState,
    Health,
    RestartPolicy,
    SlotKey,
)
from dray.names import TaskId
from node.agent.events import (
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
    WaitOver,
    Wanted,
)
from node.agent.restarts import (
    ENDS_KEPT_MAX,
    GiveUp,
    RestartIn,
    ends_in_window,
    ran_well,
    restart_after,
)
from node.runtime.signals import KILLED_EXIT_CODE, SIGNALLED_EXIT_CODE

__all__ = [
    "PULLS_MAX",
    "REASON_LENGTH_MAX",
    "RETRY_DELAY_MAX_S",
    "START_DEADLINE_S",
    "Command",
    "CommandKind",
    "ContainerCreated",
    "ContainerEnded",
    "ContainerGone",
    "ContainerStarted",
    "ContainerStopped",
    "DeadlinePassed",
    "Event",
    "HealthSeen",
    "HookFailed",
    "ImageReady",
    "Now",
    "StepFailed",
    "StepRefused",
    "StopCause",
    "TaskRules",
    "TaskState",
    "WaitOver",
    "Wanted",
    "attempt_report",
    "command",
    "step",
]

START_DEADLINE_S: Final = 120.0  # s from CREATING to RUNNING; fetching the image is not counted
PULLS_MAX: Final = 5  # fetches of one attempt while the registry does not answer
RETRY_DELAY_MAX_S: Final = 30.0  # s between two tries of one step
REASON_LENGTH_MAX: Final = 500  # characters

_Attempt: TypeAlias = AttemptState


@dataclass(frozen=True, slots=True)
class TaskRules:
    """What the machine has to know of the task's service revision."""

    restart: RestartPolicy
    is_job: bool = False


class StopCause(enum.Enum):
    """Why a container that may run is being ended."""

    ORDERED = 1
    UNHEALTHY = 2
    DEADLINE = 3
    """It did not start in time."""
    HOOK_FAILED = 4
    """A command that runs after its start failed."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """All that the node remembers of one task: its newest attempt, and how former ones went.

    Attributes:
        task_id: The task.
        slot: Its slot.
        is_wanted: False once it was told to end; never True again.
        attempt: Number of the container run, from 1.
        state: How far it has come.
        stop_cause: Why it is STOPPING; None otherwise.
        health: What its check says.
        container_id: Docker's id; empty while there is no container.
        address: IPv4 address; empty without one.
        address6: IPv6 address; empty without one.
        exit_code: Exit status, once it ended by itself.
        reason: Why it is in this state; empty when there is nothing to say.
        since_unix_s: When it entered the state.
        started_unix_s: When the container started; 0 before that.
        image_digest: What the image was resolved to.
        ends_unix_s: When attempts ended by themselves, oldest first; those that the restart policy
            still counts.
        failures: Attempts in a row that did not run well.
        tries: Failed tries of the present step.
        wait_until_at_s: No step before this time, on the monotonic clock.
        next_attempt_unix_s: When the next attempt is due; 0: none is.
        deadline_at_s: When starting has taken too long, monotonic; None: no limit now.
    """

    task_id: TaskId
    slot: SlotKey
    is_wanted: bool = True
    attempt: int = 1
    state: AttemptState = AttemptState.PENDING
    stop_cause: StopCause | None = None
    health: Health = Health.NONE
    container_id: str = ""
    address: str = ""
    address6: str = ""
    exit_code: int | None = None
    reason: str = ""
    since_unix_s: float = 0.0
    started_unix_s: float = 0.0
    image_digest: str = ""
    ends_unix_s: tuple[float, ...] = ()
    failures: int = 0
    tries: int = 0
    wait_until_at_s: float = 0.0
    next_attempt_unix_s: float = 0.0
    deadline_at_s: float | None = None

    @property
    def is_ended(self) -> bool:
        """Whether the newest attempt is over."""
        return self.state in TERMINAL_ATTEMPT_STATES

    @property
    def is_done(self) -> bool:
        """Whether nothing will happen any more: over, and no further attempt is due."""
        return self.is_ended and self.next_attempt_unix_s == 0.0

    @property
    def version(self) -> tuple[int, AttemptState]:
        """What only grows."""
        return (self.attempt, self.state)


# ---- what to do now ------------------------------------------------------------------------------


class CommandKind(enum.Enum):
    """What is to be carried out for a task."""

    WAIT = 1
    """Until `WaitOver`: dependencies, the boot gate, or the time `until_at_s`."""
    PULL = 2
    CREATE = 3
    START = 4
    WATCH = 5
    """Wait for the container's end, and for news of its health."""
    STOP = 6
    """Withdraw, drain, signal, kill."""
    REST = 7
    """Nothing, until it is forgotten."""


@dataclass(frozen=True, slots=True)
class Command:
    """One step of one task.

    Attributes:
        kind: What.
        until_at_s: Not before this time, monotonic.
        deadline_at_s: Give up at this time, monotonic; None: no limit.
    """

    kind: CommandKind
    until_at_s: float = 0.0
    deadline_at_s: float | None = None


_COMMANDS: Final[Mapping[AttemptState, CommandKind]] = MappingProxyType(
    {
        _Attempt.PENDING: CommandKind.WAIT,
        _Attempt.PULLING: CommandKind.PULL,
        _Attempt.CREATING: CommandKind.CREATE,
        _Attempt.STARTING: CommandKind.START,
        _Attempt.RUNNING: CommandKind.WATCH,
        _Attempt.STOPPING: CommandKind.STOP,
        _Attempt.COMPLETED: CommandKind.REST,
        _Attempt.FAILED: CommandKind.REST,
        _Attempt.REJECTED: CommandKind.REST,
        _Attempt.STOPPED: CommandKind.REST,
    }
)


def command(state: TaskState) -> Command:
    """Return the one thing to carry out for a task now; the same one as long as nothing happens."""
    kind = _COMMANDS[state.state]
    if kind is CommandKind.REST and state.next_attempt_unix_s:
        kind = CommandKind.WAIT
    return Command(kind, state.wait_until_at_s, state.deadline_at_s)


# ---- what happened -------------------------------------------------------------------------------


def step(state: TaskState, event: Event, rules: TaskRules, now: Now) -> TaskState:
    """Return the state after an event; the same object when it changes nothing.

    Errors: none. An event that does not fit the state is late news and ignored.
    """
    handler = _STEPS.get((state.state, type(event)))
    after = state if handler is None else handler(state, event, rules, now)
    assert after.version >= state.version, (state, event, after)
    return after


def _enter(state: TaskState, to: AttemptState, now: Now, reason: str = "") -> TaskState:
    """Return the attempt in another state; what belonged to the old state only is reset."""
    return replace(
        state,
        state=to,
        reason=reason[:REASON_LENGTH_MAX],
        since_unix_s=now.unix_s,
        tries=0,
        wait_until_at_s=0.0,
        next_attempt_unix_s=0.0,
        stop_cause=None,
    )


def _begin(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    assert isinstance(event, WaitOver)
    return _enter(state, _Attempt.PULLING, now)


def _pulled(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    assert isinstance(event, ImageReady)
    entered = _enter(state, _Attempt.CREATING, now)
    return replace(
        entered, image_digest=event.image_digest, deadline_at_s=now.at_s + START_DEADLINE_S
    )


def _created(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    assert isinstance(event, ContainerCreated)
    return replace(
        _enter(state, _Attempt.STARTING, now),
        container_id=event.container_id,
        address=event.address,
        address6=event.address6,
    )


def _started(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    assert isinstance(event, ContainerStarted)
    entered = _enter(state, _Attempt.RUNNING, now)
    return replace(
        entered,
        started_unix_s=event.started_unix_s,
        health=event.health,
        deadline_at_s=None,
    )


def _unwanted_early(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    """End an attempt that has no container yet."""
    assert isinstance(event, Wanted)
    if event.is_wanted or not state.is_wanted:
        return state
    return replace(_enter(state, _Attempt.STOPPED, now), is_wanted=False)


def _unwanted(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    """End an attempt whose container may run, or may exist in a moment."""
    assert isinstance(event, Wanted)
    if event.is_wanted or not state.is_wanted:
        return state
    return replace(_stopping(state, StopCause.ORDERED, now), is_wanted=False)


def _unwanted_late(state: TaskState, event: Event, _rules: TaskRules, _now: Now) -> TaskState:
    """Note that a task whose attempt ends anyway gets no other one."""
    assert isinstance(event, Wanted)
    if event.is_wanted or not state.is_wanted:
        return state
    return replace(state, is_wanted=False, next_attempt_unix_s=0.0)


def _stopping(state: TaskState, cause: StopCause, now: Now, reason: str = "") -> TaskState:
    entered = _enter(state, _Attempt.STOPPING, now, reason)
    return replace(entered, stop_cause=cause, deadline_at_s=None)


def _too_late(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    assert isinstance(event, DeadlinePassed)
    last = f": {state.reason}" if state.reason else ""
    reason = f"it did not start within {START_DEADLINE_S:g} s{last}"
    return _stopping(state, StopCause.DEADLINE, now, reason)


def _hook_failed(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    assert isinstance(event, HookFailed)
    return _stopping(state, StopCause.HOOK_FAILED, now, event.reason)


def _health(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    assert isinstance(event, HealthSeen)
    if event.health is state.health:
        return state
    seen = replace(state, health=event.health)
    if event.health is not Health.UNHEALTHY or state.state is not _Attempt.RUNNING:
        return seen
    return _stopping(seen, StopCause.UNHEALTHY, now, "its health check failed")


def _ended(state: TaskState, event: Event, rules: TaskRules, now: Now) -> TaskState:
    """End an attempt whose container ended by itself."""
    assert isinstance(event, ContainerEnded)
    to = _Attempt.COMPLETED if event.exit_code == 0 else _Attempt.FAILED
    if event.is_reboot:
        to = _Attempt.FAILED
    ended = replace(state, exit_code=event.exit_code)
    return _over(ended, to, _end_reason(event), rules, now, is_own=not event.is_reboot)


def _end_reason(event: ContainerEnded) -> str:
    reason = _why_it_ended(event)
    return f"{reason}: {event.remark}" if event.remark else reason


def _why_it_ended(event: ContainerEnded) -> str:
    if event.is_reboot:
        return "the machine was restarted"
    if event.oom_killed:
        return "it was killed: out of memory (raise its memory limit, or find what it holds)"
    if event.error:
        return event.error
    if event.exit_code is None:
        return "it ended, Docker does not know how"
    if event.exit_code == KILLED_EXIT_CODE:  # Docker does not always learn why the kernel did it
        return "it ended with exit code 137 (signal 9): killed by somebody, or out of memory"
    if event.exit_code > SIGNALLED_EXIT_CODE:
        number = event.exit_code - SIGNALLED_EXIT_CODE
        return f"it ended with exit code {event.exit_code} (signal {number})"
    return "" if event.exit_code == 0 else f"it ended with exit code {event.exit_code}"


def _gone(state: TaskState, event: Event, rules: TaskRules, now: Now) -> TaskState:
    assert isinstance(event, ContainerGone)
    gone = replace(state, container_id="")
    reason = "its container was removed by somebody else"
    if event.is_reboot:
        reason = "the machine was restarted"
    return _over(gone, _Attempt.FAILED, reason, rules, now, is_own=not event.is_reboot)


def _stopped(state: TaskState, event: Event, rules: TaskRules, now: Now) -> TaskState:
    """End an attempt whose container was ended: by order, or because it was no good."""
    assert isinstance(event, ContainerStopped)
    if state.stop_cause in (StopCause.ORDERED, None) or not state.is_wanted:
        return replace(_enter(state, _Attempt.STOPPED, now), deadline_at_s=None)
    return _over(state, _Attempt.FAILED, state.reason, rules, now, is_own=True)


def _refused(state: TaskState, event: Event, rules: TaskRules, now: Now) -> TaskState:
    """Try again what may succeed later; else the attempt never ran."""
    assert isinstance(event, StepRefused)
    refused = event.refused
    tries_left = state.state is not _Attempt.PULLING or state.tries + 1 < PULLS_MAX
    if refused.retryable and tries_left:
        return _again(state, refused.message, now)
    return _over(state, _Attempt.REJECTED, refused.message, rules, now, is_own=True)


def _failed(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    """Make the step again; while the engine is away, starting is not late."""
    assert isinstance(event, StepFailed)
    is_timed = state.deadline_at_s is not None
    later = now.at_s + START_DEADLINE_S if is_timed else None
    return replace(_again(state, event.reason, now), deadline_at_s=later)


def _again(state: TaskState, reason: str, now: Now) -> TaskState:
    delay_s = min(0.5 * 2.0 ** min(state.tries, 16), RETRY_DELAY_MAX_S)
    return replace(
        state,
        reason=reason[:REASON_LENGTH_MAX],
        tries=state.tries + 1,
        wait_until_at_s=now.at_s + delay_s,
    )


def _over(
    state: TaskState,
    to: AttemptState,
    reason: str,
    rules: TaskRules,
    now: Now,
    *,
    is_own: bool,
) -> TaskState:
    """End the attempt, and decide whether another one follows.

    Args:
        state: Before its end.
        to: COMPLETED, FAILED or REJECTED.
        reason: Why.
        rules: The service's.
        now: The time.
        is_own: The task's own doing: it counts towards the policy's limits.
    """
    ran_s = now.unix_s - state.started_unix_s if state.started_unix_s else 0.0
    failures = 0 if not is_own or ran_well(rules.restart, ran_s) else state.failures + 1
    ends = ends_in_window(rules.restart, state.ends_unix_s, now.unix_s)
    if is_own:
        ends = (*ends, now.unix_s)[-ENDS_KEPT_MAX:]
    ended = replace(
        _enter(state, to, now, reason), ends_unix_s=ends, failures=failures, deadline_at_s=None
    )
    if not state.is_wanted:
        return ended
    decision = restart_after(
        rules.restart, to, is_job=rules.is_job, failures=failures, ends=len(ends)
    )
    match decision:
        case GiveUp(why):
            both = "; ".join(part for part in (reason, why) if part)
            return replace(ended, reason=both[:REASON_LENGTH_MAX])
        case RestartIn(delay_s):
            pause_s = delay_s if is_own else 0.0
            return replace(
                ended,
                wait_until_at_s=now.at_s + pause_s,
                next_attempt_unix_s=now.unix_s + pause_s,
            )


def _next_attempt(state: TaskState, event: Event, _rules: TaskRules, now: Now) -> TaskState:
    """Begin another attempt, if one is due."""
    assert isinstance(event, WaitOver)
    if not state.next_attempt_unix_s or not state.is_wanted:
        return state
    return TaskState(
        state.task_id,
        state.slot,
        attempt=state.attempt + 1,
        address=state.address,
        address6=state.address6,
        since_unix_s=now.unix_s,
        ends_unix_s=state.ends_unix_s,
        failures=state.failures,
    )


_Handler: TypeAlias = Callable[[TaskState, Event, TaskRules, Now], TaskState]

_STEPS: Final[Mapping[tuple[AttemptState, type], _Handler]] = MappingProxyType(
    {
        (_Attempt.PENDING, WaitOver): _begin,
        (_Attempt.PENDING, Wanted): _unwanted_early,
        (_Attempt.PULLING, ImageReady): _pulled,
        (_Attempt.PULLING, StepRefused): _refused,
        (_Attempt.PULLING, StepFailed): _failed,
        (_Attempt.PULLING, Wanted): _unwanted_early,
        (_Attempt.CREATING, ContainerCreated): _created,
        (_Attempt.CREATING, StepRefused): _refused,
        (_Attempt.CREATING, StepFailed): _failed,
        (_Attempt.CREATING, DeadlinePassed): _too_late,
        (_Attempt.CREATING, Wanted): _unwanted,
        (_Attempt.STARTING, ContainerStarted): _started,
        (_Attempt.STARTING, HookFailed): _hook_failed,
        (_Attempt.STARTING, HealthSeen): _health,
        (_Attempt.STARTING, ContainerEnded): _ended,
        (_Attempt.STARTING, ContainerGone): _gone,
        (_Attempt.STARTING, StepRefused): _refused,
        (_Attempt.STARTING, StepFailed): _failed,
        (_Attempt.STARTING, DeadlinePassed): _too_late,
        (_Attempt.STARTING, Wanted): _unwanted,
        (_Attempt.RUNNING, HealthSeen): _health,
        (_Attempt.RUNNING, ContainerEnded): _ended,
        (_Attempt.RUNNING, ContainerGone): _gone,
        (_Attempt.RUNNING, StepFailed): _failed,
        (_Attempt.RUNNING, Wanted): _unwanted,
        (_Attempt.STOPPING, ContainerStopped): _stopped,
        (_Attempt.STOPPING, StepFailed): _failed,
        (_Attempt.STOPPING, Wanted): _unwanted_late,
        (_Attempt.COMPLETED, Wanted): _unwanted_late,
        (_Attempt.FAILED, Wanted): _unwanted_late,
        (_Attempt.REJECTED, Wanted): _unwanted_late,
        (_Attempt.COMPLETED, WaitOver): _next_attempt,
        (_Attempt.FAILED, WaitOver): _next_attempt,
        (_Attempt.REJECTED, WaitOver): _next_attempt,
    }
)
"""What each event does in each state; all other pairs change nothing."""


def attempt_report(state: TaskState) -> AttemptReport:
    """Return what the leader is told of a task."""
    return AttemptReport(
        task_id=state.task_id,
        attempt=state.attempt,
        state=state.state,
        health=state.health,
        container_id=state.container_id,
        address=state.address,
        address6=state.address6,
        exit_code=state.exit_code,
        reason=state.reason,
        since_unix_s=state.since_unix_s,
        started_unix_s=state.started_unix_s,
        restarts=len(state.ends_unix_s),
        next_attempt_unix_s=state.next_attempt_unix_s,
        image_digest=state.image_digest,
    )
