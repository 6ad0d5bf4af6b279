"""How does the node make sure that a published port is nobody else's on this machine?

The table would lead packets away from a program that listens already, and the program would never
know. So every published port is *claimed* first: bound, by a socket on which nothing is ever
received. Who comes later is told by the kernel that the port is taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["CLAIMS_MAX", "Claim", "Claims"]

CLAIMS_MAX: Final = 4_096  # sockets, one a port
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_ANY: Final = "0.0.0.0"  # noqa: S104 - a published port answers on every address


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A port of the node: "tcp" or "udp", an address or empty for all, and the number."""

    protocol: str
    host_ip: str
    number: int

    def __str__(self) -> str:
        """Return it as people write it."""
        where = f"{self.host_ip}:{self.number}" if self.host_ip else str(self.number)
        return f"{where}/{self.protocol}"


class Claims:
    """The ports that this node has claimed; usable from several threads."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._held: dict[Claim, tuple[socket.socket, str]] = {}
        self._lock = threading.RLock()

    def take(self, claim: Claim, owner: str) -> str:
        """Claim a port for an owner; return why that is not possible, or nothing."""
        with self._lock:
            if held := self._held.get(claim):
                other = held[1]
                return "" if other == owner else f"port {claim} is published by {other} already"
            return self._take_new(claim, owner)

    def _take_new(self, claim: Claim, owner: str) -> str:
        if len(self._held) >= CLAIMS_MAX:
            return f"this node publishes {CLAIMS_MAX} ports already, the most it can"
        try:
            taken = _bound(claim)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return f"this node does not have the address {claim.host_ip}"
            if error.errno == errno.EADDRINUSE:
                return f"port {claim} is taken by another program of the machine"
            return f"port {claim} cannot be bound: {os.strerror(error.errno or 0)}"
        self._held[claim] = (taken, owner)
        return ""

    def take_one_of(
        self, protocol: str, host_ip: str, numbers: Collection[int], owner: str
    ) -> int | None:
        """Claim the first free one of some ports, of any if none is named; None: all are taken."""
        for number in numbers or _any_free(protocol, host_ip):
            claim = Claim(protocol, host_ip, number)
            if claim not in self._held and not self.take(claim, owner):
                return number
        return None

    def keep_only(self, owner: str, claims: Iterable[Claim]) -> None:
        """Give back what an owner holds beside these."""
        kept = set(claims)
        with self._lock:
            for claim, (taken, holder) in list(self._held.items()):
                if holder == owner and claim not in kept:
                    taken.close()
                    del self._held[claim]

    def close(self) -> None:
        """Give everything back."""
        with self._lock:
            for taken, _ in self._held.values():
                taken.close()
            self._held.clear()


def _bound(claim: Claim) -> socket.socket:
    """Return a socket that holds the port."""
    for reuses in (False, True):
        opened = socket.socket(socket.AF_INET, _KINDS[claim.protocol])
        try:
            if reuses:
                # Connections that ended a moment ago keep a port for a minute; who listens is
                # still in the way.
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((claim.host_ip or _ANY, claim.number))
        except OSError as error:
            opened.close()
            if reuses or error.errno != errno.EADDRINUSE or claim.protocol == "udp":
                raise
        else:
            return opened
    raise AssertionError("the second try returns or raises")


def _any_free(protocol: str, host_ip: str) -> list[int]:
    """Return a port that the kernel says is free."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, _KINDS[protocol]) as probe:
        probe.bind((host_ip or _ANY, 0))
        return [int(probe.getsockname()[1])]
    return []
