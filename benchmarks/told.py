"""What does every result say about its own making?"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys

__all__ = ["about", "etcd_version"]


def about(name: str) -> dict[str, object]:
    """Return the command, commit, day, machine and load of a run, as JSON takes it.

    Ask before anything is measured: the load is what else the machine does.
    """
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "benchmark": name,
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "commit": described.stdout.strip(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def etcd_version() -> str:
    """Return what the installed etcd says it is."""
    said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=False)
    return said.stdout.partition("\n")[0]
