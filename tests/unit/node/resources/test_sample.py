"""What do readings of a machine come to?"""

from __future__ import annotations

import os

from dray.model import FaultKind
from node.resources.read import find_group, read_disk, read_machine, read_task
from node.resources.sample import (
    DiskReading,
    MachineReading,
    Reserve,
    capacity_of,
    default_reserve,
    disk_faults,
    usage_of,
)

GIB = 1024**3
DISK = DiskReading("/var/lib/docker", 100 * GIB, 40 * GIB, 1_000_000, 500_000)


def a_reading(at_s: float = 10.0, busy_s: float = 5.0) -> MachineReading:
    """Return a reading of a machine with 4 CPUs and 16 GiB."""
    return MachineReading(at_s, 4, busy_s, 16 * GIB, 12 * GIB, 200, 32_768, DISK)


def test_capacity_is_what_is_left_of_the_machine() -> None:
    """The reserve is never given to tasks; small machines keep at most a quarter back."""
    reserve = default_reserve(a_reading())
    capacity = capacity_of(a_reading(), reserve, 508)
    assert (capacity.cpu_millis, capacity.tasks_max) == (3920, 508)
    assert capacity.memory_bytes == 16 * GIB - 16 * GIB // 20
    assert capacity.disk_bytes == 100 * GIB
    assert capacity_of(a_reading(), Reserve(9_999, 99 * GIB), 1).cpu_millis == 0


def test_use_is_the_difference_of_two_readings() -> None:
    """The first reading says nothing of the CPU; noise below the steps is no news."""
    assert usage_of(None, a_reading()).cpu_millis == 0
    usage = usage_of(a_reading(10.0, 5.0), a_reading(15.0, 11.0))
    assert usage.cpu_millis == 1200
    assert usage.memory_bytes == 4 * GIB
    assert usage.disk_bytes == 60 * GIB
    assert usage == usage_of(a_reading(10.0, 5.0), a_reading(15.0, 11.01))


def test_disks_that_run_short_are_faults_with_the_next_step() -> None:
    """Bytes and inodes apart; a disk that cannot be read is none."""
    assert disk_faults((DISK, DiskReading("/x", 0, 0))) == {}
    full = disk_faults((DiskReading("/d", 100 * GIB, GIB, 100, 2),))
    assert full.keys() == {FaultKind.DISK_FULL, FaultKind.INODES_LOW}
    assert "docker system prune" in full[FaultKind.DISK_FULL]
    small = DiskReading("/d", 10 * GIB, GIB)
    assert disk_faults((small,)) == {}


def test_the_machine_and_a_process_can_be_read() -> None:
    """Figures of this very machine and process are plausible; what is gone has none."""
    reading = read_machine("", 1.0)
    assert reading.memory_total_bytes > reading.memory_available_bytes > 0
    assert reading.cpus >= 1
    assert reading.engine_disk.total_bytes > 0
    assert read_disk("/absent/path").total_bytes == 0
    assert find_group(2**22 + 1) is None
    group = find_group(os.getpid())
    assert group is not None
    found = read_task(group, 1.0)
    assert found is None or found.memory_bytes >= 0
