"""What does one scheduler of a simulation have of the store? Latency, faults, and being paused.

Behind it is the store in memory that the contract suite holds to the port. Here calls take time,
get lost before or after they were carried out, and wait while their process is stopped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from dray.errors import AmbiguousWrite, Unavailable
from dray.model import StoreRevision
from scheduler.store.base import (
    Changes,
    Committed,
    Conflict,
    LeaseId,
    Listing,
    Put,
    Reading,
    StoreStatus,
    Txn,
)
from scheduler.store.keys import ROOT, Kind, prefix_of
from scheduler.store.memory import MemoryData, MemoryStore

__all__ = ["Gate", "SimStore", "Way"]

_T = TypeVar("_T")
_ASSIGNMENTS = prefix_of(Kind.ASSIGNMENT)


@dataclass(slots=True)
class Way:
    """The way from one process to the store.

    Attributes:
        latency_s: Longest time of one direction.
        fault_rate: Share of commits that go wrong.
        conflict_rate: Share of a leader's commits that find an assignment written by another hand.
        is_cut: Nothing gets there or back.
        is_dead: The process was killed: it does nothing any more.
        pause_at_commit_s: The process is stopped for so long when it is about to commit next; 0: it
            is not.
    """

    latency_s: float = 0.004
    fault_rate: float = 0.0
    conflict_rate: float = 0.0
    is_cut: bool = False
    is_dead: bool = False
    pause_at_commit_s: float = 0.0


class Gate:
    """Whether a process runs."""

    def __init__(self) -> None:
        """Start running."""
        self._open = asyncio.Event()
        self._open.set()
        self.paused_at_s = 0.0

    @property
    def is_paused(self) -> bool:
        """Whether it is stopped."""
        return not self._open.is_set()

    def pause(self) -> None:
        """Stop it."""
        self._open.clear()
        self.paused_at_s = asyncio.get_running_loop().time()

    def resume(self) -> None:
        """Let it go on."""
        self._open.set()

    async def __call__(self) -> None:
        """Wait while it is stopped."""
        await self._open.wait()


class SimStore:
    """One client of the store."""

    def __init__(
        self,
        data: MemoryData,
        way: Way,
        gate: Gate,
        rng: random.Random,
        on_send: Callable[[Txn], None],
        on_commit: Callable[[Txn, Committed], None],
    ) -> None:
        """Make a client.

        Args:
            data: What the servers hold.
            way: How good the way to them is now.
            gate: Waits while the process is paused.
            rng: Draws latencies and faults.
            on_send: Told of every transaction when the process hands it over.
            on_commit: Told of every transaction that was applied, at once.
        """
        self._inner = MemoryStore(data)
        self._data = data
        self._way = way
        self._gate = gate
        self._rng = rng
        self._on_send = on_send
        self._on_commit = on_commit

    async def get(self, key: str) -> Reading:
        """Return one key."""
        return await self._call(lambda: self._inner.get(key))

    async def list(self, prefix: str) -> Listing:
        """Return all keys below a prefix."""
        return await self._call(lambda: self._inner.list(prefix))

    async def commit(self, txn: Txn) -> Committed | Conflict:
        """Commit; by chance it gets lost, or its answer does."""
        self._on_send(txn)
        fault = self._rng.choice(("unsent", "lost", "unanswered"))
        if self._rng.random() >= self._way.fault_rate:
            fault = ""
        await self._go()
        await self._pause_if_asked(txn)
        if self._rng.random() < self._way.conflict_rate:
            self._touch(txn)
        if fault == "unsent":
            raise Unavailable("the store could not be reached")
        if fault == "lost":
            raise AmbiguousWrite("the answer to a commit was lost")
        outcome = await self._inner.commit(txn)
        if isinstance(outcome, Committed):
            self._on_commit(txn, outcome)
        is_answered = await self._come_back()
        if fault or not is_answered:
            raise AmbiguousWrite("the answer to a commit was lost")
        return outcome

    @asynccontextmanager
    async def watch(
        self, prefix: str, *, after: StoreRevision
    ) -> AsyncIterator[AsyncIterator[Changes]]:
        """Follow changes, some time after they happened."""
        async with self._inner.watch(prefix, after=after) as watch:
            yield self._late(watch)

    async def grant_lease(self, ttl_s: int) -> LeaseId:
        """Make a lease."""
        return await self._call(lambda: self._inner.grant_lease(ttl_s))

    async def renew_lease(self, lease: LeaseId) -> float:
        """Renew a lease."""
        return await self._call(lambda: self._inner.renew_lease(lease))

    async def revoke_lease(self, lease: LeaseId) -> None:
        """End a lease."""
        await self._call(lambda: self._inner.revoke_lease(lease))

    async def compact(self, revision: StoreRevision) -> None:
        """Forget old changes."""
        await self._call(lambda: self._inner.compact(revision))

    async def status(self) -> StoreStatus:
        """Say how the store is."""
        return await self._inner.status()

    async def close(self) -> None:
        """End all watches."""
        await self._inner.close()

    async def _call(self, call: Callable[[], Awaitable[_T]]) -> _T:
        await self._go()
        answer = await call()
        if not await self._come_back():
            raise Unavailable("the store could not be reached")
        return answer

    async def _go(self) -> None:
        """Take the way to the store.

        Raises:
            Unavailable: There is none; found out after a while.
        """
        await self._gate()
        await asyncio.sleep(self._rng.uniform(0.0, self._way.latency_s))
        if self._way.is_cut or self._way.is_dead:
            await asyncio.sleep(0.5)
            raise Unavailable("the store could not be reached")

    async def _pause_if_asked(self, txn: Txn) -> None:
        """Stop the process when it is about to commit; it goes on with that, however late."""
        if self._way.pause_at_commit_s and _is_of_leader(txn):
            asyncio.get_running_loop().call_later(self._way.pause_at_commit_s, self._gate.resume)
            self._way.pause_at_commit_s = 0.0
            self._gate.pause()
            await self._gate()

    def _touch(self, txn: Txn) -> None:
        """Write one assignment of a transaction as it is: its mod revision is a new one."""
        found = map(self._data.item, (operation.key for operation in txn.operations))
        for item in (each for each in found if each and each.key.startswith(_ASSIGNMENTS)):
            self._data.commit(Txn((), (Put(item.key, item.value),)))
            return

    async def _come_back(self) -> bool:
        """Take the way back; return whether anything arrived."""
        await asyncio.sleep(self._rng.uniform(0.0, self._way.latency_s))
        await self._gate()
        return not (self._way.is_cut or self._way.is_dead)

    async def _late(self, watch: AsyncIterator[Changes]) -> AsyncIterator[Changes]:
        async for changes in watch:
            await asyncio.sleep(self._rng.uniform(0.0, 4 * self._way.latency_s))
            while self._way.is_cut:
                await asyncio.sleep(0.1)
            await self._gate()
            yield changes


def _is_of_leader(txn: Txn) -> bool:
    """Return whether a transaction writes what only a leader writes."""
    prefixes = (_ASSIGNMENTS, f"{ROOT}status/")
    return any(operation.key.startswith(prefixes) for operation in txn.operations)
