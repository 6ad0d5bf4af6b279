"""How are files read from and written to the disk, with limits and without half-written ones?"""

from __future__ import annotations

import os
from pathlib import Path

from dray.errors import DrayError, ErrorCode

__all__ = ["DiskFiles"]


class DiskFiles:
    """The disk as the Compose loader sees it (`dray.compose.FileSystem`)."""

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return a file's content, at most `bytes_max` + 1 bytes of it, or None if there is none.

        Raises:
            DrayError: It is there and cannot be read (a folder, no permission, a pipe).
        """
        file = Path(path)
        try:
            if not file.exists():
                return None
            if not file.is_file():
                raise DrayError(f"{path} is not a file", code=ErrorCode.INVALID_ARGUMENT)
            with file.open("rb") as stream:
                return stream.read(bytes_max + 1)
        except OSError as error:
            raise DrayError(
                f"cannot read {path}: {os.strerror(error.errno or 0)}",
                code=ErrorCode.FAILED_PRECONDITION,
                hint="check its permissions",
            ) from error

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder of that name."""
        return Path(path).exists()
