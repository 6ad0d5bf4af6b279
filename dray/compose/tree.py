"""How does a value remember where it was written?

Mappings and lists are plain ones with a side table of marks: (file, line, column), counted from 1.
They equal plain dicts and lists, and turn into JSON like them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from dray.compose.types import PROBLEMS_MAX, Position, Problem

__all__ = [
    "Keys",
    "Map",
    "Mark",
    "Problems",
    "Refused",
    "Seq",
    "clone",
    "dotted",
    "mark_at",
    "plain",
    "set_marks",
    "size_of",
]

Mark: TypeAlias = tuple[str, int, int]
Keys: TypeAlias = tuple[str | int, ...]


class Map(dict[str, Any]):
    """A mapping that knows where each key and each value was written."""

    __slots__ = ("key_marks", "mark", "marks")

    def __init__(self, mark: Mark | None = None) -> None:
        """Make an empty mapping that was written at `mark`."""
        self.mark = mark
        self.marks: dict[str, Mark] = {}
        self.key_marks: dict[str, Mark] = {}

    def put(self, key: str, value: Any, mark: Mark | None, key_mark: Mark | None = None) -> None:
        """Set a value and where it was written."""
        self[key] = value
        if mark is not None:
            self.marks[key] = mark
        if key_mark is not None:
            self.key_marks[key] = key_mark

    def take(self, key: str, other: Map, other_key: str | None = None) -> None:
        """Set a key to what another mapping holds, marks included."""
        source = key if other_key is None else other_key
        self.put(key, other[source], other.marks.get(source), other.key_marks.get(source))

    def drop(self, key: str) -> None:
        """Remove a key if it is there."""
        self.pop(key, None)
        self.marks.pop(key, None)
        self.key_marks.pop(key, None)

    def mark_of(self, key: str) -> Mark | None:
        """Return where the value of a key was written, else its key, else the mapping."""
        return self.marks.get(key) or self.key_marks.get(key) or self.mark

    def key_mark(self, key: str) -> Mark | None:
        """Return where a key was written, else its value, else the mapping."""
        return self.key_marks.get(key) or self.marks.get(key) or self.mark


class Seq(list[Any]):
    """A list that knows where each item was written."""

    __slots__ = ("mark", "marks")

    def __init__(self, mark: Mark | None = None) -> None:
        """Make an empty list that was written at `mark`."""
        self.mark = mark
        self.marks: list[Mark | None] = []

    def add(self, value: Any, mark: Mark | None) -> None:
        """Append an item and where it was written."""
        self.append(value)
        self.marks.append(mark)

    def mark_of(self, index: int) -> Mark | None:
        """Return where an item was written, else the list."""
        return self.marks[index] or self.mark


class Problems:
    """Gathers what is wrong, each problem once, and ends loading when there are too many."""

    def __init__(self) -> None:
        """Start with none."""
        self._found: dict[Problem, None] = {}

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._found)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._found)

    def add(self, mark: Mark | None, path: Keys | str, message: str, hint: str = "") -> None:
        """Record a problem.

        Raises:
            Refused: There are `PROBLEMS_MAX` now.
        """
        where = Position(*mark) if mark else None
        text = path if isinstance(path, str) else dotted(path)
        self._found[Problem(where, text, message, hint)] = None
        if len(self._found) >= PROBLEMS_MAX:
            raise Refused

    def sorted(self) -> tuple[Problem, ...]:
        """Return them by position; those without one first, and a last one if loading ended."""
        found = sorted(self._found, key=_order)
        if len(found) >= PROBLEMS_MAX:
            hint = "mend these first"
            found.append(Problem(None, "", "there may be more problems than these", hint))
        return tuple(found)

    def stop_if_any(self) -> None:
        """End loading if something is wrong.

        Raises:
            Refused: There is a problem.
        """
        if self._found:
            raise Refused


class Refused(Exception):
    """Loading cannot go on; the problems are in `Problems`. Caught where loading starts."""


def _order(problem: Problem) -> tuple[bool, str, int, int, str]:
    place = problem.position
    if place is None:
        return (False, "", 0, 0, problem.path)
    return (True, place.file, place.line, place.column, problem.path)


def dotted(path: Keys) -> str:
    """Return a path of keys as people write it: services.web.ports[0]."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def clone(value: Any) -> Any:
    """Return a deep copy; scalars are shared."""
    if isinstance(value, Map):
        copy = Map(value.mark)
        for key, inner in value.items():
            copy[key] = clone(inner) if isinstance(inner, (Map, Seq)) else inner
        copy.marks = dict(value.marks)
        copy.key_marks = dict(value.key_marks)
        return copy
    if isinstance(value, Seq):
        items = Seq(value.mark)
        items.extend(clone(inner) for inner in value)
        items.marks = list(value.marks)
        return items
    return value


def size_of(value: Any) -> int:
    """Return how many values a tree holds, itself included."""
    if isinstance(value, Map):
        return 1 + sum(size_of(inner) for inner in value.values())
    if isinstance(value, Seq):
        return 1 + sum(size_of(inner) for inner in value)
    return 1


def mark_at(tree: Any, path: Keys) -> Mark | None:
    """Return where the value at a path, or its nearest known ancestor, was written."""
    mark: Mark | None = getattr(tree, "mark", None)
    for part in path:
        if isinstance(tree, Map) and isinstance(part, str) and part in tree:
            # A person looks for a mapping or list at its key, for anything else at the value.
            is_holder = isinstance(tree[part], Map | Seq)
            own = tree.key_mark(part) if is_holder else tree.mark_of(part)
            mark = own or mark
        elif isinstance(tree, Seq) and isinstance(part, int) and 0 <= part < len(tree):
            mark = tree.marks[part] or mark
        else:
            return mark
        tree = tree[part]
    return mark


def plain(value: Any) -> Any:
    """Return a copy made of plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def set_marks(value: Any, mark: Mark | None) -> Any:
    """Return plain dicts and lists as marked ones, all written at `mark`."""
    if isinstance(value, dict):
        result = Map(mark)
        for key, inner in value.items():
            result.put(key, set_marks(inner, mark), mark, mark)
        return result
    if isinstance(value, list):
        items = Seq(mark)
        for inner in value:
            items.add(set_marks(inner, mark), mark)
        return items
    return value
