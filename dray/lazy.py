"""How does a package offer many names, and load only what is asked for?

A command imports the model and the views for the sake of a few of their 150 classes, and making a
class takes half a millisecond. So these packages name the module of each public name, and load it
when the name is first used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping

__all__ = ["importing"]


def importing(package: str, homes: Mapping[str, Iterable[str]]) -> Callable[[str], object]:
    """Return the `__getattr__` of a package (PEP 562).

    Args:
        package: Its name.
        homes: Its public names, by the module below it that defines them.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> object:
        """Return one of the package's names, and keep it there."""
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        module = importlib.import_module(f"{package}.{home_of[name]}")
        value: object = getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return find
