"""Does a transaction apply whole or not at all, and does it say why not?"""

from __future__ import annotations

import asyncio

import pytest

from dray.model import StoreRevision
from scheduler.store.base import (
    KEY_BYTES_MAX,
    TXN_BYTES_MAX,
    TXN_KEYS_MAX,
    Committed,
    Compare,
    CompareField,
    Conflict,
    Delete,
    LeaseId,
    LeaseLost,
    Put,
    Store,
    Txn,
)
from tests.contract.store.rig import Rig, commit, compare_and_set

NEVER = StoreRevision(0)
CREATED = CompareField.CREATE_REVISION
CHANGED = CompareField.MOD_REVISION


async def test_all_operations_have_one_revision(rig: Rig) -> None:
    """Writes and deletes of a transaction happen at once."""
    async with rig.store() as store:
        before = await commit(store, rig.put("old"))
        revision = await commit(store, rig.put("a"), rig.delete("old"), rig.put("b"))
        assert revision == before + 1
        listing = await store.list(rig.prefix)
        assert rig.names(listing.items) == ["a", "b"]
        assert {item.mod_revision for item in listing.items} == {revision}


async def test_nothing_done_makes_no_revision(rig: Rig) -> None:
    """An empty transaction, or a delete of what does not exist, returns the revision as it is."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("a"))
        assert await commit(store) == revision
        assert await commit(store, rig.delete("absent")) == revision
        assert (await store.get(rig.key("a"))).revision == revision


async def test_create_if_absent(rig: Rig) -> None:
    """Compared with create revision 0, a key can be made once."""
    async with rig.store() as store:
        txn = Txn((Compare(rig.key("a"), CREATED, NEVER),), (rig.put("a", b"1"),))
        first = await store.commit(txn)
        assert isinstance(first, Committed)
        second = await store.commit(txn)
        assert isinstance(second, Conflict)
        assert second.revision == first.revision
        (item,) = second.current
        assert (item.key, item.value, item.mod_revision) == (rig.key("a"), b"1", first.revision)


async def test_create_revision_fences_and_mod_revision_does_not(rig: Rig) -> None:
    """The fence holds while its key is rewritten, and breaks when it is made anew."""
    async with rig.store() as store:
        token = await commit(store, rig.put("leader"))
        fence = Compare(rig.key("leader"), CREATED, token)
        await commit(store, rig.put("leader", b"renewed"))
        assert isinstance(await store.commit(Txn((fence,), (rig.put("a"),))), Committed)
        stale = Compare(rig.key("leader"), CHANGED, token)
        assert isinstance(await store.commit(Txn((stale,), (rig.put("b"),))), Conflict)
        await commit(store, rig.delete("leader"))
        await commit(store, rig.put("leader"))
        assert isinstance(await store.commit(Txn((fence,), (rig.put("c"),))), Conflict)
        assert rig.names((await store.list(rig.prefix)).items) == ["a", "leader"]


async def test_one_compare_that_fails_stops_all(rig: Rig) -> None:
    """Nothing is written; the conflict shows every compared key that exists, once, by key."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("b", b"B"), rig.put("a", b"A"), rig.put("c"))
        compares = (
            Compare(rig.key("b"), CHANGED, revision),
            Compare(rig.key("absent"), CREATED, NEVER),
            Compare(rig.key("a"), CHANGED, StoreRevision(revision - 1)),
            Compare(rig.key("a"), CREATED, revision),
        )
        outcome = await store.commit(Txn(compares, (rig.put("new"), rig.delete("c"))))
        assert isinstance(outcome, Conflict)
        assert outcome.revision == revision
        assert rig.names(outcome.current) == ["a", "b"]
        assert [item.value for item in outcome.current] == [b"A", b"B"]
        assert rig.names((await store.list(rig.prefix)).items) == ["a", "b", "c"]


async def test_compares_alone_are_a_question(rig: Rig) -> None:
    """Without operations a transaction only says whether its compares hold now."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("a"))
        holds = Txn((Compare(rig.key("a"), CHANGED, revision),), ())
        assert await store.commit(holds) == Committed(revision)
        fails = Txn((Compare(rig.key("a"), CHANGED, NEVER),), ())
        assert isinstance(await store.commit(fails), Conflict)


async def test_compares_see_what_was_before_the_operations(rig: Rig) -> None:
    """A transaction may compare and write the same key."""
    async with rig.store() as store:
        revision = await commit(store, rig.put("a", b"1"))
        compare = Compare(rig.key("a"), CHANGED, revision)
        assert isinstance(await store.commit(Txn((compare,), (rig.put("a", b"2"),))), Committed)
        item = (await store.get(rig.key("a"))).item
        assert item is not None
        assert item.value == b"2"


async def test_largest_transaction_is_accepted(rig: Rig) -> None:
    """The stated limits hold: 128 compares, 127 keys, 1 MiB, and a conflict shows all of them."""
    names = [f"{number:03}" for number in range(TXN_KEYS_MAX)]
    compares = tuple(Compare(rig.key(name), CREATED, NEVER) for name in [*names, "fence"])
    key_bytes = len(rig.key("000"))
    value = b"v" * (TXN_BYTES_MAX // TXN_KEYS_MAX - key_bytes)
    async with rig.store() as store:
        txn = Txn(compares, tuple(rig.put(name, value) for name in names))
        assert isinstance(await store.commit(txn), Committed)
        outcome = await store.commit(txn)
        assert isinstance(outcome, Conflict)
        assert rig.names(outcome.current) == names
        assert {len(item.value) for item in outcome.current} == {len(value)}


def test_transaction_above_a_limit_is_a_bug() -> None:
    """What etcd would refuse is refused where it is made, with the figure."""
    puts = tuple(Put(f"/{number}", b"") for number in range(TXN_KEYS_MAX + 1))
    compares = tuple(Compare(f"/{n}", CHANGED, NEVER) for n in range(TXN_KEYS_MAX + 2))
    with pytest.raises(AssertionError, match="128 operations"):
        Txn((), puts)
    with pytest.raises(AssertionError, match="129 compares"):
        Txn(compares, ())
    with pytest.raises(AssertionError, match="twice"):
        Txn((), (Put("/a", b""), Delete("/a")))
    with pytest.raises(AssertionError, match="too long"):
        Txn((), (Put("/" + "a" * KEY_BYTES_MAX, b""),))
    with pytest.raises(AssertionError, match="1048577 bytes"):
        Txn((), (Put("/a", b"v" * (TXN_BYTES_MAX - 1)),))


async def test_put_with_an_ended_lease_changes_nothing(rig: Rig) -> None:
    """A lease that does not exist stops the whole transaction, but a conflict comes first."""
    async with rig.store() as store:
        lease = await store.grant_lease(60)
        await store.revoke_lease(lease)
        revision = await commit(store, rig.put("a"))
        operations = (rig.put("b"), Put(rig.key("c"), b"", lease))
        with pytest.raises(LeaseLost):
            await store.commit(Txn((), operations))
        with pytest.raises(LeaseLost):
            await store.commit(Txn((), (Put(rig.key("c"), b"", LeaseId(lease + 1)),)))
        fails = Compare(rig.key("a"), CHANGED, NEVER)
        assert isinstance(await store.commit(Txn((fails,), operations)), Conflict)
        listing = await store.list(rig.prefix)
        assert (rig.names(listing.items), listing.revision) == (["a"], revision)


async def test_concurrent_writers_lose_no_update(rig: Rig) -> None:
    """Of all who compare with one revision exactly one wins: counts add up, revisions differ."""
    workers, times = 8, 12

    async def count_up(store: Store) -> list[StoreRevision]:
        won: list[StoreRevision] = []
        while len(won) < times:
            item = (await store.get(rig.key("count"))).item
            value = int(item.value) + 1 if item else 1
            outcome = await compare_and_set(store, item, rig.put("count", str(value).encode()))
            if isinstance(outcome, Committed):
                won.append(outcome.revision)
            else:
                assert outcome.current[0].mod_revision <= outcome.revision
        return won

    async with rig.store() as one, rig.store() as other:
        results = await asyncio.gather(*(count_up((one, other)[n % 2]) for n in range(workers)))
        item = (await one.get(rig.key("count"))).item
    revisions = [revision for won in results for revision in won]
    assert len(set(revisions)) == workers * times
    assert item is not None
    assert int(item.value) == workers * times
    assert item.mod_revision == max(revisions)
