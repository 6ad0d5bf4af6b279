"""How do nodes of a Compose file become values? With every problem noted at its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

from dray.compose import document
from dray.compose.document import Node, Scalar, Sequence
from dray.compose.types import PROBLEMS_MAX, Position, Problem
from dray.errors import DrayError

__all__ = ["KEY_LENGTH_MAX", "Entry", "Reader", "Reading", "split_command"]

KEY_LENGTH_MAX: Final = 1024  # characters: bounds the paths that problems are named by

ValueT = TypeVar("ValueT")

# One piece of a shell word, or the space between two words.
_PIECE: Final = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
    | '(?P<single>[^']*)'
    | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    | \\(?P<escaped>.)
    | (?P<plain>[^ \t\r\n'"\\]+)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping: where it is, its value, and its path from the top of the file."""

    position: Position
    node: Node
    path: str


@dataclass(slots=True)
class Reading:
    """One file being read.

    Attributes:
        interpolate: Whether `$` begins a variable.
        allow_ignored: Whether unknown keys are noted as ignored rather than refused.
        problems: What is wrong, in the order in which it was found; at most `PROBLEMS_MAX`.
        ignored: What was passed over; at most `PROBLEMS_MAX`.
        problems_unlisted: Problems beyond the first `PROBLEMS_MAX`.
    """

    interpolate: bool = True
    allow_ignored: bool = False
    problems: list[Problem] = field(default_factory=list)
    ignored: list[Problem] = field(default_factory=list)
    problems_unlisted: int = 0

    def refuse(self, position: Position | None, path: str, message: str, hint: str = "") -> None:
        """Note what is wrong; the file will be rejected."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(position, path, message, hint))
        else:
            self.problems_unlisted += 1

    def mapping(self, node: Node, path: str) -> dict[str, Entry]:
        """Return a mapping's entries by key; none after noting that it is no mapping."""
        if not isinstance(node, document.Mapping):
            self.refuse(node.position, path, "must be a mapping")
            return {}
        entries: dict[str, Entry] = {}
        for key_node, value in node.entries:
            key = self._key(key_node, path)
            if key is None:
                continue
            full = f"{path}.{key}".lstrip(".")
            if key in entries:
                self.refuse(key_node.position, full, "is there twice")
            else:
                entries[key] = Entry(key_node.position, value, full)
        return entries

    def read_keys(self, node: Node, path: str, readers: Mapping[str, Reader]) -> dict[str, object]:
        """Return the known keys of a mapping as their readers turn them; refuse all others.

        Keys that begin with `x-` are the author's own, but for `x-dray`. A key whose value could
        not be read is left out.
        """
        values: dict[str, object] = {}
        for key, entry in self.mapping(node, path).items():
            reader = readers.get(key)
            if reader is not None:
                value = reader(self, entry.node, entry.path)
                if value is not None:
                    values[key] = value
            elif not key.startswith("x-") or key == "x-dray":
                self._unknown(entry)
        return values

    def text(self, node: Node, path: str) -> str | None:
        """Return a scalar's text with `$$` undone; None after noting what is wrong with it."""
        if not isinstance(node, Scalar) or node.is_null:
            self.refuse(node.position, path, "must be text")
            return None
        if not self.interpolate or "$" not in node.text:
            return node.text
        if "$" in node.text.replace("$$", ""):
            hint = "write $$ for a dollar sign"
            self.refuse(node.position, path, "variables are not replaced yet", hint)
            return None
        return node.text.replace("$$", "$")

    def parsed(self, node: Node, path: str, parse: Callable[[str], ValueT]) -> ValueT | None:
        """Return what `parse` makes of a text; None after noting what it said against it."""
        text = self.text(node, path)
        if text is None:
            return None
        try:
            return parse(text)
        except DrayError as error:
            self.refuse(node.position, path, error.message, error.hint)
            return None

    def command(self, node: Node, path: str) -> tuple[str, ...] | None:
        """Return a command given as a list or as text for a shell; None: the image's own."""
        if isinstance(node, Sequence):
            texts = [self.text(item, f"{path}[{i}]") for i, item in enumerate(node.items)]
            return tuple(text for text in texts if text is not None)
        if isinstance(node, Scalar) and node.is_null:
            return None
        if not isinstance(node, Scalar):
            self.refuse(node.position, path, "must be text or a list")
            return None
        text = self.text(node, path)
        words = split_command(text) if text is not None else ()
        if words is None:
            self.refuse(node.position, path, "ends within a quotation or after a backslash")
        return words

    def pairs(self, node: Node, path: str) -> dict[str, str | None]:
        """Return `KEY: value` or `- KEY=value` entries; None for a key without a value."""
        found: dict[str, str | None] = {}
        for name, value, position, full in self._raw_pairs(node, path):
            if not name:
                self.refuse(position, full, "has no name")
            elif "=" in name:
                self.refuse(position, full, "a name may not hold '='")
            elif name in found:
                self.refuse(position, full, "is there twice")
            else:
                found[name] = value
        return found

    def _raw_pairs(self, node: Node, path: str) -> list[tuple[str, str | None, Position, str]]:
        found: list[tuple[str, str | None, Position, str]] = []
        if isinstance(node, Sequence):
            for index, item in enumerate(node.items):
                full = f"{path}[{index}]"
                text = self.text(item, full)
                if text is not None:
                    name, equals, value = text.partition("=")
                    found.append((name, value if equals else None, item.position, full))
            return found
        for key, entry in self.mapping(node, path).items():
            is_null = isinstance(entry.node, Scalar) and entry.node.is_null
            value_or_none = None if is_null else self.text(entry.node, entry.path)
            if is_null or value_or_none is not None:
                found.append((key, value_or_none, entry.position, entry.path))
        return found

    def _key(self, node: Node, path: str) -> str | None:
        if not isinstance(node, Scalar) or node.is_null or not node.text:
            self.refuse(node.position, path, "a key must be text")
        elif node.tag == document.MERGE_TAG:
            hint = "write the keys out"
            self.refuse(node.position, path, "merge keys (<<) are not supported yet", hint)
        elif len(node.text) > KEY_LENGTH_MAX:
            message = f"a key of {len(node.text)} characters; {KEY_LENGTH_MAX} are the most"
            self.refuse(node.position, path, message)
        else:
            return node.text
        return None

    def _unknown(self, entry: Entry) -> None:
        message, hint = "is not supported yet", "remove it from the file"
        if not self.allow_ignored:
            self.refuse(entry.position, entry.path, message, hint)
        elif len(self.ignored) < PROBLEMS_MAX:
            self.ignored.append(Problem(entry.position, entry.path, message, hint))
        else:
            self.refuse(entry.position, entry.path, f"more than {PROBLEMS_MAX} keys are ignored")


Reader: TypeAlias = Callable[[Reading, Node, str], object]
"""Turns the value of a key, at a path, into what the key stands for; None leaves the key out."""


def split_command(text: str) -> tuple[str, ...] | None:
    """Return the words of a command line as a POSIX shell would see them, nothing expanded.

    None when it ends within a quotation or after a backslash. Time grows with the length, which
    `shlex` cannot say of long words.
    """
    words: list[str] = []
    word: list[str] | None = None  # pieces; None between words
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None:
            return None
        position = piece.end()
        if piece["space"] is not None:
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        inner = piece[piece.lastgroup or 0]
        if piece.lastgroup == "double" and "\\" in inner:
            inner = re.sub(r'\\(["\\])', r"\1", inner)
        if word is None:
            word = []
        word.append(inner)
    if word is not None:
        words.append("".join(word))
    return tuple(words)
