"""Does every key of an available executor reach it and change what it does?

A key that is called honoured without an effect would be dropped in silence.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from dray.api.v1 import spec_pb2
from dray.compose.treatment import AVAILABLE, ROWS, Executor
from dray.convert import from_proto, to_proto
from dray.model import NodeCapacity, NodeCondition, ProjectSpec, ServiceSpec, Taint, TaintEffect
from dray.names import NodeId
from node.runtime.base import ContainerIdentity, ContainerRequest
from node.runtime.spec import CreateBody, create_body
from scheduler.placement import cluster_view, place
from scheduler.reconcile import CreateTask, NodeObservation, Observed, reconcile
from tests.builders import (
    CLUSTER_ID,
    GIB,
    CountingIds,
    a_group,
    a_placement_node,
    a_record,
    a_share,
    a_slot,
    a_snapshot,
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


_RATED: Final = tuple(
    f"device_{way}_{unit}" for way in ("read", "write") for unit in ("bps", "iops")
)
_CHECK: Final = {"test": ["CMD", "x"]}


def _limits(**limits: object) -> dict[str, Any]:
    return {"deploy": {"resources": {"limits": limits}}}


def _mount(**mount: object) -> dict[str, Any]:
    return {"volumes": [{"target": "/a", **mount}]}


# path: (a service, and the same with another value of the key)
NESTED: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "blkio_config.weight": ({}, {"blkio_config": {"weight": 300}}),
    **{
        f"blkio_config.{name}[].{path}": (
            {"blkio_config": {name: [{path: "/dev/a", value: 5}]}},
            {"blkio_config": {name: [{path: "/dev/b", value: 5}]}},
        )
        for name, value_small in (("weight_device", "weight"), *((each, "rate") for each in _RATED))
        for path, value in (("path", value_small), ("Path", value_small.title()))
    },
    **{
        f"blkio_config.{name}[].{value}": (
            {"blkio_config": {name: [{path: "/dev/a", value: 5}]}},
            {"blkio_config": {name: [{path: "/dev/a", value: 6}]}},
        )
        for name, value_small in (("weight_device", "weight"), *((each, "rate") for each in _RATED))
        for path, value in (("path", value_small), ("Path", value_small.title()))
    },
    **{
        f"blkio_config.{name}": (
            {},
            {"blkio_config": {name: [{"path": "/dev/a", "rate": 5}]}},
        )
        for name in _RATED
    },
    "blkio_config.weight_device": (
        {},
        {"blkio_config": {"weight_device": [{"path": "/dev/a", "weight": 5}]}},
    ),
    "devices[].source": (
        {"devices": [{"source": "/dev/a", "target": "/dev/a"}]},
        {"devices": [{"source": "/dev/b", "target": "/dev/a"}]},
    ),
    "devices[].target": (
        {"devices": [{"source": "/dev/a", "target": "/dev/a"}]},
        {"devices": [{"source": "/dev/a", "target": "/dev/b"}]},
    ),
    "devices[].permissions": (
        {"devices": [{"source": "/dev/a", "target": "/dev/a"}]},
        {"devices": [{"source": "/dev/a", "target": "/dev/a", "permissions": "r"}]},
    ),
    "healthcheck.disable": ({"healthcheck": _CHECK}, {"healthcheck": {"disable": True}}),
    "healthcheck.test": ({"healthcheck": _CHECK}, {"healthcheck": {"test": ["CMD", "y"]}}),
    "healthcheck.retries": ({"healthcheck": _CHECK}, {"healthcheck": {**_CHECK, "retries": 7}}),
    **{
        f"healthcheck.{name}": ({"healthcheck": _CHECK}, {"healthcheck": {**_CHECK, name: "7s"}})
        for name in ("interval", "start_interval", "start_period", "timeout")
    },
    "logging.driver": ({}, {"logging": {"driver": "local"}}),
    "logging.options": (
        {"logging": {"driver": "local"}},
        {"logging": {"driver": "local", "options": {"max-file": "3"}}},
    ),
    "ulimits.*.soft": (
        {"ulimits": {"nproc": {"soft": 5, "hard": 9}}},
        {"ulimits": {"nproc": {"soft": 6, "hard": 9}}},
    ),
    "ulimits.*.hard": (
        {"ulimits": {"nproc": {"soft": 5, "hard": 9}}},
        {"ulimits": {"nproc": {"soft": 5, "hard": 8}}},
    ),
    "deploy.resources.limits": ({}, _limits(cpus=0.5)),
    "deploy.resources.limits.cpus": (_limits(cpus=1), _limits(cpus=0.5)),
    "deploy.resources.limits.memory": ({}, _limits(memory="1048576")),
    "deploy.resources.limits.pids": ({}, _limits(pids=5)),
    "volumes[].tmpfs": (_mount(type="tmpfs"), _mount(type="tmpfs", tmpfs={"size": "4096"})),
    "volumes[].tmpfs.size": (_mount(type="tmpfs"), _mount(type="tmpfs", tmpfs={"size": "4096"})),
    "volumes[].tmpfs.mode": (_mount(type="tmpfs"), _mount(type="tmpfs", tmpfs={"mode": 0o700})),
    "volumes[].image": (
        _mount(type="image", source="a"),
        _mount(type="image", source="a", image={"subpath": "b"}),
    ),
    "volumes[].image.subpath": (
        _mount(type="image", source="a", image={"subpath": "a"}),
        _mount(type="image", source="a", image={"subpath": "b"}),
    ),
}


def test_every_key_below_a_key_of_the_runtime_is_tried() -> None:
    """The table above has every key inside a service's keys that the runtime carries out."""
    keys = {
        name
        for row in ROWS
        if row.executors == (Executor.RUNTIME,) and "." in (name := row.path.removeprefix(_PREFIX))
    }
    assert keys == set(NESTED)


@pytest.mark.parametrize("path", NESTED)
def test_a_key_below_a_key_of_the_runtime_is_said_to_the_engine(path: str) -> None:
    """Another value of the key tells the engine something else."""
    one, other = NESTED[path]
    assert _body(one) != _body(other)


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
    a_placement_node(
        4, labels={"zone": "d"}, taints=(Taint("batch", effect=TaintEffect.NO_EXECUTE),)
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
        *(
            (
                {
                    "x-dray": {"tolerations": [toleration]},
                    "deploy": {"placement": {"constraints": ["node.labels.zone == b"]}},
                },
                numbers,
            )
            for toleration, numbers in (
                ({"key": "batch"}, {2}),
                ({"key": "other"}, set()),
                ({"key": "batch", "value": "no"}, set()),
            )
        ),
        *(
            (
                {
                    "x-dray": {"tolerations": [{"key": "batch", "effect": effect}]},
                    "deploy": {"placement": {"constraints": ["node.labels.zone == d"]}},
                },
                numbers,
            )
            for effect, numbers in (("no_schedule", set()), ("no_execute", {4}))
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


@pytest.mark.parametrize(
    ("service", "slots"),
    [
        ({}, 1),
        ({"scale": 3}, 3),
        ({"deploy": {"replicas": 2}}, 2),
        ({"deploy": {"mode": "replicated", "replicas": 0}}, 0),
    ],
)
def test_a_key_of_the_reconciler_decides_how_many(service: dict[str, Any], slots: int) -> None:
    """The first plan makes a task for every slot that is asked for."""
    spec = _spec(service)
    snapshot = a_snapshot([a_record(spec)], {1: []})
    ready = {node_id(1): NodeObservation(NodeCondition.READY, 0.0)}
    plan = reconcile(snapshot, Observed(ready), 0.0, CountingIds())
    assert [type(each) for each in plan.actions] == [CreateTask] * slots


def test_labels_of_a_service_are_kept_with_it() -> None:
    """`deploy.labels` and the project's labels are in what the store keeps and the API shows."""
    result = project_of(
        a_config({"deploy": {"labels": {"a": "b"}}}, **{"x-dray": {"labels": {"c": "d"}}}),
        available=AVAILABLE,
    )
    kept = from_proto(to_proto(result.project, spec_pb2.ProjectSpec), ProjectSpec)
    assert (kept.services[0].labels, kept.labels) == ((("a", "b"),), (("c", "d"),))
