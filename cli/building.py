"""How does what a file says under `build:` become a call of the docker command? Pure.

Every key is told to Docker. What only BuildKit's own command knows goes through `docker buildx`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dray.compose import Build

__all__ = ["BuildCommand", "build_command", "must_build"]

_BUILDX: Final = (
    "additional_contexts",
    "cache_to",
    "entitlements",
    "no_cache_filter",
    "privileged",
    "provenance",
    "sbom",
)
# Key and flag of what has one value, of what may be repeated, and of what is on or off.
_VALUES: Final = {
    "network": "--network",
    "isolation": "--isolation",
    "provenance": "--provenance",
    "sbom": "--sbom",
    "shm_size": "--shm-size",
    "target": "--target",
}
_LISTS: Final = {
    "cache_from": "--cache-from",
    "cache_to": "--cache-to",
    "entitlements": "--allow",
    "no_cache_filter": "--no-cache-filter",
    "ssh": "--ssh",
    "tags": "--tag",
}
_MAPS: Final = {
    "additional_contexts": "--build-context",
    "args": "--build-arg",
    "labels": "--label",
}
_FLAGS: Final = {"no_cache": "--no-cache", "pull": "--pull"}


@dataclass(frozen=True, slots=True)
class BuildCommand:
    """A call that builds one image.

    Attributes:
        service: Whose image.
        image: Its reference.
        command: The command line.
        stdin: What it reads: an inline Dockerfile; empty: nothing.
    """

    service: str
    image: str
    command: tuple[str, ...]
    stdin: str = ""


def build_command(
    build: Build, secrets: Mapping[str, Any], images: Mapping[str, str], platform: str = ""
) -> BuildCommand:
    """Return the call that builds an image.

    Args:
        build: What the file says.
        secrets: The project's secrets as the canonical config has them.
        images: Image of every service that is built, for contexts that are other services.
        platform: The service's own platform; empty: it names none.
    """
    options: Mapping[str, Any] = build.options
    is_buildx = any(options.get(key) for key in _BUILDX)
    command = ["docker", "buildx", "build", "--load"] if is_buildx else ["docker", "build"]
    command += ["--tag", build.image]
    for key, flag in _VALUES.items():
        if options.get(key):
            command += [flag, str(options[key])]
    for key, flag in _LISTS.items():
        for value in options.get(key) or ():
            command += [flag, str(value)]
    for key, flag in _MAPS.items():
        for name, value in (options.get(key) or {}).items():
            command += [flag, _assigned(key, name, value, images)]
    command += [flag for key, flag in _FLAGS.items() if options.get(key)]
    command += _others(options, secrets, platform)
    context = str(options.get("context") or ".")
    inline = options.get("dockerfile_inline") or ""
    if inline:
        command += ["--file", "-"]
    elif options.get("dockerfile"):
        command += ["--file", _dockerfile(context, str(options["dockerfile"]))]
    return BuildCommand(build.service, build.image, (*command, context), inline)


def _dockerfile(context: str, path: str) -> str:
    """Return a Dockerfile's path: it is relative to a context on disk, and inside a remote one."""
    is_remote = "://" in context or context.startswith(("git@", "github.com/"))
    return path if is_remote else posixpath.join(context, path)


def _assigned(key: str, name: str, value: Any, images: Mapping[str, str]) -> str:
    if value is None:
        return name  # its value is the variable of that name
    text = str(value)
    if key == "additional_contexts" and text.startswith("service:"):
        text = f"docker-image://{images.get(text.removeprefix('service:'), text)}"
    return f"{name}={text}"


def _others(options: Mapping[str, Any], secrets: Mapping[str, Any], platform: str) -> list[str]:
    """Return the flags of what is written otherwise here than there."""
    command: list[str] = []
    for host in options.get("extra_hosts") or ():
        command += ["--add-host", str(host).replace("=", ":", 1)]
    platforms = options.get("platforms") or ([platform] if platform else [])
    if platforms:
        command += ["--platform", ",".join(map(str, platforms))]
    if options.get("privileged"):
        command += ["--allow", "security.insecure"]
    for name, limit in (options.get("ulimits") or {}).items():
        both = f"{limit['soft']}:{limit['hard']}" if isinstance(limit, Mapping) else str(limit)
        command += ["--ulimit", f"{name}={both}"]
    for mount in options.get("secrets") or ():
        command += ["--secret", _secret(mount, secrets)]
    return command


def _secret(mount: Mapping[str, Any], secrets: Mapping[str, Any]) -> str:
    source = str(mount["source"])
    told = secrets.get(source) or {}
    name = str(mount.get("target") or source)
    if told.get("environment"):
        return f"id={name},env={told['environment']}"
    return f"id={name},src={told.get('file') or source}"


def must_build(
    builds: Sequence[Build],
    services: Mapping[str, Any],
    present: frozenset[str],
    *,
    is_forced: bool,
) -> list[Build]:
    """Return what is to be built: all if forced, else what is missing or asks for it each time.

    Args:
        builds: What the file builds.
        services: The canonical services.
        present: References that this machine's Docker has.
        is_forced: `--build`.
    """
    return [
        build
        for build in builds
        if is_forced
        or build.image not in present
        or services[build.service].get("pull_policy") == "build"
    ]
