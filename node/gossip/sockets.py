"""How does gossip reach the kernel: sockets, connections, and a higher priority?"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
import threading
from typing import Final

from dray.errors import InvalidRequest, Unavailable
from dray.model import ReachKind
from node.gossip.core import STREAM_MESSAGE_BYTES_MAX, Address
from node.gossip.sealing import SEAL_BYTES

__all__ = [
    "BACKLOG",
    "bind",
    "is_loopback",
    "listen",
    "probe",
    "raise_priority",
    "read_message",
    "write_message",
]

# Connects that the kernel accepts for a daemon that stands still: each witness's, once a second,
# for eight minutes. Linux takes no more than 4,096 unless net.core.somaxconn says so.
BACKLOG: Final = 4_096
NICENESS: Final = -10
RECEIVE_BUFFER_BYTES: Final = 4_194_304
_LENGTH: Final = struct.Struct(">I")


def is_loopback(host: str) -> bool:
    """Return whether an address is one that only this machine reaches."""
    return ipaddress.ip_address(host).is_loopback


def bind(address: Address, *, is_sealed: bool) -> socket.socket:
    """Return a UDP socket at an address; port 0 lets the kernel choose one.

    Raises:
        InvalidRequest: The address is not a loopback address, and nothing is sealed.
        Unavailable: It cannot be bound now.
    """
    if not is_sealed and not is_loopback(address.host):
        raise InvalidRequest(
            f"gossip at {address.host} is not encrypted without a key",
            hint="wait for the cluster's key, or use an address of 127.0.0.0/8 or ::1",
        )
    bound = socket.socket(_family(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with contextlib.suppress(OSError):
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return _bound(bound, address)


def listen(address: Address) -> socket.socket:
    """Return a listening TCP socket at an address.

    Raises:
        Unavailable: It cannot be bound now.
    """
    listening = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _bound(listening, address)
    listening.listen(BACKLOG)
    return listening


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _bound(made: socket.socket, address: Address) -> socket.socket:
    try:
        made.bind((address.host, address.port))
    except OSError as error:
        made.close()
        raise Unavailable(
            f"gossip cannot bind {address.host} port {address.port}: {error.strerror}",
            hint="is another daemon running, or the address not of this machine?",
        ) from error
    return made


async def write_message(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send one message behind its length."""
    writer.write(_LENGTH.pack(len(data)) + data)
    await writer.drain()


async def read_message(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next message, or None when there is none, or one that is too long."""
    try:
        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if size > STREAM_MESSAGE_BYTES_MAX + SEAL_BYTES:
            return None
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, OSError):
        return None


async def probe(to: Address, data: bytes, deadline_s: float) -> tuple[ReachKind, bytes]:
    """Connect, send a message, and return what came of it and the answer if there was one."""
    reach = ReachKind.SILENT
    connecting = socket.socket(_family(to), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.get_running_loop().sock_connect(connecting, (to.host, to.port))
            reach = ReachKind.ACCEPTED
            reader, writer = await asyncio.open_connection(sock=connecting)
            await write_message(writer, data)
            answer = await read_message(reader)
        if answer is not None:
            return ReachKind.ANSWERED, answer
    except ConnectionRefusedError:
        reach = ReachKind.REFUSED
    except (OSError, TimeoutError):
        # Silence: a filter, a route, a machine that is gone; or accepted, and then nothing. When it
        # was this loop that came too late, the kernel has connected meanwhile.
        if _is_connected(connecting):
            reach = ReachKind.ACCEPTED
    finally:
        if writer is not None:
            writer.close()
        else:
            connecting.close()
    return reach, b""


def _is_connected(connecting: socket.socket) -> bool:
    try:
        connecting.getpeername()
    except OSError:
        return False
    return True


def raise_priority(*, is_alone: bool) -> str:
    """Let this thread run before others, where that is permitted; return how.

    Args:
        is_alone: Whether nothing else runs in this process. Then it gets a real-time class; beside
            other threads of Python that would not help, as it waits for their lock.
    """
    if is_alone:
        with contextlib.suppress(OSError):
            flags = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, flags, os.sched_param(1))
            return "real-time"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        return f"nice {NICENESS}"
    return "usual"
