"""Is this YAML, and of bounded size? Text to nodes, every alias counted as if it were written out.

Only the splitting of text into events is PyYAML's. Its composer calls itself without bound, throws
away which keys were written twice, and does not notice that a small file of aliases can stand for
a huge one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml

from dray.compose.types import COMPOSE_BYTES_MAX, Position, Problem

__all__ = [
    "DEPTH_MAX",
    "EXPANDED_MAX",
    "MERGE_TAG",
    "NULL_TAG",
    "PARSER",
    "Document",
    "Mapping",
    "Node",
    "Parser",
    "Scalar",
    "Sequence",
    "parse_document",
]

DEPTH_MAX: Final = 64  # levels: the Compose Specification needs 9, extension fields a few more
EXPANDED_MAX: Final = 2 * COMPOSE_BYTES_MAX  # characters and values, aliases written out

Parser: TypeAlias = type[yaml.SafeLoader] | type[yaml.CSafeLoader]

# libyaml takes a tenth of the time; a PyYAML that was built without it has only the other one.
PARSER: Final[Parser] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CORE: Final = "tag:yaml.org,2002:"
NULL_TAG: Final = _CORE + "null"
MERGE_TAG: Final = _CORE + "merge"
_CORE_TAGS: Final = frozenset(
    _CORE + name for name in ("str", "int", "float", "bool", "null", "seq", "map")
)
_UNPRINTABLE: Final = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: its text as it stands in the file, and what YAML 1.1 takes it for."""

    position: Position
    text: str
    tag: str

    @property
    def is_null(self) -> bool:
        """Whether the file says nothing here: `key:`, `~` or `null`."""
        return self.tag == NULL_TAG


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    position: Position
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the order of the file, a key that is there twice included."""

    position: Position
    entries: tuple[tuple[Node, Node], ...]


Node: TypeAlias = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, as nodes.

    Attributes:
        root: The topmost node. Aliases are the nodes that they stand for; none contains itself.
        problems: What is wrong in it although it could be read.
    """

    root: Node
    problems: tuple[Problem, ...]


class _Refused(Exception):
    """The document cannot be read on; only within this module."""

    def __init__(self, position: Position, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.problem = Problem(position, "", message, hint)


def parse_document(path: str, content: bytes, parser: Parser = PARSER) -> Document | Problem:
    """Return the one document of a file, or why there is none. Never raises for what it says.

    Args:
        path: Name of the file, for positions.
        content: Its bytes, at most `COMPOSE_BYTES_MAX`.
        parser: What splits the text into events.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        return Problem(_position_after(path, before), "", "is not UTF-8")
    if found := _UNPRINTABLE.search(text):
        message = f"holds the control character U+{ord(found[0]):04X}"
        return Problem(_position_after(path, text[: found.start()]), "", message)
    try:
        composer = _Composer(path, parser(text))
        root = composer.document()
    except _Refused as error:
        return error.problem
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Position(path, mark.line + 1, mark.column + 1) if mark else Position(path, 1, 1)
        return Problem(place, "", f"is not YAML: {error.problem}")
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML's own parser stumbles over escapes and versions that are out of range.
        return Problem(Position(path, 1, 1), "", f"is not YAML: {error}")
    return Document(root, tuple(composer.problems))


def _position_after(path: str, before: str) -> Position:
    return Position(path, before.count("\n") + 1, len(before) - before.rfind("\n"))


@dataclass(slots=True)
class _Composer:
    """Turns the events of one document into nodes.

    Attributes:
        path: Name of the file.
        events: Where events come from; it also tells what a plain scalar is.
        problems: What was wrong so far.
        anchors: Node and expanded size by name; None while the node is being read.
        expanded: Characters and values so far, aliases written out.
    """

    path: str
    events: yaml.SafeLoader | yaml.CSafeLoader
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int] | None] = field(default_factory=dict)
    expanded: int = 0

    def document(self) -> Node:
        """Return the root of the only document."""
        self._next()  # the start of the stream
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            raise self._refused(start, "is empty", "a Compose file has `services:`")
        root = self._node(self._next(), 1)
        self._next()  # the end of the document
        further = self._next()
        if not isinstance(further, yaml.StreamEndEvent):
            raise self._refused(further, "holds more than one document", "split the file")
        return root

    def _next(self) -> yaml.Event:
        event = self.events.get_event()
        assert isinstance(event, yaml.Event), event
        return event

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, yaml.NodeEvent), event
        if depth > DEPTH_MAX:
            raise self._refused(event, f"is nested deeper than {DEPTH_MAX} levels")
        size_before = self.expanded
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self._grow(1, event)
        node = self._content(event, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.expanded - size_before)
        return node

    def _content(self, event: yaml.NodeEvent, depth: int) -> Node:
        position = self._position(event)
        if isinstance(event, yaml.ScalarEvent):
            self._grow(len(event.value), event)
            self._check_text(event)
            return Scalar(position, event.value, self._scalar_tag(event))
        assert isinstance(event, yaml.CollectionStartEvent), event
        self._check_tag(event, event.tag)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(inner, depth + 1))
            return Sequence(position, tuple(items))
        entries: list[tuple[Node, Node]] = []
        while not isinstance(inner := self._next(), yaml.MappingEndEvent):
            key = self._node(inner, depth + 1)
            entries.append((key, self._node(self._next(), depth + 1)))
        return Mapping(position, tuple(entries))

    def _alias(self, event: yaml.AliasEvent) -> Node:
        if event.anchor not in self.anchors:
            raise self._refused(event, f"there is no anchor &{event.anchor} before this")
        anchored = self.anchors[event.anchor]
        if anchored is None:
            raise self._refused(event, f"&{event.anchor} contains itself")
        node, size = anchored
        self._grow(size, event)
        return node

    def _grow(self, size: int, event: yaml.Event) -> None:
        self.expanded += size
        if self.expanded > EXPANDED_MAX:
            message = f"is larger than {EXPANDED_MAX} characters with every alias written out"
            raise self._refused(event, message)

    def _check_text(self, event: yaml.ScalarEvent) -> None:
        """Note what an escape sequence can say and no program takes as text."""
        if "\0" in event.value:
            self._note(event, "holds a NUL character")
        if not event.value.isascii() and _HALF_CHARACTER.search(event.value):
            self._note(event, "holds half of a character")

    def _scalar_tag(self, event: yaml.ScalarEvent) -> str:
        if event.tag == "!":  # YAML 1.2, section 6.9.1: no tag but "not plain"
            return _CORE + "str"
        if event.tag is None:
            tag = self.events.resolve(  # type: ignore[no-untyped-call]
                yaml.ScalarNode, event.value, event.implicit
            )
            return str(tag)
        self._check_tag(event, event.tag)
        return event.tag

    def _check_tag(self, event: yaml.Event, tag: str | None) -> None:
        if tag is not None and tag != "!" and tag not in _CORE_TAGS:
            self._note(event, f"the tag {tag} is not supported yet")

    def _note(self, event: yaml.Event, message: str) -> None:
        self.problems.append(Problem(self._position(event), "", message))

    def _refused(self, event: yaml.Event, message: str, hint: str = "") -> _Refused:
        return _Refused(self._position(event), message, hint)

    def _position(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        assert mark is not None, event
        return Position(self.path, mark.line + 1, mark.column + 1)
