"""Do keys go away with their lease, and only then?"""

from __future__ import annotations

import asyncio

import pytest

from scheduler.store.base import Change, Changes, LeaseId, LeaseLost, Put
from tests.contract.store.rig import DEADLINE_S, Rig, commit, following

TTL_S = 2  # etcd's smallest
LONG_S = 600


async def test_ttl_is_at_least_what_was_asked(rig: Rig) -> None:
    """The store may lengthen a lease, never shorten it, and renewing tells."""
    async with rig.store() as store:
        for ttl_s in (1, LONG_S):
            lease = await store.grant_lease(ttl_s)
            assert ttl_s <= await store.renew_lease(lease) <= ttl_s + TTL_S
            await store.revoke_lease(lease)


async def test_item_names_its_lease(rig: Rig) -> None:
    """Who holds a key can be seen; a rewrite without the lease takes it off."""
    async with rig.store() as store:
        lease = await store.grant_lease(LONG_S)
        assert lease != LeaseId(0)
        await commit(store, Put(rig.key("a"), b"", lease))
        item = (await store.get(rig.key("a"))).item
        assert item is not None
        assert item.lease == lease
        await commit(store, rig.put("a"))
        await store.revoke_lease(lease)
        item = (await store.get(rig.key("a"))).item
        assert item is not None
        assert item.lease == LeaseId(0)


async def test_revoked_lease_takes_its_keys_in_one_revision(rig: Rig) -> None:
    """Exactly its own keys, in the order of the keys, seen by a watch as deletes."""
    async with rig.store() as store:
        lease, other = await store.grant_lease(LONG_S), await store.grant_lease(LONG_S)
        await commit(store, *(Put(rig.key(name), b"", lease) for name in ("c", "a", "moved")))
        await commit(store, Put(rig.key("moved"), b"", other), rig.put("free"))
        last = await commit(store, Put(rig.key("b"), b"", lease))
        async with store.watch(rig.prefix, after=last) as watch:
            await store.revoke_lease(lease)
            deleted = tuple(Change(rig.key(name), None) for name in ("a", "b", "c"))
            changes = await following(watch)
            assert changes.changes == deleted
            assert changes.revision > last
        assert rig.names((await store.list(rig.prefix)).items) == ["free", "moved"]
        await store.revoke_lease(other)


async def test_lease_that_does_not_exist(rig: Rig) -> None:
    """Revoking it is no error, renewing it says that it is lost."""
    async with rig.store() as store:
        lease = await store.grant_lease(LONG_S)
        await store.revoke_lease(lease)
        await store.revoke_lease(lease)
        with pytest.raises(LeaseLost):
            await store.renew_lease(lease)


async def test_lease_without_keys_ends_without_a_revision(rig: Rig) -> None:
    """Also when it had keys that were deleted before."""
    async with rig.store() as store:
        lease = await store.grant_lease(LONG_S)
        await commit(store, Put(rig.key("a"), b"", lease))
        revision = await commit(store, rig.delete("a"))
        await store.revoke_lease(lease)
        assert (await store.get(rig.key("a"))).revision == revision


async def test_lease_that_is_not_renewed_ends(rig: Rig) -> None:
    """Its keys are deleted after the time to live and not before; every watch sees it."""
    async with rig.store() as store, rig.store() as other:
        lease = await store.grant_lease(TTL_S)
        last = await commit(store, Put(rig.key("a"), b"", lease), Put(rig.key("b"), b"", lease))
        async with other.watch(rig.prefix, after=last) as watch:
            waiting = asyncio.create_task(following(watch))
            await rig.pass_time(TTL_S * 0.75)
            assert not waiting.done()
            await rig.pass_time(TTL_S * 0.75)
            async with asyncio.timeout(DEADLINE_S):
                changes = await waiting
        deleted = tuple(Change(rig.key(name), None) for name in ("a", "b"))
        assert changes == Changes(changes.revision, deleted)
        assert (await store.list(rig.prefix)).items == ()
        with pytest.raises(LeaseLost):
            await store.renew_lease(lease)


async def test_renewed_lease_stays(rig: Rig) -> None:
    """Renewals keep it well past its time to live; its keys are not touched by them."""
    async with rig.store() as store:
        lease = await store.grant_lease(TTL_S)
        last = await commit(store, Put(rig.key("a"), b"", lease))
        for _ in range(5):
            await rig.pass_time(TTL_S * 0.3)
            assert await store.renew_lease(lease) >= TTL_S
        assert (await store.get(rig.key("a"))).revision == last
        await store.revoke_lease(lease)


async def test_any_client_may_renew(rig: Rig) -> None:
    """A lease belongs to who knows its id, not to a connection: closing one does not end it."""
    async with rig.store() as other:
        async with rig.store() as store:
            lease = await store.grant_lease(LONG_S)
            await commit(store, Put(rig.key("a"), b"", lease))
        assert await other.renew_lease(lease) >= LONG_S
        assert (await other.get(rig.key("a"))).item is not None
        await other.revoke_lease(lease)
