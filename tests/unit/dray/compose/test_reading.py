"""Are words of a command line split as a shell splits them, in time that grows with the length?"""

from __future__ import annotations

import pytest

from dray.compose.reading import split_command


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("  \t\n ", ()),
        ("a", ("a",)),
        (" a  b\tc\nd ", ("a", "b", "c", "d")),
        ("'a b' c", ("a b", "c")),
        ('"a b" c', ("a b", "c")),
        ("a'b'\"c\"d", ("abcd",)),
        ("'' a \"\"", ("", "a", "")),
        ("a\\ b", ("a b",)),
        ("\\'a\\\"", ("'a\"",)),
        ("'a\\b'", ("a\\b",)),
        ('"a\\"b"', ('a"b',)),
        ('"a\\\\b"', ("a\\b",)),
        ('"a\\nb"', ("a\\nb",)),
        ("a # b", ("a", "#", "b")),
        ("a | b > c; d && $e", ("a", "|", "b", ">", "c;", "d", "&&", "$e")),
        ("\u00a0a", ("\u00a0a",)),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    """Quotes and backslashes are undone, nothing is expanded."""
    assert split_command(text) == words


@pytest.mark.parametrize("text", ["'", '"', "a 'b", 'a "b\\"', "a\\", '"\\'])
def test_what_does_not_end(text: str) -> None:
    """A quotation that is not closed, or a last backslash, leaves no words."""
    assert split_command(text) is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ["a", "'a'", '"\\""', "\\ ", "''", '"a', "a "], ids=repr)
def test_long_commands_take_time_by_their_length(piece: str) -> None:
    """A megabyte of anything is split in seconds; `shlex` needs most of a minute for one word."""
    words = split_command(piece * (1_000_000 // len(piece)))
    assert words is None or sum(map(len, words)) <= 1_000_000
