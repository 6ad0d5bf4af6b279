"""Which ports of the loopback address can a test give to a program that it starts?

The kernel's own choice (port 0) is free for one protocol at one moment only: the number may be a
connection's of another program already, or become one before the program that it is meant for
binds it. The ports here lie below those that the kernel gives to whoever connects
(`net.ipv4.ip_local_port_range` begins at 32,768), and are free for TCP and UDP.
"""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

from tests.lab.errors import LabError

__all__ = ["free_port", "free_ports"]

FIRST: Final = 20_000
LAST: Final = 31_999
TRIES: Final = 1_000
HOST: Final = "127.0.0.1"
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody has, for TCP and UDP; never the same twice in one process.

    Raises:
        LabError: None was found.
    """
    for _ in range(TRIES):
        port = random.SystemRandom().randint(FIRST, LAST)  # two runs with one seed differ
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise LabError(f"no port from {FIRST} to {LAST} of {HOST} is free: end what listens there")


def free_ports(count: int) -> list[int]:
    """Return several such ports, all different.

    Raises:
        LabError: Too few were found.
    """
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with contextlib.ExitStack() as stack:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            one = stack.enter_context(socket.socket(socket.AF_INET, kind))
            try:
                one.bind((HOST, port))
            except OSError:
                return False
    return True
