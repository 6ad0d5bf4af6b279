"""How are daemons of two kinds started, stopped and heard? Ours and Serf, with one face."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Protocol

from benchmarks.gossip.netlab import NetLab

__all__ = ["Cluster", "Dray", "Heard", "Kind", "Serf", "cluster"]

PORT = 7401
READ_S = 0.05
TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Heard:
    """One line that a daemon said.

    `what` is alive, suspect, stalled, dead, left or fact; `about` a member's name or a value.
    """

    at_s: float
    observer: int
    what: str
    about: str


class Kind(Protocol):
    """A kind of daemon."""

    name: str

    def command(self, name: str, address: str, seed: str) -> list[str]:
        """Return how to start one; an empty seed starts a cluster."""
        ...

    def heard(self, line: str) -> tuple[str, str] | None:
        """Return what a line of its output says, and about whom."""
        ...

    def publish(self, lab: NetLab, index: int, to: IO[str], value: str) -> None:
        """Let a daemon spread an update."""
        ...


class Dray:
    """The product's core and driver (`agent.py`)."""

    name = "dray"

    def command(self, name: str, address: str, seed: str) -> list[str]:
        """Return how to start one."""
        bind = f"{address}:{PORT}"
        join = ["--join", f"{seed}:{PORT}"] if seed else []
        program = [sys.executable, "-m", "benchmarks.gossip.agent"]
        return [*program, "--name", name, "--bind", bind, *join]

    def heard(self, line: str) -> tuple[str, str] | None:
        """Return what a line says."""
        if not line.startswith("{"):
            return None
        said = json.loads(line)
        return said["event"], said["member"]

    def publish(self, lab: NetLab, index: int, to: IO[str], value: str) -> None:
        """Publish a fact."""
        to.write(value + "\n")
        to.flush()


class Serf:
    """Serf's agent with the profile of a local network; a line of its log is its word.

    What it says is the state change inside it: its event handlers learn of it a second later.
    """

    name = "serf"
    lines = (
        (re.compile(r"serf: EventMemberJoin: (\S+)"), "alive"),
        (re.compile(r"serf: EventMemberFailed: (\S+)"), "dead"),
        (re.compile(r"serf: EventMemberLeave: (\S+)"), "left"),
        (re.compile(r"memberlist: Suspect (\S+) has failed"), "suspect"),
        (re.compile(r"agent: Received event: user-event: (\S+)"), "fact"),
    )

    def __init__(self, program: str) -> None:
        self.program = program

    def command(self, name: str, address: str, seed: str) -> list[str]:
        """Return how to start one."""
        bind = ["-bind", f"{address}:{PORT}", "-rpc-addr", "127.0.0.1:7373"]
        join = ["-join", f"{seed}:{PORT}"] if seed else []
        start = [self.program, "agent", "-node", name, *bind]
        return [*start, "-log-level=info", "-profile=lan", *join]

    def heard(self, line: str) -> tuple[str, str] | None:
        """Return what a line says."""
        for pattern, what in self.lines:
            found = pattern.search(line)
            if found:
                return what, found.group(1)
        return None

    def publish(self, lab: NetLab, index: int, to: IO[str], value: str) -> None:
        """Send a user event."""
        inside = ["ip", "netns", "exec", lab.namespace(index), self.program]
        event = ["event", "-coalesce=false", "-rpc-addr=127.0.0.1:7373", value]
        subprocess.run([*inside, *event], capture_output=True, check=True)


@dataclass(slots=True)
class Cluster:
    """Daemons of one kind in a lab, and everything that they said."""

    kind: Kind
    lab: NetLab
    heard: list[Heard] = field(default_factory=list)
    holds: list[dict[str, str]] = field(default_factory=list)
    processes: list[subprocess.Popen[str] | None] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    @property
    def names(self) -> list[str]:
        """Every daemon's name, by number."""
        return [f"n{index}" for index in range(self.lab.size)]

    @property
    def running(self) -> list[int]:
        """The numbers of those that run."""
        return [index for index, process in enumerate(self.processes) if process is not None]

    def start(self, index: int) -> None:
        """Start a daemon, the first time or again."""
        seed = self.lab.address(0) if index else self.lab.address(1)
        if not any(self.processes):
            seed = ""
        command = self.kind.command(f"n{index}", self.lab.address(index), seed)
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.lab.namespace(index), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self.processes[index] = process
        self.holds[index] = {f"n{index}": "alive"}
        self.selector.register(process.stdout, selectors.EVENT_READ, (index, process))

    def end(self, index: int) -> None:
        """Kill a daemon's process."""
        process = self.processes[index]
        assert process is not None
        assert process.stdout is not None
        self.processes[index] = None
        process.kill()
        process.wait()
        self.selector.unregister(process.stdout)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def pid(self, index: int) -> int:
        """Return a daemon's process id."""
        process = self.processes[index]
        assert process is not None
        return process.pid

    def signal(self, index: int, number: signal.Signals) -> None:
        """Send a signal to a daemon's process."""
        process = self.processes[index]
        assert process is not None
        process.send_signal(number)

    def publish(self, index: int, value: str) -> None:
        """Let a daemon spread an update."""
        process = self.processes[index]
        assert process is not None
        assert process.stdin is not None
        self.kind.publish(self.lab, index, process.stdin, value)

    def read(self, duration_s: float) -> None:
        """Take what daemons say for some time."""
        end_s = time.monotonic() + duration_s
        while True:
            left_s = end_s - time.monotonic()
            for key, _ in self.selector.select(max(0.0, left_s)):
                index, process = key.data
                self._take(index, process)
            if time.monotonic() >= end_s:
                return

    def _take(self, index: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        at_s = time.monotonic()
        while line := process.stdout.readline():
            said = self.kind.heard(line)
            if said is None:
                continue
            what, about = said
            self.heard.append(Heard(at_s, index, what, about))
            if what not in ("fact", "ready"):
                self.holds[index][about] = what

    def until(self, condition: Callable[[], bool], limit_s: float) -> float | None:
        """Take what daemons say until a condition holds; return how long it took, or None."""
        begin_s = time.monotonic()
        while not condition():
            if time.monotonic() - begin_s > limit_s:
                return None
            self.read(READ_S)
        return time.monotonic() - begin_s

    def all_hold(self, observers: list[int], about: list[int], states: set[str]) -> bool:
        """Return whether all observers hold all of these to be in one of these states."""
        return all(
            self.holds[observer].get(f"n{index}", "") in states
            for observer in observers
            for index in about
            if observer != index
        )

    def cpu_s(self) -> float:
        """Return the processor time of all daemons that run."""
        ticks = 0
        for index in self.running:
            process = self.processes[index]
            assert process is not None
            with open(f"/proc/{process.pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_S

    def memory_bytes(self) -> float:
        """Return the mean anonymous memory of a daemon."""
        total = 0
        for index in self.running:
            process = self.processes[index]
            assert process is not None
            with open(f"/proc/{process.pid}/status") as status:
                held = [line for line in status if line.startswith("RssAnon:")]
            total += int(held[0].split()[1]) * 1_024
        return total / len(self.running)


@contextlib.contextmanager
def cluster(kind: Kind, lab: NetLab) -> Iterator[Cluster]:
    """Give a started cluster in which everybody knows everybody; end it afterwards."""
    made = Cluster(kind, lab)
    made.processes = [None] * lab.size
    made.holds = [{} for _ in range(lab.size)]
    everybody = list(range(lab.size))
    try:
        made.start(0)
        made.until(lambda: bool(made.heard), 20.0)
        for index in everybody[1:]:
            made.start(index)
        took_s = made.until(lambda: made.all_hold(everybody, everybody, {"alive"}), 240.0)
        assert took_s is not None, f"{kind.name}: not everybody knows everybody"
        made.read(5.0)
        made.heard.clear()
        yield made
    finally:
        lab.rules()
        for index in made.running:
            made.end(index)
        made.selector.close()
