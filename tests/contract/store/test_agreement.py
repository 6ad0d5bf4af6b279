"""Does the store in memory do what etcd does, for any sequence of calls?

Random histories run on both, and everything that each answers is compared, revisions counted from
where the history began. The suite's other tests say what is right; this one finds what they forgot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dray.model import StoreRevision
from scheduler.store.base import (
    Committed,
    Compare,
    CompareField,
    Conflict,
    Delete,
    Item,
    LeaseId,
    LeaseLost,
    Put,
    Store,
    Txn,
)
from tests.contract.store.rig import EtcdRig, MemoryRig, Rig, commit, until
from tests.lab.etcd import EtcdCluster

T = TypeVar("T")

NAMES = ("a", "a/", "b", "c")
LEASE_S = 600


@dataclass(frozen=True, slots=True)
class Check:
    """A compare: with what the key has (`back` 0), with what it had (more), or with absence."""

    name: str
    field: CompareField
    back: int | None


@dataclass(frozen=True, slots=True)
class Write:
    """A write of a key (or its removal: no value), with a lease by number (0: none)."""

    name: str
    value: bytes | None
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction."""

    checks: tuple[Check, ...]
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Revoke:
    """The end of a lease, by number; perhaps of one that has ended."""

    lease: int


Step: TypeAlias = Commit | Revoke
LEASES = 2

checks = st.builds(
    Check,
    st.sampled_from(NAMES),
    st.sampled_from(CompareField),
    st.sampled_from([0, 0, 0, 1, None]),
)
writes = st.builds(
    Write,
    st.sampled_from(NAMES),
    st.sampled_from([None, b"", b"1", b"2"]),
    st.integers(0, LEASES),
)
commits = st.builds(
    Commit,
    st.lists(checks, max_size=3).map(tuple),
    st.lists(writes, max_size=4, unique_by=lambda write: write.name).map(tuple),
)
steps = st.lists(commits | st.builds(Revoke, st.integers(1, LEASES)), min_size=1, max_size=12)


@pytest.mark.parametrize("real_etcd", ["etcd"], indirect=True)
@pytest.mark.timeout(300)  # finding the smallest example takes its time
@settings(max_examples=60)
@given(history=steps)
async def test_memory_and_etcd_agree(real_etcd: EtcdCluster, history: list[Step]) -> None:
    """The same calls get the same answers, listings and watches."""
    assert await _story(EtcdRig(real_etcd), history) == await _story(MemoryRig(), history)


async def _story(rig: Rig, history: Sequence[Step]) -> list[object]:
    """Return everything that a store answered to a history."""
    story: list[object] = []
    async with rig.store() as store:
        base = (await store.list(rig.prefix)).revision
        leases = [LeaseId(0), *[await store.grant_lease(LEASE_S) for _ in range(LEASES)]]
        for step in history:
            outcome = await _taken(rig, store, leases, step)
            listing = await store.list(rig.prefix)
            story += [_told(rig, base, leases, each) for each in (outcome, listing)]
        last = await commit(store, rig.put("end"))
        async with store.watch(rig.prefix, after=base) as watch:
            story += [_told(rig, base, leases, each) for each in await until(watch, last)]
        for lease in leases[1:]:
            await store.revoke_lease(lease)
    return story


async def _taken(
    rig: Rig, store: Store, leases: Sequence[LeaseId], step: Step
) -> Committed | Conflict | str:
    if isinstance(step, Revoke):
        await store.revoke_lease(leases[step.lease])
        return "revoked"
    items = {item.key: item for item in (await store.list(rig.prefix)).items}
    compares = tuple(_compare(rig, items, check) for check in step.checks)
    operations = tuple(
        Delete(rig.key(write.name))
        if write.value is None
        else Put(rig.key(write.name), write.value, leases[write.lease])
        for write in step.writes
    )
    try:
        return await store.commit(Txn(compares, operations))
    except LeaseLost:
        return "lease lost"


def _compare(rig: Rig, items: dict[str, Item], check: Check) -> Compare:
    item = items.get(rig.key(check.name))
    revision = 0
    if item is not None and check.back is not None:
        is_mod = check.field is CompareField.MOD_REVISION
        revision = (item.mod_revision if is_mod else item.create_revision) - check.back
    return Compare(rig.key(check.name), check.field, StoreRevision(revision))


def _told(rig: Rig, base: StoreRevision, leases: Sequence[LeaseId], answer: T) -> T | Item:
    """Return an answer with names for keys, numbers for leases, and revisions counted from 0."""
    if isinstance(answer, Item):
        return Item(
            answer.key.removeprefix(rig.prefix),
            answer.value,
            StoreRevision(answer.create_revision - base),
            StoreRevision(answer.mod_revision - base),
            LeaseId(list(leases).index(answer.lease)),
        )
    if not dataclasses.is_dataclass(answer) or isinstance(answer, type):
        return answer
    values: dict[str, object] = {}
    for part in dataclasses.fields(answer):
        value = getattr(answer, part.name)
        match value:
            case tuple():
                values[part.name] = tuple(_told(rig, base, leases, each) for each in value)
            case int():
                values[part.name] = value - base
            case str():
                values[part.name] = value.removeprefix(rig.prefix)
            case _:
                values[part.name] = _told(rig, base, leases, value)
    return type(answer)(**values)
