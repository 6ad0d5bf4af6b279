"""May a service begin, given the services that come first? The order of a project's first start.

Only the first start waits: once a service has a task, a dependency that fails later stops nothing.
One that is not required holds back while it may still come to be, and no longer when it has failed.
The services of a project that is placed whole or not at all do not wait for each other.
"""

from __future__ import annotations

from dray.model import (
    JOB_KINDS,
    AttemptState,
    Dependency,
    DependencyCondition,
    Health,
    ServiceKey,
    ServiceModeKind,
    ServiceRecord,
)
from scheduler.reconcile.situation import Situation

__all__ = ["unmet_dependency"]


def unmet_dependency(situation: Situation, record: ServiceRecord) -> str:
    """Return what a service waits for, in words; "": nothing.

    Args:
        situation: What the plan is made from.
        record: The service; one that has a task waits for nothing.
    """
    key = ServiceKey(record.project, record.spec.name)
    project = situation.snapshot.projects.get(record.project)
    if situation.held.get(key) or (project is not None and project.spec.gang):
        return ""
    for dependency in record.spec.depends_on:
        other = ServiceKey(record.project, dependency.service)
        if other not in situation.snapshot.services or _is_met(situation, other, dependency):
            continue
        if dependency.required or not _has_failed(situation, other):
            return _words(dependency)
    return ""


def _has_failed(situation: Situation, other: ServiceKey) -> bool:
    """Return whether a service that is waited for has failed: a job, a task, or its check."""
    record = situation.snapshot.services[other]
    for slot, verdict in situation.snapshot.job_verdicts.items():
        is_current = slot.service_key == other and situation.same_work(
            other, verdict.service_revision, record.revision
        )
        if is_current and verdict.exit_code != 0:
            return True
    items = [item for each in situation.held.get(other, {}).values() for item in each]
    attempts = [attempt for item in items if (attempt := situation.attempt(item))]
    return any(
        attempt.state in (AttemptState.FAILED, AttemptState.REJECTED)
        or attempt.attempt > 1
        or attempt.health is Health.UNHEALTHY
        for attempt in attempts
    )


def _is_met(situation: Situation, other: ServiceKey, dependency: Dependency) -> bool:
    record = situation.snapshot.services[other]
    mode = record.spec.mode
    if mode.kind in JOB_KINDS or dependency.condition is DependencyCondition.COMPLETED:
        return _has_completed(situation, other, record)
    if mode.kind is ServiceModeKind.REPLICATED and mode.replicas == 0:
        return True
    items = [item for each in situation.held.get(other, {}).values() for item in each]
    attempts = [
        attempt
        for item in items
        if not situation.is_given_up(item) and (attempt := situation.attempt(item))
    ]
    running = [attempt for attempt in attempts if attempt.state is AttemptState.RUNNING]
    if dependency.condition is DependencyCondition.HEALTHY:
        return any(attempt.health is Health.HEALTHY for attempt in running)
    return bool(running)


def _has_completed(situation: Situation, other: ServiceKey, record: ServiceRecord) -> bool:
    """Return whether every slot of a job that has begun ended well, and at least one has."""
    verdicts = [
        verdict
        for slot, verdict in situation.snapshot.job_verdicts.items()
        if slot.service_key == other
        and situation.same_work(other, verdict.service_revision, record.revision)
    ]
    wanted = record.spec.mode.replicas or len(verdicts)
    done = [verdict for verdict in verdicts if verdict.exit_code == 0]
    return bool(done or not record.spec.mode.replicas) and len(done) >= max(1, wanted)


def _words(dependency: Dependency) -> str:
    name = dependency.service
    match dependency.condition:
        case DependencyCondition.HEALTHY:
            return f"waits for a task of {name} to run and its health check to succeed"
        case DependencyCondition.COMPLETED:
            return f"waits for {name} to complete"
        case DependencyCondition.STARTED:
            return f"waits for a task of {name} to run"
