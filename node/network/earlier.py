"""What did the table of an earlier daemon lead to, and which of that may still be served?

Right after a start gossip has told of nothing or of a part. Until it has told of the rest
(`handover.py`), what the earlier table led to goes into the new one behind everything that this
daemon knows itself: each service that gossip has told of replaces its own entries, and containers
of this node that are gone leave at once. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from node.network.ruleset import FAMILIES, STATICS, pick_name, place_name
from node.network.tables import Entries, Entry

__all__ = ["Earlier"]

_SET: Final = re.compile(r"^\t(?:set|map) (\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_ELEMENTS: Final = re.compile(r"elements = \{(.*?)\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where connections to one key went, place by place."""

    places: tuple[str, ...]
    is_sticky: bool


class Earlier:
    """The services and the containers of other nodes that an earlier table knew."""

    def __init__(self, listing: str) -> None:
        """Read what `nft list table` printed; what is not understood is left out."""
        found = {match[1]: dict(_elements(match[2])) for match in _SET.finditer(listing)}
        self._members = {
            Entry(name, key): ""
            for name, elements in found.items()
            if name in ("known", STATICS) or name.startswith("net_")
            for key in elements
        }
        self._targets: dict[Entry, _Target] = {}
        for family in FAMILIES:
            for key, verdict in found.get(f"{family}s", {}).items():
                pick = re.fullmatch(rf"goto {family}_(pick|stick)_(\d+)", verdict)
                places = [
                    found.get(place_name(family, place), {}).get(key, "")
                    for place in range(int(pick[2]) if pick else 0)
                ]
                if pick and all(places):
                    target = _Target(tuple(places), pick[1] == "stick")
                    self._targets[Entry(f"{family}s", key)] = target

    def entries(self) -> Entries:
        """Return what of it is to be in the table."""
        entries: dict[Entry, str] = dict(self._members)
        for found, target in self._targets.items():
            family, count = found.name.removesuffix("s"), len(target.places)
            entries[found] = f"goto {pick_name(family, count, is_sticky=target.is_sticky)}"
            for place, where in enumerate(target.places):
                entries[Entry(place_name(family, place), found.key)] = where
        return entries

    def addresses(self) -> frozenset[str]:
        """Return the containers that it leads to."""
        return frozenset(
            _address(place) for target in self._targets.values() for place in target.places
        )

    def drop(self, is_gone: Callable[[str], bool], only: Iterable[Entry] | None = None) -> bool:
        """Leave out containers that are gone; return whether anything changed.

        Args:
            is_gone: Whether nothing is to be sent to an address any more.
            only: The keys to look at: of one service; None: all.
        """
        looked_at = self._targets.keys() if only is None else self._targets.keys() & set(only)
        changed = False
        for found in list(looked_at):
            target = self._targets[found]
            kept = [place for place in target.places if not is_gone(_address(place))]
            if len(kept) == len(target.places):
                continue
            changed = True
            if not kept:
                del self._targets[found]
                continue
            # Clients of an endpoint that is gone are spread over the others.
            count = len(target.places) if target.is_sticky else len(kept)
            places = tuple(kept[place % len(kept)] for place in range(count))
            self._targets[found] = _Target(places, target.is_sticky)
        return changed


def _elements(body: str) -> Iterator[tuple[str, str]]:
    match = _ELEMENTS.search(body)
    for element in match[1].split(",") if match else ():
        key, _, value = " ".join(element.split()).partition(" : ")
        if key:
            yield key, value


def _address(place: str) -> str:
    return place.partition(" ")[0]
