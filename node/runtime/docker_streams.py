"""How are logs, exec sessions and archives read from and written to the Docker Engine?"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import docker

from dray.errors import (
    DrayError,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PeerMisbehaved,
    Unavailable,
)
from node.runtime.base import ExecRequest, LogChunk, LogQuery, LogStream
from node.runtime.docker_errors import one_line
from node.runtime.docker_http import PIECE_BYTES_MAX, EngineSocket, EngineStream
from node.runtime.docker_pull import Ask
from node.runtime.docker_view import unix_ns_from_text
from node.runtime.signals import signal_number

__all__ = [
    "DockerExec",
    "framed_lines",
    "open_archive",
    "open_exec",
    "open_logs",
    "send_archive",
    "terminal_lines",
    "wanted_lines",
]

_STREAMS: Final = {1: LogStream.STDOUT, 2: LogStream.STDERR}
_LOG_FRAME_BYTES_MAX: Final = 16 * 1024 * 1024  # drivers cut lines at 16 KiB; this bounds nonsense
_LOG_PART_BYTES: Final = 16 * 1024  # Docker cuts a longer line into parts of this size
_STAMP_LENGTH: Final = 31  # "2006-01-02T15:04:05.000000000Z " as the engine writes it, in UTC
_STAMP: Final = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
_EXEC_LOOK_MIN_S: Final = 0.01
_EXEC_LOOK_MAX_S: Final = 1.0
_PATH_STAT: Final = "x-docker-container-path-stat"
_RESIZE_PAUSES_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


# ---- logs ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_logs(
    ask: Ask, socket: EngineSocket, container_id: str, query: LogQuery
) -> AsyncIterator[AsyncIterator[LogChunk]]:
    """Yield the lines of a container's output; see `Runtime.logs`."""
    try:
        inspected = await ask(lambda client: client.inspect_container(container_id))
    except docker.errors.NotFound:
        yield _nothing()
        return
    api = await ask(lambda client: client.api_version)
    target = f"/v{api}/containers/{container_id}/logs?{urlencode(_log_query(query))}"
    async with socket.stream("GET", target) as stream:
        if stream.status == 404:
            yield _nothing()
        elif stream.status >= 400:
            raise await _log_error(stream)
        elif inspected["Config"]["Tty"]:
            yield wanted_lines(terminal_lines(stream), query)
        else:
            yield wanted_lines(framed_lines(stream), query)


async def _nothing() -> AsyncIterator[LogChunk]:
    """Yield nothing."""
    chunks: tuple[LogChunk, ...] = ()
    for chunk in chunks:
        yield chunk


async def _log_error(stream: EngineStream) -> DrayError:
    text = one_line(await stream.refusal())
    if "does not support reading" in text or "logging driver" in text:
        return FailedPrecondition(text, hint="read the output where the log driver sends it")
    return Unavailable(text)


def _log_query(query: LogQuery) -> dict[str, str]:
    fields = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": str(int(query.follow))}
    if query.since_unix_ns is not None:
        fields["since"] = _seconds_text(query.since_unix_ns)
    if query.until_unix_ns is not None:
        fields["until"] = _seconds_text(query.until_unix_ns)
    if query.tail_lines is not None:
        fields["tail"] = str(query.tail_lines)
    return fields


def _seconds_text(unix_ns: int) -> str:
    return f"{unix_ns // 1_000_000_000}.{unix_ns % 1_000_000_000:09d}"


async def wanted_lines(lines: AsyncIterator[LogChunk], query: LogQuery) -> AsyncIterator[LogChunk]:
    """Yield the lines after `since`: the engine also sends those at that very time."""
    since_ns, until_ns = query.since_unix_ns, query.until_unix_ns
    async for line in lines:
        if until_ns is not None and line.unix_ns > until_ns:
            return
        if since_ns is None or line.unix_ns > since_ns:
            yield line


async def framed_lines(stream: EngineStream) -> AsyncIterator[LogChunk]:
    """Yield output of a container without a terminal: one frame a line, or a part of one."""
    while (head := await stream.frame_head()) is not None:
        number, length = head
        if length > _LOG_FRAME_BYTES_MAX or number not in _STREAMS:
            raise PeerMisbehaved(f"the Docker Engine sent a log frame ({number}, {length} bytes)")
        frame = await stream.exactly(length)
        for chunk in _chunks(_STREAMS[number], frame):
            yield chunk


async def terminal_lines(stream: EngineStream) -> AsyncIterator[LogChunk]:
    """Yield output of a container with a terminal: plain text without frames.

    A line ends with a newline, or is cut by Docker after 16 KiB: then the next part's time follows.
    """
    while stamp := await stream.exactly(_STAMP_LENGTH):
        data = await stream.line_upto(_LOG_PART_BYTES)
        if not data.endswith(b"\n"):
            following = await stream.peek(_STAMP_LENGTH)
            if following and not _STAMP.match(following):
                data += await stream.line()
        is_whole = data.endswith(b"\n")
        # A terminal ends its lines with both.
        data = data.removesuffix(b"\n").removesuffix(b"\r") + (b"\n" if is_whole else b"")
        for chunk in _chunks(LogStream.STDOUT, stamp + data):
            yield chunk


def _chunks(origin: LogStream, message: bytes) -> list[LogChunk]:
    """Return one message of the log as lines of at most 64 KiB."""
    stamp, _, data = message.partition(b" ")
    unix_ns = unix_ns_from_text(stamp.decode("ascii", "replace"))
    if unix_ns is None:
        raise PeerMisbehaved("the Docker Engine sent a log line without its time")
    is_whole = data.endswith(b"\n")
    data = data.removesuffix(b"\n")
    parts = [data[i : i + PIECE_BYTES_MAX] for i in range(0, len(data), PIECE_BYTES_MAX)] or [b""]
    chunks = [LogChunk(origin, unix_ns, part, partial=True) for part in parts[:-1]]
    return [*chunks, LogChunk(origin, unix_ns, parts[-1], partial=not is_whole)]


# ---- exec ----------------------------------------------------------------------------------------


class DockerExec:
    """A command that runs inside a container; an `ExecSession`."""

    def __init__(self, ask: Ask, stream: EngineStream, exec_id: str, *, tty: bool) -> None:
        self._ask = ask
        self._stream = stream
        self._exec_id = exec_id
        self._tty = tty
        self._is_over = asyncio.Event()

    async def output(self) -> AsyncIterator[tuple[LogStream, bytes]]:
        """Yield output as it comes, in order, until the command ends."""
        if self._tty:
            while piece := await self._stream.read():
                yield LogStream.STDOUT, piece
        else:
            while (head := await self._stream.frame_head()) is not None:
                number, left = head
                while left > 0 and (piece := await self._stream.read(min(left, PIECE_BYTES_MAX))):
                    left -= len(piece)
                    yield _STREAMS.get(number, LogStream.STDERR), piece
        self._is_over.set()

    async def write(self, data: bytes) -> None:
        """Send input; waits while the command does not read."""
        assert len(data) <= PIECE_BYTES_MAX, "at most 64 KiB a call"
        await self._stream.write(data)

    async def close_input(self) -> None:
        """Tell the command that there is no more input."""
        self._stream.write_end()

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal; one that has ended meanwhile has none."""
        for pause_s in _RESIZE_PAUSES_S:
            try:
                await self._ask(lambda c: c.exec_resize(self._exec_id, height=rows, width=columns))
            except (docker.errors.APIError, Unavailable):
                # The engine refuses until the command runs, which is a moment after it says so.
                if await self._ended() is not None:
                    return
            else:
                return
            await asyncio.sleep(pause_s)

    async def exit_code(self) -> int:
        """Return the exit status; waits for the end."""
        pause_s = _EXEC_LOOK_MIN_S
        while (status := await self._ended()) is None:
            if self._is_over.is_set():
                # The engine notes the status a moment after the output's end.
                await asyncio.sleep(pause_s)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._is_over.wait()
                    pause_s = _EXEC_LOOK_MIN_S
            pause_s = min(2 * pause_s, _EXEC_LOOK_MAX_S)
        return status

    async def send_signal(self, signal: str) -> None:
        """Send a signal to the command's process, as the engine sees it."""
        number = signal_number(signal)
        found = await self._ask(lambda client: client.exec_inspect(self._exec_id))
        pid = int(found.get("Pid") or 0)
        if found["Running"] and pid > 0:
            await asyncio.to_thread(_kill, pid, number, str(found["ContainerID"]))

    async def _ended(self) -> int | None:
        try:
            found = await self._ask(lambda client: client.exec_inspect(self._exec_id))
        except docker.errors.NotFound as err:
            raise NotFound("the container of this command is gone") from err
        code = found["ExitCode"]
        return None if found["Running"] or code is None else int(code)


def _kill(pid: int, number: int, container_id: str) -> None:
    """Send a signal to a process of a container, if it is one: the engine may see other numbers."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii", errors="replace")
        if container_id not in groups:
            raise FailedPrecondition(
                "the command's process cannot be reached from the node's daemon",
                hint="run the daemon in the process namespace of the Docker Engine",
            )
        os.kill(pid, number)
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended


@contextlib.asynccontextmanager
async def open_exec(
    ask: Ask, socket: EngineSocket, container_id: str, request: ExecRequest
) -> AsyncIterator[DockerExec]:
    """Run a command inside a container; see `Runtime.exec`."""
    exec_id = await _made_exec(ask, container_id, request)
    api = await ask(lambda client: client.api_version)
    body = json.dumps({"Detach": False, "Tty": request.tty}).encode()
    upgrade = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
    target = f"/v{api}/exec/{exec_id}/start"
    async with socket.stream("POST", target, body=body, headers=upgrade) as stream:
        if stream.status >= 400:
            text = one_line(await stream.refusal())
            raise NotFound(text) if stream.status in (404, 409) else Unavailable(text)
        session = DockerExec(ask, stream, exec_id, tty=request.tty)
        if request.tty and request.terminal_size is not None:
            await session.resize(*request.terminal_size)
        yield session


async def _made_exec(ask: Ask, container_id: str, request: ExecRequest) -> str:
    try:
        made = await ask(
            lambda client: client.exec_create(
                container_id,
                list(request.command),
                stdin=request.stdin,
                tty=request.tty,
                privileged=request.privileged,
                user=request.user,
                environment=[f"{name}={value}" for name, value in request.environment],
                workdir=request.working_dir or None,
            )
        )
    except docker.errors.APIError as err:
        text = one_line(str(err.explanation))
        if err.status_code in (404, 409):
            raise NotFound(text) from err
        raise InvalidRequest(text) from err
    return str(made["Id"])


# ---- archives ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_archive(
    ask: Ask, socket: EngineSocket, container_id: str, path: str, *, follow_link: bool
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield a path of a container as a tar stream; see `Runtime.read_archive`."""
    if follow_link:
        async with socket.stream("HEAD", await _archive(ask, container_id, path)) as stream:
            path = _link_target(stream.headers.get(_PATH_STAT, "")) or path
    async with socket.stream("GET", await _archive(ask, container_id, path)) as stream:
        if stream.status >= 400:
            text = one_line(await stream.refusal())
            raise NotFound(text) if stream.status == 404 else Unavailable(text)
        yield _pieces(stream)


def _link_target(stat: str) -> str:
    """Return what a path's link points at, resolved by the engine; empty: it is no link."""
    try:
        found = json.loads(base64.b64decode(stat, validate=True))
    except ValueError:
        return ""  # there is no such path, and reading it says so
    return str(found.get("linkTarget") or "") if isinstance(found, dict) else ""


async def _pieces(stream: EngineStream) -> AsyncIterator[bytes]:
    while piece := await stream.read():
        yield piece


async def send_archive(
    ask: Ask, socket: EngineSocket, container_id: str, path: str, chunks: AsyncIterator[bytes]
) -> None:
    """Unpack a tar stream into a folder of a container; see `Runtime.write_archive`."""
    target = await _archive(ask, container_id, path)
    headers = {"Content-Type": "application/x-tar"}
    async with socket.stream("PUT", target, headers=headers, upload=chunks) as stream:
        if stream.status < 400:
            return
        text = one_line(await stream.refusal())
        if stream.status == 404 or "not a directory" in text:
            raise NotFound(text)
        if stream.status == 403 or "read-only" in text:
            raise FailedPrecondition(text, hint="the target is read-only: use a volume")
        raise InvalidRequest(text)


async def _archive(ask: Ask, container_id: str, path: str) -> str:
    api = await ask(lambda client: client.api_version)
    return f"/v{api}/containers/{container_id}/archive?{urlencode({'path': path})}"
