"""Which part of a list comes next? Pages of at most 1,000 items, all as of one store revision.

A list of several pages keeps its state for a minute. A token says which state and where to go on;
when the state is gone (too old, or kept by another scheduler) the caller begins again, as the
contract says: OUT_OF_RANGE.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from dray.clock import Clock
from dray.convert.wire import PAGE_ITEMS_MAX
from dray.errors import DrayError, ErrorCode, InvalidRequest
from dray.names import SchedulerId
from scheduler.api.environment import States
from scheduler.api.views import State

__all__ = ["LISTS_MAX", "LIST_KEPT_S", "Page", "Pages"]

PAGE_BYTES_MAX: Final = 3_145_728  # of large items; a message has 4 MiB
LISTS_MAX: Final = 64  # lists of several pages at once; the oldest makes room
LIST_KEPT_S: Final = 60.0
_TOKEN: Final = re.compile(r"([a-z2-7]{26})\.([0-9]{1,18})\.([0-9]{1,18})")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page: its items, the token of the next one (empty: the last), and what it is as of."""

    items: tuple[T, ...]
    next_token: str
    state: State


class Pages:
    """The lists of this scheduler that are being read page by page."""

    def __init__(self, scheduler_id: SchedulerId, states: States, clock: Clock) -> None:
        """Take states from `states`, keep time by `clock`."""
        self._scheduler_id = scheduler_id
        self._states = states
        self._clock = clock
        self._kept: dict[int, tuple[float, State]] = {}
        self._last = int(clock.unix_s() * 1000)  # no number of this id's last process comes again

    def page(
        self,
        items_max: int,
        token: str,
        items_of: Callable[[State], Iterable[T]],
        size_of: Callable[[State, T], int] | None = None,
    ) -> Page[T]:
        """Return a page of a list.

        Args:
            items_max: Its size; 0: the largest.
            token: Of the page before; empty: the first page.
            items_of: Gives the list, always in the same order. A sequence is cut, anything else
                is run through up to the page's end.
            size_of: Bytes that an item takes in the reply, where some are large: a page ends
                before `PAGE_BYTES_MAX`, but has one item at least.

        Raises:
            InvalidRequest: The size or the token is malformed.
            DrayError: OUT_OF_RANGE: the list is not kept any more.
        """
        if not 0 <= items_max <= PAGE_ITEMS_MAX:
            raise InvalidRequest(
                f"page.items_max is {items_max}; it must be from 1 to {PAGE_ITEMS_MAX}",
                context={"field": "page.items_max"},
            )
        size = items_max or PAGE_ITEMS_MAX
        number, offset = self._place(token)
        state = self._kept[number][1] if number else self._states.current()
        items = items_of(state)
        end = offset + size + 1
        found = (
            tuple(items[offset:end])
            if isinstance(items, Sequence)
            else tuple(islice(items, offset, end))
        )
        size = _fitting(state, found[:size], size_of)
        if len(found) <= size:
            return Page(found, "", state)
        number = number or self._keep(self._states.kept(state))
        return Page(found[:size], f"{self._scheduler_id}.{number}.{offset + size}", state)

    def _place(self, token: str) -> tuple[int, int]:
        """Return which list a token is of, and where to go on; 0 and 0: a new one."""
        if not token:
            return 0, 0
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise InvalidRequest(
                "page.page_token is not one of ours", context={"field": "page.page_token"}
            )
        self._expire()
        number = int(match[2])
        if match[1] != self._scheduler_id or number not in self._kept:
            raise DrayError(
                "the list is not kept any more",
                code=ErrorCode.OUT_OF_RANGE,
                hint="list again from the first page",
            )
        return number, int(match[3])

    def _keep(self, state: State) -> int:
        self._expire()
        while len(self._kept) >= LISTS_MAX:
            del self._kept[min(self._kept)]
        self._last += 1
        self._kept[self._last] = (self._clock.monotonic_s() + LIST_KEPT_S, state)
        return self._last

    def _expire(self) -> None:
        now_s = self._clock.monotonic_s()
        for number in [key for key, (ends_s, _) in self._kept.items() if ends_s <= now_s]:
            del self._kept[number]


def _fitting(state: State, items: tuple[T, ...], size_of: Callable[[State, T], int] | None) -> int:
    """Return how many of the items fit into one message."""
    left = PAGE_BYTES_MAX
    for count, item in enumerate(items):
        left -= size_of(state, item) if size_of else 0
        if left < 0:
            return max(count, 1)
    return max(len(items), 1)
