"""How are a few child processes kept running, and ended in order?

A child is started, must become ready within its limit, and is started again with a back-off when
it ends. One that keeps ending is given up, and the end of its log says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dray.errors import FailedPrecondition
from dray.retry import Backoff

__all__ = ["Child", "Children"]

LOG_BYTES_MAX: Final = 16 * 1024**2  # a log that is longer at the start of its child becomes `.old`
LOG_LINES_SHOWN: Final = 15
LOG_TAIL_BYTES: Final = 16_384
LOOK_AGAIN_S: Final = 0.05
ENDS_MAX: Final = 5  # ends of one child within `ENDS_WINDOW_S` that are borne
ENDS_WINDOW_S: Final = 60.0
STOP_LIMIT_S: Final = 20.0  # from a child's SIGTERM to its SIGKILL
RESTART: Final = Backoff(first_s=0.5, max_s=10.0)


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running.

    Attributes:
        name: What people call it.
        command: Its command line.
        is_ready: Whether it does its work; asked again and again until it does.
        ready_limit_s: How long that may take.
    """

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], Awaitable[bool]]
    ready_limit_s: float = 30.0


@dataclass(slots=True)
class _Running:
    child: Child
    process: asyncio.subprocess.Process


class Children:
    """The children of one `dray dev`, in the order of their start."""

    def __init__(
        self,
        logs: Path,
        say: Callable[[str], None],
        rng: random.Random,
        restart: Backoff = RESTART,
    ) -> None:
        """Start nothing yet.

        Args:
            logs: Folder of their logs; it exists.
            say: Gets a line when a child ended and is started again.
            rng: Draws the jitter of the back-off.
            restart: How long to wait before a child is started again.
        """
        self._logs = logs
        self._say = say
        self._rng = rng
        self._restart = restart
        self._running: list[_Running] = []

    def log_of(self, name: str) -> Path:
        """Return where a child's output goes."""
        return self._logs / f"{name}.log"

    async def start(self, child: Child) -> float:
        """Start a child and wait until it is ready; return how long that took, in seconds.

        Raises:
            FailedPrecondition: It ended, or was not ready in time; it does not run any more.
        """
        began_s = time.monotonic()
        running = _Running(child, await self._spawn(child))
        self._running.append(running)
        await self._until_ready(running)
        return time.monotonic() - began_s

    async def keep_running(self) -> None:
        """Start children again when they end; never returns.

        Raises:
            FailedPrecondition: One ended too often, or did not become ready again.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for running in self._running:
                    group.create_task(self._keep(running), name=running.child.name)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def stop(self) -> None:
        """End all children, the last one first; each gets `STOP_LIMIT_S` for a clean end."""
        while self._running:
            running = self._running.pop()
            process = running.process
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_LIMIT_S):
                    await process.wait()
            except TimeoutError:
                self._say(f"{running.child.name} did not end in {STOP_LIMIT_S:.0f} s: killed")
                process.kill()
                await process.wait()

    async def _keep(self, running: _Running) -> None:
        ends: deque[float] = deque(maxlen=ENDS_MAX)
        while True:
            status = await running.process.wait()
            now_s = time.monotonic()
            ends.append(now_s)
            if len(ends) == ENDS_MAX and now_s - ends[0] < ENDS_WINDOW_S:
                raise await self._failure(running.child, f"ended {ENDS_MAX} times in a minute")
            recent = sum(now_s - end_s < ENDS_WINDOW_S for end_s in ends)
            self._say(f"{running.child.name} ended with status {status} and is started again")
            await asyncio.sleep(self._restart.delay_s(recent, self._rng))
            running.process = await self._spawn(running.child)
            await self._until_ready(running)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        """Start the process. It ends with this one, and Ctrl-C is for this one alone."""
        log = await asyncio.to_thread(_open_log, self.log_of(child.name))
        try:
            return await asyncio.create_subprocess_exec(
                *await asyncio.to_thread(_ending_with_us, child.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise FailedPrecondition(
                f"{child.name} cannot be started: {child.command[0]}: {error.strerror}"
            ) from error
        finally:
            os.close(log)

    async def _until_ready(self, running: _Running) -> None:
        child = running.child
        try:
            async with asyncio.timeout(child.ready_limit_s):
                while not await child.is_ready():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_AGAIN_S):
                            status = await running.process.wait()
                            raise await self._failure(child, f"ended with status {status}")
        except TimeoutError:
            what = f"is not ready after {child.ready_limit_s:.0f} s"
            raise await self._failure(child, what) from None

    async def _failure(self, child: Child, what: str) -> FailedPrecondition:
        path = self.log_of(child.name)
        lines = await asyncio.to_thread(_last_lines, path)
        told = "".join(f"\n  {line}" for line in lines)
        return FailedPrecondition(f"{child.name} {what}; the end of {path} says:{told}")


def _open_log(path: Path) -> int:
    """Open a log to append to; one that has grown long is put aside first."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.old"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _ending_with_us(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command whose process the kernel ends when this one is killed."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--", *command) if setpriv else command


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        return log.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
