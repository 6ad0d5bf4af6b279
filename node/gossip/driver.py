"""How does a core get sockets, streams and timers? The driver, on an asyncio event loop of its own.

It reads the UDP socket until it is empty whenever it becomes readable, which costs a third of what
a datagram transport does; it seals and opens everything (`sealing`); it makes and answers the
connections that the core asks for; and it measures how late its own loop runs. The core is called
from this loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from node.gossip import sockets
from node.gossip.core import (
    Address,
    AnswerStream,
    ArmTimer,
    Core,
    DatagramReceived,
    Effect,
    Event,
    OpenStream,
    ProbeReach,
    RanLate,
    ReachProbed,
    SendDatagram,
    StreamReceived,
    TimerFired,
    TimerKey,
)
from node.gossip.sealing import SALT_BYTES, Opened, Sealer
from node.gossip.wire import Malformed

__all__ = ["Driver", "Traffic"]

DRAINED_MAX: Final = 64  # datagrams read at once before the loop's other work has its turn
ACCEPTED_AT_ONCE_MAX: Final = 16  # likewise, connections: a starved daemon has its datagrams, too
RECEIVED_BYTES_MAX: Final = 65_536
CONNECTIONS_MAX: Final = 64  # of its own at a time; what is beyond is silence
ACCEPTED_MAX: Final = 64  # of peers at a time; what is beyond is closed at once
PEERS_MAX: Final = 4_096  # whose keys are remembered; the longest silent go first
REQUEST_S: Final = 5.0  # a peer's request and its answer take at most this long
TICK_S: Final = 0.1
LATE_S: Final = 0.04  # lateness below this is the kernel's business


@dataclass(slots=True)
class Traffic:
    """What went through, since the start.

    Attributes:
        sent: Datagrams.
        sent_bytes: Of them, as UDP payload.
        received: Datagrams.
        received_bytes: Of them.
        dropped: Datagrams and messages that did not open: wrong key, another cluster, replay, junk.
        connections: Made.
        accepted: Connections of peers.
        late_s: Greatest lateness of the loop since it was last taken.
    """

    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    dropped: int = 0
    connections: int = 0
    accepted: int = 0
    late_s: float = 0.0

    def counted(self) -> dict[str, int]:
        """Return what was counted, by name; for metrics."""
        return {
            "datagrams_sent": self.sent,
            "datagram_bytes_sent": self.sent_bytes,
            "datagrams_received": self.received,
            "datagram_bytes_received": self.received_bytes,
            "sealed_dropped": self.dropped,
            "connections": self.connections,
            "accepted": self.accepted,
        }

    def take_late_s(self) -> float:
        """Return the greatest lateness since this was last asked."""
        late_s, self.late_s = self.late_s, 0.0
        return late_s


class Driver:
    """Drives one core until `close`. Effects that are news go to `tell`, in order."""

    def __init__(
        self,
        core: Core,
        bound: socket.socket,
        tell: Callable[[Effect], None],
        sealer: Sealer | None = None,
    ) -> None:
        """Take a bound UDP socket, and listen on its address by TCP as well.

        `sealer` None: nothing is sealed; only for loopback addresses, see `sockets.bind`.

        Raises:
            Unavailable: The TCP port is taken.
        """
        host, port = bound.getsockname()[:2]
        self._listening = sockets.listen(Address(host, port))
        self.traffic = Traffic()
        self._core = core
        self._socket = bound
        self._tell = tell
        self._sealer = sealer
        self._loop = asyncio.get_running_loop()
        self._timers: dict[TimerKey, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self._answers: dict[int, bytes] = {}
        self._peer_keys: OrderedDict[Address, int] = OrderedDict()
        self._is_closed = False
        self._server: asyncio.Server | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._loop.add_reader(bound, self._drain)
        self._spawn(self._serve())
        self._carry_out(core.start(self._loop.time()))
        self._arm_tick()

    def handle(self, event: Event) -> None:
        """Give the core an event and carry out what it asks for."""
        if not self._is_closed:
            self._carry_out(self._core.handle(event, self._loop.time()))

    async def close(self) -> None:
        """Stop, without a word to anybody (`Leave` is a command of its own). Twice is once."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._tick is not None:
            self._tick.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._server is not None:
            self._server.close()
        self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- datagrams and timers

    def _drain(self) -> None:
        for _ in range(DRAINED_MAX):
            try:
                data, source = self._socket.recvfrom(RECEIVED_BYTES_MAX)
            except OSError:  # empty, or an ICMP error about an earlier datagram
                return
            self.traffic.received += 1
            self.traffic.received_bytes += len(data)
            opened = self._open(data)
            if opened is not None:
                peer = Address(source[0], source[1])
                self._note_key(peer, opened)
                self.handle(DatagramReceived(peer, opened.plain))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendDatagram):
                self._send(effect)
            elif isinstance(effect, ArmTimer):
                earlier = self._timers.pop(effect.key, None)
                if earlier is not None:
                    earlier.cancel()
                self._timers[effect.key] = self._loop.call_at(effect.at_s, self._fire, effect)
            elif isinstance(effect, ProbeReach):
                self._connect(self._probe(effect))
            elif isinstance(effect, OpenStream):
                self._connect(self._ask(effect))
            elif isinstance(effect, AnswerStream):
                self._answers[effect.stream_id] = effect.data
            else:
                self._tell(effect)

    def _send(self, effect: SendDatagram) -> None:
        data = self._seal(effect.data, self._peer_keys.get(effect.to))
        self.traffic.sent += 1
        self.traffic.sent_bytes += len(data)
        with contextlib.suppress(OSError):  # not sent is lost
            self._socket.sendto(data, (effect.to.host, effect.to.port))

    def _fire(self, armed: ArmTimer) -> None:
        del self._timers[armed.key]
        lateness_s = max(0.0, self._loop.time() - armed.at_s)
        self.handle(TimerFired(armed.key, armed.generation, lateness_s))

    def _arm_tick(self) -> None:
        due_s = self._loop.time() + TICK_S
        self._tick = self._loop.call_at(due_s, self._on_tick, due_s)

    def _on_tick(self, due_s: float) -> None:
        late_s = self._loop.time() - due_s
        self.traffic.late_s = max(self.traffic.late_s, late_s)
        if late_s > LATE_S:
            self.handle(RanLate(late_s))
        self._arm_tick()

    # ---- connections

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _connect(self, work: Coroutine[None, None, None]) -> None:
        if len(self._tasks) - self._accepted > CONNECTIONS_MAX:
            work.close()
            return
        self.traffic.connections += 1
        self._spawn(work)

    async def _probe(self, effect: ProbeReach) -> None:
        sealed = self._seal(effect.data, self._peer_keys.get(effect.to))
        reach, answer = await sockets.probe(effect.to, sealed, effect.deadline_s)
        opened = self._open(answer) if answer else None
        self.handle(ReachProbed(effect.target, reach, opened.plain if opened else b""))

    async def _ask(self, effect: OpenStream) -> None:
        sealed = self._seal(effect.data, self._peer_keys.get(effect.to))
        _, answer = await sockets.probe(effect.to, sealed, effect.deadline_s)
        opened = self._open(answer) if answer else None
        if opened is not None:
            self.handle(StreamReceived(effect.to, effect.stream_id, opened.plain))

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(
            self._on_accepted, sock=self._listening, backlog=ACCEPTED_AT_ONCE_MAX
        )
        # The server has set the kernel's queue to the same number, which is far too few.
        self._listening.listen(sockets.BACKLOG)

    def _on_accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a peer's connection. Called by the server, which holds on to none itself."""
        if self._accepted >= ACCEPTED_MAX or self._is_closed:
            writer.close()
            return
        self._accepted += 1
        self.traffic.accepted += 1
        task = self._spawn(self._answer(-self.traffic.accepted, reader, writer))
        task.add_done_callback(functools.partial(self._on_answered, writer))

    def _on_answered(self, writer: asyncio.StreamWriter, _: asyncio.Task[None]) -> None:
        """End a peer's connection: also that of a task which was cancelled before it began."""
        self._accepted -= 1
        writer.close()

    async def _answer(
        self, stream_id: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                data = await sockets.read_message(reader)
                opened = self._open(data) if data is not None else None
                if opened is None:
                    return
                host, port = writer.get_extra_info("peername")[:2]
                self.handle(StreamReceived(Address(host, port), stream_id, opened.plain))
                answer = self._answers.pop(stream_id, None)
                if answer is not None:
                    await sockets.write_message(writer, self._seal(answer, opened.primary))
        except (OSError, TimeoutError):
            pass  # the peer went away: it will ask again

    # ---- seals

    def _seal(self, plain: bytes, key_id: int | None) -> bytes:
        if self._sealer is None:
            return plain
        return self._sealer.seal(plain, os.urandom(SALT_BYTES), key_id)

    def _open(self, data: bytes) -> Opened | None:
        if self._sealer is None:
            return Opened(data, 0)
        opened = self._sealer.open(data)
        if isinstance(opened, Malformed):
            self.traffic.dropped += 1
            return None
        return opened

    def _note_key(self, peer: Address, opened: Opened) -> None:
        """Remember which key a peer seals with: that one it opens for certain."""
        while peer not in self._peer_keys and len(self._peer_keys) >= PEERS_MAX:
            self._peer_keys.popitem(last=False)
        self._peer_keys[peer] = opened.primary
        self._peer_keys.move_to_end(peer)
