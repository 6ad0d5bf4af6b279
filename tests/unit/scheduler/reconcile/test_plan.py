"""What does this version of `reconcile` do beyond the contract, and what does it leave alone?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import (
    Autoscale,
    Mount,
    MountKind,
    ServiceExtensions,
    ServiceSpec,
)
from scheduler.reconcile import CreateTask, Note, Observed, reconcile
from tests.builders import CountingIds, a_record, a_service, a_snapshot, a_task


def with_mount(kind: MountKind, source: str = "data") -> ServiceSpec:
    """Return a service with one mount."""
    spec = a_service()
    container = replace(spec.task.container, mounts=(Mount(kind, source, "/data"),))
    return replace(spec, task=replace(spec.task, container=container))


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        (a_service(dray=ServiceExtensions(autoscale=Autoscale(1, 3, 50))), "automatic scaling"),
        (a_service(dray=ServiceExtensions(schedule="* * * * *")), "times of a job"),
    ],
    ids=["autoscale", "schedule"],
)
def test_what_cannot_be_planned_is_left_alone_with_a_note(spec: ServiceSpec, asked: str) -> None:
    """Nothing begins or ends, and the note says what was asked for."""
    snapshot = a_snapshot([a_record(spec)], {1: [a_task(1, revision=1), a_task(2, stop=True)]})
    plan = reconcile(snapshot, Observed(), 0.0, CountingIds())
    assert plan.actions == ()
    message = f"cannot plan {asked} yet; its tasks are left alone"
    assert plan.notes == (Note("shop/web", message),)


@pytest.mark.parametrize(
    "spec",
    [
        with_mount(MountKind.TMPFS, ""),
        with_mount(MountKind.VOLUME, ""),
        with_mount(MountKind.IMAGE),
    ],
    ids=["tmpfs", "anonymous", "image"],
)
def test_mounts_that_pin_nothing_are_planned(spec: ServiceSpec) -> None:
    """Temporary file systems, anonymous volumes and images may come up on any node."""
    plan = reconcile(a_snapshot([a_record(spec)]), Observed(), 0.0, CountingIds())
    (create,) = plan.actions
    assert isinstance(create, CreateTask)
    assert (create.pins, plan.notes) == ((), ())
