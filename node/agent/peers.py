"""Which nodes are this one's containers to reach, as gossip knows them? Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from dray.model import FactKey, FactView, MemberState, NodeRecord
from dray.names import NodeId
from node.agent.identity import NodeConfig
from node.ports import NetworkConfig, NetworkPeer

__all__ = [
    "SUBNET_FACT",
    "is_anybody_there",
    "network_config",
    "peers_of",
    "remembered_peers",
    "subnet_fact",
]

SUBNET_FACT: Final = "node:subnet"
"""Name of the fact that says which addresses a node's containers have: "IPv4 [IPv6]", CIDR."""


def subnet_fact(record: NodeRecord) -> bytes:
    """Return the value of the fact that a node publishes about its subnets."""
    return " ".join(filter(None, (record.subnet, record.subnet6))).encode("ascii")


def peers_of(view: FactView, own: NodeId) -> tuple[NetworkPeer, ...]:
    """Return all other nodes with a subnet, by node id; those that are away for a while included.

    A peer that left, or whose subnet nobody knows, is none.
    """
    peers = []
    for member in view.members():
        fact = view.fact(FactKey(member.node_id, SUBNET_FACT))
        if member.node_id == own or member.state is MemberState.LEFT:
            continue
        if fact is None or fact.value is None:
            continue
        words = fact.value.decode("ascii", "replace").split()
        subnet = next((word for word in words if ":" not in word), "")
        subnet6 = next((word for word in words if ":" in word), "")
        if subnet and member.address:
            peers.append(NetworkPeer(member.node_id, member.address, subnet, subnet6))
    return tuple(sorted(peers, key=lambda peer: peer.node_id))


def is_anybody_there(view: FactView) -> bool:
    """Return whether gossip knows more members than the node itself."""
    return sum(1 for _ in view.members()) > 1


def remembered_peers(
    view: FactView, before: Iterable[NetworkPeer], removed: Collection[NodeId]
) -> tuple[NetworkPeer, ...]:
    """Return the peers of an earlier life of the daemon that gossip has not told anything else of.

    Not heard of is not gone: their containers stay within reach until gossip has told of them.

    Args:
        view: What gossip knows.
        before: All peers that the daemon had when it ended.
        removed: Nodes that an operator removed for good.
    """
    return tuple(peer for peer in before if peer.node_id not in removed and _is_unknown(view, peer))


def _is_unknown(view: FactView, peer: NetworkPeer) -> bool:
    member = view.member(peer.node_id)
    if member is None:
        return True
    is_told = view.fact(FactKey(peer.node_id, SUBNET_FACT)) is not None
    return not is_told and member.state is not MemberState.LEFT


def network_config(
    config: NodeConfig, address: str, view: FactView, before: Iterable[NetworkPeer] = ()
) -> NetworkConfig:
    """Return what the machine's network should be made of.

    Args:
        config: What the leader told the node.
        address: Where peers reach it.
        view: What gossip knows.
        before: The peers of an earlier life, while gossip may not have told of all of them.
    """
    record, cluster = config.record, config.cluster
    found = peers_of(view, record.node_id)
    subnets = {peer.subnet for peer in found}
    kept = remembered_peers(view, before, config.removed_nodes)
    peers = (*found, *(peer for peer in kept if peer.subnet not in subnets))
    return NetworkConfig(
        record.node_id,
        address,
        record.subnet,
        cluster.range_cidr,
        cluster.vip_range_cidr,
        record.subnet6,
        cluster.range6_cidr,
        tuple(sorted(peers, key=lambda peer: peer.node_id)),
    )
