"""What does `dray up` ask of the docker command on this machine: builds, pushes, credentials."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from cli.building import BuildCommand
from dray.errors import FailedPrecondition
from dray.images import DOCKER_HUB, names_registry

__all__ = ["build", "credentials_of", "present_images"]

CONFIG_BYTES_MAX: Final = 1_048_576
HELPER_LIMIT_S: Final = 30.0
ASK_LIMIT_S: Final = 30.0
_HUB_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


def present_images(references: Iterable[str]) -> frozenset[str]:
    """Return which images this machine's Docker has.

    Raises:
        FailedPrecondition: There is no docker command, or its engine does not answer.
    """
    found = set()
    for reference in references:
        asked = _docker("docker", "image", "inspect", "--format", "{{.Id}}", reference)
        if asked.returncode == 0:
            found.add(reference)
        elif "No such image" not in asked.stderr:
            raise FailedPrecondition(f"docker cannot be asked for images: {asked.stderr.strip()}")
    return frozenset(found)


def build(command: BuildCommand, err: TextIO) -> None:
    """Build one image, and push it when its name says where to.

    Raises:
        FailedPrecondition: It failed; Docker has said why.
    """
    print(f"building {command.image} for {command.service}", file=err, flush=True)
    _run(command.command, f"building {command.image}", err, command.stdin)
    if names_registry(command.image):
        _run(("docker", "push", "--quiet", command.image), f"pushing {command.image}", err)
        return
    print(
        f"{command.image} names no registry: it stays on this machine's Docker",
        file=err,
        flush=True,
    )


def _run(command: tuple[str, ...], what: str, err: TextIO, stdin: str = "") -> None:
    _need_docker()
    done = subprocess.run(
        command, input=stdin, text=True, stdout=err.fileno(), stderr=err.fileno(), check=False
    )
    if done.returncode:
        raise FailedPrecondition(f"{what} failed with status {done.returncode}")


def _docker(*command: str) -> subprocess.CompletedProcess[str]:
    _need_docker()
    return subprocess.run(command, capture_output=True, text=True, timeout=ASK_LIMIT_S, check=False)


def _need_docker() -> None:
    if shutil.which("docker") is None:
        raise FailedPrecondition(
            "building needs the docker command, and there is none on this machine's PATH",
            hint="install it, or push the image elsewhere and use --no-build",
        )


def credentials_of(registries: Iterable[str], environment: Mapping[str, str]) -> dict[str, bytes]:
    """Return how to log in to registries, as `docker login` left it on this machine.

    Args:
        registries: Hosts; DOCKER_HUB for Docker's own.
        environment: DOCKER_CONFIG and HOME say where.

    Returns:
        Entries of Docker's `auths` as JSON, of those registries that have one.

    Raises:
        FailedPrecondition: The file is malformed, or a credential helper fails.
    """
    folder = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "/")) / ".docker")
    config = _config(Path(folder) / "config.json")
    found = {}
    for registry in sorted(set(registries)):
        entry = _entry(registry, config)
        if entry:
            found[registry] = json.dumps(entry, sort_keys=True).encode()
    return found


def _config(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES_MAX + 1)
        config = json.loads(content)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise FailedPrecondition(f"{path} holds no object")
    return config


def _entry(registry: str, config: Mapping[str, Any]) -> dict[str, str]:
    keys = _HUB_KEYS if registry == DOCKER_HUB else (registry, f"https://{registry}")
    helpers = config.get("credHelpers") or {}
    helper = next((helpers[key] for key in keys if key in helpers), config.get("credsStore"))
    if helper:
        return _from_helper(str(helper), keys[0])
    auths = config.get("auths") or {}
    entry: dict[str, Any] = next((auths[key] for key in keys if auths.get(key)), {})
    return {str(key): str(value) for key, value in entry.items() if value}


def _from_helper(helper: str, server: str) -> dict[str, str]:
    command = (f"docker-credential-{helper}", "get")
    try:
        done = subprocess.run(
            command,
            input=server,
            capture_output=True,
            text=True,
            timeout=HELPER_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedPrecondition(f"{command[0]} cannot be asked: {error}") from error
    if done.returncode:
        return {}  # a helper says so when it has no entry
    try:
        told = json.loads(done.stdout)
        name, secret = str(told["Username"]), str(told["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{command[0]} gave no credentials of Docker's form") from error
    if name == "<token>":
        return {"identitytoken": secret}
    return {"auth": base64.b64encode(f"{name}:{secret}".encode()).decode()}
