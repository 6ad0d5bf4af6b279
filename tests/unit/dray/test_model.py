"""Are the values of the model values? What holds of every class in `dray.model`."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dray import model
from dray.model import GossipKey, SecretSpec, StringMap, string_map
from dray.names import RequestId

MODULES = [
    importlib.import_module(f"dray.model.{found.name}")
    for found in pkgutil.iter_modules(model.__path__)
]
CLASSES: list[type[Any]] = sorted(
    {
        value
        for module in MODULES
        for value in vars(module).values()
        if dataclasses.is_dataclass(value) and isinstance(value, type)
    },
    key=lambda cls: cls.__name__,
)
SELF_EXPLAINING_FIELDS_MAX = 3  # a class with more says what each field means
LEAVES = (str, int, float, bool, bytes, type(None))


def leaf_types(hint: object) -> Iterator[object]:
    """Yield the types that a field's type is made of, tuples and unions taken apart."""
    origin = typing.get_origin(hint)
    if origin is None:
        yield hint
        return
    assert origin in (tuple, typing.Union, types.UnionType), f"a field of type {hint}"
    for argument in typing.get_args(hint):
        if argument is not Ellipsis:
            yield from leaf_types(argument)


def documented(cls: type) -> set[str]:
    """Return the names that the class docstring describes under `Attributes:`."""
    _, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")
    return set(re.findall(r"^    (\w+): \S", attributes, re.MULTILINE))


def public_names(module: types.ModuleType) -> set[str]:
    """Return the public names that a module itself assigns, defines or declares."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_there_is_a_model() -> None:
    """The walk below finds the classes."""
    assert len(CLASSES) > 60
    assert {"ServiceSpec", "NodeRecord", "Assignment"} <= {cls.__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_values_are_frozen_and_slotted(cls: type[Any]) -> None:
    """No field of a value can be set, and none can be added."""
    assert cls.__dataclass_params__.frozen
    assert "__slots__" in vars(cls)
    assert not hasattr(cls, "__dict__") or "__dict__" not in vars(cls)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_fields_are_of_immutable_types(cls: type[Any]) -> None:
    """A field holds text, numbers, bytes, enumerations, other values, or tuples of them."""
    for name, hint in typing.get_type_hints(cls).items():
        for leaf in leaf_types(hint):
            base = getattr(leaf, "__supertype__", leaf)  # what a NewType stands for
            assert isinstance(base, type), f"{cls.__name__}.{name}: {leaf}"
            is_value = base in CLASSES or issubclass(base, enum.Enum) or base in LEAVES
            assert is_value, f"{cls.__name__}.{name}: {leaf}"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_values_are_hashable(cls: type[Any]) -> None:
    """A value made of its defaults, and stand-ins for the rest, can be a key."""
    value = example(cls)
    assert hash(value) == hash(example(cls))
    assert value == example(cls)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_fields_are_documented(cls: type[Any]) -> None:
    """A class of more than a few fields says what each of them means, and names no others."""
    names = {field.name for field in dataclasses.fields(cls)}
    described = documented(cls)
    if described or len(names) > SELF_EXPLAINING_FIELDS_MAX:
        assert described == names


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_modules_list_their_public_names(module: types.ModuleType) -> None:
    """`__all__` of a module is what it defines; the package has all of them, sorted."""
    assert set(module.__all__) == public_names(module)
    assert set(module.__all__) <= set(model.__all__)
    for name in module.__all__:
        assert getattr(model, name) is getattr(module, name)


def test_the_package_lists_nothing_else() -> None:
    """`dray.model` has just what its modules have."""
    assert set(model.__all__) == {name for module in MODULES for name in module.__all__}
    assert len(set(model.__all__)) == len(model.__all__)


def test_secret_content_never_shows() -> None:
    """Neither form of text of a secret or a key holds any of its content."""
    content = b"hunter2-hunter2-hunter2-hunter2-"
    for value in (SecretSpec("k", "n", content=content), GossipKey(3, content)):
        nested = (value, {"x": [value]})
        for text in (repr(value), str(value), f"{value}", f"{value!s:>200}", repr(nested)):
            assert "hunter2" not in text
            assert content.hex() not in text
            assert "32 bytes" in text


def test_a_string_map_is_sorted() -> None:
    """Equal dictionaries give equal maps, and the map gives the dictionary back."""
    values = {"b": "2", "a": "1"}
    mapped: StringMap = string_map(values)
    assert mapped == (("a", "1"), ("b", "2")) == string_map({"a": "1", "b": "2"})
    assert dict(mapped) == values
    assert string_map({}) == ()


def example(cls: type[Any]) -> object:
    """Return a value of a class, with stand-ins for fields without a default."""
    hints = typing.get_type_hints(cls)
    given = {
        field.name: stand_in(hints[field.name])
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return cls(**given)


def stand_in(hint: object) -> object:
    """Return some value of a field's type."""
    if typing.get_origin(hint) is tuple:
        return ()
    leaf = next(leaf_types(hint))
    base = getattr(leaf, "__supertype__", leaf)
    assert isinstance(base, type), hint
    if issubclass(base, enum.Enum):
        return next(iter(base))
    return example(base) if base in CLASSES else base()


def test_a_revision_becomes_what_nodes_get() -> None:
    """Of a service revision, nodes learn what they act on: ports, order, whether it is a job."""
    spec = model.ServiceSpec(
        "db",
        model.TaskTemplate(model.ContainerSpec(model.ImageOptions("busybox"))),
        mode=model.ServiceMode(model.ServiceModeKind.REPLICATED_JOB),
        ports=(model.PublishedPort(80, 8080),),
        depends_on=(model.Dependency("cache"),),
        dray=model.ServiceExtensions(
            singleton=True, session_affinity=model.SessionAffinity.CLIENT_IP
        ),
    )
    record = model.ServiceRecord(
        "shop", spec, model.ServiceRevision(3), 0.0, RequestId("a" * 26), vip="10.224.0.1"
    )
    assert record.spec_entry == model.TaskSpecEntry(
        model.ServiceKey("shop", "db"),
        model.ServiceRevision(3),
        spec.task,
        spec.ports,
        spec.depends_on,
        is_job=True,
        singleton=True,
        client_ip_affinity=True,
    )
