"""What does a node know of its peers? The view that DNS, load balancing and the network read.

Gossip spreads *facts*: small versioned values that a node publishes about itself. Whoever reads
them sees a `FactView`, a snapshot that never changes, and learns from `changed_since` which
services to look at again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from dray.model.node import MemberState, ReachKind
from dray.model.service import PublishedPort
from dray.model.state import Endpoint
from dray.model.task import ServiceKey, ServiceRevision
from dray.names import NodeId

__all__ = [
    "ENDPOINTS_MAX",
    "FACTS_BYTES_MAX",
    "MEMBERS_MAX",
    "EndpointView",
    "Fact",
    "FactKey",
    "FactVersion",
    "FactView",
    "Member",
    "ServiceFacts",
]

FACTS_BYTES_MAX: Final = 32_768  # bytes of all facts of one node (DESIGN section 11)
MEMBERS_MAX: Final = 1_000  # nodes that gossip is built and measured for
ENDPOINTS_MAX: Final = 50_000  # endpoints in the cluster that it is built and measured for


@dataclass(frozen=True, slots=True, order=True)
class FactVersion:
    """What orders two values of one fact: a new life beats every version of an older one."""

    life: int
    version: int


@dataclass(frozen=True, slots=True, order=True)
class FactKey:
    """What a fact is about, and whose it is.

    Names are "service:shop/web" (its endpoints on that node), "node:address", "node:faults" ….
    """

    node_id: NodeId
    name: str


@dataclass(frozen=True, slots=True)
class Fact:
    """A value that a node publishes about itself.

    Attributes:
        key: Whose, and about what.
        version: Which of two is newer.
        value: Packed bytes; None is a tombstone: the fact is gone.
    """

    key: FactKey
    version: FactVersion
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Member:
    """What this node knows of one peer. What it *saw* itself and what it *heard* stay apart.

    Attributes:
        node_id: The peer.
        name: Its name.
        address: IP address by which it is reached.
        gossip_port: UDP and TCP port of gossip.
        life: Boot number of its daemon.
        incarnation: Its refutation counter within the life.
        state: What it is held to be.
        seen: What came of this node's own latest probe; None: never probed in this life.
        seen_at_s: When that was, on this node's monotonic clock.
        heard_state: What others last said of it.
        heard_from: Who said so, first hand; None: itself, or not known.
        heard_reach: With SUSPECT, STALLED and DEAD: what the probes of who said so found; None: not
            known. REFUSED is a daemon that is gone: its containers may live.
        last_contact_at_s: When anything last came directly from it, monotonic; None: never.
        rtt_s: Smoothed round-trip time; None: not measured.
        flaps: How often it was declared dead and came back in this life of ours.
        state_since_s: Since when its state is this one, on this node's monotonic clock.
    """

    node_id: NodeId
    name: str
    address: str
    gossip_port: int
    life: int
    incarnation: int
    state: MemberState
    seen: ReachKind | None = None
    seen_at_s: float = 0.0
    heard_state: MemberState = MemberState.ALIVE
    heard_from: NodeId | None = None
    heard_reach: ReachKind | None = None
    last_contact_at_s: float | None = None
    rtt_s: float | None = None
    flaps: int = 0
    state_since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What one node publishes about one service; or, merged by a view, what all of them say.

    A node that knows a service may publish this without endpoints.

    Attributes:
        service_revision: Newest service revision that the node has been told of: of two nodes that
            differ about what follows, the one with the higher is right.
        vip: The service's own address, IPv4 or IPv6; empty without one.
        published: Its ports that every node forwards to it (ingress), as the revision has them.
        affinity: Whether connections of one client stay with one endpoint.
        static: Addresses that the file names for it (`ipv4_address`), as (full name of the Compose
            network, IPv4 address), sorted. They lead to its endpoints, as its own address does.
        endpoints: Its running tasks on that node, by (slot, task id).
    """

    service_revision: ServiceRevision
    vip: str = ""
    published: tuple[PublishedPort, ...] = ()
    affinity: bool = False
    endpoints: tuple[Endpoint, ...] = ()
    static: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint together with the state of the member that published it.

    Attributes:
        endpoint: The endpoint.
        node_id: Who published it.
        member_state: What that member is held to be.
        is_daemon_down: Only its daemon is known to be dead: its kernel answers that nobody listens
            (the leader's *agent_down*). Its containers may run on.
    """

    endpoint: Endpoint
    node_id: NodeId
    member_state: MemberState
    is_daemon_down: bool = False


class FactView(Protocol):
    """One node's view of the cluster at one moment. Immutable: a newer view is another object.

    All of it comes from local facts: it can be read with every scheduler and etcd gone. Ordering is
    by key, so that equal views read equally.
    """

    @property
    def sequence(self) -> int:
        """Number of the view on this node; a newer view has a higher one."""
        ...

    def members(self) -> Iterator[Member]:
        """Yield every member that is known, the node itself and dead ones included, by node id."""
        ...

    def member(self, node_id: NodeId) -> Member | None:
        """Return one member, or None if it is not known."""
        ...

    def services(self) -> Iterator[ServiceKey]:
        """Yield the services that any node publishes, in order, also without endpoints."""
        ...

    def service(self, service: ServiceKey) -> ServiceFacts | None:
        """Return what is known of a service as a whole, or None if no node publishes it.

        Revision, VIP, published ports and affinity are those of the highest service revision that a
        usable member (neither dead nor left) publishes; if there is none, that any member does. Of
        equal revisions the lowest node id's. `endpoints` are all of them, ordered as in `endpoints`
        below, also those of dead members.
        """
        ...

    def endpoints(self, service: ServiceKey) -> tuple[EndpointView, ...]:
        """Return all known endpoints of a service, by (slot, node id); also those of dead members.

        Which of them may be served is the reader's rule (DESIGN section 7), not the view's.
        """
        ...

    def fact(self, key: FactKey) -> Fact | None:
        """Return one fact, or None if it is unknown or deleted."""
        ...

    def changed_since(self, sequence: int) -> frozenset[ServiceKey] | None:
        """Return the services that changed after an earlier view: endpoints, or their members.

        None when that view is too old to tell: look at everything.
        """
        ...
