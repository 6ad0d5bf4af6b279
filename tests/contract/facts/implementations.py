"""Which implementations of `FactView` are there? A new one is added here and must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from dray.model import Fact, FactView, Member
from node.gossip.facts import FactStore

__all__ = ["MAKERS", "Changes", "MakeViews"]

Changes: TypeAlias = Iterable[Member | Fact]
MakeViews: TypeAlias = Callable[[Changes], list[FactView]]
"""Applies the changes in order; returns the view before the first and the one after each."""


def _store_views(changes: Changes) -> list[FactView]:
    store = FactStore()
    views: list[FactView] = [store.view()]
    for change in changes:
        if isinstance(change, Member):
            store.put_member(change)
        else:
            store.merge(change, 0.0)
        views.append(store.view())
    return views


MAKERS: dict[str, MakeViews] = {"store": _store_views}
