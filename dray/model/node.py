"""What the cluster knows of a machine.

Its registry entry, what it reports, and what the leader holds it to be.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from dray.model.extensions import TaintEffect
from dray.model.resources import NodeCapacity
from dray.model.values import StringMap
from dray.names import ClusterId, NodeId

__all__ = [
    "UNPUBLISHED",
    "Availability",
    "Fault",
    "FaultKind",
    "MemberState",
    "NodeCondition",
    "NodeInfo",
    "NodeRecord",
    "NodeUsage",
    "Platform",
    "ReachKind",
    "Taint",
    "WitnessEvidence",
]


class Availability(enum.Enum):
    """What the operator wants of a node."""

    ACTIVE = 1
    PAUSE = 2
    """Nothing new; what runs stays."""
    DRAIN = 3
    """Nothing new; what runs moves away, start-first."""


class NodeCondition(enum.Enum):
    """What the leader holds a node to be (DESIGN section 5)."""

    READY = 1
    ISOLATED = 2
    """Its stream is up, its peers cannot reach it."""
    UNREACHABLE = 3
    """Its stream is lost, some peer hears it."""
    STALLED = 4
    """Its kernel accepts connections, nothing in user space answers."""
    AGENT_DOWN = 5
    """Its kernel refuses connections: the daemon is gone, containers may live."""
    DOWN = 6
    UNKNOWN = 7
    """Nothing can be concluded: judge nothing."""


class FaultKind(enum.Enum):
    """A flag beside the condition: something is wrong, the node still counts."""

    DISK_FULL = 1
    INODES_LOW = 2
    CLOCK_OFF = 3
    DOCKER_AWAY = 4
    LIVE_RESTORE_OFF = 5
    ONE_WAY_LINK = 6
    UDP_BLOCKED = 7
    NETWORK_BROKEN = 8
    CLONE = 9
    """Another daemon claims the same node id."""
    DAEMON_LATE = 10
    """The daemon's loops run late: the machine is starved."""


UNPUBLISHED: Final = " is not published here: "
"""In a fault's sentence between a service, as "shop/web", and the reason that a port of it is not
open on a node. Schedulers look for it, and tell who deploys the service."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a node: its kind, since when, and a sentence for people with the next step."""

    kind: FaultKind
    since_unix_s: float
    message: str


@dataclass(frozen=True, slots=True)
class Platform:
    """What a node runs on, in the words of image platforms: "linux", "arm64", "v8"."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Taint:
    """A mark that keeps services without a toleration away from a node."""

    key: str
    value: str = ""
    effect: TaintEffect = TaintEffect.NO_SCHEDULE


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a node says about itself when it connects.

    Attributes:
        node_id: Permanent id, made at the node's first start.
        name: Its name: a DNS label, unique in the cluster.
        life: Boot number of the daemon: max(persisted + 1, unix seconds).
        boot_id: The kernel's boot id.
        version: dray's version on it.
        advertise_address: IP address by which peers reach it.
        gossip_port: UDP and TCP port of gossip.
        platform: Its platform.
        engine_version: Version of its Docker Engine; empty while Docker is away.
        capacity: What it has for tasks.
        labels: Labels given on its command line; the registry's win over them.
    """

    node_id: NodeId
    name: str
    life: int
    boot_id: str
    version: str
    advertise_address: str
    gossip_port: int
    platform: Platform
    engine_version: str
    capacity: NodeCapacity
    labels: StringMap = ()


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node's entry in the registry, as the store holds it.

    Attributes:
        node_id: Its id.
        cluster_id: Whose node it is.
        name: Its name.
        subnet: Its share of the cluster's range, CIDR.
        subnet6: Its IPv6 share; empty without one.
        labels: What the operator and the node's command line gave it.
        taints: What keeps tasks away.
        availability: What the operator wants of it.
        certificate_sha256: Fingerprint of its certificate; empty without TLS.
        created_unix_s: When it was registered.
    """

    node_id: NodeId
    cluster_id: ClusterId
    name: str
    subnet: str
    subnet6: str = ""
    labels: StringMap = ()
    taints: tuple[Taint, ...] = ()
    availability: Availability = Availability.ACTIVE
    certificate_sha256: str = ""
    created_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What a node uses as a whole.

    Pressures are the share of time that some process waited, in thousandths.

    Attributes:
        cpu_millis: Used by everything on the machine, average over the last interval.
        memory_bytes: Used by everything on the machine.
        disk_bytes: Used in the file system of Docker's data.
        inodes_free: Inodes free there.
        pids: Processes.
        cpu_pressure_millis: PSI "some" of the CPU over 10 s.
        memory_pressure_millis: PSI "some" of memory over 10 s.
        io_pressure_millis: PSI "some" of I/O over 10 s.
    """

    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    inodes_free: int = 0
    pids: int = 0
    cpu_pressure_millis: int = 0
    memory_pressure_millis: int = 0
    io_pressure_millis: int = 0


class MemberState(enum.Enum):
    """What gossip holds a member to be."""

    ALIVE = 1
    SUSPECT = 2
    STALLED = 3
    DEAD = 4
    LEFT = 5


class ReachKind(enum.Enum):
    """What came of a node's own attempts to reach a peer."""

    ANSWERED = 1
    SILENT = 2
    """Nothing came back."""
    REFUSED = 3
    """Its kernel refused the TCP connection: no process listens."""
    ACCEPTED = 4
    """Its kernel accepted the TCP connection, no user space answered."""


@dataclass(frozen=True, slots=True)
class WitnessEvidence:
    """What one node's own probes found of another.

    The only thing about others that the leader judges by.

    Attributes:
        reporter: Who probed.
        target: Who was probed.
        target_life: Life of the target that the probes were addressed to.
        reach: What came back.
        since_s: Age of that finding when it was sent, seconds: how long reach has been the same.
        last_contact_s: Seconds since the reporter last heard from the target directly; None: never
            in its life.
        cut_off: The reporter believes that it is itself cut off. A label: it never suppresses the
            finding.
    """

    reporter: NodeId
    target: NodeId
    target_life: int
    reach: ReachKind
    since_s: float
    last_contact_s: float | None = None
    cut_off: bool = False
