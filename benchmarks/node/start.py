"""How fast does a node's agent start containers, beside `docker run` on the same engine?

The agent alone, without gossip, DNS and network: what the engine's adapter and the task machine
cost. Both start the same containers by turns, so that both meet the same machine.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.node.docker_run import COMMAND, by_docker_run, clean
from dray.model import AttemptState, ImageOptions
from node.runtime.docker import DockerRuntime
from tests.lab import BUSYBOX, Host, Lab
from tests.node_agent import Rig, a_task, an_entry

__all__ = ["measure"]

WAIT_S: Final = 900.0


async def by_agent(rig: Rig, count: int) -> float:
    """Start containers by an assignment; return the seconds until all are reported as running."""
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
    """Return the seconds from an agent's start to its knowing all containers."""
    begin = time.perf_counter()
    async with rig.daemon():
        await all_running(rig, count)
        return time.perf_counter() - begin


async def by_turns(host: Host, count: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Start containers by `docker run` and by the agent, in turn."""
    ours, theirs, adopted = [], [], []
    for turn in range(repeats):
        theirs.append(await asyncio.to_thread(by_docker_run, host, count))
        rig = Rig(folder / f"node{turn}", lambda: DockerRuntime(host.docker_socket))
        rig.wait_s = WAIT_S
        ours.append(await by_agent(rig, count))
        adopted.append(await adoption(rig, count))
        await asyncio.to_thread(clean, host)
    return {
        "containers": count,
        "start_s": [round(value, 2) for value in ours],
        "docker_run_8_way_s": [round(value, 2) for value in theirs],
        "ratio_of_medians": round(statistics.median(ours) / statistics.median(theirs), 3),
        "adopt_s": [round(value, 3) for value in adopted],
    }


def measure(containers: int, repeats: int) -> dict[str, Any]:
    """Measure on a host of its own.

    Args:
        containers: How many each side starts in a turn.
        repeats: Turns.
    """
    with Lab.up(1) as lab, tempfile.TemporaryDirectory() as folder:
        return asyncio.run(by_turns(lab.host(1), containers, repeats, Path(folder)))
