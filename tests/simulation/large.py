"""How does a world of 1,000 nodes begin, in which everybody knows everybody already?

A join of so many at once costs minutes of processor time here (every node learns of every other,
many times over). A node that is born into a large world shares one prepared store of members with
the others, which costs nothing: stores never change what they share.
"""

from __future__ import annotations

from dray.model import Member, MemberState
from node.gossip.facts import FactStore
from node.gossip.swim import SwimCore
from tests.simulation.gossip_cluster import PORT, GossipCluster, node_id_of

__all__ = ["large_cluster"]


def large_cluster(count: int, seed: int) -> GossipCluster:
    """Return a started cluster of n0, n1 … that know one another; it is not traced."""
    cluster = GossipCluster(seed, is_traced=False)
    names = [f"n{number}" for number in range(count)]
    for name in names:
        cluster.start(name, is_joining=False)
    known = FactStore()
    for name in names:
        known.put_member(
            Member(
                node_id_of(name),
                name,
                cluster.host(name),
                PORT,
                cluster.life(name),
                0,
                MemberState.ALIVE,
            )
        )
    for name in names:
        core = cluster.core(name)
        assert isinstance(core, SwimCore)
        core.adopt(known)
    return cluster
