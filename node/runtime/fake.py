"""How does the node run in tests and simulations, without Docker? The port's fake.

`FakeRuntime` is one adapter's view of a `FakeEngine`; the contract suite holds it to what the real
adapter does.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import posixpath
import tarfile
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Final

from dray.errors import DeadlineExceeded, InvalidRequest, NotFound, Unavailable
from dray.model import Health, ImageOptions, PullPolicy
from dray.names import ClusterId
from node.runtime.base import (
    Container,
    ContainerRequest,
    ContainerState,
    ContainerUsage,
    Created,
    EngineInfo,
    ExecRequest,
    ExecSession,
    LogChunk,
    LogQuery,
    LogStream,
    Pulled,
    PullProgress,
    Refusal,
    Refused,
    RegistryCredentials,
    RuntimeEvent,
    Started,
    Volume,
    VolumeRequest,
)
from node.runtime.fake_engine import Call, FakeContainer, FakeEngine, FakeProgram, image_digest
from node.runtime.listener import Listener
from node.runtime.signals import SIGNALLED_EXIT_CODE, signal_number
from node.runtime.spec import volumes_needed

__all__ = ["FakeRuntime"]

_PIECE_BYTES: Final = 64 * 1024
_INPUT_PIECES_MAX: Final = 16
_LAYER_BYTES: Final = 1000
_MEMORY_BYTES: Final = 1024 * 1024
_NANOSECONDS: Final = 1_000_000_000
_NOT_EXECUTED: Final = 126


class FakeExec:
    """A command inside a container of the fake engine; an `ExecSession`."""

    def __init__(self, request: ExecRequest, program: FakeProgram) -> None:
        self._request = request
        self._program = program
        self._input: asyncio.Queue[bytes] = asyncio.Queue(_INPUT_PIECES_MAX)
        self._size = request.terminal_size or (80, 24)
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def output(self) -> AsyncIterator[tuple[LogStream, bytes]]:
        """Yield output as it comes, in order, until the command ends."""
        program, newline = self._program, b"\r\n" if self._request.tty else b"\n"
        if program.refusal is not None:
            yield LogStream.STDOUT, b"unable to start container process" + newline
        elif program.shows_size:
            columns, rows = self._size
            yield LogStream.STDOUT, f"{rows} {columns}".encode() + newline
        for origin, line in program.output:
            yield LogStream.STDOUT if self._request.tty else origin, line + newline
        if program.copies_input and self._request.stdin:
            while piece := await self._input.get():
                yield LogStream.STDOUT, piece
        if not self._code.done():
            await asyncio.sleep(program.runs_s)
            self._code.set_result(self._status())

    def _status(self) -> int:
        return _NOT_EXECUTED if self._program.refusal is not None else self._program.exit_code or 0

    async def write(self, data: bytes) -> None:
        """Send input; waits while the command does not read."""
        assert len(data) <= _PIECE_BYTES, "at most 64 KiB a call"
        if data:
            await self._input.put(data)

    async def close_input(self) -> None:
        """Tell the command that there is no more input."""
        await self._input.put(b"")

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal."""
        self._size = (columns, rows)

    async def send_signal(self, signal: str) -> None:
        """Send a signal to the command: it ends."""
        number = signal_number(signal)
        if not self._code.done():
            self._code.set_result(SIGNALLED_EXIT_CODE + number)
            await self._input.put(b"")

    async def exit_code(self) -> int:
        """Return the exit status; waits for the end."""
        if not self._program.copies_input and not self._code.done():
            return self._status()
        return await asyncio.shield(self._code)

    def leave(self) -> None:
        """Forget the command: nobody reads it any more."""
        self._code.cancel()


class FakeRuntime:
    """An adapter to a `FakeEngine`; a `Runtime`."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._listeners: set[Listener] = set()
        self._is_closed = False

    async def _reach(self) -> FakeEngine:
        """Return the engine, or raise that it cannot be reached; other tasks run meanwhile."""
        await asyncio.sleep(0)
        if self._is_closed:
            raise Unavailable("the runtime is closed", retryable=False)
        self._engine.check_reach()
        return self._engine

    async def _find(self, container_id: str) -> FakeContainer | None:
        containers = (await self._reach()).containers
        named = (each for each in containers.values() if each.request.name == container_id)
        return containers.get(container_id) or next(named, None)

    async def info(self) -> EngineInfo:
        """Return what the engine says about itself."""
        engine = await self._reach()
        system, _, architecture = engine.platform.partition("/")
        return EngineInfo("0-fake", system, architecture, "/var/lib/fake", engine.live_restore, 2)

    async def pull(
        self,
        image: ImageOptions,
        *,
        credentials: RegistryCredentials | None = None,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> Pulled | Refused:
        """Bring an image to the node, as its pull policy says."""
        engine = await self._reach()
        refused = engine.scripted(Call.PULL)
        if refused is not None:
            return refused
        reference = image.reference
        local = engine.images.get(reference)
        fits = local is not None and image.platform in ("", local)
        if fits and image.pull_policy in (PullPolicy.MISSING, PullPolicy.NEVER):
            return Pulled(image_digest(reference), fetched=False, platform=local or "")
        if image.pull_policy is PullPolicy.NEVER:
            kind = Refusal.IMAGE_NOT_FOUND if local is None else Refusal.WRONG_PLATFORM
            return Refused(kind, f"{reference} is not on this node, and its pull policy is never")
        offered = engine.registry.get(reference)
        if offered is None:
            return Refused(Refusal.IMAGE_NOT_FOUND, f"manifest for {reference} not found")
        if image.platform not in ("", offered):
            return Refused(Refusal.WRONG_PLATFORM, f"{reference} is not made for {image.platform}")
        if progress is not None:
            progress(PullProgress(0, 1, 0, _LAYER_BYTES))
            progress(PullProgress(1, 1, _LAYER_BYTES, _LAYER_BYTES))
        engine.images[reference] = offered
        return Pulled(image_digest(reference), fetched=not fits, platform=offered)

    # ---- the life of a container -----------------------------------------------------------------

    async def create(self, request: ContainerRequest) -> Created | Refused:
        """Make a container without starting it."""
        engine = await self._reach()
        made = engine.scripted(Call.CREATE) or engine.create(request)
        return made if isinstance(made, Refused) else Created(made.container_id)

    async def start(self, container_id: str) -> Started | Refused:
        """Start a created container; one that has run is left alone."""
        container = await self._find(container_id)
        if container is None:
            return Refused(Refusal.NOT_FOUND, f"No such container: {container_id}")
        if container.state is not ContainerState.CREATED:
            return Started(container_id)
        refused = self._engine.scripted(Call.START) or self._engine.start(container)
        return refused or Started(container_id)

    async def stop(self, container_id: str, *, signal: str, grace_s: float) -> None:
        """Send the signal, wait for the grace period, then kill."""
        container = await self._find(container_id)
        if container is None or not container.is_running:
            return
        self._engine.kill(container, signal or container.request.spec.stop_signal or "SIGTERM")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._ended(container)
        (await self._reach()).kill(container, "SIGKILL")

    async def _ended(self, container: FakeContainer) -> None:
        while container.is_running and container.container_id in self._engine.containers:
            await self._engine.change()

    async def remove(self, container_id: str) -> None:
        """Remove a container and its anonymous volumes, killing it if it runs."""
        container = await self._find(container_id)
        if container is not None:
            self._engine.remove(container)

    async def wait(
        self, container_id: str, process_ended: Callable[[], None] = lambda: None
    ) -> Container | None:
        """Return the container once it has ended, or None if it is gone."""
        container = await self._find(container_id)
        while container is not None and container.state is not ContainerState.EXITED:
            await self._engine.change()
            if self._is_closed:
                raise Unavailable("the runtime was closed", retryable=False)
            with contextlib.suppress(Unavailable, DeadlineExceeded):
                container = await self._find(container_id)
        return None if container is None else container.seen()

    # ---- looking ---------------------------------------------------------------------------------

    async def inspect(self, container_id: str, *, seen_within_s: float = 0.0) -> Container | None:
        """Return the container as it is now, or None if it does not exist."""
        container = await self._find(container_id)
        return None if container is None else container.seen()

    async def containers(
        self, cluster_id: ClusterId, *, but: Collection[str] = ()
    ) -> tuple[Container, ...]:
        """Return all containers of dray's on this engine but some, sorted by name."""
        engine = await self._reach()
        ours = [
            container.seen()
            for container in engine.containers.values()
            if container.request.identity.cluster_id == cluster_id
            and container.container_id not in but
        ]
        return tuple(sorted(ours, key=lambda container: container.name))

    async def running(self, cluster_id: ClusterId) -> Mapping[str, Health]:
        """Return the ids of dray's containers that run, with what their checks say."""
        found = await self.containers(cluster_id)
        alive = (ContainerState.RUNNING, ContainerState.PAUSED)
        return {each.container_id: each.health for each in found if each.state in alive}

    async def usage(self, container_ids: tuple[str, ...]) -> tuple[ContainerUsage, ...]:
        """Return what running containers use; those that ended meanwhile are left out."""
        engine = await self._reach()
        running = [engine.containers.get(container_id) for container_id in container_ids]
        return tuple(_usage(each, engine) for each in running if each and each.is_running)

    # ---- streams ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        """Follow what happens to dray's containers from now on."""
        engine = await self._reach()
        listener = Listener("")
        self._listeners.add(listener)
        engine.listen(listener)
        try:
            yield aiter(listener)
        finally:
            engine.leave(listener)
            self._listeners.discard(listener)

    @contextlib.asynccontextmanager
    async def logs(
        self, container_id: str, query: LogQuery
    ) -> AsyncIterator[AsyncIterator[LogChunk]]:
        """Read output in the order the engine got it."""
        yield self._lines(await self._find(container_id), query)

    async def _lines(
        self, container: FakeContainer | None, query: LogQuery
    ) -> AsyncIterator[LogChunk]:
        if container is None:
            return
        wanted = len(container.log) if query.tail_lines is None else query.tail_lines
        position = max(len(container.log) - wanted, 0)
        while True:
            for line in container.log[position:]:
                position += 1
                if query.until_unix_ns is not None and line.unix_ns > query.until_unix_ns:
                    return
                if query.since_unix_ns is None or line.unix_ns > query.since_unix_ns:
                    yield line
            if not query.follow or not container.is_running:
                return
            await self._reach()
            if position == len(container.log) and container.is_running:
                await self._engine.change()

    @contextlib.asynccontextmanager
    async def exec(self, container_id: str, request: ExecRequest) -> AsyncIterator[ExecSession]:
        """Run a command inside a running container."""
        container = await self._find(container_id)
        if container is None or not container.is_running:
            raise NotFound(f"container {container_id} does not run")
        session = FakeExec(request, self._engine.program(request.command))
        try:
            yield session
        finally:
            session.leave()

    @contextlib.asynccontextmanager
    async def read_archive(
        self, container_id: str, path: str, *, follow_link: bool = False
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read a path of the container as a tar stream."""
        del follow_link  # there are no links in its containers
        container = await self._find(container_id)
        if container is None or path not in container.files:
            raise NotFound(f"Could not find the file {path} in container {container_id}")
        yield _pieces(_packed(container.files, path))

    async def write_archive(
        self, container_id: str, path: str, chunks: AsyncIterator[bytes]
    ) -> None:
        """Unpack a tar stream into a folder of the container."""
        container = await self._find(container_id)
        if container is None or container.files.get(path, b"") is not None:
            raise NotFound(f"{path} is no folder in container {container_id}")
        data = b"".join([chunk async for chunk in chunks])
        try:
            _unpack(container.files, path, data)
        except tarfile.TarError as err:
            raise InvalidRequest("this is no tar archive") from err

    # ---- volumes ---------------------------------------------------------------------------------

    async def ensure_volume(self, request: VolumeRequest) -> Refused | None:
        """Make a volume if it does not exist; one of another driver is refused."""
        engine = await self._reach()
        if request.name not in engine.volumes:
            engine.volume_labels[request.name] = request.labels
        driver = engine.volumes.setdefault(request.name, request.driver)
        if driver == request.driver:
            return None
        text = f"volume {request.name} exists with driver {driver}, not {request.driver}"
        return Refused(Refusal.NAME_TAKEN, text)

    async def volume_exists(self, name: str) -> bool:
        """Return whether a volume of that name is on this node."""
        return name in (await self._reach()).volumes

    async def volumes(self, label: tuple[str, str]) -> tuple[Volume, ...]:
        """Return the volumes that carry this label with this value, sorted by name."""
        engine = await self._reach()
        return tuple(
            Volume(name, engine.volumes[name], labels, engine.now_unix_s())
            for name, labels in sorted(engine.volume_labels.items())
            if label in labels
        )

    async def remove_volume(self, name: str) -> Refused | None:
        """Remove a volume with its data; one that a container mounts is refused."""
        engine = await self._reach()
        if any(name in volumes_needed(each.request.spec) for each in engine.containers.values()):
            return Refused(Refusal.OTHER, f"remove {name}: volume is in use", retryable=True)
        engine.volumes.pop(name, None)
        engine.volume_labels.pop(name, None)
        return None

    async def close(self) -> None:
        """End all streams. Containers run on. Calling it twice is harmless."""
        self._is_closed = True
        for listener in self._listeners:
            listener.end()
        self._engine.wake()


def _usage(container: FakeContainer, engine: FakeEngine) -> ContainerUsage:
    """Return a use that grows with time: the tenth part of one CPU."""
    age_s = engine.now_unix_s() - container.started_unix_s
    cpu_total_ns = round(max(age_s, 0) * _NANOSECONDS / 10) + 1
    return ContainerUsage(container.container_id, cpu_total_ns, _MEMORY_BYTES, 1, 0, 0, 0, 0)


def _packed(files: dict[str, bytes | None], path: str) -> bytes:
    """Return a path and all that is below it as a tar archive."""
    buffer = io.BytesIO()
    parent = posixpath.dirname(path).rstrip("/") + "/"
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            if name != path and not name.startswith(path.rstrip("/") + "/"):
                continue
            entry = tarfile.TarInfo(name.removeprefix(parent) or ".")
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
    return buffer.getvalue()


def _unpack(files: dict[str, bytes | None], path: str, data: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for entry in archive:
            name = posixpath.normpath(posixpath.join(path, entry.name))
            content = data[entry.offset_data : entry.offset_data + entry.size]
            files[name] = None if entry.isdir() else content


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
