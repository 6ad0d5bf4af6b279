"""What comes out of the conversion of a canonical config?"""

from __future__ import annotations

from dataclasses import dataclass

from dray.compose.types import Build, Problem
from dray.model import ProjectSpec

__all__ = ["Projected"]


@dataclass(frozen=True, slots=True)
class Projected:
    """A project, and everything that was not simply taken.

    Attributes:
        project: What the cluster is asked for. Complete only when there are no `problems`.
        builds: What the client builds first, sorted by service.
        refusals: Keys and values that dray cannot carry out (yet). `dray up` refuses because of
            them; with `allow_ignored` there are none, and they are in `ignored`.
        faults: Valid Compose that cannot be carried out and cannot be ignored either: two services
            on one port, a constraint that no node can meet. `dray up` always refuses.
        ignored: What has no effect here, with the reason.
        problems: Mistakes below `x-dray`, whose meaning is dray's to define: the file is rejected.
    """

    project: ProjectSpec
    builds: tuple[Build, ...] = ()
    refusals: tuple[Problem, ...] = ()
    faults: tuple[Problem, ...] = ()
    ignored: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()
