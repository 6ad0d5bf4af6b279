"""What does a whole node daemon cost with many containers, and how soon does a new one know them?

A real `dray node run` on a lab host, with its network, gossip, DNS and metrics, told what to run by
a real scheduler; `docker run` on the same engine is what it is measured against.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.deploy import last_start_s
from benchmarks.lab import memory_bytes
from benchmarks.node import users
from benchmarks.node.docker_run import by_docker_run
from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import Host, Lab
from tests.lab.etcd import EtcdCluster
from tests.lab.wait import wait_for

__all__ = ["measure"]

LIMIT_S: Final = 600.0
SETTLE_S: Final = 10.0  # what a start leaves to do (reports, facts) is over by then
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
ADOPTED: Final = "containers adopted"
COMPOSE: Final = """
name: many
services:
  web:
    image: dray-test/busybox:1
    command: ["sleep", "100000"]
    stop_grace_period: 0s
    deploy:
      replicas: {replicas}
      restart_policy: {{delay: 1s}}
      update_config: {{monitor: 0s}}
"""


def tree(pid: int) -> set[int]:
    """Return a process and all that it has started."""
    found, left = set(), [pid]
    while left:
        each = left.pop()
        found.add(each)
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{each}/task").iterdir():
                left += [int(word) for word in (thread / "children").read_text().split()]
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and those it has waited for have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS_PER_S


def running(host: Host) -> int:
    """Return how many containers run, by the engine."""
    return len(host.docker.api.containers(filters={"label": ["dray.service=web"]}))


def started_at(host: Host) -> dict[str, str]:
    """Return the ids of running containers with their status' start."""
    listed = host.docker.api.containers(filters={"label": ["dray.service=web"]})
    return {each["Id"]: str(each["Created"]) for each in listed}


def scaled(cluster: Cluster, host: Host, replicas: int, before: int) -> dict[str, Any]:
    """Bring the service to so many replicas; return what that took.

    *start_s* is until the last container has started, by the engine's records, *told_s* until
    `dray up` has said so.
    """
    node = cluster.nodes[host.index]
    began_s, began_cpu_s = time.time(), cpu_s(node.pid)
    cluster.up(
        COMPOSE.format(replicas=replicas),
        "--timeout",
        f"{LIMIT_S:g}s",
        limit_s=LIMIT_S,
    )
    told_s = time.time() - began_s
    wait_for(lambda: running(host) == replicas, "all run", deadline_s=LIMIT_S, poll_s=0.05)
    used_s = cpu_s(node.pid) - began_cpu_s
    last_s = last_start_s([host], replicas, {"label": "dray.service=web"}) - began_s
    return {
        "started": replicas - before,
        "start_s": round(last_s, 2),
        "told_s": round(told_s, 2),
        "start_cpu_ms_each": round(1000 * used_s / (replicas - before), 1),
    }


def idle(cluster: Cluster, host: Host, duration_s: float) -> dict[str, float]:
    """Return what the daemon's processes cost while nothing happens."""
    pid = cluster.nodes[host.index].pid
    time.sleep(SETTLE_S)
    before_s, began_s = sum(map(cpu_s, tree(pid))), time.perf_counter()
    time.sleep(duration_s)
    share = (sum(map(cpu_s, tree(pid))) - before_s) / (time.perf_counter() - began_s)
    return {
        "idle_cpu_percent": round(100 * share, 2),
        "pss_mib": round(memory_bytes(tree(pid)) / 1024**2, 1),
        "processes": len(tree(pid)),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
    }


def adoption(cluster: Cluster, host: Host) -> dict[str, Any]:
    """Kill the daemon, start another one; return how soon it knows all containers."""
    before = started_at(host)
    node = cluster.nodes[host.index]
    os.kill(node.pid, signal.SIGKILL)
    node.wait(LIMIT_S)
    known = cluster.log(host, "node").count(ADOPTED)
    began_s = time.perf_counter()
    cluster.start_node(host)
    wait_for(
        lambda: cluster.log(host, "node").count(ADOPTED) > known,
        "the new daemon has adopted them",
        deadline_s=LIMIT_S,
        poll_s=0.005,
    )
    took_s = time.perf_counter() - began_s
    cluster.wait_ready(1)
    after = started_at(host)
    return {
        "process_start_to_adopted_s": round(took_s, 2),
        "containers_restarted": len(before.keys() - after.keys()),
    }


@contextlib.contextmanager
def _cluster() -> Iterator[tuple[Cluster, Host]]:
    with Lab.up(1) as lab, tempfile.TemporaryDirectory() as folder:
        host = lab.host(1)
        with (
            EtcdCluster(1, Path(folder), hosts=[host]) as etcd,
            cluster_on(lab, etcd, [host], [host]) as cluster,
        ):
            yield cluster, host


def measure(sizes: list[int], idle_s: float) -> dict[str, Any]:
    """Measure one daemon with growing numbers of containers.

    Args:
        sizes: Containers, growing, at most 508.
        idle_s: Seconds over which idling is measured, at each size.
    """
    found: dict[str, Any] = {}
    with _cluster() as (cluster, host):
        found["0"] = idle(cluster, host, idle_s)
        before = 0
        for size in sizes:
            told = scaled(cluster, host, size, before)
            told["docker_run_8_way_s"] = round(by_docker_run(host, size - before, "bridge"), 2)
            found[str(size)] = {
                **told,
                **idle(cluster, host, idle_s),
                **adoption(cluster, host),
            }
            print(json.dumps({str(size): found[str(size)]}), file=sys.stderr, flush=True)
            before = size
            if "users" not in found:
                found["users"] = users.measure(cluster, host, "many/web.1")
    return found
