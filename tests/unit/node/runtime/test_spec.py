"""Is every field of a container request told to Docker, or refused, and none dropped?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from dray.model import (
    BindOptions,
    BlkioLimits,
    ContainerSpec,
    DeviceMapping,
    DeviceRequest,
    EnvVar,
    FileMount,
    Healthcheck,
    Hook,
    ImageOptions,
    Logging,
    Mount,
    PullPolicy,
    ResourceLimits,
    Security,
    TmpfsOptions,
    VolumeOptions,
)
from node.runtime.base import (
    ContainerNetwork,
    ContainerRequest,
    HostPort,
    Refusal,
    Refused,
)
from node.runtime.spec import (
    HONOURED_ELSEWHERE,
    CreateBody,
    create_body,
    identity_from_labels,
    identity_labels,
    needs_image_entrypoint,
    volumes_needed,
)
from tests.unit.node.runtime.spec_rows import BIND, IDENTITY, IMAGE, ROWS, TMPFS, VOLUME, Row

AROUND: Final = "request_"

# Fields that are values of their own; everything else is walked field by field.
PARTS: Mapping[str, type] = {
    "image": ImageOptions,
    "environment": EnvVar,
    "mounts": Mount,
    "mounts.bind": BindOptions,
    "mounts.volume": VolumeOptions,
    "mounts.tmpfs": TmpfsOptions,
    "configs": FileMount,
    "secrets": FileMount,
    "devices": DeviceMapping,
    "healthcheck": Healthcheck,
    "logging": Logging,
    "security": Security,
    "limits": ResourceLimits,
    "limits.blkio": BlkioLimits,
    "network": ContainerNetwork,
    "network.ports": HostPort,
    "request.devices": DeviceRequest,
}
REQUEST_FIELDS_TESTED_ALONE = {"name", "spec", "network"}


def made(row: Row) -> CreateBody | Refused:
    """Return what becomes of a request with a row's values."""
    change = dict(row.change)
    own = {key: value for key, value in change.items() if not key.startswith(AROUND)}
    around = {key.removeprefix(AROUND): change[key] for key in change.keys() - own.keys()}
    asked = ContainerSpec(**{"image": IMAGE, **own})
    request = ContainerRequest("name", IDENTITY, asked, **around)
    return create_body(request, api=row.api, image_entrypoint=("/image/entry",))


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{n}-{row.path}") for n, row in enumerate(ROWS)]
)
def test_a_field_is_told_or_refused(row: Row) -> None:
    """Each row's value stands where the Engine API wants it, or is refused with its name."""
    found = made(row)
    if not row.where:
        assert isinstance(found, Refused)
        assert found.refusal is Refusal.INVALID
        assert row.told in found.message
        return
    assert isinstance(found, CreateBody), found
    place: Any = found.body
    for key in row.where:
        place = place[key]
    assert place == row.told


def _walk(kind: type, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(kind):
        path = f"{prefix}{field.name}"
        if path in PARTS:
            yield from _walk(PARTS[path], f"{path}.")
        else:
            yield path


def _request_paths() -> Iterator[str]:
    yield from _walk(ContainerSpec)
    yield from _walk(ContainerNetwork, "network.")
    for field in dataclasses.fields(ContainerRequest):
        path = f"request.{field.name}"
        if field.name in REQUEST_FIELDS_TESTED_ALONE:
            continue
        yield from _walk(PARTS[path], f"{path}.") if path in PARTS else [path]


def test_no_field_is_forgotten() -> None:
    """Every field of the request has a row, or is honoured by somebody who is named."""
    paths = set(_request_paths())
    assert len(paths) > 90
    covered = {row.path for row in ROWS} | set(HONOURED_ELSEWHERE)
    assert paths - covered == set()
    assert set(HONOURED_ELSEWHERE) <= paths


def test_what_is_honoured_elsewhere_changes_nothing_here() -> None:
    """Pull policy and hooks are not part of the create call."""
    plain = made(Row("", {}, (), ""))
    image = dataclasses.replace(IMAGE, pull_policy=PullPolicy.REFRESH, pull_refresh_after_s=5.0)
    hook = (Hook(("true",)),)
    assert made(Row("", {"image": image, "post_start": hook, "pre_stop": hook}, (), "")) == plain


def test_an_empty_spec_says_only_what_dray_decides() -> None:
    """Nothing is told that the file did not say, but for identity and Docker's restart policy."""
    found = made(Row("", {}, (), ""))
    assert found == CreateBody(
        {
            "Image": "web:1",
            "Env": [],
            "Labels": {
                "dray.cluster-id": "cluster",
                "dray.task-id": "task",
                "dray.attempt": "4",
                "dray.project": "shop",
                "dray.service": "web",
                "dray.slot": "2",
            },
            "Tty": False,
            "OpenStdin": False,
            "StopTimeout": 10,
            "HostConfig": {
                "RestartPolicy": {"Name": "no"},
                "Privileged": False,
                "ReadonlyRootfs": False,
                "NetworkMode": "none",
            },
        }
    )


def test_the_platform_goes_beside_the_body() -> None:
    """The platform is part of the query, not of the body."""
    found = made(Row("", {"image": ImageOptions("web", "linux/arm64")}, (), ""))
    assert isinstance(found, CreateBody)
    assert found.platform == "linux/arm64"


def test_all_problems_are_named_at_once() -> None:
    """A refusal lists everything that is wrong, with the container's name in front."""
    asked = Security(use_api_socket=True, pid_mode="service:a")
    found = made(Row("", {"security": asked, "labels": (("dray.slot", "1"),)}, (), ""))
    assert isinstance(found, Refused)
    assert found.message.startswith("name: the label dray.slot")
    assert "use_api_socket" in found.message
    assert "pid: service:a" in found.message


def test_two_mounts_of_one_place_are_refused() -> None:
    """Docker keeps only one tmpfs a path, so a second one would be dropped."""
    twice = (Mount(TMPFS, "", "/d"), Mount(TMPFS, "", "/d/"))
    found = made(Row("", {"mounts": twice}, (), ""))
    assert isinstance(found, Refused)
    assert "/d" in found.message


def test_the_image_entrypoint_is_needed_only_to_clear_the_command() -> None:
    """Docker takes an empty command for none, unless an entry point is given."""
    assert needs_image_entrypoint(ContainerSpec(IMAGE, command=()))
    assert not needs_image_entrypoint(ContainerSpec(IMAGE, command=(), entrypoint=("a",)))
    assert not needs_image_entrypoint(ContainerSpec(IMAGE, command=("a",)))
    assert not needs_image_entrypoint(ContainerSpec(IMAGE))


def test_named_volumes_are_needed_once() -> None:
    """Anonymous volumes and other mounts need not exist."""
    mounts = (
        Mount(VOLUME, "b", "/1"),
        Mount(VOLUME, "a", "/2"),
        Mount(VOLUME, "b", "/3"),
        Mount(VOLUME, "", "/4"),
        Mount(BIND, "/s", "/5"),
    )
    assert volumes_needed(ContainerSpec(IMAGE, mounts=mounts)) == ("b", "a")


def test_identity_survives_its_labels() -> None:
    """What is written into labels is read out again."""
    assert identity_from_labels({**identity_labels(IDENTITY), "other": "x"}) == IDENTITY


@pytest.mark.parametrize("name", sorted(identity_labels(IDENTITY)))
@pytest.mark.parametrize("value", [None, "", "0", "-1", "x", "²"])
def test_incomplete_labels_are_nobodys(name: str, value: str | None) -> None:
    """A container whose labels lack something, or say nonsense, is not one of dray's."""
    labels = identity_labels(IDENTITY)
    if value is None:
        del labels[name]
    else:
        labels[name] = value
    is_number = name in ("dray.attempt", "dray.slot")
    found = identity_from_labels(labels)
    if value in (None, "") or is_number:
        assert found is None
    else:
        assert found is not None
