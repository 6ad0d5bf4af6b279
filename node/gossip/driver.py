"""How does a core get sockets and timers? The thin driver: UDP on an asyncio event loop.

It reads the socket until it is empty whenever it becomes readable, which costs a third of what a
datagram transport does. Datagrams of this version are neither encrypted nor authenticated
(`messages`), so it refuses every address that is not a loopback address. Streams and kernel probes
are not driven: this version's core asks for none.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Final

from dray.errors import InvalidRequest
from node.gossip.core import (
    Address,
    ArmTimer,
    Core,
    DatagramReceived,
    Effect,
    Event,
    SendDatagram,
    TimerFired,
    TimerKey,
)

__all__ = ["UdpDriver", "bind"]

DRAINED_MAX: Final = 256  # datagrams read at once before the loop's other work has its turn
RECEIVED_BYTES_MAX: Final = 65_536


def bind(address: Address) -> socket.socket:
    """Return a UDP socket at a loopback address; port 0 lets the kernel choose one.

    Raises:
        InvalidRequest: The address is not a loopback address.
    """
    if not ipaddress.ip_address(address.host).is_loopback:
        raise InvalidRequest(
            f"gossip at {address.host}: datagrams are not encrypted yet",
            hint="use an address of 127.0.0.0/8 or ::1",
        )
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    bound.bind((address.host, address.port))
    return bound


class UdpDriver:
    """Drives one core until it is closed. Effects that are news go to `tell`, in order."""

    def __init__(self, core: Core, bound: socket.socket, tell: Callable[[Effect], None]) -> None:
        self._core = core
        self._socket = bound
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._timers: dict[TimerKey, asyncio.TimerHandle] = {}
        self._loop.add_reader(bound, self._drain)
        self._carry_out(core.start(self._loop.time()))

    def handle(self, event: Event) -> None:
        """Give the core an event and carry out what it asks for."""
        self._carry_out(self._core.handle(event, self._loop.time()))

    def close(self) -> None:
        """Stop, without a word to anybody (`Leave` is a command of its own). Twice is once."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for timer in self._timers.values():
            timer.cancel()

    def _drain(self) -> None:
        for _ in range(DRAINED_MAX):
            try:
                data, source = self._socket.recvfrom(RECEIVED_BYTES_MAX)
            except OSError:  # empty, or an ICMP error about an earlier datagram
                return
            self.handle(DatagramReceived(Address(source[0], source[1]), data))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendDatagram):
                with contextlib.suppress(OSError):  # not sent is lost
                    self._socket.sendto(effect.data, (effect.to.host, effect.to.port))
            elif isinstance(effect, ArmTimer):
                earlier = self._timers.pop(effect.key, None)
                if earlier is not None:
                    earlier.cancel()
                self._timers[effect.key] = self._loop.call_at(effect.at_s, self._fire, effect)
            else:
                self._tell(effect)

    def _fire(self, armed: ArmTimer) -> None:
        del self._timers[armed.key]
        lateness_s = max(0.0, self._loop.time() - armed.at_s)
        self.handle(TimerFired(armed.key, armed.generation, lateness_s))
