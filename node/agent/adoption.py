"""What has become of the node's tasks while its daemon was away? Pure.

A daemon that starts has what it wrote down and what the engine shows. `adopted` folds the second
into the first by the machine's own events, so that a daemon killed between any two steps goes on
where it was: what runs is left alone, what ended meanwhile has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dray.model import AttemptState, Health
from dray.names import TaskId
from node.agent.tasks import (
    ContainerEnded,
    ContainerGone,
    HealthSeen,
    Now,
    TaskRules,
    TaskState,
    step,
)
from node.runtime.base import Container, ContainerState

__all__ = [
    "Adoption",
    "adopted",
    "ended_event",
    "is_newer",
    "newest_containers",
    "on_this_clock",
]


@dataclass(frozen=True, slots=True)
class Adoption:
    """The engine's containers, sorted by what they mean to the node.

    Attributes:
        newest: The container of the highest attempt of each task.
        outdated: Those of older attempts; they are removed when they do not run.
    """

    newest: Mapping[TaskId, Container]
    outdated: tuple[Container, ...]


def newest_containers(containers: Iterable[Container]) -> Adoption:
    """Sort the engine's containers by task; those that are not dray's are left out."""
    newest: dict[TaskId, Container] = {}
    outdated = []
    for container in containers:
        if container.identity is None:
            continue
        task_id = container.identity.task_id
        other = newest.get(task_id)
        if other is None:
            newest[task_id] = container
        elif _attempt(container) > _attempt(other):
            newest[task_id] = container
            outdated.append(other)
        else:
            outdated.append(container)
    return Adoption(newest, tuple(outdated))


def _attempt(container: Container) -> int:
    return container.identity.attempt if container.identity is not None else 0


def adopted(
    state: TaskState | None,
    container: Container | None,
    rules: TaskRules,
    now: Now,
    *,
    is_reboot: bool,
) -> TaskState | None:
    """Return the state of a task as it is now; None when nothing at all is known of it.

    Args:
        state: What was written down; None: nothing (the file was lost).
        container: That of its highest attempt; None: there is none.
        rules: The service's.
        now: The time.
        is_reboot: The machine was restarted since the state was written.
    """
    if state is None:
        return None if container is None else _from_container(container, now)
    state = on_this_clock(state, now)
    if container is not None and _attempt(container) > state.attempt:
        found = _from_container(container, now)
        state = replace(found, is_wanted=state.is_wanted, ends_unix_s=state.ends_unix_s)
    elif container is None or _attempt(container) < state.attempt:
        return _without_container(state, rules, now, is_reboot=is_reboot)
    return _with_container(state, container, rules, now, is_reboot=is_reboot)


def is_newer(container: Container | None, state: TaskState) -> bool:
    """Return whether a container is that of a later attempt than a task is known to have."""
    return container is not None and _attempt(container) > state.attempt


def on_this_clock(state: TaskState, now: Now) -> TaskState:
    """Return the state with times of this process: the monotonic clock has another start now."""
    wait_s = max(0.0, state.next_attempt_unix_s - now.unix_s) if state.next_attempt_unix_s else 0.0
    # the wall clock may have been set back: no back-off outlasts its own cap because of that
    wait_until_at_s = now.at_s + min(wait_s, 600.0)
    later = now.at_s + 120.0 if state.deadline_at_s is not None else None
    return replace(state, wait_until_at_s=wait_until_at_s, deadline_at_s=later, tries=0)


def _from_container(container: Container, now: Now) -> TaskState:
    """Return the state that a container alone shows."""
    identity = container.identity
    assert identity is not None, container.container_id
    has_run = container.state is not ContainerState.CREATED
    return TaskState(
        identity.task_id,
        identity.slot,
        attempt=identity.attempt,
        state=AttemptState.RUNNING if has_run else AttemptState.STARTING,
        container_id=container.container_id,
        address=container.ipv4_address,
        health=container.health,
        since_unix_s=container.started_unix_s or now.unix_s,
        started_unix_s=container.started_unix_s,
        image_digest=container.image_digest,
        deadline_at_s=None if has_run else now.at_s + 120.0,
    )


def _without_container(
    state: TaskState, rules: TaskRules, now: Now, *, is_reboot: bool
) -> TaskState:
    if state.state in (AttemptState.STARTING, AttemptState.RUNNING):
        return step(state, ContainerGone(is_reboot=is_reboot), rules, now)
    return replace(state, container_id="") if state.container_id else state


def _with_container(
    state: TaskState, container: Container, rules: TaskRules, now: Now, *, is_reboot: bool
) -> TaskState:
    """Fold a container of the newest attempt into the state."""
    state = replace(state, container_id=container.container_id)
    if container.state is ContainerState.EXITED:
        return step(state, ended_event(container, is_reboot=is_reboot), rules, now)
    if container.health is not Health.NONE:
        return step(state, HealthSeen(container.health), rules, now)
    return state


def ended_event(container: Container, *, is_reboot: bool = False) -> ContainerEnded:
    """Return what the end of a container means to its task."""
    return ContainerEnded(
        container.exit_code,
        oom_killed=container.oom_killed,
        error=container.error,
        is_reboot=is_reboot,
    )
