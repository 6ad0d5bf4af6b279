"""How is a fault acted out and what happened written down? A cluster, a service, and steps."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import dns.message
import dns.rdatatype

from tests.e2e.cluster import Cluster, Failed, cluster_on
from tests.lab import Host, Lab
from tests.lab.errors import LabError
from tests.lab.etcd import EtcdCluster
from tests.lab.wait import wait_for

__all__ = ["COMPOSE", "LIMIT_S", "Scene", "Step", "as_plain", "scene_on"]

LIMIT_S: Final = 60.0  # of one step, unless it says otherwise
POLL_S: Final = 0.2
COMPOSE: Final = """
name: shop
services:
  web:
    image: dray-test/web:1
    stop_grace_period: 1s
    deploy:
      replicas: {replicas}
      restart_policy: {{delay: 0s}}
      placement: {{preferences: [{{spread: node.hostname}}]}}
"""
# Runs on a host: prints the addresses that its DNS gives, one a line.
ASK: Final = """
import socket, sys
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.connect((sys.argv[1], 53))
asked.settimeout(2)
asked.send(bytes.fromhex(sys.argv[2]))
print(asked.recv(4096).hex())
"""


@dataclasses.dataclass(slots=True)
class Step:
    """One thing that was to happen.

    Attributes:
        what: It, as a sentence.
        holds: Whether it did.
        after_s: Seconds from the fault until it did; None: a state was looked at, not awaited.
        note: What was seen instead, or beside it.
    """

    what: str
    holds: bool
    after_s: float | None = None
    note: str = ""


class Scene:
    """A cluster with a service, and the steps of one fault.

    Attributes:
        cluster: The cluster.
        lab: Its hosts.
        replicas: Of the service.
        many: How many replicas a large deployment has.
        steps: What has been seen so far of this fault.
    """

    def __init__(self, cluster: Cluster, replicas: int, *, many: int) -> None:
        """Begin with a cluster whose nodes are ready."""
        self.cluster = cluster
        self.many = many
        self.lab = cluster.lab
        self.replicas = replicas
        self.steps: list[Step] = []
        self._began_s = 0.0

    # --- writing down ---

    def begin(self) -> None:
        """Count seconds from now: the fault happens."""
        self._began_s = time.monotonic()

    def wait(self, what: str, is_so: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
        """Wait for something, and write down when it was so, or that it was not in time."""
        try:
            wait_for(is_so, what, deadline_s=limit_s, poll_s=POLL_S, ignore=(Failed, StopIteration))
        except LabError as error:
            self._add(Step(what, holds=False, note=f"{error.__cause__ or error}"[:300]))
            return False
        self._add(Step(what, holds=True, after_s=round(time.monotonic() - self._began_s, 1)))
        return True

    def check(self, what: str, *, holds: bool, note: str = "") -> None:
        """Write down whether something is so."""
        self._add(Step(what, holds, note=note))

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        mark = "ok  " if step.holds else "FAIL"
        after = "" if step.after_s is None else f" after {step.after_s:g} s"
        print(f"  {mark} {step.what}{after}  {step.note}", file=sys.stderr, flush=True)

    # --- looking, at the engines and at the command ---

    def containers(self, hosts: Sequence[Host] | None = None) -> dict[str, tuple[str, str]]:
        """Return the running replicas of hosts by container id: their slot, and their host."""
        return {
            each["Id"]: (
                f"{each['Labels']['dray.service']}.{each['Labels']['dray.slot']}",
                host.name,
            )
            for host in hosts or [host for host in self.lab.hosts if host.is_on()]
            for each in host.docker.api.containers(filters={"label": "dray.project=shop"})
        }

    def twice(self) -> list[str]:
        """Return the slots that run more than once now."""
        counts = Counter(slot for slot, _ in self.containers().values())
        return sorted(slot for slot, count in counts.items() if count > 1)

    def is_whole_on(self, hosts: Sequence[Host]) -> bool:
        """Return whether every slot runs on these hosts, by their engines."""
        return len({slot for slot, _ in self.containers(hosts).values()}) >= self.replicas

    def is_told_whole(self, on: Host | None = None) -> bool:
        """Return whether the command says that every slot runs."""
        tasks = self.cluster.json("ps", "-p", "shop", on=on)
        return [task["state"] for task in tasks].count("running") == self.replicas

    def task_ids(self, on: Host | None = None) -> dict[str, str]:
        """Return the task of each slot."""
        tasks = self.cluster.json("ps", "-p", "shop", on=on)
        return {f"{task['service']}.{task['slot']}": task["task_id"] for task in tasks}

    def condition(self, host: Host, on: Host | None = None) -> str:
        """Return what the leader holds a node to be."""
        nodes = self.cluster.json("node", "ls", on=on)
        return next(str(node["condition"]) for node in nodes if node["name"] == host.name)

    def faults(self, host: Host) -> list[str]:
        """Return the faults of a node."""
        nodes = self.cluster.json("node", "ls")
        return next(list(node["faults"]) for node in nodes if node["name"] == host.name)

    def addresses(self, host: Host) -> set[str]:
        """Return the addresses that a host's own DNS gives for all replicas, by DNS itself."""
        query = dns.message.make_query("tasks.web.shop.dray.internal.", "A")
        gateway = host.exec(
            ["sh", "-c", "ip -4 -o address show dev dray0 | awk '{print $4}' | cut -d/ -f1"]
        ).stdout.split()[0]
        command = [sys.executable, "-I", "-S", "-c", ASK, gateway, query.to_wire().hex()]
        done = host.exec(command, check=False)
        if done.returncode:
            return set()
        answer = dns.message.from_wire(bytes.fromhex(done.stdout.strip()))
        return {
            item.address
            for entry in answer.answer
            if entry.rdtype == dns.rdatatype.A
            for item in entry
        }

    def leader(self) -> Host:
        """Return the host of the leading scheduler."""
        address = self.cluster.json("status")["leader"]["address"].rpartition(":")[0]
        return next(host for host in self.lab.hosts if str(host.address) == address)

    # --- bringing back ---

    def settle(self) -> None:
        """Undo what a fault has left, and wait until all is as at the beginning."""
        for host in self.lab.hosts:
            host.heal()
        self.lab.mend()
        self.cluster.etcd.mend()
        for host in self.lab.hosts:
            scheduler = self.cluster.schedulers.get(host.index)
            if scheduler is not None and not scheduler.is_running:
                self.cluster.start_scheduler(host)
            if not self.cluster.nodes[host.index].is_running:
                self.cluster.start_node(host)
        self.cluster.wait_ready(len(self.lab.hosts))
        self.cluster.wait(lambda: self.is_told_whole() and not self.twice(), "all is as before")

    def spread(self) -> None:
        """Make sure that every host has replicas again: some are started anew."""
        placed = {host for _, host in self.containers().values()}
        if len(placed) < len(self.lab.hosts):
            few = max(1, self.replicas // 2)
            for count in (few, self.replicas):
                self.cluster.dray("scale", f"shop/web={count}", "--timeout", "60s", limit_s=70.0)


@contextmanager
def scene_on(hosts: int, schedulers: int, etcds: int, replicas: int, label: str) -> Iterator[Scene]:
    """Give a scene on so many hosts, with schedulers and etcd on the first of them."""
    print(label, file=sys.stderr, flush=True)
    with (
        Lab.up(hosts) as lab,
        tempfile.TemporaryDirectory() as folder,
        EtcdCluster(etcds, Path(folder), hosts=lab.hosts[:etcds]) as etcd,
        cluster_on(lab, etcd, lab.hosts[:schedulers], lab.hosts) as cluster,
    ):
        cluster.up(COMPOSE.format(replicas=replicas), "--timeout", "120s", limit_s=130.0)
        yield Scene(cluster, replicas, many=replicas * 5 // 2)


def as_plain(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Return steps as JSON takes them."""
    return [
        {key: value for key, value in dataclasses.asdict(step).items() if value not in (None, "")}
        for step in steps
    ]
