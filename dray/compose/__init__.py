"""The Compose loader: files to a normalised project, every problem with its file, line and column.

`load` is pure: it reads files only through the `FileSystem` it is given, and takes the environment
as a value.
"""

from dray.compose.load import load
from dray.compose.types import (
    COMPOSE_BYTES_MAX,
    PROBLEMS_MAX,
    Build,
    FileSystem,
    Loaded,
    LoadRequest,
    Position,
    Problem,
    Rejected,
)

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
    "load",
]
