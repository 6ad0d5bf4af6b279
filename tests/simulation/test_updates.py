"""Does a published fact reach everybody at once, and nobody only when digests have differed?"""

from __future__ import annotations

import random

import pytest

from dray.model import FactKey
from node.gossip.core import PublishFact
from tests.simulation.gossip_cluster import GossipCluster, node_id_of
from tests.simulation.large import large_cluster
from tests.simulation.world import LinkQuality

NODES = 64
UPDATES = 25
LIMIT_S = 0.7  # of virtual time: a node that was left out waits longer, for a digest


def time_to_all_s(cluster: GossipCluster, publisher: str, value: bytes) -> float:
    """Publish a fact; return how long it takes, at most 10 s, until every node has it."""
    world = cluster.world
    key = FactKey(node_id_of(publisher), "node:test")
    begin_s = world.now_s
    cluster.command(publisher, PublishFact(key.name, value))

    def is_known() -> bool:
        facts = (cluster.view(name).fact(key) for name in cluster.names)
        return all(fact is not None and fact.value == value for fact in facts)

    while not is_known() and world.now_s < begin_s + 10.0:
        world.run_for(0.02)
    return world.now_s - begin_s


@pytest.mark.parametrize(("seed_number", "loss"), [(1, 0.0), (2, 0.0), (3, 0.03), (4, 0.03)])
def test_an_update_leaves_nobody_out(seed_number: int, loss: float) -> None:
    """Updates of 64 nodes, one upon the other, are everywhere soon, also when packets are lost."""
    cluster = large_cluster(NODES, seed_number)
    cluster.world.quality = LinkQuality(loss=loss, delay_max_s=0.02)
    rng = random.Random(seed_number)
    cluster.world.run_for(2.0)
    took_s: list[float] = []
    for number in range(UPDATES):
        publisher = rng.choice(cluster.names)
        took_s.append(time_to_all_s(cluster, publisher, str(number).encode()))
        cluster.world.run_for(0.2)
    assert max(took_s) < LIMIT_S, sorted(took_s)[-5:]
