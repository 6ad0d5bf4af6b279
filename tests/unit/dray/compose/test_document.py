"""Does YAML become nodes with their places, in bounded space, with either of PyYAML's parsers?"""

from __future__ import annotations

import pytest
import yaml

from dray.compose.document import (
    DEPTH_MAX,
    EXPANDED_MAX,
    NULL_TAG,
    PARSER,
    Document,
    Mapping,
    Node,
    Parser,
    Scalar,
    Sequence,
    parse_document,
)
from dray.compose.types import Position, Problem

PARSERS: dict[str, Parser] = {"python": yaml.SafeLoader, "libyaml": yaml.CSafeLoader}


@pytest.fixture(params=sorted(PARSERS))
def parser(request: pytest.FixtureRequest) -> Parser:
    """Return one parser after the other."""
    return PARSERS[request.param]


def root_of(text: str, parser: Parser) -> Node:
    """Return the root of a document without problems."""
    parsed = parse_document("f", text.encode(), parser)
    assert isinstance(parsed, Document), parsed
    assert parsed.problems == ()
    return parsed.root


def problem_of(content: str | bytes, parser: Parser) -> str:
    """Return why a document could not be read, or what is wrong in it."""
    raw = content.encode() if isinstance(content, str) else content
    parsed = parse_document("f", raw, parser)
    if isinstance(parsed, Document):
        (problem,) = parsed.problems
        return str(problem)
    return str(parsed)


def at(line: int, column: int) -> Position:
    """Return a place in the file."""
    return Position("f", line, column)


def test_libyaml_is_used_where_it_is_there() -> None:
    """The test environment has the fast parser, and it is the one that the product takes."""
    assert PARSER is yaml.CSafeLoader


def test_nodes_know_their_places(parser: Parser) -> None:
    """Lines and columns count from 1, in characters; a byte order mark is no part of the text."""
    root = root_of("\ufeffä: [b, 'c']\nd:\n  e: ~\n", parser)
    assert isinstance(root, Mapping)
    (first, listed), (second, inner) = root.entries
    assert isinstance(first, Scalar)
    assert (first.text, first.position.line) == ("ä", 1)
    assert isinstance(listed, Sequence)
    assert [item.position.line for item in listed.items] == [1, 1]
    assert second.position == at(2, 1)
    assert isinstance(inner, Mapping)
    assert inner.position == at(3, 3)
    assert inner.entries[0][1] == Scalar(at(3, 6), "~", NULL_TAG)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("5", "int"),
        ("'5'", "str"),
        ("1.5", "float"),
        ("yes", "bool"),
        ("", "null"),
        ("null", "null"),
        ("'null'", "str"),
        ("<<", "merge"),
        ("!!str 5", "str"),
        ("! 5", "str"),
        ("words", "str"),
    ],
)
def test_scalars_keep_their_text_and_know_what_they_are(
    parser: Parser, text: str, tag: str
) -> None:
    """What a plain scalar is taken for is YAML 1.1's rule; quotes make it text."""
    root = root_of(f"- {text}\n", parser)
    assert isinstance(root, Sequence)
    (scalar,) = root.items
    assert isinstance(scalar, Scalar)
    assert scalar.tag == f"tag:yaml.org,2002:{tag}"
    assert scalar.is_null is (tag == "null")


def test_an_alias_is_the_node_that_it_stands_for(parser: Parser) -> None:
    """Positions of what an alias brings are those of the anchor; an anchor may be set again."""
    root = root_of("- &a x\n- *a\n- &a y\n- *a\n", parser)
    assert isinstance(root, Sequence)
    assert [item.text for item in root.items if isinstance(item, Scalar)] == ["x", "x", "y", "y"]
    assert root.items[1] is root.items[0]


def test_keys_that_are_there_twice_are_kept(parser: Parser) -> None:
    """It is the reader who refuses them, at the place of the second one."""
    root = root_of("a: 1\na: 2\n", parser)
    assert isinstance(root, Mapping)
    assert [key.position for key, _ in root.entries] == [at(1, 1), at(2, 1)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f:1:1: is empty (a Compose file has `services:`)"),
        ("a: *b", "f:1:4: there is no anchor &b before this"),
        ("&a [*a]", "f:1:5: &a contains itself"),
        ("a: 1\n--- b\n", "f:2:1: holds more than one document (split the file)"),
        ("!x a", "f:1:1: the tag !x is not supported yet"),
        ("a: !!python/none x", "f:1:4: the tag tag:yaml.org,2002:python/none is not supported yet"),
        ("- !y [a]", "f:1:3: the tag !y is not supported yet"),
        ("- !z {a: b}", "f:1:3: the tag !z is not supported yet"),
        ('- "a\\0b"', "f:1:3: holds a NUL character"),
        ("a\n b: \x07", "f:2:5: holds the control character U+0007"),
        (b"a\n \xc3\xa4\xff", "f:2:3: is not UTF-8"),
        (b"\xff", "f:1:1: is not UTF-8"),
    ],
)
def test_what_is_no_document_for_us(parser: Parser, text: str | bytes, expected: str) -> None:
    """Each is refused at its place, in the same words whatever the parser."""
    assert problem_of(text, parser) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "a: b: c",
        "\t- a",
        "'a",
        "%YAML 3.0\n--- a",
        f"%YAML {'1' * 5000}.1\n--- a",
        '"\\UFFFFFFFF"',
        '"\\U00110000"',
        "%TAG ! !",
        "!<tag:%ff> a",
        "- |x\n a",
    ],
)
def test_what_is_no_yaml(parser: Parser, text: str) -> None:
    """Errors of either parser, its own crashes included, are problems and not exceptions."""
    parsed = parse_document("f", text.encode(), parser)
    assert isinstance(parsed, Problem)
    assert "is not YAML: " in str(parsed)
    assert parsed.position is not None


def test_half_of_a_character_is_no_text(parser: Parser) -> None:
    """An escape that names a surrogate is refused, by the parser or by us."""
    assert problem_of('- "\\ud800"', parser).startswith("f:1:")


@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1])
def test_depth_has_a_limit(parser: Parser, depth: int) -> None:
    """The deepest level that is allowed is read, one more is refused where it begins."""
    text = "[" * depth + "]" * depth
    if depth <= DEPTH_MAX:
        assert isinstance(root_of(text, parser), Sequence)
    else:
        expected = f"f:1:{depth}: is nested deeper than {DEPTH_MAX} levels"
        assert problem_of(text, parser) == expected


def test_an_alias_counts_as_what_it_stands_for(parser: Parser) -> None:
    """The size of a document is that of its text with every alias written out."""
    size = 99_999  # of the anchored text, with itself one more
    aliases = EXPANDED_MAX // (size + 1) - 1
    text = f"- &a {'x' * size}\n" + "- *a\n" * aliases
    assert isinstance(root_of(text, parser), Sequence)
    assert problem_of(text + "- *a\n", parser) == (
        f"f:{aliases + 2}:3: is larger than {EXPANDED_MAX} characters with every alias written out"
    )
