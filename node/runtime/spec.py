"""What does the Docker Engine have to be told to make one container of a service?

`create_body` maps a `ContainerRequest` to the body of `POST /containers/create`, field by field and
without I/O. It is total: a field of the spec is mapped, or it is listed in `HONOURED_ELSEWHERE`, or
its value is refused with a reason. Docker ignores what it does not know, so what this engine's API
version cannot say is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias, assert_never

from dray.model import (
    BlkioDeviceRate,
    ContainerSpec,
    EnvVar,
    Healthcheck,
    HealthcheckKind,
    Mount,
    MountKind,
    ResourceLimits,
    Security,
    SlotKey,
    StringMap,
)
from dray.names import ClusterId, TaskId
from node.runtime.base import (
    ContainerIdentity,
    ContainerNetwork,
    ContainerRequest,
    Refusal,
    Refused,
)
from node.runtime.spec_problems import (
    API_OLDEST,
    LABEL_ATTEMPT,
    LABEL_CLUSTER_ID,
    LABEL_PROJECT,
    LABEL_SERVICE,
    LABEL_SLOT,
    LABEL_TASK_ID,
    LABELS,
    RESOLV_CONF,
    SINCE_1_44,
    SINCE_CREATE_MOUNTPOINT,
    SYSTEM_PATHS_UNCONFINED,
    ApiVersion,
    is_legacy_bind,
    problems,
)

__all__ = [
    "API_OLDEST",
    "HONOURED_ELSEWHERE",
    "LABEL_CLUSTER_ID",
    "ApiVersion",
    "CreateBody",
    "Fields",
    "Json",
    "create_body",
    "identity_from_labels",
    "identity_labels",
    "needs_image_entrypoint",
    "volumes_needed",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Fields: TypeAlias = dict[str, Json]

HONOURED_ELSEWHERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "image.pull_policy": "Runtime.pull",
        "image.pull_refresh_after_s": "Runtime.pull",
        "post_start": "the node runs them through Runtime.exec",
        "pre_stop": "the node runs them through Runtime.exec",
        **{
            f"{kind}.{field}": "the node writes the file with them"
            for kind in ("configs", "secrets")
            for field in ("uid", "gid", "mode")
        },
    }
)
"""Fields of `ContainerSpec` that the create call has no part in, and who honours them."""

_NANOSECONDS: Final = 1_000_000_000
_NANO_CPUS_PER_MILLI: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class CreateBody:
    """What to send: the JSON body, and the platform for the query string (empty: none)."""

    body: Mapping[str, Json]
    platform: str = ""


def create_body(
    request: ContainerRequest,
    *,
    api: ApiVersion = API_OLDEST,
    image_entrypoint: Sequence[str] = (),
) -> CreateBody | Refused:
    """Return the create call for a request, or why it cannot be said to this engine.

    Args:
        request: What to make.
        api: Version of the Engine API that is spoken, >= `API_OLDEST`.
        image_entrypoint: The image's own; needed only when `needs_image_entrypoint(request.spec)`.
    """
    found = tuple(problems(request, api))
    if found:
        return Refused(Refusal.INVALID, f"{request.name}: {'; '.join(found)}"[:500])
    spec = request.spec
    body = _config(request, image_entrypoint)
    host = _host_config(request, api)
    _add_network(body, host, request.network, api)
    body["HostConfig"] = host
    return CreateBody(body, spec.image.platform)


def needs_image_entrypoint(spec: ContainerSpec) -> bool:
    """Return whether the spec clears the image's command and keeps its entry point.

    Docker takes an empty command for "none given" and would run the image's. It stops doing so when
    an entry point is given, so that of the image has to be repeated.
    """
    return spec.command == () and spec.entrypoint is None


def volumes_needed(spec: ContainerSpec) -> tuple[str, ...]:
    """Return the named volumes that must exist, because Docker would make empty ones in silence."""
    return tuple(
        dict.fromkeys(
            mount.source for mount in spec.mounts if mount.kind is MountKind.VOLUME and mount.source
        )
    )


def identity_labels(identity: ContainerIdentity) -> dict[str, str]:
    """Return the labels that say whose a container is."""
    return {
        LABEL_CLUSTER_ID: identity.cluster_id,
        LABEL_TASK_ID: identity.task_id,
        LABEL_ATTEMPT: str(identity.attempt),
        LABEL_PROJECT: identity.slot.project,
        LABEL_SERVICE: identity.slot.service,
        LABEL_SLOT: str(identity.slot.slot),
    }


def identity_from_labels(labels: Mapping[str, str]) -> ContainerIdentity | None:
    """Return whose a container is, or None when its labels do not say so completely."""
    values = {name: labels.get(name, "") for name in LABELS}
    numbers = (values[LABEL_ATTEMPT], values[LABEL_SLOT])
    if not all(values.values()) or not all(n.isascii() and n.isdecimal() for n in numbers):
        return None
    attempt, slot = (int(number) for number in numbers)
    if attempt < 1 or slot < 1:
        return None
    return ContainerIdentity(
        cluster_id=ClusterId(values[LABEL_CLUSTER_ID]),
        task_id=TaskId(values[LABEL_TASK_ID]),
        attempt=attempt,
        slot=SlotKey(values[LABEL_PROJECT], values[LABEL_SERVICE], slot),
    )


# ---- the body ------------------------------------------------------------------------------------


def _given(**fields: Json) -> Fields:
    """Return the fields that say something: not None and not empty. Zero and False stay."""
    return {name: value for name, value in fields.items() if value not in (None, "", (), {})}


def _config(request: ContainerRequest, image_entrypoint: Sequence[str]) -> Fields:
    """Return the top level of the body."""
    spec = request.spec
    body: Fields = {
        "Image": spec.image.reference,
        "Env": _environment(request.environment, spec.environment),
        "Labels": {**dict(spec.labels), **identity_labels(request.identity)},
        "Tty": spec.tty,
        "OpenStdin": spec.stdin_open,
        "StopTimeout": math.ceil(spec.stop_grace_s),
        **_given(
            User=spec.user,
            WorkingDir=spec.working_dir,
            Hostname=request.hostname or spec.hostname or "",
            Domainname=spec.domainname,
            StopSignal=spec.stop_signal,
        ),
    }
    entrypoint = spec.entrypoint
    if needs_image_entrypoint(spec):
        entrypoint = tuple(image_entrypoint)
    if entrypoint is not None:
        # [""] is how the API clears it; [] would mean the image's.
        body["Entrypoint"] = list(entrypoint) or [""]
    if spec.command is not None:
        body["Cmd"] = list(spec.command)
    if spec.healthcheck is not None:
        body["Healthcheck"] = _healthcheck(spec.healthcheck)
    return body


def _environment(below: StringMap, own: Sequence[EnvVar]) -> list[str]:
    """Return `NAME=value`, and a bare `NAME` for what the image sets and shall not be."""
    values: dict[str, str | None] = dict(below)
    values.update((variable.name, variable.value) for variable in own)
    return [name if value is None else f"{name}={value}" for name, value in values.items()]


def _healthcheck(check: Healthcheck) -> Fields:
    """Return the health check; the API takes 0 and an empty test for "the image's"."""
    match check.kind:
        case HealthcheckKind.INHERIT:
            test: list[str] = []
        case HealthcheckKind.DISABLED:
            return {"Test": ["NONE"]}
        case HealthcheckKind.EXEC:
            test = ["CMD", *check.command]
        case HealthcheckKind.SHELL:
            test = ["CMD-SHELL", *check.command]
        case _:
            assert_never(check.kind)
    return _given(
        Test=test or None,
        Interval=_nanoseconds(check.interval_s),
        Timeout=_nanoseconds(check.timeout_s),
        StartPeriod=_nanoseconds(check.start_period_s),
        StartInterval=_nanoseconds(check.start_interval_s),
        Retries=check.retries,
    )


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _NANOSECONDS)


def _host_config(request: ContainerRequest, api: ApiVersion) -> Fields:
    spec = request.spec
    is_cdi = [("=" in device.source) for device in spec.devices]
    cdi = [device.source for device, named in zip(spec.devices, is_cdi, strict=True) if named]
    requests: list[Json] = [
        {
            "Driver": asked.driver,
            "Count": 0 if asked.device_ids else asked.count,
            "DeviceIDs": list(asked.device_ids),
            "Capabilities": [list(asked.capabilities)],
            "Options": dict(asked.options),
        }
        for asked in request.devices
    ]
    if cdi:
        requests.append({"Driver": "cdi", "DeviceIDs": cdi})
    devices = [
        {
            "PathOnHost": device.source,
            "PathInContainer": device.target,
            "CgroupPermissions": device.permissions,
        }
        for device, named in zip(spec.devices, is_cdi, strict=True)
        if not named
    ]
    log = _given(Type=spec.logging.driver, Config=dict(spec.logging.options))
    return {
        # dray restarts; Docker never does.
        "RestartPolicy": {"Name": "no"},
        **_given(
            GroupAdd=list(spec.group_add) or None,
            Annotations=dict(spec.annotations),
            Init=spec.init,
            Devices=devices or None,
            DeviceRequests=requests or None,
            LogConfig=log,
            Dns=list(spec.dns) or None,
            DnsSearch=list(spec.dns_search) or None,
            DnsOptions=list(spec.dns_opt) or None,
            ExtraHosts=[f"{name}:{address}" for name, address in spec.extra_hosts] or None,
            Runtime=spec.runtime,
            Isolation=spec.isolation,
        ),
        **_security(spec.security),
        **_limits(spec.limits),
        **_file_systems(request, api),
    }


def _security(security: Security) -> Fields:
    options = [o for o in security.security_opt if o != SYSTEM_PATHS_UNCONFINED]
    # Docker's own client spells this option out, so the engine does not know its name.
    is_unmasked = len(options) < len(security.security_opt)
    masks: Fields = {"MaskedPaths": [], "ReadonlyPaths": []} if is_unmasked else {}
    return {
        "Privileged": security.privileged,
        "ReadonlyRootfs": security.read_only,
        **masks,
        **_given(
            CapAdd=list(security.cap_add) or None,
            CapDrop=list(security.cap_drop) or None,
            SecurityOpt=options or None,
            UsernsMode=security.userns_mode,
            PidMode=security.pid_mode,
            IpcMode=security.ipc_mode,
            UTSMode=security.uts_mode,
            CgroupnsMode=security.cgroup_mode,
            CgroupParent=security.cgroup_parent,
            DeviceCgroupRules=list(security.device_cgroup_rules) or None,
            Sysctls=dict(security.sysctls),
        ),
    }


def _limits(limits: ResourceLimits) -> Fields:
    blkio = limits.blkio
    cpus = limits.cpu_millis
    block: Fields = {}
    if blkio is not None:
        weights: list[Json] = [
            {"Path": each.path, "Weight": each.rate} for each in blkio.weight_device
        ]
        block = _given(
            BlkioWeight=blkio.weight or None,
            BlkioWeightDevice=weights or None,
            BlkioDeviceReadBps=_rates(blkio.read_bps),
            BlkioDeviceReadIOps=_rates(blkio.read_iops),
            BlkioDeviceWriteBps=_rates(blkio.write_bps),
            BlkioDeviceWriteIOps=_rates(blkio.write_iops),
        )
    ulimits: list[Json] = [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in limits.ulimits]
    return block | _given(
        NanoCpus=None if cpus is None else cpus * _NANO_CPUS_PER_MILLI,
        Memory=limits.memory_bytes,
        PidsLimit=limits.pids,
        MemorySwap=limits.memory_swap_bytes,
        MemorySwappiness=limits.memory_swappiness,
        CpuShares=limits.cpu_shares,
        CpuPeriod=limits.cpu_period_us,
        CpuQuota=limits.cpu_quota_us,
        CpuRealtimePeriod=limits.cpu_rt_period_us,
        CpuRealtimeRuntime=limits.cpu_rt_runtime_us,
        CpusetCpus=limits.cpuset,
        ShmSize=limits.shm_size_bytes,
        OomKillDisable=limits.oom_kill_disable or None,
        OomScoreAdj=limits.oom_score_adj,
        Ulimits=ulimits or None,
        StorageOpt=dict(limits.storage_opt),
    )


def _rates(rates: Sequence[BlkioDeviceRate]) -> list[Json] | None:
    return [{"Path": each.path, "Rate": each.rate} for each in rates] or None


# ---- file systems --------------------------------------------------------------------------------


def _file_systems(request: ContainerRequest, api: ApiVersion) -> Fields:
    mounts: list[Json] = []
    binds: list[str] = []
    tmpfs: dict[str, str] = {}
    for mount in request.spec.mounts:
        if mount.kind is MountKind.TMPFS:
            tmpfs[mount.target] = _tmpfs_options(mount)
        elif is_legacy_bind(mount, api):
            binds.append(_legacy_bind(mount))
        else:
            mounts.append(_mount(mount, api))
    files = list(request.files)
    if request.network.resolv_conf:
        files.append((request.network.resolv_conf, RESOLV_CONF))
    mounts += [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
        for source, target in files
    ]
    return _given(Mounts=mounts or None, Binds=binds or None, Tmpfs=tmpfs)


def _legacy_bind(mount: Mount) -> str:
    bind = mount.bind
    options = ["ro"] if mount.read_only else []
    options += [o for o in (mount.consistency,) if o]
    if bind is not None:
        options += [o for o in (bind.propagation, bind.selinux) if o]
    return ":".join([mount.source, mount.target, *([",".join(options)] if options else [])])


def _tmpfs_options(mount: Mount) -> str:
    """Return the options as text: the only form that carries raw ones to every engine."""
    options = ["ro"] if mount.read_only else []
    if mount.tmpfs is not None:
        if mount.tmpfs.size_bytes is not None:
            options.append(f"size={mount.tmpfs.size_bytes}")
        if mount.tmpfs.mode is not None:
            options.append(f"mode={mount.tmpfs.mode:o}")
        options += mount.tmpfs.options
    return ",".join(options)


def _mount(mount: Mount, api: ApiVersion) -> Fields:
    shared = _given(
        Source=mount.source,
        Target=mount.target,
        ReadOnly=mount.read_only or None,
        Consistency=mount.consistency,
    )
    match mount.kind:
        case MountKind.BIND:
            return {"Type": "bind", **shared, **_given(BindOptions=_bind_options(mount, api))}
        case MountKind.VOLUME:
            return {"Type": "volume", **shared, **_given(VolumeOptions=_volume_options(mount))}
        case MountKind.IMAGE:
            options = _given(Subpath=mount.image_subpath)
            return {"Type": "image", **shared, **_given(ImageOptions=options)}
        case MountKind.TMPFS | MountKind.NPIPE | MountKind.CLUSTER:
            raise AssertionError(f"{mount.kind} is refused or mapped elsewhere")
        case _:
            assert_never(mount.kind)


def _bind_options(mount: Mount, api: ApiVersion) -> Fields:
    bind = mount.bind
    makes_source = bind is None or bind.create_host_path
    create = makes_source and api >= SINCE_CREATE_MOUNTPOINT
    if bind is None:
        return _given(CreateMountpoint=create or None)
    return _given(
        Propagation=bind.propagation,
        CreateMountpoint=create or None,
        NonRecursive=bind.recursive == "disabled" or None,
        ReadOnlyNonRecursive=bind.recursive == "writable" or None,
        ReadOnlyForceRecursive=bind.recursive == "readonly" or None,
    )


def _volume_options(mount: Mount) -> Fields:
    volume = mount.volume
    if volume is None:
        return {}
    return _given(NoCopy=volume.nocopy or None, Subpath=volume.subpath, Labels=dict(volume.labels))


# ---- the network ---------------------------------------------------------------------------------


def _add_network(body: Fields, host: Fields, network: ContainerNetwork, api: ApiVersion) -> None:
    host["NetworkMode"] = network.name
    endpoint: Fields = {}
    ipam = _given(IPv4Address=network.ipv4_address, IPv6Address=network.ipv6_address)
    if ipam:
        endpoint["IPAMConfig"] = ipam
    if network.mac_address:
        # Either place is deprecated or unknown in one half of the versions.
        (endpoint if api >= SINCE_1_44 else body)["MacAddress"] = network.mac_address
    if endpoint:
        body["NetworkingConfig"] = {"EndpointsConfig": {network.name: endpoint}}
    bindings: dict[str, list[Json]] = {}
    for port in network.ports:
        binding = {"HostIp": port.host_ip, "HostPort": str(port.published)}
        bindings.setdefault(f"{port.target}/{port.protocol}", []).append(binding)
    if bindings:
        body["ExposedPorts"] = {port: {} for port in bindings}
        host["PortBindings"] = bindings
