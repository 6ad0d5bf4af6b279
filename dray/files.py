"""How are files read from the disk, with limits?"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from dray.errors import DrayError, ErrorCode

__all__ = ["DiskFiles"]

_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})


class DiskFiles:
    """The disk as the Compose loader sees it (`dray.compose.FileSystem`)."""

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return a file's content, at most `bytes_max` + 1 bytes of it, or None if there is none.

        Raises:
            DrayError: It is there and cannot be read (a folder, no permission, a pipe).
        """
        if "\0" in path:
            return None  # no file has such a name
        file = Path(path)
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # to open a pipe could take for ever
                raise DrayError(f"{path} is not a file", code=ErrorCode.INVALID_ARGUMENT)
            with file.open("rb") as stream:
                return stream.read(bytes_max + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            number = error.errno or 0
            raise DrayError(
                f"cannot read {path}: {os.strerror(number)}",
                code=ErrorCode.FAILED_PRECONDITION,
                hint="check its permissions and its folders'" if number in _FORBIDDEN else "",
            ) from error

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder of that name; False when that is hidden."""
        return os.path.exists(path)
