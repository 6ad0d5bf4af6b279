"""Who is the node, and what was it told about itself? Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from dray.addresses import HostPort
from dray.model import ClusterRecord, Epoch, GossipKey, NodeRecord
from dray.names import ClusterId, NodeId

__all__ = ["Identity", "NodeConfig"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the node is, and what it has seen.

    Attributes:
        node_id: Made at its first start.
        life: Number of its newest start.
        cluster_id: Its cluster; None: it has not joined one yet.
        epoch: Highest epoch it has seen; None: none.
    """

    node_id: NodeId
    life: int
    cluster_id: ClusterId | None = None
    epoch: Epoch | None = None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What the leader told the node about itself and the cluster.

    Attributes:
        cluster: The cluster.
        record: The node's registry entry.
        keyring: Keys of gossip.
        gossip_seeds: Members to join gossip by.
        schedulers: All schedulers.
        removed_nodes: Nodes that an operator removed for good lately.
    """

    cluster: ClusterRecord
    record: NodeRecord
    keyring: tuple[GossipKey, ...] = ()
    gossip_seeds: tuple[HostPort, ...] = ()
    schedulers: tuple[HostPort, ...] = ()
    removed_nodes: tuple[NodeId, ...] = ()
