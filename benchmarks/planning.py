"""How many containers a second does a scheduler plan and commit to a real etcd?

    python -m benchmarks.planning [--nodes N] [--tasks N] [--services N] [--limit-s SECONDS]

One etcd, one `dray scheduler run`, and so many nodes that speak node.proto and run nothing
(`tests.sim_node`), in three processes on one machine. Projects are applied through the API, one
after another without waiting; the clock runs from the first call until the leader has committed the
last task. The nodes report what they were told, as real ones do: the scheduler's processor time
holds that too. Nomad's published runs with 2,000,000 containers on 6,100 hosts are 1,500 to 3,750
containers a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.told import about, etcd_version
from dray.client import Client, ClientLimits
from dray.model import NodeCapacity, NodeCondition, NodeInfo, Platform, ProjectSpec
from dray.names import NodeId, id_text
from tests.builders import a_service, reserving
from tests.lab.etcd import EtcdCluster
from tests.scheduler_process import SchedulerProcess, Schedulers, init_cluster
from tests.sim_node import SimNode, running_nodes

SERVICES_PER_PROJECT: Final = 20
TASKS_PER_NODE_MAX: Final = 508
POLL_S: Final = 0.2
PROGRESS_S: Final = 10.0
DEADLINE_S: Final = 3_600.0
NOMAD_PER_S: Final = (1_500, 3_750)
GIB: Final = 1024**3


def a_node_info(number: int) -> NodeInfo:
    """Return a machine that 508 small tasks fit on."""
    return NodeInfo(
        NodeId(id_text(number.to_bytes(16, "big"))),
        f"n{number}",
        1,
        "boot",
        "0.1.0",
        f"127.{1 + number // 65_536}.{number // 256 % 256}.{number % 256}",
        7946,
        Platform(),
        "20.10.24",
        NodeCapacity(128_000, 512 * GIB, tasks_max=TASKS_PER_NODE_MAX),
    )


def projects(tasks: int, services: int) -> list[ProjectSpec]:
    """Return projects whose services have so many tasks in all, evenly."""
    each, more = divmod(tasks, services)
    specs = [
        a_service(
            f"web{number:05}",
            replicas=each + (number < more),
            reservations=reserving(cpus=0.1, memory_gib=0.25),
        )
        for number in range(services)
    ]
    return [
        ProjectSpec(f"p{start:05}", services=tuple(specs[start : start + SERVICES_PER_PROJECT]))
        for start in range(0, services, SERVICES_PER_PROJECT)
    ]


def counter(scheduler: SchedulerProcess, name: str) -> float:
    """Return one of a scheduler's metrics."""
    with urllib.request.urlopen(f"http://{scheduler.metrics}/metrics", timeout=60.0) as answer:
        text = answer.read().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def measure(
    nodes: int, tasks: int, services: int, limit_s: float, lease_ttl_s: int
) -> dict[str, Any]:
    """Run the cluster, apply the projects, and return the figures."""
    with (
        tempfile.TemporaryDirectory(prefix="dray-planning-") as folder,
        EtcdCluster(1, Path(folder)) as etcd,
    ):
        init_cluster(etcd, "--range", "10.0.0.0/9")
        with Schedulers(etcd, Path(folder), 1, lease_ttl_s=lease_ttl_s) as schedulers:
            scheduler = schedulers.leader()
            infos = [a_node_info(number) for number in range(1, nodes + 1)]
            limits = ClientLimits(call_s=120.0, attempt_s=60.0)
            async with (
                running_nodes(infos, schedulers.addresses, channels_each=8) as sims,
                Client(schedulers.addresses, limits=limits) as client,
            ):
                start_s, process = time.monotonic(), psutil.Process(scheduler.running().pid)
                await all_ready(client, nodes)
                joined_s, used = time.monotonic() - start_s, process.cpu_times()
                asked = projects(tasks, services)
                figures = await planned(scheduler, etcd, client, sims, asked, limit_s)
            rounds = scheduler.told("round")
            status = etcd.etcdctl("endpoint", "status", "--write-out=json").stdout
            return {
                "join_s": round(joined_s, 2),
                "join_cpu_s": round(used.user + used.system, 2),
                **figures,
                "longest_round_s": max(line["duration_ms"] for line in rounds) / 1000,
                "terms": len(scheduler.told("leading")),
                "database_bytes": json.loads(status)[0]["Status"]["dbSize"],
            }


async def all_ready(client: Client, nodes: int) -> None:
    """Wait until the leader holds all nodes to be ready."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            counts = {each.condition: each.count for each in (await client.get_status()).nodes}
            if counts.get(NodeCondition.READY) == nodes:
                return
            await asyncio.sleep(POLL_S)


async def planned(
    scheduler: SchedulerProcess,
    etcd: EtcdCluster,
    client: Client,
    sims: list[SimNode],
    asked: list[ProjectSpec],
    limit_s: float,
) -> dict[str, Any]:
    """Apply the projects; return how long it took, and what the scheduler used.

    After `limit_s` it returns what was done until then.
    """
    total = sum(service.mode.replicas for project in asked for service in project.services)
    created = 'dray_scheduler_tasks_total{action="created"}'
    process = psutil.Process(scheduler.running().pid)
    used_s = cpu_s(process)
    server = etcd.members[0].process
    assert server is not None
    others = {"etcd": psutil.Process(server.pid), "nodes": psutil.Process()}
    before = {name: cpu_s(each) for name, each in others.items()}
    start_s = time.monotonic()
    applying = asyncio.create_task(apply_all(client, asked))
    committed_s, committed, told = 0.0, 0, 0
    progress: list[tuple[float, int, int]] = []
    while told < total and time.monotonic() - start_s < limit_s:
        await asyncio.sleep(POLL_S)
        told = sum(len(sim.tasks) for sim in sims)
        if committed < total:
            committed = max(told, int(await asyncio.to_thread(counter, scheduler, created)))
            committed_s = time.monotonic() - start_s
        if not progress or time.monotonic() - start_s > progress[-1][0] + PROGRESS_S:
            progress.append((round(time.monotonic() - start_s, 1), committed, told))
    told_s = time.monotonic() - start_s
    used_s = cpu_s(process) - used_s
    others_s = {name: round(cpu_s(each) - before[name], 1) for name, each in others.items()}
    if not applying.done():
        applying.cancel()
    await asyncio.wait({applying})
    return {
        "committed": committed,
        "committed_s": round(committed_s, 2),
        "containers_per_s": round(committed / committed_s),
        "told": told,
        "told_s": round(told_s, 2),
        "apply_s": None if applying.cancelled() else round(applying.result(), 2),
        "progress_s_committed_told": progress,
        "rounds": await asyncio.to_thread(counter, scheduler, "dray_scheduler_rounds_total"),
        "conflicts": await asyncio.to_thread(counter, scheduler, "dray_scheduler_conflicts_total"),
        "cpu_s": round(used_s, 1),
        "cpu_us_per_task": round(used_s / max(1, committed) * 1e6, 1),
        "cpu_s_of_others": others_s,
        "rss_bytes": process.memory_info().rss,
    }


def cpu_s(process: psutil.Process) -> float:
    """Return the processor time that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


async def apply_all(client: Client, asked: list[ProjectSpec]) -> float:
    """Apply one project after another, and return the seconds."""
    start_s = time.monotonic()
    for project in asked:
        await client.apply_project(project)
    return time.monotonic() - start_s


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.planning")
    parser.add_argument("--nodes", type=int, default=6_100)
    parser.add_argument("--tasks", type=int, default=2_000_000)
    parser.add_argument("--services", type=int, default=1_000)
    parser.add_argument(
        "--limit-s", type=float, default=DEADLINE_S, help="show what was done after so long"
    )
    parser.add_argument(
        "--lease-ttl-s", type=int, default=5, help="longer where others use the machine as well"
    )
    given = parser.parse_args()
    told = about("planning")
    figures = asyncio.run(
        measure(given.nodes, given.tasks, given.services, given.limit_s, given.lease_ttl_s)
    )
    shown = {
        **told,
        "etcd": etcd_version(),
        "load_after": round(os.getloadavg()[0], 2),
        "nodes": given.nodes,
        "tasks": given.tasks,
        "services": given.services,
        **figures,
        "nomad_published_containers_per_s": NOMAD_PER_S,
    }
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
