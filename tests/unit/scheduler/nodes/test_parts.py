"""Is a node told all that its tasks need, and nothing more?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import (
    ContentKind,
    ContentRef,
    FileMount,
    Mount,
    MountKind,
    NetworkAttachment,
    NetworkSpec,
    ProjectParts,
    ProjectSpec,
    ServiceAddress,
    ServiceMode,
    ServiceModeKind,
    ServiceRecord,
    ServiceRevision,
    ServiceSpec,
    VolumeSpec,
)
from scheduler.nodes.parts import share_of
from scheduler.store.records import ProjectRecord, VolumePin
from scheduler.store.snapshot import Snapshot, VolumeKey
from tests.builders import a_key, a_record, a_service, a_slot, a_snapshot, a_task, node_id

CONFIG = ContentRef(ContentKind.CONFIG, "nginx", "shop_nginx", b"c" * 32, 3)
UNUSED = ContentRef(ContentKind.CONFIG, "other", "shop_other", b"o" * 32, 3)
SECRET = ContentRef(ContentKind.SECRET, "nginx", "shop_nginx", b"s" * 32, 3)
LOGIN = ContentRef(ContentKind.REGISTRY_AUTH, "registry.local", digest=b"r" * 32)
PROJECT = ProjectRecord(
    ProjectSpec(
        "shop",
        networks=(NetworkSpec("back", "shop_back"), NetworkSpec("front", "shop_front")),
        volumes=(VolumeSpec("data", "shop_data"), VolumeSpec("logs", "shop_logs")),
    ),
    (CONFIG, UNUSED, SECRET, LOGIN),
)


def with_everything(mode: ServiceMode | None = None) -> ServiceSpec:
    """Return a service on one network, with a volume and a config."""
    spec = a_service(mode=mode)
    container = replace(
        spec.task.container,
        mounts=(Mount(MountKind.VOLUME, "data", "/data"), Mount(MountKind.BIND, "/srv", "/srv")),
        configs=(FileMount("nginx", "/etc/nginx"),),
    )
    task = replace(spec.task, container=container, networks=(NetworkAttachment("front"),))
    return replace(spec, task=task)


def with_task(record: ServiceRecord, *pins: VolumePin) -> Snapshot:
    """Return a store in which node n1 has one task of a service."""
    snapshot = a_snapshot([record], {1: [a_task(1)]})
    return replace(
        snapshot,
        projects={"shop": PROJECT},
        volume_pins={VolumeKey(pin.project, pin.volume): pin for pin in pins},
    )


def parts(snapshot: Snapshot) -> ProjectParts:
    """Return what node n1 is told of the one project."""
    share = share_of(snapshot, node_id(1))
    assert share is not None
    (found,) = share.projects
    return found


def test_a_node_that_was_never_assigned_anything_is_told_nothing() -> None:
    """Unknown is not empty."""
    assert share_of(a_snapshot(), node_id(1)) is None


def test_tasks_come_with_what_they_run_and_what_that_needs() -> None:
    """Only the networks, volumes and contents that the tasks use; credentials in any case."""
    record = replace(a_record(with_everything()), vip="10.224.0.1")
    snapshot = with_task(record)
    share = share_of(snapshot, node_id(1))
    assert share is not None
    assert share.assignment.specs == (record.spec_entry,)
    assert parts(snapshot) == ProjectParts(
        "shop",
        (PROJECT.spec.networks[1],),
        (PROJECT.spec.volumes[0],),
        (),
        (CONFIG, LOGIN),
        (ServiceAddress("web", "10.224.0.1"),),
    )


@pytest.mark.parametrize(
    ("pin", "creatable"),
    [
        (VolumePin("shop", "shop_data", node_id(1)), ("shop_data",)),
        (VolumePin("shop", "shop_data", node_id(1), is_made=True), ()),
        (VolumePin("shop", "shop_data", node_id(2)), ()),
        (VolumePin("shop", "shop_logs", node_id(1)), ()),
    ],
    ids=["pinned here", "made before", "pinned elsewhere", "another volume"],
)
def test_a_volume_is_made_once_and_where_it_is_pinned(
    pin: VolumePin, creatable: tuple[str, ...]
) -> None:
    """A volume that has been there is never made again, empty."""
    assert parts(with_task(a_record(with_everything()), pin)).creatable_volumes == creatable


def test_a_service_with_a_task_a_node_makes_its_volume_on_every_node() -> None:
    """Nothing pins it: each node has data of its own."""
    spec = with_everything(ServiceMode(ServiceModeKind.GLOBAL, 0))
    assert parts(with_task(a_record(spec))).creatable_volumes == ("shop_data",)


def test_a_volume_whose_data_is_elsewhere_is_made_on_any_node() -> None:
    """A driver's volume, or a share of a server, is the same wherever it is made."""
    for volume in (
        VolumeSpec("data", "shop_data", driver="ceph"),
        VolumeSpec("data", "shop_data", driver_opts=(("type", "nfs"),)),
    ):
        snapshot = with_task(a_record(with_everything()))
        project = replace(PROJECT, spec=replace(PROJECT.spec, volumes=(volume,)))
        told = parts(replace(snapshot, projects={"shop": project}))
        assert told.creatable_volumes == ("shop_data",)


def test_an_older_task_comes_with_the_revision_that_it_runs() -> None:
    """The newest one is not what every task runs."""
    old = a_record(a_service(image="web:1"))
    snapshot = a_snapshot(
        [a_record(a_service(image="web:2"), revision=2)],
        {1: [a_task(1), a_task(2, a_slot(2), revision=2)]},
    )
    snapshot = replace(snapshot, revisions={(a_key(), ServiceRevision(1)): old})
    share = share_of(snapshot, node_id(1))
    assert share is not None
    assert [spec.service_revision for spec in share.assignment.specs] == [1, 2]
    assert share.projects == (ProjectParts("shop"),)
