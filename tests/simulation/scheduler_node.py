"""What is a node in a simulation? A stream to the leader, containers that take time, and probes.

It keeps node.proto as a node must: the newest assignment wins, complete reports after a Welcome,
changes after that, a Pong at once. Machine and daemon fail one by one: a power cut ends everything,
a killed daemon leaves its containers running, a paused one answers nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from dataclasses import dataclass, replace
from typing import Any, Protocol

import grpc

from dray.api.v1 import node_pb2, state_pb2
from dray.convert import from_proto, to_proto
from dray.model import (
    Assignment,
    AttemptReport,
    AttemptState,
    Epoch,
    NodeCapacity,
    ReachKind,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    StoreRevision,
    TaskAssignment,
    TaskSpecEntry,
    WitnessEvidence,
)
from dray.names import NodeId, TaskId, id_bytes
from tests.builders import CLUSTER_ID, GIB, an_info, node_id
from tests.simulation.scheduler_process import SimScheduler
from tests.simulation.scheduler_store import Gate

__all__ = ["Daemon", "NodeWorld", "SimNode", "Stream"]

KEEPALIVE_S = 7.0
PROBE_S = 0.5
SILENT_AFTER_S = 1.5
DOUBLED = 0.05  # share of messages that come twice
ENDS = frozenset(state for state in AttemptState if state >= AttemptState.COMPLETED)


class Daemon(enum.Enum):
    """What is with a node's daemon."""

    UP = 1
    PAUSED = 2
    KILLED = 3


class NodeWorld(Protocol):
    """What a node sees of its world."""

    rng: Any
    nodes: dict[int, SimNode]
    schedulers: list[SimScheduler]
    broken: list[str]
    cpus: int
    completed: set[tuple[SlotKey, ServiceRevision]]

    def now_s(self) -> float:
        """Return the virtual time."""
        ...

    def passes(self, one: str, other: str) -> bool:
        """Return whether two machines reach each other."""
        ...


class Stream:
    """One stream between a node and a scheduler; for the scheduler, the gRPC context."""

    def __init__(self, world: NodeWorld, node: SimNode, scheduler: SimScheduler) -> None:
        """Open it."""
        self._world = world
        self._node = node
        self._scheduler = scheduler
        self._gate = scheduler.gate
        self._up: asyncio.Queue[Any] = asyncio.Queue()
        self._down: asyncio.Queue[Any] = asyncio.Queue()
        self._up_at_s = self._down_at_s = 0.0
        self._has_lost = False
        assert scheduler.nodes is not None
        self.handler = asyncio.create_task(self._serve(scheduler.nodes))
        self.watcher = asyncio.create_task(self._watch())

    # ---- the scheduler's side, as gRPC has it

    async def read(self) -> Any:
        """Return the node's next message, or EOF."""
        message = await self._up.get()
        await self._gate()
        return message

    async def write(self, message: Any) -> None:
        """Send a message to the node."""
        await self._gate()
        for _ in range(1 + (self._world.rng.random() < DOUBLED)):
            self._down_at_s = self._deliver(self._down, self._down_at_s, message)

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the call with an error: the node's stream ends."""
        raise asyncio.CancelledError(f"{code.name}: {details}")

    # ---- the node's side

    def send(self, request: node_pb2.SessionRequest) -> None:
        """Send a message to the scheduler."""
        self._up_at_s = self._deliver(self._up, self._up_at_s, request)

    async def receive(self) -> Any:
        """Return the scheduler's next message; None: the stream has ended."""
        return await self._down.get()

    def close(self) -> None:
        """End it at once, for both sides."""
        self.watcher.cancel()
        self._up.put_nowait(grpc.aio.EOF)
        self._down.put_nowait(None)

    def reset(self) -> None:
        """End it because the scheduler's process is gone."""
        self.handler.cancel()
        self.close()

    # ---- inside

    async def _serve(self, service: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await service.Session(None, self)
        self._down_at_s = self._deliver(self._down, self._down_at_s, None)

    def _deliver(self, queue: asyncio.Queue[Any], last_s: float, item: Any) -> float:
        """Put an item into a queue some time later, in order.

        Nothing passes a cut, and what did not pass ends the stream: TCP loses nothing in between.
        """
        if self._has_lost or not self._is_whole():
            self._has_lost = True
            return last_s
        loop = asyncio.get_running_loop()
        at_s: float = max(last_s + 1e-6, loop.time() + self._world.rng.uniform(0.0005, 0.01))
        loop.call_at(at_s, queue.put_nowait, item)
        return at_s

    def _is_whole(self) -> bool:
        return self._node.has_power and self._world.passes(self._node.name, self._scheduler.name)

    async def _watch(self) -> None:
        """End the stream when one side has been silent for too long."""
        silent_s = 0.0
        while silent_s < KEEPALIVE_S and not (self._has_lost and self._is_whole()):
            await asyncio.sleep(1.0)
            is_heard = self._is_whole() and not self._gate.is_paused
            is_heard &= self._node.daemon is Daemon.UP
            silent_s = 0.0 if is_heard else silent_s + 1.0
        self.close()


@dataclass(slots=True)
class Run:
    """One task on a node."""

    task: TaskAssignment
    attempt: int
    state: AttemptState
    is_job: bool
    work: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Reach:
    """What a node last found of another one."""

    kind: ReachKind
    since_s: float
    life: int
    met_s: float | None


class SimNode:
    """One machine with its daemon."""

    def __init__(self, number: int, world: NodeWorld) -> None:
        """Describe a machine that is off."""
        self.number = number
        self.name = f"n{number}"
        self.node_id: NodeId = node_id(number)
        self.life = 0
        self.has_power = False
        self.daemon = Daemon.KILLED
        self.gate = Gate()
        self.runs: dict[TaskId, Run] = {}
        self.ended: set[TaskId] = set()
        self.troubled_s = 0.0
        self._world = world
        self._held: tuple[Epoch, StoreRevision] | None = None
        self._epoch: Epoch | None = None
        self._is_known = False
        self._specs: dict[tuple[ServiceKey, ServiceRevision], TaskSpecEntry] = {}
        self._reaches: dict[int, _Reach] = {}
        self._stream: Stream | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # ---- what befalls it

    def power_on(self) -> None:
        """Boot the machine, and its daemon."""
        self.has_power = True
        self.start_daemon()

    def power_off(self) -> None:
        """Cut its power: nothing of it goes on, nobody is told."""
        self.has_power = False
        self._end_daemon()
        for run in self.runs.values():
            if run.work is not None:
                run.work.cancel()
            self.ended.add(run.task.task_id)
        self.runs.clear()

    def start_daemon(self) -> None:
        """Start the daemon; containers that run are adopted."""
        if not self.has_power or self.daemon is not Daemon.KILLED:
            return
        self.daemon = Daemon.UP
        self.gate = Gate()
        self.life += 1
        self._reaches = {}
        self._tasks = [
            asyncio.create_task(self._session(), name=f"{self.name} session"),
            asyncio.create_task(self._probe(), name=f"{self.name} probes"),
        ]
        for run in self.runs.values():
            if run.task.stop:
                self._stop(run)
            elif run.state is AttemptState.PENDING:
                self._begin(run)

    def kill_daemon(self) -> None:
        """Kill the daemon; its kernel closes the stream, containers go on."""
        stream = self._stream
        self._end_daemon()
        if stream is not None and self.has_power:
            stream.close()

    def pause(self) -> None:
        """Stop all user space of the machine that matters: the daemon."""
        if self.daemon is Daemon.UP:
            self.daemon = Daemon.PAUSED
            self.gate.pause()

    def resume(self) -> None:
        """Let the daemon go on."""
        if self.daemon is Daemon.PAUSED:
            self.daemon = Daemon.UP
            self.gate.resume()

    def lose_stream(self) -> None:
        """Break the connection to the leader."""
        if self._stream is not None:
            self._stream.close()

    def scheduler_gone(self, scheduler: SimScheduler) -> None:
        """Note that a scheduler's process was killed."""
        if self._stream is not None and self._stream._scheduler is scheduler:
            self._stream.reset()

    def running(self) -> list[Run]:
        """Return what runs in truth."""
        return [run for run in self.runs.values() if run.state is AttemptState.RUNNING]

    def _end_daemon(self) -> None:
        self.daemon = Daemon.KILLED
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._stream = None
        for run in self.runs.values():
            is_its_own = run.task.stop or run.state is not AttemptState.RUNNING
            if run.work is not None and is_its_own:
                run.work.cancel()

    # ---- the stream

    async def _session(self) -> None:
        world, rng = self._world, self._world.rng
        target = rng.choice(world.schedulers)
        while True:
            await self.gate()
            is_there = target.is_alive and target.nodes is not None
            if not is_there or not world.passes(self.name, target.name):
                target = rng.choice(world.schedulers)
                await asyncio.sleep(rng.uniform(0.2, 0.6))
                continue
            stream = Stream(world, self, target)
            try:
                hint = await self._talk(stream)
            finally:
                self._stream = None
                stream.close()
            named = [each for each in world.schedulers if each.name == hint]
            target = named[0] if named else rng.choice(world.schedulers)
            await asyncio.sleep(rng.uniform(0.05, 0.4))

    async def _talk(self, stream: Stream) -> str:
        """Keep one stream until it ends; return the name of who leads, if it was told."""
        stream.send(self._request(hello=self._hello()))
        while True:
            try:
                async with asyncio.timeout(None if self._stream else 3.0):
                    message = await stream.receive()
            except TimeoutError:
                return ""
            await self.gate()
            if message is None:
                return ""
            kind = message.WhichOneof("message")
            if kind == "not_leader":
                return str(message.not_leader.leader.host)
            if kind == "refused":
                await asyncio.sleep(0.5)
                return ""
            epoch = from_proto(message.epoch, Epoch)
            if self._epoch is not None and epoch < self._epoch:
                return ""
            self._epoch = epoch
            self._take(stream, kind, message)

    def _take(self, stream: Stream, kind: str, message: Any) -> None:
        match kind:
            case "welcome":
                self._is_known = True
                self._stream = stream
                self._say_all()
            case "ping":
                stream.send(self._request(pong=node_pb2.Pong(sequence=message.ping.sequence)))
            case "specs":
                self._keep(from_proto(each, TaskSpecEntry) for each in message.specs.specs)
            case "assignment":
                self._assign(from_proto(message.assignment.assignment, Assignment))

    def _hello(self) -> node_pb2.Hello:
        info = replace(
            an_info(self.number, life=self.life),
            capacity=NodeCapacity(self._world.cpus * 1000, 64 * GIB),
        )
        said = node_pb2.Hello(node=to_proto(info, state_pb2.NodeInfo), is_new=not self._is_known)
        if self._epoch is not None:
            said.epoch.CopyFrom(to_proto(self._epoch, state_pb2.Epoch))
        return said

    def _request(self, **message: Any) -> node_pb2.SessionRequest:
        return node_pb2.SessionRequest(cluster_id=id_bytes(CLUSTER_ID), **message)

    def _say(self, **message: Any) -> None:
        """Send something if there is a stream; now and then twice."""
        if self._stream is not None and self.daemon is Daemon.UP:
            request = self._request(**message)
            for _ in range(1 + (self._world.rng.random() < DOUBLED)):
                self._stream.send(request)

    def _say_all(self) -> None:
        reports = [to_proto(_report(run), state_pb2.AttemptReport) for run in self.runs.values()]
        self._say(attempts=node_pb2.AttemptReports(is_complete=True, attempts=reports))
        evidence = [self._evidence(number) for number in self._reaches]
        self._say(evidence=node_pb2.EvidenceReport(is_complete=True, evidence=evidence))

    # ---- what it runs

    def _keep(self, specs: Any) -> None:
        self._specs |= {(spec.service, spec.service_revision): spec for spec in specs}

    def _assign(self, assignment: Assignment) -> None:
        if self._held is not None and assignment.version < self._held:
            return
        self._held = assignment.version
        self._keep(assignment.specs)
        listed = {task.task_id: task for task in assignment.tasks}
        for task in assignment.tasks:
            run = self.runs.get(task.task_id)
            if run is None and task.stop:
                never = Run(task, 1, AttemptState.PENDING, is_job=False)
                self.runs[task.task_id] = never
                self._become(never, AttemptState.STOPPED)
            elif run is None:
                self._start(task)
            elif task.stop and not run.task.stop:
                run.task = task
                self._stop(run)
        for run in [run for run in self.runs.values() if run.task.task_id not in listed]:
            if run.state in ENDS:
                self._forget(run)
            elif not run.task.stop:
                run.task = replace(run.task, stop=True)
                self._stop(run)
        needed = {(task.slot.service_key, task.service_revision) for task in assignment.tasks}
        self._specs = {key: spec for key, spec in self._specs.items() if key in needed}

    def _start(self, task: TaskAssignment) -> None:
        spec = self._specs.get((task.slot.service_key, task.service_revision))
        if spec is None:
            self._world.broken.append(f"{self.name} was not told what {task.slot} runs")
            return
        attempt = 2 if task.task_id in self.ended else 1
        run = Run(task, attempt, AttemptState.PENDING, spec.is_job)
        self.runs[task.task_id] = run
        self._tell(run)
        self._begin(run)

    def _begin(self, run: Run) -> None:
        run.work = asyncio.create_task(self._work(run), name=f"{self.name} {run.task.slot}")

    async def _work(self, run: Run) -> None:
        rng = self._world.rng
        await asyncio.sleep(rng.uniform(0.05, 1.0))
        await self.gate()
        self._become(run, AttemptState.RUNNING)
        if run.is_job:
            await asyncio.sleep(rng.uniform(0.5, 4.0))
            await self.gate()
            self._completed(run)

    def _stop(self, run: Run) -> None:
        if run.state in ENDS:
            return
        if run.work is not None:
            run.work.cancel()
        run.work = asyncio.create_task(self._end(run), name=f"{self.name} ends {run.task.slot}")

    async def _end(self, run: Run) -> None:
        await asyncio.sleep(self._world.rng.uniform(0.02, 1.0))
        await self.gate()
        self._become(run, AttemptState.STOPPED)

    def _completed(self, run: Run) -> None:
        self._world.completed.add((run.task.slot, run.task.service_revision))
        self._become(run, AttemptState.COMPLETED)

    def _become(self, run: Run, state: AttemptState) -> None:
        run.state = state
        if state in ENDS:
            self.ended.add(run.task.task_id)
        self._tell(run)

    def _tell(self, run: Run) -> None:
        report = to_proto(_report(run), state_pb2.AttemptReport)
        self._say(attempts=node_pb2.AttemptReports(attempts=[report]))

    def _forget(self, run: Run) -> None:
        del self.runs[run.task.task_id]
        gone = [id_bytes(run.task.task_id)]
        self._say(attempts=node_pb2.AttemptReports(forgotten_tasks=gone))

    # ---- probes

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            await self.gate()
            changed = [
                number
                for number, other in self._world.nodes.items()
                if number != self.number and other.life and self._look(number, other)
            ]
            if changed:
                evidence = [self._evidence(number) for number in changed]
                self._say(evidence=node_pb2.EvidenceReport(evidence=evidence))

    def _look(self, number: int, other: SimNode) -> bool:
        """Probe one node; return whether there is something new about it."""
        now_s = self._world.now_s()
        found = self._found(other)
        last = self._reaches.get(number)
        if found is ReachKind.ANSWERED:
            is_new = last is None or last.kind is not found or last.life != other.life
            since_s = now_s if last is None or is_new else last.since_s
            self._reaches[number] = _Reach(found, since_s, other.life, now_s)
            return is_new
        if last is None:
            self._reaches[number] = _Reach(found, now_s, other.life, None)
            return True
        if last.kind is found or (last.met_s or 0.0) + SILENT_AFTER_S > now_s:
            return False
        self._reaches[number] = _Reach(found, now_s, last.life, last.met_s)
        return True

    def _found(self, other: SimNode) -> ReachKind:
        if not other.has_power or not self._world.passes(self.name, other.name):
            return ReachKind.SILENT
        if other.daemon is Daemon.KILLED:
            return ReachKind.REFUSED
        return ReachKind.ACCEPTED if other.daemon is Daemon.PAUSED else ReachKind.ANSWERED

    def _evidence(self, number: int) -> state_pb2.WitnessEvidence:
        reach, now_s = self._reaches[number], self._world.now_s()
        evidence = WitnessEvidence(
            self.node_id,
            node_id(number),
            reach.life,
            reach.kind,
            now_s - reach.since_s,
            None if reach.met_s is None else now_s - reach.met_s,
        )
        return to_proto(evidence, state_pb2.WitnessEvidence)


def _report(run: Run) -> AttemptReport:
    exit_code = 0 if run.state is AttemptState.COMPLETED else None
    return AttemptReport(run.task.task_id, run.attempt, run.state, exit_code=exit_code)
