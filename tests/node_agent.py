"""A node's agent for tests, on any engine: told by hand what a leader would tell it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from dray.clock import SystemClock
from dray.errors import Unavailable
from dray.log import get_logger
from dray.model import (
    Assignment,
    AttemptReport,
    AttemptState,
    ContainerSpec,
    ContentRef,
    Epoch,
    ImageOptions,
    ProjectParts,
    RestartPolicy,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    StoreRevision,
    TaskAssignment,
    TaskSpecEntry,
    TaskTemplate,
)
from dray.names import ClusterId, NodeId, TaskId, id_text
from node.agent.agent import Agent, AgentParts, AgentSettings
from node.agent.alone import NoDiscovery, PlainNetwork
from node.agent.assign import NotAccepted
from node.agent.contents import Content, ContentFiles
from node.agent.disk import Disk
from node.runtime.base import Runtime

CLUSTER = ClusterId(id_text(b"c" * 16))
NODE = NodeId(id_text(b"n" * 16))
EPOCH = Epoch(1, 5)
WAIT_S = 10.0  # on the fake engine
IMAGE = "web:1"


def task_id(number: int) -> TaskId:
    """Return the id of a task."""
    return TaskId(id_text(number.to_bytes(16, "big")))


def a_task(number: int = 1, service: str = "web", *, stop: bool = False) -> TaskAssignment:
    """Return one task."""
    slot = SlotKey("shop", service, number)
    return TaskAssignment(task_id(number), slot, ServiceRevision(1), Epoch(1, 5), stop)


def an_entry(service: str = "web", **changes: object) -> TaskSpecEntry:
    """Return what a service's tasks run; `command`, `restart` … go where they belong."""
    container = ContainerSpec(ImageOptions(IMAGE), stop_grace_s=1.0)
    template = TaskTemplate(container, restart=RestartPolicy(delay_s=0.05))
    entry = TaskSpecEntry(ServiceKey("shop", service), ServiceRevision(1), template)
    for name, value in changes.items():
        if name in TaskSpecEntry.__slots__:
            entry = dataclasses.replace(entry, **{name: value})  # type: ignore[arg-type]
        elif name in TaskTemplate.__slots__:
            template = dataclasses.replace(entry.template, **{name: value})  # type: ignore[arg-type]
            entry = dataclasses.replace(entry, template=template)
        else:
            container = dataclasses.replace(
                entry.template.container,
                **{name: value},  # type: ignore[arg-type]
            )
            template = dataclasses.replace(entry.template, container=container)
            entry = dataclasses.replace(entry, template=template)
    return entry


class Contents:
    """Where content comes from, in tests."""

    def __init__(self) -> None:
        self.contents: dict[str, Content] = {}

    async def fetch(self, project: str, ref: ContentRef) -> Content:
        """Return what a test put there."""
        if ref.key not in self.contents:
            raise Unavailable("there is no leader")
        return self.contents[ref.key]


class Rig:
    """One machine: its disk and its engine outlive the daemons that run on it."""

    def __init__(
        self,
        folder: Path,
        connect: Callable[[], Runtime],
        *,
        network: str = "none",
        restart_wait_s: float = 0.05,
    ) -> None:
        self.folder = folder
        folder.mkdir()
        self.connect = connect
        self.network = network
        self.leader = Contents()
        self.restart_wait_s = restart_wait_s
        self.wait_s = WAIT_S
        self.emulated: frozenset[str] | None = frozenset()
        self.revision = 0
        self.discovery = NoDiscovery()
        self.agent: Agent
        self.running: asyncio.Task[None]

    def disk(self) -> Disk:
        """Return the disk of a new daemon."""
        return Disk(self.folder)

    def _agent(self, runtime: Runtime) -> Agent:
        disk = self.disk()
        contents = ContentFiles(self.leader, self.folder, self.folder / "run")
        log = get_logger("agent")
        parts = AgentParts(
            *(disk, runtime, PlainNetwork(self.network), self.discovery, contents),
            *(SystemClock(), log),
            emulated=lambda: self.emulated,
        )
        settings = AgentSettings(NODE, "n1", "127.0.0.1", self.restart_wait_s)
        return Agent(settings, parts)

    def lose_files(self) -> None:
        """Remove all that the daemons wrote."""
        for file in self.folder.glob("*.json"):
            file.unlink()

    @contextlib.asynccontextmanager
    async def daemon(self) -> AsyncIterator[Agent]:
        """Run a daemon's agent; its end is a kill: containers and files stay as they are."""
        runtime = self.connect()
        self.agent = self._agent(runtime)
        await self.agent.load()
        if self.agent.cluster_id is None:
            self.agent.join(CLUSTER)
        running = self.running = asyncio.create_task(self.agent.run())
        try:
            yield self.agent
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await runtime.close()

    async def assign(
        self,
        *tasks: TaskAssignment,
        entries: tuple[TaskSpecEntry, ...] = (),
        parts: ProjectParts | None = None,
        epoch: Epoch = EPOCH,
    ) -> NotAccepted | None:
        """Tell the agent what to run."""
        self.revision += 1
        specs = entries or (an_entry(),)
        assignment = Assignment(CLUSTER, NODE, epoch, StoreRevision(self.revision), tasks, specs)
        return await self.agent.take(assignment, [parts or ProjectParts("shop")])

    def report(self, number: int = 1) -> AttemptReport | None:
        """Return what the leader would be told of a task."""
        return self.agent.book.reports.get(task_id(number))

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for a condition that the book's changes bring about."""
        try:
            async with asyncio.timeout(self.wait_s):
                while not holds():
                    number = self.agent.book.persisted.number
                    if not holds():
                        await self.agent.book.persisted.wait(number)
        except TimeoutError:
            raise AssertionError(f"{what}: {dict(self.agent.book.states)}") from None

    async def reached(
        self, state: AttemptState, number: int = 1, attempt: int = 1
    ) -> AttemptReport:
        """Wait until a task's attempt has reached a state; return the report that says so."""

        def holds() -> bool:
            report = self.report(number)
            return report is not None and report.attempt >= attempt and report.state is state

        await self.until(holds, f"task {number} attempt {attempt} {state.name}")
        report = self.report(number)
        assert report is not None
        return report

    async def reason(self, number: int = 1) -> AttemptReport:
        """Wait until a task has something to say about its state; return that report."""
        await self.until(
            lambda: bool((report := self.report(number)) and report.reason),
            f"a reason of task {number}",
        )
        report = self.report(number)
        assert report is not None
        return report

    async def published(self, *numbers: int, service: str = "web") -> None:
        """Wait until the endpoints of a service that peers know are those of these tasks."""
        wanted, key = [task_id(number) for number in numbers], ServiceKey("shop", service)
        async with asyncio.timeout(self.wait_s):
            while True:
                number = self.discovery.changed.number
                facts = self.discovery.services.get(key)
                if facts and [each.task_id for each in facts.endpoints] == wanted:
                    return
                await self.discovery.changed.wait(number)

    async def gone(self, number: int = 1) -> None:
        """Wait until a task is forgotten."""
        await self.until(lambda: self.report(number) is None, f"task {number} forgotten")
