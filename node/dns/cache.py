"""Which answers are kept ready to send, and when is one no longer true?

Most queries that a node sees are the same few, byte for byte, but for the id. So answers are kept
whole, by the query less its id, for each asker (`Asker`): answering is one look-up and one
concatenation. An answer has several variants, sent in turn, with its records in different orders.

- An answer depends on keys of the zone; `forget` drops all that depend on a key that changed. As
  long as none did, an answer of the zone stays true, however old.
- An answer may be made *ahead*, anew after one that was dropped, before anybody asks again.
- A *brief* answer (forwarded, or about nodes) lives until the next `drop_brief`, each second.
- Room is bounded, in answers of one asker and in bytes of all. The oldest answers go first, those
  of the asker that has most: nobody's flood of odd queries displaces the others'.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from node.dns.resolver import Answer
from node.dns.zone import Asker

__all__ = ["ANSWERS_PER_ASKER_MAX", "BYTES_MAX", "KEPT_VARIANT_BYTES_MAX", "AnswerCache", "Ready"]

ANSWERS_PER_ASKER_MAX: Final = 8_192
BYTES_MAX: Final = 64 * 2**20
KEPT_VARIANT_BYTES_MAX: Final = 65_536  # of all variants of one answer; a larger one keeps fewer
_OVERHEAD_BYTES: Final = 600  # of an answer: its places in the tables, the iterator, the tuple

Ready = dict[bytes, Iterator[bytes]]
"""Answers less their ids, by queries less their ids. `next` gives the variant whose turn it is."""


@dataclass(slots=True)
class _Shelf:
    """The answers for one asker.

    Attributes:
        ready: What is sent.
        kept: What each costs in bytes, and its keys; in the order in which they came.
        size_bytes: Their sum.
        brief: Those that the next second drops.
        ahead: Those that were made ahead and that nobody has asked for yet.
    """

    ready: Ready = field(default_factory=dict)
    kept: dict[bytes, tuple[int, frozenset[str]]] = field(default_factory=dict)
    size_bytes: int = 0
    brief: set[bytes] = field(default_factory=set)
    ahead: set[bytes] = field(default_factory=set)


class AnswerCache:
    """Answers that are ready to send."""

    def __init__(
        self,
        *,
        answers_per_asker_max: int = ANSWERS_PER_ASKER_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._answers_per_asker_max = answers_per_asker_max
        self._bytes_max = bytes_max
        self._shelves: dict[Asker, _Shelf] = {}
        self._dependants: dict[str, set[tuple[Asker, bytes]]] = {}
        self._size_bytes = 0

    def __len__(self) -> int:
        return sum(len(shelf.ready) for shelf in self._shelves.values())

    @property
    def size_bytes(self) -> int:
        """What all answers take, about."""
        return self._size_bytes

    def ready(self, asker: Asker) -> Ready:
        """Return an asker's answers: one and the same table, kept up to date, until `retain`."""
        return self._shelf(asker).ready

    def put(self, asker: Asker, query: bytes, answer: Answer, *, is_ahead: bool = False) -> None:
        """Keep an answer, if it may be reused.

        Args:
            asker: For whom.
            query: The query less its id.
            answer: The answer; its variants with any id.
            is_ahead: It was made before anybody has asked.
        """
        if not answer.is_reusable:
            return
        self._drop(asker, query)
        variants = tuple(_fitting(answer.variants))
        size = sum(map(sys.getsizeof, variants)) + sys.getsizeof(query) + _OVERHEAD_BYTES
        shelf = self._shelf(asker)
        sent: Iterator[bytes] = itertools.cycle(variants)
        if is_ahead:
            shelf.ahead.add(query)
            first = _noted(next(sent), lambda: shelf.ahead.discard(query))
            sent = itertools.chain(first, sent)
        shelf.ready[query] = sent
        shelf.kept[query] = (size, answer.keys)
        shelf.size_bytes += size
        self._size_bytes += size
        if answer.is_brief:
            shelf.brief.add(query)
        for key in answer.keys:
            self._dependants.setdefault(key, set()).add((asker, query))
        self._make_room(asker)

    def forget(self, keys: Iterable[str]) -> list[tuple[Asker, bytes]]:
        """Drop the answers that depend on any of these keys.

        Returns:
            Askers and queries of those of them that somebody has asked for since they were made.
        """
        asked: list[tuple[Asker, bytes]] = []
        for key in keys:
            for asker, query in tuple(self._dependants.get(key, ())):
                if query not in self._shelves[asker].ahead:
                    asked.append((asker, query))
                self._drop(asker, query)
        return asked

    def lacks(self, asker: Asker, query: bytes) -> bool:
        """Return whether an asker that is known has no answer to a query."""
        shelf = self._shelves.get(asker)
        return shelf is not None and query not in shelf.ready

    def drop_brief(self) -> None:
        """Drop the answers that nothing else drops."""
        for asker, shelf in self._shelves.items():
            for query in tuple(shelf.brief):
                self._drop(asker, query)

    def retain(self, askers: Iterable[Asker]) -> None:
        """Drop everything that is kept for others than these."""
        for asker in self._shelves.keys() - set(askers):
            for query in tuple(self._shelves[asker].kept):
                self._drop(asker, query)
            del self._shelves[asker]

    def _shelf(self, asker: Asker) -> _Shelf:
        shelf = self._shelves.get(asker)
        if shelf is None:
            shelf = self._shelves[asker] = _Shelf()
        return shelf

    def _drop(self, asker: Asker, query: bytes) -> None:
        shelf = self._shelves.get(asker)
        if shelf is None or query not in shelf.kept:
            return
        size, keys = shelf.kept.pop(query)
        del shelf.ready[query]
        shelf.brief.discard(query)
        shelf.ahead.discard(query)
        shelf.size_bytes -= size
        self._size_bytes -= size
        for key in keys:
            there = self._dependants[key]
            there.discard((asker, query))
            if not there:
                del self._dependants[key]

    def _make_room(self, asker: Asker) -> None:
        shelf = self._shelves[asker]
        if len(shelf.kept) > self._answers_per_asker_max:
            self._drop(asker, next(iter(shelf.kept)))
        while self._size_bytes > self._bytes_max:
            largest = max(self._shelves, key=self._size_of)
            self._drop(largest, next(iter(self._shelves[largest].kept)))

    def _size_of(self, asker: Asker) -> int:
        return self._shelves[asker].size_bytes


def _noted(variant: bytes, note: Callable[[], None]) -> Iterator[bytes]:
    """Yield one variant, noting that it was asked for."""
    note()
    yield variant


def _fitting(variants: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield variants less their ids, at least one, as many as may be kept of one answer."""
    room = KEPT_VARIANT_BYTES_MAX
    for at, variant in enumerate(variants):
        room -= len(variant)
        if at and room < 0:
            return
        yield variant[2:]
