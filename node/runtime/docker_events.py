"""How do many waiters share the engine's one stream of events, and what do they learn from it?

The hub keeps one `GET /events` open while anybody listens. A lost connection is tried again with
growing pauses; every listener then gets RECONNECTED.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from dray.errors import DeadlineExceeded, PeerMisbehaved, Unavailable
from node.runtime.base import Container, RuntimeEvent, RuntimeEventKind
from node.runtime.docker_http import EngineStream
from node.runtime.docker_view import event_from_json
from node.runtime.listener import RECONNECTED, Listener
from node.runtime.looks import Looks
from node.runtime.signals import KILLED_EXIT_CODE

__all__ = ["EventHub", "next_within", "with_oom"]

PAUSE_MIN_S: Final = 0.05
PAUSE_MAX_S: Final = 2.0
OOM_EVENT_WAIT_S: Final = 0.3  # for the event of a kill whose exit came first
STREAM_LOST: Final = (Unavailable, DeadlineExceeded, PeerMisbehaved)

Connect = Callable[[], contextlib.AbstractAsyncContextManager[EngineStream]]


class EventHub:
    """One stream of events, open while anybody listens."""

    def __init__(
        self, connect: Connect, sleep: Callable[[float], Awaitable[None]], looks: Looks
    ) -> None:
        """Use `connect` to open the engine's stream, and `sleep` between two attempts.

        Args:
            connect: Opens the stream.
            sleep: Waits between two attempts.
            looks: Told of every event, and whenever none is heard.
        """
        self._connect = connect
        self._sleep = sleep
        self._looks = looks
        self.is_live = False
        """Whether events are heard now."""
        self._listeners: set[Listener] = set()
        self._starting = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self._first = contextlib.AsyncExitStack()

    @contextlib.asynccontextmanager
    async def listen(self, container_id: str = "") -> AsyncIterator[Listener]:
        """Listen to one container, or to all; what happens after this was entered is heard.

        Raises:
            Unavailable: The engine cannot be reached, and nobody listened before.
            DeadlineExceeded: It does not answer, and nobody listened before.
        """
        listener = Listener(container_id)
        self._listeners.add(listener)
        try:
            async with self._starting:
                if self._pump is None:
                    await self._start()
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                await self._stop()

    async def close(self) -> None:
        """End every listener and the stream."""
        for listener in self._listeners:
            listener.end()
        await self._stop()

    async def _start(self) -> None:
        """Open the stream and read it in a task."""
        self._first = contextlib.AsyncExitStack()
        stream = await self._first.enter_async_context(self._connect())
        self._pump = asyncio.create_task(self._run(stream), name="docker-events")
        self._pump.add_done_callback(self._pass_on_failure)

    async def _stop(self) -> None:
        pump, self._pump = self._pump, None
        first, self._first = self._first, contextlib.AsyncExitStack()
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        # Not left to the task: one that is cancelled before its first step never runs.
        await first.aclose()

    def _pass_on_failure(self, pump: asyncio.Task[None]) -> None:
        error = None if pump.cancelled() else pump.exception()
        if error is not None:
            for listener in self._listeners:
                listener.end(error)

    async def _run(self, stream: EngineStream) -> None:
        with contextlib.suppress(*STREAM_LOST):
            await self._read(stream)
        pause_s = PAUSE_MIN_S
        while True:
            try:
                async with self._connect() as stream:
                    pause_s = PAUSE_MIN_S
                    self._put(RECONNECTED)
                    await self._read(stream)
            except STREAM_LOST:
                pass
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _read(self, stream: EngineStream) -> None:
        self._looks.deaf()
        self.is_live = True
        try:
            while line := await stream.line():
                try:
                    said = json.loads(line)
                except ValueError as err:
                    raise PeerMisbehaved("the Docker Engine sent an event that is no JSON") from err
                event = event_from_json(said)
                if event is not None:
                    self._looks.happened(event)
                    self._put(event)
        finally:
            self.is_live = False
            self._looks.deaf()

    def _put(self, event: RuntimeEvent) -> None:
        for listener in self._listeners:
            listener.put(event)


async def next_within(listener: Listener, timeout_s: float) -> RuntimeEvent | None:
    """Wait for an event and return it, or None when the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            event = await listener.next()
            if event is None:
                raise Unavailable("the runtime was closed", retryable=False)
            return event
    return None


async def with_oom(found: Container, listener: Listener, *, was_oom: bool) -> Container:
    """Return an ended container that says whether memory was the reason.

    The engine learns of the kernel's kill and of the exit on two ways. When the exit comes first,
    its record never says that memory was short; the event does, a moment later.
    """
    if found.exit_code != KILLED_EXIT_CODE or found.oom_killed:
        return found
    deadline_s = asyncio.get_running_loop().time() + OOM_EVENT_WAIT_S
    while not was_oom and (left_s := deadline_s - asyncio.get_running_loop().time()) > 0:
        event = await next_within(listener, left_s)
        was_oom = event is not None and event.kind is RuntimeEventKind.OOM
    return dataclasses.replace(found, oom_killed=was_oom)
