"""How are the machine and the processes of its containers read?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from node.resources.sample import DiskReading, MachineReading

__all__ = [
    "ProcessGroup",
    "TaskReading",
    "find_group",
    "read_boot_id",
    "read_disk",
    "read_machine",
    "read_task",
]

_PRESSURE = re.compile(r"some avg10=([0-9.]+)")
_FILE_BYTES_MAX: Final = 65_536
_CGROUPS: Final = Path("/sys/fs/cgroup")
_NANOSECONDS: Final = 1_000_000_000


def read_machine(engine_data: str, at_s: float) -> MachineReading:
    """Read the machine. Blocks for about a millisecond.

    Args:
        engine_data: Folder of Docker's data; empty: not known, then the root's disk counts.
        at_s: Now, monotonic.
    """
    memory = psutil.virtual_memory()
    times = psutil.cpu_times()
    # what a guest used is part of `user` already
    busy_s = sum((times.user, times.nice, times.system, times.irq, times.softirq, times.steal))
    return MachineReading(
        at_s=at_s,
        cpus=psutil.cpu_count() or 1,
        cpu_busy_s=busy_s,
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        pids=len(psutil.pids()),
        pids_max=int(_text("/proc/sys/kernel/pid_max") or "32768"),
        engine_disk=read_disk(engine_data or "/"),
        cpu_pressure_millis=_pressure("cpu"),
        memory_pressure_millis=_pressure("memory"),
        io_pressure_millis=_pressure("io"),
    )


def read_boot_id() -> str:
    """Return the kernel's boot id: another one after every start of the machine."""
    return _text("/proc/sys/kernel/random/boot_id").strip()


def read_disk(path: str) -> DiskReading:
    """Read the file system of a path; one that cannot be read has no size."""
    try:
        found = os.statvfs(path)
    except OSError:
        return DiskReading(path, 0, 0)
    return DiskReading(
        path,
        found.f_blocks * found.f_frsize,
        found.f_bavail * found.f_frsize,
        found.f_files,
        found.f_favail,
    )


def _pressure(what: str) -> int:
    """Return a PSI figure in thousandths; 0 where the kernel keeps none."""
    found = _PRESSURE.match(_text(f"/proc/pressure/{what}"))
    return round(float(found[1]) * 10) if found is not None else 0


# ---- one container -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Where the kernel keeps the counters of one container.

    Attributes:
        pid: Its main process: whose network it is.
        cpu: File of the CPU's counter.
        memory: File of the memory in use.
        memory_stat: File of what of it is cached files.
        pids: File of the number of processes.
        io: File of bytes read and written.
        is_v2: Whether they are of the unified hierarchy.
    """

    pid: int
    cpu: Path
    memory: Path
    memory_stat: Path
    pids: Path
    io: Path
    is_v2: bool


@dataclass(frozen=True, slots=True)
class TaskReading:
    """Counters of one container at one moment; the CPU's in nanoseconds."""

    at_s: float
    cpu_ns: int
    memory_bytes: int
    pids: int
    network_rx_bytes: int
    network_tx_bytes: int
    block_read_bytes: int
    block_write_bytes: int


def find_group(pid: int) -> ProcessGroup | None:
    """Return where the counters of a container's main process are; None: it has gone."""
    folders: dict[str, Path] = {}
    for line in _text(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            folder = _CGROUPS / controller if controller else _CGROUPS
            folders[controller] = folder / path.lstrip("/")
    if "memory" in folders and "cpuacct" in folders:
        pids = folders.get("pids", folders["memory"])
        return ProcessGroup(
            pid,
            folders["cpuacct"] / "cpuacct.usage",
            folders["memory"] / "memory.usage_in_bytes",
            folders["memory"] / "memory.stat",
            pids / "pids.current",
            folders.get("blkio", folders["memory"]) / "blkio.throttle.io_service_bytes",
            is_v2=False,
        )
    if "" not in folders:
        return None
    own = folders[""]
    return ProcessGroup(
        pid,
        own / "cpu.stat",
        own / "memory.current",
        own / "memory.stat",
        own / "pids.current",
        own / "io.stat",
        is_v2=True,
    )


def read_task(group: ProcessGroup, at_s: float) -> TaskReading | None:
    """Read the counters of a container; None: it has gone."""
    try:
        cpu = _bytes(group.cpu)
        memory = int(_bytes(group.memory))
        stat = _bytes(group.memory_stat)
        cpu_ns = _value(cpu, b"usage_usec") * 1000 if group.is_v2 else int(cpu)
    except (OSError, ValueError):
        return None
    unused = _value(stat, b"inactive_file" if group.is_v2 else b"total_inactive_file")
    received, sent = _network(group.pid)
    read, written = _block_io(group)
    return TaskReading(
        at_s,
        cpu_ns,
        max(0, memory - unused),
        int(_small(group.pids) or 0),
        received,
        sent,
        read,
        written,
    )


def _bytes(path: Path) -> bytes:
    """Return what a small file of the kernel holds: one call, for it is read again and again."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


def _value(data: bytes, name: bytes) -> int:
    """Return the number behind a name in a file of `name number` lines; 0: it is not there."""
    start = (b"\n" + data).find(b"\n" + name + b" ")
    return int(data[start + len(name) :].split(b"\n", 1)[0]) if start >= 0 else 0


def _network(pid: int) -> tuple[int, int]:
    """Return the bytes that a process' network stack received and sent, but on loopback."""
    received = sent = 0
    for line in _small(Path(f"/proc/{pid}/net/dev")).splitlines()[2:]:
        name, _, numbers = line.partition(b":")
        columns = numbers.split()
        if name.strip() != b"lo" and len(columns) >= 9:
            received += int(columns[0])
            sent += int(columns[8])
    return received, sent


def _block_io(group: ProcessGroup) -> tuple[int, int]:
    read = written = 0
    for line in _small(group.io).splitlines():
        words = line.split()
        if group.is_v2:
            values = dict(word.split(b"=") for word in words[1:] if b"=" in word)
            read += int(values.get(b"rbytes", 0))
            written += int(values.get(b"wbytes", 0))
        elif len(words) == 3:
            read += int(words[2]) if words[1] == b"Read" else 0
            written += int(words[2]) if words[1] == b"Write" else 0
    return read, written


def _small(path: Path) -> bytes:
    """Return what a small file of the kernel holds; nothing when it is not there."""
    try:
        return _bytes(path)
    except OSError:
        return b""


def _text(path: str | Path) -> str:
    """Return what a small file of the kernel says; nothing when it is not there."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(_FILE_BYTES_MAX)
    except OSError:
        return ""
