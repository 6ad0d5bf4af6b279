"""Canonical projects for tests of what becomes of them, without files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dray.compose.place import Path
from dray.compose.project import Projected, to_project
from dray.compose.treatment import Executor
from dray.compose.types import Position
from dray.model import ServiceSpec

__all__ = ["ALL", "View", "a_config", "project_of", "service_of"]

ALL = frozenset(Executor)


class _AnyContent(dict[Path, bytes]):
    """Content for every path: as if each file could be read."""

    def get(self, key: object, default: object = None) -> bytes:
        """Return the same content for every path."""
        return b"content"


@dataclass(frozen=True)
class View:
    """A canonical project with no files behind it."""

    config: Mapping[str, object]
    contents: Mapping[Path, bytes] = field(default_factory=_AnyContent)
    environments: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    def where(self, path: Path) -> Position | None:
        """Return no position: nothing comes from a file."""
        return None


def a_config(service: Mapping[str, object], **top: object) -> dict[str, object]:
    """Return a canonical project `shop` with one service, `web`."""
    web = {"image": "nginx", "command": None, "entrypoint": None, **service}
    return {"name": "shop", "services": {"web": web}, "networks": {}, **top}


def project_of(
    config: Mapping[str, object],
    *,
    available: frozenset[Executor] = ALL,
    allow_ignored: bool = False,
    contents: Mapping[Path, bytes] | None = None,
    environments: Mapping[str, Mapping[str, str | None]] | None = None,
) -> Projected:
    """Convert a canonical project; by default as if every executor were there."""
    view = View(
        config,
        _AnyContent() if contents is None else contents,
        environments or {},
    )
    return to_project(view, available=available, allow_ignored=allow_ignored)


def service_of(service: Mapping[str, object], **top: object) -> ServiceSpec:
    """Return the spec of one service, which must be taken whole."""
    result = project_of(a_config(service, **top))
    found = [*result.problems, *result.faults, *result.refusals]
    assert not found, [str(each) for each in found]
    return result.project.services[0]
