"""Does the store in memory keep still, and fail exactly as a simulation tells it to?

What it shares with etcd is in the contract suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dray.errors import AmbiguousWrite, ResourceExhausted, Unavailable
from dray.model import StoreRevision
from scheduler.store.base import Changes, Committed, Compacted, LeaseId, Put, Txn
from scheduler.store.memory import WATCH_CHANGES_MAX, CommitFault, MemoryData, MemoryStore

START = StoreRevision(1)


class Hand:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def a_put(key: str = "/a", value: bytes = b"", lease: int = 0) -> Txn:
    """Return a transaction of one write."""
    return Txn((), (Put(key, value, LeaseId(lease)),))


async def revisions(watch: AsyncIterator[Changes], count: int) -> list[int]:
    """Return the revisions of the next changes."""
    async with asyncio.timeout(5):
        return [(await anext(watch)).revision for _ in range(count)]


async def test_empty_store_is_at_revision_one() -> None:
    """As etcd's: the first commit makes revision 2."""
    store = MemoryStore(MemoryData(Hand()))
    assert (await store.get("/a")).revision == START
    assert await store.commit(a_put()) == Committed(StoreRevision(2))


async def test_lease_ends_at_its_second() -> None:
    """Not a moment before its time to live, and at it without any call being made."""
    hand = Hand()
    data = MemoryData(hand)
    store = MemoryStore(data)
    lease = await store.grant_lease(5)
    await store.commit(a_put(lease=lease))
    hand.now_s = 4.999
    data.expire_leases()
    assert data.item("/a") is not None
    assert await store.renew_lease(lease) == 5.0
    hand.now_s = 9.998
    assert (await store.get("/a")).item is not None
    hand.now_s = 9.999
    data.expire_leases()
    assert data.item("/a") is None


async def test_leases_end_in_the_order_of_their_time() -> None:
    """Two that are over at one look have two revisions, the earlier one first."""
    hand = Hand()
    data = MemoryData(hand)
    store = MemoryStore(data)
    for key, ttl_s in (("/late", 3), ("/early", 2)):
        await store.commit(a_put(key, lease=await store.grant_lease(ttl_s)))
    last = data.revision
    hand.now_s = 60.0
    async with store.watch("/", after=last) as watch:
        data.expire_leases()
        keys = [(await anext(watch)).changes[0].key for _ in range(2)]
    assert keys == ["/early", "/late"]


@pytest.mark.parametrize(
    ("fault", "error", "is_applied"),
    [
        (CommitFault.NOT_SENT, Unavailable, False),
        (CommitFault.LOST, AmbiguousWrite, False),
        (CommitFault.UNANSWERED, AmbiguousWrite, True),
        (CommitFault.FULL, ResourceExhausted, False),
    ],
)
async def test_commit_fails_as_told(
    fault: CommitFault, error: type[Exception], is_applied: bool
) -> None:
    """The next commit of this client fails so; the one after it and other clients do not."""
    data = MemoryData(Hand())
    store, other = MemoryStore(data), MemoryStore(data)
    store.fail_next_commit(fault)
    await other.commit(a_put("/other"))
    with pytest.raises(error):
        await store.commit(a_put("/a"))
    assert (data.item("/a") is not None) is is_applied
    assert isinstance(await store.commit(a_put("/b")), Committed)


async def test_client_that_is_cut_off_hears_later() -> None:
    """Its calls fail and its watch is silent; then it gets what it missed. Others go on."""
    data = MemoryData(Hand())
    store, other = MemoryStore(data), MemoryStore(data)
    async with store.watch("/", after=START) as watch:
        reading = asyncio.create_task(revisions(watch, 2))
        store.is_cut_off = True
        await other.commit(a_put("/a"))
        await other.commit(a_put("/b"))
        with pytest.raises(Unavailable):
            await store.get("/a")
        assert not (await store.status()).members[0].healthy
        assert not reading.done()
        store.is_cut_off = False
        assert await reading == [2, 3]


async def test_client_that_was_cut_off_too_long_must_list_again() -> None:
    """What was compacted meanwhile is not skipped in silence."""
    data = MemoryData(Hand())
    store, other = MemoryStore(data), MemoryStore(data)
    async with store.watch("/", after=START) as watch:
        store.is_cut_off = True
        await other.commit(a_put("/a"))
        await other.compact(data.revision)
        store.is_cut_off = False
        with pytest.raises(Compacted):
            await anext(watch)


async def test_slow_watch_is_bounded() -> None:
    """A compaction keeps so many changes for a watch that does not read, and then says no more."""
    data = MemoryData(Hand())
    store = MemoryStore(data)
    async with store.watch("/", after=START) as watch:
        for _ in range(WATCH_CHANGES_MAX + 1):
            data.commit(a_put())
        await store.compact(data.revision)
        got = [(await anext(watch)).revision for _ in range(WATCH_CHANGES_MAX)]
        assert got == list(range(2, WATCH_CHANGES_MAX + 2))
        with pytest.raises(Compacted):
            await anext(watch)


async def test_slow_watch_reads_on_where_nothing_was_compacted() -> None:
    """The bound is one of memory, not of history."""
    data = MemoryData(Hand())
    store = MemoryStore(data)
    count = WATCH_CHANGES_MAX + 50
    async with store.watch("/", after=START) as watch:
        for _ in range(count):
            data.commit(a_put())
        assert [(await anext(watch)).revision for _ in range(count)][-1] == count + 1


async def test_restore_goes_back() -> None:
    """Items and revision are those of the backup, leases start again, watches ahead are told."""
    hand = Hand()
    data = MemoryData(hand)
    store = MemoryStore(data)
    lease = await store.grant_lease(5)
    await store.commit(a_put("/kept", b"1", lease))
    backup = data.backup()
    await store.commit(a_put("/kept", b"2"))
    await store.commit(a_put("/lost"))
    hand.now_s = 100.0
    async with (
        store.watch("/", after=data.revision) as ahead,
        store.watch("/", after=backup.revision) as level,
        store.watch("/", after=START) as behind,
    ):
        data.restore(backup)
        assert [(item.key, item.value) for item in data.items("/")] == [("/kept", b"1")]
        assert data.revision == backup.revision
        for _ in range(5):
            await store.commit(a_put("/new"))
        with pytest.raises(Compacted, match="restored"):
            await anext(ahead)
        with pytest.raises(Compacted, match="forgotten"):
            await anext(behind)
        assert await revisions(level, 1) == [backup.revision + 1]
    hand.now_s = 104.9
    assert (await store.get("/kept")).item is not None
    hand.now_s = 105.0
    assert (await store.get("/kept")).item is None


async def test_two_runs_are_the_same() -> None:
    """Many tasks on one store end in the same state each time, with the same history."""

    async def run() -> list[Changes]:
        data = MemoryData(Hand())

        async def work(number: int) -> None:
            store = MemoryStore(data)
            for turn in range(5):
                lease = await store.grant_lease(10)
                await store.commit(a_put(f"/{turn}", str(number).encode(), lease))
                await store.list("/")

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(work(number))
        return data.changes_after(START)

    first = await run()
    assert len(first) == 30
    assert await run() == first
