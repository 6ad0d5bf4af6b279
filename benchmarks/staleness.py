"""For how long do names and VIPs lead to what is not there any more? Prints JSON.

`python -m benchmarks.staleness [--hosts N] [--runs N] [--only SCENARIO…]` (as root) brings up a
cluster on hosts of the lab (etcd and a scheduler on the first), with one replica of a service a
node. Every host's name server and table are watched meanwhile. All times in seconds, of the host
that was last.

- killed: a container's first process is killed from outside → no host names or balances to it.
- red: the engine says that a container's health check failed → the same.
- power: a host loses power → the same, on all others.
- dark: all schedulers and etcd are dead. A container is killed again and again; from its engine's
  word that it runs anew until every host names it and balances to it. Meanwhile a client in a
  container asks 100 times a second; `unanswered` must be 0.
- moved: still dark. A container that is started anew keeps its address, so this takes the address
  away: the daemon of a node is killed, its replica removed and its file of addresses changed; from
  its engine's word that the replica is healthy which the next daemon starts at a new address, until
  every host names it and balances to it.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.name_watch import Watcher, gateway, watch, watchers
from benchmarks.told import about
from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import Host, Lab
from tests.lab.etcd import EtcdCluster
from tests.lab.wait import wait_for

LIMIT_S: Final = 60.0
APART: Final = 20  # addresses between that of a replica and its next one
TASKS: Final = "tasks.web.shop.dray.internal"
COMPOSE: Final = """
name: shop
services:
  web:
    image: dray-test/web:1
    stop_grace_period: 1s
    healthcheck: {test: ["CMD", "test", "!", "-e", "/red"], interval: 1s, retries: 1}
    deploy: {mode: global, restart_policy: {delay: 2s}}
  client:
    image: dray-test/busybox:1
    command: ["sleep", "100000"]
    stop_grace_period: 1s
    deploy: {placement: {constraints: ["node.hostname == host2"]}}
"""
ASK: Final = """
import socket, struct, sys, time
server, name = sys.argv[1], sys.argv[2]
labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bound.connect((server, 53))
bound.settimeout(1.0)
asked = lost = 0
at = time.monotonic()
while True:
    query = struct.pack("!6H", asked & 0xFFFF, 0x100, 1, 0, 0, 0) + labels + b"\\0\\0\\1\\0\\1"
    asked += 1
    try:
        bound.send(query)
        data = bound.recv(4096)
        is_good = data[:2] == query[:2] and data[3] & 15 == 0 and data[6:8] != b"\\0\\0"
    except OSError:
        is_good = False
    lost += not is_good
    print(asked, lost, flush=True)
    at += 0.01
    time.sleep(max(0.0, at - time.monotonic()))
"""
Run = dict[str, float]


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return median and worst of each figure, and all."""
    return {
        key: {
            "median": round(statistics.median(run[key] for run in runs), 3),
            "worst": round(max(run[key] for run in runs), 3),
            "all": [round(run[key], 3) for run in runs],
        }
        for key in runs[0]
    }


@dataclass(slots=True)
class Bench:
    """The cluster, and where its replicas are."""

    cluster: Cluster
    seeing: list[Watcher]
    addresses: dict[str, str]

    @property
    def hosts(self) -> list[Host]:
        """All hosts."""
        return list(self.cluster.lab.hosts)

    def wait_all_found(self) -> None:
        """Wait until every host names all replicas."""
        found = list(self.addresses.values())
        for each in self.seeing:
            each.ask([TASKS], found=found)
        for each in self.seeing:
            assert max(each.seen().values()) < float("inf"), "a replica does not come back"

    def gone(self, victim: Host, names: Sequence[str], act: Callable[[], float]) -> Run:
        """Return how long after `act` (it says when that was) the last host forgot a replica."""
        others = [each for each in self.seeing if each.host.is_on()]
        address = self.addresses[victim.name]
        for each in others:
            each.ask(names, gone=[address])
        began_s = act()
        seen = [each.seen() for each in others if each.host.is_on()]
        return {
            f"{what}_s": max(max(each[what] - began_s, 0.0) for each in seen)
            for what in ("dns", "table")
        }

    def container(self, host: Host) -> Any:
        """Return the running replica of a host."""

        def find() -> Any:
            found = host.docker.containers.list(filters={"label": "dray.service=web"})
            return found[0] if found else None

        return wait_for(find, f"a replica runs on {host.name}", deadline_s=LIMIT_S)


def kill(host: Host, container: Any) -> float:
    """Kill a container's first process, past the engine; return when."""
    pid = str(container.attrs["State"]["Pid"])
    code = "import os, sys, time; print(time.monotonic()); os.kill(int(sys.argv[1]), 9)"
    return float(host.exec([sys.executable, "-S", "-c", code, pid]).stdout)


class EngineWord:
    """Waits for what an engine says of its containers."""

    def __init__(self, host: Host, event: str) -> None:
        """Listen from now on."""
        self._at_s = 0.0
        self._has_come = threading.Event()
        stream = host.docker.events(decode=True, filters={"type": "container", "event": event})

        def listen() -> None:
            with contextlib.closing(stream):
                for told in stream:
                    if told["Actor"]["Attributes"].get("dray.service") == "web":
                        self._at_s = told["timeNano"] / 1e9 - time.time() + time.monotonic()
                        self._has_come.set()
                        return

        self._thread = threading.Thread(target=listen, daemon=True)
        self._thread.start()

    def at_s(self) -> float:
        """Return when it was said; waits for it."""
        assert self._has_come.wait(LIMIT_S), "the engine says nothing"
        return self._at_s


def killed(bench: Bench, number: int) -> Run:
    """Kill a replica."""
    victim = bench.hosts[number % len(bench.hosts)]
    container = bench.container(victim)
    run = bench.gone(victim, [TASKS], lambda: kill(victim, container))
    bench.wait_all_found()
    return run


def red(bench: Bench, number: int) -> Run:
    """Let a replica's health check fail."""
    victim = bench.hosts[number % len(bench.hosts)]
    word = EngineWord(victim, "health_status: unhealthy")

    def turn() -> float:
        bench.container(victim).exec_run(["touch", "/red"])
        return word.at_s()

    run = bench.gone(victim, [TASKS], turn)
    bench.wait_all_found()
    return run


def power(bench: Bench, number: int) -> Run:
    """Cut a worker's power, and bring it back."""
    workers = bench.hosts[1:]
    victim = workers[number % len(workers)]
    [its] = [each for each in bench.seeing if each.host is victim]
    bench.seeing.remove(its)

    def cut() -> float:
        at_s = time.monotonic()
        victim.power_off()
        return at_s

    run = bench.gone(victim, [TASKS], cut)
    its.process.wait(10)
    victim.boot()
    bench.cluster.start_node(victim)
    bench.cluster.wait_ready(len(bench.hosts))
    learn_addresses(bench)
    bench.seeing.append(watch(victim))
    bench.wait_all_found()
    return run


def dark(bench: Bench, number: int) -> Run:
    """Kill a replica while nobody decides anything."""
    victim = bench.hosts[number % len(bench.hosts)]
    address = bench.addresses[victim.name]
    bench.gone(victim, [TASKS], lambda: kill(victim, bench.container(victim)))
    word = EngineWord(victim, "health_status: healthy")
    for each in bench.seeing:
        each.ask([TASKS], found=[address])
    runs_at_s = word.at_s()
    seen = [each.seen() for each in bench.seeing]
    return {
        f"{what}_s": max(max(each[what] - runs_at_s, 0.0) for each in seen)
        for what in ("dns", "table")
    }


@contextlib.contextmanager
def asking(host: Host, container: Any) -> Iterator[dict[str, int]]:
    """Ask from a container for the service while the block runs; the counts are given after it."""
    enter = ["nsenter", "--net", "--target", str(container.attrs["State"]["Pid"])]
    arguments = [sys.executable, "-c", ASK, gateway(host), TASKS.removeprefix("tasks.")]
    process = host.popen([*enter, *arguments], stdout=subprocess.PIPE)
    counts: dict[str, int] = {}
    try:
        yield counts
    finally:
        process.terminate()
        out, _ = process.communicate()
        asked, lost = out.decode().splitlines()[-2].split()
        counts |= {"asked": int(asked), "unanswered": int(lost)}


def learn_addresses(bench: Bench) -> None:
    """Read where the replicas are, once all are healthy."""

    def is_whole() -> bool:
        tasks = bench.cluster.tasks("shop", "web")
        bench.addresses = {task["node"]: task["address"] for task in tasks}
        healthy = [task for task in tasks if task["health"] == "healthy"]
        return len(healthy) == len(bench.hosts) == len(bench.addresses)

    bench.cluster.wait(is_whole, "a healthy replica on each node")


def moved(bench: Bench, number: int) -> Run:
    """Start a replica anew at an address that nobody has heard of."""
    victims = [bench.hosts[0], *bench.hosts[2:]]  # the second one's name server is being asked
    victim = victims[number % len(victims)]
    daemon = bench.cluster.nodes[victim.index]
    daemon.kill()
    daemon.wait(10)
    bench.container(victim).remove(force=True)
    address = _other_address(victim, bench.addresses[victim.name])
    bench.addresses[victim.name] = address
    word = EngineWord(victim, "health_status: healthy")
    for each in bench.seeing:
        each.ask([TASKS], found=[address])
    bench.cluster.start_node(victim)
    runs_at_s = word.at_s()
    seen = [each.seen() for each in bench.seeing]
    return {
        f"{what}_s": max(max(each[what] - runs_at_s, 0.0) for each in seen)
        for what in ("dns", "table")
    }


def _other_address(host: Host, held: str) -> str:
    """Take a replica's address from it, in the daemon's file; return which one it gets next."""
    path = host.outside_path("/var/lib/dray/node/network/addresses.json")
    content = json.loads(path.read_text())
    [task] = [task for task, address in content["held"].items() if address == held]
    del content["held"][task], content["tasks"][task]
    content["last"] = str(ipaddress.ip_address(held) + APART)
    path.write_text(json.dumps(content))
    return str(ipaddress.ip_address(held) + APART + 1)


def all_dark(bench: Bench, etcd: EtcdCluster, runs: int) -> dict[str, Any]:
    """Kill all that decides, and measure until the end."""
    asker = bench.hosts[1]  # as the Compose file says
    [client] = asker.docker.containers.list(filters={"label": "dray.service=client"})
    for process in bench.cluster.schedulers.values():
        process.kill()
    etcd.kill(0)
    scenarios: dict[str, Callable[[Bench, int], Run]] = {"dark": dark, "moved": moved}
    found: dict[str, list[Run]] = {name: [] for name in scenarios}
    with asking(asker, client) as counts:
        for name, scenario in scenarios.items():
            for number in range(runs):
                bench.wait_all_found()
                found[name].append(scenario(bench, number))
                say(name, found[name][-1])
    return {**{name: summary(each) for name, each in found.items()}, "names": counts}


def say(what: str, run: Run) -> None:
    """Tell who waits how far it is."""
    print(what, {key: round(value, 3) for key, value in run.items()}, file=sys.stderr, flush=True)


SCENARIOS: Final[dict[str, Callable[[Bench, int], Run]]] = {
    "killed": killed,
    "red": red,
    "power": power,
}


def measure(hosts: int, runs: int, only: Sequence[str]) -> dict[str, Any]:
    """Return the figures of each scenario."""
    found: dict[str, Any] = {}
    with Lab.up(hosts) as lab, tempfile.TemporaryDirectory() as folder:
        first = lab.hosts[0]
        with (
            EtcdCluster(1, Path(folder), hosts=[first]) as etcd,
            cluster_on(lab, etcd, [first], lab.hosts) as cluster,
        ):
            cluster.up(COMPOSE, "--timeout", "120s", limit_s=130.0)
            for name in (name for name in SCENARIOS if name in only):
                with watchers(lab.hosts) as seeing:
                    bench = Bench(cluster, seeing, {})
                    learn_addresses(bench)
                    bench.wait_all_found()
                    each: list[Run] = []
                    for number in range(runs):
                        each.append(SCENARIOS[name](bench, number))
                        say(name, each[-1])
                    found[name] = summary(each)
            if "dark" in only:
                with watchers(lab.hosts) as seeing:
                    bench = Bench(cluster, seeing, {})
                    learn_addresses(bench)
                    found |= all_dark(bench, etcd, runs)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", nargs="+", default=[*SCENARIOS, "dark"])
    given = parser.parse_args()
    told = {
        **about("staleness"),
        "hosts": given.hosts,
        "runs": given.runs,
        "figures": measure(given.hosts, given.runs, given.only),
    }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
