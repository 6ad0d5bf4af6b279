"""Which nodes are this one's containers to reach, as gossip knows them? Pure."""

from __future__ import annotations

from typing import Final

from dray.model import FactKey, FactView, MemberState, NodeRecord
from dray.names import NodeId
from node.agent.identity import NodeConfig
from node.ports import NetworkConfig, NetworkPeer

__all__ = ["SUBNET_FACT", "network_config", "peers_of", "subnet_fact"]

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


def network_config(config: NodeConfig, address: str, view: FactView) -> NetworkConfig:
    """Return what the machine's network should be made of.

    Args:
        config: What the leader told the node.
        address: Where peers reach it.
        view: What gossip knows.
    """
    record, cluster = config.record, config.cluster
    return NetworkConfig(
        record.node_id,
        address,
        record.subnet,
        cluster.range_cidr,
        cluster.vip_range_cidr,
        record.subnet6,
        cluster.range6_cidr,
        peers_of(view, record.node_id),
    )
