"""Is a cluster made once, with ranges that can work?"""

from __future__ import annotations

import pytest

from dray.clock import ManualClock
from dray.errors import AlreadyExists, FailedPrecondition, InvalidRequest
from dray.model import ClusterRecord
from scheduler.init import Ranges, make_cluster, new_cluster, raise_generation
from scheduler.store.codec import decode_as
from scheduler.store.keys import CLUSTER, KEYRING
from scheduler.store.memory import CommitFault, MemoryData, MemoryStore
from scheduler.store.records import KeyringRecord
from tests.builders import CountingIds


def made(
    ranges: Ranges | None = None, ids: CountingIds | None = None
) -> tuple[ClusterRecord, KeyringRecord]:
    """Return a new cluster and its keys."""
    return new_cluster(
        ranges or Ranges(), ids=ids or CountingIds(), random_bytes=bytes, now_unix_s=5.0
    )


def a_store() -> MemoryStore:
    """Return an empty store."""
    return MemoryStore(MemoryData(ManualClock().monotonic_s))


async def stored(store: MemoryStore) -> ClusterRecord:
    """Return the cluster that a store holds."""
    item = (await store.get(CLUSTER)).item
    assert item is not None
    return decode_as(item, ClusterRecord)


async def test_a_cluster_is_made_with_its_key() -> None:
    """Cluster and keyring are written together; the first key seals."""
    store = a_store()
    cluster, keyring = made()
    await make_cluster(store, cluster, keyring)
    assert await stored(store) == cluster
    item = (await store.get(KEYRING)).item
    assert item is not None
    (key,) = decode_as(item, KeyringRecord).keys
    assert (key.primary, len(key.material)) == (True, 32)
    assert (cluster.generation, cluster.created_unix_s) == (1, 5.0)


async def test_a_second_cluster_is_refused_and_changes_nothing() -> None:
    """Who runs it twice is told whose store it is; the first cluster stays."""
    store = a_store()
    ids = CountingIds()
    first, keyring = made(ids=ids)
    await make_cluster(store, first, keyring)
    with pytest.raises(AlreadyExists, match=f"{first.cluster_id} already.*dray scheduler run"):
        await make_cluster(store, *made(ids=ids))
    assert await stored(store) == first


@pytest.mark.parametrize("fault", [CommitFault.UNANSWERED, CommitFault.LOST])
async def test_a_lost_answer_is_looked_up(fault: CommitFault) -> None:
    """When the answer is lost, the store tells whether the cluster was made."""
    store = a_store()
    cluster, keyring = made()
    store.fail_next_commit(fault)
    if fault is CommitFault.LOST:
        with pytest.raises(FailedPrecondition, match="not written"):
            await make_cluster(store, cluster, keyring)
    else:
        await make_cluster(store, cluster, keyring)
        assert await stored(store) == cluster


async def test_a_restore_raises_the_generation() -> None:
    """Everything but the generation stays; an empty store has none to raise."""
    store = a_store()
    with pytest.raises(FailedPrecondition, match="dray init"):
        await raise_generation(store)
    cluster, keyring = made()
    await make_cluster(store, cluster, keyring)
    assert (await raise_generation(store)).generation == 2
    assert (await stored(store)).cluster_id == cluster.cluster_id


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        (Ranges("10.192.0.0/23"), "no room for 2 nodes of a /23 each; a /22 would do"),
        (Ranges("10.192.0.1/11"), "10.192.0.1/11 is not the start of one; 10.192.0.0/11 is"),
        (Ranges("fd00::/8"), "not an IPv4 range"),
        (Ranges("8.0.0.0/11"), "not for private use"),
        (Ranges("127.0.0.0/11"), "not for private use"),
        (Ranges(vip_range_cidr="10.200.0.0/16"), "10.192.0.0/11 and 10.200.0.0/16 overlap"),
        (Ranges(vip_range_cidr="10.224.0.0/25"), "too small: a /24"),
        (Ranges(node_prefix_length=30), "a node's share is a /20 to /27, not a /30"),
        (Ranges("10.0.0.0/30", "10.0.0.0/30"), "no room.*too small.*overlap"),
    ],
    ids=range(9),
)
def test_ranges_that_cannot_work_are_refused(ranges: Ranges, text: str) -> None:
    """Every message names the range and what would do; all that is wrong is told at once."""
    with pytest.raises(InvalidRequest, match=text):
        made(ranges)


def test_limits_follow_from_the_ranges() -> None:
    """A node has as many tasks as addresses, and the cluster as many nodes as shares."""
    assert made()[0].limits.tasks_per_node_max == 508
    assert made()[0].limits.nodes_max == 4_096
    small, _ = made(Ranges("10.192.0.0/22", node_prefix_length=24))
    assert (small.limits.nodes_max, small.limits.tasks_per_node_max) == (4, 252)
