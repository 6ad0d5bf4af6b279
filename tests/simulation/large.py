"""How does a world of 1,000 nodes begin, in which everybody knows everybody already?

A join of so many at once costs minutes of processor time here (every node learns of every other,
many times over). A node that is born into a large world shares one prepared store of members with
the others, which costs nothing: stores never change what they share.
"""

from __future__ import annotations

from collections.abc import Callable

from node.gossip.facts import FactStore
from node.gossip.swim import SwimCore
from tests.simulation.gossip_cluster import GossipCluster, node_id_of

__all__ = ["large_cluster"]


def large_cluster(
    count: int, seed: int, known: Callable[[GossipCluster, int], FactStore] | None = None
) -> GossipCluster:
    """Return a started cluster of n0, n1 … that know one another; it is not traced.

    Args:
        count: How many.
        seed: Decides everything.
        known: Makes the store that all of them begin with; without it, one of members only.
    """
    cluster = GossipCluster(seed, is_traced=False)
    names = [f"n{number}" for number in range(count)]
    for name in names:
        cluster.start(name, is_joining=False)
    store = (known or _members)(cluster, count)
    for name in names:
        core = cluster.core(name)
        assert isinstance(core, SwimCore)
        core.adopt(store)
    return cluster


def _members(cluster: GossipCluster, count: int) -> FactStore:
    store = FactStore()
    for number in range(count):
        member = cluster.view(f"n{number}").member(node_id_of(f"n{number}"))
        assert member is not None, "a node knows itself"
        store.put_member(member)
    return store
