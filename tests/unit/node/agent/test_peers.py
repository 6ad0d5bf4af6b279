"""Which peers do a node's containers reach, also while gossip is still silent?"""

from __future__ import annotations

from dray.model import Fact, FactKey, FactVersion, Member, MemberState
from dray.names import NodeId, id_text
from node.agent.peers import SUBNET_FACT, peers_of, remembered_peers
from node.gossip.facts import FactStore
from node.ports import NetworkPeer

OWN, PEER, OTHER = (NodeId(id_text(number.to_bytes(16, "big"))) for number in (1, 2, 3))
BEFORE = (
    NetworkPeer(PEER, "10.0.0.2", "10.192.4.0/23"),
    NetworkPeer(OTHER, "10.0.0.3", "10.192.6.0/23"),
)


def heard(store: FactStore, node: NodeId, state: MemberState = MemberState.ALIVE) -> None:
    """Let the store hear of a member, and of nothing about it."""
    store.put_member(Member(node, "n", "10.0.0.2", 7401, 1, 0, state))


def test_peers_of_an_earlier_life_stay_until_gossip_tells_of_them() -> None:
    """Neither silence nor a member of which nothing else is known removes a peer."""
    store = FactStore()
    heard(store, OWN)
    assert remembered_peers(store.view(), BEFORE, ()) == BEFORE
    heard(store, PEER)
    assert remembered_peers(store.view(), BEFORE, ()) == BEFORE
    value = b"10.192.8.0/23"
    store.merge(Fact(FactKey(PEER, SUBNET_FACT), FactVersion(1, 1), value), 0.0)
    assert remembered_peers(store.view(), BEFORE, ()) == BEFORE[1:]
    assert [peer.subnet for peer in peers_of(store.view(), OWN)] == ["10.192.8.0/23"]


def test_peers_that_left_or_were_removed_are_not_remembered() -> None:
    """What is known to be gone is gone."""
    store = FactStore()
    heard(store, PEER, MemberState.LEFT)
    assert remembered_peers(store.view(), BEFORE, (OTHER,)) == ()
