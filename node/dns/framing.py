"""How does a DNS message travel over TCP? After its length in two bytes (RFC 1035, 4.2.2)."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

__all__ = ["receive_message", "send_message"]

_LENGTH: Final = struct.Struct("!H")


async def receive_message(connection: socket.socket, size_bytes_max: int) -> bytes:
    """Return the next message of a connection.

    Raises:
        ConnectionError: It ended before, or the message is larger than allowed.
    """
    (size,) = _LENGTH.unpack(await _exactly(connection, _LENGTH.size))
    if size > size_bytes_max:
        raise ConnectionAbortedError(f"a message of {size} bytes, {size_bytes_max} are the most")
    return await _exactly(connection, size)


async def send_message(connection: socket.socket, message: bytes) -> None:
    """Send a message.

    Raises:
        OSError: The connection failed.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, _LENGTH.pack(len(message)) + message)


async def _exactly(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < size:
        part = await loop.sock_recv(connection, size - len(received))
        if not part:
            raise ConnectionResetError("the connection ended within a message")
        received += part
    return bytes(received)
