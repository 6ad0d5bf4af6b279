"""Does every runtime carry logs, commands and archives as the port says?"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator

import pytest

from dray.errors import InvalidRequest, NotFound
from node.runtime.base import ExecRequest, LogChunk, LogQuery, LogStream, Runtime
from tests.contract.runtime import rig as rigs
from tests.contract.runtime.rig import ERR, OUT, Rig, created, ended, running

MEGABYTE = 1_000_000


async def _lines(runtime: Runtime, container_id: str, query: LogQuery) -> list[LogChunk]:
    async with asyncio.timeout(20), runtime.logs(container_id, query) as lines:
        return [line async for line in lines]


async def test_logs_come_in_order_with_growing_times(rig: Rig) -> None:
    """Every line comes once, without its newline, in order."""
    async with rig.runtime() as runtime:
        container_id = (await ended(runtime, rig.request(rigs.PRINTS))).container_id
        lines = await _lines(runtime, container_id, LogQuery())
        assert [line.data for line in lines] == [b"line %d" % n for n in range(1, 6)]
        assert {line.stream for line in lines} == {OUT}
        assert not any(line.partial for line in lines)
        times = [line.unix_ns for line in lines]
        assert times == sorted(times)
        assert len(set(times)) == len(times)


async def test_tail_since_and_until_choose_lines(rig: Rig) -> None:
    """`tail` counts from the end, `since` is exclusive, `until` inclusive."""
    async with rig.runtime() as runtime:
        container_id = (await ended(runtime, rig.request(rigs.PRINTS))).container_id
        lines = await _lines(runtime, container_id, LogQuery())
        assert await _lines(runtime, container_id, LogQuery(tail_lines=2)) == lines[3:]
        assert await _lines(runtime, container_id, LogQuery(tail_lines=0)) == []
        since = LogQuery(since_unix_ns=lines[1].unix_ns)
        assert await _lines(runtime, container_id, since) == lines[2:]
        until = LogQuery(until_unix_ns=lines[1].unix_ns)
        assert await _lines(runtime, container_id, until) == lines[:2]
        resumed = LogQuery(since_unix_ns=lines[-1].unix_ns, follow=True)
        assert await _lines(runtime, container_id, resumed) == []


async def test_logs_tell_the_two_streams_apart(rig: Rig) -> None:
    """Standard output and standard error keep their names."""
    async with rig.runtime() as runtime:
        container_id = (await ended(runtime, rig.request(rigs.SPLITS))).container_id
        lines = await _lines(runtime, container_id, LogQuery())
        assert {(line.stream, line.data) for line in lines} == {(OUT, b"to out"), (ERR, b"to err")}


async def test_follow_ends_with_the_container(rig: Rig) -> None:
    """Followed logs wait for more, and end when the container does."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(rigs.LINGERS))
        lines = await _lines(runtime, container_id, LogQuery(follow=True))
        assert [line.data for line in lines] == [b"first"]
        found = await runtime.wait(container_id)
        assert found is not None
        assert found.exit_code == 0


async def test_follow_can_be_left_at_any_time(rig: Rig) -> None:
    """Leaving the context ends the stream while the container runs on."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(rigs.OBEYS))
        async with asyncio.timeout(10), runtime.logs(container_id, LogQuery(follow=True)) as lines:
            assert (await anext(aiter(lines))).data == b"ready"
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.pid > 0


async def test_what_is_gone_or_has_not_run_has_no_logs(rig: Rig) -> None:
    """Nothing is yielded, nothing is raised, and following does not wait for a start."""
    async with rig.runtime() as runtime:
        idle = await created(runtime, rig.request())
        for container_id in ("0" * 64, idle):
            assert await _lines(runtime, container_id, LogQuery(follow=True)) == []


async def _exec(
    runtime: Runtime, container_id: str, request: ExecRequest, *sent: bytes
) -> tuple[dict[LogStream, bytes], int]:
    """Run a command with input; return its output by stream, and its status."""
    found = {OUT: b"", ERR: b""}
    async with asyncio.timeout(20), runtime.exec(container_id, request) as session:
        for piece in sent:
            await session.write(piece)
        if request.stdin:
            await session.close_input()
        async for origin, data in session.output():
            found[origin] += data
        return found, await session.exit_code()


async def test_exec_gives_output_and_status(rig: Rig) -> None:
    """A command's two streams and its exit status arrive."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        found, status = await _exec(runtime, container_id, ExecRequest(rigs.SPLITS.command))
        assert found == {OUT: b"to out\n", ERR: b"to err\n"}
        assert status == 4


async def test_exec_takes_input_until_it_is_closed(rig: Rig) -> None:
    """What is sent comes back from `cat`, all of it, and the end of input ends it."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        pieces = [bytes([65 + n]) * 10_000 for n in range(8)]
        request = ExecRequest(rigs.COPIES.command, stdin=True)
        found, status = await _exec(runtime, container_id, request, *pieces)
        assert found == {OUT: b"".join(pieces), ERR: b""}
        assert status == 0


async def test_exec_gives_a_terminal_its_size(rig: Rig) -> None:
    """With a terminal the command sees the size that was asked for."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        command = ExecRequest(rigs.SHOWS_SIZE.command, tty=True, terminal_size=(132, 43))
        found, status = await _exec(runtime, container_id, command)
        assert (found[OUT], status) == (b"43 132\r\n", 0)


async def test_exec_of_what_cannot_run_says_so(rig: Rig) -> None:
    """A command that does not exist ends with 126 or 127 and words."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        found, status = await _exec(runtime, container_id, ExecRequest(rigs.ABSENT.command))
        assert status in (126, 127)
        assert found[OUT] + found[ERR]


async def test_exec_status_needs_no_reader(rig: Rig) -> None:
    """The exit status is known to one who does not read the output."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        request = ExecRequest(rigs.FAILS.command)
        async with asyncio.timeout(10), runtime.exec(container_id, request) as session:
            assert await session.exit_code() == 1


async def test_exec_wants_a_running_container(rig: Rig) -> None:
    """In a container that is gone, or does not run, no command can be run."""
    async with rig.runtime() as runtime:
        idle = await created(runtime, rig.request())
        for container_id in ("0" * 64, idle):
            with pytest.raises(NotFound):
                await _exec(runtime, container_id, ExecRequest(rigs.ENDS.command))


async def test_leaving_a_command_leaves_the_container(rig: Rig) -> None:
    """A command that waits for input is left behind without harm to its container."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        request = ExecRequest(rigs.COPIES.command, stdin=True)
        async with asyncio.timeout(10), runtime.exec(container_id, request) as session:
            await session.write(b"never read")
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.exit_code is None


def _tar(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


async def _chunks(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_archives_come_back_as_they_went(rig: Rig) -> None:
    """A file of a megabyte is unpacked in a container, also a stopped one, and read again."""
    async with rig.runtime() as runtime:
        content = bytes(n % 251 for n in range(MEGABYTE))
        container_id = await created(runtime, rig.request())
        await runtime.write_archive(container_id, "/root", _chunks(_tar("big", content)))
        pieces = []
        async with asyncio.timeout(20), runtime.read_archive(container_id, "/root/big") as chunks:
            pieces = [chunk async for chunk in chunks]
        assert max(len(piece) for piece in pieces) <= 64 * 1024
        data = b"".join(pieces)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            member = archive.getmember("big")
            assert data[member.offset_data :][: member.size] == content


async def test_reading_may_stop_in_the_middle(rig: Rig) -> None:
    """Who leaves an archive half read gets no trouble."""
    async with rig.runtime() as runtime:
        container_id = await created(runtime, rig.request())
        await runtime.write_archive(container_id, "/root", _chunks(_tar("big", b"x" * MEGABYTE)))
        async with asyncio.timeout(20), runtime.read_archive(container_id, "/root/big") as chunks:
            assert await anext(aiter(chunks))


async def test_archives_want_a_container_and_a_path(rig: Rig) -> None:
    """What does not exist is not found, whether read or written."""
    async with rig.runtime() as runtime:
        here = await created(runtime, rig.request())
        data = _tar("file", b"content")
        for container_id, path in ((here, "/absent"), ("0" * 64, "/root")):
            with pytest.raises(NotFound):
                async with runtime.read_archive(container_id, path) as chunks:
                    assert [chunk async for chunk in chunks]
            with pytest.raises(NotFound):
                await runtime.write_archive(container_id, path, _chunks(data))


async def test_what_is_no_archive_is_an_invalid_request(rig: Rig) -> None:
    """Junk is the caller's mistake."""
    async with rig.runtime() as runtime:
        container_id = await created(runtime, rig.request())
        with pytest.raises(InvalidRequest):
            await runtime.write_archive(container_id, "/root", _chunks(b"junk" * 1000))
