"""Model values for tests, with defaults for everything a test does not care about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dray.model import (
    Assignment,
    Availability,
    ClusterRecord,
    ContainerSpec,
    Epoch,
    ImageOptions,
    NodeCapacity,
    NodeInfo,
    NodeRecord,
    Placement,
    Platform,
    PublishedPort,
    ResourceReservations,
    ServiceExtensions,
    ServiceKey,
    ServiceMode,
    ServiceRecord,
    ServiceRevision,
    ServiceSpec,
    SlotKey,
    StoreRevision,
    Taint,
    TaskAssignment,
    TaskTemplate,
    UpdatePolicy,
    string_map,
)
from dray.names import ID_BYTES, ClusterId, NodeId, RequestId, TaskId, id_text
from scheduler.placement import PlacementNode, RunningShare, TaskGroup
from scheduler.store.snapshot import Snapshot

__all__ = [
    "CLUSTER_ID",
    "EPOCH",
    "GIB",
    "PROJECT",
    "CountingIds",
    "a_container",
    "a_group",
    "a_key",
    "a_node",
    "a_placement_node",
    "a_port",
    "a_record",
    "a_service",
    "a_share",
    "a_slot",
    "a_snapshot",
    "a_task",
    "an_id",
    "an_info",
    "node_id",
    "reserving",
    "task_id",
]

GIB = 1024**3
PROJECT = "shop"
EPOCH = Epoch(1, 1)

_LETTERS = 26
_DIGITS = 5  # letters of an id that hold a number
_BITS_PER_DIGIT = 5


def an_id(number: int) -> str:
    """Return the id of a number; ids sort as their numbers do."""
    assert 0 <= number < _LETTERS**_DIGITS, number
    raw = 0
    for position in range(_DIGITS):
        digit = number // _LETTERS ** (_DIGITS - 1 - position) % _LETTERS
        raw |= digit << (ID_BYTES * 8 - _BITS_PER_DIGIT * (position + 1))
    return id_text(raw.to_bytes(ID_BYTES, "big"))


CLUSTER_ID = ClusterId(an_id(0))


def node_id(number: int) -> NodeId:
    """Return the id of node n1, n2 …."""
    return NodeId(an_id(number))


def task_id(number: int) -> TaskId:
    """Return the id of a task; a higher number is a newer task of the same epoch."""
    return TaskId(an_id(number))


class CountingIds:
    """An `IdFactory` that counts, and remembers what it gave out."""

    def __init__(self, first: int = 1000) -> None:
        """Start with the id of `first`."""
        self._next = first
        self.given: list[str] = []

    def new(self) -> str:
        """Return the id of the next number."""
        self.given.append(an_id(self._next))
        self._next += 1
        return self.given[-1]


def reserving(cpus: float = 0, memory_gib: float = 0) -> ResourceReservations:
    """Return reservations in the units that people think in."""
    return ResourceReservations(cpu_millis=int(cpus * 1000), memory_bytes=int(memory_gib * GIB))


def a_service(
    name: str = "web",
    *,
    replicas: int = 1,
    mode: ServiceMode | None = None,
    image: str = "web:1",
    container: ContainerSpec | None = None,
    reservations: ResourceReservations | None = None,
    placement: Placement | None = None,
    update: UpdatePolicy | None = None,
    ports: tuple[PublishedPort, ...] = (),
    dray: ServiceExtensions | None = None,
) -> ServiceSpec:
    """Return a replicated service of one container."""
    template = TaskTemplate(
        container or ContainerSpec(ImageOptions(image)), reservations or ResourceReservations()
    )
    return ServiceSpec(
        name,
        template,
        mode or ServiceMode(replicas=replicas),
        placement=placement or Placement(),
        update=update or UpdatePolicy(),
        ports=ports,
        dray=dray or ServiceExtensions(),
    )


def a_container(image: str = "web:1") -> ContainerSpec:
    """Return a container of an image."""
    return ContainerSpec(ImageOptions(image))


def a_port(target: int, published: int = 0) -> PublishedPort:
    """Return a port that all nodes publish; 0: dray chooses which."""
    return PublishedPort(target, published)


def a_key(service: str = "web", project: str = PROJECT) -> ServiceKey:
    """Return a service's key."""
    return ServiceKey(project, service)


def a_slot(number: int = 1, service: str = "web", project: str = PROJECT) -> SlotKey:
    """Return a slot of a service."""
    return SlotKey(project, service, number)


def a_record(
    spec: ServiceSpec | None = None, *, revision: int = 1, project: str = PROJECT
) -> ServiceRecord:
    """Return a kept revision of a service."""
    request_id = RequestId(an_id(0))
    return ServiceRecord(project, spec or a_service(), ServiceRevision(revision), 0.0, request_id)


def a_task(
    number: int,
    slot: SlotKey | None = None,
    *,
    revision: int = 1,
    epoch: Epoch = EPOCH,
    stop: bool = False,
) -> TaskAssignment:
    """Return a task with the id of `number` as an assignment lists it."""
    return TaskAssignment(task_id(number), slot or a_slot(), ServiceRevision(revision), epoch, stop)


def a_node(
    number: int = 1,
    *,
    labels: Mapping[str, str] | None = None,
    taints: tuple[Taint, ...] = (),
    availability: Availability = Availability.ACTIVE,
) -> NodeRecord:
    """Return the registry entry of node n1, n2 …."""
    return NodeRecord(
        node_id(number),
        CLUSTER_ID,
        f"n{number}",
        f"10.192.{2 * number % 256}.0/23",
        labels=string_map(labels or {}),
        taints=taints,
        availability=availability,
    )


def an_info(number: int = 1, *, life: int = 1, cpus: float = 4) -> NodeInfo:
    """Return what node n1, n2 … says of itself."""
    return NodeInfo(
        node_id(number),
        f"n{number}",
        life,
        boot_id=f"boot-{life}",
        version="0.1.0",
        advertise_address=f"127.0.{number // 256}.{number % 256}",
        gossip_port=7946,
        platform=Platform(),
        engine_version="20.10.24",
        capacity=NodeCapacity(int(cpus * 1000), 8 * GIB),
    )


def a_snapshot(
    records: Iterable[ServiceRecord] = (),
    tasks: Mapping[int, Iterable[TaskAssignment]] | None = None,
    *,
    nodes: Iterable[NodeRecord] = (),
    revision: int = 1,
) -> Snapshot:
    """Return a snapshot with these services, and these tasks by number of the node.

    The nodes of the tasks are in the registry, beside those that are given.
    """
    assigned = {number: tuple(listed) for number, listed in (tasks or {}).items()}
    registered = {number: a_node(number) for number in assigned}
    registry = {record.node_id: record for record in [*registered.values(), *nodes]}
    kept = list(records)
    return Snapshot(
        ClusterRecord(CLUSTER_ID),
        StoreRevision(revision),
        services={ServiceKey(each.project, each.spec.name): each for each in kept},
        nodes=registry,
        assignments={
            node_id(number): Assignment(
                CLUSTER_ID, node_id(number), EPOCH, StoreRevision(revision), listed
            )
            for number, listed in assigned.items()
        },
    )


def a_share(
    service: str = "web", count: int = 1, reservations: ResourceReservations | None = None
) -> RunningShare:
    """Return tasks of one service as placement sees them on a node."""
    return RunningShare(a_key(service), count, reservations or ResourceReservations())


def a_placement_node(
    number: int = 1,
    *,
    cpus: float = 4,
    memory_gib: float = 8,
    capacity: NodeCapacity | None = None,
    accepts_new: bool = True,
    labels: Mapping[str, str] | None = None,
    taints: tuple[Taint, ...] = (),
    platform: Platform | None = None,
    running: tuple[RunningShare, ...] = (),
) -> PlacementNode:
    """Return node n1, n2 … as placement sees it: 4 CPUs and 8 GiB."""
    return PlacementNode(
        node_id(number),
        f"n{number}",
        capacity or NodeCapacity(int(cpus * 1000), int(memory_gib * GIB)),
        accepts_new,
        string_map(labels or {}),
        taints,
        platform or Platform(),
        running,
    )


def a_group(
    spec: ServiceSpec | None = None,
    slots: int | tuple[int, ...] = 1,
    *,
    replicas_wanted: int | None = None,
    pinned_to: NodeId | None = None,
) -> TaskGroup:
    """Return new tasks of a service: its first slots, or the slots of these numbers."""
    asked = spec or a_service()
    numbers = tuple(range(1, slots + 1)) if isinstance(slots, int) else slots
    return TaskGroup(
        a_key(asked.name),
        asked,
        tuple(a_slot(number, asked.name) for number in numbers),
        len(numbers) if replicas_wanted is None else replicas_wanted,
        pinned_to,
    )
