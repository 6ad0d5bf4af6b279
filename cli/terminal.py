"""How does this terminal become that of a command in a container?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from dray.errors import DrayError
from dray.views import ExecInput, TerminalSize

if TYPE_CHECKING:
    from dray.client import ExecSession

__all__ = ["Terminal", "terminal_size"]

INPUT_BYTES_MAX: Final = 32_768  # read at once
INPUTS_MAX: Final = 64  # pieces of input that wait to be sent; then the terminal is not read
_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


def terminal_size() -> TerminalSize:
    """Return the size of this terminal."""
    size = os.get_terminal_size(sys.stdout.fileno())
    return TerminalSize(max(1, size.columns), max(1, size.lines))


class Terminal:
    """Passes keys, sizes and signals to a command, and puts the terminal back afterwards."""

    def __init__(self, session: ExecSession, *, is_raw: bool) -> None:
        """Attach to a command; with `is_raw` keys go to it one by one, Ctrl-C included."""
        self._session = session
        self._is_raw = is_raw
        self._inputs: asyncio.Queue[ExecInput] = asyncio.Queue(maxsize=INPUTS_MAX)
        self._saved: list[Any] | None = None
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._is_raw:
            self._saved = termios.tcgetattr(sys.stdin.fileno())
            tty.setraw(sys.stdin.fileno())
            loop.add_signal_handler(signal.SIGWINCH, self._resize)
        else:
            for number in _FORWARDED:
                loop.add_signal_handler(number, self._signal, number)
        self._sender = asyncio.create_task(self._send(), name="input of the command")
        self._reader = asyncio.create_task(self._read(), name="input of the terminal")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        if self._is_raw:
            loop.remove_signal_handler(signal.SIGWINCH)
        else:
            for number in _FORWARDED:
                loop.remove_signal_handler(number)
        if self._saved is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._saved)
        tasks = [task for task in (self._sender, self._reader) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def write(self, data: bytes) -> None:
        """Write what the command wrote."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def write_error(self, data: bytes) -> None:
        """Write what the command wrote as errors."""
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()

    async def _read(self) -> None:
        """Read what is typed or piped until its end, no faster than it can be sent."""
        loop = asyncio.get_running_loop()
        descriptor = sys.stdin.fileno()
        while True:
            try:
                data = await _readable(loop, descriptor)
            except PermissionError:  # epoll takes no plain files: they can always be read
                data = await asyncio.to_thread(os.read, descriptor, INPUT_BYTES_MAX)
            if not data:
                await self._inputs.put(ExecInput(stdin_end=True))
                return
            await self._inputs.put(ExecInput(stdin=data))

    async def _send(self) -> None:
        with contextlib.suppress(DrayError):  # the output's end says what became of it
            while True:
                await self._session.send(await self._inputs.get())

    def _resize(self) -> None:
        self._offer(ExecInput(resize=terminal_size()))

    def _signal(self, number: signal.Signals) -> None:
        self._offer(ExecInput(signal=number.name))

    def _offer(self, message: ExecInput) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._inputs.put_nowait(message)


async def _readable(loop: asyncio.AbstractEventLoop, descriptor: int) -> bytes:
    """Wait until there is something to read, and read it; giving up the wait loses nothing."""
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, INPUT_BYTES_MAX)
