"""A gRPC service of raw bytes for tests of channels; run as a program, a peer that can be stopped.

`python -m tests.integration.echo` serves on a free port of 127.0.0.1 and prints it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from dray.addresses import HostPort
from dray.tls import BoundServer, server

SERVICE: Final = "test.Echo"
ECHO: Final = f"/{SERVICE}/Echo"
HANG: Final = f"/{SERVICE}/Hang"


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


async def _hang(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    yield request
    await asyncio.Event().wait()


def add_echo(made: grpc.aio.Server) -> None:
    """Register both methods: `Echo` answers, `Hang` answers once and then stays silent."""
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Hang": grpc.unary_stream_rpc_method_handler(_hang),
    }
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


async def _main() -> None:
    bound: BoundServer = server(HostPort("127.0.0.1", 0), None)
    add_echo(bound.server)
    await bound.server.start()
    print(bound.address.port, flush=True)
    await bound.server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main())
