"""How does a value remember where it was written?

Mappings and lists are plain ones with a side table of marks: (file, line, column), counted from 1.
They equal plain dicts and lists, and turn into JSON like them.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from dray.compose.types import PROBLEMS_MAX, Position, Problem

__all__ = [
    "Keys",
    "Map",
    "Mark",
    "Problems",
    "Refused",
    "Seq",
    "Unread",
    "clone",
    "dotted",
    "in_order",
    "mark_at",
    "plain",
    "set_marks",
    "size_of",
]

Mark: TypeAlias = tuple[str, int, int]
Keys: TypeAlias = tuple[str | int, ...]

_STEP = re.compile(r"[.\[]")
_INDEX = re.compile(r"(\[[0-9]{1,9}\])")
_REFUSED_MAX: Final = 2 * PROBLEMS_MAX  # refused values of one load, those told once included


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
    """Gathers what is wrong, each problem once, and remembers what was refused.

    A stage adds what it finds and goes on; `settle` then takes what it refused out of the tree, so
    that later stages see only what is sound. What is missing because of that is no problem of its
    own: before a stage says that something is missing, it asks `is_lost`.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._found: dict[tuple[object, str], Problem] = {}
        self._is_full = False
        self._fresh: list[Keys] = []  # refused, and still in the tree
        self._lost: set[Keys] = set()
        self._doubts: set[Keys] = set()
        self._gaps: dict[Keys, list[int]] = {}  # indexes that were taken out of a list

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._found)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._found)

    def add(
        self,
        mark: Mark | None,
        path: Keys | str,
        message: str,
        hint: str = "",
        node: Keys | None = None,
    ) -> None:
        """Record a problem, and refuse what it is about.

        Args:
            mark: Where it is.
            path: What it is about.
            message: What is wrong.
            hint: What to do.
            node: What is refused, if it is not what is at `path`.

        Raises:
            Refused: There are too many now.
        """
        where = Position(*mark) if mark else None
        text = path if isinstance(path, str) else dotted(self._original(path))
        # What an alias or `extends` repeats is written once, and told once.
        self._found.setdefault((where or text, message), Problem(where, text, message, hint))
        if node is None and not isinstance(path, str):
            node = path
        if node:
            self.refuse(node)
        self._is_full = self._is_full or len(self._found) >= PROBLEMS_MAX
        if self._is_full:
            raise Refused

    @property
    def unsettled(self) -> int:
        """How many refusals `settle` has not seen yet."""
        return len(self._fresh)

    def refuse(self, path: Keys) -> None:
        """Refuse what is at a path without a problem of its own."""
        self._fresh.append(path)
        self._lost.add(self._original(path))
        if len(self._fresh) > _REFUSED_MAX or len(self._lost) > _REFUSED_MAX:
            self._is_full = True

    def doubt(self, path: Keys) -> None:
        """Note that what is at a path is not known whole: nothing of it is told to be missing."""
        self._doubts.add(self._original(path))

    def is_refused(self, path: Keys) -> bool:
        """Return whether what is at a path, or around it, was refused."""
        return bool(self._lost) and not self._lost.isdisjoint(_starts(self._original(path)))

    def is_lost(self, path: Keys) -> bool:
        """Return whether what is at a path, or around it, was refused or is not known whole."""
        if not self._found:
            return False  # without a problem nothing is lost: a doubt alone excuses nothing
        starts = _starts(self._original(path))
        return not (self._lost.isdisjoint(starts) and self._doubts.isdisjoint(starts))

    def is_whole(self, path: Keys) -> bool:
        """Return whether nothing at a path, around it or below it was refused."""
        original = self._original(path)
        length = len(original)
        is_below = any(each[:length] == original for each in self._lost)
        return not is_below and not self.is_refused(path)

    def settle(self, tree: Map, *, is_other: bool = False) -> bool:
        """Take what was refused since the last time out of a tree; return whether that was any.

        Args:
            tree: What the paths lead through.
            is_other: Forget the paths afterwards: they are those of a file that is only read to
                extend its services.
        """
        if not self._fresh:
            return False
        paths = sorted(set(self._fresh), key=_from_the_end, reverse=True)
        originals = {path: self._original(path) for path in paths}
        self._fresh.clear()
        for path in paths:
            holder = _holder(tree, path)
            last = path[-1]
            if isinstance(holder, Map) and isinstance(last, str):
                holder.drop(last)
            elif isinstance(holder, Seq) and isinstance(last, int) and last < len(holder):
                del holder[last], holder.marks[last]
                original = originals[path]
                if not is_other:
                    insort(self._gaps.setdefault(original[:-1], []), int(original[-1]))
        if is_other:
            self._lost.difference_update(originals.values())
        return True

    def _original(self, path: Keys) -> Keys:
        """Return a path with the indexes that items had before others were taken out."""
        if not self._gaps:
            return path
        original: Keys = ()
        for part in path:
            if isinstance(part, int):
                for gap in self._gaps.get(original, ()):
                    part += gap <= part
            original = (*original, part)
        return original

    def add_later(self, found: Iterable[Problem]) -> None:
        """Record what was found in a settled tree, but for what follows from a refusal."""
        gaps = {dotted(path): indexes for path, indexes in self._gaps.items()}
        holders = {dotted(path[:end]) for path in self._lost for end in range(3, len(path))}
        refused = {dotted(path) for path in self._lost}
        for each in found:
            path = _reindexed(each.path, gaps)
            starts = {path[: match.start()] for match in _STEP.finditer(path)}
            if path in holders or path in refused or not refused.isdisjoint(starts):
                continue
            told = replace(each, path=path)
            self._found.setdefault((each.position or path, each.message), told)

    def sorted(self) -> tuple[Problem, ...]:
        """Return them by position; those without one first, and a last one if loading ended."""
        return in_order(self._found.values(), is_full=self._is_full)


class Refused(Exception):
    """Loading cannot go on; the problems are in `Problems`. Caught where loading starts."""


class Unread(Refused):
    """A file cannot be read, and why is in `Problems`; what needs it cannot go on."""


def in_order(found: Iterable[Problem], *, is_full: bool = False) -> tuple[Problem, ...]:
    """Return problems by position, `PROBLEMS_MAX` at most, and a last one if there may be more."""
    problems = sorted(found, key=_order)
    if is_full or len(problems) > PROBLEMS_MAX:
        hint = "mend these first"
        more = Problem(None, "", "there may be more problems than these", hint)
        return (*problems[:PROBLEMS_MAX], more)
    return tuple(problems)


def _starts(path: Keys) -> set[Keys]:
    return {path[:length] for length in range(1, len(path) + 1)}


def _reindexed(path: str, gaps: Mapping[str, list[int]]) -> str:
    """Return a written path with the indexes that items had before others were taken out."""
    if not gaps or "[" not in path:
        return path
    original = ""
    for part in _INDEX.split(path):
        if part.startswith("["):
            index = int(part[1:-1])
            for gap in gaps.get(original, ()):
                index += gap <= index
            part = f"[{index}]"
        original += part
    return original


def _from_the_end(path: Keys) -> tuple[tuple[bool, str | int], ...]:
    return tuple((isinstance(part, int), part) for part in path)


def _holder(tree: Any, path: Keys) -> Any:
    """Return what holds the value at a path, or None."""
    for part in path[:-1]:
        is_there = (isinstance(tree, Map) and part in tree) or (
            isinstance(tree, Seq) and isinstance(part, int) and part < len(tree)
        )
        tree = tree[part] if is_there else None
    return tree


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
