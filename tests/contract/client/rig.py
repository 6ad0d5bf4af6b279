"""A scheduler's users' API in this process: a store in memory, and leaders and nodes to order."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from dray.addresses import HostPort
from dray.client import Client, ClientLimits
from dray.clock import SystemClock
from dray.errors import DrayError, NotLeader, Unavailable
from dray.log import get_logger
from dray.model import (
    Assignment,
    AttemptReport,
    AttemptState,
    ClusterRecord,
    Epoch,
    Event,
    GossipKey,
    Health,
    NodeCapacity,
    NodeCondition,
    NodeInfo,
    NodeRecord,
    Platform,
    ProjectSpec,
    ServiceSpec,
    StoreRevision,
    TaskAssignment,
)
from dray.names import NodeId, RandomIds, SchedulerId, TaskId
from dray.tls import client_channel, server
from dray.views import Orphan
from scheduler.api.environment import Environment
from scheduler.api.ports import (
    LeaderInfo,
    LeaderMemory,
    Relay,
    RelayInput,
    RelayOutput,
    RelayPurpose,
)
from scheduler.api.sealing import KEY_BYTES, Sealer
from scheduler.api.service import ClusterService
from scheduler.reconcile import NodeObservation, Observed
from scheduler.store import keys
from scheduler.store.base import Committed, Delete, Operation, Put, Store, Txn
from scheduler.store.codec import encode
from scheduler.store.memory import MemoryData, MemoryStore
from scheduler.store.mirror import Mirror
from scheduler.store.records import EventBatch, KeyringRecord
from tests.builders import CLUSTER_ID, EPOCH, a_node, an_id, node_id

DEADLINE_S = 10.0
LIMITS = ClientLimits(call_s=8.0, attempt_s=3.0, unreachable_s=1.0)


class FakeRelay:
    """A relay whose node answers from a script, and whose input is kept.

    A script that is nothing but an error is a node that takes no input.
    """

    def __init__(self, script: Iterable[RelayOutput | DrayError]) -> None:
        self._script = list(script)
        self.inputs: list[RelayInput] = []
        self.is_input_ended = asyncio.Event()

    async def output(self) -> AsyncIterator[RelayOutput]:
        """Yield the script; an error in it is raised."""
        for each in self._script:
            if isinstance(each, DrayError):
                raise each
            yield each

    async def send(self, message: RelayInput) -> None:
        """Keep the message."""
        if len(self._script) == 1 and isinstance(self._script[0], DrayError):
            raise Unavailable("the relay has ended")
        self.inputs.append(message)

    async def end_input(self) -> None:
        """Note the end."""
        self.is_input_ended.set()

    @property
    def copied_bytes(self) -> int:
        """Bytes of the archive."""
        return sum(len(each) for each in self.inputs if isinstance(each, bytes))


class FakeRelays:
    """A broker that gives scripted relays by node, and remembers what it was asked."""

    def __init__(self) -> None:
        self.scripts: dict[NodeId, list[RelayOutput | DrayError]] = {}
        self.opened: list[tuple[NodeId, RelayPurpose]] = []
        self.relays: list[FakeRelay] = []

    @asynccontextmanager
    async def open(self, node_id: NodeId, purpose: RelayPurpose) -> AsyncIterator[Relay]:
        """Give a relay to a node that has a script."""
        self.opened.append((node_id, purpose))
        if node_id not in self.scripts:
            raise Unavailable("the node has no stream")
        relay = FakeRelay(self.scripts[node_id])
        self.relays.append(relay)
        yield relay


@dataclass
class FakeLeadership:
    """Who leads, as a test says.

    Attributes:
        info: Who leads.
        held: What this scheduler holds as the leader; None: it does not lead.
    """

    info: LeaderInfo | None = None
    held: LeaderMemory | None = None
    ended: list[tuple[NodeId, tuple[TaskId, ...]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def leader(self) -> LeaderInfo | None:
        """Return who leads."""
        return self.info

    def memory(self) -> LeaderMemory | None:
        """Return what is held."""
        return self.held

    async def wait_memory(self, after: LeaderMemory | None) -> LeaderMemory | None:
        """Wait for another memory."""
        while self.held is after:
            await self.changed.wait()
        return self.held

    async def remove_orphans(self, node_id: NodeId, task_ids: tuple[TaskId, ...]) -> None:
        """Remember what was ended."""
        if self.held is None:
            raise NotLeader("another scheduler leads")
        self.ended.append((node_id, task_ids))

    def become(self, info: LeaderInfo | None, held: LeaderMemory | None) -> None:
        """Change who leads and what is held."""
        self.info, self.held = info, held
        event, self.changed = self.changed, asyncio.Event()
        event.set()


class ApiScheduler:
    """One scheduler's API: its store, its mirror, its address."""

    def __init__(self, number: int, store: Store) -> None:
        self.scheduler_id = SchedulerId(an_id(900 + number))
        self.store = store
        self.leadership = FakeLeadership()
        self.relays = FakeRelays()
        self.mirror = Mirror(
            store, clock=SystemClock(), rng=random.Random(number), log=get_logger("mirror")
        )
        self.address = HostPort("127.0.0.1", 0)
        self.sealer = Sealer(b"s" * KEY_BYTES, secrets.token_bytes)

    @property
    def info(self) -> LeaderInfo:
        """What the leader key says when this one leads."""
        return LeaderInfo(self.scheduler_id, Epoch(1, 7), self.address, since_unix_s=5.0)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Run the mirror and the server."""
        environment = Environment(
            self.scheduler_id,
            "0.1.0",
            self.store,
            self.mirror,
            self.leadership,
            self.relays,
            SystemClock(),
            get_logger("api"),
            RandomIds(secrets.randbits),
            secrets.token_bytes,
            self.sealer,
        )
        bound = server(self.address, None)
        self.address = bound.address
        service = ClusterService(environment, lambda address: client_channel(address, None))
        service.add_to(bound.server)
        running = asyncio.create_task(self.mirror.run())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.mirror.wait_changed(StoreRevision(0))
            await bound.server.start()
            yield
        finally:
            await bound.server.stop(0.1)
            await service.close()
            running.cancel()
            await asyncio.wait({running})


def memory_stores() -> Callable[[], Store]:
    """Return what makes clients of one new store in memory."""
    data = MemoryData(SystemClock().monotonic_s)
    return lambda: MemoryStore(data)


class Cluster:
    """Schedulers over one store, and what nodes report to their leader."""

    def __init__(self, schedulers: int, new_store: Callable[[], Store]) -> None:
        self.stores = [new_store() for _ in range(schedulers)]
        self.writer = new_store()
        self.schedulers = [
            ApiScheduler(number, store) for number, store in enumerate(self.stores, start=1)
        ]
        self.observed = Observed()

    @property
    def first(self) -> ApiScheduler:
        """The first scheduler, which leads when one does."""
        return self.schedulers[0]

    async def write(self, *operations: Operation) -> StoreRevision:
        """Commit, and wait until every mirror has it."""
        outcome = await self.writer.commit(Txn((), operations))
        assert isinstance(outcome, Committed)
        async with asyncio.timeout(DEADLINE_S):
            for scheduler in self.schedulers:
                await scheduler.mirror.wait_revision(outcome.revision)
        return outcome.revision

    def client(self, *schedulers: ApiScheduler) -> Client:
        """Return a client of some schedulers, by default of all."""
        return Client([each.address for each in schedulers or self.schedulers], limits=LIMITS)

    def lead(self, **changes: object) -> None:
        """Let the first scheduler lead, with what the nodes report."""
        memory = replace(LeaderMemory(self.observed), **changes)  # type: ignore[arg-type]
        for scheduler in self.schedulers:
            is_first = scheduler is self.first
            scheduler.leadership.become(self.first.info, memory if is_first else None)

    def lead_nobody(self) -> None:
        """Let there be no leader."""
        for scheduler in self.schedulers:
            scheduler.leadership.become(None, None)

    async def register(self, *records: NodeRecord) -> None:
        """Register nodes, and let the leader hold them to be ready."""
        operations: list[Operation] = []
        for record in records:
            operations.append(Put(keys.node_key(record.node_id), encode(record)))
            operations.append(Put(keys.node_name_key(record.name), record.node_id.encode()))
        await self.write(*operations)
        nodes = {record.node_id: ready(record) for record in records}
        self.observed = replace(self.observed, nodes={**self.observed.nodes, **nodes})

    async def assign(self, shares: Mapping[int, Iterable[TaskAssignment]]) -> None:
        """Write what nodes should run."""
        await self.write(
            *(
                Put(
                    keys.assignment_key(node_id(number)),
                    encode(
                        Assignment(
                            CLUSTER_ID, node_id(number), EPOCH, StoreRevision(0), tuple(tasks)
                        )
                    ),
                )
                for number, tasks in shares.items()
            )
        )

    def report(self, *reports: AttemptReport) -> None:
        """Let nodes report attempts."""
        attempts = {**self.observed.attempts, **{each.task_id: each for each in reports}}
        self.observed = replace(self.observed, attempts=attempts)


def ready(record: NodeRecord) -> NodeObservation:
    """Return what the leader holds of a node that is well."""
    info = NodeInfo(
        record.node_id,
        record.name,
        1,
        "boot",
        "0.1.0",
        "10.0.0.1",
        7401,
        Platform(),
        "20.10",
        NodeCapacity(4_000, 8 * 1024**3),
    )
    return NodeObservation(NodeCondition.READY, 5.0, info)


def running(task: TaskAssignment, *, health: Health = Health.NONE) -> AttemptReport:
    """Return the report of a task that runs."""
    return AttemptReport(task.task_id, 1, AttemptState.RUNNING, health, address="10.192.2.2")


@asynccontextmanager
async def cluster(
    schedulers: int = 1, *, leads: bool = True, new_store: Callable[[], Store] | None = None
) -> AsyncIterator[Cluster]:
    """Serve a cluster of some schedulers; the first leads unless a test says otherwise.

    A store that is not new is emptied first.
    """
    made = Cluster(schedulers, new_store or memory_stores())
    for item in (await made.writer.list(keys.ROOT)).items:
        await made.writer.commit(Txn((), (Delete(item.key),)))
    keyring = KeyringRecord((GossipKey(0, b"k" * 32, primary=True),))
    await made.writer.commit(
        Txn(
            (),
            (
                Put(keys.CLUSTER, encode(ClusterRecord(CLUSTER_ID))),
                Put(keys.KEYRING, encode(keyring)),
            ),
        )
    )
    try:
        async with _serving(made.schedulers):
            if leads:
                made.lead()
            yield made
    finally:
        for store in (*made.stores, made.writer):
            await store.close()


@asynccontextmanager
async def _serving(schedulers: list[ApiScheduler]) -> AsyncIterator[None]:
    if not schedulers:
        yield
        return
    async with schedulers[0].serving(), _serving(schedulers[1:]):
        yield


async def with_nodes(made: Cluster, count: int) -> None:
    """Register nodes n1 to n<count>, all ready."""
    await made.register(*(a_node(number) for number in range(1, count + 1)))
    made.lead()


def events(*told: Event) -> Put:
    """Return the write of events into the first slot of the ring."""
    return Put(keys.event_key(0), encode(EventBatch(told)))


def project_of(*services: ServiceSpec, name: str = "shop") -> ProjectSpec:
    """Return a project of services."""
    return ProjectSpec(name, services)


def orphan(number: int) -> Orphan:
    """Return a container that no assignment explains."""
    return Orphan(TaskId(an_id(number)))
