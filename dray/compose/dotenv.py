"""How is an env file (`.env`, `env_file`, `label_file`) read?

`KEY=value`, `KEY: value`, `export KEY=value`, `KEY` alone (taken from the environment). Single
quotes are literal; double quotes know escapes and variables and may span lines; unquoted values end
at a line's end or at " #". The raw format takes each line after the first `=` as it is.
"""

from __future__ import annotations

import re
from typing import Final

from dray.compose.interpolate import BadTemplate, Lookup, substitute

__all__ = ["ENV_BYTES_MAX", "BadEnvFile", "parse_env", "parse_raw_env"]

ENV_BYTES_MAX: Final = 1_048_576  # bytes of one env file: as much as a Compose file may have

_ESCAPE = re.compile(r'\\(?:[abcfnrtv$"\\]|0[0-9]{0,3})', re.ASCII)
_ESCAPED: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
}
_BLANKS: Final = "\t\v\f\r \x85\xa0"
_EXPORT = re.compile(r"export\s+")
_KEY_PUNCTUATION: Final = "_.-[]"


class BadEnvFile(Exception):
    """An env file cannot be read.

    Attributes:
        line: The line, counted from 1.
        message: What is wrong with it.
    """

    def __init__(self, line: int, message: str) -> None:
        """Say what is wrong in which line."""
        super().__init__(message)
        self.line = line
        self.message = message


def parse_env(content: bytes, variables: dict[str, str], lookup: Lookup) -> None:
    """Add the variables of an env file.

    Args:
        content: The file's bytes.
        variables: Where they are added; what is there already can be referred to.
        lookup: The environment: wins over `variables` where a value refers to another.

    Raises:
        BadEnvFile: A line is malformed.
    """
    _Parser(_text(content), variables, lookup).parse()


def parse_raw_env(content: bytes, variables: dict[str, str], lookup: Lookup) -> None:
    """Add the variables of an env file in the raw format: no quotes, no interpolation.

    Raises:
        BadEnvFile: A line has no proper key.
    """
    for number, line in enumerate(_text(content).splitlines(), 1):
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        key, separator, value = stripped.partition("=")
        if not key or any(character.isspace() for character in key):
            raise BadEnvFile(number, f"{_shown(key)!r} is not a name of a variable")
        if separator:
            variables[key] = value
        elif (inherited := lookup(key)) is not None:
            variables[key] = inherited


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadEnvFile(line, f"is not UTF-8: byte 0x{content[error.start]:02x}") from None


def _shown(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"


class _Parser:
    """Reads one file from its start to its end."""

    def __init__(self, text: str, variables: dict[str, str], lookup: Lookup) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._lookup = lookup

    def parse(self) -> None:
        while self._to_statement():
            key, is_inherited = self._key()
            if " " in key:
                raise self._bad(f"the name {_shown(key)!r} holds a space")
            if is_inherited:
                value = self._lookup(key)
                if value is not None:
                    self._variables[key] = value
            else:
                self._variables[key] = self._value()

    def _bad(self, message: str, at: int | None = None) -> BadEnvFile:
        end = self._at if at is None else at
        return BadEnvFile(self._text.count("\n", 0, end) + 1, message)

    def _to_statement(self) -> bool:
        """Move to the next statement, past blanks and comments; False at the end."""
        text, length = self._text, len(self._text)
        while self._at < length:
            if text[self._at].isspace():
                self._at += 1
            elif text[self._at] == "#":
                self._at = self._line_end()
            else:
                return True
        return False

    def _line_end(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _key(self) -> tuple[str, bool]:
        """Read a key and what separates it from its value; True if there is no value."""
        exported = _EXPORT.match(self._text, self._at)
        if exported:
            self._at = exported.end()
        start = self._at
        for index in range(start, len(self._text)):
            character = self._text[index]
            if character in "=:\n":
                self._at = index + 1
                if character != "\n":
                    self._skip_blanks()
                return self._text[start:index].rstrip(), character == "\n"
            if (
                character in _BLANKS
                or character in _KEY_PUNCTUATION
                or character.isalpha()
                or character.isnumeric()
            ):
                continue
            line = self._text[start : self._line_end()]
            raise self._bad(f"unexpected {character!r} in the name {_shown(line)!r}", index)
        # The last line, without a line break: a name alone.
        self._at = len(self._text)
        return self._text[start:].rstrip(), True

    def _skip_blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in _BLANKS:
            self._at += 1

    def _value(self) -> str:
        quote = self._text[self._at : self._at + 1]
        if quote and quote in "\"'":
            return self._quoted(quote)
        end = self._line_end()
        value = self._text[self._at : end]
        started = self._at
        self._at = min(end + 1, len(self._text))
        return self._expand(value.partition(" #")[0].rstrip(), started)

    def _quoted(self, quote: str) -> str:
        started = self._at
        characters: list[str] = []
        is_escaped = False
        for index in range(started + 1, len(self._text)):
            character = self._text[index]
            if character == quote and not is_escaped:
                self._at = index + 1
                value = "".join(characters)
                if quote == "'":
                    return value
                return self._expand(_ESCAPE.sub(_unescape, value), started)
            if character == "\\" and not is_escaped:
                is_escaped = True
                continue
            if is_escaped and character != quote:
                characters.append("\\")
            is_escaped = False
            characters.append(character)
        line = self._text[started : self._line_end()]
        raise self._bad(f"the quoted value {_shown(line)} does not end", started)

    def _expand(self, value: str, at: int) -> str:
        try:
            return substitute(value, self._find)
        except BadTemplate as error:
            raise self._bad(error.message, at) from None

    def _find(self, name: str) -> str | None:
        value = self._lookup(name)
        return self._variables.get(name) if value is None else value


def _unescape(match: re.Match[str]) -> str:
    body = match[0][1:]
    if body[0] == "0":
        digits = body[1:]
        is_octal = len(digits) == 3 and all(digit in "01234567" for digit in digits)
        return chr(int(digits, 8)) if is_octal and int(digits, 8) < 256 else match[0]
    return _ESCAPED.get(body, match[0])
