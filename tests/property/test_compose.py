"""Does the Compose loader stand whatever it is given, and is normalising twice the same as once?"""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml
from hypothesis import event, example, given
from hypothesis import strategies as st

from dray.compose import Loaded, Rejected
from dray.compose.document import Document, parse_document
from dray.compose.reading import split_command
from tests.contract.compose.implementations import LOADS, load_text
from tests.unit.dray.compose.test_document import PARSERS

# Characters that YAML or a shell give a meaning to come up often.
texts = st.text(
    st.one_of(
        st.sampled_from("ab \t\n'\"\\$#:-{}[]&*!|>%@`,?~0=."),
        st.characters(codec="utf-8", exclude_characters="\0"),
    ),
    max_size=20,
)
names = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
pairs = st.dictionaries(texts.filter(lambda key: key != "" and "=" not in key), texts, max_size=3)
amounts = st.fixed_dictionaries(
    {},
    optional={
        "cpus": st.one_of(st.integers(0, 64), st.sampled_from(["0.5", 1.25, "0.001"])),
        "memory": st.one_of(st.integers(0, 2**40), st.sampled_from(["64m", "1.5GiB", "1k"])),
    },
)
services = st.fixed_dictionaries(
    {"image": st.sampled_from(["web:1", "r.example/x@sha256:0", "$$x"])},
    optional={
        "command": st.one_of(st.none(), st.lists(texts, max_size=3)),
        "entrypoint": st.lists(texts, max_size=3),
        "environment": st.one_of(
            st.dictionaries(names, st.one_of(st.none(), texts), max_size=3),
            st.lists(names, max_size=3, unique=True),
        ),
        "hostname": texts,
        "labels": pairs,
        "stop_grace_period": st.sampled_from(["0s", "10s", "1m30s", "300ms", "1.5h"]),
        "stop_signal": st.sampled_from(["SIGTERM", 15]),
        "user": texts,
        "working_dir": texts,
        "deploy": st.fixed_dictionaries(
            {},
            optional={
                "labels": pairs,
                "replicas": st.integers(0, 9_999_999),
                "resources": st.fixed_dictionaries({}, optional={"reservations": amounts}),
            },
        ),
    },
)
projects = st.fixed_dictionaries(
    {"services": st.dictionaries(names, services, min_size=1, max_size=3)},
    optional={"name": st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)},
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=12,
)
nearly = st.fixed_dictionaries(
    {"services": st.dictionaries(names, st.one_of(services, anything), max_size=2)},
    optional={"name": anything, "x-own": anything, "x-dray": anything, "volumes": anything},
)


def check(result: Loaded | Rejected) -> None:
    """Assert what holds of every answer."""
    if isinstance(result, Loaded):
        event("taken")
        assert result.project.services
        return
    event("refused")
    assert result.problems
    assert all(problem.message for problem in result.problems)
    places = [problem.position for problem in result.problems if problem.position]
    assert places == sorted(places)
    assert all(place.line >= 1 and place.column >= 1 for place in places)


@pytest.mark.parametrize("name", sorted(LOADS))
@given(content=st.one_of(st.binary(max_size=200), texts.map(str.encode)))
@example(content=b"\xef\xbb\xbf")
@example(content=b'services: {web: {image: a, command: "\'"}}')
@example(content=b'"\\UFFFFFFFF"')
def test_random_bytes_never_raise(name: str, content: bytes) -> None:
    """Whatever the bytes, the answer is a project or problems."""
    check(load_text(LOADS[name], content))


@pytest.mark.parametrize("name", sorted(LOADS))
@given(tree=nearly, data=st.data())
def test_random_trees_never_raise(name: str, tree: dict[str, Any], data: st.DataObject) -> None:
    """Files that are nearly right, with values of every kind in every place, never raise."""
    text = yaml.safe_dump(tree, allow_unicode=True, default_flow_style=data.draw(st.booleans()))
    check(load_text(LOADS[name], text, allow_ignored=data.draw(st.booleans())))


@pytest.mark.parametrize("name", sorted(LOADS))
@given(tree=projects, data=st.data())
def test_a_damaged_file_never_raises(name: str, tree: dict[str, Any], data: st.DataObject) -> None:
    """A good file with a few bytes taken out, put in or changed is taken or refused."""
    content = bytearray(yaml.safe_dump(tree).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    check(load_text(LOADS[name], bytes(content)))


@pytest.mark.parametrize("name", sorted(LOADS))
@given(tree=projects, interpolate=st.booleans())
def test_normalising_twice_changes_nothing(
    name: str, tree: dict[str, Any], interpolate: bool
) -> None:
    """What a project is shown as loads to the same project, shown as the same."""
    result = load_text(LOADS[name], yaml.safe_dump(tree), interpolate=interpolate)
    check(result)
    if isinstance(result, Loaded):
        shown = yaml.safe_dump(dict(result.config))
        assert load_text(LOADS[name], shown, interpolate=interpolate) == result


@given(text=texts)
def test_commands_are_split_as_the_standard_library_splits_them(text: str) -> None:
    """Our splitter, which is linear, agrees with `shlex`, which is not."""
    try:
        expected = tuple(shlex.split(text))
    except ValueError:
        assert split_command(text) is None
        return
    assert split_command(text) == expected


@given(content=st.one_of(st.binary(max_size=200), texts.map(str.encode)))
def test_random_bytes_raise_with_neither_parser(content: bytes) -> None:
    """Without libyaml nothing raises either."""
    for parser in PARSERS.values():
        parsed = parse_document("f", content, parser)
        assert isinstance(parsed, Document) or str(parsed)
