"""Do listeners hear everything that matters, within bounds, whatever the connection does?"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import cast

import pytest

from dray.errors import Unavailable
from node.runtime.base import Container, ContainerState, RuntimeEvent, RuntimeEventKind
from node.runtime.docker_events import PAUSE_MAX_S, PAUSE_MIN_S, EventHub, with_oom
from node.runtime.docker_http import PIECE_BYTES_MAX, EngineStream
from node.runtime.listener import BACKLOG_EVENTS_MAX, Listener
from node.runtime.looks import Looks

DIED = RuntimeEventKind.DIED


def event(container_id: str = "a", kind: RuntimeEventKind = DIED) -> RuntimeEvent:
    """Return an event about a container."""
    return RuntimeEvent(kind, container_id, None, 1.0)


def line(container_id: str, action: str = "die") -> bytes:
    """Return an event as the engine sends it."""
    actor = {"ID": container_id, "Attributes": {}}
    told = {"Type": "container", "Action": action, "Actor": actor, "timeNano": 10**9}
    return json.dumps(told).encode() + b"\n"


class Engine:
    """Streams of events that a test feeds and breaks."""

    def __init__(self) -> None:
        self.is_away = False
        self.opened = 0
        self.closed = 0
        self.pauses_s: list[float] = []
        self.reader = asyncio.StreamReader()
        self.hub = EventHub(self.connect, self.sleep, Looks())

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[EngineStream]:
        """Open a stream."""
        if self.is_away:
            raise Unavailable("away")
        self.opened += 1
        self.reader = asyncio.StreamReader(limit=PIECE_BYTES_MAX)
        try:
            yield EngineStream(self.reader, cast("asyncio.StreamWriter", None), 200, {})
        finally:
            self.closed += 1

    async def sleep(self, pause_s: float) -> None:
        """Note a pause, and come back after the eighth."""
        self.pauses_s.append(pause_s)
        self.is_away = self.is_away and len(self.pauses_s) < 8
        await asyncio.sleep(0)


async def test_a_listener_hears_its_container_and_what_concerns_all() -> None:
    """Events of other containers are left out; those without a container are for everybody."""
    own, every = Listener("a"), Listener("")
    for listener in (own, every):
        for container_id in ("a", "b", ""):
            listener.put(event(container_id))
        listener.end()
    assert [e.container_id async for e in own] == ["a", ""]
    assert [e.container_id async for e in every] == ["a", "b", ""]


async def test_a_slow_listener_is_told_to_look_again() -> None:
    """A full backlog is given up for one RECONNECTED; what comes after it is kept."""
    listener = Listener("")
    for _ in range(BACKLOG_EVENTS_MAX + 1):
        listener.put(event("old"))
    listener.put(event("new"))
    listener.end()
    found = [(e.kind, e.container_id) async for e in listener]
    assert found == [(RuntimeEventKind.RECONNECTED, ""), (DIED, "new")]


async def test_one_stream_serves_all_and_ends_with_the_last() -> None:
    """The stream is open exactly while somebody listens."""
    engine = Engine()
    async with engine.hub.listen("a") as first:
        async with engine.hub.listen() as second:
            engine.reader.feed_data(line("b") + line("x", "attach") + line("a"))
            assert await first.next() == event("a")
            assert await second.next() == event("b")
        assert (engine.opened, engine.closed) == (1, 0)
    assert (engine.opened, engine.closed) == (1, 1)
    async with engine.hub.listen() as third:
        engine.reader.feed_data(line("c"))
        assert await third.next() == event("c")
    assert (engine.opened, engine.closed) == (2, 2)


async def test_a_lost_stream_is_opened_again_with_growing_pauses() -> None:
    """After an absence every listener gets RECONNECTED, then events as before."""
    engine = Engine()
    async with engine.hub.listen() as listener:
        engine.is_away = True
        engine.reader.feed_eof()
        found = await listener.next()
        assert found is not None
        assert found.kind is RuntimeEventKind.RECONNECTED
        assert engine.pauses_s[0] == PAUSE_MIN_S
        assert engine.pauses_s == sorted(engine.pauses_s)
        assert engine.pauses_s[-1] == PAUSE_MAX_S
        engine.reader.feed_data(line("a"))
        assert await listener.next() == event("a")
    assert engine.opened == engine.closed == 2


async def test_an_engine_that_is_away_cannot_be_listened_to() -> None:
    """The first listener is told so, and nothing stays behind."""
    engine = Engine()
    engine.is_away = True
    with pytest.raises(Unavailable):
        async with engine.hub.listen():
            pytest.fail("listened to nobody")
    engine.is_away = False
    async with engine.hub.listen() as listener:
        engine.reader.feed_data(line("a"))
        assert await listener.next() == event("a")


async def test_nonsense_is_a_lost_stream() -> None:
    """What is no JSON ends the stream, which is opened again."""
    engine = Engine()
    async with engine.hub.listen() as listener:
        engine.reader.feed_data(b"nonsense\n")
        found = await listener.next()
        assert found is not None
        assert found.kind is RuntimeEventKind.RECONNECTED


async def test_a_bug_reaches_the_listeners() -> None:
    """An event that breaks the reader is not swallowed: who listens gets the error."""
    engine = Engine()
    async with engine.hub.listen() as listener:
        engine.reader.feed_data(b'{"Type": "container", "Action": "die"}\n')
        with pytest.raises(KeyError):
            await listener.next()


async def test_close_ends_all_listeners() -> None:
    """After `close` nobody waits any more, and the stream is closed."""
    engine = Engine()
    async with engine.hub.listen() as first, engine.hub.listen() as second:
        await engine.hub.close()
        assert await first.next() is None
        assert await second.next() is None
    assert engine.opened == engine.closed == 1


@pytest.mark.parametrize("exit_code", [0, 1, 137])
@pytest.mark.parametrize("told", ["before", "after", "never"])
async def test_a_kill_for_memory_is_known_though_the_exit_came_first(
    exit_code: int, told: str
) -> None:
    """The event decides where the engine's record was made too early; other exits do not wait."""
    listener = Listener("a")
    ended = Container("a", "web", None, ContainerState.EXITED, exit_code=exit_code)
    listener.put(event())
    if told == "after":
        listener.put(event(kind=RuntimeEventKind.OOM))
    found = await with_oom(ended, listener, was_oom=told == "before")
    assert found.oom_killed is (exit_code == 137 and told != "never")
