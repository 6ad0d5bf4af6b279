"""What runs: everything that makes one container of a service, in Docker's terms.

The fields follow the Compose Specification's service keys; where dray's name differs, the docstring
names the key. An empty tuple or string and None mean "the image's or Docker's default", unless said
otherwise.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dray.model.resources import DeviceMapping, ResourceLimits
from dray.model.values import StringMap

__all__ = [
    "BindOptions",
    "ContainerSpec",
    "CredentialSpec",
    "EnvVar",
    "FileMount",
    "Healthcheck",
    "HealthcheckKind",
    "Hook",
    "ImageOptions",
    "Logging",
    "Mount",
    "MountKind",
    "PullPolicy",
    "Security",
    "TmpfsOptions",
    "VolumeOptions",
]


class PullPolicy(enum.Enum):
    """When the node fetches the image (`pull_policy`)."""

    MISSING = 1
    ALWAYS = 2
    NEVER = 3
    REFRESH = 4
    """Fetch again when the local copy is older than `ImageOptions.pull_refresh_after_s`.

    Compose writes it as `daily`, `weekly` or `every_…`.
    """


@dataclass(frozen=True, slots=True)
class EnvVar:
    """A variable of the container's environment.

    A value of None removes one that the image sets.
    """

    name: str
    value: str | None


class MountKind(enum.Enum):
    """What a mount brings into the container."""

    VOLUME = 1
    BIND = 2
    TMPFS = 3
    NPIPE = 4
    CLUSTER = 5
    IMAGE = 6


@dataclass(frozen=True, slots=True)
class BindOptions:
    """Options of a bind mount.

    Attributes:
        propagation: Mount propagation, "rprivate"; empty: Docker's default.
        create_host_path: Make the source folder on the node when it is missing.
        selinux: "z" (shared), "Z" (private) or empty.
        recursive: "enabled", "disabled", "writable", "readonly" or empty.
    """

    propagation: str = ""
    create_host_path: bool = True
    selinux: str = ""
    recursive: str = ""


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """Options of a volume mount.

    Attributes:
        nocopy: Do not fill a new volume with the image's content.
        subpath: Path inside the volume; empty: its root.
        labels: Labels of an anonymous volume.
    """

    nocopy: bool = False
    subpath: str = ""
    labels: StringMap = ()


@dataclass(frozen=True, slots=True)
class TmpfsOptions:
    """Options of a tmpfs mount.

    Attributes:
        size_bytes: Size; None: half of the memory.
        mode: File mode of its root; None: 0o1777.
        options: Raw mount options.
    """

    size_bytes: int | None = None
    mode: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system inside the container (`volumes`, `tmpfs`).

    Attributes:
        kind: What it is.
        source: Path on the node (BIND), name of the project's volume (VOLUME, CLUSTER; empty:
            anonymous), image (IMAGE).
        target: Absolute path in the container.
        read_only: Whether writing is refused.
        consistency: Compose's `consistency`, which Docker on Linux ignores.
        bind: Options of BIND.
        volume: Options of VOLUME.
        tmpfs: Options of TMPFS.
        image_subpath: Path inside the image of IMAGE.
    """

    kind: MountKind
    source: str
    target: str
    read_only: bool = False
    consistency: str = ""
    bind: BindOptions | None = None
    volume: VolumeOptions | None = None
    tmpfs: TmpfsOptions | None = None
    image_subpath: str = ""


@dataclass(frozen=True, slots=True)
class FileMount:
    """A config or secret of the project as a file in the container.

    Attributes:
        source: The key under the project's `configs:` or `secrets:`.
        target: Absolute path in the container.
        uid: Owner, as the file says; empty: 0.
        gid: Group, as the file says; empty: 0.
        mode: Permissions; 0o444 by default.
    """

    source: str
    target: str
    uid: str = ""
    gid: str = ""
    mode: int = 0o444


class HealthcheckKind(enum.Enum):
    """How Docker tests a container's health."""

    INHERIT = 1
    """The image's own test, with this file's times."""
    DISABLED = 2
    """No test, even if the image has one (`test: ["NONE"]`, `disable: true`)."""
    EXEC = 3
    """`command` is run as it is (`CMD`)."""
    SHELL = 4
    """`command[0]` is run by the container's shell (`CMD-SHELL`)."""


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How often and how health is tested. None keeps the image's or Docker's default.

    Attributes:
        kind: What is run.
        command: The test's words (EXEC), or one text (SHELL).
        interval_s: Pause between tests, seconds; Docker's default is 30.
        timeout_s: After this long a test has failed, seconds; Docker's default is 30.
        start_period_s: How long failures after the start do not count, seconds; default 0.
        start_interval_s: Pause between tests in the start period, seconds; default 5.
        retries: Failures in a row that make it unhealthy; default 3.
    """

    kind: HealthcheckKind = HealthcheckKind.INHERIT
    command: tuple[str, ...] = ()
    interval_s: float | None = None
    timeout_s: float | None = None
    start_period_s: float | None = None
    start_interval_s: float | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """A command run inside the container: `post_start` after its start, `pre_stop` before stop.

    Attributes:
        command: Its words.
        user: "uid[:gid]" or names; empty: the container's.
        privileged: Whether it has all privileges.
        working_dir: Absolute path; empty: the container's.
        environment: Variables beside the container's, sorted by name.
    """

    command: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: tuple[EnvVar, ...] = ()


@dataclass(frozen=True, slots=True)
class Logging:
    """Docker's log driver and its options; an empty driver is the engine's default."""

    driver: str = ""
    options: StringMap = ()


@dataclass(frozen=True, slots=True)
class CredentialSpec:
    """Compose's `credential_spec` of a managed service account: one of the three is set."""

    config: str = ""
    file: str = ""
    registry: str = ""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Which image, and how the node comes by it.

    Attributes:
        reference: Name with tag or digest, as the file says it.
        platform: "linux/arm64"; empty: the node's own.
        pull_policy: When to fetch it.
        pull_refresh_after_s: Age of the local copy after which REFRESH fetches again, seconds.
    """

    reference: str
    platform: str = ""
    pull_policy: PullPolicy = PullPolicy.MISSING
    pull_refresh_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Security:
    """What the container may do beyond, or short of, Docker's defaults.

    Attributes:
        privileged: All capabilities and all devices.
        read_only: Its root file system cannot be written to.
        cap_add: Capabilities beside Docker's default ones.
        cap_drop: Capabilities taken away.
        security_opt: Docker's labels: "no-new-privileges", "seccomp=…".
        userns_mode: "host" or empty.
        pid_mode: "host", "service:…", "container:…" or empty.
        ipc_mode: "shareable", "host", "service:…" and so on, or empty.
        uts_mode: "host" or empty.
        cgroup_mode: "host", "private" or empty (`cgroup`).
        cgroup_parent: Control group that it is made in; empty: the engine's.
        device_cgroup_rules: Lines such as "c 1:3 mr".
        sysctls: Kernel settings of its namespaces.
        use_api_socket: Bring the engine's socket and credentials into it.
        credential_spec: A managed service account, or None.
    """

    privileged: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    userns_mode: str = ""
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    cgroup_mode: str = ""
    cgroup_parent: str = ""
    device_cgroup_rules: tuple[str, ...] = ()
    sysctls: StringMap = ()
    use_api_socket: bool = False
    credential_spec: CredentialSpec | None = None


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container of a service.

    Attributes:
        image: Which image.
        entrypoint: None keeps the image's; an empty tuple clears it.
        command: None keeps the image's; an empty tuple clears it.
        environment: Variables, sorted by name.
        user: "uid[:gid]" or names.
        group_add: Further groups.
        working_dir: Absolute path.
        hostname: None: the slot's name.
        domainname: As the file says it.
        labels: Labels of the container.
        annotations: OCI annotations.
        init: Run a small init as PID 1; None: the engine's default.
        tty: Give it a terminal.
        stdin_open: Keep its standard input open.
        stop_signal: "SIGTERM", "15"; empty: the image's.
        stop_grace_s: Seconds between the stop signal and the kill.
        mounts: File systems, in the file's order (a later one may lie inside an earlier one).
        configs: Configs as files.
        secrets: Secrets as files.
        devices: Devices of the node.
        healthcheck: None: the image's own, if it has one.
        post_start: Commands after start, in order.
        pre_stop: Commands before stop, in order.
        logging: Log driver.
        dns: Name servers used in place of dray's, in order.
        dns_search: Search domains in place of dray's.
        dns_opt: Resolver options.
        extra_hosts: Lines of /etc/hosts: (name, address), in order.
        security: Privileges and confinement.
        limits: What it may use.
        runtime: OCI runtime; empty: the engine's default.
        isolation: Compose's `isolation`.
    """

    image: ImageOptions
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: tuple[EnvVar, ...] = ()
    user: str = ""
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str | None = None
    domainname: str = ""
    labels: StringMap = ()
    annotations: StringMap = ()
    init: bool | None = None
    tty: bool = False
    stdin_open: bool = False
    stop_signal: str = ""
    stop_grace_s: float = 10.0
    mounts: tuple[Mount, ...] = ()
    configs: tuple[FileMount, ...] = ()
    secrets: tuple[FileMount, ...] = ()
    devices: tuple[DeviceMapping, ...] = ()
    healthcheck: Healthcheck | None = None
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    logging: Logging = Logging()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    security: Security = Security()
    limits: ResourceLimits = ResourceLimits()
    runtime: str = ""
    isolation: str = ""
