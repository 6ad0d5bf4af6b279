"""How do logs, commands and copies pass between a user and a node? Message by message.

The leader opens a relay to the node; any other scheduler passes the user's stream on to the leader.
Nothing is buffered beyond one message a direction: a reader that does not read stops the writer,
all the way to the container.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc

from dray.api.v1 import cluster_pb2, stream_pb2, types_pb2
from dray.convert import CHUNK_BYTES_MAX, from_proto, to_proto
from dray.errors import (
    DrayError,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    NotLeader,
    PeerMisbehaved,
    Unavailable,
)
from dray.views import (
    CopyOptions,
    CopyToTaskResponse,
    ExecInput,
    ExecOutput,
    ExecStart,
    ResponseHeader,
    SlotState,
    TaskTarget,
)
from scheduler.api.calls import Calls, abort, passed_error
from scheduler.api.environment import Environment, States, check_header, response_header
from scheduler.api.index import HeldTask
from scheduler.api.log_merge import LogStreams
from scheduler.api.ports import CopyFrom, CopyInto, LeaderInfo, Relay
from scheduler.api.reads import known_service
from scheduler.api.views import State

__all__ = ["Streams"]

OPEN_S: Final = 10.0  # for the first message of a stream of requests
_REACHABLE: Final = frozenset({SlotState.RUNNING, SlotState.UNHEALTHY, SlotState.STOPPING})
_COMMAND_BYTES_MAX: Final = 131_072  # of a command with its arguments: what Linux takes of one


class Streams:
    """The streaming calls that end at a node."""

    def __init__(self, environment: Environment, states: States, calls: Calls) -> None:
        """Serve through the environment's relays, or the leader by `calls`."""
        self._environment = environment
        self._states = states
        self._calls = calls
        self._logs = LogStreams(environment, states)

    # --- one request ---

    async def stream_logs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Stream log lines."""
        async for reply in self._replies("StreamLogs", request, context, self._log_replies):
            yield reply

    async def copy_from_task(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Stream a path of a container as a tar archive."""
        async for reply in self._replies("CopyFromTask", request, context, self._copy_replies):
            yield reply

    async def _replies(
        self,
        method: str,
        request: Any,
        context: Any,
        serve: Callable[[Any], AsyncIterator[Any]],
    ) -> AsyncIterator[Any]:
        """Yield the replies of a call, from here or from the leader."""
        try:
            with self._calls.line(method, request, context):
                leader = self._checked(request)
                await self._states.prepare()
                if leader is None:
                    async for reply in serve(request):
                        yield reply
                else:
                    async for reply in self._calls.stream_of_leader(method, request, leader):
                        yield reply
        except DrayError as error:
            await abort(context, error)

    async def _log_replies(self, request: Any) -> AsyncIterator[Any]:
        header = self._header()
        async for reply in self._logs.replies(request, header):
            yield to_proto(reply, cluster_pb2.StreamLogsResponse)

    async def _copy_replies(self, request: Any) -> AsyncIterator[Any]:
        options = _copy_options(request.options)
        held = self._target(options.target)
        header = to_proto(self._header(), types_pb2.ResponseHeader)
        yield cluster_pb2.CopyFromTaskResponse(header=header)
        purpose = CopyFrom(_with_target(options, held))
        async with self._environment.relays.open(held.node_id, purpose) as relay:
            async for piece in relay.output():
                if not isinstance(piece, bytes):
                    raise PeerMisbehaved("the node sent something else than an archive")
                yield cluster_pb2.CopyFromTaskResponse(archive=piece)

    # --- a stream of requests ---

    async def exec(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Run a command in a running container."""
        try:
            first = await _first(requests, "open")
            with self._calls.line("Exec", first.open, context):
                leader = self._checked(first.open)
                await self._states.prepare()
                source = (
                    self._exec_here(first.open, requests)
                    if leader is None
                    else self._exec_there(first, requests, leader)
                )
                async for reply in source:
                    yield reply
        except DrayError as error:
            await abort(context, error)

    async def _exec_here(self, opened: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        start = from_proto(opened.start, ExecStart, name="start")
        size_bytes = sum(len(word.encode()) for word in start.command)
        if not start.command or size_bytes > _COMMAND_BYTES_MAX:
            raise InvalidRequest(
                f"a command has 1 to {_COMMAND_BYTES_MAX} bytes, this one has {size_bytes}",
                context={"field": "start.command"},
            )
        held = self._target(start.target)
        purpose = _exec_on(start, held)
        async with self._environment.relays.open(held.node_id, purpose) as relay:
            yield cluster_pb2.ExecResponse(
                header=to_proto(self._header(), types_pb2.ResponseHeader)
            )
            pump = asyncio.create_task(_pump_input(requests, relay), name="exec input")
            try:
                async for output in relay.output():
                    if not isinstance(output, ExecOutput):
                        raise PeerMisbehaved("the node sent something else than a command's output")
                    sent = to_proto(output, stream_pb2.ExecOutput)
                    yield cluster_pb2.ExecResponse(output=sent)
            finally:
                await _ended(pump)

    async def _exec_there(
        self, first: Any, requests: AsyncIterator[Any], leader: LeaderInfo
    ) -> AsyncIterator[Any]:
        first.open.CopyFrom(self._calls.forwarded(first.open))
        call = self._calls.open(leader.address, "Exec", is_reply_stream=True)
        pump = asyncio.create_task(_pass_on(first, requests, call), name="exec input")
        try:
            async for reply in call:
                yield reply
        except grpc.aio.AioRpcError as failure:
            raise passed_error(failure) from failure
        finally:
            call.cancel()
            await _ended(pump)

    async def copy_to_task(self, requests: AsyncIterator[Any], context: Any) -> Any:
        """Unpack a tar archive in a container."""
        try:
            first = await _first(requests, "open")
            with self._calls.line("CopyToTask", first.open, context):
                leader = self._checked(first.open)
                await self._states.prepare()
                if leader is None:
                    return await self._copy_here(first.open, requests)
                return await self._copy_there(first, requests, leader)
        except DrayError as error:
            await abort(context, error)

    async def _copy_here(self, opened: Any, requests: AsyncIterator[Any]) -> Any:
        options = _copy_options(opened.options)
        held = self._target(options.target)
        purpose = CopyInto(_with_target(options, held))
        async with self._environment.relays.open(held.node_id, purpose) as relay:
            try:
                await _send_archive(requests, relay)
            except Unavailable:
                async for _ in relay.output():  # the node says there why it took no more
                    pass
                raise
            async for _ in relay.output():
                pass
            done = CopyToTaskResponse(self._header(), relay.copied_bytes)
        return to_proto(done, cluster_pb2.CopyToTaskResponse)

    async def _copy_there(
        self, first: Any, requests: AsyncIterator[Any], leader: LeaderInfo
    ) -> Any:
        first.open.CopyFrom(self._calls.forwarded(first.open))
        call = self._calls.open(leader.address, "CopyToTask", is_reply_stream=False)
        pump = asyncio.create_task(_pass_on(first, requests, call), name="copy")
        try:
            return await call
        except grpc.aio.AioRpcError as failure:
            raise passed_error(failure) from failure
        finally:
            call.cancel()
            await _ended(pump)

    # --- inside ---

    def _checked(self, request: Any) -> LeaderInfo | None:
        """Return the leader to pass a call on to; None: it is answered here.

        Raises:
            NotLeader: Nobody leads, or the call was passed on already.
        """
        snapshot = self._environment.source.snapshot
        check_header(snapshot, request.header.cluster_id, request.header.version)
        if self._environment.leadership.memory() is not None:
            return None
        leader = self._environment.leader_elsewhere()
        if leader is None or request.header.forwarded_by:
            raise NotLeader(
                "there is no leader that has a way to the nodes", hint="try again in a moment"
            )
        return leader

    def _header(self) -> ResponseHeader:
        snapshot = self._environment.source.snapshot
        return response_header(self._environment, snapshot, is_observed=True)

    def _target(self, target: TaskTarget) -> HeldTask:
        """Return the running task that is meant.

        Raises:
            NotFound: There is none.
            FailedPrecondition: It does not run.
        """
        state = self._states.current()
        if target.task_id is not None:
            held = state.index.task(target.task_id)
            if held is None:
                raise NotFound(f"there is no task {target.task_id}", hint="see `dray ps`")
            _check_running(state, held, f"task {target.task_id}")
            return held
        known_service(state, target.project, target.service)
        return _of_slot(state, target)


def _of_slot(state: State, target: TaskTarget) -> HeldTask:
    """Return the running task of a slot, or of the lowest one that has one."""
    name = f"{target.project}/{target.service}"
    wanted = f"{name}.{target.slot}" if target.slot else name
    found = [
        held
        for key in state.keys_of(target.project)
        if key.service == target.service
        for held in state.index.of_service(key)
        if not target.slot or held.task.slot.slot == target.slot
    ]
    for held in found:
        if state.task(held).state in _REACHABLE:
            return held
    if found:
        _check_running(state, found[0], wanted)
    raise NotFound(f"{wanted} has no task", hint="see `dray ps`")


def _check_running(state: State, held: HeldTask, name: str) -> None:
    task = state.task(held)
    if task.state not in _REACHABLE:
        reason = f": {task.reason}" if task.reason else ""
        raise FailedPrecondition(
            f"{name} is {task.state.name.lower()}{reason}", hint="see `dray ps`"
        )


def _exec_on(start: ExecStart, held: HeldTask) -> ExecStart:
    return dataclasses.replace(start, target=TaskTarget(held.task.task_id))


def _with_target(options: CopyOptions, held: HeldTask) -> CopyOptions:
    return dataclasses.replace(options, target=TaskTarget(held.task.task_id))


def _copy_options(message: Any) -> CopyOptions:
    options = from_proto(message, CopyOptions, name="options")
    if not options.path.startswith("/"):
        raise InvalidRequest(
            f"{options.path[:100]!r} is not an absolute path", context={"field": "options.path"}
        )
    return options


async def _first(requests: AsyncIterator[Any], field: str) -> Any:
    """Return the first message of a stream, which opens it."""
    try:
        async with asyncio.timeout(OPEN_S):
            first = await anext(requests)
    except (StopAsyncIteration, TimeoutError) as error:
        raise InvalidRequest("the stream has no first message") from error
    if first.WhichOneof("message") != field:
        raise InvalidRequest(f"the first message of the stream is `{field}`")
    return first


async def _pump_input(requests: AsyncIterator[Any], relay: Relay) -> None:
    """Send a user's input to the node until it ends; what fails there ends the output as well."""
    try:
        async for request in requests:
            if request.WhichOneof("message") != "input":
                return
            await relay.send(from_proto(request.input, ExecInput))
    except DrayError:
        return


async def _send_archive(requests: AsyncIterator[Any], relay: Relay) -> None:
    """Send the pieces of a user's archive to the node."""
    async for request in requests:
        if request.WhichOneof("message") != "archive":
            raise InvalidRequest("after the first message come pieces of an archive")
        if len(request.archive) > CHUNK_BYTES_MAX:
            raise InvalidRequest(f"a piece has at most {CHUNK_BYTES_MAX} bytes")
        await relay.send(request.archive)
    await relay.end_input()


async def _pass_on(first: Any, requests: AsyncIterator[Any], call: Any) -> None:
    """Send a user's messages to the leader until they end; the reply tells what fails there."""
    try:
        await call.write(first)
        async for request in requests:
            await call.write(request)
        await call.done_writing()
    except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        return


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait({task})
