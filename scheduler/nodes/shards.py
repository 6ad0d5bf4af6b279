"""How is a map of millions looked at while it changes? Copies are of the parts that changed.

`Shards` is the one writer's map. `view()` is an immutable map of that moment and costs nothing but
a tuple; a part is copied when it is written for the first time after a view. With 2,000,000 reports
a change copies 2,000 of them rather than all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

__all__ = ["ShardView", "Shards", "changed_keys"]

_SHARDS: Final = 1_024
_V = TypeVar("_V")
_K = TypeVar("_K", bound=str)


class ShardView(Mapping[_K, _V]):
    """What the map was at one moment."""

    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[dict[_K, _V], ...]) -> None:
        """Keep the parts, which nobody writes any more."""
        self._parts = parts

    @property
    def parts(self) -> tuple[dict[_K, _V], ...]:
        """The parts, to be looked at only."""
        return self._parts

    def __getitem__(self, key: _K) -> _V:
        return self._parts[_part(key)][key]

    def __iter__(self) -> Iterator[_K]:
        for part in self._parts:
            yield from part

    def __len__(self) -> int:
        return sum(map(len, self._parts))


def changed_keys(before: Mapping[_K, _V], after: Mapping[_K, _V]) -> list[_K]:
    """Return the keys whose values are not the same object.

    Of two views of one `Shards` only the parts that were written in between are looked at.
    """
    if isinstance(before, ShardView) and isinstance(after, ShardView):
        return [
            key
            for old, new in zip(before.parts, after.parts, strict=True)
            if old is not new
            for key in changed_keys(old, new)
        ]
    found = [key for key, value in after.items() if before.get(key) is not value]
    return found + [key for key in before if key not in after]


class Shards(Generic[_K, _V]):
    """A map from ids to values that is written by one and looked at by others."""

    def __init__(self) -> None:
        """Start empty."""
        self._parts: list[dict[_K, _V]] = [{} for _ in range(_SHARDS)]
        self._is_seen = [False] * _SHARDS
        self._view: ShardView[_K, _V] | None = None

    def get(self, key: _K) -> _V | None:
        """Return a value, or None."""
        return self._parts[_part(key)].get(key)

    def put(self, key: _K, value: _V) -> None:
        """Set a value."""
        self._own(_part(key))[key] = value

    def drop(self, key: _K) -> None:
        """Remove a key; one that is not there is fine."""
        number = _part(key)
        if key in self._parts[number]:
            del self._own(number)[key]

    def view(self) -> ShardView[_K, _V]:
        """Return the map as it is now; later changes do not show in it."""
        if self._view is None:
            self._view = ShardView(tuple(self._parts))
            self._is_seen = [True] * _SHARDS
        return self._view

    def _own(self, number: int) -> dict[_K, _V]:
        """Return a part that no view holds."""
        self._view = None
        if self._is_seen[number]:
            self._parts[number] = dict(self._parts[number])
            self._is_seen[number] = False
        return self._parts[number]


def _part(key: str) -> int:
    """Return which part an id is in: by its first characters, not by `hash`, which is random."""
    return (ord(key[0]) * 32 + ord(key[1])) % _SHARDS
