"""Do channels and servers do over real sockets what `dray.tls` says of them?"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dray.addresses import HostPort
from dray.errors import FailedPrecondition
from dray.tls import (
    MESSAGE_BYTES_MAX,
    BoundServer,
    Tls,
    add_health_and_reflection,
    channel_options,
    client_channel,
    server,
    server_options,
)
from tests.certificates import Authority
from tests.integration.echo import ECHO, HANG, SERVICE, add_echo

ANSWER_S: Final = 10.0  # bound of every call here; an answer takes milliseconds
NOTICED_S: Final = 8.5  # 5 s of silence, 2 s for the ping's answer, 1.5 s for a busy machine
PINGS_MS: Final = 1_100  # as often as dray's servers allow


@contextlib.asynccontextmanager
async def _serving(bound: BoundServer) -> AsyncIterator[HostPort]:
    add_echo(bound.server)
    await bound.server.start()
    try:
        yield bound.address
    finally:
        await bound.server.stop(None)


def _local(tls: Tls | None = None, host: str = "127.0.0.1") -> BoundServer:
    return server(HostPort(host, 0), tls)


async def _echo(channel: grpc.aio.Channel, payload: bytes = b"hello") -> bytes:
    call: Any = channel.unary_unary(ECHO)
    answer = await call(payload, timeout=ANSWER_S)
    assert isinstance(answer, bytes)
    return answer


def _hanging(channel: grpc.aio.Channel) -> Any:
    """Return a call that gets one answer and then nothing."""
    method: Any = channel.unary_stream(HANG)
    return method(b"hello")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_plain_text_works_on_loopback(host: str) -> None:
    """Without TLS two programs of one machine talk, over either family and by name."""
    async with (
        _serving(_local(host=host)) as address,
        client_channel(HostPort(host, address.port), None) as channel,
    ):
        assert await _echo(channel) == b"hello"


async def test_of_several_addresses_the_one_that_answers_is_used() -> None:
    """A channel with a dead address first reaches the one after it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = HostPort("127.0.0.1", taken.getsockname()[1])
        async with (
            _serving(_local()) as address,
            client_channel((dead, address), None) as channel,
        ):
            assert await _echo(channel) == b"hello"


async def test_a_refused_server_opened_nothing() -> None:
    """A server beyond loopback without TLS is refused while its port is still free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(FailedPrecondition, match="without TLS"):
        server(HostPort("0.0.0.0", port), None)  # noqa: S104
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_taken_port_is_an_error() -> None:
    """Two servers never share a port."""
    async with _serving(_local()) as address:
        with pytest.raises(FailedPrecondition, match=f"cannot listen on {address}"):
            server(address, None)


async def test_messages_have_the_stated_limit() -> None:
    """A message near the limit passes; one above it is refused and the channel works on."""
    async with _serving(_local()) as address, client_channel(address, None) as channel:
        payload = bytes(MESSAGE_BYTES_MAX)
        assert await _echo(channel, payload) == payload
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _echo(channel, payload + b"x")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await _echo(channel) == b"hello"


class _Pki:
    """Certificates of one cluster, and some that are not."""

    def __init__(self, folder: Path) -> None:
        cluster, strangers = Authority(folder / "cluster"), Authority(folder / "strangers")
        self.server = cluster.issue("server").read()
        self.good = cluster.issue("client").read()
        self.old = cluster.issue("old", age=datetime.timedelta(days=2)).read()
        foreign = strangers.issue("client").read()
        self.foreign = Tls(foreign.cert, foreign.key, self.server.ca)
        self.doubting = Tls(self.good.cert, self.good.key, foreign.ca)


@pytest.fixture
def pki(tmp_path: Path) -> _Pki:
    """Fresh certificates."""
    return _Pki(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_mutual_tls_works(pki: _Pki, host: str) -> None:
    """Two sides with certificates of one authority talk, by address and by name."""
    async with (
        _serving(_local(pki.server)) as address,
        client_channel(HostPort(host, address.port), pki.good) as channel,
    ):
        assert await _echo(channel) == b"hello"


@pytest.mark.parametrize("who", ["foreign", "old", "doubting"])
async def test_a_wrong_certificate_gets_nowhere(pki: _Pki, who: str) -> None:
    """A certificate of another authority, an expired one, or an unknown server end the call."""
    async with (
        _serving(_local(pki.server)) as address,
        client_channel(address, getattr(pki, who)) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _echo(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_certificate_gets_nowhere(pki: _Pki) -> None:
    """Neither plain text nor TLS without a client certificate reaches a server with TLS."""
    async with _serving(_local(pki.server)) as address:
        anonymous = grpc.ssl_channel_credentials(pki.server.ca)
        channels = [
            client_channel(address, None),
            grpc.aio.secure_channel(str(address), anonymous, options=channel_options()),
        ]
        for channel in channels:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _echo(channel)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await channel.close()


async def test_standard_tools_find_health_and_services() -> None:
    """A server says that it serves, and lists its services by reflection."""
    bound = _local()
    add_health_and_reflection(bound, [SERVICE])
    async with _serving(bound) as address, client_channel(address, None) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = await stub.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        as_any: Any = channel
        listing: Any = reflection_pb2_grpc.ServerReflectionStub(as_any)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = listing.ServerReflectionInfo(iter([request]), timeout=ANSWER_S)
        names = {service.name for service in (await replies.read()).list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
        replies.cancel()


@contextlib.asynccontextmanager
async def _echo_process() -> AsyncIterator[tuple[int, HostPort]]:
    """Yield the pid and address of an echo server in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.echo", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), ANSWER_S)
        yield process.pid, HostPort("127.0.0.1", int(line))
    finally:
        process.kill()
        await process.wait()


async def test_a_peer_that_hangs_is_noticed() -> None:
    """A stopped process, whose kernel still answers, ends open calls within seconds."""
    async with _echo_process() as (pid, address), client_channel(address, None) as channel:
        call = _hanging(channel)
        assert await call.read() == b"hello"
        os.kill(pid, signal.SIGSTOP)
        stopped_at_s = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call.read(), 3 * NOTICED_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - stopped_at_s < NOTICED_S


def _options(options: list[tuple[str, int | str]], **changed: int) -> list[tuple[str, int | str]]:
    keys = {f"grpc.{name}": value for name, value in changed.items()}
    return [(name, keys.get(name, value)) for name, value in options]


async def _end_of_silent_stream(
    options: list[tuple[str, int | str]], limit_s: float
) -> grpc.aio.AioRpcError | None:
    """Return how a server ended a silent stream with pings every 1.1 s, or None: it did not."""
    made = grpc.aio.server(options=options)
    port = made.add_insecure_port("127.0.0.1:0")
    pinging = _options(channel_options(), keepalive_time_ms=PINGS_MS)
    async with (
        _serving(BoundServer(made, HostPort("127.0.0.1", port))) as address,
        grpc.aio.insecure_channel(str(address), options=pinging) as channel,
    ):
        call = _hanging(channel)
        assert await call.read() == b"hello"
        try:
            await asyncio.wait_for(call.read(), limit_s)
        except TimeoutError:
            return None
        except grpc.aio.AioRpcError as error:
            return error
    raise AssertionError("the stream ended by itself")


async def test_asking_often_does_not_end_a_silent_stream() -> None:
    """Our servers bear pings at five times our rate, where a server without our options cuts it.

    The cut comes with the third or fourth ping too many: at 1.1 s each after 3.3 s, at a channel's
    usual 5 s after 15 to 20 s. So 8 s here show what 35 s would at the usual rate.
    """
    foreign, ours = await asyncio.gather(
        _end_of_silent_stream([], ANSWER_S), _end_of_silent_stream(server_options(), 8.0)
    )
    assert foreign is not None
    assert foreign.details() == "Too many pings"
    assert ours is None
