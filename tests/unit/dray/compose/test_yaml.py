"""Is YAML read as Compose reads it, with places, and within bounds?"""

from __future__ import annotations

import math
import time
import tracemalloc
from typing import Any

import pytest

from dray.compose.tree import Problems, Refused, mark_at, plain
from dray.compose.yaml_read import Budget, read_documents
from dray.compose.yaml_scalars import float_text, resolve
from tests.compose_cases.files import problems_of

_SECONDS_MAX = 4.0  # of CPU; a second on an idle machine
_MEMORY_BYTES_MAX = 200 * 1024 * 1024
_WEB = "services:\n  web:\n    image: x\n"


def _read(text: str) -> Any:
    problems = Problems()
    (document,) = read_documents("f", text.encode(), problems, Budget())
    return document.root


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("n", "n"),
        ("", None),
        ("~", None),
        ("null", None),
        ("nil", "nil"),
        ("12", 12),
        ("-7", -7),
        ("+7", 7),
        ("0440", 288),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("08", 8.0),
        ("1_000", 1000),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        (".inf", math.inf),
        ("1.2.3", "1.2.3"),
        ("2001-01-01", "2001-01-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("12:30:45", "12:30:45"),
        ("22:22", "22:22"),
        ("1g", "1g"),
        ("0x", "0x"),
        ("=", "="),
        ("18446744073709551616", 18446744073709551616.0),
        ("9" * 100, "9" * 100),
    ],
)
def test_scalars(text: str, expected: object) -> None:
    """Words, octals, dates and base-60 numbers mean what they mean to Compose."""
    value = resolve(text)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1"),
        (1.5, "1.5"),
        (-0.25, "-0.25"),
        (123456.0, "123456"),
        (1e6, "1e+06"),
        (1e20, "1e+20"),
        (1234567.5, "1.2345675e+06"),
        (1.5e-7, "1.5e-07"),
        (0.0001, "0.0001"),
        (123456.789, "123456.789"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_float_text(number: float, text: str) -> None:
    """Numbers become text as the official tool writes them."""
    assert float_text(number) == text


def test_tags_and_quotes() -> None:
    """Quoted scalars are text; tags decide; unknown ones do not."""
    tree = _read("a: '1'\nb: \"true\"\nc: !!str 1\nd: !!float 1\ne: !mine 1\nf: |\n  x\n")
    assert plain(tree) == {"a": "1", "b": "true", "c": "1", "d": 1.0, "e": "1", "f": "x\n"}
    assert plain(_read("a: !!binary aGVs\n")) == {"a": "hel"}
    for bad in ("a: !!int x", "a: !!binary ?", "!!int 1: a"):
        with pytest.raises(Refused):
            _read(bad)


def test_places() -> None:
    """Every value knows where it stands."""
    tree = _read("a:\n  - b: 1\n    c: [x, y]\nd: {e: f}\n")
    assert mark_at(tree, ("a",)) == ("f", 1, 1)
    assert mark_at(tree, ("a", 0)) == ("f", 2, 5)
    assert mark_at(tree, ("a", 0, "b")) == ("f", 2, 8)
    assert mark_at(tree, ("a", 0, "c", 1)) == ("f", 3, 12)
    assert mark_at(tree, ("d", "e")) == ("f", 4, 8)
    assert mark_at(tree, ("d", "missing", 3)) == ("f", 4, 1)


def test_resets_are_noted() -> None:
    """`!reset` leaves nothing behind but its path, `!override` its value too."""
    problems = Problems()
    text = b"a: {b: !reset , c: !override [x], d: [!reset 1, 2]}\n"
    (document,) = read_documents("f", text, problems, Budget())
    assert plain(document.root) == {"a": {"c": ["x"], "d": [2]}}
    assert document.resets == [("a", "b"), ("a", "c"), ("a", "d", 0)]


def test_aliases_are_copies() -> None:
    """Two places of one anchor do not share a list."""
    tree = _read("a: &x [1]\nb: *x\nc: &y s\nd: *y\n*y : t\n")
    tree["a"].append(2)
    assert plain(tree) == {"a": [1, 2], "b": [1], "c": "s", "d": "s", "s": "t"}


def test_bom_and_line_ends() -> None:
    """A byte order mark and Windows line ends do no harm."""
    assert plain(_read("\ufeffa: b\r\nc: d\r\n")) == {"a": "b", "c": "d"}


def _many(count: int, line: str) -> str:
    return "services:\n" + "".join(line.format(i=i, j=i + 1) for i in range(count))


_HOSTILE: list[tuple[str, str | bytes, str]] = [
    ("10 MB", b"a: b\n" * 2_000_000, "is larger than 1,048,576 bytes"),
    ("a million items", b"x-a: [" + b"a," * 500_000 + b"]", "more than 50,000 values"),
    ("many mappings", b"x-a:\n" + b"  - a: b\n" * 100_000, "more than 50,000 values"),
    (
        "alias bomb",
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "more than 50,000 values",
    ),
    (
        "long texts of aliases",
        "x-t: &t " + "y" * 500_000 + "\nx-l: [" + "*t," * 20_000 + "]\n",
        "or 8,388,608 characters",
    ),
    ("a long key", "? " + "k" * 2000 + "\n: a\n", "a key has 2,000 characters, 1,024"),
    ("an escaped zero byte", _WEB + '    user: "a\\0"\n', "4:11: holds a zero byte"),
    ("alias of itself", "x-a: &a\n  b: *a\n", "alias *a stands inside what it refers to"),
    ("deep lists", b"[" * 1_000_000, "nested more than 100 levels deep"),
    ("deep mappings", b"{a: " * 250_000, "nested more than 100 levels deep"),
    ("deep blocks", b"- " * 500_000, "nested more than 100 levels deep"),
    ("documents", "a: b\n---\n" * 60_000, "has more than 50 documents"),
    ("not UTF-8", _WEB.encode() + b"    user: \xff\n", "4:11: is not UTF-8: byte 0xff"),
    ("a zero byte", _WEB + '    user: "\x00"\n', "4:12: is not YAML: control characters"),
    ("a control character", _WEB + "    user: \x01\n", "4:11: is not YAML: control characters"),
    ("nested variables", _WEB + f"    user: '{'${A:-' * 9000}'\n", "malformed variable"),
    ("extends in a row", _many(2000, "  s{i}: {{extends: s{j}}}\n"), "more than 50 deep"),
    (
        "extends that grow",
        _many(2000, "  s{j}: {{extends: s{i}}}\n").replace(
            "services:\n",
            "services:\n  s0: {image: x, environment: ["
            + ",".join(f"V{i}=1" for i in range(4000))
            + "]}\n",
        ),
        "more than 50,000 values",
    ),
    ("ports", _WEB + "    ports: [1-65535]\n", "the service has more than 10,000 ports"),
    ("mistakes", _many(8000, "  s{i}: {{imag: x}}\n"), "did you mean 'image'?"),
    ("lost references", _many(3000, "  s{i}: {{image: x, links: [q{i}]}}\n"), "no service 'q0'"),
    ("a long path", _WEB + f"    env_file: {'a/' * 4000}\n", "is not a path of a file"),
]


@pytest.mark.parametrize(
    ("content", "told"), [each[1:] for each in _HOSTILE], ids=[each[0] for each in _HOSTILE]
)
def test_hostile_input_ends_soon(content: str | bytes, told: str) -> None:
    """What is made to hurt ends in a clear message, soon."""
    started = time.process_time()
    problems = problems_of(content)
    assert time.process_time() - started < _SECONDS_MAX
    assert told in problems[0]
    assert len(problems[0]) < 400


def test_hostile_input_needs_little_memory() -> None:
    """The worst of them stays far below what a machine has."""
    tracemalloc.start()
    try:
        problems_of(b"x-a:\n" + b"  - a: b\n" * 100_000)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < _MEMORY_BYTES_MAX
