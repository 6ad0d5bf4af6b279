"""Does the store keep its guarantees when etcd's servers die, hang, lose quorum or go back in time?

The bounds are those of the default limits, with room for a busy machine.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import pytest

from dray.addresses import parse_host_port
from dray.errors import AmbiguousWrite, DeadlineExceeded, ResourceExhausted, Unavailable
from dray.model import StoreRevision
from scheduler.store.base import (
    Changes,
    Committed,
    Compacted,
    Compare,
    CompareField,
    Conflict,
    Item,
    Put,
    Txn,
)
from scheduler.store.etcd import EtcdLimits, EtcdStore
from tests.lab.etcd import EtcdCluster

T = TypeVar("T")

PREFIX: Final = "/integration/"
SOON_S: Final = 20.0  # far above every bound: a hang, not a slow machine
SILENT_CALL_S: Final = 5.0  # attempt_s = 2, and an etcd election where the silent one led
SILENT_WATCH_S: Final = 11.0  # keepalive 5 + 2, and the same
CALL_S: Final = EtcdLimits().call_s + 2.0

_numbers = itertools.count(1)


@asynccontextmanager
async def client(cluster: EtcdCluster, first: int = 0) -> AsyncIterator[EtcdStore]:
    """Lend a client that prefers one member."""
    ends = [parse_host_port(end) for end in cluster.endpoints]
    store = EtcdStore([*ends[first:], *ends[:first]], None, rng=random.Random(1))
    try:
        yield store
    finally:
        await store.close()


async def away(function: Callable[..., T], *arguments: object) -> T:
    """Run what blocks (signals, processes) in a thread."""
    return await asyncio.to_thread(function, *arguments)


def new_prefix() -> str:
    """Return a prefix that no other test uses."""
    return f"{PREFIX}{next(_numbers)}/"


async def put(store: EtcdStore, key: str, value: bytes = b"") -> StoreRevision:
    """Write a key; return the revision."""
    outcome = await store.commit(Txn((), (Put(key, value),)))
    assert isinstance(outcome, Committed)
    return outcome.revision


@dataclass(slots=True)
class Writer:
    """Writes numbered keys, each once, until told to stop, and notes what it was told of each."""

    store: EtcdStore
    prefix: str
    committed: dict[str, StoreRevision] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    is_stopped: bool = False

    async def run(self) -> None:
        """Write."""
        for number in itertools.count():
            if self.is_stopped:
                return
            key = f"{self.prefix}{number:06}"
            try:
                self.committed[key] = await put(self.store, key)
            except AmbiguousWrite:
                self.ambiguous.add(key)
            except Unavailable:
                self.refused.add(key)

    async def more(self, count: int = 50) -> None:
        """Wait until so many more keys were committed."""
        goal = len(self.committed) + count
        async with asyncio.timeout(SOON_S):
            while len(self.committed) < goal:
                await asyncio.sleep(0.01)

    def check_told_the_truth(self, items: tuple[Item, ...]) -> None:
        """Compare what it was told with what there is: committed, refused, or either."""
        found = {item.key: item.mod_revision for item in items}
        assert {key: found.get(key) for key in self.committed} == self.committed
        assert not found.keys() & self.refused
        assert found.keys() <= self.committed.keys() | self.ambiguous


async def read_until(
    store: EtcdStore, prefix: str, after: StoreRevision, last_key: str
) -> list[Changes]:
    """Return what one watch brings up to the change of a key."""
    got: list[Changes] = []
    async with store.watch(prefix, after=after) as watch:
        while not got or got[-1].changes[-1].key != last_key:
            got.append(await anext(watch))
    return got


async def check_nothing_lost(
    cluster: EtcdCluster, trouble: Callable[[Writer], AsyncIterator[None]], *, first: int
) -> None:
    """Watch and write through a trouble; compare the watch and the writer with what is stored."""
    prefix = new_prefix()
    async with client(cluster, first) as store, client(cluster, first) as other:
        start = (await store.list(prefix)).revision
        writer = Writer(other, prefix)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            reading = group.create_task(read_until(store, prefix, start, f"{prefix}end"))
            writing = group.create_task(writer.run())
            await writer.more()
            async for _ in trouble(writer):
                await writer.more()
            writer.is_stopped = True
            await writing
            await put(other, f"{prefix}end")
        items = (await store.list(prefix)).items
    seen = [(change.key, got.revision) for got in reading.result() for change in got.changes]
    assert seen == sorted(((item.key, item.mod_revision) for item in items), key=lambda s: s[1])
    writer.check_told_the_truth(items[:-1])


async def test_watch_outlives_the_only_server(etcd1: EtcdCluster) -> None:
    """Killed and started again twice while a writer goes on: nothing is lost, nothing doubled.

    And of every write the truth was told: committed is there, refused is not.
    """

    async def kill_twice(writer: Writer) -> AsyncIterator[None]:
        for _ in range(2):
            await away(etcd1.kill, 0)
            await away(etcd1.restart, 0)
            yield
        assert len(writer.committed) > 100

    await check_nothing_lost(etcd1, kill_twice, first=0)


@pytest.mark.parametrize("victim", ["follower", "leader"])
async def test_watch_outlives_the_server_it_is_on(etcd3: EtcdCluster, victim: str) -> None:
    """Of three servers the one that serves watch and writer is killed, then brought back."""
    leader = await away(etcd3.leader)
    assert leader is not None
    first = leader if victim == "leader" else (leader + 1) % 3

    async def kill(_writer: Writer) -> AsyncIterator[None]:
        await away(etcd3.kill, first)
        yield
        await away(etcd3.restart, first)
        yield

    await check_nothing_lost(etcd3, kill, first=first)


async def test_watch_outlives_all_servers(etcd3: EtcdCluster) -> None:
    """All three are killed at once and come back."""

    async def kill_all(_writer: Writer) -> AsyncIterator[None]:
        for member in etcd3.members:
            await away(etcd3.kill, member.index)
        await away(etcd3.mend)
        yield

    await check_nothing_lost(etcd3, kill_all, first=1)


@pytest.mark.parametrize("victim", ["follower", "leader"])
async def test_silent_server_is_left_within_a_bound(etcd3: EtcdCluster, victim: str) -> None:
    """A server that hangs (SIGSTOP) while its kernel accepts: calls and watches use the next."""
    leader = await away(etcd3.leader)
    assert leader is not None
    first = leader if victim == "leader" else (leader + 1) % 3
    prefix = new_prefix()
    clock = asyncio.get_running_loop().time
    async with client(etcd3, first) as store, client(etcd3, first) as watcher:
        start = await put(store, f"{prefix}before")
        async with watcher.watch(prefix, after=StoreRevision(start - 1)) as watch:
            assert (await anext(watch)).revision == start
            await away(etcd3.pause, first)
            paused_at_s = clock()
            waiting = asyncio.create_task(_next(watch))
            assert (await store.get(f"{prefix}before")).item is not None
            assert clock() - paused_at_s < SILENT_CALL_S
            written = await put(store, f"{prefix}after")
            async with asyncio.timeout(SOON_S):
                assert (await waiting).revision == written
            assert clock() - paused_at_s < SILENT_WATCH_S
            await away(etcd3.resume, first)


async def test_idle_watch_leaves_a_silent_server(etcd3: EtcdCluster) -> None:
    """Nothing but the keepalive tells a watch without changes or calls beside it."""
    leader = await away(etcd3.leader)
    assert leader is not None
    first = (leader + 1) % 3
    prefix = new_prefix()
    clock = asyncio.get_running_loop().time
    async with client(etcd3, first) as watcher, client(etcd3, leader) as store:
        start = await put(store, f"{prefix}before")
        async with watcher.watch(prefix, after=StoreRevision(start - 1)) as watch:
            assert (await anext(watch)).revision == start
            await away(etcd3.pause, first)
            paused_at_s = clock()
            written = await put(store, f"{prefix}after")
            async with asyncio.timeout(SOON_S):
                assert (await anext(watch)).revision == written
            assert clock() - paused_at_s < SILENT_WATCH_S
            await away(etcd3.resume, first)


async def _next(watch: AsyncIterator[Changes]) -> Changes:
    return await anext(watch)


async def test_lease_outlives_the_server_it_was_granted_by(etcd3: EtcdCluster) -> None:
    """Renewals move on to the next server before the lease ends."""
    leader = await away(etcd3.leader)
    assert leader is not None
    first = (leader + 1) % 3
    key = f"{new_prefix()}leased"
    async with client(etcd3, first) as store:
        lease = await store.grant_lease(5)
        outcome = await store.commit(Txn((), (Put(key, b"", lease),)))
        await store.renew_lease(lease)
        await away(etcd3.pause, first)
        for _ in range(5):
            await store.renew_lease(lease)
            await asyncio.sleep(1.5)
        assert (await store.get(key)).item is not None
        assert isinstance(outcome, Committed)
        await store.revoke_lease(lease)
        await away(etcd3.resume, first)


async def test_write_to_a_silent_server_is_ambiguous(etcd1: EtcdCluster) -> None:
    """Sent and not answered: said so in time, and not sent a second time."""
    key = f"{new_prefix()}key"
    clock = asyncio.get_running_loop().time
    async with client(etcd1) as store:
        before = await put(store, key, b"before")
        await away(etcd1.pause, 0)
        sent_at_s = clock()
        with pytest.raises(AmbiguousWrite, match=r"DEADLINE|UNAVAILABLE") as caught:
            await store.commit(Txn((), (Put(key, b"after"),)))
        assert clock() - sent_at_s < SILENT_CALL_S
        assert caught.value.__cause__ is not None
        await away(etcd1.resume, 0)
        reading = await store.get(key)
        assert reading.item is not None
        assert reading.item.value in (b"before", b"after")
        assert reading.revision <= before + 1


@pytest.mark.parametrize("end", ["pause", "kill"])
async def test_write_that_applies_once_is_sent_again(etcd3: EtcdCluster, end: str) -> None:
    """The leader of etcd goes while writes are on their way: each is answered, and applied once.

    Each compares that its key is not there. What a paused leader still held it proposes when it
    goes on, and that changes nothing any more.
    """
    prefix = new_prefix()
    leader = await away(etcd3.leader)
    assert leader is not None
    async with client(etcd3, leader) as one, client(etcd3, (leader + 1) % 3) as other:

        async def write(store: EtcdStore, number: int) -> Committed | Conflict:
            key = f"{prefix}{number:03}"
            is_new = Compare(key, CompareField.MOD_REVISION, StoreRevision(0))
            return await store.commit(Txn((is_new,), (Put(key, b""),), applies_once=True))

        for store in (one, other):
            await put(store, f"{prefix}connected")
        await away(getattr(etcd3, end), leader)
        async with asyncio.timeout(SOON_S):
            answers = await asyncio.gather(*(write((one, other)[n % 2], n) for n in range(20)))
        await away(etcd3.mend)
        found = {item.key: item for item in (await other.list(prefix)).items}
    for number, answer in enumerate(answers):
        item = found[f"{prefix}{number:03}"]
        assert item.create_revision == item.mod_revision
        if isinstance(answer, Committed):
            assert answer.revision == item.mod_revision
        else:  # its first attempt was applied, and is what was in the way
            assert answer.current == (item,)


async def test_write_without_a_connection_is_not_ambiguous(etcd1: EtcdCluster) -> None:
    """No server to send it to: `Unavailable`, nothing was written, and later calls work again."""
    key = f"{new_prefix()}key"
    clock = asyncio.get_running_loop().time
    async with client(etcd1) as store:
        await put(store, f"{key}-other")
        await away(etcd1.kill, 0)
        sent_at_s = clock()
        with pytest.raises(Unavailable) as caught:
            await store.commit(Txn((), (Put(key, b""),)))
        assert clock() - sent_at_s < CALL_S
        assert caught.value.retryable
        await away(etcd1.restart, 0)
        assert (await store.get(key)).item is None
        await put(store, key)


async def test_that_all_of_etcd_is_away_is_said_soon(etcd3: EtcdCluster) -> None:
    """Whoever may wait for an hour is told after a second, and served again when it is back."""
    ends = [parse_host_port(end) for end in etcd3.endpoints]
    limits = EtcdLimits(call_s=3_600.0, away_s=1.0)
    store = EtcdStore(ends, None, rng=random.Random(1), limits=limits)
    prefix = new_prefix()
    try:
        await put(store, f"{prefix}a")
        for member in etcd3.members:
            await away(etcd3.kill, member.index)
        async with asyncio.timeout(SOON_S):
            with pytest.raises(Unavailable):
                await store.get(f"{prefix}a")
            with pytest.raises(Unavailable):
                await put(store, f"{prefix}b")
        await away(etcd3.mend)
        assert (await store.get(f"{prefix}a")).item is not None
        assert (await store.get(f"{prefix}b")).item is None
    finally:
        await store.close()


async def test_server_without_quorum_is_noticed(etcd3: EtcdCluster) -> None:
    """Two of three hang: reads fail in time, the status says who, and all goes on afterwards."""
    leader = await away(etcd3.leader)
    assert leader is not None
    key = f"{new_prefix()}key"
    clock = asyncio.get_running_loop().time
    others = [index for index in range(3) if index != leader]
    async with client(etcd3, leader) as store:
        start = await put(store, key)
        async with store.watch(key, after=start) as watch:
            for index in others:
                await away(etcd3.pause, index)
            paused_at_s = clock()
            with pytest.raises((DeadlineExceeded, Unavailable)):
                await store.get(key)
            assert clock() - paused_at_s < CALL_S
            status = await store.status()
            assert [member.healthy for member in status.members] == [True, False, False]
            assert all(member.problem for member in status.members[1:])
            waiting = asyncio.create_task(_next(watch))
            for index in others:
                await away(etcd3.resume, index)
            async with asyncio.timeout(SOON_S):
                while True:
                    try:
                        await put(store, key)
                        break
                    except (AmbiguousWrite, Unavailable):
                        await asyncio.sleep(0.1)
                assert (await waiting).revision > start


async def test_restored_store_is_noticed(etcd1: EtcdCluster, tmp_path: Path) -> None:
    """A backup is older than what a watch has seen: it says so instead of waiting for ever."""
    prefix = new_prefix()
    async with client(etcd1) as store:
        await put(store, f"{prefix}kept")
        await away(etcd1.snapshot_save, tmp_path / "snapshot")
        for number in range(20):
            last = await put(store, f"{prefix}lost-{number}")
        async with store.watch(prefix, after=last) as watch:
            waiting = asyncio.create_task(_next(watch))
            await away(etcd1.snapshot_restore, tmp_path / "snapshot")
            async with asyncio.timeout(SOON_S):
                with pytest.raises(Compacted, match="restored"):
                    await waiting
        listing = await store.list(prefix)
        assert [item.key for item in listing.items] == [f"{prefix}kept"]
        assert listing.revision < last


async def test_compaction_while_nobody_reads_is_said(etcd1: EtcdCluster) -> None:
    """A reader that gave up its stream and comes back too late is told, not fed a gap."""
    prefix = new_prefix()
    async with client(etcd1) as store:
        start = await put(store, f"{prefix}a")
        async with store.watch(prefix, after=start) as watch:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(watch)
            await put(store, f"{prefix}a")
            await store.compact(await put(store, f"{prefix}a"))
            with pytest.raises(Compacted):
                await anext(watch)


@pytest.fixture
def small_etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Start a server that holds 4 MiB."""
    with EtcdCluster(1, tmp_path, extra_args=["--quota-backend-bytes=4194304"]) as cluster:
        yield cluster


async def test_full_store_says_so(small_etcd: EtcdCluster) -> None:
    """Writes and lease grants are refused as such, with the way out; reads and watches go on."""
    prefix = new_prefix()
    async with client(small_etcd) as store:
        first = await put(store, f"{prefix}0")
        with pytest.raises(ResourceExhausted, match=r"space exceeded.*defrag"):
            await _fill(store, prefix)
        with pytest.raises(ResourceExhausted):
            await store.grant_lease(5)
        assert (await store.get(f"{prefix}0")).item is not None
        async with store.watch(prefix, after=StoreRevision(first - 1)) as watch:
            assert (await anext(watch)).revision == first
        (member,) = (await store.status()).members
        assert member.alarms == ("NOSPACE",)


async def _fill(store: EtcdStore, prefix: str) -> None:
    for number in range(20):
        await put(store, f"{prefix}{number}", b"v" * 1_000_000)


async def test_many_calls_at_once_share_a_failover(etcd3: EtcdCluster) -> None:
    """100 readers on a server that is killed all get their answer from another one."""
    prefix = new_prefix()
    async with client(etcd3, 1) as store:
        await put(store, f"{prefix}a", b"value")
        await away(etcd3.kill, 1)
        readings = await asyncio.gather(*(store.get(f"{prefix}a") for _ in range(100)))
        assert {reading.item.value for reading in readings if reading.item} == {b"value"}
        await away(etcd3.restart, 1)
