"""Who is this node in gossip? Fixed for one life of its daemon."""

from __future__ import annotations

from dataclasses import dataclass

from dray.errors import InvalidRequest
from dray.names import ClusterId, NodeId
from node.gossip.core import Address
from node.gossip.datagrams import decode, encode
from node.gossip.messages import Gossip, Sender
from node.gossip.wire import Malformed, WireError

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is: for one life of its daemon nothing of it changes."""

    cluster_id: ClusterId
    node_id: NodeId
    name: str
    address: Address
    life: int

    def __post_init__(self) -> None:
        """Check that it can be told to others.

        Raises:
            InvalidRequest: An id, the name, the address or the life is malformed.
        """
        try:
            data = encode(bytes(8), self.sender(0), 0, Gossip())
        except WireError as error:
            raise InvalidRequest(f"node {self.name!r} cannot gossip: {error}") from error
        problem = decode(data)
        if isinstance(problem, Malformed):
            raise InvalidRequest(f"node {self.name!r} cannot gossip: {problem.reason}")

    def sender(self, incarnation: int) -> Sender:
        """Return how this node signs its datagrams."""
        return Sender(self.node_id, self.life, incarnation, self.name, self.address)
