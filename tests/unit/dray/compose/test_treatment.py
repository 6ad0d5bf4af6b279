"""Does every key have one treatment, and does it follow from the executors that there are?"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest

from dray.compose.keys import key_paths
from dray.compose.place import Path
from dray.compose.treatment import (
    AVAILABLE,
    ROWS,
    VALUE_ROWS,
    Executor,
    Treatment,
    findings,
    row_of,
)
from dray.model import ServiceModeKind
from tests.compose_views import ALL, a_config, project_of

# Rows beyond the keys of files: names that people choose, items of lists, and what only the
# official tool's own output has.
_CANONICAL_ONLY: Final = (".Path", ".Rate", ".Weight", "networks.default", "secrets.*.content")


def test_every_key_of_the_specification_has_a_row_and_no_row_is_left_over() -> None:
    """The table of keys and the table of treatments hold the same keys, each once."""
    keys = {path for path, _ in key_paths()}
    rows = [row.path for row in ROWS if "x-dray" not in row.path]
    assert [path for path, count in Counter(rows).items() if count > 1] == []
    assert len(keys) > 280
    assert keys - set(rows) == set()
    beyond = {row for row in set(rows) - keys if not row.endswith((*_CANONICAL_ONLY, "*", "[]"))}
    assert beyond == set()


def test_every_row_says_what_it_must() -> None:
    """Honoured keys name executors, the others a reason, and refused ones what to do."""
    for row in [*ROWS, *(each.row for each in VALUE_ROWS)]:
        if row.treatment is Treatment.HONOURED:
            assert row.executors, row.path
        else:
            assert row.reason, row.path
            assert not row.executors, row.path
        assert bool(row.instead) == (row.treatment is Treatment.REFUSED), row.path


def test_every_executor_has_a_key() -> None:
    """No executor is listed that carries out nothing."""
    used = {
        executor
        for row in [*ROWS, *(each.row for each in VALUE_ROWS)]
        for executor in row.executors
    }
    assert used == ALL
    assert used >= AVAILABLE


def test_every_key_finds_its_own_row() -> None:
    """A key of a file is treated as its row says, not as one above it."""
    for path, _ in key_paths():
        steps: Path = tuple(
            0 if step == "[]" else "mine" if step == "*" else step
            for step in path.replace("[]", ".[]").split(".")
        )
        row = row_of(steps)
        assert row is not None, path
        assert row.path == path


@pytest.mark.parametrize(
    ("service", "path", "missing"),
    [
        ({"restart": "always"}, ("restart",), ["AGENT"]),
        (
            {"depends_on": {"db": {"condition": "service_started"}}},
            ("depends_on",),
            ["DEPENDENCIES"],
        ),
        ({"ports": [{"target": 80, "mode": "ingress"}]}, ("ports", 0), ["ROUTING"]),
        (
            {"ports": [{"target": 80, "mode": "host"}]},
            ("ports", 0),
            ["PLACEMENT_PORTS", "ROUTING"],
        ),
        (
            {"volumes": [{"type": "bind", "source": "/a", "target": "/a"}]},
            ("volumes", 0),
            ["VOLUMES"],
        ),
        ({"build": {"context": "."}}, ("build",), ["CLIENT_BUILD"]),
        ({"deploy": {"mode": "global"}}, ("deploy", "mode"), ["RECONCILE_GLOBAL"]),
        ({"deploy": {"mode": "global-job"}}, ("deploy", "mode"), ["JOBS"]),
        (
            {"deploy": {"update_config": {"order": "start-first"}}},
            ("deploy", "update_config"),
            ["ROLLOUT"],
        ),
        ({"gpus": [{"count": 1}]}, ("gpus",), ["PLACEMENT_DEVICES"]),
        ({"networks": {"other": None}}, ("networks", "other"), ["NETWORK"]),
        ({"networks": {"default": {"aliases": ["a"]}}}, ("networks", "default"), ["NETWORK"]),
        ({"network_mode": "service:db"}, ("network_mode",), ["PLACEMENT_AFFINITY", "NETWORK"]),
        ({"x-dray": {"singleton": True}}, ("x-dray", "singleton"), ["SINGLETON"]),
        ({"x-dray": {"schedule": "@daily"}}, ("x-dray", "schedule"), ["CRON"]),
        ({"secrets": [{"source": "a"}]}, ("secrets",), ["FILES"]),
        ({"container_name": "w"}, ("container_name",), ["DISCOVERY"]),
    ],
)
def test_a_key_without_its_executor_is_refused(
    service: dict[str, Any], path: Path, missing: list[str]
) -> None:
    """It is refused by the name of the executor, and honoured once that is there."""
    config = a_config(service)
    without = AVAILABLE - {Executor[name] for name in missing}
    [found] = findings(config, without)
    assert found.path == ("services", "web", *path)
    assert found.is_refused
    assert [each.name for each in found.missing] == missing
    assert findings(config, without | set(found.missing)) == []


@pytest.mark.parametrize(
    "service",
    [
        {},
        {"networks": {"default": None}},
        {"volumes": [{"type": "tmpfs", "target": "/a", "tmpfs": {"size": "1"}}]},
        {"volumes": [{"type": "image", "source": "a", "target": "/a", "image": {"subpath": "b"}}]},
        {"tmpfs": ["/run"]},
        {"network_mode": "host"},
        {"deploy": {"mode": "replicated", "replicas": 3, "update_config": {}, "placement": {}}},
        {"deploy": {"placement": {"constraints": ["node.role == worker"]}}},
        {"healthcheck": {"test": ["CMD", "x"], "interval": "3s"}},
        {"isolation": "default", "use_api_socket": False},
        {"x-dray": {"singleton": False, "priority": 0, "volume_loss": "wait", "policy": "spread"}},
        {"x-dray": {"disk": "1g", "tolerations": ["batch"]}},
    ],
)
def test_what_is_carried_out_today(service: dict[str, Any]) -> None:
    """Keys of the executors that there are, and values that ask for nothing, are not refused."""
    top = {"default": {"name": "shop_default", "ipam": {}}}
    result = project_of(a_config(service, networks=top), available=AVAILABLE)
    assert (result.refusals, result.faults, result.problems) == ((), (), ())


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (
            {"restart": "always"},
            "services.web.restart: is not carried out yet: it needs AGENT (the node's agent:"
            " restarts and hooks) (remove it, or use --allow-ignored to go without)",
        ),
        (
            {"cpu_percent": 50.0},
            "services.web.cpu_percent: is not supported: it is for Windows containers"
            " (write cpus:)",
        ),
        (
            {"volumes": [{"type": "npipe", "source": "a", "target": "/b"}]},
            "services.web.volumes[0]: is not supported: it is for Windows containers"
            " (use a bind mount)",
        ),
        (
            {"ipc": "service:db"},
            "services.web.ipc: is not supported: the other container may run on another node"
            " (remove ipc)",
        ),
        (
            {"network_mode": "bridge"},
            "services.web.network_mode: is not supported: Docker's own networks end at the node"
            " (remove network_mode, or name the network under networks:)",
        ),
        (
            {"gpus": [{"count": -1}]},
            "services.web.gpus[0]: is not supported: dray sets GPUs aside by number, and nodes have"
            " different ones (write count: with a number)",
        ),
        (
            {"volumes_from": ["db"]},
            "services.web.volumes_from: is not supported: the other container may run on another"
            " node (name the volumes in both services instead)",
        ),
        (
            {"colour": "red"},
            "services.web.colour: is not supported: dray does not know this key (remove it)",
        ),
    ],
)
def test_the_message_of_a_refusal(service: dict[str, Any], message: str) -> None:
    """A refusal names the key, the reason and what to do."""
    available = (AVAILABLE | {Executor.PLACEMENT_DEVICES}) - {Executor.AGENT}
    [refusal] = project_of(a_config(service), available=available).refusals
    assert str(refusal) == message


def test_meaningless_keys_are_listed_with_their_reason() -> None:
    """They are accepted, and said to have no effect."""
    config = a_config(
        {"attach": False, "expose": ["80"], "develop": {"watch": []}, "x-mine": 1}, version="3"
    )
    result = project_of(config, available=AVAILABLE)
    assert result.refusals == ()
    assert [str(each) for each in result.ignored] == [
        "services.web.attach: has no effect: `dray up` follows no logs; `dray logs` does",
        "services.web.develop: has no effect: only `docker compose watch` reads it",
        "services.web.expose: has no effect: services on one network reach every port of each"
        " other",
        "services.web.x-mine: has no effect: an extension that dray does not read",
        "version: has no effect: the specification has no versions any more",
    ]


def test_allow_ignored_goes_without_the_refused_keys() -> None:
    """The project is made as if the file did not have them, and they are listed as ignored."""
    config = a_config(
        {
            "restart": "always",
            "ports": [{"target": 80, "published": "80"}],
            "volumes": [
                {"type": "bind", "source": "/a", "target": "/a"},
                {"type": "tmpfs", "target": "/t"},
            ],
            "deploy": {"mode": "global"},
        }
    )
    missing = {Executor.AGENT, Executor.ROUTING, Executor.RECONCILE_GLOBAL, Executor.VOLUMES}
    result = project_of(config, available=AVAILABLE - missing, allow_ignored=True)
    assert (result.refusals, result.faults) == ((), ())
    assert [each.path for each in result.ignored] == [
        "services.web.deploy.mode",
        "services.web.ports[0]",
        "services.web.restart",
        "services.web.volumes[0]",
    ]
    assert str(result.ignored[2]) == (
        "services.web.restart: is left out: it needs AGENT (the node's agent: restarts and hooks)"
    )
    [service] = result.project.services
    assert (service.ports, service.mode.kind) == ((), ServiceModeKind.REPLICATED)
    assert [mount.target for mount in service.task.container.mounts] == ["/t"]


def test_what_cannot_be_left_out_is_refused_even_so() -> None:
    """A service without its provider would be no service: --allow-ignored does not help."""
    config = a_config({"image": None, "provider": {"type": "awesomecloud"}})
    result = project_of(config, allow_ignored=True)
    assert [each.path for each in result.faults] == ["services.web.provider"]
