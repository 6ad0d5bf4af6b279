"""What does a scheduler remember over a restart? Its id, and how far it has seen epochs and store.

All of it is in one file of its data folder. The folder is locked while the scheduler runs: two
processes with one id would take each other for an earlier life, and never stop electing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import IO, Final

from dray.errors import FailedPrecondition
from dray.model import NO_EPOCH, Epoch
from dray.names import IdFactory, SchedulerId, is_id

__all__ = ["EpochMemory"]

_FILE: Final = "scheduler.json"
_LOCK: Final = "lock"
_FILE_BYTES_MAX: Final = 65_536


class EpochMemory:
    """The scheduler's id and how far it has seen; opened once, closed at the end."""

    def __init__(
        self,
        folder: Path,
        scheduler_id: SchedulerId,
        highest: Epoch,
        position: Epoch,
        lock: IO[bytes],
    ) -> None:
        """Hold what was read; use `open`."""
        self.scheduler_id: Final = scheduler_id
        self._folder = folder
        self._highest = highest
        self._position = position
        self._lock = lock

    @classmethod
    def open(cls, folder: Path, ids: IdFactory) -> EpochMemory:
        """Lock the folder and read what is remembered. Blocks on the disk: call it at the start.

        Args:
            folder: The data folder; made if it is missing.
            ids: Makes the id at the first start.

        Raises:
            FailedPrecondition: The folder cannot be used, or another scheduler uses it.
        """
        with contextlib.ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock = undo.enter_context((folder / _LOCK).open("ab"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                content = _read(folder / _FILE)
            except BlockingIOError as error:
                raise FailedPrecondition(
                    f"another scheduler uses the folder {folder}", hint="give each its own --data"
                ) from error
            except OSError as error:
                raise FailedPrecondition(
                    f"cannot use the folder {folder}: {error.strerror}",
                    hint="name another with --data",
                ) from error
            if content is None:
                memory = cls(folder, SchedulerId(ids.new()), NO_EPOCH, NO_EPOCH, lock)
                memory._write()
            else:
                memory = cls(folder, *_parsed(content, folder / _FILE), lock)
            undo.pop_all()
            return memory

    @property
    def highest(self) -> Epoch:
        """The highest epoch that was met; `NO_EPOCH`: none yet."""
        return self._highest

    @property
    def position(self) -> Epoch:
        """The furthest generation and revision of the store; `NO_EPOCH`: none yet."""
        return self._position

    async def remember(self, epoch: Epoch = NO_EPOCH, position: Epoch = NO_EPOCH) -> None:
        """Keep what is higher than what is kept; it is on the disk when this returns.

        Args:
            epoch: An epoch that was met.
            position: A generation and revision of the store that were seen.

        Raises:
            FailedPrecondition: The disk refused it. It is remembered until the end all the same.
        """
        if epoch > self._highest or position > self._position:
            self._highest = max(self._highest, epoch)
            self._position = max(self._position, position)
            await asyncio.to_thread(self._write)

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    def _write(self) -> None:
        """Replace the file whole, or not at all."""
        state = {
            "scheduler_id": self.scheduler_id,
            "epoch": [self._highest.generation, self._highest.create_revision],
            "store": [self._position.generation, self._position.create_revision],
        }
        path = self._folder / _FILE
        temporary = path.with_suffix(".new")
        try:
            with temporary.open("w", encoding="ascii") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise FailedPrecondition(f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX)
    except FileNotFoundError:
        return None


def _parsed(content: bytes, path: Path) -> tuple[SchedulerId, Epoch, Epoch]:
    try:
        state = json.loads(content)
        scheduler_id = state["scheduler_id"]
        highest, position = (
            Epoch(*(int(number) for number in state.get(name, (0, 0))))
            for name in ("epoch", "store")
        )
        if not is_id(scheduler_id):
            raise ValueError("the id is none")
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            f"{path} is damaged: {error}", hint="remove it: this scheduler gets a new id"
        ) from error
    return SchedulerId(scheduler_id), highest, position
