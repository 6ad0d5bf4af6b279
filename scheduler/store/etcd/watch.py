"""How does a watch outlive its connection without losing or doubling a change?

One stream to one server, read straight by whoever iterates: no task, no queue but the changes of
the last message; a slow reader is etcd's to buffer. `_after` is the revision up to which everything
has been handed out. Whatever ends the stream, the next one asks again from there, perhaps at
another server.

Three things that etcd's watches do, and what is done about them:

- A stream starts *at* a revision. It is asked to start at `_after`, not behind it, and what is
  known already is dropped: a server forgets a delete that happened exactly at the revision of a
  compaction, and does not say so to a watch that starts there (found with 3.4.23).
- A start in the future is waited for in silence, also when the store was restored from a backup.
  When a server is behind `_after`, a linearizable read tells a slow server from an older store.
- Large answers come in fragments, which may cut a revision in two. The changes of a revision are
  held back until something proves that they are complete.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Self, TypeAlias

import grpc

from dray.errors import DeadlineExceeded, PermissionDenied, Unavailable
from dray.model import StoreRevision
from scheduler.store.base import Change, Changes, Compacted
from scheduler.store.etcd.calls import (
    Endpoint,
    Endpoints,
    Lost,
    Method,
    NotDone,
    failure_of,
    is_task_cancelled,
)
from scheduler.store.etcd.messages import change_of, watch_request
from scheduler.store.etcdpb import etcd_pb2 as pb

__all__ = ["EtcdWatch"]

WATCH: Final[Method[pb.WatchRequest, pb.WatchResponse]] = Method(
    "/etcdserverpb.Watch/Watch", pb.WatchResponse
)
_Call: TypeAlias = grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]
_RELIST: Final = "list again, then watch from that revision"


class EtcdWatch(AsyncIterator[Changes]):
    """All changes below a prefix after a revision. For one reader at a time.

    A reader that gives up waiting (`asyncio.timeout`) loses nothing and may come back.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        store_revision: Callable[[], Awaitable[StoreRevision]],
        prefix: str,
        *,
        after: StoreRevision,
    ) -> None:
        """Describe a watch; the first `anext` opens it.

        Args:
            endpoints: The servers.
            store_revision: A linearizable read of the store's newest revision.
            prefix: What to watch.
            after: The last revision that is known already.
        """
        self._endpoints = endpoints
        self._store_revision = store_revision
        self._prefix = prefix
        self._after = int(after)
        self._endpoint: Endpoint | None = None
        self._call: _Call | None = None
        self._ready: deque[Changes] = deque()
        self._partial: list[Change] = []  # changes of `_partial_revision`, perhaps not all of them
        self._partial_revision = 0
        self._failures = 0
        self._is_read = False
        self._is_ended = False

    def __aiter__(self) -> Self:
        """Return the watch."""
        return self

    async def __anext__(self) -> Changes:
        """Wait for the next change, through any number of lost connections."""
        assert not self._is_read, "two readers of one watch"
        self._is_read = True
        try:
            while not self._ready:
                if self._is_over:
                    self._hang_up()
                    raise StopAsyncIteration
                await self._advance()
        finally:
            self._is_read = False
        changes = self._ready.popleft()
        self._after = changes.revision
        return changes

    @property
    def _is_over(self) -> bool:
        return self._is_ended or self._endpoints.is_closed

    def end(self) -> None:
        """End the watch and its stream; its reader stops. Calling it twice is harmless."""
        self._is_ended = True
        self._ready.clear()
        self._hang_up()

    async def _advance(self) -> None:
        """Open the stream or take its next message; what fails is mended on the next turn."""
        try:
            if self._call is None:
                await self._open()
            else:
                self._take(await self._message(self._call))
                self._failures = 0
        except (NotDone, Lost) as err:
            self._hang_up()
            if not self._is_over:
                await self._mend(err)
        except BaseException:
            self._hang_up()
            raise

    async def _mend(self, err: Exception) -> None:
        """Turn to another server, after a pause when all have failed."""
        endpoints = self._endpoints
        if self._endpoint is not None:
            endpoints.failed(self._endpoint)
        self._failures += 1
        if self._failures == 1:
            endpoints.log.warning("watch lost its server", error=str(err), revision=self._after)
        await endpoints.pause(endpoints.pause_s(self._failures))

    async def _open(self) -> None:
        limits = self._endpoints.limits
        self._endpoint = self._endpoints.current
        await self._endpoint.connected(limits.connect_s)
        try:
            await self._endpoints.log_in(self._endpoint, limits.attempt_s, afresh=True)
        except grpc.aio.AioRpcError as err:
            raise failure_of(err, self._endpoint.address) from err
        self._call = call = self._endpoint.stream(WATCH)
        try:
            async with asyncio.timeout(limits.attempt_s):
                request = watch_request(self._prefix, max(self._after, 1))
                created = await self._message(call, request)
        except TimeoutError as err:
            raise Lost(f"{self._endpoint.address}: no answer to a watch") from err
        if not created.created:
            raise Lost(f"{self._endpoint.address}: the first answer of a watch is not `created`")
        if created.header.revision < self._after:
            await self._refuse_older_store()
        self._take(created)

    async def _refuse_older_store(self) -> None:
        try:
            revision = await self._store_revision()
        except (DeadlineExceeded, Unavailable) as err:
            raise Lost(str(err)) from err
        if revision < self._after:
            raise Compacted(
                f"the store is at revision {revision}, before {self._after} which was seen: "
                "it was restored from a backup",
                hint=_RELIST,
            )

    async def _message(
        self, call: _Call, request: pb.WatchRequest | None = None
    ) -> pb.WatchResponse:
        """Send a request, if there is one, and return the next message of a stream."""
        assert self._endpoint is not None
        try:
            if request is not None:
                await call.write(request)
            message = await call.read()
        except grpc.aio.AioRpcError as err:
            raise failure_of(err, self._endpoint.address) from err
        except asyncio.InvalidStateError as err:
            raise Lost(f"{self._endpoint.address}: the stream ended") from err
        except asyncio.CancelledError as err:
            if call.cancelled() and not is_task_cancelled():
                raise Lost(f"{self._endpoint.address}: the stream was cancelled") from err
            raise
        if isinstance(message, pb.WatchResponse):
            return message
        raise Lost(f"{self._endpoint.address}: the stream ended")

    def _take(self, message: pb.WatchResponse) -> None:
        """Add a message's changes to those that are ready.

        Raises:
            Compacted: The server has forgotten what should come next.
            Lost: The server ended the watch for another reason.
        """
        if message.compact_revision:
            raise Compacted(
                f"changes after revision {self._after} below {self._prefix!r} are forgotten up to "
                f"{message.compact_revision}",
                hint=_RELIST,
            )
        if message.canceled:
            if "permission denied" in message.cancel_reason:
                raise PermissionDenied(f"etcd refused a watch: {message.cancel_reason}")
            raise Lost(f"the watch was cancelled: {message.cancel_reason}")
        for event in message.events:
            self._add(event)
        if not message.fragment:
            self._complete()
            if not message.events and not message.created and not self._ready:
                # Progress: everything up to here was sent. Resuming from here outlives compaction.
                self._after = max(self._after, message.header.revision)

    def _add(self, event: pb.Event) -> None:
        revision = event.kv.mod_revision
        if revision <= self._known():
            return
        if revision != self._partial_revision:
            self._complete()
            self._partial_revision = revision
        self._partial.append(change_of(event))

    def _known(self) -> int:
        return self._ready[-1].revision if self._ready else self._after

    def _complete(self) -> None:
        if self._partial:
            revision = StoreRevision(self._partial_revision)
            self._ready.append(Changes(revision, tuple(self._partial)))
            self._partial = []

    def _hang_up(self) -> None:
        """Drop the stream and what of it is incomplete; what is ready stays."""
        call, self._call = self._call, None
        self._partial = []
        if call is not None:
            call.cancel()
