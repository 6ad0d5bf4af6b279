"""Do packets come through the tunnel to the other nodes?

Gossip may reach a node whose tunnel's port somebody's firewall has closed; then everything looks
well, and containers wait in vain. So each node asks the gateways of the others for an echo, through
the tunnel, as containers' packets go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Collection
from typing import Final

from dray.errors import FailedPrecondition

__all__ = ["ECHO_TRIES", "ECHO_WAIT_S", "echo_request", "echoed_by", "silent_gateways"]

ECHO_TRIES: Final = 3
ECHO_WAIT_S: Final = 0.7  # after each try; a round trip around the world takes half of it
_REQUEST: Final = 8
_REPLY: Final = 0
_HEADER: Final = struct.Struct("!BBHHH")
_REPLIES_MAX: Final = 256  # read in one turn of the event loop


def echo_request(identifier: int, sequence: int) -> bytes:
    """Return an ICMP echo request (RFC 792); both numbers are 16 bits."""
    zero = _HEADER.pack(_REQUEST, 0, 0, identifier, sequence)
    total = sum(struct.unpack("!4H", zero))
    total = (total & 0xFFFF) + (total >> 16)
    return _HEADER.pack(_REQUEST, 0, 0xFFFF & ~total, identifier, sequence)


def echoed_by(packet: bytes, identifier: int) -> str:
    """Return who answered our request, from the IPv4 packet; empty: it is something else."""
    length = (packet[0] & 0x0F) * 4 if packet else 0
    if length < 20 or len(packet) < length + _HEADER.size:
        return ""
    kind, _, _, said, _ = _HEADER.unpack_from(packet, length)
    if kind != _REPLY or said != identifier:
        return ""
    return socket.inet_ntoa(packet[12:16])


async def silent_gateways(gateways: Collection[str]) -> frozenset[str]:
    """Return which of these addresses do not answer, after a few tries.

    Takes at most `ECHO_TRIES * ECHO_WAIT_S`, and a moment when all answer.

    Raises:
        FailedPrecondition: The process may not ask: it is not root.
    """
    silent = set(gateways)
    identifier = os.getpid() & 0xFFFF
    heard = asyncio.Event()
    try:
        opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError as error:
        raise FailedPrecondition("only root can ask for echoes", hint="run it as root") from error

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_REPLIES_MAX):
                silent.discard(echoed_by(opened.recv(1_500), identifier))
        if not silent:
            heard.set()

    loop = asyncio.get_running_loop()
    opened.setblocking(False)
    loop.add_reader(opened, read)
    try:
        for sequence in range(ECHO_TRIES):
            for address in silent:
                with contextlib.suppress(OSError):  # no route: as silent as no answer
                    opened.sendto(echo_request(identifier, sequence), (address, 0))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ECHO_WAIT_S if silent else 0):
                    await heard.wait()
            read()  # what came while this process had no turn counts too
            if not silent:
                break
    finally:
        loop.remove_reader(opened)
        opened.close()
    return frozenset(silent)
