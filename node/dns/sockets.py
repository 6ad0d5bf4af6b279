"""Which sockets does the name server listen on, so that one client's flood is not everybody's?

At each address there are several UDP sockets, and the kernel chooses one by the *client's address*
(a small filter program, see `SO_ATTACH_REUSEPORT_CBPF` in socket(7)). The server reads a few
datagrams of each in turn. So a client that floods fills one socket's buffer: only clients that
share it lose queries, and nobody waits for more than a turn.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from dray.addresses import HostPort
from dray.errors import Unavailable
from node.dns.config import SOCKETS_PER_ADDRESS

__all__ = [
    "BACKLOG",
    "BoundSockets",
    "bind_all",
    "tcp_listener",
    "udp_sockets",
]

BACKLOG: Final = 64  # connections that wait to be accepted
RECEIVE_BUFFER_BYTES: Final = 425_984  # of one socket; some thousand queries
SEND_BUFFER_BYTES: Final = 1_048_576
_IP_FREEBIND: Final = 15  # <linux/in.h>: the bridge that has the address may come later
_IPV6_FREEBIND: Final = 78  # <linux/in6.h>
_SO_ATTACH_REUSEPORT_CBPF: Final = 51  # <asm-generic/socket.h>
# <linux/filter.h>: load a word of the network header, take it modulo, return it.
_LOAD_WORD: Final = 0x20
_MODULO: Final = 0x94
_MULTIPLY: Final = 0x24
_SHIFT_RIGHT: Final = 0x74
_RETURN_A: Final = 0x16
_NETWORK_HEADER: Final = 0xFFF0_0000  # SKF_NET_OFF
_SOURCE_IPV4: Final = 12
_SOURCE_IPV6_END: Final = 20  # the last four of its 16 bytes
_HASH: Final = 0x9E37_79B1  # spreads neighbouring addresses (Knuth's multiplicative hashing)


@dataclass(slots=True)
class BoundSockets:
    """The sockets of a name server: several for UDP at each address, one for TCP."""

    udp: list[socket.socket] = field(default_factory=list)
    tcp: list[socket.socket] = field(default_factory=list)

    def addresses(self) -> tuple[HostPort, ...]:
        """Return where they listen over UDP."""
        found = [bound.getsockname()[:2] for bound in self.udp]
        return tuple(dict.fromkeys(HostPort(host, port) for host, port in found))

    def close(self) -> None:
        """Close them all."""
        for each in (*self.udp, *self.tcp):
            each.close()


def bind_all(listen: Iterable[HostPort], per_address: int = SOCKETS_PER_ADDRESS) -> BoundSockets:
    """Return sockets that listen at addresses.

    Raises:
        Unavailable: An address is taken or not allowed; none is held then.
    """
    made = BoundSockets()
    try:
        for address in listen:
            # TCP first: UDP ports can be shared, so that a second daemon would take queries away.
            listener = tcp_listener(address)
            made.tcp.append(listener)
            bound = HostPort(address.host, listener.getsockname()[1])
            made.udp += udp_sockets(bound, per_address)
    except Unavailable:
        made.close()
        raise
    return made


def udp_sockets(address: HostPort, count: int = SOCKETS_PER_ADDRESS) -> list[socket.socket]:
    """Return the UDP sockets at an address; port 0: the kernel chooses one for all.

    Raises:
        Unavailable: The address is taken or not allowed.
    """
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            bound = _socket(address, socket.SOCK_DGRAM)
            made.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            port = made[0].getsockname()[1] if len(made) > 1 else address.port
            bound.bind((address.host, port))
        if count > 1:
            _spread_by_client(made[0], count)
    except OSError as error:
        for each in made:
            each.close()
        raise _refused(address, "UDP", error) from error
    return made


def tcp_listener(address: HostPort) -> socket.socket:
    """Return a listening TCP socket at an address.

    Raises:
        Unavailable: The address is taken or not allowed.
    """
    bound = _socket(address, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address.host, address.port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _refused(address, "TCP", error) from error
    return bound


def _socket(address: HostPort, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    return made


def _spread_by_client(bound: socket.socket, count: int) -> None:
    """Let the kernel choose among the sockets of a port by the client's address."""
    is_v6 = bound.family == socket.AF_INET6
    at = _NETWORK_HEADER + (_SOURCE_IPV6_END if is_v6 else _SOURCE_IPV4)
    steps = (
        (_LOAD_WORD, at),
        (_MULTIPLY, _HASH),
        (_SHIFT_RIGHT, 16),
        (_MODULO, count),
        (_RETURN_A, 0),
    )
    code = b"".join(struct.pack("HBBI", operation, 0, 0, value) for operation, value in steps)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(steps), ctypes.addressof(buffer))
    bound.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def _refused(address: HostPort, protocol: str, error: OSError) -> Unavailable:
    hint = "it is tried again"
    if error.errno == errno.EADDRINUSE:
        hint = f"find what listens there with `ss -lnp sport = :{address.port}` and end it"
    elif error.errno in (errno.EACCES, errno.EPERM):
        hint = "the daemon needs root, or CAP_NET_BIND_SERVICE"
    return Unavailable(
        f"the name server cannot listen on {address} ({protocol}): {error.strerror}", hint=hint
    )
