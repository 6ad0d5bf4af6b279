"""How are short questions put to the engine without blocking the event loop?

They go through the `docker` SDK, which blocks, in a pool of `CALLS_MAX` threads. Nothing that waits
for a container is done here, so a call takes as long as the engine works on it: a full pool means
that the engine is busy or does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import docker
import requests.exceptions
from docker.transport.unixconn import (
    UnixHTTPAdapter,
    UnixHTTPConnection,
    UnixHTTPConnectionPool,
)

from dray.errors import DeadlineExceeded, FailedPrecondition, PeerMisbehaved, Unavailable
from node.runtime.docker_view import Answer
from node.runtime.spec import API_OLDEST, ApiVersion, Fields

__all__ = [
    "API_NEWEST",
    "CALLS_MAX",
    "EngineCalls",
    "create_container",
    "image_of",
    "was_cancelled",
]

CALLS_MAX: Final = 16  # twice what keeps a small machine's engine busy with starts
API_NEWEST: Final[ApiVersion] = (1, 48)  # the newest one whose answers this code was written for

T = TypeVar("T")


class _Connection(UnixHTTPConnection):
    """A connection that closes its socket when nobody listens; the SDK's leaves that to chance."""

    def connect(self) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(self.timeout)
            connected.connect(self.unix_socket)
        except OSError:
            connected.close()
            raise
        self.sock = connected


class _Pool(UnixHTTPConnectionPool):
    # The stubs of the two libraries disagree about the type of a timeout.
    def _new_conn(self) -> _Connection:  # type: ignore[override]
        return _Connection(self.base_url, self.socket_path)


class _OneSocket(UnixHTTPAdapter):
    """Keeps one pool of connections; the SDK's keeps one for each of the last 25 addresses."""

    def __init__(self, socket_url: str, *, max_pool_size: int) -> None:
        super().__init__(socket_url, max_pool_size=max_pool_size)
        self._pool = _Pool(socket_url, self.socket_path, maxsize=max_pool_size)

    def get_connection(self, url: bytes | str, proxies: object = None) -> UnixHTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()


class EngineCalls:
    """A bounded pool of threads that call the SDK's client.

    The client is made, and the API version agreed, by the first call that reaches the engine.
    """

    def __init__(self, path: Path, *, connect_timeout_s: float, answer_timeout_s: float) -> None:
        self._path = path
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        # A call may have to wait as long as one before it takes; then the engine does not answer.
        self._deadline_s = connect_timeout_s + 2 * answer_timeout_s
        self._pool = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="docker-call")
        self._lock = threading.Lock()
        self._client: docker.APIClient | None = None
        self._is_closed = False

    async def call(self, function: Callable[[docker.APIClient], T]) -> T:
        """Return what the function returns for the client.

        Raises:
            docker.errors.APIError: The engine said no.
            Unavailable: The engine cannot be reached, or the connection broke.
            DeadlineExceeded: It did not answer in time.
        """
        if self._is_closed:
            raise Unavailable("the runtime is closed", retryable=False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await loop.run_in_executor(self._pool, self._run, function)
        except asyncio.CancelledError as err:
            if was_cancelled():
                raise
            raise Unavailable("the runtime was closed", retryable=False) from err
        except TimeoutError as err:
            text = f"the Docker Engine has been busy with other calls for {self._deadline_s:g} s"
            raise DeadlineExceeded(text) from err

    async def api(self) -> ApiVersion:
        """Return the API version that is spoken."""
        if self._client is not None:
            return _parsed(self._client.api_version)
        return await self.call(lambda client: _parsed(client.api_version))

    async def renew(self) -> None:
        """Agree on the API version again: the engine may have been replaced by another one."""
        await self.call(self._renew)

    def _renew(self, old: docker.APIClient) -> None:
        with self._locked():
            if self._client is old:
                self._client = self._agreed()
                old.close()  # calls under way keep their connections

    def _run(self, function: Callable[[docker.APIClient], T]) -> T:
        try:
            return function(self._connected())
        except docker.errors.APIError:
            raise
        except requests.exceptions.Timeout as err:
            raise DeadlineExceeded("the Docker Engine does not answer") from err
        except (requests.exceptions.RequestException, OSError) as err:
            raise Unavailable(f"the Docker Engine on {self._path} cannot be reached") from err

    def _connected(self) -> docker.APIClient:
        with self._locked():
            if self._client is None:
                self._client = self._agreed()
            return self._client

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Who waits for the first call to come through gives up as that call would.
        if not self._lock.acquire(timeout=self._connect_timeout_s + self._answer_timeout_s):
            raise DeadlineExceeded("the Docker Engine does not answer")
        try:
            yield
        finally:
            self._lock.release()

    def _agreed(self) -> docker.APIClient:
        """Return a client that speaks the newest version both sides know."""
        first = self._new(API_OLDEST)
        try:
            said = first.version(api_version=False)
        finally:
            first.close()
        newest, oldest = _parsed(said["ApiVersion"]), _parsed(said.get("MinAPIVersion", "1.0"))
        version = min(newest, API_NEWEST)
        if version < API_OLDEST or oldest > version:
            wanted = f"{API_OLDEST[0]}.{API_OLDEST[1]} to {API_NEWEST[0]}.{API_NEWEST[1]}"
            raise FailedPrecondition(
                f"the Docker Engine speaks API {said['ApiVersion']}, this version of dray {wanted}",
                hint="upgrade the older one",
            )
        return self._new(version)

    def _new(self, version: ApiVersion) -> docker.APIClient:
        client = docker.APIClient(
            base_url=f"unix://{self._path}",
            version=f"{version[0]}.{version[1]}",
        )
        client.mount(
            client.base_url, _OneSocket(f"http+unix://{self._path}", max_pool_size=CALLS_MAX)
        )
        client.trust_env = False  # no proxies and no .netrc on the way to a local socket
        # requests takes the pair; the stubs know only one number for both.
        timeouts_s = (self._connect_timeout_s, self._answer_timeout_s)
        client.timeout = timeouts_s  # type: ignore[assignment]
        return client

    async def close(self) -> None:
        """Take no more calls, wait for those under way, and end the threads."""
        self._is_closed = True
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def end() -> None:
            self._pool.shutdown(cancel_futures=True)
            if self._client is not None:
                self._client.close()
            loop.call_soon_threadsafe(ended.set)

        thread = threading.Thread(target=end, name="docker-close")
        thread.start()
        await ended.wait()
        # It has nothing left to do, and no event tells a thread's very end.
        while thread.is_alive():  # noqa: ASYNC110
            await asyncio.sleep(0)


def was_cancelled() -> bool:
    """Return whether the running task itself was cancelled, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def image_of(client: docker.APIClient, reference: str) -> Answer:
    """Return what the engine knows of an image that is on the node."""
    found: Answer = client.inspect_image(reference)  # type: ignore[no-untyped-call]
    return found


def create_container(
    client: docker.APIClient, body: Fields, name: str, platform: str | None
) -> Answer:
    """Make a container from the body of the API's call."""
    made: Answer = client.create_container_from_config(  # type: ignore[no-untyped-call]
        body, name, platform
    )
    return made


def _parsed(text: str) -> ApiVersion:
    major, dot, minor = text.partition(".")
    if not dot or not major.isdecimal() or not minor.isdecimal():
        raise PeerMisbehaved(f"the Docker Engine's API version is {text!r}")
    return int(major), int(minor)
