"""What was computed of a cluster and holds for the next view of it? Attributes and scores."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scheduler.placement.node import PlacementNode

__all__ = ["Attributes", "Kept", "Lineage", "attribute_reader"]

AttributeReader: TypeAlias = Callable[[PlacementNode], str | None]

LABEL_PREFIX: Final = "node.labels."
MASKS_MAX: Final = 256
KEPT_MAX: Final = 256
"""Kinds of task of which ranks are kept for one cluster: 17 bytes a node each."""

ASKS_MAX: Final = 4096
"""Services of which it is kept what they ask for."""

CHANGES_MAX: Final = 4096
"""Views of one lineage."""

_DRIFT_SHARE: Final = 8  # a mix is made anew when one task in so many has changed
_ATTRIBUTES: Final[dict[str, AttributeReader]] = {
    "node.id": lambda node: node.node_id,
    "node.hostname": lambda node: node.name,
    "node.name": lambda node: node.name,
    "node.role": lambda node: "worker",  # control-plane processes are no nodes
    "node.platform.os": lambda node: node.platform.os,
    "node.platform.arch": lambda node: node.platform.architecture,
}


def attribute_reader(key: str) -> AttributeReader | None:
    """Return what reads `node.hostname`, `node.labels.x` … of a node; None: there is no such key.

    The reader returns None for a node without that label.
    """
    if key.startswith(LABEL_PREFIX):
        label = key.removeprefix(LABEL_PREFIX)
        return lambda node: next((value for name, value in node.labels if name == label), None)
    return _ATTRIBUTES.get(key)


class Attributes:
    """Names, labels, taints and platforms of the nodes, as columns made when first asked for.

    Attributes:
        nodes: The nodes, row by row.
        masks: Conditions on these attributes: what makes them, and bool[n_nodes]. Bounded.
    """

    def __init__(self, nodes: Sequence[PlacementNode]) -> None:
        """Remember the nodes."""
        self.nodes = nodes
        self.masks: dict[Hashable, Any] = {}
        self._codes: dict[str, tuple[NDArray[np.intp], dict[str | None, int]]] = {}
        self._prices: dict[str, NDArray[np.int64]] = {}

    def codes(self, key: str) -> tuple[NDArray[np.intp], dict[str | None, int]] | None:
        """Return a number for the value of each node, intp[n_nodes], and the number of each value.

        None when nodes have no such attribute. A node without the label has the value None.
        """
        found = self._codes.get(key)
        if found is not None:
            return found
        read = attribute_reader(key)
        if read is None:
            return None
        numbers: dict[str | None, int] = {}
        codes = [numbers.setdefault(read(node), len(numbers)) for node in self.nodes]
        found = (np.array(codes, dtype=np.intp), numbers)
        self._codes[key] = found
        return found

    def mask(self, key: Hashable, test: Callable[[PlacementNode], bool]) -> NDArray[np.bool_]:
        """Return on which nodes a test holds: bool[n_nodes]; `key` says all that it depends on."""
        found: NDArray[np.bool_] | None = self.masks.get(key)
        if found is None:
            found = np.array([test(node) for node in self.nodes], dtype=np.bool_)
            self.keep(key, found)
        return found

    def keep(self, key: Hashable, value: object) -> None:
        """Keep something that depends on the attributes alone; the oldest ones go for it."""
        self.masks = _bounded({**self.masks, key: value}, MASKS_MAX)

    def price_ranks(self, label: str) -> NDArray[np.int64]:
        """Return the rank of each node's price, from 0 for the cheapest: int64[n_nodes].

        A node without a price, or with one that is no number, is as dear as the dearest.
        """
        found = self._prices.get(label)
        if found is None:
            told = [_price(node, label) for node in self.nodes]
            known = sorted({price for price in told if price is not None})
            rank = {price: number for number, price in enumerate(known)}
            last = max(len(known) - 1, 0)
            ranks = [last if price is None else rank[price] for price in told]
            found = self._prices[label] = np.array(ranks, dtype=np.int64)
        return found


def _price(node: PlacementNode, label: str) -> float | None:
    text = next((value for name, value in node.labels if name == label), "")
    try:
        price = float(text)
    except ValueError:
        return None
    return price if 0 <= price < float("inf") else None


@dataclass(frozen=True, slots=True)
class Kept:
    """Columns that were computed of a view.

    Attributes:
        columns: They belong to whoever takes them, and are changed in place.
        position: Of the view.
    """

    columns: tuple[NDArray[Any], ...]
    position: int


class Lineage:
    """What a view and those folded from it share: which rows differ between any two of them.

    Threads may share one: columns are taken out by one of them at a time, each in a single step.

    Attributes:
        changes: Rows that differ between view i and view i + 1.
        scoring: What columns of this lineage were scored by; None: none were.
        asks: What services ask for, by identity of their specification. At most `ASKS_MAX`.
    """

    def __init__(self) -> None:
        """Begin with one view."""
        self.changes: list[NDArray[np.intp]] = []
        self.scoring: Any = None
        self.asks: OrderedDict[Hashable, Any] = OrderedDict()
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()

    def grown(
        self, position: int, rows: NDArray[np.intp], drift: int, tasks: int
    ) -> tuple[Lineage, int]:
        """Return the lineage and position of the view that follows the one at a position.

        A new lineage begins when too much has changed for the mix to stay, and when the view has a
        successor already.
        """
        is_newest = position == len(self.changes)
        if not is_newest or position >= CHANGES_MAX or drift * _DRIFT_SHARE > tasks:
            return Lineage(), 0
        self.changes.append(rows)
        return self, position + 1

    def take(self, key: Hashable, position: int) -> tuple[Kept, NDArray[np.intp]] | None:
        """Take columns out, for a view; nobody else has them until they are kept again.

        Args:
            key: What they are of.
            position: The view.

        Returns:
            The columns and the rows in which they may not hold, some more than once; None when
            there are none, or somebody else has them.
        """
        found = self._kept.pop(key, None)
        if found is None:
            return None
        first, last = sorted((found.position, position))
        if first == last:
            return found, np.zeros(0, dtype=np.intp)
        return found, np.concatenate(self.changes[first:last])

    def keep(self, key: Hashable, columns: Kept) -> None:
        """Keep columns; those that were kept longest go for them."""
        self._kept[key] = columns
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def keep_ask(self, key: Hashable, ask: object) -> None:
        """Keep what a service asks for; the oldest goes for it."""
        self.asks[key] = ask
        if len(self.asks) > ASKS_MAX:
            self.asks.popitem(last=False)


def _bounded(values: dict[Hashable, Any], most: int) -> dict[Hashable, Any]:
    """Return the newest values. Mappings are replaced and never changed: others may read them."""
    beyond = len(values) - most
    return dict(islice(values.items(), beyond, None)) if beyond > 0 else values
