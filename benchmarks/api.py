"""How long does a user wait for the cluster's answers? Prints JSON.

`python -m benchmarks.api [--tasks 2000] [--repeats 15]`

Two schedulers serve the users' API in one process of their own, over a store in memory; the leader
holds a cluster of so many running tasks. Measured are whole calls of the client library through
TCP, on the leader and on the other scheduler, and whole `dray ps` processes; beside them a call
that does nothing but come back, and a bare interpreter. The processor time of processes is told as
well: other work on the machine disturbs it less.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import logging
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.told import about
from dray.addresses import HostPort, parse_host_port
from dray.client import Client
from dray.log import LogLevel, configure
from tests.builders import a_node, a_service, a_slot, a_task
from tests.contract.client.rig import Cluster, cluster, project_of, running

PS_BUDGET_MS: Final = 300.0  # of `dray ps` at 2,000 tasks
TASKS_A_NODE: Final = 200
TASKS_A_SERVICE: Final = 100
PROJECT: Final = "shop"


async def fill(made: Cluster, tasks: int) -> None:
    """Register nodes and let them run so many tasks of services of one project."""
    nodes = max(1, tasks // TASKS_A_NODE)
    await made.register(*(a_node(number) for number in range(1, nodes + 1)))
    made.lead()
    names = [f"s{number:04}" for number in range(max(1, tasks // TASKS_A_SERVICE))]
    async with made.client(made.first) as client:
        for start in range(0, len(names), 20):
            wanted = [a_service(name, replicas=TASKS_A_SERVICE) for name in names[start:][:20]]
            await client.apply_project(project_of(*wanted))
    all_tasks = [
        a_task(number, a_slot(number % TASKS_A_SERVICE + 1, names[number // TASKS_A_SERVICE]))
        for number in range(tasks)
    ]
    await made.assign({n: all_tasks[n - 1 :: nodes] for n in range(1, nodes + 1)})
    made.report(*map(running, all_tasks))
    made.lead()


def serve(tasks: int, pipe: Connection) -> None:
    """Serve a full cluster until the other end of the pipe closes."""
    configure(level=LogLevel.ERROR)

    async def run() -> None:
        async with cluster(2) as made:
            await fill(made, tasks)
            pipe.send([str(each.address) for each in made.schedulers])
            with contextlib.suppress(EOFError):
                await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


async def timed(call: Callable[[], Awaitable[object]], repeats: int) -> list[float]:
    """Return milliseconds of repeated calls; the first one warms up and does not count."""
    found = []
    for number in range(repeats + 1):
        start_s = time.perf_counter()
        await call()
        if number:
            found.append((time.perf_counter() - start_s) * 1000)
    return found


async def calls(hosts: list[HostPort], repeats: int) -> dict[str, list[float]]:
    """Measure calls of the client library."""
    found = {}
    for name, host in zip(("leader", "other"), hosts, strict=True):
        async with Client([host]) as client:
            found[f"cluster info, {name}"] = await timed(client.get_cluster_info, repeats)
            listing = functools.partial(client.list_tasks, PROJECT)
            found[f"list tasks, {name}"] = await timed(listing, repeats)
            found[f"status, {name}"] = await timed(client.get_status, repeats)
            found[f"scale, {name}"] = await timed(Scaling(client), repeats)
    return found


class Scaling:
    """Scales a service, to another number each time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._replicas = TASKS_A_SERVICE

    async def __call__(self) -> None:
        """Scale once."""
        self._replicas += 1
        await self._client.scale_services(PROJECT, {"s0000": self._replicas})


def processes(hosts: list[HostPort], repeats: int, cache: str) -> dict[str, list[float]]:
    """Measure whole processes, one after the other in each round.

    Args:
        hosts: The schedulers.
        repeats: How many rounds; one more warms up, and compiles as an installation does.
        cache: A folder for compiled modules, whatever this process was told of them.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    words = [sys.executable, "-m", "cli", "--host", str(hosts[0]), "ps", "-p", PROJECT]
    commands = {
        "interpreter": [sys.executable, "-c", "pass"],
        "dray status": [*words[:5], "status"],
        "dray ps": words,
        "dray ps --format json": [*words, "--format", "json"],
    }
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(repeats + 1):
        for name, command in commands.items():
            start_s, used_s = time.perf_counter(), _children_s()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            if number:
                found[name].append((time.perf_counter() - start_s) * 1000)
                found[f"{name}, processor"].append((_children_s() - used_s) * 1000)
    return found


def _children_s() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(tasks: int, times: dict[str, list[float]]) -> dict[str, object]:
    """Return medians and extremes."""
    shown = {
        name: {
            "median_ms": round(statistics.median(each), 1),
            "best_ms": round(min(each), 1),
            "worst_ms": round(max(each), 1),
        }
        for name, each in times.items()
    }
    return {
        **about("api"),
        "tasks": tasks,
        "repeats": len(times["dray ps"]),
        "times": shown,
        "ps_budget_ms": PS_BUDGET_MS,
        "ps_is_within_budget": statistics.median(times["dray ps"]) < PS_BUDGET_MS,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=2_000, help="tasks that run")
    parser.add_argument("--repeats", type=int, default=15, help="calls of each kind")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    spawning = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    ours, theirs = spawning.Pipe()
    server = spawning.Process(target=serve, args=(given.tasks, theirs))
    server.start()
    try:
        hosts = [parse_host_port(text) for text in ours.recv()]
        times = asyncio.run(calls(hosts, given.repeats))
        with tempfile.TemporaryDirectory(prefix="dray-api-") as cache:
            times |= processes(hosts, given.repeats, cache)
    finally:
        ours.close()
        theirs.close()
        server.join(10)
        server.kill()
    print(json.dumps(report(given.tasks, times), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
