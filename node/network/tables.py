"""Which nftables commands lead from what the table holds to what it should hold?

`Tables` collects *entries* from owners (a service, a task, the peers) and turns the difference to
what was last written into one transaction. It holds state and does no I/O: who has written the text
says so with `written`, and who could not asks for the whole table again with `rebuild_text`.

Two owners that want one key with different values (two services publish one port) both stay known;
the lower owner is served.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from typing import Final, NamedTuple

from node.network.ruleset import (
    FAMILIES,
    TABLE,
    Layout,
    group_structure,
    network_structure,
    pick_structure,
    place_structure,
    skeleton,
)

__all__ = ["ELEMENTS_PER_COMMAND", "Entries", "Entry", "Tables", "group_name", "network_name"]

ELEMENTS_PER_COMMAND: Final = 1_000
_DEFERRED: Final = "known"
_NAME_DIGITS: Final = 12  # 48 bits: no two of a cluster's networks share a name by chance


class Entry(NamedTuple):
    """A key of one set or map, as nftables writes it.

    A plain tuple: there are tens of thousands, hashed with every change.
    """

    name: str
    key: str


Entries = Mapping[Entry, str]
"""Values by entry; empty text in sets."""


@functools.lru_cache(maxsize=1_024)  # asked for every endpoint of a service that changed
def network_name(network: str) -> str:
    """Return the set that holds the addresses of a Compose network, by its full name."""
    return f"net_{_digest(network)}"


def group_name(kind: str, networks: Iterable[str]) -> str:
    """Return the chain of containers that are on exactly these networks: "to" or "ask"."""
    return f"{kind}_{_digest(chr(0).join(sorted(networks)))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_NAME_DIGITS]


class Tables:
    """What dray's table should hold, and what it is believed to hold."""

    def __init__(self, layout: Layout) -> None:
        """Start empty, with nothing written."""
        self._layout = layout
        self._wanted: dict[Entry, dict[str, str]] = {}
        self._owned: dict[str, Entries] = {}
        self._groups: dict[str, tuple[str, ...]] = {}
        self._shared: set[Entry] = set()  # wanted by several owners
        self._touched: dict[Entry, None] = {}  # in the order in which they were
        self._later: dict[Entry, None] = {}  # touched, and left out of a rebuild
        self._applied: dict[Entry, str] = {}
        self._declared: set[str] = set()
        self._sent: dict[Entry, str | None] = {}  # what the latest text changes
        self._sent_names: set[str] = set()

    @property
    def layout(self) -> Layout:
        """The addresses that the table is built around."""
        return self._layout

    def put(self, owner: str, entries: Entries) -> None:
        """Replace everything that an owner wants; nothing: it is forgotten."""
        before = self._owned.get(owner, {})
        for entry in sorted(before.keys() - entries.keys()):
            wanted = self._wanted[entry]
            del wanted[owner]
            if not wanted:
                del self._wanted[entry]
            if len(wanted) < 2:
                self._shared.discard(entry)
            self._touched[entry] = None
        for entry, value in entries.items():
            if before.get(entry) != value:
                wanted = self._wanted.setdefault(entry, {})
                wanted[owner] = value
                if len(wanted) > 1:
                    self._shared.add(entry)
                self._touched[entry] = None
        if entries:
            self._owned[owner] = entries
        else:
            self._owned.pop(owner, None)

    def owners(self) -> frozenset[str]:
        """Return everybody who wants something."""
        return frozenset(self._owned)

    def group(self, kind: str, networks: tuple[str, ...]) -> str:
        """Return the chain of containers on these Compose networks; it is made when it is used.

        Args:
            kind: "to": who may reach them; "ask": which services they may reach.
            networks: Full names.
        """
        name = group_name(kind, networks)
        self._groups[name] = tuple(network_name(network) for network in sorted(networks))
        return name

    def contested(self) -> dict[Entry, tuple[str, ...]]:
        """Return every entry that owners want with different values, with the owners in order."""
        found = {entry: self._wanted[entry] for entry in self._shared}
        return {
            entry: tuple(sorted(wanted))
            for entry, wanted in found.items()
            if len(set(wanted.values())) > 1
        }

    def value(self, entry: Entry) -> str | None:
        """Return what an entry should be; None: it should not be there."""
        wanted = self._wanted.get(entry)
        if not wanted:
            return None
        if len(wanted) == 1:
            (only,) = wanted.values()
            return only
        return wanted[min(wanted)]

    def change_text(self) -> str:
        """Return the transaction from what was last written to what is wanted; empty: nothing."""
        return self._difference(self._touched)

    def rebuild_text(self, layout: Layout | None = None) -> str:
        """Return the transaction that replaces the whole table, whatever is there.

        Who is merely known is left to the next `change_text`: half of the elements, and the only
        ones that nothing fails without.

        Args:
            layout: Addresses to build it around from now on; None: those of before.
        """
        self._layout = layout or self._layout
        self._applied, self._declared = {}, set()
        self._later = {entry: None for entry in self._wanted if entry.name == _DEFERRED}
        self._touched = {entry: None for entry in self._wanted if entry.name != _DEFERRED}
        return "\n".join(skeleton(self._layout)) + "\n" + self._difference(self._touched)

    def _difference(self, entries: Iterable[Entry]) -> str:
        gone: defaultdict[str, list[str]] = defaultdict(list)
        new: defaultdict[str, list[str]] = defaultdict(list)
        sent: dict[Entry, str | None] = {}
        applied, value = self._applied, self.value
        for entry in entries:  # tens of thousands
            old, wanted = applied.get(entry), value(entry)
            if old == wanted:
                continue
            name, key = entry
            sent[entry] = wanted
            if old is not None:
                gone[name].append(f"{key} : {old}" if old else key)
            if wanted is not None:
                new[name].append(f"{key} : {wanted}" if wanted else key)
        self._sent, self._sent_names = sent, set()
        if not gone and not new:
            return ""
        lines = self._missing_structures(new.keys())
        lines += _element_commands("delete", gone)
        lines += _element_commands("add", new)
        return "\n".join(lines) + "\n"

    def written(self) -> None:
        """Remember that the latest text was carried out."""
        self._declared |= self._sent_names
        held = {entry: value for entry, value in self._sent.items() if value is not None}
        self._applied |= held
        for entry in self._sent.keys() - held.keys():
            self._applied.pop(entry, None)
        self._touched, self._later = self._later, {}
        self._sent, self._sent_names = {}, set()

    def _missing_structures(self, names: Set[str]) -> list[str]:
        lines: list[str] = []
        for name, commands in self._structures(names, set(self._sent.values())):
            if name not in self._declared and name not in self._sent_names:
                self._sent_names.add(name)
                lines += commands
        return lines

    def _structures(self, names: Set[str], values: Set[str | None]) -> list[tuple[str, list[str]]]:
        """Return name and commands of everything that entries refer to, in order of making.

        Args:
            names: Sets and maps that get elements.
            values: All values of those.
        """
        targets = {
            value.removeprefix("goto ")
            for value in values
            if value is not None and value.startswith("goto ")
        }
        networks = {n for n in names if n.startswith("net_")}
        networks |= {n for target in targets for n in self._groups.get(target, ())}
        made = [(name, network_structure(name)) for name in sorted(networks)]
        made += [
            (target, group_structure(target, self._groups[target]))
            for target in sorted(targets & self._groups.keys())
        ]
        picks = [_parsed_pick(target) for target in sorted(targets - self._groups.keys())]
        places = {(family, place) for family, count, _ in picks for place in range(count)}
        places |= {place for name in names if (place := _parsed_place(name)) is not None}
        made += [
            (f"{family}_{place}", place_structure(family, place))
            for family, place in sorted(places)
        ]
        made += [
            (target, pick_structure(family, count, is_sticky=is_sticky))
            for target, (family, count, is_sticky) in zip(
                sorted(targets - self._groups.keys()), picks, strict=True
            )
        ]
        return made


def _parsed_pick(name: str) -> tuple[str, int, bool]:
    family, kind, count = name.split("_")
    assert family in FAMILIES, name
    return family, int(count), kind == "stick"


def _parsed_place(name: str) -> tuple[str, int] | None:
    """Return what `place_name` was made of; None for other sets."""
    family, _, place = name.partition("_")
    return (family, int(place)) if family in FAMILIES else None


def _element_commands(verb: str, elements: Mapping[str, list[str]]) -> list[str]:
    return [
        f"{verb} element ip {TABLE} {name} {{ {', '.join(keys[at : at + ELEMENTS_PER_COMMAND])} }}"
        for name, keys in elements.items()
        for at in range(0, len(keys), ELEMENTS_PER_COMMAND)
    ]
