"""How long is a service short of replicas, and the dead still named, after a power cut?

`python -m benchmarks.failover [--hosts N] [--replicas N] [--runs N] [--leader-runs N]` (as root)
brings up a cluster on hosts of the lab (etcd and schedulers on three of them), cuts the power of a
worker again and again, then that of the host with the leading scheduler and etcd's leader, and
prints JSON. Times count from the power cut:

- *decided*: the leader holds the node to be down, by its log;
- *moved*: all replicas run on other hosts, by the engines' records of their starts;
- *forgotten*: no other host's DNS names an address of the dead one any more.

Beside them the parts, from the logs of all daemons, in the order in which one waits for the other:
*suspected* (the first node's gossip), *known_dead* (the last node's), *planned* (the round that
replaces is committed), *received* (the first of the nodes begins), then *moved*.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import dns.message

from benchmarks.told import about
from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import Host, Lab
from tests.lab.etcd import EtcdCluster
from tests.lab.process import Process
from tests.lab.wait import wait_for

CONTROL_HOSTS: Final = 3
LIMIT_S: Final = 60.0
POLL_S: Final = 0.25  # seldom: the engines that are asked have the replicas to start
SETTLE_S: Final = 5.0  # between a host's return and the next cut
FILTERS: Final = {"label": "dray.service=web"}
NAME: Final = "tasks.web.shop.dray.internal."
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
import socket, sys, time
server, query = sys.argv[1], bytes.fromhex(sys.argv[2])
dead = [socket.inet_aton(address) for address in sys.argv[3].split(",")]
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.connect((server, 53))
asked.settimeout(0.2)
print("ready", flush=True)
end = time.monotonic() + 90
while time.monotonic() < end:
    try:
        asked.send(query)
        answer = asked.recv(4096)
        if not answer[3] & 15 and not any(address in answer for address in dead):
            print(time.monotonic())
            break
    except OSError:
        pass
    time.sleep(0.05)
"""


def gateway(host: Host) -> str:
    """Return the address that a host's DNS listens at."""
    shown = host.exec(["ip", "-4", "-j", "address", "show", "dev", "dray0"]).stdout
    address: str = json.loads(shown)[0]["addr_info"][0]["local"]
    return address


def running(hosts: Sequence[Host]) -> list[tuple[Host, str]]:
    """Return the replicas that run on hosts, by their engines."""
    return [
        (host, each["Id"])
        for host in hosts
        for each in host.docker.api.containers(filters=FILTERS, quiet=True)
    ]


def unix_s(text: str) -> float:
    """Return the seconds of a time as Docker (nine digits) and our logs (six) write it, in UTC."""
    return datetime.datetime.fromisoformat(f"{text.rstrip('Z')[:26]}+00:00").timestamp()


def last_start_s(containers: Sequence[tuple[Host, str]]) -> float:
    """Return when the last of some containers started (wall clock)."""
    return max(
        unix_s(host.docker.api.inspect_container(name)["State"]["StartedAt"])
        for host, name in containers
    )


def start_probes(hosts: Sequence[Host], dead: Sequence[str]) -> list[Process]:
    """Start asking the DNS of hosts; return when all do."""
    query = dns.message.make_query(NAME, "A").to_wire().hex()
    probes = [
        host.popen(
            [sys.executable, "-I", "-S", "-c", PROBE, gateway(host), query, ",".join(dead)],
            stdout=subprocess.PIPE,
        )
        for host in hosts
    ]
    for probe in probes:
        assert probe.stdout is not None
        probe.stdout.readline()
    return probes


def logged(cluster: Cluster, what: str, since_unix_s: float) -> Iterator[dict[str, Any]]:
    """Yield what the daemons of one kind have logged since a time, host by host."""
    for host in cluster.lab.hosts:
        for line in cluster.log(host, what).splitlines():
            if line.startswith("{") and line.endswith("}"):
                told = json.loads(line)
                if unix_s(told["at"]) > since_unix_s:
                    yield told


def parts(cluster: Cluster, victim: Host, since_unix_s: float) -> dict[str, float]:
    """Return when each step was taken, seconds from a time; infinite: never."""
    found: dict[str, list[float]] = {
        name: [] for name in ("suspected_s", "known_dead_s", "decided_s", "planned_s", "received_s")
    }
    for told in logged(cluster, "node", since_unix_s):
        at_s = unix_s(told["at"]) - since_unix_s
        match told["event"], told.get("node"), told.get("reason", "").rpartition(" ")[-1]:
            case "member changed", victim.name, "SUSPECT":
                found["suspected_s"].append(at_s)
            case "member changed", victim.name, "DEAD":
                found["known_dead_s"].append(at_s)
            case "task changed", _, _ if told.get("outcome") == "pulling":
                found["received_s"].append(at_s)
    for told in logged(cluster, "scheduler", since_unix_s):
        at_s = unix_s(told["at"]) - since_unix_s
        if told["event"] == "node condition changed" and told["condition"] == "DOWN":
            found["decided_s"].append(at_s)
        if told["event"] == "round" and told.get("created", 0) + told.get("moved", 0):
            found["planned_s"].append(at_s)
    last = {"known_dead_s"}
    return {
        name: (max if name in last else min)(times, default=float("inf"))
        for name, times in found.items()
    }


def one_run(cluster: Cluster, victim: Host, replicas: int) -> dict[str, float]:
    """Cut a host's power, measure, and bring it back."""
    others = [host for host in cluster.lab.hosts if host is not victim]
    dead = sorted(
        task["address"]
        for task in cluster.tasks("shop", "web")
        if task["node"] == victim.name and task["address"]
    )
    probes = start_probes(others, dead)
    began_s, began_unix_s = time.monotonic(), time.time()
    victim.power_off()
    wait_for(
        lambda: len(running(others)) >= replicas,
        "all run elsewhere",
        deadline_s=LIMIT_S,
        poll_s=POLL_S,
    )
    moved_s = last_start_s(running(others)) - began_unix_s
    forgotten_s = max(float(probe.communicate()[0] or "inf") for probe in probes) - began_s
    found = {
        "replicas": len(dead),
        **parts(cluster, victim, began_unix_s),
        "moved_s": moved_s,
        "forgotten_s": forgotten_s,
    }
    bring_back(cluster, victim, replicas)
    return found


def bring_back(cluster: Cluster, victim: Host, replicas: int) -> None:
    """Boot a host with all that ran on it, and wait until the cluster is as before."""
    lab = cluster.lab
    victim.boot()
    for index, member in enumerate(cluster.etcd.members):
        if not member.is_running:
            cluster.etcd.restart(index)
    if victim.index <= CONTROL_HOSTS:
        cluster.start_scheduler(victim)
    cluster.start_node(victim)
    cluster.wait_ready(len(lab.hosts))
    others = [host for host in lab.hosts if host is not victim]
    wait_for(
        lambda: not running([victim]) and len(running(others)) == replicas,
        "what moved has ended on the host that returned",
        deadline_s=LIMIT_S,
        poll_s=POLL_S,
    )
    time.sleep(SETTLE_S)


def spread(cluster: Cluster, replicas: int) -> None:
    """Take two fifths of the replicas away and start them again: on the hosts that have none."""
    for count in (replicas - 2 * replicas // 5, replicas):
        cluster.dray("scale", f"shop/web={count}", "--timeout", "60s", limit_s=70.0)


def next_worker(cluster: Cluster, count: int, replicas: int) -> Host:
    """Return a worker that has replicas; the workers take turns."""
    workers = cluster.lab.hosts[CONTROL_HOSTS:]
    placed = {task["node"] for task in cluster.tasks("shop", "web")}
    if not any(host.name in placed for host in workers):
        spread(cluster, replicas)
        placed = {task["node"] for task in cluster.tasks("shop", "web")}
    found = [host for host in workers if host.name in placed]
    return found[count % len(found)]


def leaders_host(cluster: Cluster, replicas: int) -> Host:
    """Return the host of the leading scheduler, after etcd's leader has moved there, too."""
    leader = cluster.json("status")["leader"]
    host = next(h for h in cluster.lab.hosts if leader["address"].startswith(f"{h.address}:"))
    wanted = next(
        index
        for index, member in enumerate(cluster.etcd.members)
        if member.endpoint.startswith(f"{host.address}:")
    )
    now = cluster.etcd.leader()
    if now is not None and now != wanted:
        shown = cluster.etcd.etcdctl(
            "endpoint", "status", "-w", "json", endpoints=[cluster.etcd.members[wanted].endpoint]
        ).stdout
        number = json.loads(shown)[0]["Status"]["header"]["member_id"]
        leading = [cluster.etcd.members[now].endpoint]
        cluster.etcd.etcdctl("move-leader", f"{number:x}", endpoints=leading)
    if host.name not in {task["node"] for task in cluster.tasks("shop", "web")}:
        spread(cluster, replicas)
    return host


def summary(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return median and worst of what was measured."""
    return {
        key: {
            "median": round(statistics.median(run[key] for run in runs), 2),
            "worst": round(max(run[key] for run in runs), 2),
        }
        for key in runs[0]
        if key != "replicas"
    }


def measure(
    hosts: int, replicas: int, runs: int, leader_runs: int
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return one entry a power cut: those of workers, then those of leaders."""
    with Lab.up(hosts) as lab, tempfile.TemporaryDirectory() as folder:
        control = lab.hosts[:CONTROL_HOSTS]
        with (
            EtcdCluster(len(control), Path(folder), hosts=control) as etcd,
            cluster_on(lab, etcd, control, lab.hosts) as cluster,
        ):
            cluster.up(COMPOSE.format(replicas=replicas), "--timeout", "120s", limit_s=130.0)
            time.sleep(SETTLE_S)
            workers: list[dict[str, float]] = []
            leaders: list[dict[str, float]] = []
            with contextlib.suppress(KeyboardInterrupt):  # what was measured until then counts
                for _ in range(leader_runs):
                    leaders.append(one_run(cluster, leaders_host(cluster, replicas), replicas))
                    print(json.dumps({"leader": leaders[-1]}), file=sys.stderr, flush=True)
                for count in range(runs):
                    victim = next_worker(cluster, count, replicas)
                    workers.append(one_run(cluster, victim, replicas))
                    print(json.dumps(workers[-1]), file=sys.stderr, flush=True)
            return workers, leaders


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=5, help="at least 4: 3 are control hosts")
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--leader-runs", type=int, default=3)
    given = parser.parse_args()
    told = about("failover")
    found = measure(given.hosts, given.replicas, given.runs, given.leader_runs)
    result = {**told, "hosts": given.hosts, "replicas": given.replicas}
    for name, runs in zip(("worker", "leader"), found, strict=True):
        if runs:
            each = [{key: round(value, 2) for key, value in run.items()} for run in runs]
            result[name] = {"runs": len(runs), **summary(runs), "each": each}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
