"""Does gossip hold at 1,000 nodes, its stated limit? A minute of virtual time, real encoding."""

from __future__ import annotations

import pytest

from dray.model import FactKey, MemberState
from node.gossip.core import PublishFact
from tests.simulation.gossip_cluster import GossipCluster, node_id_of
from tests.simulation.large import large_cluster

NODES = 1_000
MINUTE_S = 60.0
FOUND_S = 12.0  # all of 1,000 know of a death: it takes 4 to 8 s
SPREAD_S = 3.0
SENDS_S_MAX = 3.0  # datagrams a node and second, at rest
BYTES_S_MAX = 500.0  # with IP and UDP headers and the seal
OVERHEAD_BYTES = 28 + 30


def held(cluster: GossipCluster, name: str) -> dict[MemberState | None, int]:
    """Return how many running nodes hold a node to be what."""
    counted: dict[MemberState | None, int] = {}
    for observer in cluster.running():
        member = cluster.view(observer).member(node_id_of(name))
        state = member.state if member is not None else None
        counted[state] = counted.get(state, 0) + 1
    return counted


@pytest.mark.timeout(600)
def test_a_minute_of_a_thousand_nodes() -> None:
    """Cheap at rest; the dead are found by all, a fact reaches all, nobody else is suspected."""
    cluster = large_cluster(NODES, seed=1)
    world = cluster.world
    world.run_for(10.0)
    begin = (world.sends, world.sent_bytes)
    world.run_for(10.0)
    sends = (world.sends - begin[0]) / 10.0 / NODES
    sent_bytes = (world.sent_bytes - begin[1]) / 10.0 / NODES
    assert sends <= SENDS_S_MAX
    assert sent_bytes + OVERHEAD_BYTES * sends <= BYTES_S_MAX

    world.crash(cluster.host("n100"))
    world.kill(cluster.host("n200"))
    world.run_for(FOUND_S)
    for name in ("n100", "n200"):
        assert held(cluster, name) == {MemberState.DEAD: NODES - 2}

    cluster.command("n300", PublishFact("node:x", b"here"))
    world.run_for(SPREAD_S)
    key = FactKey(node_id_of("n300"), "node:x")
    assert all(cluster.view(name).fact(key) is not None for name in cluster.running())

    world.run_until(MINUTE_S)
    deaths = {name: cluster.core(name).counted()["deaths"] for name in cluster.running()}
    assert 2 <= sum(deaths.values()) <= 2 * 8, "only witnesses declare, and only the two dead"
    assert held(cluster, "n0") == {MemberState.ALIVE: NODES - 2}
