"""What of a lab is still on the machine?"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cgroups import CgroupTree
from tests.lab.network import hardware_address
from tests.lab.state import ProcessId, process_start


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def namespaces_of(pid: int) -> set[str]:
    """Return the namespaces of a process, as `net:[4026532000]`; none if it has ended."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/ns"):
            found.add(os.readlink(f"/proc/{pid}/ns/{name}"))
    except OSError:
        return set()
    return found


@dataclass(frozen=True, slots=True)
class Traces:
    """Everything by which a lab can be recognised on the machine, taken while it is up.

    Attributes:
        number: The lab's number, part of its hardware addresses.
        directory: Where it keeps its files.
        cgroups: Its cgroups.
        processes: What ran in them.
        namespaces: What those processes were in, less what this process shares.
        taken_at_ticks: When, in clock ticks since boot. The kernel gives the number out again
            at once, so a process that started later and has one of these is in another one.
    """

    number: int
    directory: Path
    cgroups: CgroupTree
    processes: frozenset[ProcessId]
    namespaces: frozenset[str]
    taken_at_ticks: int

    @staticmethod
    def of(number: int, directory: Path, cgroups: CgroupTree) -> "Traces":
        """Take the traces of a lab."""
        pids = cgroups.processes()
        starts = {pid: process_start(pid) for pid in pids}
        identities = frozenset(
            ProcessId(pid, start) for pid, start in starts.items() if start is not None
        )
        namespaces = {name for pid in pids for name in namespaces_of(pid)} - namespaces_of(
            os.getpid()
        )
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        ticks = int(now_s * os.sysconf("SC_CLK_TCK")) + 1
        return Traces(number, directory, cgroups, identities, frozenset(namespaces), ticks)

    def remaining(self) -> list[str]:
        """Return what is left of the lab, as words; nothing after a good end."""
        left = [f"cgroup {path}" for path in self.cgroups.left()]
        if self.directory.exists():
            left.append(f"directory {self.directory}")
        left += [f"process {process.pid}" for process in self.processes if process.is_alive]
        for pid in _processes():
            if (process_start(pid) or 0) <= self.taken_at_ticks:
                names = namespaces_of(pid) & self.namespaces
                left += [f"namespace {name} (process {pid})" for name in names]
            left += [f"mount {point} (process {pid})" for point in self._mounts_of(pid)]
        left += [f"interface {name}" for name in self._interfaces()]
        return left

    def _mounts_of(self, pid: int) -> list[str]:
        try:
            lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        except OSError:
            return []
        return [line.split()[4] for line in lines if f"{self.directory}/" in line]

    def _interfaces(self) -> list[str]:
        """Return the interfaces of this network namespace that carry an address of the lab."""
        prefix = hardware_address(self.number, 0).rpartition(":")[0]
        paths = Path("/sys/class/net").glob("*/address")
        return [path.parent.name for path in paths if path.read_text().startswith(prefix)]
