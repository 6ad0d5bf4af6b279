"""Does the test command find what a test leaves on the machine? Each thing is left on purpose.

The rules that need neither root nor an engine to break are in tests/house/test_gates.py.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.house.workbench import Copy, Verdict
from tests.lab.fixtures import LabFactory
from tests.lab.images import ALL

NAMESPACE: Final = "dray-gate"
INTERFACE: Final = "dray-gate0"
IMAGE: Final = ALL[0].reference
_TOP: Final = Path("/sys/fs/cgroup")
CGROUP: Final = (_TOP if (_TOP / "cgroup.procs").exists() else _TOP / "pids") / "dray-gate"

# What each faulty test runs, and what must be said of it.
FAULTS: Final = {
    "container": (["docker", "create", "--name", "dray-gate", IMAGE, "true"], "dray-gate"),
    "namespace": (["ip", "netns", "add", NAMESPACE], f"network namespace /run/netns/{NAMESPACE}"),
    "interface": (["ip", "link", "add", INTERFACE, "type", "bridge"], f"interface {INTERFACE}"),
    "mount": (["mount", "-t", "tmpfs", "dray-gate", "{folder}"], "mount {folder}"),
    "cgroup": (["mkdir", str(CGROUP)], f"cgroup {CGROUP}"),
}
TEST: Final = '''"""Leaves a {name} behind."""

import subprocess


def test_fault() -> None:
    """Leave a {name} behind."""
    subprocess.run({command!r}, check=True)
'''
FAULT_LINE: Final = 6  # of the test function


@contextlib.contextmanager
def cleaned(folder: Path) -> Iterator[None]:
    """Remove afterwards what the faulty tests leave on the machine itself."""
    named = Path("/run/netns")  # which `ip netns` mounts on itself when it is used first
    had_named = named.exists()
    try:
        yield
    finally:
        for command in (
            ["ip", "netns", "delete", NAMESPACE],
            ["ip", "link", "delete", INTERFACE],
            ["umount", str(folder)],
            ["rmdir", str(CGROUP)],
        ):
            subprocess.run(command, check=False, capture_output=True)
        if not had_named and named.exists():
            subprocess.run(["umount", str(named)], check=False)
            named.rmdir()


@pytest.fixture
def verdict(lab_factory: LabFactory, tmp_path: Path) -> Iterator[tuple[Verdict, Path]]:
    """Run the integration layer with nothing in it but the faults, beside a real engine."""
    host = lab_factory(1).host(1)
    folder = tmp_path / "mounted"
    folder.mkdir()
    bench = Copy(tmp_path / "tree", without=("tests/integration/",))
    for name, (words, _) in FAULTS.items():
        command = [word.format(folder=folder) for word in words]
        text = TEST.format(name=name, command=command)
        bench.append(f"tests/integration/test_{name}.py", text)
    with cleaned(folder):
        try:
            found = bench.test("--layer", "integration", variables={"DOCKER_HOST": host.docker_url})
            yield found, folder
        finally:
            for container in host.docker.containers.list(all=True, filters={"name": "dray-gate"}):
                container.remove(force=True)


def test_what_a_test_leaves_on_the_machine_is_found(verdict: tuple[Verdict, Path]) -> None:
    """A container, namespace, interface, mount and cgroup each fail the test that left it."""
    found, folder = verdict
    for name, (_, says) in FAULTS.items():
        path = f"tests/integration/test_{name}.py"
        assert found.names(path, FAULT_LINE, says.format(folder=folder)), (name, found.output)
    assert found.output.splitlines()[-1] == f"0 passed, {len(FAULTS)} failed"
