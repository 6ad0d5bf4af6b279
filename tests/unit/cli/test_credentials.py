"""Are credentials found where `docker login` leaves them, and given for the right registry?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.docker_client import credentials_of
from dray.errors import FailedPrecondition
from dray.images import names_registry, registry_of

AUTH = {"auth": "dTpw"}


def _found(folder: Path, config: Any, *registries: str) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(config))
    given = credentials_of(registries, {"DOCKER_CONFIG": str(folder)})
    return {registry: json.loads(entry) for registry, entry in given.items()}


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("nginx", "docker.io"),
        ("team/app:1", "docker.io"),
        ("registry.example:5000/team/app@sha256:00", "registry.example:5000"),
        ("localhost/app", "localhost"),
        ("ghcr.example/app", "ghcr.example"),
    ],
)
def test_the_registry_of_a_reference(reference: str, registry: str) -> None:
    """A first part with a dot or a port is a host; all else is Docker's own registry."""
    assert registry_of(reference) == registry
    assert names_registry(reference) == (registry != "docker.io")


def test_entries_are_found_by_host(tmp_path: Path) -> None:
    """Docker's own registry has a key of its own; what nobody logged in to is not given."""
    config = {"auths": {"https://index.docker.io/v1/": AUTH, "registry.example:5000": AUTH}}
    found = _found(tmp_path, config, "docker.io", "registry.example:5000", "other.example")
    assert found == {"docker.io": AUTH, "registry.example:5000": AUTH}


def test_no_file_is_no_credentials(tmp_path: Path) -> None:
    """A machine where nobody logged in."""
    assert credentials_of(["docker.io"], {"HOME": str(tmp_path)}) == {}


def test_a_malformed_file_is_named(tmp_path: Path) -> None:
    """The message says which file."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FailedPrecondition, match=r"config\.json cannot be read"):
        credentials_of(["docker.io"], {"DOCKER_CONFIG": str(tmp_path)})


def test_a_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it gives becomes an entry of the form that nodes take; no entry gives nothing."""
    program = tmp_path / "docker-credential-mine"
    program.write_text(
        '#!/bin/sh\nread -r server\n[ "$server" = registry.example ] || exit 1\n'
        'echo \'{"ServerURL": "registry.example", "Username": "u", "Secret": "p"}\'\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = {"credsStore": "mine"}
    assert _found(tmp_path, config, "registry.example", "other.example") == {
        "registry.example": AUTH
    }
