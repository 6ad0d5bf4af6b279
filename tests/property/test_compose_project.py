"""Is the conversion deterministic, blind to the order of keys, and does it drop nothing?"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from dray.compose.treatment import AVAILABLE, ROWS
from tests.compose_views import ALL, a_config, project_of

_TEXT: Final = st.text("abcz09._-", min_size=1, max_size=8)
_MAP: Final = st.dictionaries(_TEXT, _TEXT, max_size=3)
_LIST: Final = st.lists(_TEXT, max_size=3)
_ANY: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70_000) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_DURATION: Final = st.sampled_from(["0s", "10s", "1m30s", "250ms"])
_SIZE: Final = st.integers(0, 2**40).map(str)
_SERVICE: Final[dict[str, st.SearchStrategy[Any]]] = {
    "command": st.none() | _LIST,
    "environment": st.dictionaries(_TEXT, st.none() | _TEXT, max_size=3),
    "labels": _MAP,
    "user": _TEXT,
    "privileged": st.booleans(),
    "cap_add": _LIST,
    "restart": st.sampled_from(["no", "always", "on-failure:3", "unless-stopped"]),
    "mem_limit": _SIZE,
    "cpus": st.sampled_from([0.25, 1, "1.5"]),
    "stop_grace_period": _DURATION,
    "container_name": _TEXT,
    "expose": _LIST,
    "init": st.booleans(),
    "tmpfs": st.lists(_TEXT.map("/{}".format), max_size=2),
    "healthcheck": st.fixed_dictionaries(
        {"test": _LIST.map(lambda rest: ["CMD", *rest])},
        optional={"interval": _DURATION, "retries": st.integers(0, 9)},
    ),
    "ports": st.lists(
        st.fixed_dictionaries(
            {"target": st.integers(1, 65_535), "mode": st.sampled_from(["ingress", "host"])},
            optional={"published": st.integers(1, 65_535).map(str), "host_ip": _TEXT},
        ),
        max_size=3,
    ),
    "volumes": st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["volume", "bind", "tmpfs", "image", "npipe", "cluster"]),
                "target": _TEXT.map("/{}".format),
            },
            optional={"source": _TEXT, "read_only": st.booleans(), "bind": st.just({})},
        ),
        max_size=3,
    ),
    "networks": st.dictionaries(
        st.sampled_from(["default", "back"]), st.none() | st.just({"aliases": ["a"]}), max_size=2
    ),
    "deploy": st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["replicated", "global", "replicated-job", "global-job"]),
            "replicas": st.integers(0, 5),
            "labels": _MAP,
            "update_config": st.fixed_dictionaries({}, optional={"delay": _DURATION}),
            "placement": st.fixed_dictionaries(
                {}, optional={"constraints": st.just(["node.role == worker"])}
            ),
        },
    ),
    "x-dray": st.fixed_dictionaries(
        {},
        optional={
            "priority": st.integers(-2000, 2000),
            "singleton": st.booleans(),
            "disk": _SIZE,
            "affinity": _LIST,
            "policy": st.sampled_from(["binpack", "spread", "pack"]),
        },
    ),
}
SERVICES: Final = st.fixed_dictionaries({}, optional=_SERVICE)
TOP: Final = st.fixed_dictionaries(
    {},
    optional={
        "volumes": st.dictionaries(_TEXT, st.just({"driver": "local"}), max_size=2),
        "configs": st.dictionaries(_TEXT, st.just({"file": "/a"}), max_size=2),
    },
)


def _shuffled(value: Any, draw: Any) -> Any:
    """Return an equal value with the keys of all mappings in another order."""
    if isinstance(value, dict):
        keys = draw(st.permutations(sorted(value)))
        return {key: _shuffled(value[key], draw) for key in keys}
    if isinstance(value, list):
        return [_shuffled(item, draw) for item in value]
    return value


@given(SERVICES, TOP, st.data())
def test_the_order_of_keys_does_not_matter(
    service: dict[str, Any], top: dict[str, Any], data: st.DataObject
) -> None:
    """The same config, in any order of keys, gives the same project and the same findings."""
    config = a_config(service, **top)
    for available in (ALL, AVAILABLE):
        first = project_of(config, available=available)
        assert project_of(config, available=available) == first
        assert project_of(_shuffled(config, data.draw), available=available) == first


@given(SERVICES, TOP)
def test_nothing_is_dropped_in_silence(service: dict[str, Any], top: dict[str, Any]) -> None:
    """Every key is read, refused, at fault or listed as ignored; the walk finds none left over."""
    result = project_of(a_config(service, **top))
    unknown = [each for each in result.refusals if "does not know this key" in each.message]
    assert unknown == []


@given(SERVICES, st.data())
def test_an_unknown_key_is_always_refused(service: dict[str, Any], data: st.DataObject) -> None:
    """A key that the table does not have is told wherever it is put."""
    config: dict[str, Any] = a_config(service)
    web = config["services"]["web"]
    places = [config, web, *(web[key] for key in ("deploy", "healthcheck", "x-dray") if key in web)]
    place = data.draw(st.sampled_from(places))
    place["no_such_key"] = data.draw(_TEXT)
    result = project_of(config)
    told = [*result.refusals, *result.faults, *result.problems]
    assert any(each.path.endswith("no_such_key") for each in told)


@given(SERVICES)
def test_without_refused_keys_nothing_is_refused(service: dict[str, Any]) -> None:
    """What --allow-ignored leaves out is what was refused, and no more."""
    config = a_config(service)
    strict = project_of(config, available=AVAILABLE)
    lenient = project_of(config, available=AVAILABLE, allow_ignored=True)
    assert lenient.refusals == ()
    left_out = {each.path for each in lenient.ignored}
    assert {each.path for each in strict.refusals} <= left_out


@given(st.dictionaries(st.sampled_from([*_SERVICE, "gpus", "secrets", "build"]), _ANY))
def test_no_value_breaks_the_conversion(service: dict[str, Any]) -> None:
    """Values of any shape end in findings, never in an exception."""
    result = project_of(a_config(service))
    assert result.project.services[0].name == "web"


_PATHS: Final = [
    row.path.replace("[]", ".[]").split(".")
    for row in ROWS
    if "." in row.path or row.path == "x-dray"
]


def _put(around: Any, steps: list[str], value: Any) -> None:
    """Put a value at a path of the table, making what is around it."""
    step, *rest = steps
    if isinstance(around, list):
        if not around:
            around.append({} if rest else value)
        inner, rest = around[0], rest
    else:
        key = "web" if step == "*" else step
        empty: Any = [] if rest[:1] == ["[]"] else {}
        inner = around.setdefault(key, empty if rest else value)
    if rest and isinstance(inner, dict | list):
        _put(inner, rest, value)


@given(st.lists(st.tuples(st.sampled_from(_PATHS), _ANY), min_size=1, max_size=6))
def test_no_value_of_any_key_breaks_the_conversion(told: list[tuple[list[str], Any]]) -> None:
    """A value of any shape at any key of the table ends in findings, never in an exception."""
    config: dict[str, Any] = {"name": "shop", "services": {"web": {"image": "nginx"}}}
    for steps, value in told:
        _put(config, steps, value)
    if isinstance(config["services"], dict):
        result = project_of(config)
        assert [each for each in result.faults if not each.message] == []
        assert project_of(config) == result
