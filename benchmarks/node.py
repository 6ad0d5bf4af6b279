"""How fast does a node start containers, beside `docker run`, and what does its daemon cost?

`python -m benchmarks.node` prints JSON. Needs root: a lab host with a Docker Engine of its own.

- *start*: so many containers from an assignment to RUNNING, by the agent; and the same ones by
  `docker run -d`, eight at a time, on the same engine in the same run, by turns.
- *adopt*: a new daemon's start to knowing all of them.
- *idle*: CPU (share of one core) and memory (PSS) of a process that runs the agent alone, with
  these containers running.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.lab import memory_bytes
from dray.log import LogLevel, configure
from dray.model import AttemptState, ImageOptions
from node.runtime.docker import DockerRuntime
from tests.lab import BUSYBOX, Host, Lab
from tests.node_agent import Rig, a_task, an_entry

DEFAULT_CONTAINERS = 100
DEFAULT_REPEATS = 3
DEFAULT_IDLE_S = 30.0
DOCKER_RUNS_AT_ONCE = 8
WAIT_S = 900.0
# Ends at once on SIGTERM, so that cleaning up is not what takes the time.
COMMAND = ("sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait")


def by_docker_run(host: Host, count: int) -> float:
    """Start containers by `docker run`, eight at a time; return the seconds it took."""

    def start(number: int) -> None:
        subprocess.run(
            [
                *("docker", "-H", host.docker_url, "run", "-d", "--network", "none"),
                *("--name", f"bench-{number}", BUSYBOX.reference, *COMMAND),
            ],
            check=True,
            capture_output=True,
        )

    begin = time.perf_counter()
    with ThreadPoolExecutor(DOCKER_RUNS_AT_ONCE) as pool:
        list(pool.map(start, range(count)))
    took_s = time.perf_counter() - begin
    clean(host)
    return took_s


def clean(host: Host) -> None:
    """Remove all containers of a host."""
    with ThreadPoolExecutor(DOCKER_RUNS_AT_ONCE) as pool:
        found = host.docker.containers.list(all=True)
        list(pool.map(lambda container: container.remove(force=True, v=True), found))


async def by_agent(rig: Rig, count: int) -> float:
    """Start containers by an assignment; return the seconds it took."""
    entry = an_entry(image=ImageOptions(BUSYBOX.reference), command=COMMAND)
    async with rig.daemon():
        begin = time.perf_counter()
        await rig.assign(*(a_task(number + 1) for number in range(count)), entries=(entry,))
        await all_running(rig, count)
        return time.perf_counter() - begin


async def all_running(rig: Rig, count: int) -> None:
    """Wait until the leader would know that all tasks run."""

    def holds() -> bool:
        reports = rig.agent.book.reports.values()
        return sum(report.state is AttemptState.RUNNING for report in reports) == count

    await rig.until(holds, f"{count} tasks run")


async def adoption(rig: Rig, count: int) -> float:
    """Return the seconds from a daemon's start to its knowing all containers."""
    begin = time.perf_counter()
    async with rig.daemon():
        await all_running(rig, count)
        return time.perf_counter() - begin


async def idle(rig: Rig, count: int, duration_s: float) -> dict[str, float]:
    """Return what this process costs while it does nothing but keep the containers."""
    async with rig.daemon():
        await all_running(rig, count)
        before = time.process_time()
        await asyncio.sleep(duration_s)
        cpu = (time.process_time() - before) / duration_s
    return {
        "cpu_percent": round(100 * cpu, 2),
        "pss_mib": round(memory_bytes({os.getpid()}) / 1024**2, 1),
    }


async def measure(host: Host, arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Measure by turns, so that both meet the same machine."""
    count: int = arguments.containers
    ours, theirs, adopted = [], [], []
    rest: dict[str, float] = {}
    for turn in range(arguments.repeats):
        theirs.append(await asyncio.to_thread(by_docker_run, host, count))
        rig = Rig(folder / f"node{turn}", lambda: DockerRuntime(host.docker_socket))
        rig.wait_s = WAIT_S
        ours.append(await by_agent(rig, count))
        adopted.append(await adoption(rig, count))
        if turn == arguments.repeats - 1:
            rest = await idle(rig, count, arguments.idle_s)
        await asyncio.to_thread(clean, host)
    ratio = statistics.median(ours) / statistics.median(theirs)
    return {
        "containers": count,
        "start_s": rounded(ours),
        "docker_run_8_way_s": rounded(theirs),
        "ratio_of_medians": round(ratio, 3),
        "adopt_s": rounded(adopted),
        "idle": rest,
    }


def rounded(values: list[float]) -> list[float]:
    """Return figures to the hundredth."""
    return [round(value, 2) for value in values]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.node")
    parser.add_argument("--containers", type=int, default=DEFAULT_CONTAINERS)
    parser.add_argument("--repeats", type=int, default=DEFAULT_REPEATS)
    parser.add_argument("--idle-s", type=float, default=DEFAULT_IDLE_S)
    arguments = parser.parse_args()
    configure(level=LogLevel.ERROR)
    with Lab.up(1) as lab, tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(lab.host(1), arguments, Path(folder)))
    machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
    json.dump({"benchmark": "node", "machine": machine, **result}, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
