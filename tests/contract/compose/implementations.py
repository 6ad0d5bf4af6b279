"""Which implementations of the Compose loader are held to its contract, and what do they read?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from dray.compose import FileSystem, Loaded, LoadRequest, Rejected, load
from dray.errors import DrayError

__all__ = ["LOADS", "PATH", "DictFiles", "Load", "load_text"]

Load: TypeAlias = Callable[[LoadRequest, FileSystem], Loaded | Rejected]

LOADS: Final[dict[str, Load]] = {"smallest": load}
PATH: Final = "/projects/shop/compose.yaml"


class DictFiles:
    """Files in a dictionary. An error in place of bytes is raised."""

    def __init__(self, files: Mapping[str, bytes | DrayError]) -> None:
        """Hold these files by absolute path."""
        self._files = files

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return at most `bytes_max` + 1 bytes of a file, or None."""
        content = self._files.get(path)
        if isinstance(content, DrayError):
            raise content
        return None if content is None else content[: bytes_max + 1]

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        return path in self._files


def load_text(
    load: Load, text: str | bytes, *, interpolate: bool = True, allow_ignored: bool = False
) -> Loaded | Rejected:
    """Load one file of this content."""
    content = text.encode() if isinstance(text, str) else text
    request = LoadRequest((PATH,), interpolate=interpolate, allow_ignored=allow_ignored)
    return load(request, DictFiles({PATH: content}))
