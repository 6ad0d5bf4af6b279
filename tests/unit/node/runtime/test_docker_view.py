"""Are the engine's answers read rightly, also the odd ones?"""

from __future__ import annotations

from typing import Any

import pytest

from dray.model import Health, SlotKey
from dray.names import ClusterId, TaskId
from node.runtime.base import ContainerIdentity, ContainerState, PullProgress, RuntimeEventKind
from node.runtime.docker_pull import LayerProgress
from node.runtime.docker_view import (
    container_from_inspect,
    engine_info,
    event_from_json,
    health_from_list,
    unix_ns_from_text,
    usage_from_stats,
)
from node.runtime.spec import identity_labels

IDENTITY = ContainerIdentity(ClusterId("c"), TaskId("t"), 1, SlotKey("shop", "web", 1))
NEVER = "0001-01-01T00:00:00Z"


def inspected(**state: Any) -> dict[str, Any]:
    """Return the engine's answer about a container in some state."""
    told = {
        "Status": "running",
        "ExitCode": 0,
        "Pid": 42,
        "StartedAt": "2024-01-01T00:00:01.5Z",
        "FinishedAt": NEVER,
        **state,
    }
    return {
        "Id": "abc",
        "Name": "/web.1",
        "Image": "sha256:1",
        "State": told,
        "Config": {"Labels": identity_labels(IDENTITY)},
        "NetworkSettings": {"Networks": {"dray": {"IPAddress": "10.192.0.2"}, "b": None}},
    }


def test_a_running_container_is_read() -> None:
    """All that the port shows of a running container."""
    found = container_from_inspect(inspected(Health={"Status": "healthy"}))
    assert found.name == "web.1"
    assert found.identity == IDENTITY
    assert found.state is ContainerState.RUNNING
    assert found.health is Health.HEALTHY
    assert (found.pid, found.exit_code) == (42, None)
    assert found.started_unix_s == 1704067201.5
    assert found.finished_unix_s == 0.0
    assert found.ipv4_address == "10.192.0.2"


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 2 hours (healthy)", Health.HEALTHY),
        ("Up 5 seconds (unhealthy)", Health.UNHEALTHY),
        ("Up Less than a second (health: starting)", Health.STARTING),
        ("Up 3 days (Paused)", Health.NONE),
        ("Up 3 days", Health.NONE),
        ("", Health.NONE),
    ],
)
def test_a_list_says_what_the_check_says(status: str, health: Health) -> None:
    """The words that the engine has for people are read."""
    assert health_from_list({"Status": status}) is health


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [
        ("created", ContainerState.CREATED, None),
        ("paused", ContainerState.PAUSED, None),
        ("exited", ContainerState.EXITED, 137),
        ("dead", ContainerState.EXITED, 137),
        ("removing", ContainerState.EXITED, 137),
    ],
)
def test_every_status_has_a_state(status: str, state: ContainerState, code: int | None) -> None:
    """Only what has ended has an exit status; 127 of a failed start is no exit status."""
    found = container_from_inspect(inspected(Status=status, ExitCode=137, OOMKilled=True))
    assert (found.state, found.exit_code, found.oom_killed) == (state, code, True)


@pytest.mark.parametrize("status", ["removing", "dead"])
def test_what_never_ran_has_no_exit_status(status: str) -> None:
    """A container that is removed before it was started has not completed with 0."""
    found = container_from_inspect(inspected(Status=status, ExitCode=0, StartedAt=NEVER))
    assert (found.state, found.exit_code) == (ContainerState.CREATED, None)


@pytest.mark.parametrize(
    ("text", "unix_ns"),
    [
        ("1970-01-01T00:00:01.000000001Z", 1_000_000_001),
        ("2024-01-01T01:00:00.5+01:00", 1_704_067_200_500_000_000),
        ("2024-01-01T00:00:00Z", 1_704_067_200_000_000_000),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times_keep_their_nanoseconds(text: str, unix_ns: int | None) -> None:
    """Nine digits and any zone are read exactly; nonsense is None."""
    assert unix_ns_from_text(text) == unix_ns


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("create", RuntimeEventKind.CREATED),
        ("start", RuntimeEventKind.STARTED),
        ("die", RuntimeEventKind.DIED),
        ("oom", RuntimeEventKind.OOM),
        ("health_status: unhealthy", RuntimeEventKind.HEALTH),
        ("destroy", RuntimeEventKind.REMOVED),
        ("exec_create: sh", None),
        ("attach", None),
    ],
)
def test_events_are_read_by_their_action(action: str, kind: RuntimeEventKind | None) -> None:
    """Actions that say something of a container's life are events; others are not."""
    told = {
        "Type": "container",
        "Action": action,
        "Actor": {"ID": "abc", "Attributes": identity_labels(IDENTITY)},
        "timeNano": 1_500_000_000,
    }
    found = event_from_json(told)
    if kind is None:
        assert found is None
    else:
        assert found is not None
        assert (found.kind, found.container_id, found.unix_s) == (kind, "abc", 1.5)
        assert found.identity == IDENTITY


@pytest.mark.parametrize("cache_name", ["total_inactive_file", "inactive_file"])
def test_usage_is_the_working_set(cache_name: str) -> None:
    """Memory is without idle file pages, under either cgroup version; counters are summed."""
    told = {
        "read": "2024-01-01T00:00:00Z",
        "cpu_stats": {"cpu_usage": {"total_usage": 7}},
        "memory_stats": {"usage": 1000, "stats": {cache_name: 300}},
        "pids_stats": {"current": 3},
        "networks": {
            "eth0": {"rx_bytes": 1, "tx_bytes": 2},
            "eth1": {"rx_bytes": 10, "tx_bytes": 20},
        },
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"op": "Read", "value": 5},
                {"op": "read", "value": 6},
                {"op": "Write", "value": 7},
                {"op": "Total", "value": 99},
            ]
        },
    }
    found = usage_from_stats("abc", told)
    assert found is not None
    assert (found.cpu_total_ns, found.memory_bytes, found.pids) == (7, 700, 3)
    assert (found.network_rx_bytes, found.network_tx_bytes) == (11, 22)
    assert (found.block_read_bytes, found.block_write_bytes) == (11, 7)


def test_usage_of_what_does_not_run_is_none() -> None:
    """The engine answers zeros and its zero time for a container that has ended."""
    assert usage_from_stats("abc", {"read": NEVER, "cpu_stats": {}}) is None


def test_the_machine_is_named_as_images_name_it() -> None:
    """`x86_64` is `amd64`; an engine that does not tell its cgroup version has the first."""
    told = {
        "ServerVersion": "20.10.24",
        "OSType": "linux",
        "Architecture": "x86_64",
        "DockerRootDir": "/var/lib/docker",
        "LiveRestoreEnabled": True,
    }
    found = engine_info(told)
    assert (found.architecture, found.cgroup_version, found.live_restore) == ("amd64", 1, True)


def test_progress_is_summed_over_layers() -> None:
    """Layers that are here count as done without bytes; bytes never exceed their total."""
    layers = LayerProgress()
    assert layers.take({"status": "Pulling from web", "id": "1"}) is None
    assert layers.take({"status": "Already exists", "id": "a"}) == PullProgress(1, 1, 0, 0)
    assert layers.take({"status": "Pulling fs layer", "id": "b"}) == PullProgress(1, 2, 0, 0)
    half = {"status": "Downloading", "id": "b", "progressDetail": {"current": 5, "total": 10}}
    assert layers.take(half) == PullProgress(1, 2, 5, 10)
    assert layers.take({"status": "Download complete", "id": "b"}) == PullProgress(1, 2, 10, 10)
    extracting = {"status": "Extracting", "id": "b", "progressDetail": {"current": 1}}
    assert layers.take(extracting) == PullProgress(1, 2, 10, 10)
    assert layers.take({"status": "Pull complete", "id": "b"}) == PullProgress(2, 2, 10, 10)
    assert layers.take({"status": "Digest: sha256:1"}) is None
