"""How does a Compose file become a project? `load` puts the two halves of the loader together."""

from __future__ import annotations

from typing import Final

from dray.compose.canonical import Reading, read_project
from dray.compose.project import Projected, to_project
from dray.compose.types import FileSystem, Loaded, LoadRequest, Position, Problem, Rejected

__all__ = ["load", "problems_of", "refusals_of"]

_NOWHERE: Final = Position("", 0, 0)


def load(request: LoadRequest, files: FileSystem) -> Loaded | Rejected:
    """Read Compose files and return the project, or every problem that was found.

    Never raises for what a file says. Time and memory are bounded, see `yaml_read` and `session`.

    Args:
        request: What to load, and how.
        files: Where files are read.
    """
    reading = read_project(request, files)
    canonical = reading.canonical
    if canonical is None or (reading.problems and not request.interpolate):
        return Rejected(reading.problems.sorted())
    projected = to_project(canonical, allow_ignored=request.allow_ignored)
    if problems := problems_of(reading, projected):
        return Rejected(problems)
    return Loaded(
        projected.project,
        canonical.config,
        builds=projected.builds,
        refusals=refusals_of(projected),
        ignored=projected.ignored,
        warnings=canonical.warnings,
        used_files=canonical.used_files,
    )


def problems_of(reading: Reading, projected: Projected) -> tuple[Problem, ...]:
    """Return everything that is wrong with files that are rejected; nothing if they are not.

    Faults are told with the rest, but for those that only follow from it. What dray cannot carry
    out yet is no mistake.
    """
    problems = reading.problems
    if not problems and not projected.problems:
        return ()
    problems.add_later((*projected.problems, *projected.faults))
    return problems.sorted()


def refusals_of(projected: Projected) -> tuple[Problem, ...]:
    """Return what cannot be carried out, by position."""
    return tuple(sorted((*projected.faults, *projected.refusals), key=_order))


def _order(problem: Problem) -> tuple[bool, Position, str]:
    place = problem.position
    return (place is None, place or _NOWHERE, problem.path)
