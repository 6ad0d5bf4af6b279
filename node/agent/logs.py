"""How do the logs of several containers become one stream, in time order and without gaps?

First what there is, merged by time; then, with `follow`, new lines as they come. A container that
ends is followed to its last line; the next attempt of its task, or another task that takes its
place, is read from its first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from dray.clock import Clock
from dray.errors import DrayError, FailedPrecondition
from dray.model import SlotKey
from dray.names import ClusterId, TaskId
from dray.views import LogLine, LogNotice, LogQuery
from dray.views import LogStream as LineStream
from node.agent.book import Book, Signal
from node.agent.tasks import TaskState
from node.runtime.base import LogChunk, LogStream, Runtime
from node.runtime.base import LogQuery as ContainerLogs

__all__ = ["QUEUE_LINES_MAX", "READ_OUT_WITHIN_S", "TAIL_MAX", "Followed", "LogReader", "wanted_by"]

TAIL_MAX: Final = 100_000  # lines of one task to begin with
SOURCES_MAX: Final = 1_024  # containers that one query reads
QUEUE_LINES_MAX: Final = 1_000  # lines of all sources that wait for the reader
RETRY_S: Final = 0.5
READ_OUT_WITHIN_S: Final = 10.0  # s that an ended container stays for who has not read all of it
_NANOSECONDS: Final = 1_000_000_000
_STREAMS: Final = {LogStream.STDOUT: LineStream.STDOUT, LogStream.STDERR: LineStream.STDERR}

_TOO_MANY: Final = f"more than {SOURCES_MAX} containers: the lines of this one are missing"


@dataclass(frozen=True, slots=True)
class _Source:
    """One container whose output is read."""

    container_id: str
    task_id: TaskId
    slot: SlotKey
    attempt: int

    def line(self, chunk: LogChunk) -> LogLine:
        """Return a line as users see it."""
        return LogLine(
            self.task_id,
            self.slot,
            self.attempt,
            chunk.unix_ns,
            _STREAMS[chunk.stream],
            chunk.data,
            chunk.partial,
        )


def wanted_by(query: LogQuery, state: TaskState) -> bool:
    """Return whether a query asks for the lines of a task."""
    slot = state.slot
    return (
        slot.project == query.project
        and (not query.services or slot.service in query.services)
        and (not query.slots or slot.slot in query.slots)
    )


class Followed:
    """Which containers are being followed: they are not removed before they are read out."""

    def __init__(self) -> None:
        """Follow none."""
        self.within_s = READ_OUT_WITHIN_S
        self._readers: Counter[str] = Counter()
        self._changed = Signal()

    @contextlib.contextmanager
    def reading(self, container_id: str) -> Iterator[None]:
        """Keep a container while its lines are read."""
        self._readers[container_id] += 1
        try:
            yield
        finally:
            self._readers[container_id] -= 1
            if not self._readers[container_id]:
                del self._readers[container_id]
            self._changed.send()

    async def read_out(self, container_id: str) -> None:
        """Return when nobody reads an ended container any more, or after `within_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.within_s):
                while container_id in self._readers:
                    await self._changed.wait(self._changed.number)


class LogReader:
    """Answers one query from one node."""

    def __init__(
        self,
        query: LogQuery,
        cluster_id: ClusterId,
        book: Book,
        runtime: Runtime,
        clock: Clock,
        followed: Followed,
    ) -> None:
        """Read nothing yet."""
        self._followed_containers = followed
        self._query = query
        self._cluster_id = cluster_id
        self._book = book
        self._runtime = runtime
        self._clock = clock
        # time of the last line of a container, and how many lines of that very time were read:
        # the parts of a long line have one time
        self._read_to: dict[str, tuple[int, int]] = {}
        self._earlier = {
            (each.task_id, each.attempt): (each.unix_ns, each.lines) for each in query.read_to
        }
        self._following: dict[str, asyncio.Task[None]] = {}
        self._tail = None if query.tail is None else min(query.tail, TAIL_MAX)
        since, until = query.since_unix_s, query.until_unix_s
        self._since_ns = None if since is None else int(since * _NANOSECONDS) - 1
        self._until_ns = None if until is None else int(until * _NANOSECONDS)

    async def items(self) -> AsyncGenerator[LogLine | LogNotice, None]:
        """Yield lines, and notices about those that cannot be had, until the query is answered.

        Raises:
            Unavailable: The engine is away, and the query does not follow.
        """
        async with contextlib.aclosing(self._merged(await self._sources())) as merged:
            async for item in merged:
                yield item
        if self._query.follow:
            async with contextlib.aclosing(self._followed()) as followed:
                async for item in followed:
                    yield item

    async def _sources(self) -> tuple[_Source, ...]:
        """Return the containers of the tasks that are asked for, those of former attempts too."""
        found = []
        states = self._book.states.values()
        others = {each.container_id for each in states if not wanted_by(self._query, each)}
        for container in await self._runtime.containers(self._cluster_id, but=others):
            identity = container.identity
            if identity is None or not container.started_unix_s:
                continue
            state = self._book.states.get(identity.task_id)
            if state is not None and wanted_by(self._query, state):
                found.append(
                    _Source(
                        container.container_id, identity.task_id, identity.slot, identity.attempt
                    )
                )
        return tuple(sorted(found, key=lambda each: (each.slot, each.attempt))[:SOURCES_MAX])

    # ---- what there is ---------------------------------------------------------------------------

    async def _merged(
        self, sources: tuple[_Source, ...]
    ) -> AsyncGenerator[LogLine | LogNotice, None]:
        """Yield what the containers wrote so far, the oldest line of all first."""
        now_ns = int(self._clock.unix_s() * _NANOSECONDS)
        async with contextlib.AsyncExitStack() as stack:
            heads: list[tuple[int, int, LogChunk, AsyncIterator[LogChunk]]] = []
            for number, source in enumerate(sources):
                if self._query.tail == 0:  # only what comes from now on
                    key = (source.task_id, source.attempt)
                    self._read_to[source.container_id] = self._earlier.get(key, (now_ns, 0))
                    continue
                try:
                    chunks = await stack.enter_async_context(self._unread(source, self._tail))
                except FailedPrecondition as error:
                    yield LogNotice(source.task_id, message=str(error))
                    continue
                first = await anext(chunks, None)
                if first is not None:
                    heapq.heappush(heads, (first.unix_ns, number, first, chunks))
            while heads:
                _, number, chunk, chunks = heapq.heappop(heads)
                self._note(sources[number], chunk)
                yield sources[number].line(chunk)
                following = await anext(chunks, None)
                if following is not None:
                    heapq.heappush(heads, (following.unix_ns, number, following, chunks))

    @contextlib.asynccontextmanager
    async def _unread(
        self, source: _Source, tail: int | None = None, *, follow: bool = False
    ) -> AsyncIterator[AsyncIterator[LogChunk]]:
        """Open a container's lines after those that were read, now or on an earlier stream."""
        at_ns, lines = self._came_to(source)
        query = ContainerLogs(
            follow=follow,
            # all lines of the last one's time come again, and those that were read are left out
            since_unix_ns=(at_ns - 1 if lines else at_ns) if at_ns else self._since_ns,
            until_unix_ns=self._until_ns,
            tail_lines=None if at_ns else tail,
        )
        async with (
            self._runtime.logs(source.container_id, query) as chunks,
            contextlib.aclosing(_behind(chunks, at_ns, lines)) as rest,
        ):
            yield rest

    def _came_to(self, source: _Source) -> tuple[int, int]:
        """Return the time of the last line that was read, and how many of that time were."""
        earlier = self._earlier.get((source.task_id, source.attempt), (0, 0))
        return self._read_to.setdefault(source.container_id, earlier)

    def _note(self, source: _Source, chunk: LogChunk) -> None:
        """Remember how far a container was read."""
        at_ns, count = self._read_to.get(source.container_id, (0, 0))
        if chunk.unix_ns > at_ns:
            self._read_to[source.container_id] = (chunk.unix_ns, 1)
        elif chunk.unix_ns == at_ns:
            self._read_to[source.container_id] = (at_ns, count + 1)

    # ---- what comes ------------------------------------------------------------------------------

    async def _followed(self) -> AsyncGenerator[LogLine | LogNotice, None]:
        """Yield new lines in the order in which they come, for ever."""
        queue: asyncio.Queue[LogLine | LogNotice] = asyncio.Queue(QUEUE_LINES_MAX)
        watching = asyncio.create_task(self._watch_all(queue), name="followed containers")
        try:
            while True:
                yield await _next(queue, watching)
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch_all(self, queue: asyncio.Queue[LogLine | LogNotice]) -> None:
        """Follow all containers until cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._watch(group, queue)

    async def _watch(
        self, group: asyncio.TaskGroup, queue: asyncio.Queue[LogLine | LogNotice]
    ) -> None:
        """Follow every container that has started, as soon as it has."""
        number = -1
        while True:
            number = await self._book.changed.wait(number)
            for state in tuple(self._book.states.values()):
                container_id = state.container_id
                if (
                    not container_id
                    or not state.started_unix_s
                    or container_id in self._following
                    or not wanted_by(self._query, state)
                ):
                    continue
                if len(self._following) >= SOURCES_MAX:
                    await queue.put(LogNotice(state.task_id, message=_TOO_MANY))
                    return
                source = _Source(container_id, state.task_id, state.slot, state.attempt)
                self._following[container_id] = group.create_task(
                    self._follow(source, queue), name=f"follow {container_id}"
                )
                await asyncio.sleep(0)  # it has begun, and the container stays until it has ended

    async def _follow(self, source: _Source, queue: asyncio.Queue[LogLine | LogNotice]) -> None:
        """Put a container's new lines into the queue until it ends."""
        with self._followed_containers.reading(source.container_id):
            while True:
                try:
                    await self._read_on(source, queue)
                    return
                except DrayError as error:
                    if not error.retryable:
                        await queue.put(LogNotice(source.task_id, message=str(error)))
                        return
                    await self._clock.sleep(RETRY_S)  # containers and lines outlive the engine

    async def _read_on(self, source: _Source, queue: asyncio.Queue[LogLine | LogNotice]) -> None:
        """Put the lines after those that were read into the queue; each once."""
        async with self._unread(source, follow=True) as chunks:
            async for chunk in chunks:
                await queue.put(source.line(chunk))
                self._note(source, chunk)


async def _behind(
    chunks: AsyncIterator[LogChunk], at_ns: int, lines: int
) -> AsyncGenerator[LogChunk, None]:
    """Yield all but the first so many lines of a time."""
    async for chunk in chunks:
        if lines and chunk.unix_ns == at_ns:
            lines -= 1
            continue
        yield chunk


async def _next(
    queue: asyncio.Queue[LogLine | LogNotice], filling: asyncio.Task[None]
) -> LogLine | LogNotice:
    """Return the next item of a queue; raise what ended who fills it."""
    if not queue.empty():
        return queue.get_nowait()
    getting = asyncio.create_task(queue.get())
    try:
        await asyncio.wait({getting, filling}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            filling.result()
        return await getting
    finally:
        if not getting.done():
            getting.cancel()
            await asyncio.wait({getting})
