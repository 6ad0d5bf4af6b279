"""How does the node write files that a power cut must not tear, and read them back?"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from dray.errors import DrayError, ErrorCode, FailedPrecondition

__all__ = ["FILE_BYTES_MAX", "lock_folder", "make_folder", "read_file", "write_file"]

FILE_BYTES_MAX: Final = 16 * 1024 * 1024  # bytes of one file: 508 tasks' specs take 1 MiB


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder and those above it, if they are missing.

    Raises:
        FailedPrecondition: It cannot be made.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise FailedPrecondition(
            f"cannot make the folder {path}: {error.strerror}",
            hint="give the daemon a folder it may write to (--data)",
        ) from error


def lock_folder(path: Path) -> int:
    """Keep other daemons out of a folder; return the descriptor that holds the lock.

    The lock ends with the process, however it ends.

    Raises:
        FailedPrecondition: Another daemon holds it, or the folder cannot be written to.
    """
    descriptor = -1
    try:
        descriptor = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FailedPrecondition(
            f"another node daemon uses {path}",
            hint="stop it first, or give this one a folder of its own (--data)",
        ) from None
    except OSError as error:
        raise FailedPrecondition(f"cannot lock {path}: {error.strerror}") from error
    return descriptor


def write_file(path: Path, data: bytes, mode: int = 0o600, *, is_lasting: bool = True) -> None:
    """Replace a file's content at once and for good: after a power cut it is the old or the new.

    Args:
        path: The file.
        data: Its new content.
        mode: Its new mode.
        is_lasting: Return when a power cut cannot undo it; False: after one it may be anything.

    Raises:
        DrayError: The disk is full or broken (retryable). The old content stands.
    """
    partial = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the mask, and whatever an old one had
            file.write(data)
            file.flush()
            if is_lasting:
                os.fsync(descriptor)
        os.replace(partial, path)
        if is_lasting:
            _sync_folder(path.parent)
    except OSError as error:
        raise DrayError(
            f"cannot write {path}: {error.strerror}",
            code=ErrorCode.UNAVAILABLE,
            retryable=True,
            hint="free some space on its disk",
            context={"path": str(path)},
        ) from error


def _sync_folder(path: Path) -> None:
    """Make a rename within the folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path) -> bytes | None:
    """Return a file's content, or None if there is none.

    Raises:
        FailedPrecondition: It cannot be read, or is larger than `FILE_BYTES_MAX`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FailedPrecondition(f"cannot read {path}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise FailedPrecondition(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return data
