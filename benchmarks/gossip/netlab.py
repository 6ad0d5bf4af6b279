"""Where do daemons of two kinds run under the same conditions? Namespaces around one router.

Every daemon has a namespace of its own, with one link to a routing namespace. A table of the
router's nftables cuts halves apart and loses packets; its counters say what each daemon sent.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NetLab", "Traffic", "netlab", "starved"]

PREFIX = "drg"
ROUTER = "169.254.1.1"  # at every link of it
CGROUPS = Path("/sys/fs/cgroup")
HALF_1, HALF_2 = "10.77.1.0/24", "10.77.2.0/24"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a daemon's link has carried, seen from the daemon."""

    sent_bytes: int
    sent_packets: int
    received_bytes: int
    received_packets: int


def run(command: list[str], text: str = "") -> str:
    """Run a command to its end; return its output."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class NetLab:
    """The namespaces of one run; `address(i)` is where daemon i lives, `namespace(i)` its name."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.hub = f"{PREFIX}{os.getpid()}hub"

    def namespace(self, index: int) -> str:
        """Return the name of a daemon's namespace."""
        return f"{PREFIX}{os.getpid()}n{index}"

    def address(self, index: int) -> str:
        """Return a daemon's address; the second half of them is in another network."""
        half = 1 if index < (self.size + 1) // 2 else 2
        return f"10.77.{half}.{index + 1}"

    def up(self) -> None:
        """Make everything."""
        names = [self.hub, *(self.namespace(index) for index in range(self.size))]
        run(["ip", "-batch", "-"], "".join(f"netns add {name}\n" for name in names))
        links = [
            f"link add v{index} netns {self.hub} type veth "
            f"peer name eth0 netns {self.namespace(index)}\n"
            for index in range(self.size)
        ]
        run(["ip", "-batch", "-"], "".join(links))
        hub = ["link set lo up\n"]
        for index in range(self.size):
            hub.append(f"link set v{index} up\naddr add {ROUTER}/32 dev v{index}\n")
            hub.append(f"route add {self.address(index)}/32 dev v{index}\n")
            inside = (
                f"link set lo up\nlink set eth0 up\naddr add {self.address(index)}/32 dev eth0\n"
                f"route add {ROUTER}/32 dev eth0\nroute add default via {ROUTER}\n"
            )
            run(["ip", "-n", self.namespace(index), "-batch", "-"], inside)
        run(["ip", "-n", self.hub, "-batch", "-"], "".join(hub))
        enable = ["sysctl", "-qw", "net.ipv4.ip_forward=1"]
        run(["ip", "netns", "exec", self.hub, *enable])

    def down(self) -> None:
        """Take everything away that is there."""
        for name in (self.hub, *(self.namespace(index) for index in range(self.size))):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def rules(self, *rules: str) -> None:
        """Replace the router's filter; no rules: everything passes."""
        body = "".join(f"    {rule}\n" for rule in rules)
        text = "table ip b {}\ndelete table ip b\ntable ip b {\n  chain f {\n"
        text += f"    type filter hook forward priority 0;\n{body}  }}\n}}\n"
        run(["ip", "netns", "exec", self.hub, "nft", "-f", "-"], text)

    def lose(self, percent: int) -> None:
        """Drop this share of all packets."""
        self.rules(f"numgen random mod 100 < {percent} drop")

    def part(self) -> None:
        """Cut the halves apart, both ways."""
        cuts = ((HALF_1, HALF_2), (HALF_2, HALF_1))
        self.rules(*(f"ip saddr {a} ip daddr {b} drop" for a, b in cuts))

    def silence(self, index: int) -> None:
        """Drop everything to and from one daemon's machine."""
        address = self.address(index)
        self.rules(f"ip saddr {address} drop", f"ip daddr {address} drop")

    def traffic(self) -> list[Traffic]:
        """Return what each daemon's link has carried."""
        text = run(["ip", "netns", "exec", self.hub, "cat", "/proc/net/dev"])
        found: dict[str, Traffic] = {}
        for line in text.splitlines()[2:]:
            name, _, rest = line.partition(":")
            # The router receives what the daemon sends.
            numbers = [int(field) for field in rest.split()]
            found[name.strip()] = Traffic(numbers[0], numbers[1], numbers[8], numbers[9])
        return [found[f"v{index}"] for index in range(self.size)]


@contextlib.contextmanager
def netlab(size: int) -> Iterator[NetLab]:
    """Give a lab for so many daemons; take it down afterwards."""
    lab = NetLab(size)
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@contextlib.contextmanager
def starved(pids: Sequence[int], run_ms: int, of_ms: int) -> Iterator[None]:
    """Let these processes, beside one that only burns, have so much processor time of so much."""
    is_old = (CGROUPS / "cpu").is_dir()  # version 1
    root = CGROUPS / "cpu" if is_old else CGROUPS
    group = root / f"{PREFIX}{os.getpid()}"
    group.mkdir()
    burning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        if is_old:
            (group / "cpu.cfs_period_us").write_text(str(of_ms * 1_000))
            (group / "cpu.cfs_quota_us").write_text(str(run_ms * 1_000))
        else:
            (group / "cpu.max").write_text(f"{run_ms * 1_000} {of_ms * 1_000}")
        for pid in (burning.pid, *pids):
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid in pids:
            (root / "cgroup.procs").write_text(str(pid))
        burning.kill()
        burning.wait()
        group.rmdir()
