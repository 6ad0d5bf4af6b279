"""What does the contract suite need of a store, real or in memory, beside the port itself?"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dray.addresses import parse_host_port
from dray.clock import ManualClock
from dray.model import StoreRevision
from scheduler.store.base import (
    Changes,
    Committed,
    Compare,
    CompareField,
    Conflict,
    Delete,
    Item,
    Operation,
    Put,
    Store,
    Txn,
)
from scheduler.store.etcd import EtcdLimits, EtcdStore
from scheduler.store.memory import MemoryData, MemoryStore
from tests.lab.etcd import EtcdCluster

DEADLINE_S = 15.0  # for anything that should happen at once


class Rig(ABC):
    """A store for one test, with a prefix of its own in it."""

    def __init__(self) -> None:
        self.prefix = f"/contract/{secrets.token_hex(6)}/"

    @abstractmethod
    def client(self) -> Store:
        """Return a new client; all clients of a rig see the same store."""

    @abstractmethod
    async def pass_time(self, duration_s: float) -> None:
        """Let time go by, for leases."""

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """Lend a client, and close it."""
        client = self.client()
        try:
            yield client
        finally:
            await client.close()

    def key(self, name: str | int) -> str:
        """Return a key of this test."""
        return f"{self.prefix}{name}"

    def put(self, name: str | int, value: bytes = b"") -> Put:
        """Return a write of one of this test's keys."""
        return Put(self.key(name), value)

    def delete(self, name: str | int) -> Delete:
        """Return the removal of one of this test's keys."""
        return Delete(self.key(name))

    def names(self, items: Sequence[Item]) -> list[str]:
        """Return the names of items, without the prefix."""
        return [item.key.removeprefix(self.prefix) for item in items]


class MemoryRig(Rig):
    """The store in memory, on a clock that stands still but for `pass_time`."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.data = MemoryData(self.clock.monotonic_s)

    def client(self) -> Store:
        """Return a new client."""
        return MemoryStore(self.data)

    async def pass_time(self, duration_s: float) -> None:
        """Move the clock."""
        await self.clock.advance(duration_s)
        self.data.expire_leases()


class EtcdRig(Rig):
    """A store on real servers."""

    def __init__(self, cluster: EtcdCluster) -> None:
        super().__init__()
        self.cluster = cluster

    def client(self, limits: EtcdLimits | None = None) -> EtcdStore:
        """Return a new client."""
        addresses = [parse_host_port(endpoint) for endpoint in self.cluster.endpoints]
        return EtcdStore(addresses, None, limits=limits)

    async def pass_time(self, duration_s: float) -> None:
        """Wait."""
        await asyncio.sleep(duration_s)


async def commit(store: Store, *operations: Operation) -> StoreRevision:
    """Commit operations without a compare; return the revision."""
    outcome = await store.commit(Txn((), operations))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def compare_and_set(store: Store, item: Item | None, put: Put) -> Committed | Conflict:
    """Write a key if it still is what it was (None: does not exist)."""
    mod_revision = item.mod_revision if item else StoreRevision(0)
    compare = Compare(put.key, CompareField.MOD_REVISION, mod_revision)
    return await store.commit(Txn((compare,), (put,)))


async def following(watch: AsyncIterator[Changes]) -> Changes:
    """Return the next changes of a watch, within the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        return await anext(watch)


async def until(watch: AsyncIterator[Changes], last: StoreRevision) -> list[Changes]:
    """Return what a watch brings up to and including a revision."""
    got: list[Changes] = []
    while not got or got[-1].revision < last:
        got.append(await following(watch))
    return got
