"""How does a program without an event loop talk to a cluster? The same client, synchronous.

    with SyncClient([HostPort("10.0.0.1", 7400)]) as client:
        for task in client.list_tasks("shop").tasks: …

A thread runs the event loop of one asyncio `Client`; every method waits for the one of the same
name there. It may be used from several threads.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from dray import views
from dray.addresses import HostPort
from dray.client.channels import DEFAULT_LIMITS, ClientLimits
from dray.client.client import Client
from dray.client.streams import ExecSession
from dray.tls import Tls

__all__ = ["SyncClient", "SyncExecSession"]

_P = ParamSpec("_P")
_V = TypeVar("_V")


class _LoopThread:
    """A thread that runs an event loop until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="dray-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def wait(self, work: Coroutine[Any, Any, _V]) -> _V:
        """Run a coroutine there and return its result; a KeyboardInterrupt here cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def is_running(self) -> bool:
        """Whether it was not closed yet."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the loop and the thread; twice is harmless."""
        if self.is_running:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


def _waiting(
    method: Callable[Concatenate[Client, _P], Coroutine[Any, Any, _V]],
) -> Callable[Concatenate[SyncClient, _P], _V]:
    """Return the synchronous form of a call."""

    def wait(self: SyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _V:
        return self.thread.wait(method(self.client, *args, **kwargs))

    functools.update_wrapper(wait, method)
    return wait


def _iterating(
    method: Callable[Concatenate[Client, _P], AsyncIterator[_V]],
) -> Callable[Concatenate[SyncClient, _P], Iterator[_V]]:
    """Return the synchronous form of a stream: an iterator; closing it ends the stream."""

    def iterate(self: SyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_V]:
        return self.iterate(method(self.client, *args, **kwargs))

    functools.update_wrapper(iterate, method)
    return iterate


class SyncExecSession:
    """A command that runs in a container; see `ExecSession`."""

    def __init__(self, session: ExecSession, owner: SyncClient) -> None:
        self._session = session
        self._owner = owner

    def send(self, message: views.ExecInput) -> None:
        """Send input, the end of it, a new size or a signal; waits while nobody reads."""
        self._owner.thread.wait(self._session.send(message))

    def output(self) -> Iterator[views.ExecOutput]:
        """Yield what comes from the command; its exit code is the last."""
        return self._owner.iterate(self._session.output())


class SyncClient:
    """A client of one cluster whose methods wait. Close it, or use it as a context.

    Attributes:
        client: The asyncio client behind it.
        thread: Where that one runs.
    """

    def __init__(
        self,
        hosts: Sequence[HostPort],
        *,
        tls: Tls | None = None,
        insecure: bool = False,
        limits: ClientLimits = DEFAULT_LIMITS,
    ) -> None:
        """Make a client; it connects on first use. The arguments are those of `Client`."""
        self.thread = _LoopThread()

        async def make() -> Client:
            return Client(hosts, tls=tls, insecure=insecure, limits=limits)

        try:
            self.client = self.thread.wait(make())
        except BaseException:
            self.thread.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and the thread; twice is harmless."""
        if self.thread.is_running:
            self.thread.wait(self.client.close())
        self.thread.close()

    get_cluster_info = _waiting(Client.get_cluster_info)
    get_status = _waiting(Client.get_status)
    rotate_gossip_key = _waiting(Client.rotate_gossip_key)
    apply_project = _waiting(Client.apply_project)
    get_project = _waiting(Client.get_project)
    list_projects = _waiting(Client.list_projects)
    remove_project = _waiting(Client.remove_project)
    get_service = _waiting(Client.get_service)
    list_services = _waiting(Client.list_services)
    scale_services = _waiting(Client.scale_services)
    restart_services = _waiting(Client.restart_services)
    list_revisions = _waiting(Client.list_revisions)
    diff_revisions = _waiting(Client.diff_revisions)
    revert_service = _waiting(Client.revert_service)
    explain_service = _waiting(Client.explain_service)
    get_task = _waiting(Client.get_task)
    list_tasks = _waiting(Client.list_tasks)
    get_node = _waiting(Client.get_node)
    list_nodes = _waiting(Client.list_nodes)
    update_node = _waiting(Client.update_node)
    remove_node = _waiting(Client.remove_node)
    remove_orphans = _waiting(Client.remove_orphans)
    list_members = _waiting(Client.list_members)
    plan_rebalance = _waiting(Client.plan_rebalance)
    list_events = _waiting(Client.list_events)
    explain_dns = _waiting(Client.explain_dns)
    stream_logs = _iterating(Client.stream_logs)
    watch = _iterating(Client.watch)
    copy_from_task = _iterating(Client.copy_from_task)

    def copy_to_task(
        self, options: views.CopyOptions, archive: Iterator[bytes]
    ) -> views.CopyToTaskResponse:
        """Unpack a tar archive in a container; see `Client.copy_to_task`."""

        async def pieces() -> AsyncIterator[bytes]:
            while (piece := await asyncio.to_thread(next, archive, None)) is not None:
                yield piece

        return self.thread.wait(self.client.copy_to_task(options, pieces()))

    @contextmanager
    def exec(self, start: views.ExecStart) -> Iterator[SyncExecSession]:
        """Run a command in a running container; leaving the context gives it up."""
        context: AbstractAsyncContextManager[ExecSession] = self.client.exec(start)
        session = self.thread.wait(_entered(context))
        try:
            yield SyncExecSession(session, self)
        finally:
            self.thread.wait(_left(context))

    def iterate(self, source: AsyncIterator[_V]) -> Iterator[_V]:
        """Yield what an iterator of the asyncio client yields; closing this one closes it."""
        try:
            while True:
                try:
                    yield self.thread.wait(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                self.thread.wait(close())


async def _next(source: AsyncIterator[_V]) -> _V:
    return await anext(source)


async def _entered(context: AbstractAsyncContextManager[_V]) -> _V:
    return await context.__aenter__()


async def _left(context: AbstractAsyncContextManager[Any]) -> None:
    await context.__aexit__(None, None, None)
