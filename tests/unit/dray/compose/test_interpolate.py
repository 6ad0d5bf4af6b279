"""Are variables replaced where and how the specification says, and nowhere else?"""

from __future__ import annotations

import pytest

from dray.compose.interpolate import BadTemplate, boolean_of, substitute
from tests.compose_cases.files import canonical_of, config_of, problems_of, service_of

_VARIABLES = {"SET": "value", "EMPTY": "", "OTHER": "o", "NAME_1": "n"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$SET", "value"),
        ("${SET}", "value"),
        ("a${SET}b$OTHER.", "avaluebo."),
        ("$NAME_1x", ""),
        ("${NAME_1}x", "nx"),
        ("$UNSET-${UNSET}", "-"),
        ("$$", "$"),
        ("$$SET", "$SET"),
        ("$$$SET", "$value"),
        ("$${SET}", "${SET}"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$1", "$1"),
        ("costs 5$", "costs 5$"),
        ("${UNSET:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${SET:-d}", "value"),
        ("${UNSET-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${SET-d}", "value"),
        ("${UNSET:-}", ""),
        ("${UNSET:+r}", ""),
        ("${EMPTY:+r}", ""),
        ("${SET:+r}", "r"),
        ("${UNSET+r}", ""),
        ("${EMPTY+r}", "r"),
        ("${SET+r}", "r"),
        ("${SET:?e}", "value"),
        ("${SET?e}", "value"),
        ("${EMPTY?e}", ""),
        ("${UNSET:-${SET}}", "value"),
        ("${UNSET:-${EMPTY:-${OTHER}}}", "o"),
        ("${UNSET:-a${SET}b}c", "avaluebc"),
        ("${SET:+${OTHER}}", "o"),
        ("${UNSET:-$SET}", "value"),
        ("${UNSET:-{}}", "{}"),
        ('${UNSET:-{"a": {"b": 1}}}', '{"a": {"b": 1}}'),
        ("${UNSET:-a:-b}", "a:-b"),
        ("${UNSET:-http://h:80/?q}", "http://h:80/?q"),
        ("${UNSET-a-b}", "a-b"),
        ("${UNSET:-x} ${SET:-y}", "x value"),
        ("${UNSET:-$$}", "$"),
        ("one\n${SET}\nthree", "one\nvalue\nthree"),
    ],
    ids=str,
)
def test_substitute(template: str, expected: str) -> None:
    """Every operator, nested and escaped, gives what it must."""
    assert substitute(template, _VARIABLES.get) == expected


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("${", "malformed"),
        ("${}", "malformed"),
        ("${SET", "malformed"),
        ("${1}", "malformed"),
        ("${SET }", "malformed"),
        ("${SET!x}", "malformed"),
        ("${UNSET:-d\n}", "malformed"),
        ("${UNSET?}", "required variable UNSET is missing a value"),
        ("${EMPTY:?}", "required variable EMPTY is missing a value"),
        ("${UNSET:?say ${SET}}", "required variable UNSET is missing a value: say value"),
        ("${A:-" * 40 + "}" * 40, "nests variables more than 32 deep"),
    ],
    ids=lambda text: text[:30],
)
def test_bad_templates(template: str, told: str) -> None:
    """What cannot be replaced says why."""
    with pytest.raises(BadTemplate) as caught:
        substitute(template, _VARIABLES.get)
    assert told in caught.value.message


def test_growth_is_bounded() -> None:
    """Values that repeat one another do not grow without end."""
    with pytest.raises(BadTemplate, match="grows beyond"):
        substitute("$A" * 100, {"A": "x" * 100_000}.get)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("Yes", True),
        ("on", True),
        ("y", True),
        ("FALSE", False),
        ("no", False),
        ("off", False),
        ("n", False),
        ("1", None),
        ("", None),
    ],
)
def test_booleans(text: str, expected: bool | None) -> None:
    """Where Compose expects a boolean it takes YAML 1.1's words too."""
    assert boolean_of(text) is expected


def test_types_after_interpolation() -> None:
    """Values get their type after variables were replaced."""
    text = """
services:
  web:
    image: x
    init: ${FLAG}
    cpus: ${CPUS}
    scale: $COUNT
    healthcheck: {test: a, retries: '${COUNT}'}
    ports: [{target: $PORT, published: $PORT}]
    ulimits: {nofile: '${PORT}', nproc: {soft: '1', hard: $PORT}}
    mem_limit: ${MEMORY:-1}g
"""
    variables = {"FLAG": "yes", "CPUS": "0.5", "COUNT": "3", "PORT": "80"}
    web = service_of(text, environment=variables)
    assert (web["init"], web["cpus"], web["scale"]) == (True, 0.5, 3)
    assert web["healthcheck"]["retries"] == 3
    assert web["ports"][0]["target"] == 80
    assert web["ports"][0]["published"] == "80"
    assert web["ulimits"] == {"nofile": 80, "nproc": {"soft": 1, "hard": 80}}
    assert web["mem_limit"] == "1073741824"


def test_keys_are_never_touched() -> None:
    """Only values are replaced."""
    text = "services:\n  web: {image: x, labels: {$SET: $SET}}\n"
    assert service_of(text, environment=_VARIABLES)["labels"] == {"$SET": "value"}


def test_no_interpolation() -> None:
    """Without interpolation values stay as they are written, also where a type is expected."""
    text = "services:\n  web: {image: 'x:$TAG', cpus: $CPUS, ports: ['$PORT:80'], mem_limit: $M}\n"
    web = service_of(text, interpolate=False)
    assert (web["image"], web["cpus"], web["mem_limit"]) == ("x:$TAG", "$CPUS", "$M")
    assert web["ports"] == ["$PORT:80"]


def test_unset_variables_are_warnings() -> None:
    """A variable without a value or default is told with its place; one with a default is not."""
    text = "services:\n  web:\n    image: x:$TAG\n    hostname: ${HOST:-h}\n"
    warnings = canonical_of(text).warnings
    assert [str(each) for each in warnings] == [
        "/shop/compose.yaml:3:12: TAG: is not set and was replaced by nothing (set it, or write $$)"
    ]


def test_where_variables_come_from() -> None:
    """The environment wins over .env; named env files stand in for .env; the name is a variable."""
    text = "services: {web: {image: '$A-$B-$COMPOSE_PROJECT_NAME'}}\n"
    files = {"compose.yaml": text, ".env": "A=dot\nB=dot\n", "one": "A=1\n", "two": "B=2$A\n"}
    assert service_of(files, environment={"A": "env"})["image"] == "env-dot-shop"
    named = ("/shop/one", "/shop/two")
    assert service_of(files, env_files=named)["image"] == "1-21-shop"
    assert service_of(files, env_files=())["image"] == "--shop"
    assert problems_of(files, env_files=("/shop/three",)) == ["env file: there is no file three"]


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("name: one\n", {}, "one"),
        ("name: One Two_3\n", {}, "onetwo_3"),
        ("name: $N\n", {}, "env"),
        ("", {}, "shop"),
        ("", {"project_directory": "/a/My Dir"}, "mydir"),
        ("name: one\n", {"project_name": "two"}, "two"),
    ],
    ids=str,
)
def test_project_name(text: str, options: dict[str, str], expected: str) -> None:
    """The flag wins over the file's name, and that over the folder's; the result is proper."""
    text += "services: {web: {image: x}}\n"
    assert config_of(text, environment={"N": "env"}, **options)["name"] == expected


def test_bad_project_names() -> None:
    """A name that was asked for is not changed in silence."""
    text = "services: {web: {image: x}}\n"
    assert problems_of(text, project_name="My Shop") == [
        "name: 'My Shop' is not a project name: a-z, 0-9, - and _ only, and a letter or digit"
        " first ('myshop' would do)"
    ]
    assert problems_of("name: '!'\n" + text) == [
        "compose.yaml:1:7: name: the project has no name (give one with --project-name)"
    ]
