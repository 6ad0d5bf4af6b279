"""Does a store return what was written, at one revision, however much it is?"""

from __future__ import annotations

import asyncio

import pytest

from dray.errors import Unavailable
from scheduler.store.base import Compacted, Item, LeaseId, Listing, Put, Txn
from tests.contract.store.rig import Rig, commit

BATCH = 125  # keys in one transaction
MANY = 2_500  # keys: more than one page, and more than the largest page


async def test_absent_key_reads_as_none_at_the_current_revision(rig: Rig) -> None:
    """A key that was never written is no item, and the reading says as of when."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("other"))
        reading = await store.get(rig.key("absent"))
        assert reading.item is None
        assert reading.revision >= revision


async def test_item_carries_value_and_revisions(rig: Rig) -> None:
    """The create revision stays over a rewrite, the mod revision does not, bytes come back."""
    value = bytes(range(256))
    async with rig.store() as store:
        created = await commit(store, rig.put("a", b"first"))
        changed = await commit(store, rig.put("a", value))
        assert changed == created + 1
        reading = await store.get(rig.key("a"))
        assert reading.item == Item(rig.key("a"), value, created, changed, LeaseId(0))
        assert reading.revision == changed


async def test_key_made_anew_has_a_new_create_revision(rig: Rig) -> None:
    """A deleted key that is written again is another key: a fence on the old one must fail."""
    async with rig.store() as store:
        await commit(store, rig.put("a"))
        await commit(store, rig.delete("a"))
        assert (await store.get(rig.key("a"))).item is None
        anew = await commit(store, rig.put("a"))
        item = (await store.get(rig.key("a"))).item
        assert item is not None
        assert item.create_revision == item.mod_revision == anew


async def test_list_has_all_keys_of_the_prefix_sorted_and_no_other(rig: Rig) -> None:
    """A prefix is compared letter by letter: neighbours on both sides stay out."""
    names = ["b/", "b/2", "b/10", "b/\u00fc", "a", "b", "b0", "c"]
    async with rig.store() as store:
        revision = await commit(store, *(rig.put(name) for name in names))
        listing = await store.list(rig.key("b/"))
        assert rig.names(listing.items) == ["b/", "b/10", "b/2", "b/\u00fc"]
        assert listing.revision == revision
        assert await store.list(rig.key("nothing")) == Listing((), revision)


async def test_list_of_everything(rig: Rig) -> None:
    """The empty prefix lists all keys of the store."""
    async with rig.store() as store:
        await commit(store, rig.put("a"))
        listing = await store.list("")
        assert rig.key("a") in {item.key for item in listing.items}


async def test_long_list_is_whole_and_of_one_revision(rig: Rig) -> None:
    """Pages belong together: a transaction over first and last key is seen whole or not at all.

    While a writer goes on; three pages in etcd.
    """
    names = [f"{number:06}" for number in range(MANY)]
    async with rig.store() as store, rig.store() as other:
        for start in range(0, MANY, BATCH):
            await commit(store, *(rig.put(name, b"0") for name in names[start : start + BATCH]))

        async def write(times: int) -> None:
            for count in range(1, times + 1):
                value = str(count).encode()
                await commit(other, rig.put(names[0], value), rig.put(names[-1], value))

        async with asyncio.TaskGroup() as group:
            writer = group.create_task(write(60))
            seen = set()
            while not writer.done():
                listing = await store.list(rig.prefix)
                assert rig.names(listing.items) == names
                assert listing.items[0].value == listing.items[-1].value
                assert max(item.mod_revision for item in listing.items) <= listing.revision
                seen.add(listing.items[0].value)
        assert seen


async def test_list_during_compactions_is_whole_or_says_compacted(rig: Rig) -> None:
    """A compaction between two pages never mixes revisions."""
    names = [f"{number:06}" for number in range(MANY)]
    outcomes = []
    async with rig.store() as store, rig.store() as other:
        for start in range(0, MANY, BATCH):
            await commit(store, *(rig.put(name, b"0") for name in names[start : start + BATCH]))

        async def write_and_compact(times: int) -> None:
            for count in range(1, times + 1):
                value = str(count).encode()
                last = await commit(other, rig.put(names[0], value), rig.put(names[-1], value))
                await other.compact(last)

        async with asyncio.TaskGroup() as group:
            writer = group.create_task(write_and_compact(40))
            while not writer.done():
                try:
                    listing = await store.list(rig.prefix)
                except Compacted as err:
                    outcomes.append(err.code.name)
                else:
                    assert rig.names(listing.items) == names
                    assert listing.items[0].value == listing.items[-1].value
                    outcomes.append("whole")
    assert set(outcomes) <= {"whole", "OUT_OF_RANGE"}
    assert outcomes


async def test_large_values_are_listed(rig: Rig) -> None:
    """Values of 1 MiB, many times what a message may hold by default, are listed in full."""
    async with rig.store() as store:
        for number in range(12):
            value = bytes([number]) * (1_048_576 - 200)
            await commit(store, rig.put(f"{number:02}", value))
        listing = await store.list(rig.prefix)
        assert [item.value[:1] for item in listing.items] == [bytes([n]) for n in range(12)]
        assert {len(item.value) for item in listing.items} == {1_048_576 - 200}


async def test_another_client_reads_what_was_committed(rig: Rig) -> None:
    """Reads are linearizable: what one client was told is written, any other sees."""
    async with rig.store() as one, rig.store() as other:
        for number in range(20):
            revision = await commit(one, rig.put("a", str(number).encode()))
            reading = await other.get(rig.key("a"))
            assert reading.item is not None
            assert reading.item.value == str(number).encode()
            assert reading.revision >= revision


async def test_status_names_a_healthy_leader(rig: Rig) -> None:
    """The only server leads, has a size, and knows the newest revision."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("a", b"value"))
        status = await store.status()
        (member,) = status.members
        assert member.healthy
        assert member.is_leader
        assert member.version
        assert member.address
        assert member.size_bytes >= member.size_in_use_bytes > 0
        assert (member.alarms, member.problem) == ((), "")
        assert status.revision == revision


async def test_closed_store_refuses_calls(rig: Rig) -> None:
    """After `close`, which may be called twice, a call says so at once instead of hanging."""
    store = rig.client()
    await commit(store, rig.put("a"))
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.get(rig.key("a"))
    with pytest.raises(Unavailable, match="closed"):
        await store.commit(Txn((), (Put(rig.key("b"), b""),)))
