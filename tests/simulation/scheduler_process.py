"""What is a scheduler in a simulation? The real one, but for sockets, threads and the disk.

Mirror, election, rounds, node streams and the service for nodes are the product's own; they run in
virtual time, over `SimStore`, and can be paused (a stopped process) and killed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

from dray.addresses import HostPort
from dray.model import NO_EPOCH, ContentRef, Epoch, WitnessEvidence
from dray.names import NodeId, RandomIds, SchedulerId
from dray.tasks import Supervisor
from dray.views import RoundStatus
from scheduler.election.election import Candidate, Election, LeaderTerm
from scheduler.election.memory import EpochMemory
from scheduler.leadership import SchedulerLeadership
from scheduler.loops.commit import KEYS_MAX
from scheduler.loops.round import Rounds
from scheduler.metrics import Metrics
from scheduler.nodes.service import NodeService, SchedulerIdentity
from scheduler.store.base import Committed, Txn
from scheduler.store.memory import MemoryData
from scheduler.store.mirror import Mirror
from scheduler.store.records import ContentRecord
from tests.simulation.scheduler_loop import InlineExecutor, LoopClock, VirtualLoop
from tests.simulation.scheduler_store import Gate, SimStore, Way

__all__ = ["SimLog", "SimScheduler"]

LEASE_TTL_S = 5


class SimLog:
    """A log that keeps nothing but what must never be said."""

    def __init__(self, broken: list[str]) -> None:
        """Report bugs into `broken`."""
        self._broken = broken

    def debug(self, event: str, **fields: Any) -> None:
        """Ignore it."""

    info = warning = debug

    def error(self, event: str, **fields: Any) -> None:
        """Note a bug; other errors are an operator's matter."""
        if event == "loop has a bug":
            self._broken.append(f"{event}: {fields.get('exc_info')!r}")


class _Memory:
    """The highest epoch, kept over restarts of a simulated process."""

    def __init__(self) -> None:
        self.highest = self.position = NO_EPOCH

    async def remember(self, epoch: Epoch = NO_EPOCH, position: Epoch = NO_EPOCH) -> None:
        """Keep it."""
        self.highest = max(self.highest, epoch)
        self.position = max(self.position, position)


class SimScheduler:
    """One scheduler process; `start` and `kill` make and end its lives."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        data: MemoryData,
        rng: random.Random,
        broken: list[str],
        on_send: Callable[[str, Txn], None],
        on_commit: Callable[[str, Txn, Committed], None],
    ) -> None:
        """Describe a process that does not run yet."""
        self.name = name
        self.ids = RandomIds(rng.getrandbits)
        self.scheduler_id = SchedulerId(self.ids.new())
        self.way = Way()
        self.gate = Gate()
        self.keys_max = rng.choice((2, 3, KEYS_MAX))  # plans are committed in parts
        self.nodes: NodeService | None = None
        self._memory = cast("EpochMemory", _Memory())
        self._loop = loop
        self._data = data
        self._rng = rng
        self._broken = broken
        self._on_send = on_send
        self._on_commit = on_commit
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process exists, running or stopped."""
        return self._task is not None

    @property
    def epoch(self) -> Epoch | None:
        """The term that it believes to lead in; None: in none."""
        streams = self.nodes.streams if self.nodes else None
        return None if streams is None else streams.epoch

    @property
    def is_leading(self) -> bool:
        """Whether it believes that it leads."""
        return self.nodes is not None and self.nodes.streams is not None

    def start(self) -> None:
        """Start the process; one that runs goes on."""
        if self._task is not None:
            return
        self.way = Way(fault_rate=self.way.fault_rate, conflict_rate=self.way.conflict_rate)
        self.gate = Gate()
        self._task = asyncio.create_task(self._run(), name=self.name)
        self._task.add_done_callback(self._note_end)

    def kill(self) -> None:
        """End the process without a word."""
        if self._task is not None:
            self.way.is_dead = True
            self.gate.resume()
            self._task.cancel()
            self._task, self.nodes = None, None

    def _note_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._broken.append(f"{self.name} ended: {error!r}")

    def _store(self, way: Way, gate: Gate) -> SimStore:
        """Return a client of the store, of this life of the process."""
        return SimStore(
            self._data,
            way,
            gate,
            self._rng,
            lambda txn: self._on_send(self.name, txn),
            lambda txn, done: self._on_commit(self.name, txn, done),
        )

    async def _run(self) -> None:
        way, gate = self.way, self.gate
        clock, log = LoopClock(self._loop, gate), SimLog(self._broken)

        rounds_store = self._store(way, gate)
        mirror = Mirror(rounds_store, clock=clock, rng=self._rng, log=log)
        candidate = Candidate(self.scheduler_id, HostPort(self.name, 7400), "0.1.0")
        election = Election(
            candidate,
            store=self._store(way, gate),
            mirror=mirror,
            memory=self._memory,
            ttl_s=LEASE_TTL_S,
            clock=clock,
            log=log,
        )
        leadership = SchedulerLeadership(mirror, self.scheduler_id)
        nodes = NodeService(
            SchedulerIdentity(self.scheduler_id, "0.1.0"),
            store=rounds_store,
            snapshot=lambda: mirror.snapshot,
            wait_revision=mirror.wait_revision,
            leadership=leadership,
            read_content=_no_content,
            hear_of_leader=_not_heard,
            random_bits=self._rng.getrandbits,
            clock=clock,
            log=log,
        )
        self.nodes = nodes

        async def lead(term: LeaderTerm) -> None:
            streams = nodes.begin(term.epoch)
            leadership.begin(streams)
            rounds = Rounds(
                term,
                store=rounds_store,
                mirror=mirror,
                streams=streams,
                executor=InlineExecutor(1),
                ids=self.ids,
                leader_name=self.name,
                on_news=_no_news,
                metrics=Metrics(),
                clock=clock,
                log=log,
                keys_max=self.keys_max,
            )
            leading = Supervisor(clock=clock, rng=self._rng, log=log)
            leading.add("nodes", lambda: nodes.run(streams))
            leading.add("rounds", rounds.run)
            try:
                await leading.run()
            finally:
                leadership.end()
                nodes.end()

        supervisor = Supervisor(clock=clock, rng=self._rng, log=log)
        supervisor.add("mirror", mirror.run)
        supervisor.add("election", lambda: election.run(lead))
        await supervisor.run()


async def _no_content(project: str, ref: ContentRef) -> ContentRecord:
    raise AssertionError(f"nobody asks for {ref.key} of {project}")


def _not_heard(node_id: NodeId, evidence: WitnessEvidence, epoch: Epoch) -> None:
    """Leave the election to the lease."""


def _no_news(status: RoundStatus | None) -> None:
    """Nobody asks."""
