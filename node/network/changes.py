"""Has anything changed the machine's network? The kernel's own messages, as mere wake-ups.

Interfaces, addresses, routes and nftables are watched through netlink. What a message says is not
read: who is woken looks at everything that matters. Only what the daemon did to nftables itself,
with every change that gossip tells of, wakes nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from node.network.nft import NETLINK_NETFILTER

__all__ = ["NetworkChanges"]

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_RTNLGRP_LINK: Final = 1
_RTNLGRP_IPV4_IFADDR: Final = 5
_RTNLGRP_IPV4_ROUTE: Final = 7
_NFNLGRP_NFTABLES: Final = 7
_GROUPS: Final = (
    (socket.NETLINK_ROUTE, _RTNLGRP_LINK),
    (socket.NETLINK_ROUTE, _RTNLGRP_IPV4_IFADDR),
    (socket.NETLINK_ROUTE, _RTNLGRP_IPV4_ROUTE),
    (NETLINK_NETFILTER, _NFNLGRP_NFTABLES),
)
_HEADER: Final = struct.Struct("=IHHII")  # of a netlink message; the last one is the port
_MESSAGE_BYTES_MAX: Final = 65_536
_READS_MAX: Final = 64  # messages of one wake-up; the rest wakes again


class NetworkChanges:
    """Watches while its context is entered."""

    def __init__(self, is_own: Callable[[int], bool]) -> None:
        """Watch nothing yet.

        Args:
            is_own: Whether a change of nftables, by the netlink port of who made it, is known.
        """
        self._is_own = is_own
        self._sockets: list[socket.socket] = []
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        """Begin to watch."""
        loop = asyncio.get_running_loop()
        for protocol, group in _GROUPS:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
            opened.setblocking(False)
            opened.bind((0, 0))
            opened.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            loop.add_reader(opened, self._drain, opened)
            self._sockets.append(opened)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End watching."""
        loop = asyncio.get_running_loop()
        for opened in self._sockets:
            loop.remove_reader(opened)
            opened.close()
        self._sockets.clear()

    @property
    def are_there(self) -> bool:
        """Whether something has changed since the last `wait`."""
        return self._changed.is_set()

    async def wait(self, at_most_s: float) -> None:
        """Return once something has changed since the last call, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()
        self._changed.clear()

    def _drain(self, opened: socket.socket) -> None:
        try:
            for _ in range(_READS_MAX):
                if not self._is_known(opened, opened.recv(_MESSAGE_BYTES_MAX)):
                    self._changed.set()
        except BlockingIOError:
            pass
        except OSError:  # a full buffer (ENOBUFS) lost messages: as good a reason to look
            self._changed.set()

    def _is_known(self, opened: socket.socket, message: bytes) -> bool:
        """Return whether a change is the daemon's own; all of one message have one author."""
        if opened.proto != NETLINK_NETFILTER or len(message) < _HEADER.size:
            return False
        *_, port = _HEADER.unpack_from(message)
        return self._is_own(port)
