"""How does YAML text become mappings and lists with positions, within bounds?

Events of libyaml (or of its pure Python twin) are composed here and not by PyYAML, whose composer
overflows the stack on deep nesting, keeps the last of duplicate keys, and mangles dates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import yaml

from dray.compose.tree import Keys, Map, Mark, Problems, Refused, Seq, clone
from dray.compose.yaml_scalars import resolve, resolve_tagged

__all__ = [
    "DEPTH_MAX",
    "TOO_MANY",
    "TOO_MANY_HINT",
    "VALUES_MAX",
    "Budget",
    "Document",
    "read_documents",
]

# Values of all files of a project, with aliases and `extends` written out: 500 services of 100
# values each, and parsing them ends within a second.
VALUES_MAX: Final = 50_000
# Characters of all values, counted likewise: eight files of the largest size.
CHARACTERS_MAX: Final = 8_388_608
KEY_LENGTH_MAX: Final = 1024  # characters; no name is nearly as long
TOO_MANY: Final = (
    f"makes more than {VALUES_MAX:,} values or {CHARACTERS_MAX:,} characters, "
    "with aliases and extends written out"
)
TOO_MANY_HINT: Final = "split the project, or use fewer aliases"
DOCUMENTS_MAX: Final = 50  # documents of one file; they are merged like files
DEPTH_MAX: Final = 100  # nested mappings and lists; far above what any key needs

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Document:
    """One YAML document of a file.

    Attributes:
        root: Its content.
        resets: Paths that were tagged `!reset` or `!override`: what earlier files say there is
            forgotten.
    """

    root: Any
    resets: list[Keys]


class _Tagged:
    """A value under a `!reset` or `!override` tag, until its path is known."""

    __slots__ = ("keep", "value")

    def __init__(self, value: Any, keep: bool) -> None:
        self.value = value
        self.keep = keep


class Budget:
    """Counts what all files of a project hold, with aliases and `extends` written out."""

    def __init__(self) -> None:
        """Start with nothing spent."""
        self.values = 0
        self.characters = 0

    def spend(self, values: int, characters: int = 0) -> bool:
        """Count values and their characters; return False if there are too many now."""
        self.values += values
        self.characters += characters
        return self.values <= VALUES_MAX and self.characters <= CHARACTERS_MAX


def read_documents(path: str, content: bytes, problems: Problems, budget: Budget) -> list[Document]:
    """Return the documents of a file; what is wrong is added to `problems`.

    Raises:
        Refused: It is not YAML at all, or too large or deep.
    """
    text = _decode(path, content, problems)
    composer = _Composer(path, problems, budget)
    documents = []
    for root in composer.documents(text):
        resets: list[Keys] = []
        clean = _untag(root, (), resets) if composer.has_tagged else root
        documents.append(Document(clean, resets))
    return documents


def _decode(path: str, content: bytes, problems: Problems) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        message = f"is not UTF-8: byte 0x{content[error.start]:02x}"
        problems.add((path, line, column), "", message, "save the file as UTF-8")
        raise Refused from None
    return text


def _untag(value: Any, path: Keys, resets: list[Keys]) -> Any:
    """Take the tagged values out of a tree and note their paths."""
    if isinstance(value, Map):
        for key in list(value):
            inner = value[key]
            if isinstance(inner, _Tagged):
                resets.append((*path, key))
                if inner.keep:
                    value[key] = _untag(inner.value, (*path, key), [])
                else:
                    value.drop(key)
            elif isinstance(inner, (Map, Seq)):
                _untag(inner, (*path, key), resets)
    elif isinstance(value, Seq):
        kept = Seq(value.mark)
        for index, inner in enumerate(value):
            if isinstance(inner, _Tagged):
                resets.append((*path, index))
                if inner.keep:
                    kept.add(_untag(inner.value, (*path, index), []), value.marks[index])
            else:
                kept.add(_untag(inner, (*path, index), resets), value.marks[index])
        value[:] = kept
        value.marks = kept.marks
    elif isinstance(value, _Tagged):
        return value.value if value.keep else None
    return value


class _Composer:
    """Builds values from the events of one file."""

    def __init__(self, path: str, problems: Problems, budget: Budget) -> None:
        self._path = path
        self._problems = problems
        self._budget = budget
        self.has_tagged = False  # whether a value is under `!reset` or `!override`
        self._anchors: dict[str, tuple[Any, int, int]] = {}  # value, size, height
        self._length: dict[str, int] = {}  # characters of each anchor's value
        self._open: set[str] = set()

    def documents(self, text: str) -> list[Any]:
        try:
            parser = _Loader(text)
            self._next = parser.get_event
            return self._stream()
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            column = len(before) - (before.rfind("\n") + 1) + 1
            mark = (self._path, before.count("\n") + 1, column)
            self._problems.add(mark, "", f"is not YAML: {error.reason}")
        except yaml.MarkedYAMLError as error:
            # What is left open is looked for where it starts, anything else where it is noticed.
            is_open = "flow" in (error.context or "") or "quoted" in (error.context or "")
            marks = (error.problem_mark, error.context_mark)
            place = next(filter(None, reversed(marks) if is_open else marks), None)
            mark = (self._path, place.line + 1, place.column + 1) if place else (self._path, 1, 1)
            context = f" {error.context}" if error.context else ""
            self._problems.add(mark, "", f"is not YAML: {error.problem}{context}")
        raise Refused

    def _stream(self) -> list[Any]:
        roots: list[Any] = []
        while True:
            event = self._next()
            if isinstance(event, yaml.StreamEndEvent):
                return roots
            if isinstance(event, yaml.DocumentStartEvent):
                if len(roots) >= DOCUMENTS_MAX:
                    raise self._refuse(event, f"has more than {DOCUMENTS_MAX} documents")
                self._anchors.clear()
                roots.append(self._value(self._next(), 0)[0])

    def _mark(self, event: Any) -> Mark:
        start = event.start_mark
        return (self._path, start.line + 1, start.column + 1)

    def _refuse(self, event: Any, message: str, hint: str = "") -> Refused:
        self._problems.add(self._mark(event), "", message, hint)
        return Refused()

    def _value(self, event: Any, depth: int) -> tuple[Any, int, int]:
        """Return the value that starts with an event, its size in values and its height."""
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self._alias(event, depth)
        before = self._budget.characters
        length = len(event.value) if kind is yaml.ScalarEvent else 0
        if not self._budget.spend(1, length):
            raise self._refuse(event, TOO_MANY, TOO_MANY_HINT)
        if kind is yaml.ScalarEvent:
            built = (self._scalar(event), 1, 0)
        else:
            if depth >= DEPTH_MAX:
                raise self._refuse(event, f"is nested more than {DEPTH_MAX} levels deep")
            if event.anchor:
                self._open.add(event.anchor)
            is_map = kind is yaml.MappingStartEvent
            built = self._mapping(event, depth) if is_map else self._sequence(event, depth)
            self._open.discard(event.anchor)
        if event.tag in ("!reset", "!override"):
            self.has_tagged = True
            built = (_Tagged(built[0], event.tag == "!override"), built[1], built[2])
        if event.anchor:
            self._anchors[event.anchor] = built
            self._length[event.anchor] = self._budget.characters - before
        return built

    def _alias(self, event: Any, depth: int) -> tuple[Any, int, int]:
        name = event.anchor
        if name in self._open:
            raise self._refuse(event, f"alias *{name} stands inside what it refers to")
        if name not in self._anchors:
            raise self._refuse(event, f"alias *{name} refers to an anchor that is not there")
        value, size, height = self._anchors[name]
        if not self._budget.spend(size, self._length[name]):
            raise self._refuse(event, TOO_MANY, TOO_MANY_HINT)
        if depth + height > DEPTH_MAX:
            raise self._refuse(event, f"is nested more than {DEPTH_MAX} levels deep")
        if isinstance(value, _Tagged):
            return _Tagged(clone(value.value), value.keep), size, height
        return clone(value), size, height

    def _scalar(self, event: Any) -> Any:
        if "\0" in event.value:
            raise self._refuse(event, "holds a zero byte")
        if event.implicit[0]:
            return resolve(event.value)
        if event.tag is None or event.implicit[1]:
            return event.value
        try:
            return resolve_tagged(event.tag, event.value)
        except ValueError as error:
            raise self._refuse(event, str(error)) from None

    def _sequence(self, event: Any, depth: int) -> tuple[Any, int, int]:
        result = Seq(self._mark(event))
        size, height = 1, 0
        while type(item := self._next()) is not yaml.SequenceEndEvent:
            value, inner_size, inner_height = self._value(item, depth + 1)
            result.add(value, self._mark(item))
            size += inner_size
            height = max(height, inner_height)
        return result, size, height + 1

    def _mapping(self, event: Any, depth: int) -> tuple[Any, int, int]:
        result = Map(self._mark(event))
        marks, key_marks, path = result.marks, result.key_marks, self._path
        merged: list[Map] = []
        seen: dict[str, int] = {}
        size, height = 1, 0
        while type(item := self._next()) is not yaml.MappingEndEvent:
            key = self._key(item, seen)
            value_event = self._next()
            value, inner_size, inner_height = self._value(value_event, depth + 1)
            size += inner_size
            height = max(height, inner_height)
            if key is None:
                merged.extend(self._merge_sources(value_event, value))
                continue
            result[key] = value
            start = item.start_mark
            key_marks[key] = (path, start.line + 1, start.column + 1)
            start = value_event.start_mark
            marks[key] = (path, start.line + 1, start.column + 1)
        for source in merged:
            for key in source:
                if key not in result:
                    result.take(key, source)
        return result, size, height + 1

    def _key(self, event: Any, seen: dict[str, int]) -> str | None:
        """Return a mapping's key; None for the merge key."""
        if type(event) is yaml.AliasEvent:
            text = self._alias(event, 0)[0]
            is_plain = False
        elif type(event) is yaml.ScalarEvent:
            text, is_plain = event.value, event.implicit[0]
        else:
            raise self._refuse(event, "a key must be text, not a mapping or a list")
        if isinstance(text, str) and len(text) > KEY_LENGTH_MAX:
            message = f"a key has {len(text):,} characters, {KEY_LENGTH_MAX:,} are the most"
            raise self._refuse(event, message)
        is_tagged = type(event) is yaml.ScalarEvent and event.tag
        value = self._scalar(event) if is_plain or is_tagged else text
        if not isinstance(value, str):
            raise self._refuse(event, f"key {text!r} is not text", f'write it as "{text}"')
        line = event.start_mark.line + 1
        if text in seen:
            raise self._refuse(event, f"key {text!r} is there twice, first in line {seen[text]}")
        seen[text] = line
        if event.anchor and type(event) is yaml.ScalarEvent:
            self._anchors[event.anchor] = (text, 1, 0)
            self._length[event.anchor] = len(text)
        return None if is_plain and text == "<<" else text

    def _merge_sources(self, event: Any, value: Any) -> list[Map]:
        candidates = value if isinstance(value, Seq) else [value]
        for each in candidates:
            if not isinstance(each, Map):
                raise self._refuse(event, "<< can merge a mapping or a list of mappings only")
        return list(candidates)
