"""What does the node's agent expect of the parts beside it: the network and discovery?

The agent (`node/agent`) decides which containers run; these ports say where they are attached and
who learns of them. The runtime's port is `node/runtime/base.py`.

Expected noes are returned (`AttachRefused`); a broken environment (no kernel module, no permission)
is a `DrayError`, or a fault in `problems` when the part repairs itself later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from dray.addresses import HostPort
from dray.model import (
    FactView,
    Fault,
    GossipKey,
    ProjectParts,
    PublishedPort,
    ServiceFacts,
    ServiceKey,
    TaskAssignment,
    TaskTemplate,
    WitnessEvidence,
)
from dray.names import NodeId, TaskId
from node.runtime.base import ContainerNetwork

__all__ = [
    "AttachRefused",
    "Attached",
    "Discovery",
    "NetworkConfig",
    "NetworkPeer",
    "NodeNetwork",
]


@dataclass(frozen=True, slots=True)
class NetworkPeer:
    """Another node that containers are reached through.

    Attributes:
        node_id: The node.
        address: IP address by which it is reached.
        subnet: Its share of the cluster's range, CIDR.
        subnet6: Its IPv6 share; empty without one.
    """

    node_id: NodeId
    address: str
    subnet: str
    subnet6: str = ""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What the machine's network should be made of; whole each time.

    Attributes:
        node_id: This node.
        address: IP address by which peers reach it.
        subnet: Its share of the cluster's range, CIDR.
        range_cidr: The cluster's range.
        vip_range_cidr: Range of the services' own addresses.
        subnet6: Its IPv6 share; empty: IPv6 is off.
        range6_cidr: The cluster's IPv6 range; empty: IPv6 is off.
        peers: The other nodes, sorted by node id; those that are away for a while included.
    """

    node_id: NodeId
    address: str
    subnet: str
    range_cidr: str
    vip_range_cidr: str
    subnet6: str = ""
    range6_cidr: str = ""
    peers: tuple[NetworkPeer, ...] = ()


@dataclass(frozen=True, slots=True)
class Attached:
    """How a task's container is to be attached; its addresses are taken until `release`.

    Attributes:
        network: For the runtime.
        address: IPv4 address in the cluster's range; empty with host, none and a shared stack.
        address6: IPv6 address; empty without one.
    """

    network: ContainerNetwork
    address: str = ""
    address6: str = ""


@dataclass(frozen=True, slots=True)
class AttachRefused:
    """A task cannot be attached. Nothing was taken.

    Attributes:
        message: One sentence with the reason and the next step.
        retryable: Whether the same call may succeed later by itself.
    """

    message: str
    retryable: bool = False


class NodeNetwork(Protocol):
    """The machine's part of the cluster's network. Calls may overlap; each is idempotent."""

    async def ensure(self, config: NetworkConfig) -> None:
        """Make and repair what the machine needs: bridge, Docker network, tunnels, routes, filters.

        Raises:
            DrayError: It cannot be made now. What was there stays; the caller tries again.
        """
        ...

    async def attach(
        self,
        task: TaskAssignment,
        template: TaskTemplate,
        parts: ProjectParts,
        ports: tuple[PublishedPort, ...] = (),
    ) -> Attached | AttachRefused:
        """Take addresses for a task and say how its container is attached.

        A task that is attached already gets the same addresses.

        Args:
            task: The task.
            template: What it runs; `network_mode` says which stack.
            parts: Of its project.
            ports: All published ports of its service; those in host mode listen on this node.
        """
        ...

    async def adopt(self, task_id: TaskId, address: str, address6: str) -> None:
        """Take the addresses that a running container holds, after a start of the daemon."""
        ...

    async def release(self, task_id: TaskId) -> None:
        """Give a task's addresses back; its container is gone. One that has none is fine."""
        ...

    async def connections(self, address: str) -> int:
        """Return how many TCP connections others have open to a container of this node.

        Raises:
            DrayError: The machine does not tell.
        """
        ...

    def problems(self) -> tuple[Fault, ...]:
        """Return what is wrong with the machine's network now."""
        ...


class Discovery(Protocol):
    """This node's part of gossip: what it publishes, and what it knows of all others."""

    def view(self) -> FactView:
        """Return the newest view."""
        ...

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a view with a higher sequence, once there is one."""
        ...

    def publish_service(self, service: ServiceKey, facts: ServiceFacts | None) -> None:
        """Publish what this node runs of a service; None: nothing any more."""
        ...

    def publish(self, name: str, value: bytes | None) -> None:
        """Publish another fact of this node; None withdraws it."""
        ...

    def evidence(self) -> tuple[WitnessEvidence, ...]:
        """Return what this node's own probes found, at most one finding a target."""
        ...

    async def wait_evidence(self, after: int) -> int:
        """Return the number of the newest change of `evidence`, once it is above `after`."""
        ...

    def set_keyring(self, keys: Iterable[GossipKey]) -> None:
        """Seal with the primary one of these keys from now on, and open with all of them."""
        ...

    def join(self, seeds: Iterable[HostPort]) -> None:
        """Join gossip by these members' addresses; repeated until one answers."""
        ...

    def remove(self, node_ids: Iterable[NodeId]) -> None:
        """Forget nodes that an operator removed for good."""
        ...

    async def leave(self) -> None:
        """Tell the peers that this node leaves, and stop."""
        ...

    async def withdrawn(self, service: ServiceKey) -> None:
        """Return when what was published of a service has had time to spread, in at most 1 s."""
        ...
