"""Which small value types does the rest of the model share?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

__all__ = ["StringMap", "string_map"]

StringMap: TypeAlias = tuple[tuple[str, str], ...]
"""An immutable, hashable map of text to text: pairs sorted by key, each key once.

`dict(value)` gives a dict.
"""


def string_map(values: Mapping[str, str]) -> StringMap:
    """Return `values` as a `StringMap`."""
    return tuple(sorted(values.items()))
