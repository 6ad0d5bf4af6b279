"""Has anything changed the machine's network? The kernel's own messages, as mere wake-ups.

Interfaces, addresses, routes and nftables are watched through netlink. What a message says is not
read: who is woken looks at everything that matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Final, Self

__all__ = ["NetworkChanges"]

_NETLINK_NETFILTER: Final = 12
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
    (_NETLINK_NETFILTER, _NFNLGRP_NFTABLES),
)
_MESSAGE_BYTES_MAX: Final = 65_536
_READS_MAX: Final = 64  # messages of one wake-up; the rest wakes again


class NetworkChanges:
    """Watches while its context is entered."""

    def __init__(self) -> None:
        """Watch nothing yet."""
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
        self._changed.set()
        # A full buffer (ENOBUFS) lost messages, and that is as good a reason to look.
        with contextlib.suppress(OSError):
            for _ in range(_READS_MAX):
                opened.recv(_MESSAGE_BYTES_MAX)
