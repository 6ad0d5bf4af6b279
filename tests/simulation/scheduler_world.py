"""What is a whole control plane in a simulation? Schedulers, a store, nodes, users and faults.

Everything is drawn from the seed: who there is, what is asked for, what goes wrong and when. After
`FAULTS_UNTIL_S` nothing goes wrong any more; then the cluster must become what was asked.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from dray.model import (
    Availability,
    ClusterRecord,
    ContainerSpec,
    Epoch,
    FailureAction,
    ImageOptions,
    Mount,
    MountKind,
    NodeRecord,
    ServiceExtensions,
    ServiceKey,
    ServiceMode,
    ServiceModeKind,
    ServiceRecord,
    ServiceRevision,
    ServiceSpec,
    SlotKey,
    StoreRevision,
    UpdateOrder,
    UpdatePolicy,
)
from scheduler.store import keys
from scheduler.store.base import Delete, Item, Operation, Put, Txn
from scheduler.store.codec import Stored, decode_as, encode
from scheduler.store.memory import MemoryData
from scheduler.store.records import LeaderRecord
from tests.builders import CLUSTER_ID, a_record, a_service, reserving
from tests.simulation.scheduler_checks import Checker
from tests.simulation.scheduler_loop import VirtualLoop, run_virtual
from tests.simulation.scheduler_node import SimNode
from tests.simulation.scheduler_process import SimScheduler

__all__ = ["SchedulerWorld", "broken_in", "world_of"]

_Stored = TypeVar("_Stored", bound=Stored)
FAULTS_FROM_S = 8.0
FAULTS_UNTIL_S = 30.0
QUIET_LIMIT_S = 90.0  # everything must be as asked by then; usually it takes 20 s
CHECK_S = 0.5
_EXTENSIONS = {
    "one": ServiceExtensions(singleton=True),
    "web": ServiceExtensions(priority=5, preempt=True),
    "api": ServiceExtensions(priority=-5),
}
SERVICES = ("web", "api", "one", "job", "all", "db")


class SchedulerWorld:
    """One run."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        """Draw a world; nothing runs yet."""
        self.seed = seed
        self.rng = random.Random(seed)
        self.loop = loop
        self.broken: list[str] = []
        self.cpus = self.rng.choice((2, 2, 4))  # of each node; with two not everything has room
        self.completed: set[tuple[SlotKey, ServiceRevision]] = set()
        self.data = MemoryData(loop.time)
        self.checker = Checker(self)
        self.schedulers = [
            SimScheduler(
                f"s{number}",
                loop,
                self.data,
                self.rng,
                self.broken,
                self.checker.sent,
                self.checker.committed,
            )
            for number in range(1, self.rng.choice((1, 2, 3, 3)) + 1)
        ]
        self.nodes = {
            number: SimNode(number, self) for number in range(1, self.rng.randint(3, 5) + 1)
        }
        self.changed_at_s: dict[str, float] = {}
        self._decoded: dict[tuple[str, StoreRevision], object] = {}
        self._cuts: set[frozenset[str]] = set()
        self._revisions: dict[ServiceKey, int] = {}

    # ---- what its parts see

    def now_s(self) -> float:
        """Return the virtual time."""
        return self.loop.time()

    def passes(self, one: str, other: str) -> bool:
        """Return whether two machines reach each other."""
        return frozenset((one, other)) not in self._cuts

    def epoch(self) -> Epoch | None:
        """Return the term that the leader key says; None: nobody leads."""
        item = self.data.item(keys.LEADER)
        if item is None:
            return None
        return Epoch(self.decoded(item, LeaderRecord).generation, item.create_revision)

    def decoded(self, item: Item, kind: type[_Stored]) -> _Stored:
        """Return a stored value; each is decoded once."""
        at = (item.key, item.mod_revision)
        if at not in self._decoded:
            self._decoded[at] = decode_as(item, kind)
        found = self._decoded[at]
        assert isinstance(found, kind)
        return found

    # ---- a run

    async def run(self) -> None:
        """Run the world to its end; what is broken is in `broken`."""
        self.begin()
        for name in SERVICES:
            if self.rng.random() < 0.75:
                self.at(self.rng.uniform(0.5, 6.0), functools.partial(self.apply, name))
        self._draw_changes()
        self._draw_faults()
        await self.until(FAULTS_UNTIL_S)
        self._end_faults()
        end_s = self.now_s() + QUIET_LIMIT_S
        wrong = self.checker.not_as_asked()
        while wrong and not self.broken and self.now_s() < end_s:
            await self.until(self.now_s() + CHECK_S)
            wrong = self.checker.not_as_asked()
        self.broken += wrong
        self.end()

    def begin(self) -> None:
        """Make the cluster and start everybody."""
        cluster = Put(keys.CLUSTER, encode(ClusterRecord(CLUSTER_ID)))
        self.data.commit(Txn((), (cluster,)))
        for scheduler in self.schedulers:
            scheduler.start()
        for node in self.nodes.values():
            self.at(self.rng.uniform(0.0, 2.0), node.power_on)

    def end(self) -> None:
        """End everybody."""
        for scheduler in self.schedulers:
            scheduler.kill()
        for node in self.nodes.values():
            node.power_off()

    async def until(self, at_s: float, every_s: float = CHECK_S) -> None:
        """Let time pass, and look at everything on the way."""
        while self.now_s() < at_s and not self.broken:
            await asyncio.sleep(min(every_s, at_s - self.now_s()))
            self.data.expire_leases()
            self.checker.look()

    def at(self, at_s: float, call: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self.loop.call_at(at_s, call)

    # ---- what users do

    def apply(self, name: str, replicas: int | None = None) -> None:
        """Ask for a service anew: its next revision; with so many replicas, or some."""
        key = ServiceKey("shop", name)
        self._revisions[key] = self._revisions.get(key, 0) + 1
        revision = ServiceRevision(self._revisions[key])
        spec = self._spec(name)
        if replicas is not None:
            spec = replace(spec, mode=ServiceMode(replicas=replicas))
        record = replace(a_record(spec), revision=revision)
        self._write(
            Put(keys.service_key(key), encode(record)),
            Put(keys.revision_key(key, revision), encode(record)),
        )

    def scale(self, name: str) -> None:
        """Ask for another number of replicas of the same."""
        record = self._record(name)
        if record is None or record.spec.mode.kind is not ServiceModeKind.REPLICATED:
            return
        key = ServiceKey("shop", name)
        self._revisions[key] += 1
        spec = replace(record.spec, mode=ServiceMode(replicas=self._replicas(name)))
        record = replace(record, spec=spec, revision=ServiceRevision(self._revisions[key]))
        self._write(
            Put(keys.service_key(key), encode(record)),
            Put(keys.revision_key(key, record.revision), encode(record)),
        )

    def remove(self, name: str) -> None:
        """Ask for a service no longer; its revisions stay while tasks may run them."""
        self._write(Delete(keys.service_key(ServiceKey("shop", name))))

    def drain(self, number: int, availability: Availability) -> None:
        """Say what is wanted of a node."""
        item = self.data.item(keys.node_key(self.nodes[number].node_id))
        if item is not None:
            record = replace(decode_as(item, NodeRecord), availability=availability)
            self._write(Put(item.key, encode(record)))

    def _write(self, *operations: Operation) -> None:
        self.data.commit(Txn((), operations))
        self.changed_at_s |= {operation.key: self.now_s() for operation in operations}

    def _record(self, name: str) -> ServiceRecord | None:
        item = self.data.item(keys.service_key(ServiceKey("shop", name)))
        return None if item is None else decode_as(item, ServiceRecord)

    def _replicas(self, name: str) -> int:
        return 1 if name == "one" else self.rng.randint(0, 3)

    def _spec(self, name: str) -> ServiceSpec:
        modes = {
            "job": ServiceMode(ServiceModeKind.REPLICATED_JOB, self.rng.randint(1, 3)),
            "all": ServiceMode(ServiceModeKind.GLOBAL, 0),
        }
        policy = UpdatePolicy(
            parallelism=self.rng.choice((0, 1, 2)),
            failure_action=FailureAction.CONTINUE,
            monitor_s=1.0,
            order=self.rng.choice(list(UpdateOrder)),
        )
        container = ContainerSpec(ImageOptions(f"{name}:{self.rng.randint(1, 100)}"))
        if name == "db":
            container = replace(container, mounts=(Mount(MountKind.VOLUME, "data", "/data"),))
        return a_service(
            name,
            mode=modes.get(name, ServiceMode(replicas=self._replicas(name))),
            container=container,
            reservations=reserving(cpus=0.1 if name == "all" else self.rng.choice((0.25, 0.5))),
            update=policy,
            dray=_EXTENSIONS.get(name, ServiceExtensions()),
        )

    # ---- what is drawn

    def _draw_changes(self) -> None:
        for _ in range(self.rng.randint(0, 5)):
            at_s, name = self.rng.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S), self.rng.choice(SERVICES)
            change = self.rng.choice((self.apply, self.apply, self.scale, self.remove))
            self.at(at_s, functools.partial(change, name))
        if self.rng.random() < 0.4:
            number = self.rng.choice(list(self.nodes))
            self.at(
                self.rng.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S),
                lambda: self.drain(number, Availability.DRAIN),
            )
            if self.rng.random() < 0.6:
                self.at(FAULTS_UNTIL_S, lambda: self.drain(number, Availability.ACTIVE))

    def _draw_faults(self) -> None:
        for scheduler in self.schedulers:
            if self.rng.random() < 0.5:
                scheduler.way.fault_rate = self.rng.choice((0.02, 0.1, 0.3))
            if self.rng.random() < 0.5:
                scheduler.way.conflict_rate = self.rng.choice((0.1, 0.3))
        for _ in range(self.rng.randint(0, 3)):
            self._draw_scheduler_fault()
        victims = self.rng.sample(list(self.nodes), self.rng.randint(0, len(self.nodes) - 2))
        for number in victims:
            self._draw_node_fault(self.nodes[number])
        for _ in range(self.rng.randint(0, 4)):
            node = self.nodes[self.rng.choice(list(self.nodes))]
            self.at(self.rng.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S), node.lose_stream)

    def _span(self, longest_s: float) -> tuple[float, float]:
        start_s = self.rng.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S - 1.0)
        return start_s, min(FAULTS_UNTIL_S, start_s + self.rng.uniform(0.2, longest_s))

    def _draw_scheduler_fault(self) -> None:
        """Let something befall a scheduler, mostly the one that leads then."""
        start_s, end_s = self._span(14.0)
        kind = self.rng.choice(("commit", "commit", "pause", "kill", "cut"))
        other, is_leader = self.rng.choice(self.schedulers), self.rng.random() < 0.75
        name = self.rng.choice(SERVICES)

        def begin() -> None:
            leading = [each for each in self.schedulers if each.is_leading]
            self._befall(leading[0] if leading and is_leader else other, kind, end_s)
            if kind == "commit":
                self.apply(name)  # something to commit

        self.at(start_s, begin)

    def _befall(self, scheduler: SimScheduler, kind: str, end_s: float) -> None:
        match kind:
            case "commit":
                scheduler.way.pause_at_commit_s = end_s - self.now_s()
            case "pause":
                gate = scheduler.gate
                gate.pause()
                self.at(end_s, gate.resume)
            case "kill":
                self.kill(scheduler)
                self.at(end_s, scheduler.start)
            case _:
                way = scheduler.way
                way.is_cut = True
                self.at(end_s, lambda: setattr(way, "is_cut", False))

    def kill(self, scheduler: SimScheduler) -> None:
        """End a scheduler's process; its connections are reset."""
        scheduler.kill()
        for node in self.nodes.values():
            node.scheduler_gone(scheduler)

    def _draw_node_fault(self, node: SimNode) -> None:
        start_s, end_s = self._span(24.0)
        match self.rng.choice(("power", "power", "daemon", "pause", "cut", "isolate")):
            case "power":
                self.at(start_s, node.power_off)
                if self.rng.random() < 0.6:
                    self.at(end_s, node.power_on)
            case "daemon":
                self.at(start_s, node.kill_daemon)
                self.at(end_s, node.start_daemon)
            case "pause":
                self.at(start_s, node.pause)
                self.at(end_s, node.resume)
            case "cut":
                others = [each.name for each in self.nodes.values()]
                others += [each.name for each in self.schedulers]
                self.at(start_s, lambda: self._cut(node, others))
                self.at(end_s, lambda: self._heal(node))
            case _:
                others = [each.name for each in self.nodes.values()]
                self.at(start_s, lambda: self._cut(node, others))
                self.at(end_s, lambda: self._heal(node))

    def _cut(self, node: SimNode, others: list[str]) -> None:
        self._cuts |= {frozenset((node.name, other)) for other in others if other != node.name}

    def _heal(self, node: SimNode) -> None:
        self._cuts = {pair for pair in self._cuts if node.name not in pair}

    def _end_faults(self) -> None:
        for scheduler in self.schedulers:
            scheduler.way.fault_rate = scheduler.way.pause_at_commit_s = 0.0
            scheduler.way.conflict_rate = 0.0
            if not scheduler.is_alive:
                scheduler.start()


def broken_in(seed: int) -> tuple[list[str], str]:
    """Run the world of a seed; return what is broken in it, and its trace."""
    world = world_of(seed)
    return world.broken, world.checker.trace


def world_of(seed: int) -> SchedulerWorld:
    """Run the world of a seed to its end, and return it."""

    async def main(loop: VirtualLoop) -> SchedulerWorld:
        world = SchedulerWorld(seed, loop)
        await world.run()
        return world

    return run_virtual(main)
