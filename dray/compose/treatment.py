"""What becomes of each key that a file has: honoured, meaningless here, or refused?

The table is in `treatment_rows`; here it is looked up. A key that has no row is refused: nothing
is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from dray.compose.place import Path, Step
from dray.compose.treatment_kinds import (
    AVAILABLE,
    DEFAULT_NAME,
    Executor,
    Row,
    Treatment,
    ValueRow,
)
from dray.compose.treatment_rows import ROWS, VALUE_ROWS

__all__ = [
    "AVAILABLE",
    "DEFAULT_NAME",
    "ROWS",
    "VALUE_ROWS",
    "Executor",
    "Finding",
    "Row",
    "Treatment",
    "ValueRow",
    "findings",
    "row_of",
    "unknown",
]

_ANY: Final = "*"
_ITEM: Final = "[]"
_EXTENSION: Final = "x-"


@dataclass(slots=True)
class _Branch:
    """The table as a tree: a key's row, the treatments of its values, and the keys below it."""

    row: Row | None = None
    values: list[ValueRow] = field(default_factory=list)
    below: dict[str, _Branch] = field(default_factory=dict)

    def grow(self, path: str) -> _Branch:
        """Return the branch of a table path, made when it is missing."""
        branch = self
        for step in path.replace(_ITEM, f".{_ITEM}").split("."):
            branch = branch.below.setdefault(step, _Branch())
        return branch

    def child(self, step: Step) -> _Branch | None:
        """Return the branch below for a key or an index of a file."""
        if isinstance(step, int):
            return self.below.get(_ITEM)
        return self.below.get(step) or self.below.get(_ANY)


def _grown() -> _Branch:
    root = _Branch()
    for row in ROWS:
        root.grow(row.path).row = row
    for value_row in VALUE_ROWS:
        root.grow(value_row.path).values.append(value_row)
    return root


_ROOT: Final = _grown()
_UNKNOWN: Final = Row(
    "", Treatment.REFUSED, reason="dray does not know this key", instead="remove it"
)
_FOREIGN: Final = Row("x-*", Treatment.MEANINGLESS, reason="an extension that dray does not read")


@dataclass(frozen=True, slots=True)
class Finding:
    """A key of a file that is not simply honoured.

    Attributes:
        path: Which.
        row: Its treatment.
        missing: Executors that are not available, in the table's order (HONOURED).
    """

    path: Path
    row: Row
    missing: tuple[Executor, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Whether the key cannot be carried out; else it is meaningless here."""
        return self.row.treatment is not Treatment.MEANINGLESS

    @property
    def is_unknown(self) -> bool:
        """Whether the table has no such key."""
        return self.row is _UNKNOWN

    @property
    def message(self) -> str:
        """What is wrong with the key, or why it has no effect."""
        if self.missing:
            return f"is not carried out yet: it needs {self._needed}"
        if self.is_refused:
            return f"is not supported: {self.row.reason}"
        return f"has no effect: {self.row.reason}"

    @property
    def ignored_message(self) -> str:
        """What --allow-ignored says of a key that it goes without."""
        if self.missing:
            return f"is left out: it needs {self._needed}"
        return f"is left out: {self.row.reason}"

    @property
    def _needed(self) -> str:
        return " and ".join(f"{each.name} ({each.value})" for each in self.missing)

    @property
    def hint(self) -> str:
        """What to do."""
        if self.missing:
            return "remove it, or use --allow-ignored to go without"
        return self.row.instead


def unknown(path: Path) -> Finding:
    """Return what is found of a key that nothing has read."""
    return Finding(path, _UNKNOWN)


def row_of(path: Path) -> Row | None:
    """Return the treatment of a file's path: its own row, or that of the nearest key above it."""
    branch, row = _ROOT, None
    for step in path:
        if isinstance(step, str) and step.startswith(_EXTENSION) and step not in branch.below:
            return _FOREIGN
        child = branch.child(step)
        if child is None:
            return row if row is not None and not branch.below else None
        branch, row = child, child.row or row
    return row


def findings(
    config: Mapping[str, object], available: frozenset[Executor] = AVAILABLE
) -> list[Finding]:
    """Return every key of a canonical config that is not simply honoured, in the file's order.

    Nothing below a refused or meaningless key is listed again.
    """
    walk = _Walk(str(config.get("name") or ""), available)
    return list(walk.below(config, (), _ROOT))


class _Walk:
    """One walk over a config."""

    def __init__(self, project: str, available: frozenset[Executor]) -> None:
        self.project = project
        self.available = available

    def below(self, value: object, path: Path, branch: _Branch) -> Iterator[Finding]:
        """Yield what is found among the keys or items of a value."""
        if isinstance(value, dict):
            for key, child in value.items():
                yield from self.one(child, (*path, str(key)), branch)
        elif isinstance(value, list):
            for index, child in enumerate(value):
                yield from self.one(child, (*path, index), branch)

    def one(self, value: object, path: Path, around: _Branch) -> Iterator[Finding]:
        """Yield what is found at one key and below it."""
        step = path[-1]
        branch = around.below.get(_ITEM if isinstance(step, int) else step)
        if branch is None and isinstance(step, str):
            if step.startswith(_EXTENSION):
                yield Finding(path, _FOREIGN)
                return
            branch = around.below.get(_ANY)
        if branch is None:
            yield Finding(path, _UNKNOWN)
            return
        valued = _valued(value, branch.values) if branch.values else None
        row = branch.row if valued is None else valued.row
        found = None if row is None else self.judge(value, path, row)
        if found is not None:
            yield found
        elif branch.below and valued is None:
            yield from self.below(value, path, branch)

    def judge(self, value: object, path: Path, row: Row) -> Finding | None:
        """Return what is found of a key by its row; None when it is honoured."""
        missing: tuple[Executor, ...] = ()
        if row.treatment is Treatment.HONOURED:
            if self.available.issuperset(row.executors):
                return None
            missing = tuple(each for each in row.executors if each not in self.available)
        return None if self.is_neutral(value, path, row) else Finding(path, row, missing)

    def is_neutral(self, value: object, path: Path, row: Row) -> bool:
        """Return whether the value asks for nothing beyond the default."""
        if value is None and row.treatment is Treatment.HONOURED:
            # Null says nothing, but for an entry of a map that people name: there it is the entry.
            return None in row.neutral or not row.path.endswith(_ANY)
        return any(
            value == f"{self.project}_{path[-2]}" if each == DEFAULT_NAME else _same(value, each)
            for each in row.neutral
        )


def _same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) is isinstance(other, bool)


def _valued(value: object, rows: list[ValueRow]) -> ValueRow | None:
    return next((each for each in rows if _has(value, each)), None)


def _has(value: object, row: ValueRow) -> bool:
    if row.key:
        value = value.get(row.key) if isinstance(value, dict) else None
    if value is None:
        return False
    text = str(value)
    return any(
        text.startswith(each[:-1]) if each.endswith(_ANY) else text == each for each in row.values
    )
