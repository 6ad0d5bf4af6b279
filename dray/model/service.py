"""What was asked for one service: how many, where, reached how, replaced how.

`TaskTemplate` is what makes a task: a change in it replaces running tasks. Everything beside it in
`ServiceSpec` (replicas, placement, update policy …) changes without touching a healthy container.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from dray.model.container import ContainerSpec
from dray.model.extensions import ServiceExtensions
from dray.model.resources import ResourceReservations
from dray.model.values import StringMap

__all__ = [
    "JOB_KINDS",
    "ConstraintOp",
    "Dependency",
    "DependencyCondition",
    "EndpointMode",
    "FailureAction",
    "Link",
    "NetworkAttachment",
    "NetworkMode",
    "Placement",
    "PlacementConstraint",
    "PortProtocol",
    "PublishMode",
    "PublishedPort",
    "RestartCondition",
    "RestartPolicy",
    "ServiceMode",
    "ServiceModeKind",
    "ServiceSpec",
    "TaskTemplate",
    "UpdateOrder",
    "UpdatePolicy",
]


class ServiceModeKind(enum.Enum):
    """How the tasks of a service are counted (`deploy.mode`)."""

    REPLICATED = 1
    GLOBAL = 2
    REPLICATED_JOB = 3
    GLOBAL_JOB = 4


JOB_KINDS: Final = frozenset({ServiceModeKind.REPLICATED_JOB, ServiceModeKind.GLOBAL_JOB})
"""Modes whose tasks end by themselves."""


@dataclass(frozen=True, slots=True)
class ServiceMode:
    """How many tasks.

    Attributes:
        kind: How they are counted.
        replicas: Slots of REPLICATED, completions of REPLICATED_JOB, >= 0; 0 with the global kinds.
        parallel_max: Tasks of REPLICATED_JOB that run at once, >= 1; 0: all.
    """

    kind: ServiceModeKind = ServiceModeKind.REPLICATED
    replicas: int = 1
    parallel_max: int = 0


class RestartCondition(enum.Enum):
    """After which ends a task is started again on the spot."""

    ANY = 1
    ON_FAILURE = 2
    NONE = 3
    UNLESS_STOPPED = 4


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The node's rule after a container ended (`restart`, `deploy.restart_policy`).

    Attributes:
        condition: After which ends.
        delay_s: First pause before a restart; grows with back-off, seconds.
        attempts_max: Restarts within the window before giving up; None: no limit.
        window_s: How long a container must run to count as started well, and the window of
            `attempts_max`, seconds.
    """

    condition: RestartCondition = RestartCondition.ANY
    delay_s: float = 5.0
    attempts_max: int | None = None
    window_s: float = 0.0


class UpdateOrder(enum.Enum):
    """Whether the old task ends before the new one starts."""

    STOP_FIRST = 1
    START_FIRST = 2


class FailureAction(enum.Enum):
    """What a rollout does when a new task fails."""

    PAUSE = 1
    CONTINUE = 2
    ROLLBACK = 3


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """How tasks are replaced (`deploy.update_config`, `deploy.rollback_config`).

    Attributes:
        parallelism: Tasks replaced at once; 0: all.
        delay_s: Pause between batches, seconds.
        failure_action: What a failure does.
        monitor_s: How long after its start a task's failure counts, seconds.
        failure_ratio_max: Share of failed tasks that is borne, 0 to 1.
        order: Stop first or start first.
    """

    parallelism: int = 1
    delay_s: float = 0.0
    failure_action: FailureAction = FailureAction.PAUSE
    monitor_s: float = 5.0
    failure_ratio_max: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST


class ConstraintOp(enum.Enum):
    """How a placement constraint compares."""

    EQUAL = 1
    NOT_EQUAL = 2


@dataclass(frozen=True, slots=True)
class PlacementConstraint:
    """A condition on nodes, such as `node.labels.disk == ssd`: key, comparison, value."""

    key: str
    op: ConstraintOp
    value: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where tasks may run (`deploy.placement`).

    Attributes:
        constraints: All must hold.
        spread_over: Node attributes to spread over evenly (`preferences: - spread:`), the most
            important first.
        replicas_per_node_max: Tasks of the service on one node; 0: no limit.
        platforms: "os/arch[/variant]" that will do; empty: any.
    """

    constraints: tuple[PlacementConstraint, ...] = ()
    spread_over: tuple[str, ...] = ()
    replicas_per_node_max: int = 0
    platforms: tuple[str, ...] = ()


class PortProtocol(enum.Enum):
    """Transport of a port."""

    TCP = 1
    UDP = 2
    SCTP = 3


class PublishMode(enum.Enum):
    """Where a published port listens: on every node, or only on the nodes that run a task."""

    INGRESS = 1
    HOST = 2


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """One port that is reachable from outside the cluster.

    Ranges are written out, one entry a port.

    Attributes:
        target: Port in the container, 1 to 65535.
        published: Port on the nodes, 1 to 65535; 0: chosen by dray.
        published_end: Last port of the range to choose `published` from; 0: no range.
        protocol: Transport.
        mode: Every node or only those with a task.
        host_ip: Address of the node to listen on; empty: all.
        name: Name of the port, for SRV records; empty: none.
        app_protocol: "http", "grpc" …; for people and proxies.
    """

    target: int
    published: int = 0
    published_end: int = 0
    protocol: PortProtocol = PortProtocol.TCP
    mode: PublishMode = PublishMode.INGRESS
    host_ip: str = ""
    name: str = ""
    app_protocol: str = ""


class EndpointMode(enum.Enum):
    """What a service's name answers: one address that balances, or the replicas' addresses."""

    VIP = 1
    DNSRR = 2


class NetworkMode(enum.Enum):
    """Which network stack a container gets (`network_mode`)."""

    CLUSTER = 1
    """Attached to the networks of the service."""
    HOST = 2
    NONE = 3
    SERVICE = 4
    """That of another service's container on the same node.

    `TaskTemplate.network_mode_target` names the service.
    """
    CONTAINER = 5
    """That of a container that dray does not run; `network_mode_target` names it."""


@dataclass(frozen=True, slots=True)
class NetworkAttachment:
    """A Compose network that the service is on.

    Attributes:
        network: The key under the project's `networks:`.
        aliases: Further names of the service there.
        ipv4_address: Static address; empty: allocated.
        ipv6_address: Static address; empty: allocated.
        link_local_ips: Link-local addresses.
        mac_address: Static hardware address; empty: allocated.
        priority: Order in which networks are attached, highest first.
        gateway_priority: Which network's gateway is the default, highest wins.
        interface_name: Name of the interface in the container; empty: allocated.
        driver_opts: Options of the driver.
    """

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    priority: int = 0
    gateway_priority: int = 0
    interface_name: str = ""
    driver_opts: StringMap = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A further name under which this service finds another one (`links`)."""

    service: str
    alias: str


class DependencyCondition(enum.Enum):
    """What must hold of the other service before this one starts."""

    STARTED = 1
    HEALTHY = 2
    COMPLETED = 3


@dataclass(frozen=True, slots=True)
class Dependency:
    """An entry of `depends_on`.

    Attributes:
        service: The other service of the project.
        condition: What must hold.
        restart: Restart this service after the other one was replaced.
        required: Whether it is an error when the other one is missing.
    """

    service: str
    condition: DependencyCondition = DependencyCondition.STARTED
    restart: bool = False
    required: bool = True


@dataclass(frozen=True, slots=True)
class TaskTemplate:
    """All that makes one task; when it changes, running tasks are replaced.

    Attributes:
        container: The container.
        reservations: What placement sets aside.
        restart: The node's restart rule.
        networks: Compose networks, sorted by name.
        network_mode: Which network stack.
        network_mode_target: Service or container that lends its stack (SERVICE, CONTAINER).
        container_name: A name of its own (`container_name`), which also resolves; empty: none.
        expose: Ports named by `expose`, as the file says them.
        links: Further names of other services.
        force: A counter that `dray restart` raises: same spec, new tasks.
    """

    container: ContainerSpec
    reservations: ResourceReservations = ResourceReservations()
    restart: RestartPolicy = RestartPolicy()
    networks: tuple[NetworkAttachment, ...] = ()
    network_mode: NetworkMode = NetworkMode.CLUSTER
    network_mode_target: str = ""
    container_name: str = ""
    expose: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    force: int = 0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One entry of `services:` as the cluster stores it.

    Each accepted change is a numbered service revision.

    Attributes:
        name: Name within the project.
        task: What makes a task.
        mode: How many.
        placement: Where.
        update: How tasks are replaced by a newer revision.
        rollback: How they are put back.
        endpoint_mode: What the name answers.
        ports: Ports reachable from outside.
        depends_on: Which services come first, sorted by name.
        labels: Labels of the service itself (`deploy.labels`).
        dray: What `x-dray` says.
    """

    name: str
    task: TaskTemplate
    mode: ServiceMode = ServiceMode()
    placement: Placement = Placement()
    update: UpdatePolicy = UpdatePolicy()
    rollback: UpdatePolicy = UpdatePolicy()
    endpoint_mode: EndpointMode = EndpointMode.VIP
    ports: tuple[PublishedPort, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    labels: StringMap = ()
    dray: ServiceExtensions = ServiceExtensions()
