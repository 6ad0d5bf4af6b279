"""Are files laid over one another by the specification's merge rules?"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.compose_cases.files import canonical_of, config_of, problems_of, service_of


def _service(text: str) -> str:
    return f"services:\n  web:\n    image: x\n{text}"


# Name, what the first file says of the service, what the second says, what must come of it.
_RULES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("scalars are replaced", "    hostname: a\n", "    hostname: b\n", {"hostname": "b"}),
    ("nothing replaces nothing", "    hostname: a\n", "    hostname:\n", {"hostname": "a"}),
    ("lists are joined", "    cap_add: [A]\n", "    cap_add: [B]\n", {"cap_add": ["A", "B"]}),
    ("and hold each once", "    cap_add: [A, B]\n", "    cap_add: [A]\n", {"cap_add": ["A", "B"]}),
    (
        "mappings are merged",
        "    deploy: {replicas: 1, mode: replicated}\n",
        "    deploy: {replicas: 2}\n",
        {"deploy": {"mode": "replicated", "replicas": 2, "placement": {}, "resources": {}}},
    ),
    ("command is replaced", "    command: [a, b]\n", "    command: [c]\n", {"command": ["c"]}),
    (
        "entrypoint is replaced",
        "    entrypoint: a b\n",
        "    entrypoint: c\n",
        {"entrypoint": ["c"]},
    ),
    (
        "health test is replaced",
        "    healthcheck: {test: [CMD, a], retries: 2}\n",
        "    healthcheck: {test: b}\n",
        {"healthcheck": {"test": ["CMD-SHELL", "b"], "retries": 2}},
    ),
    (
        "environment by name, in both syntaxes",
        "    environment: {A: '1', B: '2'}\n",
        "    environment: [B=3, C=4]\n",
        {"environment": {"A": "1", "B": "3", "C": "4"}},
    ),
    (
        "labels by name, in both syntaxes",
        "    labels: [a=1, b=2]\n",
        "    labels: {b: 3}\n",
        {"labels": {"a": "1", "b": "3"}},
    ),
    (
        "annotations by name",
        "    annotations: {a: '1'}\n",
        "    annotations: [a=2, b=3]\n",
        {"annotations": {"a": "2", "b": "3"}},
    ),
    (
        "kernel parameters by name",
        "    sysctls: [a=1]\n",
        "    sysctls: {a: 2, b: 3}\n",
        {"sysctls": {"a": "2", "b": "3"}},
    ),
    (
        "dns is joined",
        "    dns: 1.1.1.1\n",
        "    dns: [8.8.8.8]\n",
        {"dns": ["1.1.1.1", "8.8.8.8"]},
    ),
    ("tmpfs is joined", "    tmpfs: /a\n", "    tmpfs: [/b]\n", {"tmpfs": ["/a", "/b"]}),
    (
        "env files are joined",
        "    env_file: [{path: /a, required: false}]\n",
        "    env_file: [{path: /b, required: false}]\n",
        {"env_file": [{"path": "/a", "required": False}, {"path": "/b", "required": False}]},
    ),
    (
        "hosts are joined",
        "    extra_hosts: ['a:1.1.1.1']\n",
        "    extra_hosts: {b: 2.2.2.2}\n",
        {"extra_hosts": ["a=1.1.1.1", "b=2.2.2.2"]},
    ),
    (
        "dependencies by service, in both syntaxes",
        "    depends_on: [db]\n",
        "    depends_on: {db: {condition: service_healthy}, cache: {condition: service_started}}\n",
        {
            "depends_on": {
                "cache": {"condition": "service_started", "required": True},
                "db": {"condition": "service_healthy", "required": True},
            }
        },
    ),
    (
        "networks by name, in both syntaxes",
        "    networks: [front]\n",
        "    networks: {front: {aliases: [a]}, back: }\n",
        {"networks": {"back": None, "front": {"aliases": ["a"]}}},
    ),
    (
        "ports by address, target, published and protocol",
        "    ports: ['80:80', '443:443']\n",
        "    ports: [{target: 80, published: '80', name: http}]\n",
        {
            "ports": [
                {
                    "mode": "ingress",
                    "name": "http",
                    "protocol": "tcp",
                    "published": "80",
                    "target": 80,
                },
                {"mode": "ingress", "protocol": "tcp", "published": "443", "target": 443},
            ]
        },
    ),
    (
        "volumes by target",
        "    volumes: ['data:/work']\n",
        "    volumes: ['/other:/work']\n",
        {"volumes": [{"type": "bind", "source": "/other", "target": "/work", "bind": {}}]},
    ),
    (
        "secrets by target",
        "    secrets: [key]\n",
        "    secrets: [{source: key, mode: 0400}]\n",
        {"secrets": [{"source": "key", "mode": "0400", "target": "/run/secrets/key"}]},
    ),
    (
        "devices by target",
        "    devices: ['/dev/a:/dev/x']\n",
        "    devices: ['/dev/b:/dev/x']\n",
        {"devices": [{"source": "/dev/b", "target": "/dev/x", "permissions": "rwm"}]},
    ),
    (
        "limits are replaced whole",
        "    ulimits: {nofile: {soft: 1, hard: 2}}\n",
        "    ulimits: {nofile: 5, nproc: 6}\n",
        {"ulimits": {"nofile": 5, "nproc": 6}},
    ),
    (
        "options of one log driver are merged",
        "    logging: {driver: syslog, options: {a: '1'}}\n",
        "    logging: {driver: syslog, options: {b: '2'}}\n",
        {"logging": {"driver": "syslog", "options": {"a": "1", "b": "2"}}},
    ),
    (
        "another log driver replaces them",
        "    logging: {driver: syslog, options: {a: '1'}}\n",
        "    logging: {driver: journald}\n",
        {"logging": {"driver": "journald"}},
    ),
    (
        "a build in both syntaxes",
        "    build: /src\n",
        "    build: {target: prod, args: {A: '1'}}\n",
        {
            "build": {
                "args": {"A": "1"},
                "context": "/src",
                "dockerfile": "Dockerfile",
                "target": "prod",
            }
        },
    ),
    ("reset forgets a value", "    hostname: a\n", "    hostname: !reset\n", {"hostname": None}),
    ("reset forgets a list", "    cap_add: [A]\n", "    cap_add: !reset []\n", {"cap_add": None}),
    (
        "override replaces a list",
        "    ports: ['80:80']\n",
        "    ports: !override ['81:81']\n",
        {"ports": [{"mode": "ingress", "protocol": "tcp", "published": "81", "target": 81}]},
    ),
    (
        "override replaces a mapping",
        "    labels: {a: '1'}\n",
        "    labels: !override {b: '2'}\n",
        {"labels": {"b": "2"}},
    ),
]
_REST = """
  db: {image: y}
  cache: {image: z}
networks: {front: , back: }
volumes: {data: }
secrets: {key: {file: /key}}
"""


@pytest.mark.parametrize(
    ("first", "second", "expected"), [each[1:] for each in _RULES], ids=[each[0] for each in _RULES]
)
def test_rule(first: str, second: str, expected: dict[str, Any]) -> None:
    """Each rule of the specification holds between two files."""
    files = {"a.yaml": _service(first) + _REST, "b.yaml": _service(second)}
    merged = service_of(files, "a.yaml", "b.yaml")
    assert {key: merged.get(key) for key in expected} == expected


def test_documents_are_merged_like_files() -> None:
    """Documents of one file are laid over one another."""
    text = _service("    hostname: a\n") + "---\n" + _service("    hostname: b\n")
    assert service_of(text)["hostname"] == "b"


def test_networks_and_volumes_are_merged() -> None:
    """Top-level resources merge key by key; pools of one subnet are one pool."""
    first = "networks: {n: {labels: [a=1], ipam: {config: [{subnet: 10.0.0.0/8, gateway: g}]}}}\n"
    second = (
        "networks: {n: {labels: {a: '2'}, driver: bridge, ipam: {config: "
        "[{subnet: 10.0.0.0/8, ip_range: r}, {subnet: 11.0.0.0/8}]}}}\n"
    )
    files = {"a.yaml": _service("") + first, "b.yaml": second}
    network = config_of(files, "a.yaml", "b.yaml")["networks"]["n"]
    assert network == {
        "driver": "bridge",
        "ipam": {
            "config": [
                {"gateway": "g", "ip_range": "r", "subnet": "10.0.0.0/8"},
                {"subnet": "11.0.0.0/8"},
            ]
        },
        "labels": {"a": "2"},
        "name": "shop_n",
    }


def test_three_files() -> None:
    """The last of several files wins."""
    files = {f"{name}.yaml": _service(f"    hostname: {name}\n") for name in "abc"}
    assert service_of(files, "a.yaml", "b.yaml", "c.yaml")["hostname"] == "c"


def test_what_cannot_be_merged_is_told() -> None:
    """A list over a mapping is a mistake in the later file."""
    files = {
        "a.yaml": _service("    healthcheck: {test: a}\n"),
        "b.yaml": _service("    healthcheck: [a]\n"),
    }
    assert problems_of(files, "a.yaml", "b.yaml") == [
        "b.yaml:4:18: services.web.healthcheck: cannot override a mapping with something else"
    ]


def test_positions_are_those_of_the_file_that_said_it() -> None:
    """After a merge each value is still found in its own file."""
    files = {
        "a.yaml": _service("    environment:\n      A: '1'\n      B: '2'\n"),
        "b.yaml": _service("    environment:\n      B: '3'\n    cap_add: [X]\n"),
    }
    canonical = canonical_of(files, "a.yaml", "b.yaml")

    def where(*path: str | int) -> str:
        return str(canonical.where(("services", "web", *path)))

    assert where("environment", "A") == "/shop/a.yaml:5:10"
    assert where("environment", "B") == "/shop/b.yaml:5:10"
    assert where("cap_add", 0) == "/shop/b.yaml:6:15"
    assert where("networks", "default") == "/shop/a.yaml:3:5"


def test_merge_keys_and_anchors() -> None:
    """`<<` takes over what is not said; of several sources the first wins; aliases are copies."""
    text = """
x-a: &a {hostname: a, labels: &labels {l: '1'}}
x-b: &b {hostname: b, user: u}
services:
  web:
    <<: [*a, *b]
    image: x
  other:
    image: x
    labels:
      <<: *labels
      m: '2'
"""
    services = config_of(text)["services"]
    web = services["web"]
    assert (web["hostname"], web["user"], web["labels"]) == ("a", "u", {"l": "1"})
    assert services["other"]["labels"] == {"l": "1", "m": "2"}
    assert yaml.safe_load(text)["services"]["web"]["hostname"] == "a"
