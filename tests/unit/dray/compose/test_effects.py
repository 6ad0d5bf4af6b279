"""Does every key of an available executor reach it and change what it does?

A key that is called honoured without an effect would be dropped in silence.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from dray.compose.treatment import AVAILABLE, ROWS, Executor
from dray.model import NodeCapacity, ServiceSpec, Taint
from dray.names import NodeId
from node.runtime.base import ContainerIdentity, ContainerRequest
from node.runtime.spec import CreateBody, create_body
from scheduler.placement import cluster_view, place
from tests.builders import (
    CLUSTER_ID,
    GIB,
    a_group,
    a_placement_node,
    a_share,
    a_slot,
    node_id,
    task_id,
)
from tests.compose_views import a_config, project_of

_API: Final = (1, 48)  # an engine that knows everything that can be said
_PREFIX: Final = "services.*."

TOLD: Final[dict[str, Any]] = {
    "annotations": {"a": "b"},
    "blkio_config": {"weight": 300},
    "cap_add": ["NET_ADMIN"],
    "cap_drop": ["ALL"],
    "cgroup": "host",
    "cgroup_parent": "m",
    "command": ["x"],
    "cpu_period": 50_000,
    "cpu_quota": 50_000,
    "cpu_rt_period": 1000,
    "cpu_rt_runtime": 1000,
    "cpu_shares": 512,
    "cpus": 0.5,
    "cpuset": "0-1",
    "device_cgroup_rules": ["c 1:3 mr"],
    "devices": [{"source": "/dev/kvm", "target": "/dev/kvm"}],
    "dns": ["9.9.9.9"],
    "dns_opt": ["ndots:2"],
    "dns_search": ["example.org"],
    "domainname": "example.org",
    "entrypoint": ["x"],
    "environment": {"A": "1"},
    "extra_hosts": ["db=10.0.0.2"],
    "group_add": ["audio"],
    "healthcheck": {"test": ["CMD", "x"]},
    "hostname": "web",
    "image": "other",
    "init": True,
    "ipc": "host",
    "labels": {"a": "b"},
    "logging": {"driver": "local"},
    "mem_limit": "1048576",
    "mem_swappiness": "5",
    "memswap_limit": "2097152",
    "oom_kill_disable": True,
    "oom_score_adj": 5,
    "pid": "host",
    "pids_limit": 10,
    "privileged": True,
    "read_only": True,
    "runtime": "runsc",
    "security_opt": ["no-new-privileges:true"],
    "shm_size": "1048576",
    "stdin_open": True,
    "stop_grace_period": "1m",
    "stop_signal": "SIGQUIT",
    "storage_opt": {"size": "1G"},
    "sysctls": {"net.core.somaxconn": "9"},
    "tmpfs": ["/run"],
    "tty": True,
    "ulimits": {"nproc": 5},
    "user": "5",
    "userns_mode": "host",
    "uts": "host",
    "working_dir": "/srv",
}
# Not said when a container is made: the runtime's `pull` reads them, held by its contract tests.
_PULLED: Final = {"pull_policy", "pull_refresh_after"}


def _spec(service: dict[str, Any], **top: object) -> ServiceSpec:
    result = project_of(a_config(service, **top), available=AVAILABLE)
    assert not [*result.refusals, *result.faults, *result.problems]
    return result.project.services[0]


def _body(service: dict[str, Any]) -> CreateBody:
    identity = ContainerIdentity(CLUSTER_ID, task_id(1), 1, a_slot())
    request = ContainerRequest("web.1", identity, _spec(service).task.container)
    body = create_body(request, api=_API)
    assert isinstance(body, CreateBody), body
    return body


def test_every_key_of_the_runtime_is_tried() -> None:
    """The table above has every key of a service that the runtime carries out."""
    keys = {
        name
        for row in ROWS
        if row.executors == (Executor.RUNTIME,)
        and row.path.startswith(_PREFIX)
        and "." not in (name := row.path.removeprefix(_PREFIX))
    }
    assert keys == set(TOLD) | _PULLED


@pytest.mark.parametrize("key", TOLD)
def test_a_key_of_the_runtime_is_said_to_the_engine(key: str) -> None:
    """With the key, the engine is told something else than without it."""
    assert _body({key: TOLD[key]}) != _body({})


def test_limits_under_deploy_are_said_to_the_engine() -> None:
    """They arrive like the older keys."""
    for limit in ({"cpus": 0.5}, {"memory": "1048576"}, {"pids": 5}):
        assert _body({"deploy": {"resources": {"limits": limit}}}) != _body({})


_TAINT: Final = Taint("batch")
_NODES: Final = (
    a_placement_node(1, labels={"disk": "ssd", "zone": "a"}),
    a_placement_node(2, labels={"disk": "hdd", "zone": "b"}, taints=(_TAINT,)),
    a_placement_node(
        3,
        labels={"disk": "hdd", "zone": "c"},
        capacity=NodeCapacity(1000, GIB, disk_bytes=GIB, pids=10),
        running=(a_share("other"),),
    ),
)


def _places(service: dict[str, Any], **top: object) -> list[NodeId]:
    """Return the nodes of a service's replicas, in the order of slots."""
    spec = _spec(service, **top)
    cluster = cluster_view(_NODES)
    result = place(cluster, (a_group(spec, spec.mode.replicas),))
    return [each.node_id for each in result.placed]


@pytest.mark.parametrize(
    ("service", "numbers"),
    [
        ({"deploy": {"placement": {"constraints": ["node.labels.disk == ssd"]}}}, {1}),
        ({"deploy": {"placement": {"constraints": ["node.labels.disk != ssd"]}}}, {3}),
        ({"deploy": {"replicas": 3, "placement": {"max_replicas_per_node": 1}}}, {1, 3}),
        ({"deploy": {"resources": {"reservations": {"memory": str(2 * GIB)}}}}, {1}),
        ({"deploy": {"resources": {"reservations": {"cpus": 2}}}}, {1}),
        ({"deploy": {"resources": {"limits": {"pids": 20}}}}, {1}),
        ({"mem_reservation": str(2 * GIB)}, {1}),
        ({"x-dray": {"disk": "2g"}}, {1}),
        ({"platform": "linux/s390x"}, set()),
        (
            {
                "x-dray": {"tolerations": ["batch"]},
                "deploy": {"placement": {"constraints": ["node.labels.zone == b"]}},
            },
            {2},
        ),
        ({"deploy": {"placement": {"constraints": ["node.labels.zone == b"]}}}, set()),
    ],
)
def test_a_key_of_placement_decides_where(service: dict[str, Any], numbers: set[int]) -> None:
    """Only nodes that the key allows are taken."""
    assert set(_places(service)) == {node_id(number) for number in numbers}


def test_policy_and_preference_decide_where() -> None:
    """A policy chooses between used and empty nodes, a preference spreads over zones."""
    reserved = {"resources": {"reservations": {"cpus": 0.5}}}
    packed = _places({"deploy": reserved})
    spread = _places({"deploy": reserved, "x-dray": {"policy": "spread"}})
    assert (packed, spread) == ([node_id(3)], [node_id(1)])
    preferences = {"replicas": 2, "placement": {"preferences": [{"spread": "node.labels.zone"}]}}
    assert len(set(_places({"deploy": preferences}))) == 2
