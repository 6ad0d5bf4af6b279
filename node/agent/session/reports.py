"""What does the node tell the leader, and when? One loop for each kind of report.

A new stream starts with everything (`is_complete`), then come changes. Each loop remembers what it
has sent on this stream; to send all again, the loops are started again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from dray.api.v1 import node_pb2
from dray.clock import Clock
from dray.errors import DeadlineExceeded, Unavailable
from dray.model import AttemptReport, NodeCapacity, NodeUsage, TaskUsage
from dray.names import TaskId
from node.agent.agent import Agent
from node.agent.faults import Faults
from node.agent.session.wire import (
    attempts_to_proto,
    evidence_to_proto,
    faults_to_proto,
    orphans_to_proto,
    usage_to_proto,
    volumes_to_proto,
)
from node.ports import Discovery
from node.runtime.base import Runtime
from node.volumes.plan import LABEL_VOLUME_CLUSTER

__all__ = ["Machine", "Reports", "Send"]

ATTEMPTS_PAUSE_S: Final = 0.02  # s: what happens meanwhile is one message
EVIDENCE_PAUSE_S: Final = 0.02
USAGE_EVERY_S: Final = 5.0
PULLS_EVERY_S: Final = 1.0
VOLUMES_EVERY_S: Final = 60.0

Send = Callable[[node_pb2.SessionRequest], Awaitable[None]]
"""Sends one message; the cluster id is added."""


class Machine(Protocol):
    """Who measures the machine."""

    def capacity(self) -> NodeCapacity:
        """Return what the machine has for tasks, as last measured."""
        ...

    def node_usage(self) -> NodeUsage:
        """Return what the machine uses, as last measured."""
        ...

    def task_usages(self) -> tuple[TaskUsage, ...]:
        """Return what the tasks use, as last measured, by task id."""
        ...


class Reports:
    """The loops that report, for one stream."""

    def __init__(
        self,
        agent: Agent,
        discovery: Discovery,
        runtime: Runtime,
        machine: Machine,
        faults: Faults,
        clock: Clock,
    ) -> None:
        """Report on these parts."""
        self._agent = agent
        self._discovery = discovery
        self._runtime = runtime
        self._machine = machine
        self._faults = faults
        self._clock = clock

    async def run(self, send: Send) -> None:
        """Send everything, then what changes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for loop in (
                self._attempts,
                self._pulls,
                self._orphans,
                self._usage,
                self._send_faults,
                self._evidence,
                self._volumes,
            ):
                group.create_task(loop(send), name=loop.__name__)

    async def _attempts(self, send: Send) -> None:
        book = self._agent.book
        sent: dict[TaskId, AttemptReport] | None = None
        number = -1
        while True:
            number = await book.persisted.wait(number)
            await self._clock.sleep(ATTEMPTS_PAUSE_S)
            number = book.persisted.number
            now = {
                task_id: report
                for task_id, report in book.reports.items()
                if task_id not in book.orphans
            }
            before = sent or {}
            changed = [r for task_id, r in now.items() if before.get(task_id) != r]
            forgotten = sorted(before.keys() - now.keys())
            if sent is None or changed or forgotten:
                message = attempts_to_proto(changed, is_complete=sent is None, forgotten=forgotten)
                await send(node_pb2.SessionRequest(attempts=message))
            sent = now

    async def _pulls(self, send: Send) -> None:
        while True:
            await self._clock.sleep(PULLS_EVERY_S)
            pulls = tuple(self._agent.pulls.items())
            if pulls:
                message = attempts_to_proto((), is_complete=False, pulls=pulls)
                await send(node_pb2.SessionRequest(attempts=message))

    async def _orphans(self, send: Send) -> None:
        book = self._agent.book
        sent: object = ()
        number = -1
        while True:
            number = await book.persisted.wait(number)
            found = tuple(
                (task_id, book.states[task_id].slot, book.reports[task_id])
                for task_id in sorted(book.orphans)
                if task_id in book.reports
            )
            if found != sent:
                await send(node_pb2.SessionRequest(orphans=orphans_to_proto(found)))
                sent = found

    async def _usage(self, send: Send) -> None:
        tasks_sent: dict[TaskId, TaskUsage] = {}
        node_sent: NodeUsage | None = None
        capacity_sent: NodeCapacity | None = None
        for number in itertools.count():
            tasks = {usage.task_id: usage for usage in self._machine.task_usages()}
            node, capacity = self._machine.node_usage(), self._machine.capacity()
            # a task that has gone is a complete list again: there is no other way to say so
            is_complete = number == 0 or not tasks_sent.keys() <= tasks.keys()
            changed = [u for t, u in tasks.items() if is_complete or tasks_sent.get(t) != u]
            message = usage_to_proto(
                None if node == node_sent else node,
                changed,
                None if capacity == capacity_sent else capacity,
                is_complete=is_complete,
            )
            if is_complete or message.ByteSize():
                await send(node_pb2.SessionRequest(usage=message))
            tasks_sent, node_sent, capacity_sent = tasks, node, capacity
            await self._clock.sleep(USAGE_EVERY_S)

    async def _send_faults(self, send: Send) -> None:
        number = -1
        while True:
            number = await self._faults.changed.wait(number)
            message = faults_to_proto(self._faults.all())
            await send(node_pb2.SessionRequest(faults=message))

    async def _evidence(self, send: Send) -> None:
        number = -1
        while True:
            message = evidence_to_proto(self._discovery.evidence())
            await send(node_pb2.SessionRequest(evidence=message))
            number = await self._discovery.wait_evidence(number)
            await self._clock.sleep(EVIDENCE_PAUSE_S)

    async def _volumes(self, send: Send) -> None:
        sent: object = None
        while True:
            cluster_id = self._agent.cluster_id
            assert cluster_id is not None
            try:
                found = await self._runtime.volumes((LABEL_VOLUME_CLUSTER, cluster_id))
            except (Unavailable, DeadlineExceeded):
                found = None
            if found is not None and found != sent:
                await send(node_pb2.SessionRequest(volumes=volumes_to_proto(found)))
                sent = found
            number = self._agent.volumes_changed.number
            try:
                async with asyncio.timeout(VOLUMES_EVERY_S):
                    await self._agent.volumes_changed.wait(number)
            except TimeoutError:
                continue
