"""What do a node's name server and its table say, from moment to moment? For other benchmarks.

`WATCH` runs on a host of the lab, one process a host for a whole benchmark, so that nothing has to
start when time counts. Each line on its standard input is a question (`asked`); it answers "armed"
at once, and later when what was asked for came true, by the clock that all processes of the machine
share. The name server is asked every few milliseconds, the table is read some twenty times a
second.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.lab import Host
from tests.lab.process import Process

__all__ = ["LIMIT_S", "Watcher", "gateway", "watch", "watchers"]

LIMIT_S: Final = 60.0
WATCH: Final = r"""
import json, re, socket, struct, subprocess, sys, threading, time
server, limit_s = sys.argv[1], float(sys.argv[2])
bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bound.connect((server, 53))
bound.settimeout(0.5)

def named(name):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    asked = time.monotonic_ns() & 0xFFFF
    bound.send(struct.pack("!6H", asked, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1")
    while True:
        try:
            data = bound.recv(65536)
        except OSError:
            return None
        if data[:2] == struct.pack("!H", asked):
            break
    count = struct.unpack_from("!H", data, 6)[0]
    at = 12 + len(labels) + 5
    found = set()
    for _ in range(count):
        found.add(socket.inet_ntoa(data[at + 12:at + 16]))
        at += 16
    return found

def held():
    text = subprocess.run(["nft", "list", "table", "ip", "dray"], capture_output=True, text=True)
    return set(re.findall(r": (\d+\.\d+\.\d+\.\d+)", text.stdout))

def until(look, gone, found, ends_at_s, pause_s):
    while time.monotonic() < ends_at_s:
        known = look()
        if known is not None and not known & gone and found <= known:
            return time.monotonic()
        time.sleep(pause_s)
    return None

def everywhere(names):
    known = set()
    for name in names:
        found = named(name)
        if found is None:
            return None
        known |= found
    return known

for line in sys.stdin:
    asked = json.loads(line)
    gone, found = set(asked["gone"]), set(asked["found"])
    ends_at_s = time.monotonic() + limit_s
    held()
    print("armed", flush=True)
    table = []
    reader = threading.Thread(
        target=lambda: table.append(until(held, gone, found, ends_at_s, 0.02))
    )
    reader.start()
    dns = until(lambda: everywhere(asked["names"]), gone, found, ends_at_s, 0.005)
    reader.join()
    print(json.dumps({"dns": dns, "table": table[0]}), flush=True)
"""


def gateway(host: Host) -> str:
    """Return the address that a host's DNS listens at."""
    shown = host.exec(["ip", "-4", "-j", "address", "show", "dev", "dray0"]).stdout
    address: str = json.loads(shown)[0]["addr_info"][0]["local"]
    return address


@dataclass(slots=True)
class Watcher:
    """Watches one host."""

    host: Host
    process: Process

    def ask(
        self, names: Sequence[str], *, gone: Sequence[str] = (), found: Sequence[str] = ()
    ) -> None:
        """Begin to watch; returns once it does.

        Args:
            names: All of them are asked; full names.
            gone: Addresses that none of the names and no place of the table may have.
            found: Addresses that names and table must have.
        """
        assert self.process.stdin is not None
        line = json.dumps({"names": list(names), "gone": list(gone), "found": list(found)})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        self._line()

    def seen(self) -> dict[str, float]:
        """Return when names ("dns") and table ("table") were so; infinite: not in time."""
        told: dict[str, Any] = json.loads(self._line())
        return {key: float("inf") if at is None else at for key, at in told.items()}

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        line: bytes = self.process.stdout.readline()
        assert line, f"the watcher of {self.host.name} has ended"
        return line


def watch(host: Host) -> Watcher:
    """Start a watcher; `watchers` ends those that are in its list."""
    command = [sys.executable, "-c", WATCH, gateway(host), str(LIMIT_S)]
    return Watcher(host, host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))


@contextlib.contextmanager
def watchers(hosts: Sequence[Host]) -> Iterator[list[Watcher]]:
    """Give a watcher for each host; in the end all that the list holds by then are ended."""
    made = [watch(host) for host in hosts]
    try:
        yield made
    finally:
        for each in made:
            each.process.kill()
            each.process.wait(10)
