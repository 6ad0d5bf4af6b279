"""How does dray drive a Docker Engine? The real adapter behind the `Runtime` port.

Short calls go through the `docker` SDK in a bounded pool of threads (`docker_calls`); everything
that lasts (events, logs, exec sessions, archives, pulls) is a stream on the event loop
(`docker_http`); waiting for a container's end listens to the engine's events and looks
(`docker_events`), so that hundreds of waits hold no thread and no connection. What the
answers mean is decided by pure code: `spec`, `docker_view`, `docker_errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlencode

import docker

from dray.errors import DeadlineExceeded, FailedPrecondition, InvalidRequest, Unavailable
from dray.model import Health, ImageOptions
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
    Pulled,
    PullProgress,
    Refusal,
    Refused,
    RegistryCredentials,
    RuntimeEvent,
    RuntimeEventKind,
    Started,
    Volume,
    VolumeRequest,
)
from node.runtime.docker_calls import CALLS_MAX, EngineCalls, create_container, image_of
from node.runtime.docker_errors import one_line, refused
from node.runtime.docker_events import EventHub, next_within, with_oom
from node.runtime.docker_http import EngineSocket, EngineStream
from node.runtime.docker_pull import SILENCE_MAX_S, Puller
from node.runtime.docker_streams import open_archive, open_exec, open_logs, send_archive
from node.runtime.docker_view import (
    EVENT_ACTIONS,
    Answer,
    container_from_inspect,
    engine_info,
    health_from_list,
    unix_ns_from_text,
    usage_from_stats,
    volume_from_list,
)
from node.runtime.ended import noticing_end
from node.runtime.listener import Listener
from node.runtime.looks import Looks
from node.runtime.spec import (
    LABEL_CLUSTER_ID,
    create_body,
    needs_image_entrypoint,
    volumes_needed,
)

__all__ = ["DockerRuntime", "slow_calls"]

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 60.0  # a start on a busy disk takes seconds, not minutes
LOOK_AGAIN_S: Final = 300.0  # who waits for a container looks so often; the agent more often
LOOK_SOON_S: Final = 0.02
SEEN_WITHIN_S: Final = 5.0  # between the look after a start and the wait for the end
UNSTARTED_MAX: Final = 1_024  # containers
SLOW_CALLS_MAX: Final = 12  # creates and starts at once; looks at what runs do not wait for them
SLOW_CALLS_MIN: Final = 4
SLOW_CALLS_BY_CORE: Final = 2  # keep it busy; of more at once, each costs more processor time
KILL_TIMEOUT_S: Final = 30.0  # what SIGKILL does not end in this time is stuck in the kernel

assert SLOW_CALLS_MAX < CALLS_MAX

T = TypeVar("T")


def slow_calls(cores: int) -> int:
    """Return how many creates and starts an engine on so many cores is asked for at once."""
    return min(max(SLOW_CALLS_BY_CORE * cores, SLOW_CALLS_MIN), SLOW_CALLS_MAX)


class DockerRuntime:
    """A Docker Engine behind its Unix socket; a `Runtime`.

    Made and used within one event loop; `close` it at the end.
    """

    def __init__(
        self,
        socket_path: Path,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        pull_silence_max_s: float = SILENCE_MAX_S,
    ) -> None:
        """Prepare to talk to an engine; nothing is sent yet.

        Args:
            socket_path: Its Unix socket.
            connect_timeout_s: Seconds until a connection stands.
            answer_timeout_s: Seconds until a question is answered.
            pull_silence_max_s: Seconds without news from a registry after which a pull is refused.
        """
        self._calls = EngineCalls(
            socket_path, connect_timeout_s=connect_timeout_s, answer_timeout_s=answer_timeout_s
        )
        self._socket = EngineSocket(socket_path, connect_timeout_s, answer_timeout_s)
        self._slow = asyncio.Semaphore(slow_calls(os.cpu_count() or 1))
        self._room_wait_s = answer_timeout_s
        self._looks = Looks()
        self._unstarted: set[str] = set()  # made here, and nobody was asked to start them yet
        self._hub = EventHub(self._open_events, asyncio.sleep, self._looks)
        self._puller = Puller(self._ask, self._socket, silence_max_s=pull_silence_max_s)

    async def _ask(self, function: Callable[[docker.APIClient], T]) -> T:
        """Return what the function returns; a failure of the engine itself is `Unavailable`."""
        try:
            return await self._calls.call(function)
        except docker.errors.APIError as err:
            if err.is_server_error():
                text = f"the Docker Engine failed: {one_line(str(err.explanation))}"
                raise Unavailable(text) from err
            raise

    async def info(self) -> EngineInfo:
        """Return what the engine says about itself."""
        return engine_info(await self._ask(lambda client: client.info()))

    async def pull(
        self,
        image: ImageOptions,
        *,
        credentials: RegistryCredentials | None = None,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> Pulled | Refused:
        """Bring an image to the node, as its pull policy says."""
        return await self._puller.pull(image, credentials, progress)

    # ---- the life of a container -----------------------------------------------------------------

    async def create(self, request: ContainerRequest) -> Created | Refused:
        """Make a container without starting it."""
        for name in volumes_needed(request.spec):
            if not await self.volume_exists(name):
                return Refused(Refusal.VOLUME_MISSING, f"volume {name} is not on this node")
        entrypoint: tuple[str, ...] = ()
        if needs_image_entrypoint(request.spec):
            found = await self._image_entrypoint(request.spec.image.reference)
            if isinstance(found, Refused):
                return found
            entrypoint = found
        made = create_body(request, api=await self._calls.api(), image_entrypoint=entrypoint)
        if isinstance(made, Refused):
            return made
        body, platform = dict(made.body), made.platform or None
        try:
            async with self._room():
                answer = await self._calls.call(
                    lambda client: create_container(client, body, request.name, platform)
                )
        except docker.errors.APIError as err:
            return _refused(err)
        self._unstarted.add(answer["Id"])
        if len(self._unstarted) > UNSTARTED_MAX:
            self._unstarted.pop()
        return Created(answer["Id"])

    @contextlib.asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """Hold one of the places for creates and starts.

        Raises:
            DeadlineExceeded: None is free for as long as an answer may take. So who waits is told,
                and a start that waits for hundreds of others is not late by itself.
        """
        try:
            async with asyncio.timeout(self._room_wait_s):
                await self._slow.acquire()
        except TimeoutError as err:
            text = "the Docker Engine is busy with the starts of other containers"
            raise DeadlineExceeded(text) from err
        try:
            yield
        finally:
            self._slow.release()

    async def _image_entrypoint(self, reference: str) -> tuple[str, ...] | Refused:
        try:
            image = await self._ask(lambda client: image_of(client, reference))
        except docker.errors.NotFound as err:
            return _refused(err)
        return tuple((image.get("Config") or {}).get("Entrypoint") or ())

    async def start(self, container_id: str) -> Started | Refused:
        """Start a created container; one that has run is left alone."""
        if container_id not in self._unstarted:
            found = await self.inspect(container_id)
            if found is not None and found.state is not ContainerState.CREATED:
                return Started(container_id)
        try:
            async with self._room():
                self._unstarted.discard(container_id)
                await self._calls.call(lambda client: client.start(container_id))
        except docker.errors.APIError as err:
            return _refused(err, container_id)
        return Started(container_id)

    async def stop(self, container_id: str, *, signal: str, grace_s: float) -> None:
        """Send the signal, wait for the grace period, then kill."""
        async with self._hub.listen(container_id) as listener:
            found = await self._inspected(container_id)
            if found is None:
                return
            container = container_from_inspect(found)
            if container.state in (ContainerState.CREATED, ContainerState.EXITED):
                return
            first = signal or str(found["Config"].get("StopSignal") or "SIGTERM")
            if not await self._kill(container_id, first):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._ended(container_id, listener)
                    return
            if not await self._kill(container_id, "SIGKILL"):
                return
            try:
                async with asyncio.timeout(KILL_TIMEOUT_S):
                    await self._ended(container_id, listener)
            except TimeoutError as err:
                text = f"{container.name} runs on {KILL_TIMEOUT_S:g} s after it was killed"
                raise DeadlineExceeded(text) from err

    async def _kill(self, container_id: str, signal: str) -> bool:
        """Send a signal; return whether the container ran."""
        try:
            await self._ask(lambda client: client.kill(container_id, signal))
        except docker.errors.APIError as err:
            if err.status_code in (404, 409):
                return False
            raise InvalidRequest(one_line(str(err.explanation))) from err
        return True

    async def remove(self, container_id: str) -> None:
        """Remove a container and its anonymous volumes, killing it if it runs."""
        try:
            await self._ask(
                lambda client: client.remove_container(container_id, v=True, force=True)
            )
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as err:
            if err.status_code != 409:
                raise FailedPrecondition(one_line(str(err.explanation))) from err
            await self._removed_by_others(container_id)

    async def _removed_by_others(self, container_id: str) -> None:
        """Return once a container that somebody else is removing is gone."""
        pause_s = LOOK_SOON_S
        try:
            async with asyncio.timeout(KILL_TIMEOUT_S):
                while await self._inspected(container_id) is not None:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, 1.0)
        except TimeoutError as err:
            text = f"container {container_id} has been in removal for {KILL_TIMEOUT_S:g} s"
            raise DeadlineExceeded(text) from err

    async def wait(
        self, container_id: str, process_ended: Callable[[], None] = lambda: None
    ) -> Container | None:
        """Return the container once it has ended, or None if it is gone."""
        async with self._hub.listen(container_id) as listener, contextlib.AsyncExitStack() as held:

            async def noticing(pid: int) -> None:
                await held.enter_async_context(noticing_end(pid, container_id, process_ended))

            return await self._ended(container_id, listener, noticing)

    async def _ended(
        self,
        container_id: str,
        listener: Listener,
        on_process: Callable[[int], Awaitable[None]] | None = None,
    ) -> Container | None:
        """Look now and after every event until the container has ended or is gone."""
        has_looked = was_oom = False
        while True:
            try:
                found = await self.inspect(
                    container_id, seen_within_s=0.0 if has_looked else SEEN_WITHIN_S
                )
                if found is None:
                    return None
                if found.state is ContainerState.EXITED:
                    return await with_oom(found, listener, was_oom=was_oom)
            except (Unavailable, DeadlineExceeded):
                if not has_looked:
                    raise
                found = None
            if on_process is not None and not has_looked and found is not None and found.pid:
                await on_process(found.pid)
            has_looked = True
            event = await next_within(listener, LOOK_AGAIN_S)
            was_oom |= event is not None and event.kind is RuntimeEventKind.OOM

    # ---- looking ---------------------------------------------------------------------------------

    async def inspect(self, container_id: str, *, seen_within_s: float = 0.0) -> Container | None:
        """Return the container with this id or name as it is now; None: there is none."""
        at_s, asked = asyncio.get_running_loop().time(), self._looks.asked()
        if seen_within_s:
            seen = self._looks.recent(container_id, at_s - seen_within_s)
            if seen is not None:
                return seen
        found = await self._inspected(container_id)
        if found is None:
            return None
        container = container_from_inspect(found)
        if self._hub.is_live:
            self._looks.answered(asked, at_s, container)
        return container

    async def _inspected(self, container_id: str) -> Answer | None:
        try:
            found: Answer = await self._ask(lambda client: client.inspect_container(container_id))
        except docker.errors.NotFound:
            return None
        return found

    async def containers(
        self, cluster_id: ClusterId, *, but: Collection[str] = ()
    ) -> tuple[Container, ...]:
        """Return all containers of dray's on this engine but some, sorted by name."""
        chosen = _of_cluster(cluster_id)
        listed = await self._ask(lambda client: client.containers(all=True, filters=chosen))
        ids = [entry["Id"] for entry in listed]
        found = await _all([self.inspect(each) for each in ids if each not in but])
        ours = [each for each in found if each is not None and each.identity is not None]
        return tuple(sorted(ours, key=lambda container: container.name))

    async def running(self, cluster_id: ClusterId) -> Mapping[str, Health]:
        """Return the ids of dray's containers that run, with what their checks say."""
        chosen = _of_cluster(cluster_id)
        listed = await self._ask(lambda client: client.containers(filters=chosen))
        return {entry["Id"]: health_from_list(entry) for entry in listed}

    async def usage(self, container_ids: tuple[str, ...]) -> tuple[ContainerUsage, ...]:
        """Return what running containers use; those that ended meanwhile are left out."""
        found = await _all([self._usage(container_id) for container_id in container_ids])
        return tuple(usage for usage in found if usage is not None)

    async def _usage(self, container_id: str) -> ContainerUsage | None:
        try:
            found = await self._ask(
                lambda client: client.stats(container_id, stream=False, one_shot=True)
            )
        except docker.errors.APIError:
            return None
        return usage_from_stats(container_id, found)

    # ---- streams ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        """Follow what happens to dray's containers from now on."""
        async with self._hub.listen() as listener:
            yield aiter(listener)

    @contextlib.asynccontextmanager
    async def _open_events(self) -> AsyncIterator[EngineStream]:
        # It may be another version of the engine than before.
        await self._calls.renew()
        # The engine answers a moment before it listens to itself: what happens in between is asked
        # for again, by its own clock.
        info = await self._ask(lambda client: client.info())
        since_ns = unix_ns_from_text(info["SystemTime"]) or 0
        filters = {
            "type": ["container"],
            "label": [LABEL_CLUSTER_ID],
            "event": sorted(EVENT_ACTIONS),
        }
        query = {
            "since": f"{since_ns // 1_000_000_000}.{since_ns % 1_000_000_000:09d}",
            "filters": json.dumps(filters),
        }
        api = await self._ask(lambda client: client.api_version)
        async with self._socket.stream("GET", f"/v{api}/events?{urlencode(query)}") as stream:
            if stream.status >= 400:
                raise Unavailable(f"the Docker Engine failed: {one_line(await stream.refusal())}")
            yield stream

    def logs(
        self, container_id: str, query: LogQuery
    ) -> AbstractAsyncContextManager[AsyncIterator[LogChunk]]:
        """Read output in the order it was written."""
        return open_logs(self._ask, self._socket, container_id, query)

    def exec(
        self, container_id: str, request: ExecRequest
    ) -> AbstractAsyncContextManager[ExecSession]:
        """Run a command inside a running container."""
        return open_exec(self._ask, self._socket, container_id, request)

    def read_archive(
        self, container_id: str, path: str, *, follow_link: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Read a path of the container as a tar stream."""
        return open_archive(self._ask, self._socket, container_id, path, follow_link=follow_link)

    async def write_archive(
        self, container_id: str, path: str, chunks: AsyncIterator[bytes]
    ) -> None:
        """Unpack a tar stream into a folder of the container."""
        await send_archive(self._ask, self._socket, container_id, path, chunks)

    # ---- volumes ---------------------------------------------------------------------------------

    async def ensure_volume(self, request: VolumeRequest) -> Refused | None:
        """Make a volume if it does not exist; one of another driver is refused."""
        found = await self._volume(request.name)
        if found is None:
            try:
                found = await self._calls.call(
                    lambda client: client.create_volume(
                        request.name,
                        request.driver,
                        dict(request.driver_opts),
                        dict(request.labels),
                    )
                )
            except docker.errors.APIError as err:
                return _refused(err)
        if found["Driver"] == request.driver:
            return None
        text = f"volume {request.name} exists with driver {found['Driver']}, not {request.driver}"
        return Refused(Refusal.NAME_TAKEN, text)

    async def volume_exists(self, name: str) -> bool:
        """Return whether a volume of that name is on this node."""
        return await self._volume(name) is not None

    async def volumes(self, label: tuple[str, str]) -> tuple[Volume, ...]:
        """Return the volumes that carry this label with this value, sorted by name."""
        wanted = {"label": [f"{label[0]}={label[1]}"]}
        found = await self._ask(lambda client: client.volumes(filters=wanted))
        listed = [volume_from_list(each) for each in found.get("Volumes") or ()]
        return tuple(sorted(listed, key=lambda volume: volume.name))

    async def remove_volume(self, name: str) -> Refused | None:
        """Remove a volume with its data; one that a container mounts is refused."""
        try:
            await self._ask(lambda client: client.remove_volume(name))
        except docker.errors.NotFound:
            return None
        except docker.errors.APIError as err:
            is_used = err.status_code == 409
            return Refused(Refusal.OTHER, one_line(str(err.explanation)), retryable=is_used)
        return None

    async def _volume(self, name: str) -> Answer | None:
        try:
            found: Answer = await self._ask(lambda client: client.inspect_volume(name))
        except docker.errors.NotFound:
            return None
        return found

    async def close(self) -> None:
        """End all streams and connections. Containers run on. Calling it twice is harmless."""
        await self._hub.close()
        await self._puller.close()
        self._socket.abort_all()
        await self._calls.close()


def _of_cluster(cluster_id: ClusterId) -> dict[str, list[str]]:
    return {"label": [f"{LABEL_CLUSTER_ID}={cluster_id}"]}


def _refused(err: docker.errors.APIError, container_id: str = "") -> Refused:
    """Return the engine's no; an engine that is about to end says nothing about a container."""
    if err.status_code == 503:
        raise Unavailable(one_line(str(err.explanation))) from err
    return refused(err.status_code or 0, str(err.explanation), container_id=container_id)


async def _all(asked: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Return all results in order; the first failure is raised once every call has ended."""
    done = await asyncio.gather(*asked, return_exceptions=True)
    found: list[T] = []
    for each in done:
        if isinstance(each, BaseException):
            raise each
        found.append(each)
    return found
