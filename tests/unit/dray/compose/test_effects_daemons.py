"""Does every key that the daemons carry out reach them, and do those that decide change decisions?

What a scheduler or a node does with a spec is the matter of its own tests; here each key's own way
to it is shown: with another value of the key, the spec is another one.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from dray.compose.project import Projected
from dray.compose.treatment import AVAILABLE, ROWS, Executor, Treatment
from dray.model import NodeCapacity, NodeCondition, ServiceSpec
from dray.model.resources import GenericResource, Gpu
from scheduler.placement import cluster_view, place
from scheduler.reconcile import CreateTask, NodeObservation, Observed, reconcile
from tests.builders import (
    GIB,
    CountingIds,
    a_group,
    a_placement_node,
    a_record,
    a_share,
    a_snapshot,
    an_info,
    node_id,
)
from tests.compose_views import a_config, project_of

_PREFIX: Final = "services.*."
# Held by the other tables of this folder.
_ELSEWHERE: Final = {
    Executor.LOADER,
    Executor.CLIENT_BUILD,
    Executor.STORE,
    Executor.RECONCILE,
    Executor.PLACEMENT,
    Executor.RUNTIME,
}
_HOOK: Final = {"command": ["x"]}
_PORT: Final = {"target": 80, "mode": "ingress"}
_VOLUME: Final = {"type": "volume", "source": "data", "target": "/a"}
_BIND: Final = {"type": "bind", "source": "/a", "target": "/a"}
_Case = tuple[dict[str, Any], dict[str, Any]]


def _policy(name: str, key: str, value: object) -> _Case:
    return {"deploy": {name: {"parallelism": 1}}}, {"deploy": {name: {key: value}}}


def _device(**more: object) -> dict[str, Any]:
    device = {"capabilities": ["gpu"], "count": 1, **more}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}


def _after(**more: object) -> dict[str, Any]:
    return {"depends_on": {"db": {"condition": "service_started", **more}}}


def _generic(kind: str, value: int) -> dict[str, Any]:
    spec = {"discrete_resource_spec": {"kind": kind, "value": value}}
    return {"deploy": {"resources": {"reservations": {"generic_resources": [spec]}}}}


def _gpus(**more: object) -> dict[str, Any]:
    return {"gpus": [{"count": 1, **more}]}


def _x(word: str, value: object) -> dict[str, Any]:
    return {"x-dray": {word: value}}


def _rule(word: str, **more: object) -> dict[str, Any]:
    return _x(word, [{"service": "db", **more}])


def _files(kind: str, **more: object) -> dict[str, Any]:
    return {kind: [{"source": "a", **more}]}


# path: (a service, and the same with the key or another value of it)
SERVICE: Final[dict[str, _Case]] = {
    "restart": ({}, {"restart": "no"}),
    "post_start": ({}, {"post_start": [_HOOK]}),
    "pre_stop": ({}, {"pre_stop": [_HOOK]}),
    **{
        f"{hook}[].{key}": ({hook: [_HOOK]}, {hook: [{**_HOOK, key: value}]})
        for hook in ("post_start", "pre_stop")
        for key, value in {
            "command": ["y"],
            "environment": {"A": "1"},
            "privileged": True,
            "user": "5",
            "working_dir": "/srv",
        }.items()
    },
    "deploy.endpoint_mode": ({}, {"deploy": {"endpoint_mode": "dnsrr"}}),
    "networks.*.ipv4_address": (
        {"networks": {"front": {}}},
        {"networks": {"front": {"ipv4_address": "10.5.0.9"}}},
    ),
    **{
        f"deploy.{name}": ({}, {"deploy": {name: {"parallelism": 3}}})
        for name in ("update_config", "rollback_config")
    },
    **{
        f"deploy.{name}.{key}": _policy(name, key, value)
        for name in ("update_config", "rollback_config")
        for key, value in {
            "delay": "9s",
            "failure_action": "continue",
            "max_failure_ratio": 0.5,
            "monitor": "9s",
            "order": "start-first",
            "parallelism": 7,
        }.items()
    },
    "deploy.restart_policy": ({}, {"deploy": {"restart_policy": {"condition": "none"}}}),
    **{
        f"deploy.restart_policy.{key}": ({}, {"deploy": {"restart_policy": {key: value}}})
        for key, value in {
            "condition": "on-failure",
            "delay": "9s",
            "max_attempts": 7,
            "window": "9s",
        }.items()
    },
    "deploy.resources.reservations.generic_resources": ({}, _generic("disk", 1)),
    **{
        f"deploy.resources.reservations.generic_resources[].discrete_resource_spec{key}": case
        for key, case in {
            "": ({}, _generic("disk", 1)),
            ".kind": (_generic("disk", 1), _generic("fpga", 1)),
            ".value": (_generic("disk", 1), _generic("disk", 2)),
        }.items()
    },
    "deploy.resources.reservations.devices": ({}, _device()),
    **{
        f"deploy.resources.reservations.devices[].{key}": (_device(), _device(**{key: value}))
        for key, value in {
            "capabilities": ["gpu", "tpu"],
            "count": 2,
            "driver": "nvidia",
            "options": {"a": "b"},
        }.items()
    },
    "deploy.resources.reservations.devices[].device_ids": (
        _device(),
        _device(count=None, device_ids=["GPU-1"]),
    ),
    "gpus": ({}, _gpus()),
    **{
        f"gpus[].{key}": (_gpus(), _gpus(**{key: value}))
        for key, value in {
            "capabilities": ["utility"],
            "count": 2,
            "driver": "nvidia",
            "options": {"a": "b"},
        }.items()
    },
    "gpus[].device_ids": (_gpus(), _gpus(count=None, device_ids=["GPU-1"])),
    "depends_on": ({}, {"depends_on": {"db": {"condition": "service_started"}}}),
    "depends_on.*.condition": (
        {"depends_on": {"db": {"condition": "service_started"}}},
        {"depends_on": {"db": {"condition": "service_healthy"}}},
    ),
    **{
        f"depends_on.*.{key}": (_after(), _after(**{key: value}))
        for key, value in {"required": False, "restart": True}.items()
    },
    "networks.*": ({}, {"networks": {"front": None}}),
    "networks.default": ({}, {"networks": {"default": {}}}),
    "networks.*.aliases": (
        {"networks": {"front": None}},
        {"networks": {"front": {"aliases": ["www"]}}},
    ),
    "container_name": ({}, {"container_name": "mine"}),
    "links": ({}, {"links": ["db:database"]}),
    "network_mode": ({}, {"network_mode": "none"}),
    "ports[]": ({}, {"ports": [_PORT]}),
    **{
        f"ports[].{key}": ({"ports": [_PORT]}, {"ports": [{**_PORT, key: value}]})
        for key, value in {
            "target": 81,
            "published": "8080",
            "protocol": "udp",
            "mode": "host",
            "host_ip": "127.0.0.1",
            "name": "http",
        }.items()
    },
    "volumes[]": ({}, {"volumes": [_VOLUME]}),
    **{
        f"volumes[].{key}": ({"volumes": [one]}, {"volumes": [{**one, **other}]})
        for key, one, other in (
            ("type", _BIND, {"type": "tmpfs", "source": None}),
            ("source", _BIND, {"source": "/b"}),
            ("target", _BIND, {"target": "/b"}),
            ("read_only", _BIND, {"read_only": True}),
            ("bind", _BIND, {"bind": {"propagation": "rshared"}}),
            ("bind.create_host_path", _BIND, {"bind": {"create_host_path": False}}),
            ("bind.propagation", _BIND, {"bind": {"propagation": "rshared"}}),
            ("bind.recursive", _BIND, {"bind": {"recursive": "disabled"}}),
            ("bind.selinux", _BIND, {"bind": {"selinux": "z"}}),
            ("volume", _VOLUME, {"volume": {"nocopy": True}}),
            ("volume.labels", _VOLUME, {"volume": {"labels": {"a": "b"}}}),
            ("volume.nocopy", _VOLUME, {"volume": {"nocopy": True}}),
            ("volume.subpath", _VOLUME, {"volume": {"subpath": "b"}}),
        )
    },
    **{
        path: ({}, _files(kind))
        for kind in ("configs", "secrets")
        for path in (kind, f"{kind}[].source")
    },
    **{
        f"{kind}[].{key}": (_files(kind), _files(kind, **{key: value}))
        for kind in ("configs", "secrets")
        for key, value in {"target": "/b", "uid": "5", "gid": "5", "mode": "0400"}.items()
    },
    **{
        path: case
        for word in ("affinity", "anti_affinity")
        for path, case in {
            f"x-dray.{word}": ({}, _x(word, ["db"])),
            f"x-dray.{word}[].service": ({}, _rule(word)),
            f"x-dray.{word}[].service_label": ({}, _x(word, [{"service_label": "a=b"}])),
            f"x-dray.{word}[].node_label": ({}, _x(word, [{"node_label": "a=b"}])),
            f"x-dray.{word}[].required": (_rule(word), _rule(word, required=True)),
            f"x-dray.{word}[].topology": (_rule(word), _rule(word, topology="zone")),
            f"x-dray.{word}[].weight": (_rule(word), _rule(word, weight=7)),
        }.items()
    },
    "x-dray.priority": ({}, _x("priority", 7)),
    "x-dray.preempt": ({}, _x("preempt", True)),
    "x-dray.unavailable_max": ({}, _x("unavailable_max", 2)),
    "x-dray.gpu": ({}, _x("gpu", {"count": 1})),
    "x-dray.gpu.count": (_x("gpu", {"count": 1}), _x("gpu", {"count": 2})),
    "x-dray.gpu.fraction": (_x("gpu", {"count": 1}), _x("gpu", {"fraction": 0.5})),
    "x-dray.gpu.models": (_x("gpu", {"count": 1}), _x("gpu", {"count": 1, "models": ["a"]})),
    "x-dray.volume_loss": ({}, _x("volume_loss", "accept")),
    "x-dray.session_affinity": ({}, _x("session_affinity", "client_ip")),
}
_FRONT: Final = {"name": "shop_front", "ipam": {"config": [{"subnet": "10.5.0.0/24"}]}}
# path: (an entry of the file's top, and the same with another value of the key)
TOP: Final[dict[str, _Case]] = {
    "x-dray.gang": ({}, {"x-dray": {"gang": True}}),
    **{
        f"networks.*.{key}": ({"networks": {"a": {}}}, {"networks": {"a": {key: value}}})
        for key, value in {"name": "mine", "external": True, "internal": True}.items()
    },
    **{
        f"volumes.*.{key}": ({"volumes": {"a": {}}}, {"volumes": {"a": {key: value}}})
        for key, value in {
            "name": "mine",
            "driver": "nfs",
            "external": True,
            "driver_opts": {"a": "b"},
            "labels": {"a": "b"},
        }.items()
    },
    **{
        f"{kind}.*.{key}": (
            {kind: {"a": {"file": "/a"}}},
            {kind: {"a": {"file": "/a", key: value} if key == "name" else {key: value}}},
        )
        for kind in ("configs", "secrets")
        for key, value in {"name": "mine", "external": True}.items()
    },
}


def _projected(service: dict[str, Any], **top: object) -> Projected:
    config = a_config(
        service,
        **{
            "networks": {"default": {"name": "shop_default"}, "front": _FRONT},
            "volumes": {"data": {"name": "shop_data"}},
            **{kind: {"a": {"name": "shop_a", "file": "/a"}} for kind in ("configs", "secrets")},
            **top,
        },
    )
    services: Any = config["services"]
    services["db"] = {"image": "x", "command": None, "entrypoint": None}
    result = project_of(config, available=AVAILABLE)
    assert not result.refusals, [str(each) for each in result.refusals]
    assert not result.faults, [str(each) for each in result.faults]
    return result


def test_every_key_of_the_daemons_is_tried() -> None:
    """The tables above have every key that an available part of a daemon carries out."""
    keys = {
        row.path
        for row in ROWS
        if row.treatment is Treatment.HONOURED
        and AVAILABLE.issuperset(row.executors)
        and not _ELSEWHERE.issuperset(row.executors)
    }
    assert keys == {f"{_PREFIX}{path}" for path in SERVICE} | set(TOP)


@pytest.mark.parametrize("path", SERVICE)
def test_a_key_of_a_service_reaches_the_daemons(path: str) -> None:
    """What is asked of the cluster differs with the key."""
    without, with_it = SERVICE[path]
    assert _projected(with_it).project != _projected(without).project


@pytest.mark.parametrize("path", TOP)
def test_a_key_of_the_top_reaches_the_daemons(path: str) -> None:
    """What is asked of the cluster differs with the key."""
    without, with_it = TOP[path]
    assert _projected({}, **with_it).project != _projected({}, **without).project


def _spec(service: dict[str, Any]) -> ServiceSpec:
    return next(each for each in _projected(service).project.services if each.name == "web")


_NODES: Final = (
    a_placement_node(1, labels={"zone": "a"}, running=(a_share("db"),)),
    a_placement_node(
        2,
        labels={"zone": "b"},
        capacity=NodeCapacity(
            4000,
            8 * GIB,
            gpus=(Gpu("GPU-1", "a", 16 * GIB),),
            generic=(GenericResource("fpga", 2),),
        ),
    ),
)


@pytest.mark.parametrize(
    ("service", "number"),
    [
        (_gpus(), 2),
        (_device(), 2),
        (_generic("fpga", 2), 2),
        (_x("gpu", {"fraction": 0.5, "models": ["a"]}), 2),
        (_x("gpu", {"models": ["b"]}), None),
        (_generic("fpga", 3), None),
        (_x("affinity", [{"service": "db", "required": True}]), 1),
        (_x("anti_affinity", [{"service": "db", "required": True}]), 2),
        (_x("affinity", [{"node_label": "zone=b", "required": True}]), 2),
    ],
)
def test_a_key_of_placement_decides_where(service: dict[str, Any], number: int | None) -> None:
    """Devices, generic resources and affinities leave one node, or none."""
    result = place(cluster_view(_NODES), (a_group(_spec(service), 1),))
    placed = [each.node_id for each in result.placed]
    assert placed == ([] if number is None else [node_id(number)])


@pytest.mark.parametrize(
    ("service", "slots"),
    [
        ({"deploy": {"mode": "global"}}, 2),
        ({"deploy": {"mode": "replicated-job", "replicas": 3}}, 3),
        ({"deploy": {"mode": "global-job"}}, 2),
        ({"depends_on": {"db": {"condition": "service_started"}}}, 0),
    ],
)
def test_a_key_of_the_leader_decides_how_many_begin(service: dict[str, Any], slots: int) -> None:
    """One slot a node, completions of a job, and nothing before what comes first."""
    db = next(each for each in _projected({}).project.services if each.name == "db")
    snapshot = a_snapshot([a_record(_spec(service)), a_record(db)], {1: [], 2: []})
    ready = {
        node_id(number): NodeObservation(NodeCondition.READY, 0.0, an_info(number))
        for number in (1, 2)
    }
    plan = reconcile(snapshot, Observed(ready), 0.0, CountingIds())
    begun = [each for each in plan.actions if isinstance(each, CreateTask)]
    assert sum(each.slot.service == "web" for each in begun) == slots
