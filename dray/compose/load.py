"""How does a Compose file become a project? `load` puts the two halves of the loader together."""

from __future__ import annotations

from dray.compose.canonical import canonicalise
from dray.compose.project import to_project
from dray.compose.types import FileSystem, Loaded, LoadRequest, Rejected

__all__ = ["load"]


def load(request: LoadRequest, files: FileSystem) -> Loaded | Rejected:
    """Read Compose files and return the project, or every problem that was found.

    Never raises for what a file says. Time and memory are bounded, see `yaml_read` and `session`.

    Args:
        request: What to load, and how.
        files: Where files are read.
    """
    canonical = canonicalise(request, files)
    if isinstance(canonical, Rejected):
        return canonical
    projected = to_project(canonical, allow_ignored=request.allow_ignored)
    if projected.problems:
        return Rejected(projected.problems)
    return Loaded(
        projected.project,
        canonical.config,
        (*projected.faults, *projected.refusals),
        projected.ignored,
        canonical.warnings,
        canonical.used_files,
    )
