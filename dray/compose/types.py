"""What goes in and out of the loader?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from dray.model import ProjectSpec, StringMap

__all__ = [
    "COMPOSE_BYTES_MAX",
    "PROBLEMS_MAX",
    "Build",
    "FileSystem",
    "LoadRequest",
    "Loaded",
    "Position",
    "Problem",
    "Rejected",
]

COMPOSE_BYTES_MAX: Final = 1_048_576
"""Bytes of one file, and of all of them after merge (DESIGN section 11)."""

PROBLEMS_MAX: Final = 100
"""Problems of one load that are told; more help nobody."""


class FileSystem(Protocol):
    """Where the loader reads files; the disk in the CLI, a dictionary in tests.

    Paths are absolute.
    """

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return a file's content, at most `bytes_max` + 1 bytes of it.

        Or None if there is no such file.

        Raises:
            DrayError: It is there and cannot be read; the message names it and says why.
        """
        ...

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder of that name."""
        ...


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load, and how.

    Attributes:
        files: Absolute paths of Compose files; later ones are merged over earlier ones.
        project_name: The project's name; None: what the file or its folder says.
        project_directory: Absolute path that relative paths are resolved against; None: the first
            file's folder.
        profiles: Active profiles; "*" stands for all.
        environment: Variables for interpolation; they win over those of env files.
        env_files: Files with variables in place of the project folder's `.env`; None: that one, if
            it exists.
        interpolate: Whether `${…}` is replaced.
        allow_ignored: Load although some keys have no effect here; they are listed in
            `Loaded.ignored`.
    """

    files: tuple[str, ...]
    project_name: str | None = None
    project_directory: str | None = None
    profiles: tuple[str, ...] = ()
    environment: StringMap = ()
    env_files: tuple[str, ...] | None = None
    interpolate: bool = True
    allow_ignored: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """Return the form that editors jump to: `compose.yaml:3:5`."""
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, or ignored, in a file.

    Attributes:
        position: Where; None when it is about no particular place (no file at all).
        path: What, as a path of keys: "services.web.ports[0]"; empty for the file as a whole.
        message: What is wrong with it.
        hint: What to do.
    """

    position: Position | None
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Return the problem as one line for people."""
        place = f"{self.position}: " if self.position else ""
        subject = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{subject}{self.message}{hint}"


@dataclass(frozen=True, slots=True)
class Build:
    """An image that the client builds and pushes before it applies the project.

    Attributes:
        service: Whose image.
        image: The reference that the service runs and the build is tagged with.
        options: `build` as the canonical config has it.
    """

    service: str
    image: str
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A project whose files are right.

    Attributes:
        project: What the cluster is asked for; complete only when there are no `refusals`.
        config: The normalised project in the shape that the official tool prints: plain dicts,
            lists and scalars. Extensions (x-…) are kept everywhere.
        builds: What the client builds and pushes before it applies the project, sorted by service.
        refusals: What dray cannot carry out (yet). `dray up` refuses because of them; with
            `LoadRequest.allow_ignored` only those are left that cannot be ignored.
        ignored: What has no effect here, with the reason.
        warnings: Variables that were not set and were replaced by nothing.
        used_files: Every file that was read.
    """

    project: ProjectSpec
    config: Mapping[str, object]
    builds: tuple[Build, ...] = ()
    refusals: tuple[Problem, ...] = ()
    ignored: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    used_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A project that was refused; nothing of it was taken.

    Attributes:
        problems: Every problem that was found, by position; those without one first. At
            `PROBLEMS_MAX` loading ends, and one more at the end says so.
    """

    problems: tuple[Problem, ...]
