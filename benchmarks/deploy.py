"""How long do N replicas take to start on five hosts, beside Docker Swarm and the bare engines?

`python -m benchmarks.deploy [--replicas N…] [--repeats N] [--ways WAY…]` (as root) prints JSON. On
one lab of five hosts dray (etcd and schedulers on three of them) and a Swarm (three managers) run
side by side the whole time. For every number of replicas, by turns:

- *bare*: `docker run -d`, eight at a time, over the five engines in turn, on Docker's own bridge;
- *floor*: the same on a bridge network of its own, where containers can be found by name: what the
  engine asks for a container like dray's and a Compose file's;
- *swarm*: `docker service create --detach` on the leading manager, on Docker's own bridge;
- *stack*: the same on an overlay network, as `docker stack deploy` makes one for every file: names
  and addresses across hosts, as dray's;
- *dray*: `dray up` with a Compose file, from a cold process.

*started_s* counts from the start of the command to the start of the last container, by the engines'
own records. *told_s*: until the command that waits said that all run (floor: the last `docker run`
ended; Swarm: its manager lists all tasks as running).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks.told import about
from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import BUSYBOX, Host, Lab
from tests.lab.etcd import EtcdCluster
from tests.lab.wait import wait_for

HOSTS: Final = 5
CONTROL_HOSTS: Final = 3
WAYS: Final = ("bare", "floor", "swarm", "stack", "dray")
BRIDGE: Final = "floor"
OVERLAY: Final = "stack"
RUNS_AT_ONCE: Final = 8  # of `docker run` and `docker rm`
LIMIT_S: Final = 300.0
SWARM_START_S: Final = 60.0
# Ends at once on SIGTERM, so that going down is not what takes the time.
COMMAND: Final = ("sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait")
COMPOSE: Final = """
name: bench
services:
  web:
    image: {image}
    command: {command}
    stop_grace_period: 1s
    deploy: {{replicas: {replicas}, placement: {{preferences: [{{spread: node.hostname}}]}}}}
"""


def docker(host: Host, *arguments: str) -> str:
    """Run the docker command on a host's engine, and return what it printed."""
    done = subprocess.run(
        ["docker", "-H", host.docker_url, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


def last_start_s(hosts: Sequence[Host], replicas: int, filters: Mapping[str, str]) -> float:
    """Return when the last of so many containers started (wall clock), by the engines' records."""

    def starts() -> list[float]:
        found = [host.docker.api.containers(filters=dict(filters), quiet=True) for host in hosts]
        return [
            _unix_s(host.docker.api.inspect_container(each["Id"])["State"]["StartedAt"])
            for host, containers in zip(hosts, found, strict=True)
            for each in containers
        ]

    def count() -> int:
        return sum(len(host.docker.api.containers(filters=dict(filters))) for host in hosts)

    wait_for(lambda: count() >= replicas, "all are started", deadline_s=LIMIT_S, poll_s=0.2)
    return max(starts())


def _unix_s(text: str) -> float:
    """Return the seconds of Docker's time, which has nine digits behind the point."""
    return datetime.datetime.fromisoformat(f"{text[:26]}+00:00").timestamp()


def by_floor(hosts: Sequence[Host], replicas: int, *options: str) -> dict[str, float]:
    """Start containers by `docker run -d` with options."""

    def start(number: int) -> None:
        host = hosts[number % len(hosts)]
        docker(host, "run", "-d", "--label", "floor=1", *options, BUSYBOX.reference, *COMMAND)

    began_s = time.time()
    with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        list(pool.map(start, range(replicas)))
    told_s = time.time() - began_s
    started_s = last_start_s(hosts, replicas, {"label": "floor=1"}) - began_s
    _remove_all(hosts, "floor=1")
    return {"started_s": started_s, "told_s": told_s}


def _remove_all(hosts: Sequence[Host], label: str) -> None:
    def remove(place: tuple[Host, str]) -> None:
        place[0].docker.api.remove_container(place[1], force=True)

    places = [
        (host, each["Id"])
        for host in hosts
        for each in host.docker.api.containers(all=True, filters={"label": label}, quiet=True)
    ]
    with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        list(pool.map(remove, places))


def by_swarm(hosts: Sequence[Host], replicas: int, *options: str) -> dict[str, float]:
    """Start replicas by a service of the Swarm with options."""
    manager = hosts[0]
    began_s = time.time()
    docker(
        manager,
        *("service", "create", "--detach", "--no-resolve-image", "--name", "bench"),
        *("--replicas", str(replicas), "--stop-grace-period", "1s", "--endpoint-mode", "dnsrr"),
        *(*options, BUSYBOX.reference, *COMMAND),
    )

    def all_told() -> bool:
        service = manager.docker.services.get("bench")  # type: ignore[no-untyped-call]
        tasks = service.tasks({"desired-state": "running"})
        return [each["Status"]["State"] for each in tasks].count("running") >= replicas

    wait_for(all_told, "Swarm says that all run", deadline_s=LIMIT_S, poll_s=0.1)
    told_s = time.time() - began_s
    label = "com.docker.swarm.service.name=bench"
    started_s = last_start_s(hosts, replicas, {"label": label}) - began_s
    docker(manager, "service", "rm", "bench")
    _wait_gone(hosts, label)
    return {"started_s": started_s, "told_s": told_s}


def by_dray(cluster: Cluster, replicas: int) -> dict[str, float]:
    """Start replicas by `dray up`, which waits."""
    hosts = cluster.lab.hosts
    compose = COMPOSE.format(
        image=BUSYBOX.reference, command=json.dumps(COMMAND), replicas=replicas
    )
    began_s = time.time()
    cluster.up(compose, "--timeout", f"{LIMIT_S:.0f}s", limit_s=LIMIT_S)
    told_s = time.time() - began_s
    label = "dray.project=bench"
    started_s = last_start_s(hosts, replicas, {"label": label}) - began_s
    cluster.dray("down", "-p", "bench", limit_s=LIMIT_S)
    _wait_gone(hosts, label)
    return {"started_s": started_s, "told_s": told_s}


def _wait_gone(hosts: Sequence[Host], label: str) -> None:
    def is_gone() -> bool:
        return not any(
            host.docker.api.containers(all=True, filters={"label": label}, quiet=True)
            for host in hosts
        )

    wait_for(is_gone, "the replicas have gone", deadline_s=LIMIT_S, poll_s=0.2)


def form_swarm(hosts: Sequence[Host]) -> None:
    """Make a Swarm of hosts: three managers, the others workers."""
    first = hosts[0]
    first.docker.swarm.init(advertise_addr=first.address, listen_addr=first.address)
    tokens = first.docker.swarm.attrs["JoinTokens"]
    for host in hosts[1:]:
        role = "Manager" if host.index <= CONTROL_HOSTS else "Worker"
        host.docker.swarm.join(
            remote_addrs=[f"{first.address}:2377"],
            join_token=tokens[role],
            advertise_addr=host.address,
            listen_addr=host.address,
        )

    def is_whole() -> bool:
        nodes = first.docker.nodes.list()
        return [node.attrs["Status"]["State"] for node in nodes].count("ready") == len(hosts)

    wait_for(is_whole, "the Swarm is whole", deadline_s=SWARM_START_S)
    docker(first, "network", "create", "--driver", "overlay", OVERLAY)
    for host in hosts:
        docker(host, "network", "create", "--driver", "bridge", BRIDGE)


@contextlib.contextmanager
def both() -> Iterator[Cluster]:
    """Give hosts on which dray and a Swarm run."""
    # Swarm does not bear live-restore.
    with (
        Lab.up(HOSTS, engine={"live-restore": False}) as lab,
        tempfile.TemporaryDirectory() as folder,
    ):
        form_swarm(lab.hosts)
        control = lab.hosts[:CONTROL_HOSTS]
        with (
            EtcdCluster(len(control), Path(folder), hosts=control) as etcd,
            cluster_on(lab, etcd, control, lab.hosts) as cluster,
        ):
            yield cluster


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians, and dray's ratio to the others: of each turn, then their median."""
    ways = [way for way in WAYS if way in runs[0]]
    told: dict[str, Any] = {
        way: {
            key: round(statistics.median(run[way][key] for run in runs), 2)
            for key in ("started_s", "told_s")
        }
        for way in ways
    }
    for way in ways[:-1] if ways[-1] == "dray" else ():
        told[f"dray_by_{way}"] = round(
            statistics.median(run["dray"]["started_s"] / run[way]["started_s"] for run in runs), 3
        )
    return told


def measure(
    cluster: Cluster, replicas: int, repeats: int, only: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one entry a turn; the order within turns changes."""
    hosts = cluster.lab.hosts
    ways = {
        "bare": lambda: by_floor(hosts, replicas),
        "floor": lambda: by_floor(hosts, replicas, "--network", BRIDGE),
        "swarm": lambda: by_swarm(hosts, replicas),
        "stack": lambda: by_swarm(hosts, replicas, "--network", OVERLAY),
        "dray": lambda: by_dray(cluster, replicas),
    }
    runs = []
    for turn in range(repeats):
        first = turn % len(only)
        names = [*only[first:], *only[:first]]
        done = {name: ways[name]() for name in names}
        done_text = {name: {k: round(v, 2) for k, v in done[name].items()} for name in only}
        print(json.dumps({"replicas": replicas, **done_text}), file=sys.stderr, flush=True)
        runs.append({**done_text, "load": round(os.getloadavg()[0], 1)})
    return runs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 20, 100, 200])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    given = parser.parse_args()
    told = about("deploy")
    found: dict[str, Any] = {}
    with both() as cluster:
        by_dray(cluster, HOSTS)  # what every first deployment does once: images, interfaces
        with contextlib.suppress(KeyboardInterrupt):  # what was measured until then counts
            for replicas in given.replicas:
                runs = measure(cluster, replicas, given.repeats, given.ways)
                found[str(replicas)] = {**summary(runs), "each": runs}
    print(json.dumps({**told, "hosts": HOSTS, "replicas": found}, indent=2))


if __name__ == "__main__":
    main()
