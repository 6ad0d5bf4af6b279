"""What does a reading of the machine mean? Capacity, use, and what is running short. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dray.model import FaultKind, Gpu, NodeCapacity, NodeUsage

__all__ = [
    "DISK_FREE_BYTES_MIN",
    "DISK_FREE_MIN_SHARE",
    "INODES_FREE_MIN_SHARE",
    "DiskReading",
    "MachineReading",
    "Reserve",
    "capacity_of",
    "default_reserve",
    "disk_faults",
    "usage_of",
]

DISK_FREE_MIN_SHARE: Final = 0.05
DISK_FREE_BYTES_MIN: Final = 2 * 1024**3  # of a large disk 5 % is a lot: this much is enough
INODES_FREE_MIN_SHARE: Final = 0.03
_MIB: Final = 1024**2
_ROUND_CPU_MILLIS: Final = 10
_ROUND_BYTES: Final = _MIB


@dataclass(frozen=True, slots=True)
class Reserve:
    """What is kept back for the system and never given to tasks."""

    cpu_millis: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class DiskReading:
    """A file system: sizes in bytes, inodes; 0 inodes in all: it does not count them."""

    path: str
    total_bytes: int
    free_bytes: int
    inodes_total: int = 0
    inodes_free: int = 0


@dataclass(frozen=True, slots=True)
class MachineReading:
    """What was read of the machine at one moment.

    Attributes:
        at_s: When, monotonic.
        cpus: Logical CPUs.
        cpu_busy_s: Seconds that all CPUs together have been busy since the boot.
        memory_total_bytes: Memory.
        memory_available_bytes: What could be had without swapping.
        pids: Processes.
        pids_max: How many there may be.
        engine_disk: The file system of Docker's data.
        cpu_pressure_millis: PSI "some" of the CPU over 10 s, thousandths.
        memory_pressure_millis: The same of memory.
        io_pressure_millis: The same of input and output.
    """

    at_s: float
    cpus: int
    cpu_busy_s: float
    memory_total_bytes: int
    memory_available_bytes: int
    pids: int
    pids_max: int
    engine_disk: DiskReading
    cpu_pressure_millis: int = 0
    memory_pressure_millis: int = 0
    io_pressure_millis: int = 0


def default_reserve(reading: MachineReading) -> Reserve:
    """Return what a machine of this size keeps back when nobody says.

    2 % of the CPU, 5 % of memory.

    At least 50 millis and 256 MiB, and never more than a quarter.
    """
    cpu_millis = max(50, reading.cpus * 20)
    memory_bytes = max(256 * _MIB, reading.memory_total_bytes // 20)
    return Reserve(
        min(cpu_millis, reading.cpus * 250), min(memory_bytes, reading.memory_total_bytes // 4)
    )


def capacity_of(
    reading: MachineReading, reserve: Reserve, tasks_max: int, gpus: tuple[Gpu, ...] = ()
) -> NodeCapacity:
    """Return what a machine has for tasks."""
    return NodeCapacity(
        cpu_millis=max(0, reading.cpus * 1000 - reserve.cpu_millis),
        memory_bytes=max(0, reading.memory_total_bytes - reserve.memory_bytes),
        disk_bytes=reading.engine_disk.total_bytes,
        pids=reading.pids_max,
        tasks_max=tasks_max,
        gpus=gpus,
    )


def usage_of(before: MachineReading | None, now: MachineReading) -> NodeUsage:
    """Return what a machine uses, rounded so that noise is no news (10 millis, 1 MiB).

    Args:
        before: The reading before; None: the CPU's use is not known yet.
        now: The newest reading.
    """
    cpu_millis = 0
    if before is not None and now.at_s > before.at_s:
        busy_s = max(0.0, now.cpu_busy_s - before.cpu_busy_s)
        cpu_millis = round(1000 * busy_s / (now.at_s - before.at_s))
    disk = now.engine_disk
    return NodeUsage(
        cpu_millis=_rounded(min(cpu_millis, now.cpus * 1000), _ROUND_CPU_MILLIS),
        memory_bytes=_rounded(now.memory_total_bytes - now.memory_available_bytes, _ROUND_BYTES),
        disk_bytes=_rounded(disk.total_bytes - disk.free_bytes, _ROUND_BYTES),
        inodes_free=_rounded(disk.inodes_free, 1000),
        pids=now.pids,
        cpu_pressure_millis=now.cpu_pressure_millis,
        memory_pressure_millis=now.memory_pressure_millis,
        io_pressure_millis=now.io_pressure_millis,
    )


def _rounded(value: int, step: int) -> int:
    return round(value / step) * step


def disk_faults(disks: tuple[DiskReading, ...]) -> dict[FaultKind, str]:
    """Return what is running short on the node's disks, with the next step."""
    faults: dict[FaultKind, str] = {}
    for disk in disks:
        enough = min(int(disk.total_bytes * DISK_FREE_MIN_SHARE), DISK_FREE_BYTES_MIN)
        if disk.total_bytes and disk.free_bytes < enough:
            faults.setdefault(
                FaultKind.DISK_FULL,
                f"{disk.free_bytes // _MIB} MiB are free at {disk.path}: remove images and volumes "
                "that nobody uses (`docker system prune`), or give it a larger disk",
            )
        if disk.inodes_total and disk.inodes_free < disk.inodes_total * INODES_FREE_MIN_SHARE:
            faults.setdefault(
                FaultKind.INODES_LOW,
                f"{disk.inodes_free} inodes are free at {disk.path}: many small files fill it",
            )
    return faults
