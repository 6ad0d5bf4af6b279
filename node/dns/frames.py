"""How do the agent's process and the server's talk? JSON values after their length, on a socket.

A message is a list whose first item is its kind (`Kind`), the rest its arguments.
"""

from __future__ import annotations

import asyncio
import enum
import json
import struct
from typing import Final

from node.dns.feed import Json

__all__ = ["FRAME_BYTES_MAX", "Kind", "frame", "read_frame"]

FRAME_BYTES_MAX: Final = 64 * 2**20  # of one message; some services of thousands of endpoints
_LENGTH: Final = struct.Struct("!I")


class Kind(enum.StrEnum):
    """What a message is about."""

    CONFIG = "config"
    """To the server, first: its configuration, the path of resolv.conf, and who asks."""
    SERVICES = "services"
    """To the server: some services as they are now."""
    MEMBERS = "members"
    """To the server: all members as they are now."""
    CLIENTS = "clients"
    """To the server: who asks from which address."""
    START = "start"
    """To the server: it knows enough to answer."""
    EXPLAIN = "explain"
    """To the server: a number, and what to explain."""
    READY = "ready"
    """From the server: it answers."""
    STATUS = "status"
    """From the server: its counts, what is wrong by what it is, and the upstream servers."""
    EXPLAINED = "explained"
    """From the server: the number, and the explanation or why there is none."""


def frame(kind: Kind, *arguments: Json) -> bytes:
    """Return a message as it is sent."""
    data = json.dumps([kind, *arguments], separators=(",", ":")).encode()
    assert len(data) <= FRAME_BYTES_MAX, f"a message of {len(data)} bytes"
    return _LENGTH.pack(len(data)) + data


async def read_frame(reader: asyncio.StreamReader) -> Json | None:
    """Return the next message as a list; None: the other side is gone."""
    try:
        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        data = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return json.loads(data)
