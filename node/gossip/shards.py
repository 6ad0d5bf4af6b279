"""How can a map change without its older versions changing, at the cost of a small part of it?

`ShardMap` is an immutable map split into shards: setting a key copies the one shard that holds it
and shares the others. With the 1,000 members that gossip is built for a shard has about 16 entries.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

__all__ = ["SHARDS", "ShardMap"]

SHARDS: Final = 64

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ShardMap(Generic[K, V]):
    """An immutable map. Iteration order is not defined: whoever shows it sorts."""

    __slots__ = ("_count", "_shards")

    def __init__(self, shards: tuple[dict[K, V], ...] | None = None, count: int = 0) -> None:
        self._shards: tuple[dict[K, V], ...] = shards or ({},) * SHARDS
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        for shard in self._shards:
            yield from shard

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None."""
        return self._shards[hash(key) % SHARDS].get(key)

    def with_item(self, key: K, value: V) -> ShardMap[K, V]:
        """Return a map that has `value` at `key`."""
        at = hash(key) % SHARDS
        shard = dict(self._shards[at])
        shard[key] = value
        return self._with_shard(at, shard)

    def without(self, key: K) -> ShardMap[K, V]:
        """Return a map that has nothing at `key`."""
        at = hash(key) % SHARDS
        if key not in self._shards[at]:
            return self
        shard = dict(self._shards[at])
        del shard[key]
        return self._with_shard(at, shard)

    def _with_shard(self, at: int, shard: dict[K, V]) -> ShardMap[K, V]:
        count = self._count + len(shard) - len(self._shards[at])
        return ShardMap((*self._shards[:at], shard, *self._shards[at + 1 :]), count)
