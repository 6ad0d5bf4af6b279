"""How does a node run that has no peers and no network of the cluster?

`PlainNetwork` attaches every container to one Docker network that is there already; `NoDiscovery`
tells nobody. The agent's tests run on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from dray.addresses import HostPort
from dray.model import (
    EndpointView,
    Fact,
    FactKey,
    Fault,
    GossipKey,
    Member,
    ProjectParts,
    PublishedPort,
    PublishMode,
    ServiceFacts,
    ServiceKey,
    TaskAssignment,
    TaskTemplate,
    WitnessEvidence,
)
from dray.names import NodeId, TaskId
from node.agent.book import Signal
from node.ports import Attached, AttachRefused, NetworkConfig
from node.runtime.base import ContainerNetwork
from node.runtime.base import HostPort as ForwardedPort

__all__ = ["NoDiscovery", "PlainNetwork"]


class PlainNetwork:
    """A `NodeNetwork` of one Docker network that somebody else made."""

    def __init__(self, name: str = "none") -> None:
        """Attach everything to the Docker network of this name."""
        self._name = name

    async def ensure(self, config: NetworkConfig) -> None:
        """Do nothing: the network is there."""

    async def attach(
        self,
        task: TaskAssignment,
        template: TaskTemplate,
        parts: ProjectParts,
        ports: tuple[PublishedPort, ...] = (),
    ) -> Attached | AttachRefused:
        """Attach to the Docker network, with the ports that are published in host mode."""
        forwarded = tuple(
            ForwardedPort(port.target, port.published, port.protocol.name.lower(), port.host_ip)
            for port in ports
            if port.mode is PublishMode.HOST and self._name != "none"
        )
        return Attached(ContainerNetwork(self._name, ports=forwarded))

    async def adopt(self, task_id: TaskId, address: str, address6: str) -> None:
        """Do nothing: Docker knows its addresses."""

    async def release(self, task_id: TaskId) -> None:
        """Do nothing: Docker knows its addresses."""

    async def connections(self, address: str) -> int:
        """Return 0: nobody looks."""
        return 0

    def problems(self) -> tuple[Fault, ...]:
        """Return nothing."""
        return ()


class EmptyView:
    """A `FactView` of nobody."""

    sequence = 0

    def members(self) -> Iterator[Member]:
        """Yield nobody."""
        return iter(())

    def member(self, node_id: NodeId) -> Member | None:
        """Return None."""
        return None

    def services(self) -> Iterator[ServiceKey]:
        """Yield nothing."""
        return iter(())

    def service(self, service: ServiceKey) -> ServiceFacts | None:
        """Return None."""
        return None

    def endpoints(self, service: ServiceKey) -> tuple[EndpointView, ...]:
        """Return nothing."""
        return ()

    def fact(self, key: FactKey) -> Fact | None:
        """Return None."""
        return None

    def changed_since(self, sequence: int) -> frozenset[ServiceKey] | None:
        """Return nothing."""
        return frozenset()


class NoDiscovery:
    """A `Discovery` without peers; it remembers what was published."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, ServiceFacts] = {}
        self.facts: dict[str, bytes] = {}
        self.changed = Signal()

    def view(self) -> EmptyView:
        """Return a view of nobody."""
        return EmptyView()

    async def wait_view(self, after_sequence: int) -> EmptyView:
        """Wait for ever: nothing changes."""
        await asyncio.get_running_loop().create_future()
        return EmptyView()

    def publish_service(self, service: ServiceKey, facts: ServiceFacts | None) -> None:
        """Remember it."""
        self.services.pop(service, None)
        if facts is not None:
            self.services[service] = facts
        self.changed.send()

    def publish(self, name: str, value: bytes | None) -> None:
        """Remember it."""
        self.facts.pop(name, None)
        if value is not None:
            self.facts[name] = value

    def evidence(self) -> tuple[WitnessEvidence, ...]:
        """Return nothing."""
        return ()

    async def wait_evidence(self, after: int) -> int:
        """Wait for ever: nobody is probed."""
        await asyncio.get_running_loop().create_future()
        return after

    def set_keyring(self, keys: Iterable[GossipKey]) -> None:
        """Do nothing."""

    def join(self, seeds: Iterable[HostPort]) -> None:
        """Do nothing."""

    def remove(self, node_ids: Iterable[NodeId]) -> None:
        """Do nothing."""

    async def leave(self) -> None:
        """Do nothing."""

    async def withdrawn(self, service: ServiceKey) -> None:
        """Return at once: nobody was told."""
