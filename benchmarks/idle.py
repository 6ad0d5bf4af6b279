"""Does anything move while nothing happens, on a machine that is busy with other things? JSON.

`python -m benchmarks.idle [--minutes N] [--burn N]` (as root): five hosts of the lab, three with a
scheduler and etcd, 20 replicas that nobody touches. With `--burn` so many processes compute all
the while; whatever else the machine does is load, too, and the load average is told. Ends with 1
when a container was started, stopped or moved, or when a node was held to be anything but ready.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.told import about
from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import Lab
from tests.lab.etcd import EtcdCluster

HOSTS: Final = 5
CONTROL_HOSTS: Final = 3
REPLICAS: Final = 20
LOOK_S: Final = 10.0
SETTLE_S: Final = 15.0
COMPOSE: Final = f"""
name: shop
services:
  web:
    image: dray-test/web:1
    stop_grace_period: 1s
    deploy: {{replicas: {REPLICAS}, placement: {{preferences: [{{spread: node.hostname}}]}}}}
"""


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep so many processes computing."""
    burn = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(burn) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def containers(cluster: Cluster) -> set[str]:
    """Return all containers of the service, also those that have ended."""
    return {
        each["Id"]
        for host in cluster.lab.hosts
        for each in host.docker.api.containers(all=True, filters={"label": "dray.project=shop"})
    }


def judgements(cluster: Cluster) -> list[dict[str, Any]]:
    """Return every change of a node's condition that a scheduler has logged."""
    found = []
    for host in cluster.lab.hosts[:CONTROL_HOSTS]:
        for line in cluster.log(host, "scheduler").splitlines():
            if "node condition changed" in line:
                told = json.loads(line)
                found.append({key: told[key] for key in ("at", "condition", "before")})
    return found


def watch(cluster: Cluster, minutes: float) -> dict[str, Any]:
    """Look at all engines again and again; return what was seen."""
    before, old = containers(cluster), len(judgements(cluster))
    loads: list[float] = []
    changes: list[str] = []
    began_s = time.monotonic()
    seen = before
    while time.monotonic() - began_s < minutes * 60:
        time.sleep(LOOK_S)
        loads.append(os.getloadavg()[0])
        now = containers(cluster)
        if now != seen:
            after_s = time.monotonic() - began_s
            changes.append(f"after {after_s:.0f} s: +{len(now - seen)} -{len(seen - now)}")
            print(changes[-1], file=sys.stderr, flush=True)
            seen = now
    new = judgements(cluster)[old:]
    return {
        "minutes": round((time.monotonic() - began_s) / 60, 1),
        "replicas": len(before),
        "containers_changed": changes,
        "conditions_changed": new,
        "is_unchanged": containers(cluster) == before and not changes and not new,
        "load_average": {
            "median": round(statistics.median(loads), 1),
            "worst": round(max(loads), 1),
        },
    }


def main() -> int:
    """Watch, print, and fail when something moved."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--burn", type=int, default=0, metavar="N", help="processes that compute")
    given = parser.parse_args()
    told = about("idle")
    with Lab.up(HOSTS) as lab, tempfile.TemporaryDirectory() as folder:
        control = lab.hosts[:CONTROL_HOSTS]
        with (
            EtcdCluster(len(control), Path(folder), hosts=control) as etcd,
            cluster_on(lab, etcd, control, lab.hosts) as cluster,
        ):
            cluster.up(COMPOSE, "--timeout", "120s", limit_s=130.0)
            time.sleep(SETTLE_S)
            with burning(given.burn):
                seen = watch(cluster, given.minutes)
    print(json.dumps({**told, "hosts": HOSTS, **seen}, indent=2))
    return 0 if seen["is_unchanged"] else 1


if __name__ == "__main__":
    sys.exit(main())
