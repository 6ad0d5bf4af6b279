"""Is a task that ended started again on the spot, and after what pause?

Pure. The policy is the service's (`RestartPolicy`); what grows is the pause: it doubles with every
attempt in a row that did not run well, so that a crash loop costs the machine little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from dray.model import AttemptState, RestartCondition, RestartPolicy

__all__ = [
    "DELAY_MAX_S",
    "ENDS_KEPT_MAX",
    "RAN_WELL_AFTER_S",
    "GiveUp",
    "RestartIn",
    "ends_in_window",
    "ran_well",
    "restart_after",
]

DELAY_MAX_S: Final = 60.0  # s: Docker's own cap; a policy's longer first delay stands
RAN_WELL_AFTER_S: Final = 10.0  # s: Docker's own measure of a successful start
ENDS_KEPT_MAX: Final = 200  # ends remembered of one task; a larger limit of a policy counts as it
_DOUBLINGS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class RestartIn:
    """A new attempt starts after so many seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt. Empty reason: the end was what the policy calls right."""

    reason: str = ""


def restart_after(
    policy: RestartPolicy,
    state: AttemptState,
    *,
    is_job: bool,
    failures: int,
    ends: int,
) -> RestartIn | GiveUp:
    """Return what follows an attempt that ended by itself.

    Args:
        policy: The service's rule.
        state: COMPLETED, FAILED or REJECTED.
        is_job: A job's success is its end, whatever the policy says.
        failures: Attempts in a row that did not run well, this one included; 0: it ran well.
        ends: Ends within the policy's window, this one included.
    """
    assert state in (AttemptState.COMPLETED, AttemptState.FAILED, AttemptState.REJECTED), state
    is_success = state is AttemptState.COMPLETED
    if is_job and is_success:
        return GiveUp()
    match policy.condition:
        case RestartCondition.NONE:
            return GiveUp("" if is_success else "its restart policy is none")
        case RestartCondition.ON_FAILURE if is_success:
            return GiveUp()
        case RestartCondition.ON_FAILURE | RestartCondition.ANY | RestartCondition.UNLESS_STOPPED:
            pass
        case _:
            assert_never(policy.condition)
    if policy.attempts_max is not None and ends > min(policy.attempts_max, ENDS_KEPT_MAX):
        within = f" within {policy.window_s:g} s" if policy.window_s > 0 else ""
        return GiveUp(f"it was restarted {policy.attempts_max} times{within}, its policy's limit")
    doublings = min(max(failures - 1, 0), _DOUBLINGS_MAX)
    delay_s = max(policy.delay_s, 0.0) * 2.0**doublings
    if failures > 1 and policy.delay_s <= 0:  # a policy without a pause still ends in one
        delay_s = 0.1 * 2.0**doublings
    return RestartIn(min(delay_s, max(policy.delay_s, DELAY_MAX_S)))


def ran_well(policy: RestartPolicy, ran_s: float) -> bool:
    """Return whether a container that ran so many seconds counts as started well."""
    return ran_s >= max(policy.window_s, RAN_WELL_AFTER_S)


def ends_in_window(
    policy: RestartPolicy, ends_unix_s: tuple[float, ...], now_unix_s: float
) -> tuple[float, ...]:
    """Return the ends that still count, oldest first, at most `ENDS_KEPT_MAX`."""
    if policy.window_s > 0:
        ends_unix_s = tuple(at for at in ends_unix_s if at > now_unix_s - policy.window_s)
    return ends_unix_s[-ENDS_KEPT_MAX:]
