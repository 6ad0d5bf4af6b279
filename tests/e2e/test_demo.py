"""Does the demo hold, run as a newcomer runs it?"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dray import __version__
from tests.lab import Host, Lab

DEMO_LIMIT_S = 240.0  # on a busy machine; a quiet one needs less than 60


@pytest.mark.timeout(DEMO_LIMIT_S + 30)
def test_the_demo_runs_to_its_end() -> None:
    """A project comes up on a new machine, heals, scales, goes down, and leaves nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo"],
        capture_output=True,
        text=True,
        timeout=DEMO_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum(" running " in line for line in lines) >= 7, done.stdout  # shown by ps, twice
    assert any("3 replicas answered" in line for line in lines), done.stdout
    assert any("web: converged, 5 running" in line for line in lines), done.stdout
    assert any("project demo: removed" in line for line in lines), done.stdout
    assert lines[-1].endswith("nothing left behind."), done.stdout


def test_the_demo_refuses_bad_input() -> None:
    """A flag that it does not have is a usage error that shows those it has."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo", "--hosts", "3"],
        capture_output=True,
        text=True,
        timeout=DEMO_LIMIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "unrecognized arguments: --hosts" in done.stderr
    assert "--keep" in done.stderr


def test_the_command_works_on_every_host(lab: Lab) -> None:
    """`dray` runs on each of several hosts, which differ by name, and says its version."""
    answers = [_version_on(host) for host in lab.hosts]
    assert len(answers) == len(lab.hosts) >= 2
    assert set(answers) == {__version__}
    assert len({host.exec(["hostname"]).stdout for host in lab.hosts}) == len(lab.hosts)


def _version_on(host: Host) -> str:
    command = [sys.executable, "-m", "cli", "version", "--format", "json"]
    components = json.loads(host.exec(command).stdout)
    return str(components[0]["version"])
