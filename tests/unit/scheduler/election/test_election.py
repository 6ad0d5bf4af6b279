"""Does the driver lead one at a time, hand over, and remember, on a store in memory?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dray.addresses import HostPort
from dray.clock import SystemClock
from dray.errors import FailedPrecondition
from dray.log import get_logger
from dray.model import ClusterRecord, Epoch, StoreRevision
from dray.names import SchedulerId
from scheduler.election.election import Candidate, Election, LeaderTerm
from scheduler.election.memory import EpochMemory
from scheduler.election.prober import REFUSED_REASON, watch_leader
from scheduler.store import keys
from scheduler.store.base import Committed, Conflict, Put, Txn
from scheduler.store.codec import encode
from scheduler.store.memory import CommitFault, MemoryData, MemoryStore
from scheduler.store.mirror import Mirror
from scheduler.store.records import LeaderRecord
from tests.builders import CLUSTER_ID, CountingIds, an_id

DEADLINE_S = 10.0
CLOCK = SystemClock()
LOG = get_logger(__name__)


class Member:
    """One scheduler's election, and what it led."""

    def __init__(self, data: MemoryData, folder: Path, number: int) -> None:
        self.store = MemoryStore(data)
        self.mirror = Mirror(self.store, clock=CLOCK, rng=random.Random(number), log=LOG)
        self.memory = EpochMemory.open(folder / str(number), CountingIds(number))
        self.id = self.memory.scheduler_id
        self.election = Election(
            Candidate(self.id, HostPort("127.0.0.1", 7400 + number), "0"),
            store=self.store,
            mirror=self.mirror,
            memory=self.memory,
            ttl_s=2,
            clock=CLOCK,
            log=LOG,
        )
        self.terms: asyncio.Queue[LeaderTerm] = asyncio.Queue()
        self.leading = 0

    async def lead(self, term: LeaderTerm) -> None:
        """Count, and lead until the term ends."""
        self.leading += 1
        self.terms.put_nowait(term)
        try:
            await asyncio.Event().wait()
        finally:
            self.leading -= 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Member]:
        """Take part until the block ends."""
        tasks = {
            asyncio.create_task(self.mirror.run()),
            asyncio.create_task(self.election.run(self.lead)),
        }
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.fixture
def data() -> MemoryData:
    """Return what a store with a cluster holds."""
    found = MemoryData(CLOCK.monotonic_s)
    found.commit(Txn((), (Put(keys.CLUSTER, encode(ClusterRecord(CLUSTER_ID))),)))
    return found


@pytest.fixture
def member(data: MemoryData, tmp_path: Path) -> Iterator[Member]:
    """Lend a scheduler's election."""
    lent = Member(data, tmp_path, 1)
    yield lent
    lent.memory.close()


@pytest.fixture
def other(data: MemoryData, tmp_path: Path) -> Iterator[Member]:
    """Lend the election of another scheduler."""
    lent = Member(data, tmp_path, 2)
    yield lent
    lent.memory.close()


async def test_one_leads_and_the_other_takes_over_when_it_stops(
    member: Member, other: Member
) -> None:
    """Two campaign, one leads; when it stops, the other one leads at once with a higher epoch."""
    async with other.running() as second:
        async with member.running() as first:
            waiting = {asyncio.create_task(each.terms.get()) for each in (first, second)}
            done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            (won,) = done
            assert first.leading + second.leading == 1
            epoch = won.result().epoch
            for task in pending:
                task.cancel()
            if second.leading:
                return  # the one that stays won: the other way round is the next test's
        later = await second.terms.get()
        assert later.epoch > epoch
        assert first.leading == 0


async def test_the_fence_holds_for_the_term_and_no_longer(member: Member, data: MemoryData) -> None:
    """A transaction with the fence applies while the term lasts, and conflicts after it."""
    async with member.running():
        term = await member.terms.get()
        store = MemoryStore(data)
        write = Txn((term.fence,), (Put("/x", b"1"),))
        assert isinstance(await store.commit(write), Committed)
        assert term.valid_until_s() > CLOCK.monotonic_s()
        assert member.memory.highest == term.epoch
    assert isinstance(await store.commit(write), Conflict)
    assert (await store.get(keys.LEADER)).item is None
    assert (await store.get(keys.scheduler_key(member.id))).item is None


@pytest.mark.parametrize("fault", [CommitFault.UNANSWERED, CommitFault.LOST])
async def test_a_lost_answer_to_the_campaign_costs_nothing(
    member: Member, data: MemoryData, fault: CommitFault
) -> None:
    """Whether the lost campaign was applied or not, one term is led."""
    announced = asyncio.Event()

    async def fail_the_campaign() -> None:
        while (await MemoryStore(data).get(keys.scheduler_key(member.id))).item is None:
            await asyncio.sleep(0)
        member.store.fail_next_commit(fault)
        announced.set()

    failing = asyncio.create_task(fail_the_campaign())
    async with member.running():
        term = await member.terms.get()
        await announced.wait()
        item = (await MemoryStore(data).get(keys.LEADER)).item
        assert item is not None
        assert item.create_revision == term.epoch.create_revision
    await failing


async def test_a_revoked_lease_ends_the_term(member: Member, data: MemoryData) -> None:
    """Who loses its key stops leading, and may be elected again with a higher epoch."""
    async with member.running():
        term = await member.terms.get()
        item = (await MemoryStore(data).get(keys.LEADER)).item
        assert item is not None
        await MemoryStore(data).revoke_lease(item.lease)
        again = await member.terms.get()
        assert again.epoch > term.epoch
        assert member.leading == 1


async def test_a_higher_epoch_than_the_stores_is_complained_about(
    member: Member, data: MemoryData
) -> None:
    """A scheduler that has seen a later store does not lead with an older one, and says so."""
    await member.memory.remember(Epoch(1, 10_000))
    async with member.running():
        while not member.election.complaint:
            await asyncio.sleep(0.01)
        assert "generation 1, revision 10000 was seen" in member.election.complaint
        assert (await MemoryStore(data).get(keys.LEADER)).item is None


async def test_a_failing_leader_gives_its_key_back(member: Member, data: MemoryData) -> None:
    """What the leader's work raises ends the election, and nothing is left in the store."""

    async def fail(_term: LeaderTerm) -> None:
        raise FailedPrecondition("no way to lead")

    mirroring = asyncio.create_task(member.mirror.run())
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(FailedPrecondition, match="no way"):
            await member.election.run(fail)
    assert (await MemoryStore(data).get(keys.LEADER)).item is None
    mirroring.cancel()
    await asyncio.wait({mirroring})


async def test_a_dead_leaders_address_proves_it(member: Member, data: MemoryData) -> None:
    """While something listens there is no proof; when the address refuses, there is."""
    connections: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda _reader, writer: connections.put_nowait(writer), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    record = LeaderRecord(SchedulerId(an_id(9)), CLUSTER_ID, 1, f"127.0.0.1:{port}")
    outcome = await MemoryStore(data).commit(Txn((), (Put(keys.LEADER, encode(record)),)))
    proofs: asyncio.Queue[tuple[StoreRevision, str]] = asyncio.Queue()
    tasks = {
        asyncio.create_task(member.mirror.run()),
        asyncio.create_task(
            watch_leader(member.mirror, member.id, lambda *proof: proofs.put_nowait(proof), CLOCK)
        ),
    }
    async with asyncio.timeout(DEADLINE_S):
        (await connections.get()).close()
        connection = await connections.get()  # it still listens, so that was no death
        assert proofs.empty()
        server.close()
        connection.close()
        await server.wait_closed()
        assert await proofs.get() == (outcome.revision, REFUSED_REASON)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_the_memory_outlives_the_process(tmp_path: Path) -> None:
    """Id and highest epoch come back; a lower epoch is no news; a second process is refused."""
    memory = EpochMemory.open(tmp_path, CountingIds(5))
    asyncio.run(memory.remember(Epoch(2, 7)))
    asyncio.run(memory.remember(Epoch(1, 900), Epoch(2, 30)))
    with pytest.raises(FailedPrecondition, match="another scheduler uses"):
        EpochMemory.open(tmp_path, CountingIds(6))
    memory.close()
    again = EpochMemory.open(tmp_path, CountingIds(6))
    assert (again.scheduler_id, again.highest) == (memory.scheduler_id, Epoch(2, 7))
    assert again.position == Epoch(2, 30)
    again.close()
    (tmp_path / "scheduler.json").write_text("{}")
    with pytest.raises(FailedPrecondition, match="damaged"):
        EpochMemory.open(tmp_path, CountingIds(6))
