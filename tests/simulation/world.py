"""What does a world look like in which time and the network are values?

A `World` runs machines on one virtual clock and one virtual network. It knows nothing of what they
do: a machine takes what happens and returns actions (`Send`, `Arm`, `Note`), and a small adapter
makes one out of a real core. Everything random comes from the world's seed, so a seed is a run.

- A heap of things to happen, by (time, order of scheduling), is the clock.
- The network loses, delays (so reorders) and doubles; links can be cut, each direction by itself.
- A timer that was armed always fires, also when it was replaced since: harsher than a real driver.
- A connection (`Connect`) ends in one of four ways, as the kernel of the other side sees it: its
  process answers, it accepted and nobody answers, it refused (the process is gone), or silence.
- A paused machine (a stopped process) handles nothing; its datagrams wait in a bounded buffer, its
  timers fire late when it resumes. Of a frozen one (a suspended VM) the kernel stands still as
  well: datagrams are lost and nobody connects. A crashed one loses everything, timers included.
- Each machine has a clock of its own, which may jump ahead.
- Every step goes into a running hash, the trace: two runs that differ anywhere differ there.
"""

from __future__ import annotations

import enum
import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

__all__ = [
    "Action",
    "Arm",
    "Connect",
    "LinkQuality",
    "Machine",
    "Note",
    "Outcome",
    "Reply",
    "Send",
    "World",
]

PAUSED_BUFFER_MAX: Final = 256  # datagrams that a stopped process's socket holds


@dataclass(frozen=True, slots=True)
class Send:
    """Send `data` to the machine at `to`."""

    to: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Arm:
    """Call `fire` with `key` and `generation` at `at_s`."""

    key: Hashable
    generation: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the machine announces; kept in `World.notes` for checkers."""

    what: object


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to the machine at `to`, send `data`, and tell what comes back as `connected(tag)`."""

    to: str
    data: bytes
    tag: Hashable
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request that is being handled."""

    data: bytes


Action: TypeAlias = Send | Arm | Note | Connect | Reply


class Outcome(enum.Enum):
    """How a connection ended."""

    ANSWERED = 1
    SILENT = 2
    REFUSED = 3
    ACCEPTED = 4


class Machine(Protocol):
    """What runs at an address: events in, actions out, nothing else."""

    def start(self, now_s: float) -> list[Action]:
        """Return the first actions. Called once."""
        ...

    def receive(self, source: str, data: bytes, now_s: float) -> list[Action]:
        """Take a datagram."""
        ...

    def fire(self, key: Hashable, generation: int, lateness_s: float, now_s: float) -> list[Action]:
        """Take a timer that is due."""
        ...

    def request(self, source: str, data: bytes, now_s: float) -> list[Action]:
        """Take what came on a connection; a `Reply` among the actions answers it."""
        ...

    def connected(
        self, to: str, tag: Hashable, outcome: Outcome, data: bytes, now_s: float
    ) -> list[Action]:
        """Take how a connection of its own ended."""
        ...


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """How good every link is that is not cut.

    Attributes:
        loss: Share of the datagrams that vanish, 0 to 1.
        duplicate: Share that arrives twice.
        delay_min_s: Least time on the way.
        delay_max_s: Longest time on the way; above `delay_min_s` datagrams overtake one another.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    delay_min_s: float = 0.0002
    delay_max_s: float = 0.002


@dataclass(slots=True)
class _Place:
    """What is at one address. `run` tells its machines apart: timers of an earlier one are void."""

    machine: Machine | None = None
    run: int = 0
    is_paused: bool = False
    is_frozen: bool = False
    is_refusing: bool = False
    ahead_s: float = 0.0
    waiting: list[tuple[str, bytes]] = field(default_factory=list)
    late: list[Arm] = field(default_factory=list)


class World:
    """One run. `checks` are called after every step of a machine, with its address."""

    def __init__(self, seed: int, *, is_traced: bool = True) -> None:
        """Make an empty world.

        Args:
            seed: Decides everything that is random in it.
            is_traced: Whether steps go into the trace and `notes`; large worlds do without.
        """
        self._is_traced = is_traced
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.quality = LinkQuality()
        self.steps = 0
        self.sends = 0
        self.sent_bytes = 0
        self.notes: list[tuple[float, str, object]] = []
        self.recorded: list[bytes] | None = None  # every datagram sent, once this is a list
        self.checks: list[Callable[[str], None]] = []
        self._cuts: set[tuple[str, str]] = set()
        self._places: dict[str, _Place] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        """Hash of everything that has happened."""
        return self._trace.hexdigest()

    # ---- machines

    @property
    def addresses(self) -> list[str]:
        """Every address at which something runs or ran."""
        return sorted(self._places)

    def machine(self, address: str) -> Machine | None:
        """Return what runs at an address, paused or not; None: crashed, or never there."""
        return self._places[address].machine if address in self._places else None

    def is_running(self, address: str) -> bool:
        """Return whether the machine there exists and is not paused."""
        place = self._places.get(address)
        return place is not None and place.machine is not None and not place.is_paused

    def add(self, address: str, machine: Machine) -> None:
        """Start a machine; a restart when there was another one before."""
        place = self._places.setdefault(address, _Place())
        assert place.machine is None, f"something runs at {address}"
        place.machine = machine
        place.is_refusing = False
        place.run += 1
        self._carry_out(address, machine.start(self._clock_s(place)))

    def crash(self, address: str) -> None:
        """End a machine without a word, as a power loss does."""
        place = self._places[address]
        place.machine = None
        place.run += 1
        place.is_paused = place.is_frozen = place.is_refusing = False
        place.waiting.clear()
        place.late.clear()
        self._note_trace("crash", address)

    def kill(self, address: str) -> None:
        """End a machine's process: as a crash, but its kernel refuses connections from then on."""
        self.crash(address)
        self._places[address].is_refusing = True

    def pause(self, address: str) -> None:
        """Let a machine handle nothing until it is resumed."""
        self._places[address].is_paused = True
        self._note_trace("pause", address)

    def freeze(self, address: str) -> None:
        """Pause a machine with its kernel: what is sent to it is lost, connections to it wait."""
        self._places[address].is_frozen = True
        self.pause(address)

    def jump(self, address: str, by_s: float) -> None:
        """Set a machine's clock ahead: its timers are late from one moment to the next."""
        assert by_s >= 0.0, "a monotonic clock never goes back"
        self._places[address].ahead_s += by_s
        self._note_trace("jump", address)

    def resume(self, address: str) -> None:
        """Let a paused machine handle what has come in meanwhile, and its timers, late."""
        place = self._places[address]
        if not place.is_paused:
            return
        place.is_paused = place.is_frozen = False
        self._note_trace("resume", address)
        late, place.late = place.late, []
        waiting, place.waiting = place.waiting, []
        for arm in sorted(late, key=lambda arm: arm.at_s):
            self._fire(address, place.run, arm)
        for source, data in waiting:
            self._deliver(source, address, data)

    def act(self, address: str, call: Callable[[float], Iterable[Action]]) -> None:
        """Give a machine a command: `call(now_s)`, with its own time, returns its actions."""
        self._carry_out(address, call(self._clock_s(self._places[address])))

    # ---- network

    def cut(self, senders: Iterable[str], receivers: Iterable[str]) -> None:
        """Let nothing pass from these senders to these receivers. The way back stays open."""
        receivers = list(receivers)
        self._cuts |= {(a, b) for a in senders for b in receivers if a != b}

    def heal(self) -> None:
        """Mend every cut."""
        self._cuts.clear()

    def passes(self, sender: str, receiver: str) -> bool:
        """Return whether the link is not cut in this direction."""
        return (sender, receiver) not in self._cuts

    # ---- time

    def at(self, at_s: float, call: Callable[[], None]) -> None:
        """Let something happen at a time that is not past."""
        assert at_s >= self.now_s, f"{at_s} is past, it is {self.now_s}"
        heapq.heappush(self._heap, (at_s, next(self._order), call))

    def run_until(self, at_s: float) -> None:
        """Let everything happen that is due by then."""
        while self._heap and self._heap[0][0] <= at_s:
            self.now_s, _, call = heapq.heappop(self._heap)
            call()
        self.now_s = at_s

    def run_for(self, duration_s: float) -> None:
        """Let time pass."""
        self.run_until(self.now_s + duration_s)

    def run_until_true(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Let time pass until a condition holds, looked at after each event, or the limit."""
        end_s = self.now_s + limit_s
        while not condition():
            if not self._heap or self._heap[0][0] > end_s:
                self.now_s = end_s
                return condition()
            self.now_s, _, call = heapq.heappop(self._heap)
            call()
        return True

    # ---- inside

    def _carry_out(self, address: str, actions: Iterable[Action]) -> None:
        self.steps += 1
        run = self._places[address].run
        for action in actions:
            if self._is_traced:
                self._trace.update(f"{self.now_s:.9f} {address} {action!r}\n".encode())
            if isinstance(action, Send):
                self._send(address, action)
            elif isinstance(action, Arm):
                self._arm(address, run, action)
            elif isinstance(action, Connect):
                self._connect(address, run, action)
            elif isinstance(action, Note) and self._is_traced:
                self.notes.append((self.now_s, address, action.what))
        for check in self.checks:
            check(address)

    def _clock_s(self, place: _Place) -> float:
        return self.now_s + place.ahead_s

    def _arm(self, address: str, run: int, arm: Arm) -> None:
        at_s = arm.at_s - self._places[address].ahead_s
        self.at(max(self.now_s, at_s), lambda: self._fire(address, run, arm))

    def _fire(self, address: str, run: int, arm: Arm) -> None:
        place = self._places[address]
        if place.run != run or place.machine is None:
            return
        if place.is_paused:
            place.late.append(arm)
            return
        now_s = self._clock_s(place)
        lateness_s = max(0.0, now_s - arm.at_s)
        actions = place.machine.fire(arm.key, arm.generation, lateness_s, now_s)
        self._carry_out(address, actions)

    def _send(self, source: str, send: Send) -> None:
        self.sends += 1
        self.sent_bytes += len(send.data)
        if self.recorded is not None:
            self.recorded.append(send.data)
        quality = self.quality
        copies = 2 if self.rng.random() < quality.duplicate else 1
        for _ in range(copies):
            is_lost = self.rng.random() < quality.loss
            delay_s = self.rng.uniform(quality.delay_min_s, quality.delay_max_s)
            if not is_lost and self.passes(source, send.to):
                self.at(self.now_s + delay_s, lambda: self._deliver(source, send.to, send.data))

    def _connect(self, source: str, run: int, connect: Connect) -> None:
        """Let a connection be tried; a lost packet of its handshake is sent again after 1 s."""
        quality = self.quality
        delay_s = self.rng.uniform(quality.delay_min_s, quality.delay_max_s)
        while self.rng.random() < 1 - (1 - quality.loss) ** 2:
            delay_s += 1.0
        arrives_s = self.now_s + 2 * delay_s
        ends_s = self.now_s + connect.deadline_s
        if arrives_s < ends_s:
            self.at(arrives_s, lambda: self._arrive(source, run, connect, ends_s))
        else:
            self.at(ends_s, lambda: self._connected(source, run, connect, Outcome.SILENT, b""))

    def _arrive(self, source: str, run: int, connect: Connect, ends_s: float) -> None:
        place = self._places.get(connect.to)
        outcome, at_s, data = Outcome.SILENT, ends_s, b""
        is_open = self.passes(source, connect.to) and self.passes(connect.to, source)
        if place is not None and is_open and not place.is_frozen:
            if place.is_refusing:
                outcome, at_s = Outcome.REFUSED, self.now_s
            elif place.is_paused:
                outcome = Outcome.ACCEPTED
            elif place.machine is not None:
                actions = place.machine.request(source, connect.data, self._clock_s(place))
                self._carry_out(connect.to, actions)
                outcome = Outcome.ACCEPTED
                for action in actions:
                    if isinstance(action, Reply):
                        outcome, at_s, data = Outcome.ANSWERED, self.now_s, action.data
        self.at(at_s, lambda: self._connected(source, run, connect, outcome, data))

    def _connected(
        self, source: str, run: int, connect: Connect, outcome: Outcome, data: bytes
    ) -> None:
        place = self._places[source]
        if place.run != run or place.machine is None or place.is_paused:
            return
        now_s = self._clock_s(place)
        actions = place.machine.connected(connect.to, connect.tag, outcome, data, now_s)
        self._carry_out(source, actions)

    def _deliver(self, source: str, to: str, data: bytes) -> None:
        place = self._places.get(to)
        if place is None or place.machine is None or not self.passes(source, to):
            return
        if place.is_paused:
            if not place.is_frozen and len(place.waiting) < PAUSED_BUFFER_MAX:
                place.waiting.append((source, data))
            return
        self._carry_out(to, place.machine.receive(source, data, self._clock_s(place)))

    def _note_trace(self, what: str, address: str) -> None:
        self._trace.update(f"{self.now_s:.9f} {what} {address}\n".encode())
