"""How is one place of the canonical config read, so that nothing that was said is left unread?

A `Place` is a value with its path. Reading it as something marks the path as read in the `Sheet`
that all places of one conversion share; what is wrong is noted there with its position. A place
that nobody has read when the conversion is over was dropped, and `Sheet.unread` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, TypeVar

from dray.compose.types import Position, Problem
from dray.errors import DrayError
from dray.model import StringMap, string_map
from dray.units import parse_bytes, parse_cpus, parse_duration

__all__ = ["PROBLEMS_MAX", "CanonicalView", "Path", "Place", "Sheet", "Step", "shown_path"]

Step: TypeAlias = "str | int"
Path: TypeAlias = tuple[Step, ...]

_Number = TypeVar("_Number", int, float)

PROBLEMS_MAX: Final = 100  # problems of one kind that are told; more help nobody
_WHOLE_MAX: Final = 2**63 - 1  # int64 on the wire and in Docker's API


class CanonicalView(Protocol):
    """What the conversion needs of a canonical project.

    Attributes:
        config: The normalised project: plain dicts, lists and scalars in the official tool's shape.
        contents: Content of configs and secrets by path, `("configs", key)`. One that is neither
            here nor external could not be read.
        environments: Variables that a service's `env_file` gives it, by the service's name; its
            `environment` wins over them.
    """

    @property
    def config(self) -> Mapping[str, object]: ...  # noqa: D102

    @property
    def contents(self) -> Mapping[Path, bytes]: ...  # noqa: D102

    @property
    def environments(self) -> Mapping[str, Mapping[str, str | None]]: ...  # noqa: D102

    def where(self, path: Path) -> Position | None:
        """Return where a file says this, or what is around it."""
        ...


def shown_path(path: Path) -> str:
    """Return a path as people write it: `services.web.ports[0]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


@dataclass(slots=True)
class Sheet:
    """What one conversion has read and found.

    Attributes:
        view: What is converted.
        dropped: Paths to leave out, as if the file did not have them.
        read: Paths that were read; everything below such a path counts as read.
        noted: Paths that have a fault or a problem.
        faults: What no cluster of dray's can carry out: contradictions, values that do not exist
            here or are of a wrong type (an uninterpolated file has such).
        problems: Mistakes in what is ours to define: everything below `x-dray`.
    """

    view: CanonicalView
    dropped: frozenset[Path] = frozenset()
    read: set[Path] = field(default_factory=set)
    noted: set[Path] = field(default_factory=set)
    faults: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def finding(self, path: Path, message: str, hint: str = "") -> Problem:
        """Return a problem with the position of a path."""
        return Problem(self.view.where(path), shown_path(path), message, hint)

    @property
    def is_full(self) -> bool:
        """Whether there are so many problems that looking for more is no use."""
        return len(self.problems) >= PROBLEMS_MAX

    def is_dropped(self, path: Path) -> bool:
        """Return whether a path, or one above it, is left out."""
        return any(path[:length] in self.dropped for length in range(1, len(path) + 1))

    def is_noted(self, path: Path) -> bool:
        """Return whether a path, or one above it, has a fault or a problem."""
        return any(path[:length] in self.noted for length in range(1, len(path) + 1))

    def unread(self, value: object, path: Path = ()) -> Iterator[Path]:
        """Yield every scalar's path below `path` that nobody has read."""
        if path in self.read or path in self.dropped:
            return
        if isinstance(value, dict):
            for key, child in value.items():
                yield from self.unread(child, (*path, key))
        elif isinstance(value, list):
            for index, child in enumerate(value):
                yield from self.unread(child, (*path, index))
        elif value is not None:
            yield path


class Place:
    """One place of the config: its value, None when it is absent or null.

    Made for every key that there could be, so it is small, and its path is put together on demand.
    """

    __slots__ = ("_above", "_step", "sheet", "value")

    def __init__(
        self, sheet: Sheet, value: object, above: Place | None = None, step: Step = ""
    ) -> None:
        """Be the root of a config, or what is at a key or index of another place."""
        self.sheet = sheet
        self.value = value
        self._above = above
        self._step = step

    @property
    def path(self) -> Path:
        """Where this is."""
        steps: list[Step] = []
        place = self
        while place._above is not None:
            steps.append(place._step)
            place = place._above
        return tuple(reversed(steps))

    @property
    def name(self) -> str:
        """The key of this place."""
        return str(self._step)

    def at(self, *steps: str) -> Place:
        """Return the place below by keys; absent ones have the value None."""
        place, sheet = self, self.sheet
        for step in steps:
            value = place.value
            place = Place(sheet, value.get(step) if isinstance(value, dict) else None, place, step)
        if sheet.dropped and place.value is not None and sheet.is_dropped(place.path):
            place.value = None
        return place

    def has_any(self, keys: frozenset[str]) -> bool:
        """Return whether one of the keys is there: most services have few of the many."""
        return isinstance(self.value, dict) and not keys.isdisjoint(self.value)

    def read_as(self, value: object) -> Place:
        """Return this place with another value: what its own stands for."""
        self.mark()
        return Place(self.sheet, value, self._above, self._step)

    @property
    def is_given(self) -> bool:
        """Whether the file says something here: present and not null."""
        return self.value is not None

    def fault(self, message: str, hint: str = "") -> None:
        """Note that this cannot be carried out."""
        self.sheet.noted.add(self.path)
        self.sheet.faults.append(self.sheet.finding(self.path, message, hint))

    def problem(self, message: str, hint: str = "") -> None:
        """Note that this is wrong."""
        self.sheet.noted.add(self.path)
        self.sheet.problems.append(self.sheet.finding(self.path, message, hint))

    def mark(self) -> None:
        """Count this and everything below it as read."""
        if self.value is not None:
            self.sheet.read.add(self.path)

    # ---- containers ----------------------------------------------------------------------------

    def entries(self) -> list[tuple[str, Place]]:
        """Return the entries of a mapping, sorted by key."""
        value = self.value
        if isinstance(value, dict):
            found = [
                (str(key), Place(self.sheet, value[key], self, str(key)))
                for key in sorted(value, key=str)
            ]
            dropped = self.sheet.dropped
            return [each for each in found if each[1].path not in dropped] if dropped else found
        if value is not None:
            self.fault("must be a mapping")
        return []

    def items(self) -> list[Place]:
        """Return the items of a list, in order."""
        value = self.value
        if isinstance(value, list):
            found = [Place(self.sheet, item, self, index) for index, item in enumerate(value)]
            dropped = self.sheet.dropped
            return [each for each in found if each.path not in dropped] if dropped else found
        if value is not None:
            self.fault("must be a list")
        return []

    # ---- scalars -------------------------------------------------------------------------------

    def text(self, default: str = "") -> str:
        """Return text; numbers are taken as they are written."""
        if self.value is None:
            return default
        self.mark()
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, str | int | float):
            return str(self.value)
        self.fault("must be text")
        return default

    def flag(self, default: bool = False) -> bool:
        """Return a boolean."""
        return default if (value := self.maybe_flag()) is None else value

    def maybe_flag(self) -> bool | None:
        """Return a boolean, or None when nothing is said."""
        self.mark()
        if self.value is None or isinstance(self.value, bool):
            return self.value
        if isinstance(self.value, str) and self.value.lower() in ("true", "false"):
            return self.value.lower() == "true"
        self.fault(f"must be true or false, not {self.value!r}")
        return None

    def whole(self, default: int = 0) -> int:
        """Return a whole number."""
        return default if (value := self.maybe_whole()) is None else value

    def maybe_whole(self) -> int | None:
        """Return a whole number of at most 63 bits, or None when nothing is said."""
        self.mark()
        value = self.value
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str) and value.lstrip("+-").isdecimal() and len(value) <= 20:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(f"must be a whole number, not {self.value!r}")
            return None
        if abs(value) > _WHOLE_MAX:
            self.fault("is larger than 2^63-1")
            return None
        return value

    def ratio(self, default: float = 0.0) -> float:
        """Return a number with a fraction."""
        self.mark()
        if self.value is None:
            return default
        try:
            if not isinstance(self.value, bool):
                return float(self.value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            pass
        self.fault(f"must be a number, not {self.value!r}")
        return default

    def maybe_size(self) -> int | None:
        """Return a size in bytes; -1 (Docker's "unlimited") is passed on."""
        text = self.text()
        if not self.is_given:
            return None
        return -1 if text == "-1" else self._quantity(parse_bytes, text)

    def maybe_cpus(self) -> int | None:
        """Return a number of CPUs in thousandths."""
        text = self.text()
        return self._quantity(parse_cpus, text) if self.is_given else None

    def duration(self, default: float = 0.0) -> float:
        """Return a duration in seconds."""
        return default if (value := self.maybe_duration()) is None else value

    def maybe_duration(self) -> float | None:
        """Return a duration in seconds, or None when nothing is said."""
        text = self.text()
        return self._quantity(parse_duration, text) if self.is_given else None

    def _quantity(self, parse: Callable[[str], _Number], text: str) -> _Number | None:
        try:
            return parse(text)
        except DrayError as error:
            self.fault(error.message, error.hint)
            return None

    # ---- lists and maps of text ----------------------------------------------------------------

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts; one text alone stands for a list of it."""
        if isinstance(self.value, str):
            return (self.text(),)
        if self.value is None:
            return ()
        return tuple(item.text() for item in self.items())

    def maybe_texts(self) -> tuple[str, ...] | None:
        """Return a list of texts, or None when nothing is said."""
        return self.texts() if self.is_given else None

    def pairs(self) -> StringMap:
        """Return a map of texts."""
        if self.value is None:
            return ()
        return string_map({key: value.text() for key, value in self.entries()})
