"""What does a user see? Replies as view models, pure: no terminal, no colours, no I/O.

A view knows two forms of itself: a table for people, and plain values for programs. Names in the
plain form are kept from version to version; the table may change.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

__all__ = ["ClusterMadeView", "ComponentVersion", "Table", "VersionsView", "View"]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows for people.

    Attributes:
        columns: Headings, in capitals.
        rows: Texts, one for each column.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Check that every row has every column."""
        assert all(len(row) == len(self.columns) for row in self.rows), self


class View(Protocol):
    """Something that can be shown."""

    def table(self) -> Table:
        """Return the form for people."""
        ...

    def plain(self) -> object:
        """Return the form for programs: dicts, lists, texts, numbers, booleans and None."""
        ...


@dataclass(frozen=True, slots=True)
class ClusterMadeView:
    """The cluster that `dray init` made: its id, generation and ranges."""

    cluster_id: str
    generation: int
    range_cidr: str
    vip_range_cidr: str
    node_prefix_length: int

    def table(self) -> Table:
        """Return one row."""
        share = f"/{self.node_prefix_length}"
        return Table(
            ("CLUSTER", "GENERATION", "RANGE", "A NODE", "SERVICES"),
            (
                (
                    self.cluster_id,
                    str(self.generation),
                    self.range_cidr,
                    share,
                    self.vip_range_cidr,
                ),
            ),
        )

    def plain(self) -> object:
        """Return an object with the fields of this class."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ComponentVersion:
    """One program's version: "client", or a scheduler's or node's name, and what it runs on."""

    component: str
    version: str
    python: str
    platform: str


@dataclass(frozen=True, slots=True)
class VersionsView:
    """The versions of everything that answered; the client comes first."""

    components: tuple[ComponentVersion, ...]

    def table(self) -> Table:
        """Return one row for each program."""
        rows = tuple(
            (each.component, each.version, each.python, each.platform) for each in self.components
        )
        return Table(("COMPONENT", "VERSION", "PYTHON", "PLATFORM"), rows)

    def plain(self) -> object:
        """Return a list of objects with the fields of `ComponentVersion`."""
        return [asdict(each) for each in self.components]
