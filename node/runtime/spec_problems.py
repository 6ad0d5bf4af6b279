"""What in a container request can this engine not be told?

Docker ignores what it does not know or cannot do, so everything that would be dropped in silence is
named here, as sentences for people.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Final, TypeAlias, assert_never

from dray.model import Healthcheck, HealthcheckKind, Mount, MountKind, Security
from node.runtime.base import ContainerNetwork, ContainerRequest

ApiVersion: TypeAlias = tuple[int, int]

API_OLDEST: Final[ApiVersion] = (1, 41)  # Docker 20.10; what every mapping may rely on
# The first API version that knows it; an older engine drops it without a word
# (Engine API version history, v1.42 to v1.48).
SINCE_CREATE_MOUNTPOINT: Final[ApiVersion] = (1, 42)
SINCE_ANNOTATIONS: Final[ApiVersion] = (1, 43)
SINCE_1_44: Final[ApiVersion] = (1, 44)  # start interval, recursive read-only, MAC a network, CDI
SINCE_VOLUME_SUBPATH: Final[ApiVersion] = (1, 45)
SINCE_IMAGE_MOUNT: Final[ApiVersion] = (1, 48)

LABEL_CLUSTER_ID: Final = "dray.cluster-id"
LABEL_TASK_ID: Final = "dray.task-id"
LABEL_ATTEMPT: Final = "dray.attempt"
LABEL_PROJECT: Final = "dray.project"
LABEL_SERVICE: Final = "dray.service"
LABEL_SLOT: Final = "dray.slot"
LABELS: Final = frozenset(
    {LABEL_CLUSTER_ID, LABEL_TASK_ID, LABEL_ATTEMPT, LABEL_PROJECT, LABEL_SERVICE, LABEL_SLOT}
)

SYSTEM_PATHS_UNCONFINED: Final = "systempaths=unconfined"
RESOLV_CONF: Final = "/etc/resolv.conf"
_RECURSIVE: Final = frozenset({"", "enabled", "disabled", "writable", "readonly"})


def is_legacy_bind(mount: Mount, api: ApiVersion) -> bool:
    """Return whether only the older text form can say it: SELinux labels, and making the source."""
    if mount.kind is not MountKind.BIND:
        return False
    bind = mount.bind
    if bind is None:
        return api < SINCE_CREATE_MOUNTPOINT
    return bool(bind.selinux) or (bind.create_host_path and api < SINCE_CREATE_MOUNTPOINT)


def problems(request: ContainerRequest, api: ApiVersion) -> Iterator[str]:
    """Yield everything that cannot be said, or would be ignored or misread by this engine."""
    spec = request.spec
    for name in (*(v.name for v in spec.environment), *(n for n, _ in request.environment)):
        if not name or "=" in name or "\0" in name:
            yield f"{name!r} is not the name of a variable"
    for label in sorted(LABELS & {name for name, _ in spec.labels}):
        yield f"the label {label} is dray's own"
    if spec.annotations and api < SINCE_ANNOTATIONS:
        yield _too_old("annotations", SINCE_ANNOTATIONS, api)
    if any("=" in device.source for device in spec.devices) and api < SINCE_1_44:
        yield _too_old("a CDI device", SINCE_1_44, api)
    written = {target for _, target in request.files}
    for file in (*spec.configs, *spec.secrets):
        if file.target not in written:
            yield f"{file.source} was not written for {file.target}"
    yield from _healthcheck_problems(spec.healthcheck, api)
    yield from _security_problems(spec.security)
    yield from _network_problems(request.network)
    for mount in spec.mounts:
        yield from (f"mount {mount.target}: {text}" for text in _mount_problems(mount, api))
    yield from _target_problems(request)


def _too_old(what: str, since: ApiVersion, api: ApiVersion) -> str:
    needed, spoken = (f"{major}.{minor}" for major, minor in (since, api))
    return f"{what} needs Docker Engine API {needed}, this engine speaks {spoken}"


def _healthcheck_problems(check: Healthcheck | None, api: ApiVersion) -> Iterator[str]:
    if check is None:
        return
    if check.kind is HealthcheckKind.SHELL and len(check.command) != 1:
        yield "a health check by shell has one line of text"
    if check.kind is HealthcheckKind.EXEC and not check.command:
        yield "the health check has no command"
    if check.start_interval_s is not None and api < SINCE_1_44:
        yield _too_old("the health check's start_interval", SINCE_1_44, api)


def _security_problems(security: Security) -> Iterator[str]:
    if security.use_api_socket:
        yield "use_api_socket is not supported: a task does not get the node's Docker Engine"
    if security.credential_spec is not None:
        yield "credential_spec is for Windows containers"
    modes = {"pid": security.pid_mode, "ipc": security.ipc_mode}
    for key, mode in modes.items():
        if mode.startswith("service:"):
            yield f"{key}: {mode} is not supported: replicas may run on other nodes"
    for option in security.security_opt:
        name, separator, value = option.partition("=")
        known = value in ("unconfined", "builtin") or value.startswith("{")
        if name == "seccomp" and separator and not known:
            yield f"seccomp={value}: the engine takes the profile's text, not a path"


def _network_problems(network: ContainerNetwork) -> Iterator[str]:
    if network.name not in ("host", "none") and not network.name.startswith("container:"):
        return
    if network.ports:
        yield f"no ports can be published on network {network.name}"
    if network.ipv4_address or network.ipv6_address or network.mac_address:
        yield f"no address can be given on network {network.name}"


def _mount_problems(mount: Mount, api: ApiVersion) -> Iterator[str]:
    kind = mount.kind
    if kind in (MountKind.NPIPE, MountKind.CLUSTER):
        yield f"{kind.name.lower()} mounts are not supported"
    if not mount.target.startswith("/"):
        yield "the target is not an absolute path"
    options = {
        MountKind.BIND: mount.bind,
        MountKind.VOLUME: mount.volume,
        MountKind.TMPFS: mount.tmpfs,
        MountKind.IMAGE: mount.image_subpath or None,
    }
    for other, value in options.items():
        if value is not None and other is not kind:
            yield f"it has {other.name.lower()} options"
    match kind:
        case MountKind.BIND:
            yield from _bind_problems(mount, api)
        case MountKind.VOLUME:
            if mount.volume is not None and mount.volume.subpath and api < SINCE_VOLUME_SUBPATH:
                yield _too_old("subpath", SINCE_VOLUME_SUBPATH, api)
            if mount.volume is not None and mount.volume.labels and mount.source:
                yield "labels are for anonymous volumes"
        case MountKind.TMPFS:
            if mount.source or mount.consistency:
                yield "a tmpfs has no source and no consistency"
        case MountKind.IMAGE:
            if api < SINCE_IMAGE_MOUNT:
                yield _too_old("an image mount", SINCE_IMAGE_MOUNT, api)
        case MountKind.NPIPE | MountKind.CLUSTER:
            pass
        case _:
            assert_never(kind)


def _bind_problems(mount: Mount, api: ApiVersion) -> Iterator[str]:
    if not mount.source.startswith("/"):
        yield f"the source {mount.source!r} is not an absolute path"
    recursive = mount.bind.recursive if mount.bind is not None else ""
    if recursive not in _RECURSIVE:
        yield f"recursive is {recursive!r}"
    if recursive in ("writable", "readonly") and api < SINCE_1_44:
        yield _too_old(f"recursive: {recursive}", SINCE_1_44, api)
    if not is_legacy_bind(mount, api):
        return
    if ":" in mount.source or ":" in mount.target:
        yield "a path with a colon cannot be said to this engine with create_host_path or selinux"
    if recursive not in ("", "enabled"):
        yield f"recursive: {recursive} cannot be combined with create_host_path or selinux here"
    if mount.bind is not None and mount.bind.selinux and not mount.bind.create_host_path:
        yield "selinux cannot be combined with create_host_path: false"


def _target_problems(request: ContainerRequest) -> Iterator[str]:
    targets = [mount.target for mount in request.spec.mounts]
    targets += [target for _, target in request.files]
    if request.network.resolv_conf:
        targets.append(RESOLV_CONF)
    seen: set[str] = set()
    for target in (posixpath.normpath(target) for target in targets):
        if target in seen:
            yield f"two file systems or files are mounted on {target}"
        seen.add(target)
