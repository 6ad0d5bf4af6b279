"""What should become of every field of a container request? The table of `test_spec`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dray.model import (
    BindOptions,
    BlkioDeviceRate,
    BlkioLimits,
    CredentialSpec,
    DeviceMapping,
    DeviceRequest,
    EnvVar,
    FileMount,
    Healthcheck,
    HealthcheckKind,
    ImageOptions,
    Logging,
    Mount,
    MountKind,
    ResourceLimits,
    Security,
    SlotKey,
    TmpfsOptions,
    Ulimit,
    VolumeOptions,
)
from dray.names import ClusterId, TaskId
from node.runtime.base import (
    ContainerIdentity,
    ContainerNetwork,
    HostPort,
)
from node.runtime.spec import (
    API_OLDEST,
    ApiVersion,
    identity_labels,
)

IDENTITY = ContainerIdentity(ClusterId("cluster"), TaskId("task"), 4, SlotKey("shop", "web", 2))
IMAGE = ImageOptions("web:1")
NEWEST: ApiVersion = (1, 48)
BIND, VOLUME, TMPFS = MountKind.BIND, MountKind.VOLUME, MountKind.TMPFS

Change = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A field with a value, and what becomes of it.

    Attributes:
        path: The field.
        change: Fields of the spec that are set; those of the request around it after `request_`.
        where: Keys down to the place in the body; empty: the value is refused.
        told: What stands there, or words of the refusal.
        api: API version that is spoken.
    """

    path: str
    change: Change
    where: tuple[str, ...]
    told: Any
    api: ApiVersion = API_OLDEST


def spec(path: str, value: Any, where: str, told: Any, api: ApiVersion = API_OLDEST) -> Row:
    """Return a row about a field of the spec itself."""
    return Row(path, {path: value}, tuple(where.split(".")) if where else (), told, api)


def security(field: str, value: Any, where: str, told: Any) -> Row:
    """Return a row about a field of `security`."""
    change = {"security": Security(**{field: value})}
    return Row(f"security.{field}", change, ("HostConfig", where) if where else (), told)


def limits(field: str, value: Any, where: str, told: Any) -> Row:
    """Return a row about a field of `limits`."""
    change = {"limits": ResourceLimits(**{field: value})}
    return Row(f"limits.{field}", change, ("HostConfig", where), told)


def blkio(field: str, value: Any, where: str, told: Any) -> Row:
    """Return a row about a field of `limits.blkio`."""
    change = {"limits": ResourceLimits(blkio=BlkioLimits(**{field: value}))}
    return Row(f"limits.blkio.{field}", change, ("HostConfig", where), told)


def mount(field: str, value: Mount, where: str, told: Any, api: ApiVersion = API_OLDEST) -> Row:
    """Return a row about a field of a mount; `where` is a kind of mounts of the host config."""
    keys = ("HostConfig", where) if where else ()
    return Row(f"mounts.{field}", {"mounts": (value,)}, keys, told, api)


def check(field: str, value: Healthcheck, told: Any, api: ApiVersion = API_OLDEST) -> Row:
    """Return a row about a field of the health check."""
    where = () if isinstance(told, str) else ("Healthcheck",)
    return Row(f"healthcheck.{field}", {"healthcheck": value}, where, told, api)


def network(field: str, told: Any, *where: str, api: ApiVersion = API_OLDEST, **made: Any) -> Row:
    """Return a row about a field of the network."""
    change = {"request_network": ContainerNetwork(**{"name": "dray", **made})}
    return Row(f"network.{field}", change, where, told, api)


def file_at(path: str, kind: str = "bind", **more: Any) -> list[dict[str, Any]]:
    """Return a list of one mount of the API's newer form."""
    return [{"Type": kind, "Target": path, **more}]


KEEP = BindOptions(create_host_path=False)
EXEC = HealthcheckKind.EXEC
CDI = DeviceMapping("vendor.com/class=one", "vendor.com/class=one")
RATE, TOLD_RATE = (BlkioDeviceRate("/dev/sda", 5),), [{"Path": "/dev/sda", "Rate": 5}]
IPAM = {"IPAMConfig": {"IPv4Address": "10.0.0.9", "IPv6Address": "fd00::9"}}

ROWS = (
    spec("image", ImageOptions("web:2"), "Image", "web:2"),
    Row("image.reference", {"image": ImageOptions("web@sha256:1")}, ("Image",), "web@sha256:1"),
    Row("image.platform", {"image": ImageOptions("web", "linux/arm64")}, ("Image",), "web"),
    spec("entrypoint", ("a", "b"), "Entrypoint", ["a", "b"]),
    spec("entrypoint", (), "Entrypoint", [""]),
    spec("command", ("c", "d"), "Cmd", ["c", "d"]),
    Row("command", {"command": ()}, ("Entrypoint",), ["/image/entry"]),
    Row("environment.name", {"environment": (EnvVar("A", "1"),)}, ("Env",), ["A=1"]),
    Row("environment.value", {"environment": (EnvVar("A", None),)}, ("Env",), ["A"]),
    Row("environment.name", {"environment": (EnvVar("A=B", "1"),)}, (), "'A=B' is not the name"),
    spec("user", "1000:1000", "User", "1000:1000"),
    spec("group_add", ("audio",), "HostConfig.GroupAdd", ["audio"]),
    spec("working_dir", "/srv", "WorkingDir", "/srv"),
    spec("hostname", "custom", "Hostname", "custom"),
    spec("domainname", "example.org", "Domainname", "example.org"),
    Row("labels", {"labels": (("a", "b"),)}, ("Labels", "a"), "b"),
    Row("labels", {"labels": (("dray.slot", "9"),)}, (), "dray.slot is dray's own"),
    spec("annotations", (("a", "b"),), "HostConfig.Annotations", {"a": "b"}, (1, 43)),
    spec("annotations", (("a", "b"),), "", "annotations needs Docker Engine API 1.43"),
    spec("init", True, "HostConfig.Init", True),
    spec("init", False, "HostConfig.Init", False),
    spec("tty", True, "Tty", True),
    spec("stdin_open", True, "OpenStdin", True),
    spec("stop_signal", "SIGINT", "StopSignal", "SIGINT"),
    spec("stop_grace_s", 2.5, "StopTimeout", 3),
    mount("kind", Mount(VOLUME, "", "/d"), "Mounts", file_at("/d", "volume")),
    mount("kind", Mount(MountKind.NPIPE, "", "/d"), "", "npipe mounts are not supported"),
    mount("kind", Mount(MountKind.CLUSTER, "v", "/d"), "", "cluster mounts are not supported"),
    mount("source", Mount(VOLUME, "v", "/d"), "Mounts", file_at("/d", "volume", Source="v")),
    mount("source", Mount(BIND, "relative", "/d"), "", "'relative' is not an absolute path"),
    mount("target", Mount(BIND, "/s", "/d"), "Binds", ["/s:/d"]),
    mount("target", Mount(VOLUME, "v", "d"), "", "the target is not an absolute path"),
    mount("read_only", Mount(BIND, "/s", "/d", read_only=True), "Binds", ["/s:/d:ro"]),
    mount("read_only", Mount(TMPFS, "", "/d", read_only=True), "Tmpfs", {"/d": "ro"}),
    mount(
        "read_only",
        Mount(VOLUME, "v", "/d", read_only=True),
        "Mounts",
        file_at("/d", "volume", Source="v", ReadOnly=True),
    ),
    mount("consistency", Mount(BIND, "/s", "/d", consistency="cached"), "Binds", ["/s:/d:cached"]),
    mount(
        "bind",
        Mount(BIND, "/s", "/d"),
        "Mounts",
        file_at("/d", Source="/s", BindOptions={"CreateMountpoint": True}),
        NEWEST,
    ),
    mount("bind", Mount(VOLUME, "v", "/d", bind=KEEP), "", "it has bind options"),
    mount(
        "bind.propagation",
        Mount(BIND, "/s", "/d", bind=BindOptions("rslave", create_host_path=False)),
        "Mounts",
        file_at("/d", Source="/s", BindOptions={"Propagation": "rslave"}),
    ),
    mount(
        "bind.propagation",
        Mount(BIND, "/s", "/d", bind=BindOptions("rslave")),
        "Binds",
        ["/s:/d:rslave"],
    ),
    mount(
        "bind.create_host_path",
        Mount(BIND, "/s", "/d", bind=KEEP),
        "Mounts",
        file_at("/d", Source="/s"),
        NEWEST,
    ),
    mount("bind.create_host_path", Mount(BIND, "/a:b", "/d"), "", "a path with a colon"),
    mount(
        "bind.selinux",
        Mount(BIND, "/s", "/d", bind=BindOptions(selinux="Z")),
        "Binds",
        ["/s:/d:Z"],
        NEWEST,
    ),
    mount(
        "bind.selinux",
        Mount(BIND, "/s", "/d", bind=BindOptions(create_host_path=False, selinux="Z")),
        "",
        "selinux cannot be combined",
    ),
    mount(
        "bind.recursive",
        Mount(BIND, "/s", "/d", bind=BindOptions(create_host_path=False, recursive="disabled")),
        "Mounts",
        file_at("/d", Source="/s", BindOptions={"NonRecursive": True}),
    ),
    mount(
        "bind.recursive",
        Mount(BIND, "/s", "/d", bind=BindOptions(create_host_path=False, recursive="readonly")),
        "Mounts",
        file_at("/d", Source="/s", BindOptions={"ReadOnlyForceRecursive": True}),
        NEWEST,
    ),
    mount(
        "bind.recursive",
        Mount(BIND, "/s", "/d", bind=BindOptions(create_host_path=False, recursive="writable")),
        "Mounts",
        file_at("/d", Source="/s", BindOptions={"ReadOnlyNonRecursive": True}),
        NEWEST,
    ),
    mount(
        "bind.recursive",
        Mount(BIND, "/s", "/d", bind=BindOptions(create_host_path=False, recursive="readonly")),
        "",
        "recursive: readonly needs Docker Engine API 1.44",
    ),
    mount(
        "bind.recursive",
        Mount(BIND, "/s", "/d", bind=BindOptions(recursive="sideways")),
        "",
        "recursive is 'sideways'",
    ),
    mount(
        "volume.nocopy",
        Mount(VOLUME, "v", "/d", volume=VolumeOptions(nocopy=True)),
        "Mounts",
        file_at("/d", "volume", Source="v", VolumeOptions={"NoCopy": True}),
    ),
    mount(
        "volume.subpath",
        Mount(VOLUME, "v", "/d", volume=VolumeOptions(subpath="sub")),
        "Mounts",
        file_at("/d", "volume", Source="v", VolumeOptions={"Subpath": "sub"}),
        NEWEST,
    ),
    mount(
        "volume.subpath",
        Mount(VOLUME, "v", "/d", volume=VolumeOptions(subpath="sub")),
        "",
        "subpath needs Docker Engine API 1.45",
    ),
    mount(
        "volume.labels",
        Mount(VOLUME, "", "/d", volume=VolumeOptions(labels=(("a", "b"),))),
        "Mounts",
        file_at("/d", "volume", VolumeOptions={"Labels": {"a": "b"}}),
    ),
    mount(
        "volume.labels",
        Mount(VOLUME, "v", "/d", volume=VolumeOptions(labels=(("a", "b"),))),
        "",
        "labels are for anonymous volumes",
    ),
    mount("volume", Mount(BIND, "/s", "/d", volume=VolumeOptions()), "", "it has volume options"),
    mount(
        "tmpfs.size_bytes",
        Mount(TMPFS, "", "/d", tmpfs=TmpfsOptions(size_bytes=4096)),
        "Tmpfs",
        {"/d": "size=4096"},
    ),
    mount(
        "tmpfs.mode",
        Mount(TMPFS, "", "/d", tmpfs=TmpfsOptions(mode=0o1770)),
        "Tmpfs",
        {"/d": "mode=1770"},
    ),
    mount(
        "tmpfs.options",
        Mount(TMPFS, "", "/d", tmpfs=TmpfsOptions(options=("exec", "uid=5"))),
        "Tmpfs",
        {"/d": "exec,uid=5"},
    ),
    mount("tmpfs", Mount(VOLUME, "v", "/d", tmpfs=TmpfsOptions()), "", "it has tmpfs options"),
    mount(
        "image_subpath",
        Mount(MountKind.IMAGE, "web:1", "/d", image_subpath="sub"),
        "Mounts",
        file_at("/d", "image", Source="web:1", ImageOptions={"Subpath": "sub"}),
        NEWEST,
    ),
    mount("image_subpath", Mount(MountKind.IMAGE, "web:1", "/d"), "", "needs Docker Engine API"),
    mount("image_subpath", Mount(VOLUME, "v", "/d", image_subpath="x"), "", "it has image options"),
    Row(
        "configs.target",
        {"configs": (FileMount("c", "/c"),), "request_files": (("/n/c", "/c"),)},
        ("HostConfig", "Mounts"),
        file_at("/c", Source="/n/c", ReadOnly=True),
    ),
    Row("configs.source", {"configs": (FileMount("c", "/c"),)}, (), "c was not written for /c"),
    Row("secrets.source", {"secrets": (FileMount("s", "/s"),)}, (), "s was not written for /s"),
    Row(
        "secrets.target",
        {"secrets": (FileMount("s", "/s"),), "request_files": (("/n/s", "/s"),)},
        ("HostConfig", "Mounts"),
        file_at("/s", Source="/n/s", ReadOnly=True),
    ),
    *(
        Row(
            f"devices.{field}",
            {"devices": (DeviceMapping("/dev/a", "/dev/b", "r"),)},
            ("HostConfig", "Devices"),
            [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}],
        )
        for field in ("source", "target", "permissions")
    ),
    Row(
        "devices.source",
        {"devices": (CDI,)},
        ("HostConfig", "DeviceRequests"),
        [{"Driver": "cdi", "DeviceIDs": ["vendor.com/class=one"]}],
        NEWEST,
    ),
    Row("devices.source", {"devices": (CDI,)}, (), "a CDI device needs Docker Engine API"),
    check("kind", Healthcheck(HealthcheckKind.DISABLED), {"Test": ["NONE"]}),
    check("kind", Healthcheck(HealthcheckKind.INHERIT), {}),
    check("command", Healthcheck(EXEC, ("a", "b")), {"Test": ["CMD", "a", "b"]}),
    check("command", Healthcheck(HealthcheckKind.SHELL, ("a b",)), {"Test": ["CMD-SHELL", "a b"]}),
    check("command", Healthcheck(HealthcheckKind.SHELL, ("a", "b")), "has one line of text"),
    check("command", Healthcheck(EXEC), "the health check has no command"),
    check("interval_s", Healthcheck(interval_s=1.5), {"Interval": 1_500_000_000}),
    check("timeout_s", Healthcheck(timeout_s=2), {"Timeout": 2_000_000_000}),
    check("start_period_s", Healthcheck(start_period_s=3), {"StartPeriod": 3_000_000_000}),
    check("start_interval_s", Healthcheck(start_interval_s=1), {"StartInterval": 10**9}, (1, 44)),
    check("start_interval_s", Healthcheck(start_interval_s=1), "start_interval needs Docker"),
    check("retries", Healthcheck(retries=7), {"Retries": 7}),
    Row(
        "logging.driver",
        {"logging": Logging("local")},
        ("HostConfig", "LogConfig"),
        {"Type": "local"},
    ),
    Row(
        "logging.options",
        {"logging": Logging(options=(("max-size", "1m"),))},
        ("HostConfig", "LogConfig"),
        {"Config": {"max-size": "1m"}},
    ),
    spec("dns", ("1.1.1.1",), "HostConfig.Dns", ["1.1.1.1"]),
    spec("dns_search", ("example.org",), "HostConfig.DnsSearch", ["example.org"]),
    spec("dns_opt", ("ndots:1",), "HostConfig.DnsOptions", ["ndots:1"]),
    spec("extra_hosts", (("db", "10.0.0.1"),), "HostConfig.ExtraHosts", ["db:10.0.0.1"]),
    security("privileged", True, "Privileged", True),
    security("read_only", True, "ReadonlyRootfs", True),
    security("cap_add", ("NET_ADMIN",), "CapAdd", ["NET_ADMIN"]),
    security("cap_drop", ("ALL",), "CapDrop", ["ALL"]),
    security("security_opt", ("no-new-privileges",), "SecurityOpt", ["no-new-privileges"]),
    security("security_opt", ("systempaths=unconfined",), "MaskedPaths", []),
    security("security_opt", ("seccomp=unconfined",), "SecurityOpt", ["seccomp=unconfined"]),
    security("security_opt", ("seccomp=/a.json",), "", "takes the profile's text, not a path"),
    security("userns_mode", "host", "UsernsMode", "host"),
    security("pid_mode", "host", "PidMode", "host"),
    security("pid_mode", "service:db", "", "pid: service:db is not supported"),
    security("ipc_mode", "private", "IpcMode", "private"),
    security("ipc_mode", "service:db", "", "ipc: service:db is not supported"),
    security("uts_mode", "host", "UTSMode", "host"),
    security("cgroup_mode", "private", "CgroupnsMode", "private"),
    security("cgroup_parent", "/apps", "CgroupParent", "/apps"),
    security("device_cgroup_rules", ("c 1:3 mr",), "DeviceCgroupRules", ["c 1:3 mr"]),
    security("sysctls", (("net.core.somaxconn", "5"),), "Sysctls", {"net.core.somaxconn": "5"}),
    security("use_api_socket", True, "", "use_api_socket is not supported"),
    security("credential_spec", CredentialSpec(file="f"), "", "credential_spec is for Windows"),
    limits("cpu_millis", 1500, "NanoCpus", 1_500_000_000),
    limits("memory_bytes", 2**26, "Memory", 2**26),
    limits("pids", -1, "PidsLimit", -1),
    limits("memory_swap_bytes", -1, "MemorySwap", -1),
    limits("memory_swappiness", 0, "MemorySwappiness", 0),
    limits("cpu_shares", 512, "CpuShares", 512),
    limits("cpu_period_us", 50_000, "CpuPeriod", 50_000),
    limits("cpu_quota_us", 25_000, "CpuQuota", 25_000),
    limits("cpu_rt_period_us", 9, "CpuRealtimePeriod", 9),
    limits("cpu_rt_runtime_us", 8, "CpuRealtimeRuntime", 8),
    limits("cpuset", "0-1", "CpusetCpus", "0-1"),
    limits("shm_size_bytes", 2**20, "ShmSize", 2**20),
    limits("oom_kill_disable", True, "OomKillDisable", True),
    limits("oom_score_adj", -100, "OomScoreAdj", -100),
    limits("storage_opt", (("size", "1G"),), "StorageOpt", {"size": "1G"}),
    limits(
        "ulimits",
        (Ulimit("nofile", 10, 20),),
        "Ulimits",
        [{"Name": "nofile", "Soft": 10, "Hard": 20}],
    ),
    blkio("weight", 300, "BlkioWeight", 300),
    blkio("weight_device", RATE, "BlkioWeightDevice", [{"Path": "/dev/sda", "Weight": 5}]),
    blkio("read_bps", RATE, "BlkioDeviceReadBps", TOLD_RATE),
    blkio("read_iops", RATE, "BlkioDeviceReadIOps", TOLD_RATE),
    blkio("write_bps", RATE, "BlkioDeviceWriteBps", TOLD_RATE),
    blkio("write_iops", RATE, "BlkioDeviceWriteIOps", TOLD_RATE),
    spec("runtime", "runsc", "HostConfig.Runtime", "runsc"),
    spec("isolation", "default", "HostConfig.Isolation", "default"),
    # ---- the request around the spec ----
    Row("request.identity", {}, ("Labels",), identity_labels(IDENTITY)),
    Row("request.hostname", {"request_hostname": "web.2"}, ("Hostname",), "web.2"),
    Row("request.environment", {"request_environment": (("D", "1"),)}, ("Env",), ["D=1"]),
    Row(
        "request.environment",
        {"request_environment": (("D", "1"),), "environment": (EnvVar("D", "2"),)},
        ("Env",),
        ["D=2"],
    ),
    Row(
        "request.files",
        {"request_files": (("/n/f", "/f"),)},
        ("HostConfig", "Mounts"),
        file_at("/f", Source="/n/f", ReadOnly=True),
    ),
    Row("request.files", {"request_files": (("/a", "/f"), ("/b", "/f/"))}, (), "are mounted on /f"),
    *(
        Row(
            f"request.devices.{field}",
            {"request_devices": (DeviceRequest("nvidia", 2, (), ("gpu",), (("a", "b"),)),)},
            ("HostConfig", "DeviceRequests"),
            [
                {
                    "Driver": "nvidia",
                    "Count": 2,
                    "DeviceIDs": [],
                    "Capabilities": [["gpu"]],
                    "Options": {"a": "b"},
                }
            ],
        )
        for field in ("driver", "count", "capabilities", "options")
    ),
    Row(
        "request.devices.device_ids",
        {"request_devices": (DeviceRequest(count=2, device_ids=("0",)),)},
        ("HostConfig", "DeviceRequests"),
        [{"Driver": "", "Count": 0, "DeviceIDs": ["0"], "Capabilities": [[]], "Options": {}}],
    ),
    network("name", "dray", "HostConfig", "NetworkMode"),
    network(
        "ipv4_address",
        {"dray": IPAM},
        "NetworkingConfig",
        "EndpointsConfig",
        ipv4_address="10.0.0.9",
        ipv6_address="fd00::9",
    ),
    network("ipv4_address", "no address can be given", name="host", ipv4_address="10.0.0.9"),
    network(
        "ipv6_address",
        {"IPv6Address": "fd00::9"},
        "NetworkingConfig",
        "EndpointsConfig",
        "dray",
        "IPAMConfig",
        ipv6_address="fd00::9",
    ),
    network("mac_address", "02:00:00:00:00:01", "MacAddress", mac_address="02:00:00:00:00:01"),
    network(
        "mac_address",
        {"dray": {"MacAddress": "02:00:00:00:00:01"}},
        "NetworkingConfig",
        "EndpointsConfig",
        mac_address="02:00:00:00:00:01",
        api=NEWEST,
    ),
    network(
        "resolv_conf",
        file_at("/etc/resolv.conf", Source="/n/resolv.conf", ReadOnly=True),
        "HostConfig",
        "Mounts",
        resolv_conf="/n/resolv.conf",
    ),
    *(
        network(
            f"ports.{field}",
            {"53/udp": [{"HostIp": "10.0.0.1", "HostPort": "5353"}]},
            "HostConfig",
            "PortBindings",
            ports=(HostPort(53, 5353, "udp", "10.0.0.1"),),
        )
        for field in ("target", "published", "protocol", "host_ip")
    ),
    network("ports.target", {"80/tcp": {}}, "ExposedPorts", ports=(HostPort(80, 8080),)),
    network("ports.target", "no ports can be published", name="none", ports=(HostPort(80, 80),)),
)
