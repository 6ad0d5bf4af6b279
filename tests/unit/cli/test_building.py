"""Is every key below `build:` told to Docker, and are images built when they must be?"""

from __future__ import annotations

from typing import Any, Final

import pytest

from cli.building import build_command, must_build
from dray.compose import Build
from dray.compose.treatment import ROWS, Executor

_PREFIX: Final = "services.*.build."
_SECRETS: Final = {"s": {"environment": "S"}, "f": {"file": "/run/f"}}

# key: (what the file says of it, what Docker is told for it)
TOLD: Final[dict[str, tuple[Any, list[str]]]] = {
    "additional_contexts": (
        {"x": "/y", "s": "service:db"},
        ["--build-context", "x=/y", "--build-context", "s=docker-image://shop-db"],
    ),
    "args": ({"A": "b", "C": None}, ["--build-arg", "A=b", "--build-arg", "C"]),
    "cache_from": (["a"], ["--cache-from", "a"]),
    "cache_to": (["type=inline"], ["--cache-to", "type=inline"]),
    "context": ("/elsewhere", ["/elsewhere"]),
    "dockerfile": ("D", ["--file", "/src/D"]),
    "dockerfile_inline": ("FROM scratch", ["--file", "-"]),
    "entitlements": (["network.host"], ["--allow", "network.host"]),
    "extra_hosts": (["a=1.2.3.4"], ["--add-host", "a:1.2.3.4"]),
    "isolation": ("process", ["--isolation", "process"]),
    "labels": ({"a": "b"}, ["--label", "a=b"]),
    "network": ("host", ["--network", "host"]),
    "no_cache": (True, ["--no-cache"]),
    "no_cache_filter": (["a"], ["--no-cache-filter", "a"]),
    "platforms": (["linux/amd64", "linux/arm64"], ["--platform", "linux/amd64,linux/arm64"]),
    "privileged": (True, ["--allow", "security.insecure"]),
    "provenance": ("mode=max", ["--provenance", "mode=max"]),
    "pull": (True, ["--pull"]),
    "sbom": ("true", ["--sbom", "true"]),
    "secrets": (
        [{"source": "s"}, {"source": "f", "target": "t"}],
        ["--secret", "id=s,env=S", "--secret", "id=t,src=/run/f"],
    ),
    "shm_size": ("1024", ["--shm-size", "1024"]),
    "ssh": (["default"], ["--ssh", "default"]),
    "tags": (["other"], ["--tag", "other"]),
    "target": ("t", ["--target", "t"]),
    "ulimits": (
        {"nofile": {"soft": 1, "hard": 2}, "nproc": 5},
        ["--ulimit", "nofile=1:2", "--ulimit", "nproc=5"],
    ),
}
# Keys inside those above, which their rows try as well.
_INSIDE: Final = {"secrets[].source", "secrets[].target", "ulimits.*.soft", "ulimits.*.hard"}


def _command(**options: Any) -> tuple[str, ...]:
    build = Build("web", "shop-web", {"context": "/src", **options})
    return build_command(build, _SECRETS, {"web": "shop-web", "db": "shop-db"}).command


def test_every_key_of_a_build_is_tried() -> None:
    """The table above has every key that the client carries out."""
    keys = {
        row.path.removeprefix(_PREFIX)
        for row in ROWS
        if row.executors == (Executor.CLIENT_BUILD,) and row.path.startswith(_PREFIX)
    }
    assert keys == set(TOLD) | _INSIDE


@pytest.mark.parametrize("key", TOLD)
def test_a_key_of_a_build_is_told_to_docker(key: str) -> None:
    """Its flag, and nothing else, is added to the command; the context comes last."""
    value, told = TOLD[key]
    command = list(_command(**{key: value}))
    text = "\n".join(command)
    assert "\n".join(told) in text
    extra = 0 if key == "context" else len(told)
    prefix = 4 if command[1] == "buildx" else 2
    assert len(command) == prefix + 2 + extra + 1, command
    assert command[-1] == ("/elsewhere" if key == "context" else "/src")


def test_what_only_buildkit_knows_goes_to_its_command() -> None:
    """Everything else works with the plain command, which every Docker has."""
    assert _command()[:2] == ("docker", "build")
    assert _command(sbom="true")[:4] == ("docker", "buildx", "build", "--load")


def test_a_dockerfile_of_a_remote_context_is_named_as_it_is() -> None:
    """Docker looks for it in what it fetches."""
    command = _command(context="https://example.org/src.git", dockerfile="a/D")
    assert command[-3:] == ("--file", "a/D", "https://example.org/src.git")


def test_an_inline_dockerfile_is_read_from_standard_input() -> None:
    """No file of it is written."""
    build = Build("web", "shop-web", {"context": "/src", "dockerfile_inline": "FROM scratch"})
    command = build_command(build, {}, {}, platform="linux/arm64")
    assert command.stdin == "FROM scratch"
    assert "linux/arm64" in command.command


def test_what_is_built() -> None:
    """What is missing, what asks for it each time, and all with --build."""
    builds = [Build(name, f"shop-{name}", {}) for name in ("a", "b", "c")]
    services: dict[str, Any] = {"a": {}, "b": {}, "c": {"pull_policy": "build"}}
    present = frozenset({"shop-a", "shop-c"})
    chosen = must_build(builds, services, present, is_forced=False)
    assert [each.service for each in chosen] == ["b", "c"]
    assert len(must_build(builds, services, present, is_forced=True)) == 3
