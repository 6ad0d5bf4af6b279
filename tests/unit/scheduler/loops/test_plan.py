"""What do rounds make of priorities, gangs and GPUs? Round after round, from what was stored."""

from __future__ import annotations

from dataclasses import replace

from dray.model import (
    Assignment,
    AttemptReport,
    AttemptState,
    Dependency,
    GpuRequest,
    NodeCapacity,
    NodeCondition,
    NodeInfo,
    ProjectSpec,
    ResourceReservations,
    ServiceExtensions,
    ServiceKey,
    ServiceRecord,
    StoreRevision,
    TaskAssignment,
)
from dray.model.resources import Gpu
from dray.names import NodeId
from scheduler.loops.commit import batches_of
from scheduler.loops.fleet import Fleet
from scheduler.loops.plan import RoundPlan, plan_round
from scheduler.reconcile import ActionReason, NodeObservation, Observed, StopTask
from scheduler.store.base import Item
from scheduler.store.codec import decode_as, encode
from scheduler.store.keys import assignment_key
from scheduler.store.records import ProjectRecord
from tests.builders import (
    EPOCH,
    GIB,
    CountingIds,
    a_node,
    a_record,
    a_service,
    a_snapshot,
    an_info,
    reserving,
)

ROUNDS = 6


class Leader:
    """Rounds over a cluster in memory; every task runs at once, and ends at once when told to."""

    def __init__(self, nodes: int, capacity: NodeCapacity, *projects: ProjectSpec) -> None:
        self.snapshot = replace(
            a_snapshot(nodes=[a_node(number) for number in range(1, nodes + 1)]),
            projects={spec.name: ProjectRecord(spec) for spec in projects},
        )
        self.infos: dict[NodeId, NodeInfo] = {}
        for number in range(1, nodes + 1):
            info = replace(an_info(number), capacity=capacity)
            self.infos[info.node_id] = info
        self.fleet, self.ids = Fleet(), CountingIds()

    def ask(self, *records: ServiceRecord) -> None:
        """Ask for services, beside those that there are."""
        fresh = {ServiceKey(each.project, each.spec.name): each for each in records}
        self.snapshot = replace(self.snapshot, services={**self.snapshot.services, **fresh})

    def tasks(self) -> list[TaskAssignment]:
        """Return everything that is assigned."""
        return [task for each in self.snapshot.assignments.values() for task in each.tasks]

    def running(self, service: str) -> list[int]:
        """Return the slots of a service that have a task which is to run."""
        return sorted(
            task.slot.slot
            for task in self.tasks()
            if task.slot.service == service and not task.stop
        )

    def round(self) -> RoundPlan:
        """Plan, and store what comes of it."""
        attempts = {
            task.task_id: AttemptReport(
                task.task_id, 1, AttemptState.STOPPED if task.stop else AttemptState.RUNNING
            )
            for task in self.tasks()
        }
        nodes = {
            node_id: NodeObservation(NodeCondition.READY, 0.0, info)
            for node_id, info in self.infos.items()
        }
        planned = plan_round(
            self.snapshot,
            Observed(nodes, attempts),
            self.fleet,
            epoch=EPOCH,
            now_unix_s=1_000.0,
            ids=self.ids,
        )
        assignments = dict(self.snapshot.assignments)
        for batch in batches_of(self.snapshot, planned.steps, EPOCH):
            assignments |= {each.node_id: stored(each) for each in batch.assignments}
        self.snapshot = replace(self.snapshot, assignments=assignments)
        return planned

    def settle(self) -> None:
        """Make rounds until nothing changes."""
        for _ in range(ROUNDS):
            self.round()
        assert self.round().steps == (), "it does not come to rest"


def stored(assignment: Assignment) -> Assignment:
    """Return an assignment as it comes back from the store."""
    revision = StoreRevision(7)
    item = Item(assignment_key(assignment.node_id), encode(assignment), revision, revision)
    return decode_as(item, Assignment)


def asking(name: str, replicas: int, cpus: float, **dray: object) -> ServiceRecord:
    """Return a service that takes CPUs."""
    extensions = ServiceExtensions(**dray)  # type: ignore[arg-type]
    spec = a_service(name, replicas=replicas, reservations=reserving(cpus=cpus), dray=extensions)
    return a_record(spec)


ROOM = NodeCapacity(4_000, 8 * GIB)


def test_a_higher_priority_displaces_a_lower_one() -> None:
    """As few as it needs are told to stop; the room is its own, and what was displaced waits."""
    leader = Leader(1, ROOM)
    leader.ask(asking("batch", 4, 1.0, priority=-5))
    leader.settle()
    assert leader.running("batch") == [1, 2, 3, 4]
    leader.ask(asking("web", 1, 2.0, priority=5, preempt=True))
    planned = leader.round()
    stops = [step.action for step in planned.steps if isinstance(step.action, StopTask)]
    assert [(each.slot.slot, each.reason) for each in stops] == [
        (4, ActionReason.DISPLACED),
        (3, ActionReason.DISPLACED),
    ]
    leader.settle()
    assert (leader.running("web"), leader.running("batch")) == ([1], [1, 2])


def test_nobody_is_displaced_for_who_does_not_say_so() -> None:
    """Without `preempt` a higher priority only has the first turn."""
    leader = Leader(1, ROOM)
    leader.ask(asking("batch", 4, 1.0, priority=-5))
    leader.settle()
    leader.ask(asking("web", 1, 2.0, priority=5))
    leader.settle()
    assert (leader.running("web"), leader.running("batch")) == ([], [1, 2, 3, 4])


def test_a_gang_begins_whole_or_not_at_all() -> None:
    """One task too many keeps all waiting, whatever depends on what; with room all begin."""
    web = asking("web", 2, 1.0)
    web = replace(web, spec=replace(web.spec, depends_on=(Dependency("db"),)))
    leader = Leader(1, ROOM, ProjectSpec("shop", gang=True))
    leader.ask(web, asking("db", 3, 1.0))
    leader.settle()
    assert leader.tasks() == []
    leader.ask(asking("db", 2, 1.0))
    leader.round()
    assert (leader.running("web"), leader.running("db")) == ([1, 2], [1, 2])
    alone = Leader(1, ROOM, ProjectSpec("shop"))
    alone.ask(web, asking("db", 3, 1.0))
    alone.settle()
    assert (alone.running("web"), alone.running("db")) == ([1], [1, 2, 3])


def test_gpus_that_were_chosen_are_stored_and_given_once() -> None:
    """Each task has a device of its own, halves share one, and a third finds none."""
    gpus = tuple(Gpu(f"GPU-{number}", "a", 16 * GIB) for number in (1, 2))
    leader = Leader(1, replace(ROOM, gpus=gpus))

    def train(replicas: int, millis: int) -> ServiceRecord:
        asked = ResourceReservations(gpu=GpuRequest(1, millis_per_gpu=millis))
        return a_record(a_service("train", replicas=replicas, reservations=asked))

    leader.ask(train(3, 1_000))
    leader.settle()
    assert sorted(task.gpu_ids for task in leader.tasks()) == [("GPU-1",), ("GPU-2",)]
    halves = Leader(1, replace(ROOM, gpus=gpus))
    halves.ask(train(5, 500))
    halves.settle()
    devices = sorted(task.gpu_ids for task in halves.tasks())
    assert devices == [("GPU-1",), ("GPU-1",), ("GPU-2",), ("GPU-2",)]
