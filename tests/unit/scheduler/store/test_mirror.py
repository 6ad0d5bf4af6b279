"""Does the copy of the store in memory hold exactly what the store holds, whatever befalls it?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dray.clock import ManualClock, SystemClock
from dray.errors import FailedPrecondition, Unavailable
from dray.log import get_logger
from dray.model import Assignment, ClusterRecord, Epoch, StoreRevision
from scheduler.store import keys
from scheduler.store.base import Committed, Delete, Operation, Put, Txn
from scheduler.store.codec import DamagedValue, encode
from scheduler.store.memory import MemoryData, MemoryStore
from scheduler.store.mirror import Mirror
from scheduler.store.records import LeaderRecord
from tests.builders import CLUSTER_ID, a_key, a_node, a_record, a_task, an_id, node_id

CLUSTER = Put(keys.CLUSTER, encode(ClusterRecord(CLUSTER_ID)))
DEADLINE_S = 10.0


class World:
    """A store in memory, and writes to it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.data = MemoryData(self.clock.monotonic_s)
        self.writer = MemoryStore(self.data)
        self.store = MemoryStore(self.data)
        self.mirror = self.new_mirror()

    def new_mirror(self) -> Mirror:
        """Return an empty mirror of the store."""
        return Mirror(
            self.store, clock=SystemClock(), rng=random.Random(1), log=get_logger(__name__)
        )

    async def write(self, *operations: Operation) -> StoreRevision:
        """Commit, and return the revision."""
        outcome = await self.writer.commit(Txn((), operations))
        assert isinstance(outcome, Committed)
        return outcome.revision

    @asynccontextmanager
    async def mirrored(self) -> AsyncIterator[Mirror]:
        """Make the cluster, and run the mirror."""
        await self.write(CLUSTER)
        running = asyncio.create_task(self.mirror.run())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.mirror.wait_changed(StoreRevision(0))
                yield self.mirror
        finally:
            running.cancel()
            await asyncio.wait({running})


async def test_every_change_is_in_the_next_snapshot() -> None:
    """What was committed at a revision is in the snapshot once the mirror is there; deletes too."""
    world = World()
    async with world.mirrored() as mirror:
        node, record = a_node(1), a_record()
        await world.write(Put(keys.node_key(node.node_id), encode(node)))
        revision = await world.write(Put(keys.service_key(a_key()), encode(record)))
        await mirror.wait_revision(revision)
        before = mirror.snapshot
        assert before.nodes == {node.node_id: node}
        assert before.services == {a_key(): record}
        assert before.mod_revisions[keys.service_key(a_key())] == revision

        revision = await world.write(Delete(keys.node_key(node.node_id)))
        await mirror.wait_revision(revision)
        assert mirror.snapshot.nodes == {}
        assert before.nodes == {node.node_id: node}, "a snapshot changed after it was taken"


async def test_a_snapshot_without_changes_is_the_same_object() -> None:
    """Taking a snapshot costs nothing while nothing has changed."""
    world = World()
    async with world.mirrored() as mirror:
        assert mirror.snapshot is mirror.snapshot


async def test_assignments_carry_the_revision_of_their_key() -> None:
    """The mod revision of an assignment is what the next write of it compares."""
    world = World()
    async with world.mirrored() as mirror:
        stored = Assignment(CLUSTER_ID, node_id(1), Epoch(1, 1), StoreRevision(0), (a_task(5),))
        revision = await world.write(Put(keys.assignment_key(node_id(1)), encode(stored)))
        await mirror.wait_revision(revision)
        assert mirror.snapshot.assignments[node_id(1)].mod_revision == revision


async def test_the_leader_is_seen_to_come_and_go() -> None:
    """The leader's record comes with the create revision of its key, and goes with it."""
    world = World()
    async with world.mirrored() as mirror:
        record = LeaderRecord(an_id(9), CLUSTER_ID, 1, "127.0.0.1:7400")  # type: ignore[arg-type]
        created = await world.write(Put(keys.LEADER, encode(record)))
        await mirror.wait_revision(created)
        leader = mirror.snapshot.leader
        assert leader is not None
        assert (leader.record, leader.create_revision) == (record, created)
        await mirror.wait_revision(await world.write(Delete(keys.LEADER)))
        assert mirror.snapshot.leader is None


async def test_keys_of_a_newer_version_are_left_alone() -> None:
    """A key that nobody here knows changes the revision and nothing else."""
    world = World()
    async with world.mirrored() as mirror:
        revision = await world.write(Put("/dray/v1/wonders/1", b"\xff"))
        await mirror.wait_revision(revision)
        assert "/dray/v1/wonders/1" not in mirror.snapshot.mod_revisions


async def test_nothing_is_known_before_the_first_listing() -> None:
    """A mirror that has not read anything says so, rather than showing an empty cluster."""
    with pytest.raises(Unavailable, match="not read the store"):
        _ = World().mirror.snapshot


async def test_an_empty_store_says_to_make_a_cluster() -> None:
    """Without a cluster record the loop ends with what to do."""
    with pytest.raises(FailedPrecondition, match="dray init"):
        await World().mirror.run()


async def test_a_damaged_value_ends_the_loop_with_its_key() -> None:
    """A value that cannot be read is never skipped."""
    world = World()
    await world.write(CLUSTER, Put(keys.assignment_key(node_id(1)), b"junk"))
    with pytest.raises(DamagedValue, match=keys.assignment_key(node_id(1))):
        await world.mirror.run()


async def test_an_assignment_of_another_node_is_refused() -> None:
    """A key that holds what belongs to another key is damage."""
    world = World()
    stored = Assignment(CLUSTER_ID, node_id(2), Epoch(1, 1), StoreRevision(0))
    await world.write(CLUSTER, Put(keys.assignment_key(node_id(1)), encode(stored)))
    with pytest.raises(DamagedValue, match=node_id(2)):
        await world.mirror.run()


async def test_a_compacted_history_is_listed_again() -> None:
    """A mirror that was away while history was forgotten catches up by listing."""
    world = World()
    async with world.mirrored() as mirror:
        world.store.is_cut_off = True
        for number in range(1, 5):
            node = a_node(number)
            revision = await world.write(Put(keys.node_key(node.node_id), encode(node)))
        await world.writer.compact(revision)
        world.store.is_cut_off = False
        await mirror.wait_revision(revision)
        assert len(mirror.snapshot.nodes) == 4


async def test_a_store_that_went_back_is_listed_again() -> None:
    """A reply with a lower revision throws the copy away; what the older store holds comes back."""
    world = World()
    async with world.mirrored() as mirror:
        backup = world.data.backup()
        node = a_node(1)
        revision = await world.write(Put(keys.node_key(node.node_id), encode(node)))
        await mirror.wait_revision(revision)
        world.data.restore(backup)
        older = (await world.writer.get(keys.CLUSTER)).revision
        assert older < revision
        mirror.saw_revision(older, before=revision)
        assert mirror.revision == 0
        assert (await mirror.wait_changed(StoreRevision(0))).revision == older
        assert mirror.snapshot.nodes == {}
        revision = await world.write(Put(keys.node_key(node.node_id), encode(node)))
        await mirror.wait_revision(revision)
        assert mirror.snapshot.nodes == {node.node_id: node}


async def test_a_reply_that_others_have_overtaken_is_no_older_store() -> None:
    """The watch may show what was written during a call before the call's own reply is there."""
    world = World()
    async with world.mirrored() as mirror:
        before = mirror.revision
        replied = await world.write(Put(keys.node_key(node_id(1)), encode(a_node(1))))
        later = await world.write(Put(keys.node_key(node_id(2)), encode(a_node(2))))
        await mirror.wait_revision(later)
        mirror.saw_revision(replied, before)
        assert mirror.revision == later


async def test_what_was_told_before_it_was_written_is_taken_over() -> None:
    """The writer's own value comes back with the revision of its key; another one is read."""
    world = World()
    async with world.mirrored() as mirror:
        stored = Assignment(CLUSTER_ID, node_id(1), Epoch(1, 1), StoreRevision(0), (a_task(5),))
        key = keys.assignment_key(node_id(1))
        mirror.expect(key, encode(stored), stored)
        revision = await world.write(Put(key, encode(stored)))
        await mirror.wait_revision(revision)
        found = mirror.snapshot.assignments[node_id(1)]
        assert found.mod_revision == revision
        assert found.tasks is stored.tasks
        other = Assignment(CLUSTER_ID, node_id(1), Epoch(1, 2), StoreRevision(0))
        mirror.expect(key, encode(stored), stored)
        await mirror.wait_revision(await world.write(Put(key, encode(other))))
        assert mirror.snapshot.assignments[node_id(1)].epoch == Epoch(1, 2)
