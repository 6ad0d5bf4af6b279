"""Do short syntaxes, types and defaults come out as the official tool prints them?"""

from __future__ import annotations

from typing import Any

import pytest

from dray.compose.shape import duration_text, json_view, yaml_view
from dray.compose.short import parse_ports, parse_volume, split_command
from tests.compose_cases.files import config_of, service_of


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("80", [("", "", 80, "tcp")]),
        ("80:81", [("", "80", 81, "tcp")]),
        ("80:81/udp", [("", "80", 81, "udp")]),
        ("53/UDP", [("", "", 53, "udp")]),
        ("127.0.0.1:80:81", [("127.0.0.1", "80", 81, "tcp")]),
        ("127.0.0.1::81", [("127.0.0.1", "", 81, "tcp")]),
        ("[::1]:80:81", [("::1", "80", 81, "tcp")]),
        ("80-81", [("", "", 80, "tcp"), ("", "", 81, "tcp")]),
        ("90-91:80-81", [("", "90", 80, "tcp"), ("", "91", 81, "tcp")]),
        ("90-95:80", [("", "90-95", 80, "tcp")]),
        ("9-10:9-10", [("", "10", 10, "tcp"), ("", "9", 9, "tcp")]),
    ],
    ids=str,
)
def test_ports(spec: str, expected: list[tuple[str, str, int, str]]) -> None:
    """Every short form of a port, ranges in the official order."""
    ports = [
        (each.get("host_ip", ""), each.get("published", ""), each["target"], each["protocol"])
        for each in parse_ports(spec)
    ]
    assert ports == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("/data", {"type": "volume", "target": "/data", "volume": {}}),
        ("a", {"type": "volume", "target": "a"}),
        ("data:/d/", {"type": "volume", "source": "data", "target": "/d", "volume": {}}),
        (
            "data:/d:ro,nocopy",
            {
                "type": "volume",
                "source": "data",
                "target": "/d",
                "read_only": True,
                "volume": {"nocopy": True},
            },
        ),
        (
            "./s:/d:rw",
            {"type": "bind", "source": "./s", "target": "/d", "bind": {"create_host_path": True}},
        ),
        (
            "~/s:/d:z,rshared",
            {
                "type": "bind",
                "source": "~/s",
                "target": "/d",
                "bind": {"create_host_path": True, "propagation": "rshared", "selinux": "z"},
            },
        ),
        (
            "C:\\s:/d",
            {"type": "bind", "source": "C:\\s", "target": "/d", "bind": {"create_host_path": True}},
        ),
    ],
    ids=str,
)
def test_volumes(spec: str, expected: dict[str, Any]) -> None:
    """Every short form of a mount."""
    assert parse_volume(spec) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("a b  c", ["a", "b", "c"]),
        ("sh -c 'echo \"hi\"'", ["sh", "-c", 'echo "hi"']),
        ('a "b c" d\\ e', ["a", "b c", "d e"]),
        ("a ''", ["a", ""]),
        ("a\\nb", ["anb"]),
        ("echo $(date)", ["echo", "$(date)"]),
        ("echo `id -u`", ["echo", "`id -u`"]),
        ("echo a && echo b", ["echo", "a"]),
        ("a 2>/dev/null", ["a"]),
        ("a; b", ["a"]),
    ],
    ids=str,
)
def test_commands(line: str, words: list[str]) -> None:
    """A command in one text is split as the official tool does it."""
    assert split_command(line) == words


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (20_000_000, "20ms"),
        (1_000_000_000, "1s"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (90_061_000_000_000, "25h1m1s"),
    ],
)
def test_durations(duration_ns: int, text: str) -> None:
    """Durations are printed as Go prints them."""
    assert duration_text(duration_ns) == text


_FORMS: list[tuple[str, str, object]] = [
    ("mem_limit: 1.5g", "mem_limit", "1610612736"),
    ("mem_limit: 1024", "mem_limit", "1024"),
    ("memswap_limit: -1", "memswap_limit", "-1"),
    ("shm_size: 64 mb", "shm_size", "67108864"),
    ("cpus: '0.50'", "cpus", 0.5),
    ("cpus: '0440'", "cpus", 440),
    ("cpus: 0.1", "cpus", 0.1),
    ("cpus: 2", "cpus", 2),
    ("cpus: 0.123456789", "cpus", 0.12345679),
    ("cpu_shares: 73", "cpu_shares", 73),
    ("stop_grace_period: 1h", "stop_grace_period", "1h0m0s"),
    ("stop_grace_period: 1d12h", "stop_grace_period", "36h0m0s"),
    ("init: false", "init", False),
    ("privileged: false", "privileged", None),
    ("tty: 'yes'", "tty", True),
    ("command: []", "command", []),
    ("command: ''", "command", []),
    ("command: echo a", "command", ["echo", "a"]),
    ("entrypoint: null", "entrypoint", None),
    ("expose: [80, '90-91']", "expose", ["80", "90-91"]),
    ("group_add: [root, 5]", "group_add", ["root", "5"]),
    ("labels: {a: 1.0, b: true, c: }", "labels", {"a": "1", "b": "true", "c": ""}),
    ("labels: [a, b=c=d]", "labels", {"a": "", "b": "c=d"}),
    ("environment: {A: 1e3, B: 0440, C: }", "environment", {"A": "1000", "B": "288", "C": None}),
    ("extra_hosts: ['b:2.2.2.2', 'a=::1']", "extra_hosts", ["a=::1", "b=2.2.2.2"]),
    ("extra_hosts: {a: ['1.1.1.1', '[::1]']}", "extra_hosts", ["a=1.1.1.1", "a=::1"]),
    ("dns: 1.1.1.1", "dns", ["1.1.1.1"]),
    ("ulimits: {nproc: 5, core: 0}", "ulimits", {"core": {}, "nproc": 5}),
    ("pull_policy: if_not_present", "pull_policy", "missing"),
    ("gpus: all", "gpus", [{"count": -1}]),
    ("gpus: [{driver: d, count: 2}]", "gpus", [{"driver": "d", "count": 2}]),
    (
        "devices: ['/dev/a']",
        "devices",
        [{"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"}],
    ),
    (
        "tmpfs: ['/run:size=5m']",
        "tmpfs",
        ["/run:size=5m"],
    ),
    (
        "healthcheck: {test: a b, interval: 90s, disable: false}",
        "healthcheck",
        {"test": ["CMD-SHELL", "a b"], "interval": "1m30s"},
    ),
    (
        "deploy: {resources: {limits: {cpus: '0.5', memory: 50M, pids: '5'}}}",
        "deploy",
        {
            "placement": {},
            "resources": {"limits": {"cpus": 0.5, "memory": "52428800", "pids": 5}},
        },
    ),
    (
        "blkio_config: {weight: 300, device_read_bps: [{path: /a, rate: 1k}]}",
        "blkio_config",
        {"weight": 300, "device_read_bps": [{"Path": "/a", "Rate": "1024"}]},
    ),
    (
        "volumes: [{type: tmpfs, target: /a/, tmpfs: {size: 1k, mode: 0755}}]",
        "volumes",
        [{"type": "tmpfs", "target": "/a", "tmpfs": {"size": "1024", "mode": 493}}],
    ),
    (
        "volumes: [{type: bind, source: ., target: /a, bind: {create_host_path: false}}]",
        "volumes",
        [{"type": "bind", "source": "/shop", "target": "/a", "bind": {"create_host_path": False}}],
    ),
    (
        "post_start: [{command: a b, user: root}]",
        "post_start",
        [{"command": ["a", "b"], "user": "root"}],
    ),
    (
        "develop: {watch: [{path: src, action: rebuild, ignore: a}]}",
        "develop",
        {
            "watch": [
                {
                    "action": "rebuild",
                    "exec": {"command": None},
                    "ignore": ["a"],
                    "path": "/shop/src",
                }
            ]
        },
    ),
    (
        "build: {context: https://example.org/a.git, ssh: [default], provenance: true}",
        "build",
        {
            "context": "https://example.org/a.git",
            "dockerfile": "Dockerfile",
            "provenance": "true",
            "ssh": ["default"],
        },
    ),
    (
        "provider: {type: p, options: {a: [1, b], c: true}}",
        "provider",
        {"type": "p", "options": {"a": ["1", "b"], "c": ["true"]}},
    ),
    (
        "logging: {driver: d, options: {n: 5, z: }}",
        "logging",
        {"driver": "d", "options": {"n": "5", "z": ""}},
    ),
]


@pytest.mark.parametrize(("line", "key", "expected"), _FORMS, ids=[each[0] for each in _FORMS])
def test_form(line: str, key: str, expected: object) -> None:
    """Each kind of value has the form that the official tool gives it."""
    value = service_of(f"services:\n  web:\n    image: x\n    {line}\n").get(key)
    assert value == expected
    assert type(value) is type(expected)


def test_implied_parts() -> None:
    """Default networks, names and dependencies are there without being said."""
    config = config_of("""
services:
  web: {image: x, links: ['db:data'], volumes_from: [files], pid: 'service:db'}
  db: {image: y, network_mode: none}
  files: {image: z, networks: [back]}
networks:
  back: {external: true}
  other: {name: named}
volumes: {data: , kept: {external: true, name: k}}
secrets: {s: {environment: S}}
""")
    assert config["services"]["web"]["depends_on"] == {
        "db": {"condition": "service_started", "required": True, "restart": True},
        "files": {"condition": "service_started", "required": True},
    }
    assert config["services"]["web"]["networks"] == {"default": None}
    assert "networks" not in config["services"]["db"]
    assert {name: each["name"] for name, each in config["networks"].items()} == {
        "back": "back",
        "default": "shop_default",
        "other": "named",
    }
    assert config["volumes"] == {
        "data": {"name": "shop_data"},
        "kept": {"external": True, "name": "k"},
    }
    assert config["secrets"] == {"s": {"environment": "S", "name": "shop_s"}}


def test_views() -> None:
    """JSON shows extensions at the top and dray's own; YAML shows all, and nothing unset."""
    config = config_of("""
x-top: {a: 1}
services:
  web: {image: x, x-more: 1, x-dray: {singleton: true}, labels: {x-label: l}, deploy: {x-b: 1}}
models: {m: {model: n}}
""")
    shown = json_view(config)
    web = shown["services"]["web"]
    assert shown["x-top"] == {"a": 1}
    assert web["x-dray"] == {"singleton": True}
    assert web["labels"] == {"x-label": "l"}
    assert "x-more" not in web
    assert "x-b" not in web["deploy"]
    assert "models" not in shown
    assert web["command"] is None
    as_yaml = yaml_view(config)
    assert as_yaml["services"]["web"]["x-more"] == 1
    assert as_yaml["models"] == {"m": {"model": "n"}}
    assert "command" not in as_yaml["services"]["web"]
    assert as_yaml["networks"] == {"default": {"name": "shop_default"}}


def test_home() -> None:
    """`~` is the home folder; without one it is no folder of the project."""
    text = "services: {web: {image: x, volumes: ['~/d:/d']}}\n"
    known = service_of(text, environment={"HOME": "/people/me"})
    assert known["volumes"][0]["source"] == "/people/me/d"
    assert service_of(text)["volumes"][0]["source"] == "/nonexistent/d"


def test_version_is_forgotten() -> None:
    """The obsolete top-level version is taken and dropped."""
    assert "version" not in config_of("version: '3'\nservices: {web: {image: x}}\n")
