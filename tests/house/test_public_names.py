"""Is what the library exports exactly what it says it exports?"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import dray
from tests.house import tree


def public_packages() -> list[str]:
    """Return the library and its public packages, the generated ones excepted."""
    found = ["dray"]
    for info in pkgutil.walk_packages(dray.__path__, "dray."):
        is_public = not any(part.startswith("_") for part in info.name.split("."))
        if info.ispkg and is_public and not info.name.startswith("dray.api"):
            found.append(info.name)
    return found


def bound_names(path: Path) -> Iterator[str]:
    """Yield the public names that an `__init__.py` defines or takes from the library."""
    for node in tree.parsed(path).body:
        if isinstance(node, ast.ImportFrom) and (
            node.level or (node.module or "").startswith("dray")
        ):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


@pytest.mark.parametrize("name", public_packages())
def test_all_is_what_the_package_offers(name: str) -> None:
    """`__all__` lists each public name of a package once, and nothing that is not there."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    path = Path(module.__file__)
    listed = list(getattr(module, "__all__", []))
    offered = {bound for bound in bound_names(path) if not bound.startswith("_")}
    assert len(listed) == len(set(listed)), f"{path}:1: a name is listed twice"
    assert offered <= set(listed), f"{path}:1: not in __all__: {sorted(offered - set(listed))}"
    absent = [entry for entry in listed if not hasattr(module, entry)]
    assert not absent, f"{path}:1: in __all__ but not there: {absent}"
