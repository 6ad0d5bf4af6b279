"""How long does the lab take to come up and go, and how much memory does it need?

`python -m benchmarks.lab` prints JSON. Needs root. Every figure is of whole calls of `Lab.up` and
`Lab.down`, as a test sees them: with images loaded, and with the check that nothing is left.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab import Host, Lab
from tests.lab.images import image_archive

DEFAULT_HOSTS = (3, 5, 8)
DEFAULT_REPEATS = 5
REPEATS_MAX = 100


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Return the median and both ends of some figures."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def memory_bytes(pids: set[int]) -> int:
    """Return the memory of processes, shared pages divided among those that share them (PSS)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def measure_size(hosts: int, repeats: int) -> dict[str, object]:
    """Bring a lab up and down again and again."""
    up_s, down_s, host_mib = [], [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        lab = Lab.up(hosts)
        up_s.append(time.perf_counter() - begin)
        host_mib.append(memory_bytes(lab.cgroups.processes()) / hosts / 2**20)
        down_s.append(seconds(lab.down))
    return {
        "hosts": hosts,
        "up_s": spread(up_s),
        "down_s": spread(down_s),
        "memory_mib_per_host": spread(host_mib, 0),
    }


def measure_faults(repeats: int) -> dict[str, object]:
    """Time what tests do to a host of a lab of three."""
    actions: dict[str, Callable[[Host], object]] = {
        "cut_s": Host.cut,
        "heal_s": Host.heal,
        "power_off_s": Host.power_off,
        "boot_s": Host.boot,
        "kill_engine_s": Host.kill_engine,
        "start_engine_s": Host.start_engine,
        "exec_s": lambda host: host.exec(["true"]),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    with Lab.up(3) as lab:
        for _ in range(repeats):
            for name, action in actions.items():
                times[name].append(seconds(lambda: action(lab.host(2))))  # noqa: B023 - called at once
    return {name: spread(values, 3) for name, values in times.items()}


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    engine = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=True)
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engine": engine.stdout.strip(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=DEFAULT_HOSTS, metavar="N")
    parser.add_argument("--repeats", type=int, default=DEFAULT_REPEATS, metavar="N")
    arguments = parser.parse_args(argv)
    repeats = min(max(arguments.repeats, 1), REPEATS_MAX)
    about = machine()
    image_archive()  # made once per machine; later labs find it in the cache
    result = {
        "benchmark": "lab",
        "machine": about,
        "repeats": repeats,
        "sizes": [measure_size(hosts, repeats) for hosts in arguments.hosts],
        "faults_lab_of_3": measure_faults(repeats),
    }
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
