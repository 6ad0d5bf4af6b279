"""How do the log lines of many nodes become one stream?

Each node sends the lines of its tasks in order. A query that ends merges them by time; one that
follows passes them on as they come. A node that cannot be asked, or is lost on the way, is a notice
in the stream, never a silent gap.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any, Final

from dray.convert import from_proto
from dray.errors import DrayError, InvalidRequest
from dray.names import NodeId
from dray.views import (
    LogLine,
    LogLines,
    LogNotice,
    LogQuery,
    ResponseHeader,
    StreamLogsResponse,
)
from scheduler.api.environment import Environment, States
from scheduler.api.reads import known_project, known_service
from scheduler.api.views import State

__all__ = ["NODES_MAX", "TAIL_MAX", "LogStreams"]

TAIL_MAX: Final = 100_000
NODES_MAX: Final = 500  # nodes of one query
_AHEAD_MESSAGES: Final = 4  # of one node, 64 KiB each: read ahead of the merge
_BATCH_BYTES_MAX: Final = 262_144  # of one reply, well below a message
_END: Final = None


class _Source:
    """One node's lines, read a little ahead."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self.queue: asyncio.Queue[LogLines | LogNotice | None] = asyncio.Queue(_AHEAD_MESSAGES)


class LogStreams:
    """The log queries of one scheduler."""

    def __init__(self, environment: Environment, states: States) -> None:
        """Ask nodes through the environment's relays."""
        self._environment = environment
        self._states = states

    async def replies(
        self, request: Any, header: ResponseHeader
    ) -> AsyncGenerator[StreamLogsResponse, None]:
        """Yield the replies to a query; the first one has the header.

        Raises:
            DrayError: The query is refused.
        """
        query = from_proto(request.query, LogQuery, name="query")
        state = self._states.current()
        _check(state, query)
        nodes = _nodes_of(state, query)
        yield StreamLogsResponse(header)
        merge = self._followed(query, nodes) if query.follow else self._merged(query, nodes)
        async with contextlib.aclosing(merge) as replies:
            async for reply in replies:
                yield reply

    async def _merged(
        self, query: LogQuery, nodes: list[NodeId]
    ) -> AsyncGenerator[StreamLogsResponse, None]:
        """Yield all lines in time order, and end."""
        sources = [_Source(node_id) for node_id in nodes]
        readers = [
            asyncio.create_task(self._read(source, query), name="log reader") for source in sources
        ]
        try:
            heads: dict[int, list[LogLine]] = {}
            for number, source in enumerate(sources):
                async for notice in _refill(heads, number, source):
                    yield StreamLogsResponse(notices=(notice,))
            batch: list[LogLine] = []
            size_bytes = 0
            while heads:
                number = min(heads, key=lambda each: heads[each][-1].unix_ns)
                line = heads[number].pop()
                batch.append(line)
                size_bytes += len(line.line) + 64
                if not heads[number]:
                    del heads[number]
                    async for notice in _refill(heads, number, sources[number]):
                        yield StreamLogsResponse(notices=(notice,))
                if size_bytes >= _BATCH_BYTES_MAX:
                    yield StreamLogsResponse(lines=tuple(batch))
                    batch, size_bytes = [], 0
            if batch:
                yield StreamLogsResponse(lines=tuple(batch))
        finally:
            await _end_all(readers)

    async def _followed(
        self, query: LogQuery, nodes: list[NodeId]
    ) -> AsyncGenerator[StreamLogsResponse, None]:
        """Yield lines as they come, also of nodes that get tasks of the query later."""
        shared: asyncio.Queue[LogLines | LogNotice | None] = asyncio.Queue(_AHEAD_MESSAGES)
        spawner = asyncio.create_task(self._follow_nodes(query, nodes, shared), name="log nodes")
        try:
            while True:
                message = await shared.get()
                if isinstance(message, LogLines):
                    yield StreamLogsResponse(lines=message.lines)
                elif isinstance(message, LogNotice):
                    yield StreamLogsResponse(notices=(message,))
        finally:
            await _end_all([spawner])

    async def _follow_nodes(
        self,
        query: LogQuery,
        nodes: list[NodeId],
        shared: asyncio.Queue[LogLines | LogNotice | None],
    ) -> None:
        """Keep a reader for every node that has tasks of the query."""
        readers: dict[NodeId, asyncio.Task[None]] = {}
        current = query
        try:
            while True:
                state = self._states.current()
                for node_id in (*nodes, *_nodes_of(state, query)):
                    if node_id not in readers:
                        source = _Source(node_id)
                        source.queue = shared
                        readers[node_id] = asyncio.create_task(self._read(source, current))
                await self._environment.source.wait_changed(state.snapshot.revision)
                # Whoever comes later is read from its beginning: its tasks are new.
                current = replace(query, tail=None)
        finally:
            await _end_all(list(readers.values()))

    async def _read(self, source: _Source, query: LogQuery) -> None:
        """Read one node's lines into its queue; a failure becomes a notice."""
        try:
            async with self._environment.relays.open(source.node_id, query) as relay:
                async for message in relay.output():
                    if isinstance(message, LogLines | LogNotice):
                        await source.queue.put(message)
        except DrayError as error:
            await source.queue.put(self._missing(source.node_id, error))
        if not query.follow:
            await source.queue.put(_END)

    def _missing(self, node_id: NodeId, error: DrayError) -> LogNotice:
        record = self._environment.source.snapshot.nodes.get(node_id)
        name = record.name if record else node_id
        return LogNotice(None, node_id, f"lines of node {name} are missing: {error.message}")


async def _refill(
    heads: dict[int, list[LogLine]], number: int, source: _Source
) -> AsyncIterator[LogNotice]:
    """Put the next lines of a source at its head, newest first; yield notices on the way."""
    while (message := await source.queue.get()) is not _END:
        if isinstance(message, LogNotice):
            yield message
        elif message.lines:
            heads[number] = list(reversed(message.lines))
            return


async def _end_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _check(state: State, query: LogQuery) -> None:
    if query.tail is not None and not 0 <= query.tail <= TAIL_MAX:
        raise InvalidRequest(
            f"the last {query.tail} lines are asked for; it must be 0 to {TAIL_MAX}",
            context={"field": "query.tail"},
        )
    if query.slots and len(query.services) != 1:
        raise InvalidRequest("slots need the one service that they are of")
    known_project(state, query.project)
    for service in query.services:
        known_service(state, query.project, service)


def _nodes_of(state: State, query: LogQuery) -> list[NodeId]:
    """Return the nodes that have tasks of the query."""
    found = {
        held.node_id
        for key in state.keys_of(query.project)
        if not query.services or key.service in query.services
        for held in state.index.of_service(key)
        if not query.slots or held.task.slot.slot in query.slots
    }
    return sorted(found)[:NODES_MAX]
