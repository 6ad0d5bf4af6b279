"""How do logs, commands, copies and watches reach a program? The calls that are streams.

A stream is at one scheduler, one that has just answered. Of these only `watch` goes on by itself
when it breaks: it knows what it has seen. A command or a copy is never begun a second time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from dray import views
from dray.api.v1 import cluster_pb2, stream_pb2
from dray.client.channels import dray_error
from dray.client.core import ClientCore
from dray.convert import CHUNK_BYTES_MAX, from_proto, to_proto
from dray.errors import DrayError, PeerMisbehaved, Unavailable
from dray.retry import Backoff

__all__ = ["ExecSession", "StreamCalls"]

_AGAIN: Final = Backoff(first_s=0.05, max_s=2.0)
_FAILURES_MAX: Final = 30  # of a watch in a row, about 50 s: then the cluster is gone


class ExecSession:
    """A command that runs in a container."""

    def __init__(self, call: Any, core: ClientCore) -> None:
        self._call = call
        self._core = core

    async def send(self, message: views.ExecInput) -> None:
        """Send input, the end of it, a new size or a signal; waits while nobody reads.

        Raises:
            DrayError: The command has ended, or was refused.
        """
        sent = to_proto(message, stream_pb2.ExecInput)
        await _written(self._call, cluster_pb2.ExecRequest(input=sent), self._core)

    async def output(self) -> AsyncIterator[views.ExecOutput]:
        """Yield what comes from the command; its exit code is the last.

        Raises:
            DrayError: It could not be run, or the way to it was lost: how it ended is not known.
        """
        is_ended = False
        async for reply in _replies(self._call, self._core):
            if reply.HasField("output"):
                output = from_proto(reply.output, views.ExecOutput)
                is_ended = output.exit_code is not None
                yield output
        if not is_ended:
            raise PeerMisbehaved("the command's stream ended without an exit code")


class StreamCalls(ClientCore):
    """The calls of a client that are streams."""

    async def stream_logs(
        self, query: views.LogQuery
    ) -> AsyncGenerator[views.StreamLogsResponse, None]:
        """Yield log lines, merged in time order, and notes about those that are missing.

        Raises:
            DrayError: It was refused, or the stream broke: lines may be missing.
        """
        request = cluster_pb2.StreamLogsRequest(
            header=self.header(), query=to_proto(query, stream_pb2.LogQuery)
        )
        await self._find()
        replies = self.channels.stream("StreamLogs", request, cluster_pb2.StreamLogsResponse)
        async for message in replies:
            reply = from_proto(message, views.StreamLogsResponse)
            self.note(reply.header)
            yield reply

    async def watch(
        self, kinds: Sequence[views.WatchKind], project: str = "", *, with_usage: bool = False
    ) -> AsyncGenerator[views.WatchResponse, None]:
        """Yield objects as they are, then every change; goes on after a broken connection.

        A reply with `is_reset` means that all that was told before is to be forgotten. Nothing is
        lost or told twice but what is observed, which is told again after a resume.

        Raises:
            DrayError: It was refused, or the cluster could not be reached for about a minute.
        """
        request = cluster_pb2.WatchRequest(
            kinds=[cluster_pb2.WatchKind.ValueType(kind.value) for kind in kinds],
            project=project,
            with_usage=with_usage,
        )
        failures, is_whole = 0, False
        while True:
            request.header.CopyFrom(self.header())
            replies = self.channels.stream("Watch", request, cluster_pb2.WatchResponse)
            try:
                async for message in replies:
                    failures = 0
                    reply = from_proto(message, views.WatchResponse)
                    self.note(reply.header)
                    is_whole = (is_whole and not reply.is_reset) or reply.is_complete
                    if is_whole:
                        request.after_revision = reply.header.store_revision
                        request.generation = reply.header.generation
                    yield reply
                error: DrayError = Unavailable("the watch ended")
            except DrayError as failure:
                error = failure
            failures += 1
            if not error.retryable or failures >= _FAILURES_MAX:
                raise error
            if not is_whole:
                yield views.WatchResponse(is_reset=True)  # what came was not all: it comes again
            await self.clock.sleep(_AGAIN.delay_s(failures, self.rng))

    @asynccontextmanager
    async def exec(self, start: views.ExecStart) -> AsyncIterator[ExecSession]:
        """Run a command in a running container; leaving the context gives it up.

        Raises:
            DrayError: The scheduler could not be reached. A refusal comes from the session.
        """
        await self._find()
        call = self.channels.open("Exec", cluster_pb2.ExecResponse, is_reply_stream=True)
        try:
            opened = cluster_pb2.ExecOpen(
                header=self.header(), start=to_proto(start, stream_pb2.ExecStart)
            )
            await _written(call, cluster_pb2.ExecRequest(open=opened), self)
            yield ExecSession(call, self)
        finally:
            call.cancel()

    async def copy_to_task(
        self, options: views.CopyOptions, archive: AsyncIterable[bytes]
    ) -> views.CopyToTaskResponse:
        """Unpack a tar archive in a container.

        Args:
            options: Where to.
            archive: Pieces of it, of any size.

        Raises:
            DrayError: It was refused or broke off; what was unpacked by then stays.
        """
        await self._find()
        call = self.channels.open(
            "CopyToTask", cluster_pb2.CopyToTaskResponse, is_reply_stream=False
        )
        try:
            opened = cluster_pb2.CopyOpen(
                header=self.header(), options=to_proto(options, stream_pb2.CopyOptions)
            )
            await _written(call, cluster_pb2.CopyToTaskRequest(open=opened), self)
            async for piece in archive:
                for start in range(0, len(piece), CHUNK_BYTES_MAX):
                    chunk = piece[start : start + CHUNK_BYTES_MAX]
                    await _written(call, cluster_pb2.CopyToTaskRequest(archive=chunk), self)
            await call.done_writing()
            return from_proto(await call, views.CopyToTaskResponse)
        except grpc.aio.AioRpcError as failure:
            raise dray_error(failure, self.channels.host) from failure
        finally:
            call.cancel()

    async def copy_from_task(self, options: views.CopyOptions) -> AsyncGenerator[bytes, None]:
        """Yield a tar archive of a path of a container, in pieces of at most 64 KiB.

        Raises:
            DrayError: It was refused or broke off: what came is not whole.
        """
        request = cluster_pb2.CopyFromTaskRequest(
            header=self.header(), options=to_proto(options, stream_pb2.CopyOptions)
        )
        await self._find()
        replies = self.channels.stream("CopyFromTask", request, cluster_pb2.CopyFromTaskResponse)
        async for reply in replies:
            if reply.archive:
                yield reply.archive

    async def _find(self) -> None:
        """Turn to a scheduler that answers, by a call that may be repeated.

        Raises:
            DrayError: None does.
        """
        request = cluster_pb2.GetClusterInfoRequest(header=self.header())
        reply = cluster_pb2.GetClusterInfoResponse
        await self.channels.unary("GetClusterInfo", request, reply, is_write=False)


async def _written(call: Any, message: Any, core: ClientCore) -> None:
    """Write a message of a stream; a call that has ended says how."""
    try:
        await call.write(message)
    except grpc.aio.AioRpcError as failure:
        raise dray_error(failure, core.channels.host) from failure
    except grpc.aio.UsageError as misuse:
        raise Unavailable("the call has ended", retryable=False) from misuse


async def _replies(call: Any, core: ClientCore) -> AsyncIterator[Any]:
    try:
        async for reply in call:
            yield reply
    except grpc.aio.AioRpcError as failure:
        raise dray_error(failure, core.channels.host) from failure
