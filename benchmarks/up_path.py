"""Where does the time go between `dray up` and the moment when a node knows? Prints JSON.

    python -m benchmarks.up_path [--repeats 15]

One etcd, one scheduler and some nodes that run nothing, on loopback; a project of one service, new
each time, is applied by a cold process. No container is started, so that only the control plane
counts. Milliseconds from the start of the command:

- `asked`: the call reaches the scheduler: Python, imports, the Compose file, the connection.
- `answered`: the call is answered; the project is in the store, and its revision in the view.
- `round`: the leader's round begins.
- `told`: the assignment has reached the node.
- `ended`: the command has ended (`--detach`).
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.told import about, etcd_version
from tests.builders import an_info
from tests.lab.etcd import EtcdCluster
from tests.scheduler_process import SchedulerProcess, Schedulers, init_cluster
from tests.sim_node import SimNode, running_nodes

NODES: Final = 3
DEADLINE_S: Final = 30.0
POLL_S: Final = 0.0005
MARKS: Final = ("asked", "answered", "round", "told", "ended")
COMPOSE: Final = (
    "name: {name}\nservices:\n  web:\n    image: busybox\n    command: [sleep, '1000']\n"
)


def logged_s(line: dict[str, Any]) -> float:
    """Return when a line was written, wall clock."""
    return datetime.datetime.fromisoformat(line["at"]).timestamp()


async def one(scheduler: SchedulerProcess, nodes: list[SimNode], path: Path) -> dict[str, float]:
    """Apply one project; return its marks, in milliseconds."""
    name = path.stem
    await asyncio.to_thread(path.write_text, COMPOSE.format(name=name))
    before = len(scheduler.log())
    command = [sys.executable, "-m", "cli", "--host", str(scheduler.address)]
    start_s = time.time()
    process = await asyncio.create_subprocess_exec(
        *command, "up", "-d", "-f", str(path), stdout=asyncio.subprocess.DEVNULL
    )
    ending = asyncio.create_task(process.wait())
    async with asyncio.timeout(DEADLINE_S):
        while not any(t.slot.project == name for node in nodes for t in node.tasks.values()):
            await asyncio.sleep(POLL_S)
        told_s = time.time()
        assert await ending == 0
        ended_s = time.time()
        while not (rounds := _lines(scheduler, before, "round", created=1)):
            await asyncio.sleep(0.01)
    (call,) = _lines(scheduler, before, "call", method="ApplyProject")
    marks = {
        "asked": logged_s(call) - call["duration_ms"] / 1000,
        "answered": logged_s(call),
        "round": logged_s(rounds[0]) - rounds[0]["duration_ms"] / 1000,
        "told": told_s,
        "ended": ended_s,
    }
    return {mark: (at_s - start_s) * 1000 for mark, at_s in marks.items()}


def _lines(scheduler: SchedulerProcess, after: int, event: str, **known: Any) -> list[Any]:
    """Return the lines of an event since the `after`-th line, with these fields."""
    lines = [line for line in scheduler.log()[after:] if line["event"] == event]
    return [line for line in lines if known.items() <= line.items()]


async def measure(repeats: int) -> dict[str, Any]:
    """Apply projects, and return medians and extremes."""
    runs: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="dray-up-path-") as folder,
        EtcdCluster(1, Path(folder)) as etcd,
    ):
        await asyncio.to_thread(init_cluster, etcd)
        with Schedulers(etcd, Path(folder), 1) as schedulers:
            leader = await asyncio.to_thread(schedulers.leader)
            infos = [an_info(number) for number in range(1, NODES + 1)]
            async with running_nodes(infos, schedulers.addresses) as nodes:
                for number in range(repeats + 1):
                    marks = await one(leader, nodes, Path(folder) / f"p{number}.yaml")
                    if number:  # the first one compiles what was never run
                        runs.append(marks)
    return {
        mark: {
            "median_ms": round(statistics.median(run[mark] for run in runs), 1),
            "best_ms": round(min(run[mark] for run in runs), 1),
            "worst_ms": round(max(run[mark] for run in runs), 1),
        }
        for mark in MARKS
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    shown = {
        **about("up_path"),
        "etcd": etcd_version(),
        "marks": asyncio.run(measure(given.repeats)),
        "load_after": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
