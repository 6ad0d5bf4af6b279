"""What would a container engine do, without one? The engine behind `FakeRuntime`.

It runs no processes: a *program* says what a command prints and how it ends. It holds everything
that outlives an adapter (containers, images, volumes), so that several adapters, one after the
other or at once, see the same engine. Nothing in it is random; time comes from the caller's clock
and the event loop.

Tests and simulations script its faults: it can be away, silent, restarted or rebooted, it can
refuse the next call, and a container can be ended or change its health at any moment.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import re
import signal
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dray.errors import DeadlineExceeded, InvalidRequest, Unavailable
from dray.model import Health, Healthcheck, HealthcheckKind, MountKind, StringMap
from node.runtime.base import (
    Container,
    ContainerRequest,
    ContainerState,
    LogChunk,
    LogStream,
    Refusal,
    Refused,
    RuntimeEvent,
    RuntimeEventKind,
)
from node.runtime.listener import RECONNECTED, Listener
from node.runtime.signals import SIGNALLED_EXIT_CODE
from node.runtime.spec import create_body, volumes_needed

__all__ = ["Call", "FakeContainer", "FakeEngine", "FakeProgram", "image_digest"]

LOG_LINES_MAX: Final = 100_000
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NANOSECONDS: Final = 1_000_000_000
_PID_FIRST: Final = 1000
_ADDRESS_MODES: Final = ("none", "host")
_DOCKER_INTERVAL_S: Final = 30.0  # Docker's defaults for a health check
_DOCKER_RETRIES: Final = 3


@dataclass(frozen=True, slots=True)
class FakeProgram:
    """What a command does.

    Attributes:
        exit_code: Status with which it ends by itself; None: it runs until something ends it.
        runs_s: Seconds until it ends by itself.
        output: What it prints at its start, by line.
        ignores: Signals that it does not heed, such as "SIGTERM".
        signal_exit_code: Status when a signal ends it; None: 128 and the signal's number.
        refusal: The command cannot be executed.
        copies_input: As a command in a container: prints what it is sent, until that ends.
        shows_size: As a command in a container: prints rows and columns of its terminal.
    """

    exit_code: int | None = None
    runs_s: float = 0.0
    output: tuple[tuple[LogStream, bytes], ...] = ()
    ignores: frozenset[str] = frozenset()
    signal_exit_code: int | None = None
    refusal: Refusal | None = None
    copies_input: bool = False
    shows_size: bool = False


class Call(enum.Enum):
    """Calls of the port that can be told to refuse."""

    PULL = 1
    CREATE = 2
    START = 3


class _Reach(enum.Enum):
    """Whether the engine answers."""

    HERE = 1
    AWAY = 2
    SILENT = 3


@dataclass(slots=True, eq=False)
class FakeContainer:
    """A container of the fake engine, as it is now.

    Attributes:
        container_id: Its id.
        request: What it was made from.
        program: What its command does.
        state: What it does.
        health: What its check says.
        exit_code: Status, once it ended.
        oom_killed: Whether the kernel killed it for memory.
        error: What went wrong at its start.
        pid: Its process id while it runs.
        started_unix_s: When it started.
        finished_unix_s: When it ended.
        log: Its output.
        files: Content of its files by absolute path; None is a folder.
        timers: What is due for it.
    """

    container_id: str
    request: ContainerRequest
    program: FakeProgram
    state: ContainerState = ContainerState.CREATED
    health: Health = Health.NONE
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    pid: int = 0
    started_unix_s: float = 0.0
    finished_unix_s: float = 0.0
    log: list[LogChunk] = field(default_factory=list)
    files: dict[str, bytes | None] = field(
        default_factory=lambda: dict.fromkeys(("/", "/etc", "/root"))
    )
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        """Whether its main process lives."""
        return self.state in (ContainerState.RUNNING, ContainerState.PAUSED)

    def seen(self) -> Container:
        """Return it as the port shows it."""
        return Container(
            container_id=self.container_id,
            name=self.request.name,
            identity=self.request.identity,
            state=self.state,
            health=self.health,
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
            error=self.error,
            pid=self.pid,
            started_unix_s=self.started_unix_s,
            finished_unix_s=self.finished_unix_s,
            image_digest=image_digest(self.request.spec.image.reference),
            ipv4_address=self.request.network.ipv4_address if self.is_running else "",
        )


class FakeEngine:
    """An engine in memory, and the levers of its faults.

    Attributes:
        images: Platform ("linux/amd64") of every image on the node, by reference.
        registry: Platform of every image that can be pulled, by reference.
        volumes: Driver of every volume, by name.
        volume_labels: Labels of every volume that was made through the port, by name.
        networks: Names of its networks.
        host_paths: Paths that exist on the node, for binds that are not to be made.
        programs: What commands do; one that is not listed is `default_program`.
        live_restore: Whether containers outlive a restart of the engine.
        platform: What the node is.
        containers: By id.
    """

    def __init__(
        self,
        now_unix_s: Callable[[], float],
        *,
        images: Iterable[str] = (),
        programs: Mapping[tuple[str, ...], FakeProgram] | None = None,
        platform: str = "linux/amd64",
    ) -> None:
        """Make an engine that has some images of its own platform."""
        self.now_unix_s = now_unix_s
        self.platform = platform
        self.images = dict.fromkeys(images, platform)
        self.registry: dict[str, str] = {}
        self.volumes: dict[str, str] = {}
        self.volume_labels: dict[str, StringMap] = {}
        self.networks = {"none", "host", "bridge"}
        self.host_paths: set[str] = set()
        self.programs = dict(programs or {})
        self.default_program = FakeProgram()
        self.live_restore = True
        self.containers: dict[str, FakeContainer] = {}
        self._reach = _Reach.HERE
        self._made = 0
        self._refusals: defaultdict[Call, deque[Refused]] = defaultdict(deque)
        self._listeners: set[Listener] = set()
        self._changed = asyncio.Event()

    # ---- levers ----------------------------------------------------------------------------------

    def go_away(self) -> None:
        """Let nobody reach the engine; its containers run on."""
        self._reach = _Reach.AWAY
        self.wake()

    def fall_silent(self) -> None:
        """Answer nobody; its containers run on."""
        self._reach = _Reach.SILENT
        self.wake()

    def come_back(self) -> None:
        """Answer again; without `live_restore` the containers have ended meanwhile."""
        if not self.live_restore and self._reach is _Reach.AWAY:
            self._end_all(137)
        self._reach = _Reach.HERE
        for listener in self._listeners:
            listener.put(RECONNECTED)
        self.wake()

    def reboot(self) -> None:
        """Lose power and come back: nothing runs, everything is still there."""
        self.go_away()
        self._end_all(255)
        self.come_back()

    def refuse(self, call: Call, refused: Refused) -> None:
        """Refuse the next call of that kind; several wait in line."""
        self._refusals[call].append(refused)

    def end(self, container_id: str, exit_code: int, *, oom_killed: bool = False) -> None:
        """End a running container by itself."""
        container = self.containers[container_id]
        assert container.is_running, "only what runs can end"
        if oom_killed:
            container.oom_killed = True
            self.emit(RuntimeEventKind.OOM, container)
        self._end(container, exit_code)

    def set_health(self, container_id: str, health: Health) -> None:
        """Change what the health check of a container says."""
        container = self.containers[container_id]
        container.health = health
        self.emit(RuntimeEventKind.HEALTH, container)

    def write_log(self, container_id: str, origin: LogStream, line: bytes) -> None:
        """Have a container print a line."""
        log = self.containers[container_id].log
        unix_ns = round(self.now_unix_s() * _NANOSECONDS)
        # No two lines of one container have the same time, as good as on a real engine.
        unix_ns = max(unix_ns, log[-1].unix_ns + 1 if log else 0)
        log.append(LogChunk(origin, unix_ns, line))
        del log[:-LOG_LINES_MAX]
        self.wake()

    # ---- what the adapter calls ------------------------------------------------------------------

    def check_reach(self) -> None:
        """Raise what the port promises when the engine does not answer."""
        if self._reach is _Reach.AWAY:
            raise Unavailable("no Docker Engine answers")
        if self._reach is _Reach.SILENT:
            raise DeadlineExceeded("the Docker Engine does not answer")

    def scripted(self, call: Call) -> Refused | None:
        """Return the refusal that the script has for this call."""
        waiting = self._refusals[call]
        return waiting.popleft() if waiting else None

    def listen(self, listener: Listener) -> None:
        """Send events to a listener from now on."""
        self._listeners.add(listener)

    def leave(self, listener: Listener) -> None:
        """Send it no more."""
        self._listeners.discard(listener)

    async def change(self) -> None:
        """Return when anything has changed."""
        await self._changed.wait()

    def program(self, command: tuple[str, ...]) -> FakeProgram:
        """Return what a command does."""
        return self.programs.get(command, self.default_program)

    def create(self, request: ContainerRequest) -> FakeContainer | Refused:
        """Make a container, or say why not, in a real engine's order."""
        made = create_body(request)
        if isinstance(made, Refused):
            return made
        refused = self._refusal(request)
        if refused is not None:
            return refused
        for mount in request.spec.mounts:
            if mount.kind is MountKind.VOLUME and not mount.source:
                self.volumes[f"anonymous-{self._made}-{mount.target}"] = "local"
        self._made += 1
        spec = request.spec
        command = (*(spec.entrypoint or ()), *(spec.command or ()))
        container_id = hashlib.sha256(f"container {self._made}".encode()).hexdigest()
        container = FakeContainer(container_id, request, self.program(command))
        self.containers[container_id] = container
        self.emit(RuntimeEventKind.CREATED, container)
        return container

    def _refusal(self, request: ContainerRequest) -> Refused | None:
        spec, image = request.spec, request.spec.image
        for name in volumes_needed(spec):
            if name not in self.volumes:
                return Refused(Refusal.VOLUME_MISSING, f"volume {name} is not on this node")
        if not _NAME.fullmatch(request.name):
            return Refused(Refusal.INVALID, f"Invalid container name ({request.name})")
        if any(each.request.name == request.name for each in self.containers.values()):
            text = f'The container name "/{request.name}" is already in use by container'
            return Refused(Refusal.NAME_TAKEN, text, retryable=True)
        local = self.images.get(image.reference)
        if local is None:
            return Refused(Refusal.IMAGE_NOT_FOUND, f"No such image: {image.reference}")
        if image.platform not in ("", local):
            text = f"{image.reference} is {local}, not {image.platform}"
            return Refused(Refusal.WRONG_PLATFORM, text)
        for mount in spec.mounts:
            is_kept = mount.bind is not None and not mount.bind.create_host_path
            if mount.kind is MountKind.BIND and is_kept and mount.source not in self.host_paths:
                text = f"bind source path does not exist: {mount.source}"
                return Refused(Refusal.MOUNT_MISSING, text)
        return None

    def start(self, container: FakeContainer) -> Refused | None:
        """Execute a created container's command."""
        refused = self._start_refusal(container)
        if refused is not None:
            container.error = refused.message
            return refused
        container.state = ContainerState.RUNNING
        container.error = ""
        container.started_unix_s = self.now_unix_s()
        container.pid = _PID_FIRST + self._made
        self.emit(RuntimeEventKind.STARTED, container)
        for origin, line in container.program.output:
            self.write_log(container.container_id, origin, line)
        self._watch_health(container)
        if container.program.exit_code is not None:
            code = container.program.exit_code
            self._later(container, container.program.runs_s, lambda: self._end(container, code))
        return None

    def _start_refusal(self, container: FakeContainer) -> Refused | None:
        if container.program.refusal is not None:
            text = "unable to start container process"
            return Refused(container.program.refusal, text)
        network = container.request.network
        if network.name not in self.networks and not network.name.startswith("container:"):
            return Refused(Refusal.NETWORK_MISSING, f"network {network.name} not found")
        for other in self.containers.values():
            if other is container or not other.is_running:
                continue
            theirs = other.request.network
            if network.ipv4_address and network.ipv4_address == theirs.ipv4_address:
                return Refused(Refusal.ADDRESS_TAKEN, "Address already in use", retryable=True)
            taken = {(port.host_ip, port.published, port.protocol) for port in theirs.ports}
            for port in network.ports:
                if (port.host_ip, port.published, port.protocol) in taken:
                    text = f"Bind for {port.host_ip}:{port.published} failed: port is taken"
                    return Refused(Refusal.PORT_TAKEN, text, retryable=True)
        return None

    def kill(self, container: FakeContainer, name: str) -> None:
        """Send a signal to a container that runs.

        Raises:
            InvalidRequest: There is no such signal.
        """
        number = _signal_number(name)
        program = container.program
        if not container.is_running:
            return
        if number == signal.SIGKILL:
            self._end(container, SIGNALLED_EXIT_CODE + number)
        elif signal.Signals(number).name not in program.ignores:
            code = program.signal_exit_code
            self._end(container, SIGNALLED_EXIT_CODE + number if code is None else code)

    def remove(self, container: FakeContainer) -> None:
        """Take a container away, ending it first."""
        if container.is_running:
            self._end(container, 137)
        for timer in container.timers:
            timer.cancel()
        del self.containers[container.container_id]
        self.emit(RuntimeEventKind.REMOVED, container)

    def emit(self, kind: RuntimeEventKind, container: FakeContainer) -> None:
        """Tell the listeners, unless nobody can reach the engine."""
        if self._reach is _Reach.HERE:
            request = container.request
            event = RuntimeEvent(kind, container.container_id, request.identity, self.now_unix_s())
            for listener in self._listeners:
                listener.put(event)
        self.wake()

    # ---- inside ----------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have everybody who waits for a change look."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _later(self, container: FakeContainer, delay_s: float, act: Callable[[], None]) -> None:
        container.timers.append(asyncio.get_running_loop().call_later(delay_s, act))

    def _end(self, container: FakeContainer, exit_code: int) -> None:
        for timer in container.timers:
            timer.cancel()
        container.timers.clear()
        container.state = ContainerState.EXITED
        container.exit_code = exit_code
        container.finished_unix_s = self.now_unix_s()
        container.pid = 0
        self.emit(RuntimeEventKind.DIED, container)

    def _end_all(self, exit_code: int) -> None:
        for container in self.containers.values():
            if container.is_running:
                self._end(container, exit_code)

    def _watch_health(self, container: FakeContainer) -> None:
        """Have the check say its word: good after one interval, bad after all retries."""
        check: Healthcheck | None = container.request.spec.healthcheck
        if check is None or check.kind in (HealthcheckKind.DISABLED, HealthcheckKind.INHERIT):
            return
        container.health = Health.STARTING
        interval_s = _DOCKER_INTERVAL_S if check.interval_s is None else check.interval_s
        is_good = self.program(check.command).exit_code in (None, 0)
        tries = 1 if is_good else check.retries or _DOCKER_RETRIES
        found = Health.HEALTHY if is_good else Health.UNHEALTHY
        self._later(
            container, interval_s * tries, lambda: self.set_health(container.container_id, found)
        )


def image_digest(reference: str) -> str:
    """Return the id of an image of the fake engine."""
    return f"sha256:{hashlib.sha256(reference.encode()).hexdigest()}"


def _signal_number(name: str) -> int:
    if name.isdecimal() and int(name) in signal.valid_signals():
        return int(name)
    full = name if name.startswith("SIG") else f"SIG{name}"
    if full in signal.Signals.__members__:
        return signal.Signals[full]
    raise InvalidRequest(f"Invalid signal: {name}")
