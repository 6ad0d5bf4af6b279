"""Does a watch bring every change once, in order, or say that it cannot?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dray.errors import InvalidRequest
from dray.model import StoreRevision
from scheduler.store.base import Change, Changes, Compacted, Item, LeaseId, Store
from tests.contract.store.rig import DEADLINE_S, Rig, commit, following, until


async def test_put_and_delete_are_seen(rig: Rig) -> None:
    """A change carries the new item, or None for a delete, and its revision."""
    async with rig.store() as store:
        start = (await store.list(rig.prefix)).revision
        async with store.watch(rig.prefix, after=start) as watch:
            first = await commit(store, rig.put("a", b"1"))
            second = await commit(store, rig.put("a", b"2"))
            third = await commit(store, rig.delete("a"))
            key = rig.key("a")
            assert await until(watch, third) == [
                Changes(first, (Change(key, Item(key, b"1", first, first, LeaseId(0))),)),
                Changes(second, (Change(key, Item(key, b"2", first, second, LeaseId(0))),)),
                Changes(third, (Change(key, None),)),
            ]


async def test_one_transaction_is_one_answer(rig: Rig) -> None:
    """Its changes below the prefix come together, in its order; those outside do not come."""
    async with rig.store() as store:
        await commit(store, rig.put("w/gone"))
        last = await commit(store, rig.put("other"))
        async with store.watch(rig.key("w/"), after=last) as watch:
            await commit(store, rig.put("elsewhere"))
            names = ["w/c", "x", "w/a", "w/b"]
            puts = [rig.put(name) for name in names]
            revision = await commit(store, *puts, rig.delete("w/gone"))
            changes = await following(watch)
            assert changes.revision == revision
            keys = [change.key for change in changes.changes]
            assert keys == [rig.key(name) for name in ("w/c", "w/a", "w/b", "w/gone")]


async def test_history_since_a_revision_comes_first(rig: Rig) -> None:
    """A watch may start in the past; what was known is not repeated, what was not is not lost."""
    async with rig.store() as store:
        revisions = [await commit(store, rig.put("a", str(n).encode())) for n in range(50)]
        async with store.watch(rig.prefix, after=revisions[19]) as watch:
            assert [got.revision for got in await until(watch, revisions[-1])] == revisions[20:]
            following_one = await commit(store, rig.put("a"))
            assert (await following(watch)).revision == following_one


async def test_list_then_watch_loses_and_doubles_nothing(rig: Rig) -> None:
    """Folding a watch over the listing that it started from gives what is stored, at any moment."""
    async with rig.store() as store, rig.store() as writer:

        async def write(times: int) -> StoreRevision:
            last = StoreRevision(0)
            for number in range(times):
                name = str(number % 17)
                both = (rig.put(name, str(number).encode()), rig.put(f"copy-{name}"))
                last = await commit(writer, *both)
                if number % 5 == 4:
                    last = await commit(writer, rig.delete(str(number % 11)))
            return await commit(writer, rig.put("end")) or last

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write(300))
            mirrors = [group.create_task(_mirror(rig, store)) for _ in range(4)]
        listing = await store.list(rig.prefix)
        assert listing.revision == writing.result()
        for mirror in mirrors:
            assert mirror.result() == {item.key: item for item in listing.items}


async def _mirror(rig: Rig, store: Store) -> dict[str, Item]:
    listing = await store.list(rig.prefix)
    items = {item.key: item for item in listing.items}
    revision = listing.revision
    async with store.watch(rig.prefix, after=listing.revision) as watch:
        while rig.key("end") not in items:
            changes = await following(watch)
            assert changes.revision > revision
            revision = changes.revision
            for change in changes.changes:
                if change.item is None:
                    assert items.pop(change.key, None) is not None, "a delete came twice"
                else:
                    assert change.item.mod_revision == revision
                    items[change.key] = change.item
    return items


async def test_more_than_a_message_holds_is_whole(rig: Rig) -> None:
    """Large changes come in order, each in one piece, to a slow reader and to a late one."""
    value = b"v" * 100_000
    async with rig.store() as store:
        start = (await store.list(rig.prefix)).revision
        async with store.watch(rig.prefix, after=start) as slow:
            first = await commit(store, rig.put("first"))
            assert (await following(slow)).revision == first
            revisions = [
                await commit(store, *(rig.put(f"{n}-{m}", value) for m in range(9)))
                for n in range(12)
            ]
            seen_slowly = await until(slow, revisions[-1])
        async with store.watch(rig.prefix, after=first) as late:
            seen_late = await until(late, revisions[-1])
        assert [changes.revision for changes in seen_slowly] == revisions
        assert {len(changes.changes) for changes in seen_slowly} == {9}
        items = [each.item for changes in seen_slowly for each in changes.changes]
        assert {len(item.value) for item in items if item} == {len(value)}
        assert seen_late == seen_slowly


async def test_giving_up_a_wait_loses_nothing(rig: Rig) -> None:
    """A reader that comes back after a timeout goes on where it was."""
    async with rig.store() as store, rig.store() as writer:
        start = (await store.list(rig.prefix)).revision

        async def write() -> list[StoreRevision]:
            return [await commit(writer, rig.put("a", str(n).encode())) for n in range(120)]

        async with store.watch(rig.prefix, after=start) as watch:
            writing = asyncio.create_task(write())
            got: list[StoreRevision] = []
            given_up = 0
            async with asyncio.timeout(DEADLINE_S):
                while not writing.done() or not got or got[-1] < writing.result()[-1]:
                    try:
                        async with asyncio.timeout(0.002):
                            got.append((await anext(watch)).revision)
                    except TimeoutError:
                        given_up += 1
                        try:
                            async with asyncio.timeout(0.2):
                                got.append((await anext(watch)).revision)
                        except TimeoutError:
                            given_up += 1
            assert got == writing.result()


async def test_watches_are_independent(rig: Rig) -> None:
    """Each sees its own prefix from its own revision, whoever reads when."""
    async with rig.store() as store:
        start = (await store.list(rig.prefix)).revision
        async with (
            store.watch(rig.key("a/"), after=start) as one,
            store.watch(rig.key("b/"), after=start) as other,
            store.watch(rig.prefix, after=start) as both,
        ):
            first = await commit(store, rig.put("a/1"))
            second = await commit(store, rig.put("b/1"))
            third = await commit(store, rig.put("a/1"))
            assert [each.revision for each in await until(both, third)] == [first, second, third]
            assert [each.revision for each in await until(one, third)] == [first, third]
            assert (await following(other)).revision == second


async def test_compacted_history_is_refused(rig: Rig) -> None:
    """A watch that needs forgotten changes says so, however often it is asked."""
    async with rig.store() as store:
        revisions = [await commit(store, rig.put("a", str(n).encode())) for n in range(5)]
        await store.compact(revisions[3])
        await store.compact(revisions[1])
        for after in (StoreRevision(1), revisions[0], revisions[2]):
            async with store.watch(rig.prefix, after=after) as watch:
                for _ in range(2):
                    with pytest.raises(Compacted, match=str(revisions[3])):
                        await following(watch)
        async with store.watch(rig.prefix, after=revisions[3]) as watch:
            assert (await following(watch)).revision == revisions[4]
        item = (await store.get(rig.key("a"))).item
        assert item is not None
        assert item.value == b"4"


async def test_delete_at_the_compacted_revision_is_not_lost_in_silence(rig: Rig) -> None:
    """A watch that has not seen it is told `Compacted`: etcd itself forgets it without a word."""
    async with rig.store() as store:
        seen = await commit(store, rig.put("a"), rig.put("b"))
        deleted = await commit(store, rig.delete("a"))
        await store.compact(deleted)
        async with store.watch(rig.prefix, after=seen) as watch:
            with pytest.raises(Compacted):
                await following(watch)
        async with store.watch(rig.prefix, after=deleted) as watch:
            written = await commit(store, rig.put("b"))
            assert (await following(watch)).revision == written


async def test_open_watch_outlives_compaction(rig: Rig) -> None:
    """Compactions do not disturb a watch that keeps up."""
    async with rig.store() as store:
        start = await commit(store, rig.put("a"))
        async with store.watch(rig.prefix, after=start) as watch:
            for number in range(10):
                revision = await commit(store, rig.put("a", str(number).encode()))
                assert (await following(watch)).revision == revision
                await store.compact(revision)


async def test_compaction_of_the_future_is_refused(rig: Rig) -> None:
    """What has not happened cannot be forgotten; nothing is changed."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("a"))
        with pytest.raises(InvalidRequest, match="not reached"):
            await store.compact(StoreRevision(revision + 1000))
        async with store.watch(rig.prefix, after=StoreRevision(revision - 1)) as watch:
            assert (await following(watch)).revision == revision


async def test_watch_from_the_future_is_refused(rig: Rig) -> None:
    """A store that is older than what was seen was restored: silence would be for ever."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("a"))
        async with store.watch(rig.prefix, after=StoreRevision(revision + 1000)) as watch:
            with pytest.raises(Compacted, match="restored"):
                await following(watch)


async def test_leaving_the_context_ends_the_watch(rig: Rig) -> None:
    """An iterator that outlives its context stops, also one that somebody waits on."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("a"))
        async with store.watch(rig.prefix, after=StoreRevision(revision - 1)) as watch:
            assert (await following(watch)).revision == revision
            waiting = asyncio.create_task(_rest(watch))
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            assert await waiting == []
        assert await _rest(watch) == []


async def test_close_ends_watches(rig: Rig) -> None:
    """A reader that waits is woken up and stops."""
    store = rig.client()
    revision = await commit(store, rig.put("a"))
    async with store.watch(rig.prefix, after=StoreRevision(revision - 1)) as watch:
        assert (await following(watch)).revision == revision
        waiting = asyncio.create_task(_rest(watch))
        await asyncio.sleep(0)
        await store.close()
        async with asyncio.timeout(DEADLINE_S):
            assert await waiting == []
        assert await _rest(watch) == []


async def _rest(watch: AsyncIterator[Changes]) -> list[Changes]:
    return [changes async for changes in watch]
