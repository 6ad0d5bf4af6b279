"""What does this version of `reconcile` do beyond the contract, and what does it leave alone?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import (
    Autoscale,
    Availability,
    Mount,
    MountKind,
    ServiceExtensions,
    ServiceMode,
    ServiceModeKind,
    ServiceSpec,
)
from scheduler.reconcile import CreateTask, Note, Observed, reconcile
from tests.builders import CountingIds, a_node, a_record, a_service, a_snapshot, a_task


def with_mount(kind: MountKind, source: str = "data") -> ServiceSpec:
    """Return a service with one mount."""
    spec = a_service()
    container = replace(spec.task.container, mounts=(Mount(kind, source, "/data"),))
    return replace(spec, task=replace(spec.task, container=container))


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        (a_service(mode=ServiceMode(ServiceModeKind.GLOBAL, 0)), "global services"),
        (
            a_service(mode=ServiceMode(ServiceModeKind.REPLICATED_JOB, 2)),
            "replicated job services",
        ),
        (a_service(mode=ServiceMode(ServiceModeKind.GLOBAL_JOB, 0)), "global job services"),
        (a_service(dray=ServiceExtensions(singleton=True)), "singletons"),
        (a_service(dray=ServiceExtensions(autoscale=Autoscale(1, 3, 50))), "automatic scaling"),
        (with_mount(MountKind.VOLUME), "volumes and bind mounts"),
        (with_mount(MountKind.BIND, "/srv"), "volumes and bind mounts"),
        (with_mount(MountKind.CLUSTER), "volumes and bind mounts"),
    ],
    ids=["global", "job", "global-job", "singleton", "autoscale", "volume", "bind", "cluster"],
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
    assert [type(action) for action in plan.actions] == [CreateTask]
    assert plan.notes == ()


def test_a_drain_that_is_asked_for_is_not_passed_over() -> None:
    """A node to be drained that still has tasks is named; one without tasks is not."""
    nodes = [a_node(number, availability=Availability.DRAIN) for number in (1, 2, 3)]
    snapshot = a_snapshot([a_record()], {1: [a_task(1)], 2: []}, nodes=nodes)
    plan = reconcile(snapshot, Observed(), 0.0, CountingIds())
    assert plan.actions == ()
    assert plan.notes == (Note("node n1", "cannot plan drains yet; its tasks stay"),)
