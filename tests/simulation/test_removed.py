"""Is a node that an operator removed gone for good, whatever it goes on to say?"""

from __future__ import annotations

import pytest

from dray.model import MemberState
from node.gossip.core import Address, Join, Remove
from tests.simulation.gossip_cluster import PORT, GossipCluster, node_id_of
from tests.simulation.test_seeds import publication

KNOWN_S = 3.0
LIMIT_S = 30.0


def state(cluster: GossipCluster, observer: str, name: str) -> MemberState | None:
    """Return what a node holds another to be."""
    member = cluster.view(observer).member(node_id_of(name))
    return None if member is None else member.state


@pytest.mark.parametrize("number", range(8))
def test_a_removed_node_does_not_come_back(number: int) -> None:
    """It speaks on, starts again, and even lets a new node join by it: nobody holds it present."""
    cluster = GossipCluster(number)
    world = cluster.world
    for name in "abcde":
        cluster.start(name)
    cluster.command("e", publication("e", "web", 5))
    world.run_for(KNOWN_S)
    assert state(cluster, "a", "e") is MemberState.ALIVE
    cluster.command("a", Remove((node_id_of("e"),)))  # one node is told, the others hear of it
    world.run_for(KNOWN_S)
    world.kill(cluster.host("e"))
    cluster.start("e")  # a new life, which would outrank any death
    cluster.start("f", is_joining=False)
    cluster.command("f", Join((Address(cluster.host("e"), PORT), Address(cluster.host("b"), PORT))))
    others = "abcdf"
    assert world.run_until_true(
        lambda: (
            all(
                state(cluster, observer, name) is MemberState.ALIVE
                for observer in others
                for name in others
            )
            and all(
                state(cluster, observer, "e") in (MemberState.LEFT, None) for observer in others
            )
        ),
        LIMIT_S,
    ), {observer: state(cluster, observer, "e") for observer in others}
    world.run_for(LIMIT_S)
    for observer in others:
        assert state(cluster, observer, "e") in (MemberState.LEFT, None)
