"""What is one task known by, and what does its node report of it?

Its slot, its term, its attempts. Apart from `state`, whose values hold all that a task runs: who
lists tasks needs none of that.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NewType

from dray.names import TaskId

__all__ = [
    "NO_EPOCH",
    "TERMINAL_ATTEMPT_STATES",
    "AttemptReport",
    "AttemptState",
    "Epoch",
    "Health",
    "ServiceKey",
    "ServiceRevision",
    "SlotKey",
    "StoreRevision",
    "TaskUsage",
]

StoreRevision = NewType("StoreRevision", int)
"""etcd's revision of the whole store; only grows within one generation.

Never confused with a service revision.
"""

ServiceRevision = NewType("ServiceRevision", int)
"""Number of an accepted change of a service, from 1."""


@dataclass(frozen=True, slots=True, order=True)
class Epoch:
    """The leader's term, ordered as a pair.

    A restore from backup raises the generation, an election the other part.

    Attributes:
        generation: How often the cluster was restored from a backup, from 1.
        create_revision: Store revision at which the leader key was created.
    """

    generation: int
    create_revision: int


NO_EPOCH: Final = Epoch(0, 0)
"""Below every real term."""


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    """A service in the cluster: project and name."""

    project: str
    service: str


@dataclass(frozen=True, slots=True, order=True)
class SlotKey:
    """The numbered place of one replica.

    Attributes:
        project: Project.
        service: Service.
        slot: Number from 1. A global service has one slot a node, numbered by the leader and kept
            while the node exists.
    """

    project: str
    service: str
    slot: int

    @property
    def service_key(self) -> ServiceKey:
        """The service that the slot belongs to."""
        return ServiceKey(self.project, self.service)


class AttemptState(enum.IntEnum):
    """How far one container run of a task has come. It only grows within an attempt.

    Waiting states come first, then RUNNING, then the ends. A restart on the spot is a new attempt.
    """

    PENDING = 10
    """Accepted by the node; waits for its dependencies, its turn or its back-off."""
    PULLING = 20
    """The image is being fetched; not bounded by the start deadline."""
    CREATING = 30
    """Volumes, addresses and the container are being made."""
    STARTING = 40
    """Docker was told to start it, or its start hooks run."""
    RUNNING = 50
    STOPPING = 60
    """Withdrawn from discovery, draining, or sent its stop signal."""
    COMPLETED = 70
    """Ended by itself with exit code 0."""
    FAILED = 80
    """Ended by itself otherwise, or killed (out of memory)."""
    REJECTED = 90
    """Never ran: image, mount, address, port or Docker said no.

    `AttemptReport.reason` says which.
    """
    STOPPED = 100
    """Ended because it was told to."""


TERMINAL_ATTEMPT_STATES: Final = frozenset(
    {AttemptState.COMPLETED, AttemptState.FAILED, AttemptState.REJECTED, AttemptState.STOPPED}
)


class Health(enum.Enum):
    """What the health check says."""

    NONE = 1
    """There is no check."""
    STARTING = 2
    HEALTHY = 3
    UNHEALTHY = 4


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What a node knows of the newest attempt of one task; (attempt, state) only grows.

    Attributes:
        task_id: The task.
        attempt: Number of the container run, from 1.
        state: How far it has come.
        health: What its check says.
        container_id: Docker's id; empty before CREATING is done.
        address: IPv4 address in the cluster's range; empty without one.
        address6: IPv6 address; empty without one.
        exit_code: Exit status once it ended by itself, else None.
        reason: Why it is in this state, for people; empty when there is nothing to say.
        since_unix_s: Wall clock of the node when it entered the state, seconds.
        started_unix_s: When the container started; 0 before that.
        restarts: Attempts that ended by themselves within the restart window.
        next_attempt_unix_s: When the back-off ends; 0 when no restart is due.
        image_digest: Digest that the image reference was resolved to; empty before PULLING is done.
    """

    task_id: TaskId
    attempt: int
    state: AttemptState
    health: Health = Health.NONE
    container_id: str = ""
    address: str = ""
    address6: str = ""
    exit_code: int | None = None
    reason: str = ""
    since_unix_s: float = 0.0
    started_unix_s: float = 0.0
    restarts: int = 0
    next_attempt_unix_s: float = 0.0
    image_digest: str = ""


@dataclass(frozen=True, slots=True)
class TaskUsage:
    """What one task uses. Counters grow from the container's start.

    Attributes:
        task_id: The task.
        cpu_millis: Average over the last interval.
        memory_bytes: Working set.
        network_rx_bytes: Counter of bytes received.
        network_tx_bytes: Counter of bytes sent.
        block_read_bytes: Counter of bytes read.
        block_write_bytes: Counter of bytes written.
        pids: Processes.
    """

    task_id: TaskId
    cpu_millis: int = 0
    memory_bytes: int = 0
    network_rx_bytes: int = 0
    network_tx_bytes: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0
    pids: int = 0
