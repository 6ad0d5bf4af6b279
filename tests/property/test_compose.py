"""What holds for every Compose file, whatever it says?"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dray.compose import LoadRequest, Rejected
from dray.compose.canonical import canonicalise
from dray.compose.interpolate import BadTemplate, substitute
from dray.compose.printed import yaml_text
from tests.compose_cases.files import MemoryFiles, canonical_of, config_of

_NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
_PLAIN = _TEXTS.filter(lambda text: "$" not in text)
_SCALARS = st.one_of(_PLAIN, st.integers(-(2**40), 2**40), st.booleans())
_PAIRS = st.dictionaries(_NAMES, st.one_of(_SCALARS, st.none()), max_size=3)
_LISTED = st.lists(_NAMES, unique=True, max_size=3)
_PORTS = st.lists(
    st.one_of(
        st.integers(1, 65535),
        st.builds("{}:{}".format, st.integers(1, 65535), st.integers(1, 65535)),
        st.fixed_dictionaries({"target": st.integers(1, 65535)}),
    ),
    max_size=2,
    unique_by=str,
)
_AMOUNTS = st.sampled_from(["1g", "512m", "64k", 1024, "2.5gb"])
_DURATIONS = st.sampled_from(["10s", "1m30s", "250ms", "2h", "1d"])
_SERVICES = st.fixed_dictionaries(
    {"image": _NAMES},
    optional={
        "environment": _PAIRS,
        "labels": _PAIRS,
        "cap_add": _LISTED,
        "command": st.one_of(st.lists(_PLAIN, max_size=3), st.sampled_from(["a b", "a 'b c'", ""])),
        "ports": _PORTS,
        "mem_limit": _AMOUNTS,
        "stop_grace_period": _DURATIONS,
        "hostname": _NAMES,
        "tty": st.booleans(),
        "init": st.booleans(),
        "volumes": st.lists(
            st.builds("{}:/{}".format, st.sampled_from(["data", "./a", "/b"]), _NAMES),
            max_size=2,
            unique_by=lambda spec: spec.partition(":")[2],
        ),
        "healthcheck": st.fixed_dictionaries(
            {"test": st.sampled_from(["true", ["CMD", "x"]])}, optional={"interval": _DURATIONS}
        ),
        "deploy": st.fixed_dictionaries({}, optional={"labels": _PAIRS, "mode": _NAMES}),
        "x-note": st.dictionaries(_NAMES, _SCALARS, max_size=2),
    },
)
_PROJECTS = st.builds(
    lambda services: {"services": services, "volumes": {"data": None}},
    st.dictionaries(_NAMES, _SERVICES, min_size=1, max_size=3),
)


def _text(project: Any) -> str:
    """Return a file that says this; JSON, since every YAML reader agrees on it."""
    return json.dumps(project, ensure_ascii=False)


@given(_PROJECTS)
def test_normalising_twice_changes_nothing(project: dict[str, Any]) -> None:
    """What was printed is taken again, and printed the same."""
    once = config_of(_text(project))
    assert config_of(yaml_text(once)) == once


@given(_PROJECTS)
def test_a_round_trip_through_yaml_keeps_the_meaning(project: dict[str, Any]) -> None:
    """Block style and JSON mean the same, and so does what was read and written again."""
    expected = config_of(_text(project))
    assert config_of(yaml_text(project)) == expected
    assert config_of(yaml_text(expected)) == expected


@given(_PROJECTS, st.booleans())
def test_merging_with_nothing_changes_nothing(project: dict[str, Any], first: bool) -> None:
    """A file that only has empty services changes nothing, before or after."""
    expected = config_of(_text(project))
    files = {"a.yaml": _text(project), "b.yaml": "services: {}\n"}
    names = ("b.yaml", "a.yaml") if first else ("a.yaml", "b.yaml")
    assert config_of(files, *names) == expected


@given(_PROJECTS)
def test_merging_with_itself_keeps_names(project: dict[str, Any]) -> None:
    """A file over itself has the same services, each with the same image and variables."""
    once = config_of(_text(project))
    files = {"a.yaml": _text(project), "b.yaml": _text(project)}
    twice = config_of(files, "a.yaml", "b.yaml")
    assert twice["services"].keys() == once["services"].keys()
    for name, service in twice["services"].items():
        for key in ("image", "environment", "labels", "ports", "volumes", "cap_add"):
            assert service.get(key) == once["services"][name].get(key)


@given(_PLAIN)
def test_text_without_a_dollar_is_not_touched(text: str) -> None:
    """Interpolation leaves what has no variable alone."""
    variables: dict[str, str] = {}
    assert substitute(text, variables.get) == text


@given(_TEXTS)
def test_escaped_text_comes_back(text: str) -> None:
    """Doubling every dollar sign gives the text itself, whatever it is."""
    assert substitute(text.replace("$", "$$"), {"A": "x"}.get) == text


@given(st.text(alphabet="${}:-?+AB_ \n", max_size=40))
def test_any_template_ends(template: str) -> None:
    """Any text is replaced or refused, never anything else."""
    variables: dict[str, str] = {"A": "x", "B": ""}
    try:
        result = substitute(template, variables.get)
    except BadTemplate:
        return
    assert len(result) <= len(template)


_KEYS = (
    *("services", "networks", "volumes", "image", "build", "ports", "command", "environment"),
    *("deploy", "resources", "limits", "memory", "depends_on", "condition", "extends", "service"),
    *("file", "include", "path", "secrets", "source", "target", "type", "healthcheck", "test"),
)
_ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 70000), _TEXTS, st.floats(-1e3, 1e3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(_KEYS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["web", "db"]), _ANYTHING, max_size=2), _ANYTHING)
def test_any_file_is_taken_or_refused(services: dict[str, Any], more: Any) -> None:
    """Whatever a file says, it is taken, or refused with a message; nothing is raised."""
    project: Any = {"services": services}
    if isinstance(more, dict):
        project |= more
    files = MemoryFiles({"compose.yaml": _text(project)})
    result = canonicalise(LoadRequest(("/shop/compose.yaml",)), files)
    if isinstance(result, Rejected):
        assert result.problems
    else:
        assert result.config["name"] == "shop"


@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused(content: bytes) -> None:
    """Bytes that are no file at all are refused with a message."""
    files = MemoryFiles({"compose.yaml": content})
    result = canonicalise(LoadRequest(("/shop/compose.yaml",)), files)
    assert not isinstance(result, Rejected) or result.problems


@given(_PROJECTS)
def test_every_part_has_a_place(project: dict[str, Any]) -> None:
    """Each service, and each key that the file says of it, has a place in the file."""
    canonical = canonical_of(_text(project))
    for name, service in project["services"].items():
        assert canonical.where(("services", name)) is not None
        for key in service:
            place = canonical.where(("services", name, key))
            assert place is not None
            assert place.file == "/shop/compose.yaml"
