"""How long is a service short of replicas, and the dead still named, after a power cut?

`python -m benchmarks.failover [--hosts N] [--replicas N] [--runs N]` (as root) brings up a cluster
on hosts of the lab (etcd and schedulers on three of them), cuts the power of a worker again and
again, and prints JSON. Times count from the power cut. *moved*: all replicas run on other hosts, by
their engines. *forgotten*: no other host's DNS names an address of the dead one any more.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import Host, Lab
from tests.lab.etcd import EtcdCluster
from tests.lab.wait import wait_for

CONTROL_HOSTS: Final = 3
LIMIT_S: Final = 60.0
LABEL: Final = "dray.service=web"
COMPOSE: Final = """
name: shop
services:
  web:
    image: dray-test/web:1
    stop_grace_period: 1s
    deploy: {{replicas: {replicas}, placement: {{preferences: [{{spread: node.hostname}}]}}}}
"""
# Runs on a host: asks its DNS until none of the given addresses is named, then says when that was.
PROBE: Final = """
import json, sys, time
import dns.message, dns.query
server, dead = sys.argv[1], set(json.loads(sys.argv[2]))
query = dns.message.make_query("tasks.web.shop.dray.internal.", "A")
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        answer = dns.query.udp(query, server, timeout=0.2)
        named = {item.address for entry in answer.answer for item in entry}
    except Exception:
        named = dead
    if not named & dead:
        print(time.monotonic())
        break
    time.sleep(0.02)
"""


def gateway(host: Host) -> str:
    """Return the address that a host's DNS listens at."""
    shown = host.exec(["ip", "-4", "-j", "address", "show", "dev", "dray0"]).stdout
    address: str = json.loads(shown)[0]["addr_info"][0]["local"]
    return address


def running(hosts: list[Host]) -> int:
    """Return how many replicas run on hosts, by their engines."""
    return sum(len(host.docker.containers.list(filters={"label": LABEL})) for host in hosts)


def one_run(cluster: Cluster, victim: Host, replicas: int) -> dict[str, float]:
    """Cut a host's power, measure, and bring it back."""
    others = [host for host in cluster.lab.hosts if host is not victim]
    dead = {
        task["address"]
        for task in cluster.tasks("shop", "web")
        if task["node"] == victim.name and task["address"]
    }
    probes = [
        host.popen(
            [sys.executable, "-c", PROBE, gateway(host), json.dumps(sorted(dead))],
            stdout=subprocess.PIPE,
        )
        for host in others
    ]
    began_s = time.monotonic()
    victim.power_off()
    wait_for(
        lambda: running(others) >= replicas, "all run elsewhere", deadline_s=LIMIT_S, poll_s=0.05
    )
    moved_s = time.monotonic() - began_s
    forgotten_s = max(float(probe.communicate()[0] or "inf") for probe in probes) - began_s
    victim.boot()
    cluster.start_node(victim)
    cluster.wait_ready(len(cluster.lab.hosts))
    wait_for(
        lambda: running([victim]) == 0 and running(others) == replicas,
        "what moved has ended on the host that returned",
        deadline_s=LIMIT_S,
    )
    return {"replicas": len(dead), "moved_s": moved_s, "forgotten_s": forgotten_s}


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return median and worst of what was measured."""
    return {
        key: {
            "median": round(statistics.median(run[key] for run in runs), 2),
            "worst": round(max(run[key] for run in runs), 2),
        }
        for key in ("moved_s", "forgotten_s")
    }


def measure(hosts: int, replicas: int, runs: int) -> list[dict[str, float]]:
    """Return one entry a power cut; victims are workers in turn, those that have replicas."""
    with Lab.up(hosts) as lab, tempfile.TemporaryDirectory() as folder:
        control = lab.hosts[:CONTROL_HOSTS]
        with (
            EtcdCluster(len(control), Path(folder), hosts=control) as etcd,
            cluster_on(lab, etcd, control, lab.hosts) as cluster,
        ):
            cluster.up(COMPOSE.format(replicas=replicas), "--timeout", "120s", limit_s=130.0)
            found: list[dict[str, float]] = []
            while len(found) < runs:
                placed = {task["node"] for task in cluster.tasks("shop", "web")}
                workers = [host for host in lab.hosts[CONTROL_HOSTS:] if host.name in placed]
                if not workers:  # all have moved to the hosts that are not cut: spread them again
                    cluster.dray("restart", "-p", "shop", "--timeout", "120s", limit_s=130.0)
                    continue
                found.append(one_run(cluster, workers[len(found) % len(workers)], replicas))
                print(json.dumps(found[-1]), file=sys.stderr, flush=True)
            return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=5, help="at least 4: 3 are never cut")
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    runs = measure(given.hosts, given.replicas, given.runs)
    told = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hosts": given.hosts,
        "replicas": given.replicas,
        "runs": len(runs),
        **summary(runs),
        "each": [{key: round(value, 2) for key, value in run.items()} for run in runs],
    }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
