"""Files that are only in memory, and short ways to load them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dray.compose import LoadRequest, Rejected
from dray.compose.canonical import Canonical, canonicalise
from dray.compose.tree import plain
from dray.model import string_map

__all__ = ["FOLDER", "MemoryFiles", "canonical_of", "config_of", "problems_of", "service_of"]

FOLDER = "/shop"


class MemoryFiles:
    """Files in a dictionary, by absolute path."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        """Take texts or bytes; names without a slash lie in `FOLDER`."""
        self._files = {
            path if path.startswith("/") else f"{FOLDER}/{path}": content
            for path, content in files.items()
        }

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return a file's content, at most `bytes_max` + 1 bytes of it, or None."""
        content = self._files.get(path)
        if content is None:
            return None
        raw = content if isinstance(content, bytes) else content.encode()
        return raw[: bytes_max + 1]

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        return path in self._files


def _load(
    files: str | bytes | Mapping[str, str | bytes],
    names: tuple[str, ...],
    environment: Mapping[str, str],
    options: Mapping[str, Any],
) -> Canonical | Rejected:
    given = files if isinstance(files, Mapping) else {"compose.yaml": files}
    request = LoadRequest(
        tuple(f"{FOLDER}/{name}" for name in names),
        environment=string_map(environment),
        **options,
    )
    return canonicalise(request, MemoryFiles(given))


def canonical_of(
    files: str | bytes | Mapping[str, str | bytes],
    *names: str,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Canonical:
    """Return what files come to; they must be right."""
    result = _load(files, names or ("compose.yaml",), environment or {}, options)
    assert isinstance(result, Canonical), "\n".join(map(str, result.problems))
    return result


def config_of(
    files: str | bytes | Mapping[str, str | bytes],
    *names: str,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Any:
    """Return the config of files as plain values."""
    return plain(canonical_of(files, *names, environment=environment, **options).config)


def service_of(
    files: str | bytes | Mapping[str, str | bytes],
    *names: str,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Any:
    """Return the service `web` of files as plain values."""
    return config_of(files, *names, environment=environment, **options)["services"]["web"]


def problems_of(
    files: str | bytes | Mapping[str, str | bytes],
    *names: str,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> list[str]:
    """Return what is told about files that are wrong, with paths as they lie in `FOLDER`."""
    result = _load(files, names or ("compose.yaml",), environment or {}, options)
    assert isinstance(result, Rejected), "the files were taken"
    return [str(problem).replace(f"{FOLDER}/", "") for problem in result.problems]
