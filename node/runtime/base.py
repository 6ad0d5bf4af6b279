"""What may the node expect of a container runtime, whatever is behind it?

`Runtime` is the port; `docker.py` and `fake.py` are its adapters, held to one contract suite
(`tests/contract/runtime`). It knows containers, not tasks: which attempt comes next is decided by
the pure state machine in `node/agent`.

Two kinds of trouble are kept apart. What Docker says about *this container* (no such image, address
taken, command not found) is a returned `Refused`: the attempt ends with its reason. When Docker
itself does not answer, the methods raise `Unavailable`: that is a fault of the node and says
nothing about containers, which may well run on.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from dray.model import ContainerSpec, DeviceRequest, Health, ImageOptions, SlotKey, StringMap
from dray.names import ClusterId, TaskId
from node.runtime.images import Pulled, PullProgress, RegistryCredentials
from node.runtime.volumes import Volume, VolumeRequest

__all__ = [
    "Container",
    "ContainerIdentity",
    "ContainerNetwork",
    "ContainerRequest",
    "ContainerState",
    "ContainerUsage",
    "Created",
    "EngineInfo",
    "ExecRequest",
    "ExecSession",
    "HostPort",
    "LogChunk",
    "LogQuery",
    "LogStream",
    "PullProgress",
    "Pulled",
    "Refusal",
    "Refused",
    "RegistryCredentials",
    "Runtime",
    "RuntimeEvent",
    "RuntimeEventKind",
    "Started",
    "Volume",
    "VolumeRequest",
]


@dataclass(frozen=True, slots=True)
class ContainerIdentity:
    """Whose container it is; carried in its labels, so that a daemon that starts adopts what runs.

    Attributes:
        cluster_id: The cluster.
        task_id: The task.
        attempt: Number of the container run, from 1.
        slot: The slot, with project and service.
    """

    cluster_id: ClusterId
    task_id: TaskId
    attempt: int
    slot: SlotKey


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the node that Docker forwards to the container (published in host mode)."""

    target: int
    published: int
    protocol: str = "tcp"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class ContainerNetwork:
    """How a container is attached.

    Attributes:
        name: Docker network, "host", "none" or "container:<id>".
        ipv4_address: Address from dray's allocator; empty with host and none.
        ipv6_address: Address from dray's allocator; empty without one.
        mac_address: Hardware address; empty: Docker's choice.
        resolv_conf: File on the node that is mounted as /etc/resolv.conf; empty: Docker's own.
        ports: Ports that Docker forwards.
    """

    name: str = "none"
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    resolv_conf: str = ""
    ports: tuple[HostPort, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """One container to make; nothing in it is left for the runtime to decide.

    Attributes:
        name: Docker name, unique on the engine.
        identity: Whose it is.
        spec: What runs. Volume sources are full Docker volume names; configs and secrets were
            written to `files` already.
        network: How it is attached.
        devices: Requests to device drivers.
        files: (path on the node, path in the container) of configs and secrets, mounted read-only.
        hostname: Its host name.
        environment: Further variables that dray sets (`DRAY_…`), below those of the spec.
    """

    name: str
    identity: ContainerIdentity
    spec: ContainerSpec
    network: ContainerNetwork = ContainerNetwork()
    devices: tuple[DeviceRequest, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    environment: StringMap = ()


class ContainerState(enum.Enum):
    """What Docker says of a container."""

    CREATED = 1
    RUNNING = 2
    PAUSED = 3
    EXITED = 4
    """Ended, or dead."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine shows it.

    Attributes:
        container_id: Docker's id.
        name: Docker name.
        identity: Whose it is, from its labels; None: not one of dray's.
        state: What it does.
        health: What its check says.
        exit_code: Exit status, once EXITED.
        oom_killed: Whether the kernel killed it for memory.
        error: What Docker says went wrong at its start; empty when nothing did.
        pid: Process id of its main process as the engine sees it; 0 unless RUNNING.
        started_unix_s: When it started last; 0: never.
        finished_unix_s: When it ended last; 0: never.
        image_digest: Id of the image that it was made from.
        ipv4_address: Its address on its network; empty without one.
    """

    container_id: str
    name: str
    identity: ContainerIdentity | None
    state: ContainerState
    health: Health = Health.NONE
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    pid: int = 0
    started_unix_s: float = 0.0
    finished_unix_s: float = 0.0
    image_digest: str = ""
    ipv4_address: str = ""


class Refusal(enum.Enum):
    """Why the engine would not do something with one container or image."""

    IMAGE_NOT_FOUND = 1
    IMAGE_DENIED = 2
    """The registry wants other credentials."""
    REGISTRY_UNREACHABLE = 3
    WRONG_PLATFORM = 4
    NAME_TAKEN = 5
    ADDRESS_TAKEN = 6
    PORT_TAKEN = 7
    MOUNT_MISSING = 8
    VOLUME_MISSING = 9
    COMMAND_NOT_FOUND = 10
    COMMAND_NOT_EXECUTABLE = 11
    DISK_FULL = 12
    DEVICE_MISSING = 13
    INVALID = 14
    """The engine calls the request malformed."""
    NOT_FOUND = 15
    """The container is gone."""
    OTHER = 16
    NETWORK_MISSING = 17
    """The Docker network, or the container whose network is shared, is not there."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine said no. Nothing is left behind by the call that got it.

    Attributes:
        refusal: What kind of no.
        message: The engine's words, shortened to one line of at most 500 characters.
        retryable: Whether the same call may succeed later by itself (registry away, port still held
            …).
    """

    refusal: Refusal
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """The container exists and has never run."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Started:
    """The container's main process was executed; it may have ended since."""

    container_id: str


class RuntimeEventKind(enum.Enum):
    """What happened to a container."""

    CREATED = 1
    STARTED = 2
    DIED = 3
    OOM = 4
    HEALTH = 5
    REMOVED = 6
    RECONNECTED = 7
    """The connection to the engine was lost and is back: anything may have happened.

    Look at all containers again.
    """


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """A wake-up, never the truth: who gets one inspects the container.

    Attributes:
        kind: What happened.
        container_id: To which container; empty with RECONNECTED.
        identity: Whose it is, when the labels say so.
        unix_s: When, by the engine's clock.
    """

    kind: RuntimeEventKind
    container_id: str
    identity: ContainerIdentity | None
    unix_s: float


class LogStream(enum.Enum):
    """Which output a log line came from; a container with a terminal has only STDOUT."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class LogChunk:
    """One line of output as the engine kept it, without its newline.

    At most 64 KiB, longer lines come in parts.
    """

    stream: LogStream
    unix_ns: int
    data: bytes
    partial: bool = False


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which part of a container's output.

    Attributes:
        follow: Wait for more until the container ends.
        since_unix_ns: Only lines after this time; None: from the start.
        until_unix_ns: Only lines up to this time; None: to the end.
        tail_lines: Only the last so many of the lines that exist at the call; None: all. Counted
            before the times are looked at.
    """

    follow: bool = False
    since_unix_ns: int | None = None
    until_unix_ns: int | None = None
    tail_lines: int | None = None


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command to run inside a running container."""

    command: tuple[str, ...]
    user: str = ""
    working_dir: str = ""
    environment: StringMap = ()
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    terminal_size: tuple[int, int] | None = None
    """Columns and rows, with a terminal. The command may run a moment before it is set."""


class ExecSession(Protocol):
    """A command that runs inside a container.

    Leaving its context closes its input and stops reading, and does not kill it.
    """

    def output(self) -> AsyncIterator[tuple[LogStream, bytes]]:
        """Yield output as it comes, in order, until the command ends. Bytes, not lines."""
        ...

    async def write(self, data: bytes) -> None:
        """Send input; waits while the command does not read. At most 64 KiB a call."""
        ...

    async def close_input(self) -> None:
        """Tell the command that there is no more input."""
        ...

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal."""
        ...

    async def send_signal(self, signal: str) -> None:
        """Send a signal ("SIGINT") to the command's process; one that has ended is fine.

        Raises:
            InvalidRequest: There is no such signal.
        """
        ...

    async def exit_code(self) -> int:
        """Return the exit status; waits for the end."""
        ...


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What one container uses; counters grow from its start.

    `memory_bytes` is the working set: file pages that nobody touched lately are not counted.
    """

    container_id: str
    cpu_total_ns: int
    memory_bytes: int
    pids: int
    network_rx_bytes: int
    network_tx_bytes: int
    block_read_bytes: int
    block_write_bytes: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine says about itself.

    Attributes:
        version: Version of Docker.
        os: "linux".
        architecture: In the words of image platforms: "amd64", "arm64".
        data_root: Folder of its data on the node.
        live_restore: Whether containers outlive the engine's daemon.
        cgroup_version: 1 or 2.
    """

    version: str
    os: str
    architecture: str
    data_root: str
    live_restore: bool
    cgroup_version: int


class Runtime(Protocol):
    """A container engine on this machine.

    Methods may run at the same time; the adapter bounds how many do.

    Every method raises `Unavailable` when the engine cannot be reached and `DeadlineExceeded` when
    it does not answer in the adapter's time. Both leave open what the engine did: callers look
    (`inspect`, `containers`) before they act again.
    """

    async def info(self) -> EngineInfo:
        """Return what the engine says about itself."""
        ...

    async def pull(
        self,
        image: ImageOptions,
        *,
        credentials: RegistryCredentials | None = None,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> Pulled | Refused:
        """Bring an image to the node, as its pull policy says.

        Equal pulls at the same time are one (single-flight).
        """
        ...

    async def create(self, request: ContainerRequest) -> Created | Refused:
        """Make a container without starting it.

        After `Created`, `start` needs no network and no registry. An image that is not on the node
        is refused, never fetched; a named volume that does not exist is refused, never made.
        """
        ...

    async def start(self, container_id: str) -> Started | Refused:
        """Start a created container.

        One that runs already, or has run, is `Started` and left alone: no container runs twice.
        """
        ...

    async def stop(self, container_id: str, *, signal: str, grace_s: float) -> None:
        """Send the signal, wait for the grace period, then kill.

        Returns once it has ended; one that ended, never ran or is gone is fine. Waiting holds none
        of the adapter's bounded resources.

        Args:
            container_id: Docker's id.
            signal: "SIGTERM" …; empty: the one that the container was made with.
            grace_s: Seconds between signal and kill, >= 0.

        Raises:
            InvalidRequest: There is no such signal.
        """
        ...

    async def remove(self, container_id: str) -> None:
        """Remove a container and its anonymous volumes, killing it if it runs.

        One that is gone is fine.
        """
        ...

    async def wait(
        self, container_id: str, process_ended: Callable[[], None] = lambda: None
    ) -> Container | None:
        """Return the container once it has ended, or None if it is gone.

        Has no deadline of its own. Once it waits, an engine that goes away is waited for.

        Args:
            container_id: The container.
            process_ended: Called, at most once, when its first process has ended and the engine has
                not yet said so; where nobody tells, never.
        """
        ...

    async def inspect(self, container_id: str, *, seen_within_s: float = 0.0) -> Container | None:
        """Return the container with this id or Docker name as it is now; None: there is none.

        Args:
            container_id: Its id or name.
            seen_within_s: An answer of so long ago will do, if no event has come since.
        """
        ...

    async def containers(
        self, cluster_id: ClusterId, *, but: Collection[str] = ()
    ) -> tuple[Container, ...]:
        """Return all containers of dray's on this engine, running or not, sorted by name.

        Args:
            cluster_id: Whose.
            but: Ids of those that are left out: looking closely at each is what takes the time.
        """
        ...

    async def running(self, cluster_id: ClusterId) -> Mapping[str, Health]:
        """Return the health of all that run or are paused, by container id; cheap, to do often."""
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[RuntimeEvent]]:
        """Follow what happens to dray's containers from now on: from when the context is entered.

        The iterator does not end when the engine goes away: it waits, reconnects and yields
        RECONNECTED. It yields that too when its reader was so slow that events were lost. It ends
        when the runtime is closed.
        """
        ...

    def logs(
        self, container_id: str, query: LogQuery
    ) -> AbstractAsyncContextManager[AsyncIterator[LogChunk]]:
        """Read output in the order the engine got it.

        A container that is gone, or has not run yet, yields nothing, also with `follow`.

        Each stream is in the order it was written; the engine reads the two of a container without
        a terminal one beside the other.

        With `follow` it ends when the container does. An engine that goes away meanwhile raises
        `Unavailable`: who goes on asks again with `since_unix_ns` of the last line.

        Raises:
            FailedPrecondition: The container's log driver cannot be read.
        """
        ...

    def exec(
        self, container_id: str, request: ExecRequest
    ) -> AbstractAsyncContextManager[ExecSession]:
        """Run a command inside a running container.

        One that cannot be executed ends with exit status 126 or 127 and the engine's words as its
        output.

        Raises:
            NotFound: The container is gone or does not run.
        """
        ...

    async def usage(self, container_ids: tuple[str, ...]) -> tuple[ContainerUsage, ...]:
        """Return what running containers use; those that ended meanwhile are left out."""
        ...

    def read_archive(
        self, container_id: str, path: str, *, follow_link: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Read a path of the container as a tar stream in chunks of at most 64 KiB.

        A symbolic link is read as such; with `follow_link` what it points at is, under the name of
        that. Links below a folder stay links.

        Raises:
            NotFound: The container or the path does not exist.
        """
        ...

    async def write_archive(
        self, container_id: str, path: str, chunks: AsyncIterator[bytes]
    ) -> None:
        """Unpack a tar stream into a folder of the container.

        Raises:
            NotFound: The container or the folder does not exist.
            InvalidRequest: The stream is no tar archive. What came before the fault was unpacked.
        """
        ...

    async def ensure_volume(self, request: VolumeRequest) -> Refused | None:
        """Make a volume if it does not exist.

        One of the same name and another driver is refused (NAME_TAKEN); never emptied.
        """
        ...

    async def volume_exists(self, name: str) -> bool:
        """Return whether a volume of that name is on this node."""
        ...

    async def volumes(self, label: tuple[str, str]) -> tuple[Volume, ...]:
        """Return the volumes that carry this label with this value, sorted by name."""
        ...

    async def remove_volume(self, name: str) -> Refused | None:
        """Remove a volume with its data; one that a container mounts is refused (retryable)."""
        ...

    async def close(self) -> None:
        """End all streams and connections. Containers run on. Calling it twice is harmless."""
        ...
