"""Are the engine's streams read rightly, however their bytes arrive?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from dray.errors import PeerMisbehaved, Unavailable
from node.runtime.base import LogQuery, LogStream
from node.runtime.docker_http import PIECE_BYTES_MAX, EngineStream
from node.runtime.docker_streams import framed_lines, terminal_lines, wanted_lines

STAMPS = tuple(f"2024-01-01T00:00:00.00000000{n}Z ".encode() for n in range(1, 6))
NS = 1_704_067_200_000_000_000


def stream(*pieces: bytes, headers: Mapping[str, str] | None = None) -> EngineStream:
    """Return a stream whose body has arrived in these pieces, and then ended."""
    reader = asyncio.StreamReader(limit=PIECE_BYTES_MAX)
    for piece in pieces:
        reader.feed_data(piece)
    reader.feed_eof()
    writer = cast("asyncio.StreamWriter", None)  # nothing is sent
    return EngineStream(reader, writer, 200, headers or {})


async def body(found: EngineStream) -> bytes:
    """Return everything that is read."""
    parts = []
    while piece := await found.read():
        parts.append(piece)
    return b"".join(parts)


async def test_bodies_end_as_their_headers_say() -> None:
    """By chunks, by length, and with the connection."""
    chunked = {"transfer-encoding": "chunked"}
    assert await body(stream(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", headers=chunked)) == b"abcde"
    assert await body(stream(b"abcde", headers={"content-length": "3"})) == b"abc"
    assert await body(stream(b"abcde")) == b"abcde"
    assert await body(stream(headers={"content-length": "0"})) == b""


@pytest.mark.parametrize("data", [b"", b"3\r\nab", b"3\r\nabc\r\n", b"3"])
async def test_a_body_that_breaks_off_is_no_end(data: bytes) -> None:
    """A chunked body without its last chunk is a broken connection, not an end."""
    with pytest.raises(Unavailable):
        await body(stream(data, headers={"transfer-encoding": "chunked"}))


async def test_a_chunk_without_size_is_misbehaviour() -> None:
    """What is not HTTP is not guessed at."""
    with pytest.raises(PeerMisbehaved):
        await body(stream(b"x\r\n", headers={"transfer-encoding": "chunked"}))


async def test_lines_are_found_over_pieces() -> None:
    """Lines come whole, however they were cut; the last one may lack its end."""
    chunked = {"transfer-encoding": "chunked"}
    found = stream(b"2\r\na\n\r\n3\r\nbb\n\r\n1\r\nc\r\n0\r\n\r\n", headers=chunked)
    assert [await found.line() for _ in range(4)] == [b"a\n", b"bb\n", b"c", b""]


async def test_a_line_has_a_limit() -> None:
    """A line that never ends is given up."""
    with pytest.raises(PeerMisbehaved):
        await stream(b"x" * 5000).line(bytes_max=1000)


async def test_reading_can_be_mixed() -> None:
    """Parts, peeks and lines take from one buffer in order."""
    found = stream(b"abcdef\nrest")
    assert await found.exactly(2) == b"ab"
    assert await found.peek(3) == b"cde"
    assert await found.line_upto(3) == b"cde"
    assert await found.line_upto(30) == b"f\n"
    assert await found.read(2) == b"re"
    assert await found.exactly(10) == b"st"
    assert await found.read() == b""


def frame(number: int, payload: bytes) -> bytes:
    """Return one frame of Docker's multiplexed output."""
    return bytes([number, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


async def test_frames_become_lines_of_two_streams() -> None:
    """Each frame is a line with its time; one without a newline is a part."""
    data = (
        frame(1, STAMPS[0] + b"out\n")
        + frame(2, STAMPS[1] + b"err\r\n")
        + frame(1, STAMPS[2] + b"part")
        + frame(1, STAMPS[3] + b"\n")
    )
    found = [line async for line in framed_lines(stream(data))]
    assert [(line.stream, line.unix_ns - NS, line.data, line.partial) for line in found] == [
        (LogStream.STDOUT, 1, b"out", False),
        (LogStream.STDERR, 2, b"err\r", False),
        (LogStream.STDOUT, 3, b"part", True),
        (LogStream.STDOUT, 4, b"", False),
    ]


async def test_a_huge_message_comes_in_parts() -> None:
    """No chunk is larger than 64 KiB, and nothing is lost."""
    message = b"x" * (PIECE_BYTES_MAX * 2 + 5)
    found = [line async for line in framed_lines(stream(frame(1, STAMPS[0] + message + b"\n")))]
    assert [line.partial for line in found] == [True, True, False]
    assert b"".join(line.data for line in found) == message


async def test_nonsense_in_logs_is_misbehaviour() -> None:
    """A frame of no known stream, or a line without a time, is not guessed at."""
    for data in (frame(7, STAMPS[0] + b"a\n"), frame(1, b"no time\n")):
        with pytest.raises(PeerMisbehaved):
            assert [line async for line in framed_lines(stream(data))]


async def test_terminal_output_is_cut_where_docker_cut_it() -> None:
    """Lines of a terminal lose both their end bytes; parts of 16 KiB are told from whole lines."""
    data = (
        STAMPS[0] + b"one\r\n"
        + STAMPS[1] + b"x" * 16384
        + STAMPS[2] + b"tail\r\n"
        + STAMPS[3] + b"\r\n"
        + STAMPS[4] + b"end"
    )  # fmt: skip
    found = [line async for line in terminal_lines(stream(data))]
    assert [(line.unix_ns - NS, line.data, line.partial) for line in found] == [
        (1, b"one", False),
        (2, b"x" * 16384, True),
        (3, b"tail", False),
        (4, b"", False),
        (5, b"end", True),
    ]


async def test_a_longer_terminal_line_stays_whole() -> None:
    """A log driver that does not cut at 16 KiB gets its line in one."""
    line = b"y" * 20000
    found = [each async for each in terminal_lines(stream(STAMPS[0] + line + b"\r\n"))]
    assert [each.data for each in found] == [line]


async def test_since_is_exclusive_and_until_inclusive() -> None:
    """The engine also sends the line at `since`; who resumes has it already."""
    data = b"".join(frame(1, stamp + b"a\n") for stamp in STAMPS)

    async def times(query: LogQuery) -> list[int]:
        lines = wanted_lines(framed_lines(stream(data)), query)
        return [line.unix_ns - NS async for line in lines]

    assert await times(LogQuery(since_unix_ns=NS + 3)) == [4, 5]
    assert await times(LogQuery(until_unix_ns=NS + 2)) == [1, 2]
    assert await times(LogQuery()) == [1, 2, 3, 4, 5]
