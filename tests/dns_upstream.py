"""A name server on loopback that behaves as it is told: for what is upstream of the node's."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from dray.addresses import HostPort
from node.dns.framing import receive_message, send_message

__all__ = ["Manner", "Upstream", "an_upstream"]

_BYTES_MAX = 65_535


class Manner(enum.Enum):
    """What a name server does with a query over UDP."""

    ANSWERS = 1
    SILENT = 2
    FAILS = 3
    LIES_FIRST = 4
    """Sends three wrong answers before the right one."""
    ONLY_LIES = 5
    TRUNCATES = 6
    """Says that the answer is cut; it is whole over TCP."""
    HOLDS = 7
    """Answers when `Upstream.release` is called, and from then on."""


class Upstream:
    """A name server: an A record for every name, as it is told to give it."""

    def __init__(self, manner: Manner, udp: socket.socket, tcp: socket.socket) -> None:
        self.manner = manner
        self.address = "192.0.2.200"
        self.ttl_s = 60
        self.asked: Counter[str] = Counter()
        self.asked_tcp = 0
        self.is_missing = False
        self._held: list[tuple[bytes, Any]] = []
        self._udp = udp
        self._tcp = tcp

    @property
    def where(self) -> HostPort:
        """Return where it listens."""
        host, port = self._udp.getsockname()[:2]
        return HostPort(host, port)

    def answer(self, data: bytes) -> dns.message.Message:
        """Return the right answer to a query."""
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name
        if self.is_missing:
            response.set_rcode(dns.rcode.NXDOMAIN)
            soa = "ns.example. admin.example. 1 2 3 4 7"
            response.authority.append(dns.rrset.from_text("example.", 60, "IN", "SOA", soa))
        elif query.question[0].rdtype == dns.rdatatype.A:
            record = dns.rrset.from_text(name, self.ttl_s, "IN", "A", self.address)
            response.answer.append(record)
        return response

    async def serve_udp(self) -> None:
        """Answer datagrams."""
        loop = asyncio.get_running_loop()
        while True:
            data, source = await loop.sock_recvfrom(self._udp, _BYTES_MAX)
            name = dns.message.from_wire(data).question[0].name.to_text().lower()
            self.asked[name] += 1
            if self.manner is Manner.HOLDS:
                self._held.append((data, source))
                continue
            for message in self._messages(data):
                await loop.sock_sendto(self._udp, message, source)

    async def release(self) -> None:
        """Answer what was held, and all that comes."""
        self.manner = Manner.ANSWERS
        held, self._held = self._held, []
        for data, source in held:
            for message in self._messages(data):
                with contextlib.suppress(ConnectionRefusedError):  # asked twice, answered once
                    await asyncio.get_running_loop().sock_sendto(self._udp, message, source)

    def _messages(self, data: bytes) -> list[bytes]:
        right = self.answer(data)
        if self.manner is Manner.SILENT:
            return []
        if self.manner is Manner.FAILS:
            right.set_rcode(dns.rcode.SERVFAIL)
        if self.manner is Manner.TRUNCATES:
            right.flags |= dns.flags.TC
            right.answer.clear()
        lies: list[bytes] = []
        if self.manner in (Manner.LIES_FIRST, Manner.ONLY_LIES):
            wire = right.to_wire()
            other = dns.message.make_query("other.example.", "A", id=right.id)
            other.flags |= dns.flags.QR
            lies = [bytes([wire[0] ^ 1]) + wire[1:], other.to_wire(), wire[:-3], b"", data]
        return [*lies, right.to_wire()] if self.manner is not Manner.ONLY_LIES else lies

    async def serve_tcp(self, group: asyncio.TaskGroup) -> None:
        """Answer connections, one query each."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._tcp)
            group.create_task(self._serve_connection(connection))

    async def _serve_connection(self, connection: socket.socket) -> None:
        with contextlib.closing(connection), contextlib.suppress(OSError):
            data = await receive_message(connection, _BYTES_MAX)
            self.asked_tcp += 1
            await send_message(connection, self.answer(data).to_wire())


@contextlib.asynccontextmanager
async def an_upstream(
    manner: Manner = Manner.ANSWERS, host: str = "127.0.0.1"
) -> AsyncIterator[Upstream]:
    """Give a running name server."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with contextlib.closing(udp), contextlib.closing(tcp):
        tcp.bind((host, 0))
        tcp.listen()
        udp.bind((host, tcp.getsockname()[1]))
        upstream = Upstream(manner, udp, tcp)
        async with asyncio.TaskGroup() as group:
            serving = [
                group.create_task(upstream.serve_udp()),
                group.create_task(upstream.serve_tcp(group)),
            ]
            try:
                yield upstream
            finally:
                for task in serving:
                    task.cancel()
