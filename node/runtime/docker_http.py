"""How does the Docker adapter hold a long-lived conversation with the engine?

Events, logs, exec sessions, archives and pulls are streams: open for hours, cancelled at any time,
as many as there are readers. The `docker` SDK reads them in blocking threads, drops bytes that came
together with the headers of an upgraded connection, and has no way to close one direction. So
streams speak HTTP/1.1 (RFC 9112) over the engine's Unix socket here, on the event loop: no thread
is held, what is not read is not buffered beyond 128 KiB, and leaving the context ends them at once.

Only what the engine sends is understood: a status line, headers, and a body by chunks, by length or
until the connection closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from dray.errors import DeadlineExceeded, PeerMisbehaved, Unavailable

__all__ = ["PIECE_BYTES_MAX", "EngineSocket", "EngineStream"]

PIECE_BYTES_MAX: Final = 64 * 1024
HEAD_BYTES_MAX: Final = 64 * 1024
REFUSAL_BYTES_MAX: Final = 64 * 1024
LINE_BYTES_MAX: Final = 1024 * 1024  # an event carries all labels of its container

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_BROKEN: Final = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class EngineStream:
    """One answer of the engine whose body is read as it comes.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()
        self._is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left: int | None = 0 if self._is_chunked else None if length is None else int(length)
        self._is_over = False

    async def read(self, bytes_max: int = PIECE_BYTES_MAX) -> bytes:
        """Return the next bytes, at least one and at most `bytes_max`, or nothing at the end.

        Raises:
            Unavailable: The connection broke.
        """
        if not self._buffer:
            data = await self._received()
            if len(data) <= bytes_max:
                return data
            self._buffer += data
        return self._take(bytes_max)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[: len(data)]
        return data

    async def _received(self) -> bytes:
        try:
            return await self._receive()
        except _BROKEN as err:
            raise Unavailable("the connection to the Docker Engine broke") from err

    async def _receive(self) -> bytes:
        if self._is_over:
            return b""
        if self._is_chunked and self._left == 0:
            size = await self._reader.readline()
            self._left = _chunk_size(size)
            if self._left == 0:
                self._is_over = True
                return b""
        if self._left == 0:
            self._is_over = True
            return b""
        wanted = PIECE_BYTES_MAX if self._left is None else min(self._left, PIECE_BYTES_MAX)
        data = await self._reader.read(wanted)
        if self._left is None:
            self._is_over = not data
            return data
        if not data:
            raise asyncio.IncompleteReadError(b"", self._left)
        self._left -= len(data)
        if self._is_chunked and self._left == 0:
            await self._reader.readexactly(2)
        return data

    async def exactly(self, size: int) -> bytes:
        """Return `size` bytes, or fewer when the stream ends before."""
        while len(self._buffer) < size and (piece := await self._received()):
            self._buffer += piece
        return self._take(size)

    async def line(self, bytes_max: int = LINE_BYTES_MAX) -> bytes:
        r"""Return the next line with its "\n"; the last one may lack it; nothing at the end.

        Raises:
            PeerMisbehaved: It is longer than `bytes_max`.
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > bytes_max:
                raise PeerMisbehaved(f"the Docker Engine sent a line of over {bytes_max} bytes")
            piece = await self._received()
            if not piece:
                return self._take(searched)
            self._buffer += piece
        return self._take(end + 1)

    async def line_upto(self, size: int) -> bytes:
        r"""Return up to `size` bytes, fewer when they end with "\n" or the stream ends."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched, size)) < 0 and len(self._buffer) < size:
            searched = len(self._buffer)
            piece = await self._received()
            if not piece:
                break
            self._buffer += piece
        return self._take(size if end < 0 else end + 1)

    async def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end, and leave them to be read."""
        while len(self._buffer) < size and (piece := await self._received()):
            self._buffer += piece
        return bytes(self._buffer[:size])

    async def frame_head(self) -> tuple[int, int] | None:
        """Return (stream number, length) of the next frame of multiplexed output, None at the end.

        Docker's format: one byte of stream number, three unused, four of length, big-endian.
        """
        head = await self.exactly(8)
        if len(head) < 8:
            return None
        return head[0], int.from_bytes(head[4:], "big")

    async def text(self) -> str:
        """Return the rest of a short body, as text; what is beyond 64 KiB is not read."""
        return (await self.exactly(REFUSAL_BYTES_MAX)).decode("utf-8", "replace")

    async def refusal(self) -> str:
        """Return the engine's sentence from the body of an answer with status >= 400."""
        body = await self.text()
        try:
            said = json.loads(body)
        except ValueError:
            return body
        return str(said.get("message", body)) if isinstance(said, dict) else body

    async def write(self, data: bytes) -> None:
        """Send input on an upgraded connection; waits while the other side does not read."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as err:
            raise Unavailable("the connection to the Docker Engine broke") from err

    def write_end(self) -> None:
        """Say that there is no more input."""
        with contextlib.suppress(OSError):
            if not self._writer.is_closing():
                self._writer.write_eof()

    def abort(self) -> None:
        """End the connection now; a reader that waits gets `Unavailable` or the end."""
        self._writer.transport.abort()


def _chunk_size(line: bytes) -> int:
    if not line.endswith(b"\n"):
        raise asyncio.IncompleteReadError(line, None)
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError as err:
        raise PeerMisbehaved("the Docker Engine sent a chunk without a size") from err


@dataclass(slots=True)
class EngineSocket:
    """Opens streams to the engine behind one Unix socket.

    Attributes:
        path: The socket.
        connect_timeout_s: Seconds until the connection stands.
        answer_timeout_s: Seconds until the headers of the answer are there.
    """

    path: Path
    connect_timeout_s: float
    answer_timeout_s: float
    _open: set[EngineStream] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = _NO_HEADERS,
        upload: AsyncIterator[bytes] | None = None,
        answer_timeout_s: float | None = None,
    ) -> AsyncIterator[EngineStream]:
        """Ask, and yield the answer once its headers are there; leaving ends the connection.

        Args:
            method: GET, POST or PUT.
            target: Path and query.
            body: JSON, or nothing.
            headers: Further headers.
            upload: A body of unknown length in its place. The answer may come before its end.
            answer_timeout_s: In place of the socket's own.

        Raises:
            Unavailable: The engine cannot be reached, or hung up before it answered.
            DeadlineExceeded: It did not answer in time.
        """
        reader, writer = await self._connect()
        stream: EngineStream | None = None
        try:
            head = _request_head(method, target, headers, None if upload else len(body))
            timeout_s = self.answer_timeout_s if answer_timeout_s is None else answer_timeout_s
            stream = await _converse(reader, writer, head + body, upload, timeout_s)
            self._open.add(stream)
            yield stream
        finally:
            if stream is not None:
                self._open.discard(stream)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def abort_all(self) -> None:
        """End every stream that is open."""
        for stream in tuple(self._open):
            stream.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                return await asyncio.open_unix_connection(self.path, limit=PIECE_BYTES_MAX)
        except TimeoutError as err:
            raise DeadlineExceeded("the Docker Engine does not accept connections") from err
        except OSError as err:
            raise Unavailable(f"no Docker Engine answers on {self.path}: {err.strerror}") from err


async def _converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    head: bytes,
    upload: AsyncIterator[bytes] | None,
    timeout_s: float,
) -> EngineStream:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s) as limit:
            writer.write(head)
            await writer.drain()
            if upload is None:
                return await _answer(reader, writer)
            # How long sending takes is the sender's affair; the answer is due after it.
            limit.reschedule(None)
            return await _send_and_answer(
                reader, writer, upload, lambda: limit.reschedule(loop.time() + timeout_s)
            )
    except TimeoutError as err:
        raise DeadlineExceeded("the Docker Engine does not answer") from err
    except _BROKEN as err:
        raise Unavailable("the Docker Engine hung up before it answered") from err


def _request_head(
    method: str, target: str, headers: Mapping[str, str], length: int | None
) -> bytes:
    sized = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    fields = {"Host": "docker", **sized, **headers}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> EngineStream:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.strip().split("\r\n")
    parts = status_line.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdecimal():
        raise PeerMisbehaved("what listens on the Docker Engine's socket does not speak HTTP")
    fields = (line.partition(":") for line in lines)
    return EngineStream(
        reader, writer, int(parts[1]), {n.strip().lower(): v.strip() for n, _, v in fields}
    )


async def _send_and_answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upload: AsyncIterator[bytes],
    sent: Callable[[], None],
) -> EngineStream:
    """Send the upload and read the answer, which comes early when the engine does not want it."""
    sending = asyncio.create_task(_send(writer, upload))
    answering = asyncio.create_task(_answer(reader, writer))
    try:
        await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            # A broken pipe means that the engine has answered and hung up.
            with contextlib.suppress(OSError):
                sending.result()
            sent()
        return await answering
    finally:
        for task in (sending, answering):
            task.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, upload: AsyncIterator[bytes]) -> None:
    """Send everything by chunks."""
    async for piece in upload:
        if piece:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
