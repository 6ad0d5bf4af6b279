"""How do the log lines of many nodes become one stream?

Each node sends the lines of its tasks in order. A query that ends merges them by time; one that
follows passes them on as they come. A node that cannot be asked, or is lost on the way, is a notice
in the stream, never a silent gap; who follows is asked for it again until the node is back, and
gets its lines from where they broke off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Final

from dray.convert import from_proto
from dray.errors import DrayError, InvalidRequest, NotLeader
from dray.names import NodeId
from dray.views import (
    LogLine,
    LogLines,
    LogNotice,
    LogPositions,
    LogQuery,
    ResponseHeader,
    StreamLogsResponse,
)
from scheduler.api.environment import Environment, States
from scheduler.api.reads import known_project, known_service
from scheduler.api.views import State

__all__ = ["NODES_MAX", "POSITIONS_MAX", "TAIL_MAX", "LogStreams"]

TAIL_MAX: Final = 100_000
NODES_MAX: Final = 500  # nodes of one query
POSITIONS_MAX: Final = 65_536  # attempts that were read before
_AGAIN_S: Final = 0.25  # until a lost node is asked again; doubles
_AGAIN_MAX_S: Final = 2.0
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
        shared: asyncio.Queue[LogLines | LogNotice] = asyncio.Queue(_AHEAD_MESSAGES)
        reading = asyncio.create_task(self._follow_nodes(query, nodes, shared), name="log nodes")
        try:
            while True:
                message = await _next(shared, reading)
                if isinstance(message, LogLines):
                    yield StreamLogsResponse(lines=message.lines)
                else:
                    yield StreamLogsResponse(notices=(message,))
        finally:
            await _end_all([reading])

    async def _follow_nodes(
        self, query: LogQuery, nodes: list[NodeId], shared: asyncio.Queue[LogLines | LogNotice]
    ) -> None:
        """Keep a reader for every node that has tasks of the query, for ever.

        Raises:
            NotLeader: Another scheduler leads by now.
        """
        known: set[NodeId] = set()
        current = query
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    state = self._states.current()
                    for node_id in (*nodes, *_nodes_of(state, query)):
                        if node_id not in known:
                            known.add(node_id)
                            group.create_task(self._follow_node(node_id, current, shared))
                    await self._environment.source.wait_changed(state.snapshot.revision)
                    # Whoever comes later is read from its beginning: its tasks are new.
                    current = replace(query, tail=None)
        except* NotLeader as errors:
            raise errors.exceptions[0] from None

    async def _follow_node(
        self, node_id: NodeId, query: LogQuery, shared: asyncio.Queue[LogLines | LogNotice]
    ) -> None:
        """Follow one node's lines; after a break they go on where they broke off."""
        clock = self._environment.clock
        began_unix_s = clock.unix_s()
        came_to = LogPositions(query.read_to)
        asked, pause_s, is_away = query, _AGAIN_S, False
        while True:
            try:
                async with self._environment.relays.open(node_id, asked) as relay:
                    pause_s, is_away = _AGAIN_S, False
                    async for message in relay.output():
                        if isinstance(message, LogLines):
                            came_to.note(message.lines)
                        if isinstance(message, LogLines | LogNotice):
                            await shared.put(message)
                return
            except NotLeader:
                raise
            except DrayError as error:
                is_removed = node_id not in self._environment.source.snapshot.nodes
                if is_removed or not error.retryable:
                    await shared.put(self._missing(node_id, error))
                    return
                if not is_away:
                    is_away = True
                    await shared.put(self._late(node_id, error))
            asked = came_to.rest_of(query, began_unix_s)
            await clock.sleep(pause_s)
            pause_s = min(2 * pause_s, _AGAIN_MAX_S)

    async def _read(self, source: _Source, query: LogQuery) -> None:
        """Read one node's lines into its queue; a failure becomes a notice."""
        try:
            async with self._environment.relays.open(source.node_id, query) as relay:
                async for message in relay.output():
                    if isinstance(message, LogLines | LogNotice):
                        await source.queue.put(message)
        except DrayError as error:
            await source.queue.put(self._missing(source.node_id, error))
        await source.queue.put(_END)

    def _missing(self, node_id: NodeId, error: DrayError) -> LogNotice:
        text = f"lines of node {self._name(node_id)} are missing: {error.message}"
        return LogNotice(None, node_id, text)

    def _late(self, node_id: NodeId, error: DrayError) -> LogNotice:
        text = f"lines of node {self._name(node_id)} come when it is back: {error.message}"
        return LogNotice(None, node_id, text)

    def _name(self, node_id: NodeId) -> str:
        record = self._environment.source.snapshot.nodes.get(node_id)
        return record.name if record else node_id


async def _next(
    shared: asyncio.Queue[LogLines | LogNotice], reading: asyncio.Task[None]
) -> LogLines | LogNotice:
    """Return the next message; raise what ended the reading."""
    getting = asyncio.create_task(shared.get())
    try:
        await asyncio.wait({getting, reading}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            reading.result()
        return await getting
    finally:
        if not getting.done():
            await _end_all([getting])


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


async def _end_all(tasks: Sequence[asyncio.Task[Any]]) -> None:
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
    if len(query.read_to) > POSITIONS_MAX:
        raise InvalidRequest(
            f"a query has at most {POSITIONS_MAX} attempts that were read before",
            context={"field": "query.read_to"},
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
