"""Are the kernel's counters of a container read right, in both of their forms?"""

from __future__ import annotations

from pathlib import Path

import pytest

from node.resources.read import ProcessGroup, TaskReading, read_task

NO_PID = 2**22 + 1  # above what any kernel gives: it has no network to read
V1 = {
    "cpu": "7000000123\n",
    "memory": "5000000\n",
    "memory.stat": "inactive_file 9\ntotal_inactive_file 1000000\ntotal_unevictable 0\n",
    "pids": "3\n",
    "io": "8:0 Read 4096\n8:0 Write 8192\n8:0 Total 12288\n8:16 Read 1\nTotal 12289\n",
}
V2 = {
    "cpu": "usage_usec 7000000\nuser_usec 1\n",
    "memory": "5000000\n",
    "memory.stat": "anon 1\nfile 2\ninactive_file 1000000\n",
    "pids": "3\n",
    "io": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2\n8:16 rbytes=1 wbytes=0\n",
}


def group(folder: Path, files: dict[str, str], *, is_v2: bool) -> ProcessGroup:
    """Write the files of a container."""
    for name, text in files.items():
        (folder / name).write_text(text)
    return ProcessGroup(
        NO_PID,
        cpu=folder / "cpu",
        memory=folder / "memory",
        memory_stat=folder / "memory.stat",
        pids=folder / "pids",
        io=folder / "io",
        is_v2=is_v2,
    )


@pytest.mark.parametrize(
    ("files", "is_v2", "cpu_ns"), [(V1, False, 7_000_000_123), (V2, True, 7_000_000_000)]
)
def test_counters_are_read(tmp_path: Path, files: dict[str, str], is_v2: bool, cpu_ns: int) -> None:
    """Files that the kernel could drop at once do not count as memory in use."""
    found = read_task(group(tmp_path, files, is_v2=is_v2), 1.0)
    assert found == TaskReading(1.0, cpu_ns, 4_000_000, 3, 0, 0, 4097, 8192)


@pytest.mark.parametrize("name", ["cpu", "memory", "memory.stat"])
def test_a_container_that_has_gone_has_no_counters(tmp_path: Path, name: str) -> None:
    """Its files vanish between two readings; no process and no disk counters are no reason."""
    whole = group(tmp_path, V2, is_v2=True)
    (tmp_path / name).unlink()
    assert read_task(whole, 1.0) is None


def test_a_kernel_that_counts_less_gives_less(tmp_path: Path) -> None:
    """Without counters of processes and disks the others are read all the same."""
    some = group(tmp_path, V2, is_v2=True)
    (tmp_path / "pids").unlink()
    (tmp_path / "io").write_text("")
    (tmp_path / "memory.stat").write_text("anon 1\n")
    assert read_task(some, 1.0) == TaskReading(1.0, 7_000_000_000, 5_000_000, 0, 0, 0, 0, 0)
