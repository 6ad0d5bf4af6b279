"""How is a map of millions looked at while it changes? Copies are of the parts that changed.

`Shards` is the one writer's map. `view()` is an immutable map of that moment and costs nothing but
a tuple; a part is copied when it is written for the first time after a view. With 2,000,000 reports
a change copies 2,000 of them rather than all.

What differs between two views is asked again and again, of views that follow each other closely: so
each one knows which keys were written before it, as far back as that is worth its memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

__all__ = ["ShardView", "Shards", "changed_keys"]

_SHARDS: Final = 1_024
_WRITTEN_KEYS_MAX: Final = 100_000  # of the last views; between older ones everything is compared
_V = TypeVar("_V")
_K = TypeVar("_K", bound=str)


class ShardView(Mapping[_K, _V]):
    """What the map was at one moment."""

    __slots__ = ("_number", "_owner", "_parts", "_written")

    def __init__(
        self,
        parts: tuple[dict[_K, _V], ...],
        owner: object,
        number: int,
        written: tuple[frozenset[_K], ...],
    ) -> None:
        """Keep the parts, which nobody writes any more.

        Args:
            parts: The parts.
            owner: Whose view it is.
            number: How many views there were before it.
            written: The keys written between the last views, the last one's last.
        """
        self._parts = parts
        self._owner = owner
        self._number = number
        self._written = written

    def written_since(self, before: ShardView[_K, _V]) -> set[_K] | None:
        """Return the keys that were written since an earlier view; None: nobody knows any more."""
        needed = self._number - before._number
        if self._owner is not before._owner or not 0 <= needed <= len(self._written):
            return None
        recent = self._written[len(self._written) - needed :]
        return {key for keys in recent for key in keys}

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
        written = after.written_since(before)
        if written is not None:
            return [key for key in written if before.get(key) is not after.get(key)]
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

    def __init__(self, written_keys_max: int = _WRITTEN_KEYS_MAX) -> None:
        """Start empty.

        Args:
            written_keys_max: How many keys are remembered as written between the last views.
        """
        self._written_keys_max = written_keys_max
        self._parts: list[dict[_K, _V]] = [{} for _ in range(_SHARDS)]
        self._is_seen = [False] * _SHARDS
        self._view: ShardView[_K, _V] | None = None
        self._number = 0
        self._fresh: set[_K] = set()
        self._written: tuple[frozenset[_K], ...] = ()

    def get(self, key: _K) -> _V | None:
        """Return a value, or None."""
        return self._parts[_part(key)].get(key)

    def put(self, key: _K, value: _V) -> None:
        """Set a value."""
        self._own(_part(key))[key] = value
        self._note(key)

    def drop(self, key: _K) -> None:
        """Remove a key; one that is not there is fine."""
        number = _part(key)
        if key in self._parts[number]:
            del self._own(number)[key]
            self._note(key)

    def view(self) -> ShardView[_K, _V]:
        """Return the map as it is now; later changes do not show in it."""
        if self._view is None:
            self._note_written()
            self._view = ShardView(tuple(self._parts), self, self._number, self._written)
            self._is_seen = [True] * _SHARDS
        return self._view

    def _note_written(self) -> None:
        """Number the next view; keep what was written before it and the last ones, in bounds."""
        self._number += 1
        kept: list[frozenset[_K]] = []
        size = 0
        for keys in (frozenset(self._fresh), *reversed(self._written)):
            size += len(keys) + 1
            if size > self._written_keys_max:
                break
            kept.insert(0, keys)
        self._written = tuple(kept)
        self._fresh = set()

    def _note(self, key: _K) -> None:
        """Note that a key is written; of too many nobody will ask."""
        if len(self._fresh) <= self._written_keys_max:
            self._fresh.add(key)

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
