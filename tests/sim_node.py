"""A node without containers: it speaks node.proto, and whatever it is assigned runs at once.

For tests and benchmarks of schedulers. Like a real node it finds the leader, keeps what it runs
while there is none, and refuses an assignment that is older than the one it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import grpc

from dray.addresses import HostPort
from dray.api.v1 import node_pb2, node_pb2_grpc, state_pb2
from dray.convert import from_proto, to_proto
from dray.model import (
    NO_EPOCH,
    Assignment,
    AttemptReport,
    AttemptState,
    Epoch,
    NodeInfo,
    StoreRevision,
    TaskAssignment,
)
from dray.names import TaskId
from dray.tls import client_channel

__all__ = ["SimNode", "running_nodes"]

RETRY_S = 0.1
READ_S = 30.0  # a leader's stream that says nothing for so long is opened again


class SimNode:
    """One node.

    Attributes:
        info: Who it says it is.
        tasks: What it runs, by task.
        ended: Tasks that were told to end, or were taken out of the assignment.
        version: Epoch and revision of the assignment that it holds.
        pushes: Assignments that were accepted.
        is_mute: While set, it does not connect.
    """

    def __init__(self, info: NodeInfo, schedulers: Sequence[HostPort]) -> None:
        self.info = info
        self.tasks: dict[TaskId, TaskAssignment] = {}
        self.ended: list[TaskId] = []
        self.version: tuple[Epoch, StoreRevision] = (NO_EPOCH, StoreRevision(0))
        self.pushes = 0
        self.cluster_id = b""
        self._schedulers = list(schedulers)
        self._next = 0

    async def run(self, channel_to: Callable[[HostPort], grpc.aio.Channel]) -> None:
        """Keep a stream to the leader until cancelled."""
        leader: HostPort | None = None
        while True:
            address = leader or self._schedulers[self._next % len(self._schedulers)]
            self._next += 1
            leader = None
            with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError):
                leader = await self._session(channel_to(address))
            if leader is None:
                await asyncio.sleep(RETRY_S)

    async def _session(self, channel: grpc.aio.Channel) -> HostPort | None:
        """Talk to one scheduler until the stream ends; return who leads, if it said so."""
        call = node_pb2_grpc.NodeServiceStub(channel).Session()
        try:
            await self._send(call, hello=self._hello())
            while isinstance(message := await call.read(), node_pb2.SessionResponse):
                self.cluster_id = message.cluster_id
                match message.WhichOneof("message"):
                    case "not_leader":
                        leader = message.not_leader.leader
                        return HostPort(leader.host, leader.port) if leader.host else None
                    case "welcome":
                        await self._send(call, attempts=self._reports(is_complete=True))
                    case "assignment":
                        await self._take(call, message.assignment.assignment)
                    case "ping":
                        await self._send(call, pong=node_pb2.Pong(sequence=message.ping.sequence))
                    case _:
                        pass
        finally:
            call.cancel()
        return None

    def _hello(self) -> node_pb2.Hello:
        hello = node_pb2.Hello(node=to_proto(self.info, state_pb2.NodeInfo), is_new=True)
        epoch, revision = self.version
        if epoch != NO_EPOCH:
            hello.epoch.CopyFrom(to_proto(epoch, state_pb2.Epoch))
            hello.assignment_epoch.CopyFrom(to_proto(epoch, state_pb2.Epoch))
            hello.assignment_mod_revision = revision
            hello.is_new = False
        return hello

    async def _take(self, call: Any, message: state_pb2.Assignment) -> None:
        """Run what is assigned now, end what is not, and report both."""
        assignment = from_proto(message, Assignment)
        if assignment.version < self.version:
            return
        self.version = assignment.version
        self.pushes += 1
        wanted = {task.task_id: task for task in assignment.tasks if not task.stop}
        gone = [task_id for task_id in self.tasks if task_id not in wanted]
        self.ended += gone
        self.tasks = wanted
        stopped = [task.task_id for task in assignment.tasks if task.stop]
        reports = self._reports(is_complete=False)
        reports.attempts.extend(
            _report(task_id, AttemptState.STOPPED, self.info) for task_id in stopped
        )
        await self._send(call, attempts=reports)

    def _reports(self, *, is_complete: bool) -> node_pb2.AttemptReports:
        return node_pb2.AttemptReports(
            is_complete=is_complete,
            attempts=[_report(task_id, AttemptState.RUNNING, self.info) for task_id in self.tasks],
        )

    async def _send(self, call: Any, **message: Any) -> None:
        await call.write(node_pb2.SessionRequest(cluster_id=self.cluster_id, **message))


def _report(task_id: TaskId, state: AttemptState, info: NodeInfo) -> state_pb2.AttemptReport:
    report = AttemptReport(task_id, 1, state, address=info.advertise_address)
    return to_proto(report, state_pb2.AttemptReport)


@contextlib.asynccontextmanager
async def running_nodes(
    infos: Sequence[NodeInfo], schedulers: Sequence[HostPort], *, channels_each: int = 1
) -> AsyncIterator[list[SimNode]]:
    """Run nodes until the block ends. Nodes share channels: a machine has only so many sockets.

    Args:
        infos: Who they say they are.
        schedulers: Where to begin.
        channels_each: Channels to each scheduler.
    """
    channels: dict[tuple[HostPort, int], grpc.aio.Channel] = {}

    def channel_to(number: int) -> Callable[[HostPort], grpc.aio.Channel]:
        def find(address: HostPort) -> grpc.aio.Channel:
            key = (address, number % channels_each)
            if key not in channels:
                channels[key] = client_channel(address, None)
            return channels[key]

        return find

    nodes = [SimNode(replace(info), schedulers) for info in infos]
    tasks = {
        asyncio.create_task(node.run(channel_to(number)), name=f"node {node.info.name}")
        for number, node in enumerate(nodes)
    }
    try:
        yield nodes
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for channel in channels.values():
            await channel.close()
