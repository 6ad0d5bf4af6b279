"""Do the logs of several containers become one stream, without gaps and without doubles?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dray.clock import SystemClock
from dray.model import AttemptState, RestartPolicy
from dray.views import LogLine, LogPosition, LogPositions, LogQuery
from node.agent.logs import QUEUE_LINES_MAX, LogReader
from node.runtime.base import LogStream
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine
from tests.node_agent import CLUSTER, IMAGE, Rig, a_task, an_entry

S = AttemptState


class Talking(Rig):
    """A machine whose containers write what a test says."""

    def __init__(self, folder: Path) -> None:
        seconds = itertools.count(1_700_000_000)
        self.engine = FakeEngine(lambda: float(next(seconds)), images=[IMAGE])
        self.runtime = FakeRuntime(self.engine)
        super().__init__(folder, lambda: FakeRuntime(self.engine))

    def say(self, container_id: str, *lines: bytes) -> None:
        """Let a container write lines."""
        for line in lines:
            self.engine.write_log(container_id, LogStream.STDOUT, line)

    def reader(self, query: LogQuery) -> LogReader:
        """Return who answers a query."""
        return LogReader(
            query, CLUSTER, self.agent.book, self.runtime, SystemClock(), self.agent.followed
        )

    async def read(self, query: LogQuery) -> list[LogLine]:
        """Return the lines of a query that ends."""
        async with contextlib.aclosing(self.reader(query).items()) as items:
            return [item async for item in items if isinstance(item, LogLine)]

    @contextlib.asynccontextmanager
    async def reading(self, query: LogQuery) -> AsyncIterator[asyncio.Queue[LogLine | None]]:
        """Read logs into a queue; None follows the last line."""
        reader = self.reader(query)
        lines: asyncio.Queue[LogLine | None] = asyncio.Queue()

        async def read() -> None:
            async with contextlib.aclosing(reader.items()) as items:
                async for item in items:
                    assert isinstance(item, LogLine), item
                    lines.put_nowait(item)
            lines.put_nowait(None)

        task = asyncio.create_task(read())
        try:
            yield lines
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and task.exception():
                raise AssertionError("the reader failed") from task.exception()


@pytest.fixture
def rig(tmp_path: Path) -> Talking:
    """Return a machine."""
    return Talking(tmp_path / "node")


async def taken(lines: asyncio.Queue[LogLine | None], count: int) -> list[tuple[int, int, bytes]]:
    """Return slot, attempt and text of the next lines."""
    found = []
    async with asyncio.timeout(10):
        for _ in range(count):
            line = await lines.get()
            assert line is not None
            assert line.slot is not None
            found.append((line.slot.slot, line.attempt, line.line))
    return found


async def test_lines_of_several_tasks_come_in_the_order_of_time(rig: Talking) -> None:
    """Only those of the services that are asked for, and then the stream ends."""
    async with rig.daemon():
        db = an_entry("db")
        await rig.assign(a_task(1), a_task(2), a_task(3, "db"), entries=(an_entry(), db))
        first, second, third = [
            (await rig.reached(S.RUNNING, number)).container_id for number in (1, 2, 3)
        ]
        rig.say(first, b"a")
        rig.say(second, b"b")
        rig.say(third, b"other")
        rig.say(first, b"c")
        async with rig.reading(LogQuery("shop", ("web",))) as lines:
            assert await taken(lines, 3) == [(1, 1, b"a"), (2, 1, b"b"), (1, 1, b"c")]
            assert await lines.get() is None
        async with rig.reading(LogQuery("shop", ("web",), (1,), tail=1)) as lines:
            assert await taken(lines, 1) == [(1, 1, b"c")]
            assert await lines.get() is None
        async with rig.reading(LogQuery("shop", tail=0)) as lines:
            assert await lines.get() is None
        async with rig.reading(LogQuery("elsewhere")) as lines:
            assert await lines.get() is None


async def test_following_goes_on_over_a_restart_and_a_replacement(rig: Talking) -> None:
    """No line is lost and none comes twice, of the next attempt and of the next task as well."""
    async with rig.daemon():
        entry = an_entry(restart=RestartPolicy(delay_s=0.0))
        await rig.assign(a_task(1), entries=(entry,))
        first = (await rig.reached(S.RUNNING)).container_id
        rig.say(first, b"1", b"2")
        async with rig.reading(LogQuery("shop", follow=True)) as lines:
            assert await taken(lines, 2) == [(1, 1, b"1"), (1, 1, b"2")]
            rig.say(first, b"3")
            rig.engine.end(first, 1)
            second = (await rig.reached(S.RUNNING, attempt=2)).container_id
            rig.say(second, b"4")
            assert await taken(lines, 2) == [(1, 1, b"3"), (1, 2, b"4")]
            await rig.assign(a_task(2), entries=(entry,))
            third = (await rig.reached(S.RUNNING, 2)).container_id
            rig.say(third, b"5")
            assert await taken(lines, 1) == [(2, 1, b"5")]
            assert lines.empty()


async def test_following_waits_for_an_engine_that_is_away(rig: Talking) -> None:
    """Its containers write on, and what they wrote comes later."""
    async with rig.daemon():
        await rig.assign(a_task(1))
        container_id = (await rig.reached(S.RUNNING)).container_id
        async with rig.reading(LogQuery("shop", follow=True)) as lines:
            rig.say(container_id, b"1")
            assert await taken(lines, 1) == [(1, 1, b"1")]
            rig.engine.go_away()
            rig.say(container_id, b"2")
            rig.engine.come_back()
            assert await taken(lines, 1) == [(1, 1, b"2")]


async def test_following_from_now_leaves_out_what_was_written_before(rig: Talking) -> None:
    """`--tail 0` with `--follow` begins with the next line."""
    async with rig.daemon():
        await rig.assign(a_task(1))
        container_id = (await rig.reached(S.RUNNING)).container_id
        rig.say(container_id, b"before")
        async with rig.reading(LogQuery("shop", tail=0, follow=True)) as lines:
            rig.engine.now_unix_s = lambda: SystemClock().unix_s() + 60  # later than the question
            rig.say(container_id, b"after")
            assert await taken(lines, 1) == [(1, 1, b"after")]


async def test_a_container_stays_until_its_last_line_was_read(rig: Talking) -> None:
    """A slow reader gets all lines of a task that was stopped and unlisted meanwhile."""
    count = QUEUE_LINES_MAX + 200
    async with rig.daemon() as agent:
        agent.followed.within_s = 600.0  # however slow the machine is
        await rig.assign(a_task(1))
        container_id = (await rig.reached(S.RUNNING)).container_id
        rig.say(container_id, b"0")
        items = rig.reader(LogQuery("shop", follow=True)).items()
        async with contextlib.aclosing(items), asyncio.timeout(120):
            found = [await anext(items)]
            rig.say(container_id, *(b"%d" % number for number in range(1, count)))
            found.append(await anext(items))
            await rig.assign()
            await rig.reached(S.STOPPED)
            while len(found) < count:
                found.append(await anext(items))
            texts = [item.line for item in found if isinstance(item, LogLine)]
            assert texts == [b"%d" % number for number in range(count)]
            await rig.gone()
            assert not rig.engine.containers


async def test_parts_of_a_long_line_are_not_lost_between_reading_and_following(
    rig: Talking,
) -> None:
    """They have one time: those that were read are left out, and only those."""
    async with rig.daemon():
        await rig.assign(a_task(1))
        container_id = (await rig.reached(S.RUNNING)).container_id
        rig.engine.now_unix_s = lambda: 1_800_000_000.0
        rig.say(container_id, b"part 1", b"part 2")
        async with rig.reading(LogQuery("shop", follow=True)) as lines:
            assert [text for _, _, text in await taken(lines, 2)] == [b"part 1", b"part 2"]
            rig.say(container_id, b"part 3")
            assert [text for _, _, text in await taken(lines, 1)] == [b"part 3"]
            assert lines.empty()


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("tail", [None, 0, 1])
async def test_a_query_goes_on_where_an_earlier_stream_came_to(
    rig: Talking, tail: int | None, follow: bool
) -> None:
    """Of what was read nothing comes again, wherever it broke off, and the rest is whole."""
    async with rig.daemon():
        await rig.assign(a_task(1), a_task(2))
        first = (await rig.reached(S.RUNNING)).container_id
        second = (await rig.reached(S.RUNNING, 2)).container_id
        began_unix_s = 1_700_000_000.0
        rig.say(first, b"1", b"2")
        rig.say(second, b"3")
        rig.engine.now_unix_s = lambda: 1_800_000_000.0  # the parts of a long line
        rig.say(first, b"4", b"5", b"6")
        lines = await rig.read(LogQuery("shop"))
        assert [line.line for line in lines] == [b"1", b"2", b"3", b"4", b"5", b"6"]
        for broken_at in range(len(lines)):
            came_to = LogPositions()
            came_to.note(lines[:broken_at])
            rest = came_to.rest_of(LogQuery("shop", tail=tail, follow=follow), began_unix_s)
            async with rig.reading(rest) as queue:
                texts = [text for _, _, text in await taken(queue, len(lines) - broken_at)]
                assert texts == [line.line for line in lines[broken_at:]]
                assert queue.empty() if follow else await queue.get() is None


def test_positions_go_on_from_those_of_earlier_streams() -> None:
    """Lines of the same time are counted on; of each task the two newest attempts are kept."""
    came_to = LogPositions([LogPosition(a_task(1).task_id, 1, 10, 2)])
    came_to.note([LogLine(a_task(1).task_id, None, 1, 10)])
    assert came_to.rest_of(LogQuery("shop"), 0.0).read_to == (
        LogPosition(a_task(1).task_id, 1, 10, 3),
    )
    came_to.note([LogLine(a_task(1).task_id, None, attempt, 20) for attempt in (2, 3)])
    read_to = came_to.rest_of(LogQuery("shop", tail=5, since_unix_s=3.0), 7.0)
    assert [(each.attempt, each.unix_ns) for each in read_to.read_to] == [(2, 20), (3, 20)]
    assert (read_to.tail, read_to.since_unix_s) == (None, 3.0)
    assert came_to.rest_of(LogQuery("shop", tail=0, since_unix_s=3.0), 7.0).since_unix_s == 7.0
