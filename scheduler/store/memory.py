"""What does a store do that needs no etcd? The port's guarantees in memory, for tests.

Deterministic: no task of its own, no clock but the one passed in, lease ids that count up. Every
call gives other tasks a turn before and after it takes effect, as a call over a network does, so
that nobody comes to rely on its being instantaneous.

`MemoryData` is what the servers of an etcd hold, `MemoryStore` one client of it: several schedulers
of a simulation have one each, and can be cut off one by one.
"""

from __future__ import annotations

import asyncio
import bisect
import enum
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self

from dray.errors import AmbiguousWrite, DrayError, InvalidRequest, ResourceExhausted, Unavailable
from dray.model import StoreRevision
from scheduler.store.base import (
    Change,
    Changes,
    Committed,
    Compacted,
    Compare,
    CompareField,
    Conflict,
    Delete,
    Item,
    LeaseId,
    LeaseLost,
    Listing,
    Operation,
    Put,
    Reading,
    StoreMember,
    StoreStatus,
    Txn,
)

__all__ = ["WATCH_CHANGES_MAX", "CommitFault", "MemoryBackup", "MemoryData", "MemoryStore"]

WATCH_CHANGES_MAX: Final = 10_000  # taken and not yet read; a compaction may forget the rest
_FIRST_REVISION: Final = StoreRevision(1)  # of an empty store, as in etcd


class CommitFault(enum.Enum):
    """What may befall a commit."""

    NOT_SENT = 1  # Unavailable; nothing changed
    LOST = 2  # AmbiguousWrite; nothing changed
    UNANSWERED = 3  # AmbiguousWrite; applied
    FULL = 4  # ResourceExhausted; nothing changed


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    ends_at_s: float
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class MemoryBackup:
    """Items, leases (id and time to live) and revision of a store at one moment."""

    items: tuple[Item, ...]
    leases: tuple[tuple[LeaseId, int], ...]
    revision: StoreRevision


class MemoryData:
    """What the servers hold: items, history, leases.

    Attributes:
        revision: Of the last change.
        compacted: Changes up to here are forgotten.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Make an empty store.

        Args:
            now: Seconds, never going back; leases end by it. It is looked at by every call, and
                by `expire_leases`.
        """
        self.revision = _FIRST_REVISION
        self.compacted = StoreRevision(0)
        self._now = now
        self._items: dict[str, Item] = {}
        self._keys: list[str] = []  # of `_items`, sorted
        self._history: list[Changes] = []  # after `compacted`
        self._leases: dict[LeaseId, _Lease] = {}
        self._last_lease = 0
        self._watches: list[_MemoryWatch] = []

    # --- hooks of tests and simulations ---

    def expire_leases(self) -> None:
        """End the leases whose time is over: call it after the clock was moved."""
        now_s = self._now()
        over = [(lease.ends_at_s, id) for id, lease in self._leases.items()]
        for _, lease_id in sorted(each for each in over if each[0] <= now_s):
            self.end_lease(lease_id)

    def end_lease(self, lease_id: LeaseId) -> None:
        """End a lease now, whatever its time to live, and delete its keys in one revision."""
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            self._apply(tuple(Delete(key) for key in sorted(lease.keys)))

    def backup(self) -> MemoryBackup:
        """Return what a snapshot of the store would hold."""
        leases = tuple((lease_id, lease.ttl_s) for lease_id, lease in self._leases.items())
        return MemoryBackup(tuple(self.items("")), leases, self.revision)

    def restore(self, backup: MemoryBackup) -> None:
        """Go back to a backup: what is newer is gone, so is all history; leases start again.

        Watches that have seen more than the backup end with `Compacted`.
        """
        now_s = self._now()
        self._items = {item.key: item for item in backup.items}
        self._keys = sorted(self._items)
        self._history = []
        self._leases = {
            lease_id: _Lease(
                ttl_s, now_s + ttl_s, {i.key for i in backup.items if i.lease == lease_id}
            )
            for lease_id, ttl_s in backup.leases
        }
        self.revision = self.compacted = backup.revision
        for watch in self._watches:
            watch.see_restored()
        self._wake()

    # --- what clients ask for ---

    def item(self, key: str) -> Item | None:
        """Return a key's item."""
        return self._items.get(key)

    def items(self, prefix: str) -> list[Item]:
        """Return the items below a prefix, by key."""
        found = []
        for position in range(bisect.bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[position]
            if not key.startswith(prefix):
                break
            found.append(self._items[key])
        return found

    def commit(self, txn: Txn) -> Committed | Conflict:
        """Apply a transaction or say what does not hold."""
        if not all(self._holds(compare) for compare in txn.compares):
            keys = sorted({compare.key for compare in txn.compares})
            current = tuple(self._items[key] for key in keys if key in self._items)
            return Conflict(self.revision, current)
        for operation in txn.operations:
            if isinstance(operation, Put) and operation.lease:
                self._lease(operation.lease)
        self._apply(txn.operations)
        return Committed(self.revision)

    def grant_lease(self, ttl_s: int) -> LeaseId:
        """Make a lease."""
        assert ttl_s >= 1, f"a lease of {ttl_s} s"
        self._last_lease += 1
        lease_id = LeaseId(self._last_lease)
        self._leases[lease_id] = _Lease(ttl_s, self._now() + ttl_s)
        return lease_id

    def renew_lease(self, lease_id: LeaseId) -> float:
        """Let a lease's time start again; return it."""
        lease = self._lease(lease_id)
        lease.ends_at_s = self._now() + lease.ttl_s
        return float(lease.ttl_s)

    def compact(self, revision: StoreRevision) -> None:
        """Forget the changes up to a revision."""
        if revision > self.revision:
            raise InvalidRequest(f"the store has not reached revision {revision}")
        for watch in self._watches:
            watch.take_news()
        self.compacted = max(self.compacted, revision)
        del self._history[: self._position_after(self.compacted)]
        self._wake()

    def changes_after(self, revision: StoreRevision) -> list[Changes]:
        """Return the history after a revision that is not compacted away."""
        return self._history[self._position_after(revision) :]

    def add_watch(self, watch: _MemoryWatch) -> None:
        """Wake a watch at every change from now on."""
        self._watches.append(watch)

    def remove_watch(self, watch: _MemoryWatch) -> None:
        """Stop waking a watch; one that is not known is not an error."""
        if watch in self._watches:
            self._watches.remove(watch)

    # --- inside ---

    def _position_after(self, revision: StoreRevision) -> int:
        return bisect.bisect_right(self._history, revision, key=lambda changes: changes.revision)

    def _lease(self, lease_id: LeaseId) -> _Lease:
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseLost(f"lease {lease_id} has ended")
        return lease

    def _holds(self, compare: Compare) -> bool:
        item = self._items.get(compare.key)
        match compare.field:
            case CompareField.CREATE_REVISION:
                return compare.revision == (item.create_revision if item else 0)
            case CompareField.MOD_REVISION:
                return compare.revision == (item.mod_revision if item else 0)

    def _apply(self, operations: tuple[Operation, ...]) -> None:
        """Carry out operations as one revision, unless they change nothing."""
        revision = StoreRevision(self.revision + 1)
        changes = []
        for operation in operations:
            if isinstance(operation, Put):
                changes.append(self._put(operation, revision))
            elif operation.key in self._items:
                changes.append(self._delete(operation.key))
        if changes:
            self.revision = revision
            self._history.append(Changes(revision, tuple(changes)))
            self._wake()

    def _put(self, put: Put, revision: StoreRevision) -> Change:
        old = self._items.get(put.key)
        if old is None:
            bisect.insort(self._keys, put.key)
        else:
            self._detach(old)
        if put.lease:
            self._leases[put.lease].keys.add(put.key)
        created = old.create_revision if old else revision
        item = self._items[put.key] = Item(put.key, put.value, created, revision, put.lease)
        return Change(put.key, item)

    def _delete(self, key: str) -> Change:
        self._detach(self._items.pop(key))
        del self._keys[bisect.bisect_left(self._keys, key)]
        return Change(key, None)

    def _detach(self, item: Item) -> None:
        if item.lease in self._leases:
            self._leases[item.lease].keys.discard(item.key)

    def _wake(self) -> None:
        for watch in self._watches:
            watch.news.set()


class MemoryStore:
    """One client of a `MemoryData`; a `Store`.

    Attributes:
        is_cut_off: While set, every call raises `Unavailable` and watches hear nothing. Watches go
            on when it is cleared, or end with `Compacted` if they missed too much.
    """

    def __init__(self, data: MemoryData) -> None:
        """Make a client of `data`."""
        self._data = data
        self._faults: deque[CommitFault] = deque()
        self._watches: set[_MemoryWatch] = set()
        self._is_cut_off = False
        self._is_closed = False

    @property
    def is_cut_off(self) -> bool:
        """Whether the store cannot be reached from here."""
        return self._is_cut_off

    @is_cut_off.setter
    def is_cut_off(self, is_cut_off: bool) -> None:
        self._is_cut_off = is_cut_off
        for watch in self._watches:
            watch.news.set()

    def fail_next_commit(self, fault: CommitFault) -> None:
        """Let the next commit fail; called again, the one after it as well."""
        self._faults.append(fault)

    async def get(self, key: str) -> Reading:
        """Return one key as it is now."""
        data = await self._reached()
        reading = Reading(data.item(key), data.revision)
        await asyncio.sleep(0)
        return reading

    async def list(self, prefix: str) -> Listing:
        """Return all keys that start with `prefix`."""
        data = await self._reached()
        listing = Listing(tuple(data.items(prefix)), data.revision)
        await asyncio.sleep(0)
        return listing

    async def commit(self, txn: Txn) -> Committed | Conflict:
        """Apply `txn` if all of its compares hold, else change nothing."""
        data = await self._reached()
        fault = self._faults.popleft() if self._faults else None
        if fault is not None and fault is not CommitFault.UNANSWERED:
            raise _error_of(fault)
        outcome = data.commit(txn)
        await asyncio.sleep(0)
        if fault is not None:
            raise _error_of(fault)
        return outcome

    @asynccontextmanager
    async def watch(
        self, prefix: str, *, after: StoreRevision
    ) -> AsyncIterator[AsyncIterator[Changes]]:
        """Follow all changes below `prefix` that come after a revision."""
        watch = _MemoryWatch(self._data, self, prefix, after)
        self._watches.add(watch)
        self._data.add_watch(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            watch.end()

    async def grant_lease(self, ttl_s: int) -> LeaseId:
        """Make a lease that ends `ttl_s` seconds after its last renewal."""
        lease_id = (await self._reached()).grant_lease(ttl_s)
        await asyncio.sleep(0)
        return lease_id

    async def renew_lease(self, lease: LeaseId) -> float:
        """Renew a lease and return its time to live in seconds."""
        ttl_s = (await self._reached()).renew_lease(lease)
        await asyncio.sleep(0)
        return ttl_s

    async def revoke_lease(self, lease: LeaseId) -> None:
        """End a lease now and delete its keys."""
        (await self._reached()).end_lease(lease)
        await asyncio.sleep(0)

    async def compact(self, revision: StoreRevision) -> None:
        """Forget the changes up to `revision`; current values stay."""
        (await self._reached()).compact(revision)
        await asyncio.sleep(0)

    async def status(self) -> StoreStatus:
        """Say how the one server is."""
        try:
            data = await self._reached()
        except Unavailable as err:
            member = StoreMember("memory", healthy=False, problem=err.message)
            return StoreStatus((member,), StoreRevision(0))
        size = sum(len(item.key.encode()) + len(item.value) for item in data.items(""))
        member = StoreMember("memory", True, True, "memory", size, size)
        return StoreStatus((member,), data.revision)

    async def close(self) -> None:
        """End all watches; later calls raise `Unavailable`."""
        self._is_closed = True
        for watch in tuple(self._watches):
            watch.end()

    async def _reached(self) -> MemoryData:
        """Take the way to the store; leases that are over have ended when it is reached."""
        await asyncio.sleep(0)
        if self._is_closed:
            raise Unavailable("the store is closed")
        if self._is_cut_off:
            raise Unavailable("the store cannot be reached")
        self._data.expire_leases()
        return self._data


def _error_of(fault: CommitFault) -> DrayError:
    match fault:
        case CommitFault.NOT_SENT:
            return Unavailable("the store could not be reached")
        case CommitFault.LOST | CommitFault.UNANSWERED:
            return AmbiguousWrite("the answer to a commit was lost")
        case CommitFault.FULL:
            return ResourceExhausted("the store is full")


class _MemoryWatch(AsyncIterator[Changes]):
    """One watch: where it is in the history, and what a compaction made it take early.

    Attributes:
        news: Set when there may be something to take, or the watch has ended.
    """

    def __init__(
        self, data: MemoryData, client: MemoryStore, prefix: str, after: StoreRevision
    ) -> None:
        self.news = asyncio.Event()
        self._data = data
        self._client = client
        self._prefix = prefix
        self._after = after  # everything up to here was taken
        self._ready: deque[Changes] = deque()
        self._is_ahead = False
        self._is_ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changes:
        while not self._is_ended:
            self.news.clear()
            if not self._client.is_cut_off:
                self.take_news()
                if self._ready:
                    return self._ready.popleft()
                self._check_history()
            await self.news.wait()
        raise StopAsyncIteration

    def take_news(self) -> None:
        """Take what happened since, as much as fits, if it can be heard and is not forgotten."""
        data = self._data
        is_known = data.compacted <= self._after <= data.revision and not self._is_ahead
        if self._client.is_cut_off or not is_known:
            return
        for changes in data.changes_after(self._after):
            if len(self._ready) == WATCH_CHANGES_MAX:
                return
            self._after = changes.revision
            found = tuple(each for each in changes.changes if each.key.startswith(self._prefix))
            if found:
                self._ready.append(Changes(changes.revision, found))
        self._after = data.revision

    def see_restored(self) -> None:
        """Note that the store went back to an older state."""
        self._is_ahead = self._after > self._data.revision

    def end(self) -> None:
        """End the watch; its reader stops."""
        self._is_ended = True
        self._ready.clear()
        self._data.remove_watch(self)
        self.news.set()

    def _check_history(self) -> None:
        data = self._data
        if self._after < data.compacted and not self._is_ahead:
            raise Compacted(
                f"changes after revision {self._after} below {self._prefix!r} are forgotten up to "
                f"{data.compacted}"
            )
        if self._is_ahead or self._after > data.revision:
            raise Compacted(
                f"the store is at revision {data.revision}, before {self._after} which was seen: "
                "it was restored from a backup"
            )
