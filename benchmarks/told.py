"""What does every result say about its own making?"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys

__all__ = ["about"]


def about(name: str) -> dict[str, object]:
    """Return the command, commit, day and machine of a benchmark's run, as JSON takes it."""
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
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
