"""A cluster of dray on hosts of the lab, driven as its users drive it: through the command."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.lab import Host, Lab
from tests.lab.etcd import EtcdCluster
from tests.lab.process import Process
from tests.lab.wait import wait_for

__all__ = ["Cluster", "Failed", "cluster_on"]

DRAY: Final = (sys.executable, "-P", "-m", "cli")
API_PORT: Final = 7400
COMMAND_LIMIT_S: Final = 60.0
READY_LIMIT_S: Final = 120.0  # a daemon on a busy machine needs long to begin
ENDING_LIMIT_S: Final = 10.0
LOG_LINES_SHOWN: Final = 20


class Failed(Exception):
    """A command of a user ended otherwise than it should; the message has what it printed."""


class Cluster:
    """Schedulers and node daemons on hosts of a lab.

    Attributes:
        lab: The hosts.
        etcd: The store.
        schedulers: The running schedulers by host index.
        nodes: The running node daemons by host index.
    """

    def __init__(self, lab: Lab, etcd: EtcdCluster) -> None:
        """Describe a cluster that does not run yet."""
        self.lab = lab
        self.etcd = etcd
        self.schedulers: dict[int, Process] = {}
        self.nodes: dict[int, Process] = {}
        self._logs = lab.directory / "daemons"
        self._logs.mkdir(exist_ok=True)

    # --- daemons ---

    @property
    def etcd_urls(self) -> str:
        """All members of the store."""
        return ",".join(f"http://{member.endpoint}" for member in self.etcd.members)

    def api(self, hosts: Sequence[Host]) -> str:
        """Return the schedulers of hosts as the command and the nodes are told them."""
        return ",".join(f"{host.address}:{API_PORT}" for host in hosts)

    def init(self, host: Host) -> None:
        """Make the cluster in its store."""
        host.exec([*DRAY, "init", "--if-absent", "--insecure", "--etcd", self.etcd_urls])

    def start_scheduler(self, host: Host) -> None:
        """Start a scheduler; it is not awaited."""
        address = f"{host.address}:{API_PORT}"
        _reap(self.schedulers.pop(host.index, None))
        self.schedulers[host.index] = self._start(
            host,
            "scheduler",
            *("scheduler", "run", "--etcd", self.etcd_urls, "--insecure"),
            *("--listen", address, "--advertise", address),
            *("--data", "/var/lib/dray/scheduler"),
        )

    def start_node(
        self,
        host: Host,
        *labels: str,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a node daemon; it is not awaited."""
        _reap(self.nodes.pop(host.index, None))
        self.nodes[host.index] = self._start(
            host,
            "node",
            *("node", "run", "--scheduler", self.all_api, "--insecure"),
            *("--name", host.name, "--advertise", host.address, "--data", "/var/lib/dray/node"),
            *(part for label in labels for part in ("--label", label)),
            *flags,
            environment=environment,
        )

    def _start(
        self, host: Host, what: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Process:
        with (self._logs / f"{host.name}.{what}.log").open("ab") as log:
            command = [*DRAY, *arguments]
            return host.popen(command, stdout=log, stderr=log, environment=environment)

    @contextlib.contextmanager
    def following(self, path: Path, *arguments: str, on: Host) -> Iterator[None]:
        """Write what a command prints to a file until the block ends, and then the command."""
        with path.open("wb") as file:
            process = on.popen(
                [*DRAY, *arguments],
                stdout=file,
                environment={"DRAY_HOST": self.all_api, "DRAY_INSECURE": "1"},
            )
        try:
            yield
        finally:
            _reap(process)

    @property
    def all_api(self) -> str:
        """All schedulers, as the command is told them."""
        return self.api([self.lab.host(index) for index in sorted(self.schedulers)])

    def log(self, host: Host, what: str) -> str:
        """Return what a daemon has logged: "node" or "scheduler"."""
        path = self._logs / f"{host.name}.{what}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ends_of_logs(self) -> str:
        """Return the last lines of every daemon's log, for whoever looks for the cause."""
        parts = []
        for path in sorted(self._logs.iterdir()):
            lines = path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            parts += [f"==> {path.name}", *(line[:400] for line in lines)]
        return "\n".join(parts)

    def end(self) -> None:
        """End all daemons; containers are the lab's."""
        for processes in (self.nodes, self.schedulers):
            while processes:
                _reap(processes.popitem()[1])

    # --- the command ---

    def dray(
        self, *arguments: str, on: Host | None = None, limit_s: float = COMMAND_LIMIT_S
    ) -> str:
        """Run the command on a host that has power, and return what it printed.

        Raises:
            Failed: It did not end with 0.
        """
        status, out, err = self.try_dray(*arguments, on=on, limit_s=limit_s)
        if status:
            raise Failed(f"dray {' '.join(arguments)} ended with {status}:\n{out}{err}")
        return out

    def try_dray(
        self, *arguments: str, on: Host | None = None, limit_s: float = COMMAND_LIMIT_S
    ) -> tuple[int, str, str]:
        """Run the command, and return its status and what it printed."""
        host = on or next(host for host in self.lab.hosts if host.is_on())
        done = host.exec(
            [*DRAY, *arguments],
            check=False,
            timeout_s=limit_s,
            environment={"DRAY_HOST": self.all_api, "DRAY_INSECURE": "1"},
        )
        return done.returncode, done.stdout, done.stderr

    def json(self, *arguments: str, on: Host | None = None) -> Any:
        """Run the command with `--format json`, and return what it says."""
        return json.loads(self.dray(*arguments, "--format", "json", on=on))

    def tasks(self, project: str, service: str) -> list[dict[str, Any]]:
        """Return the slots of a service, as scripts see them."""
        found: list[dict[str, Any]] = self.json("ps", "-p", project, service)
        return found

    def conditions(self) -> dict[str, str]:
        """Return the condition of every node, by name."""
        return {node["name"]: node["condition"] for node in self.json("node", "ls")}

    def wait(
        self, is_so: Callable[[], bool], what: str, *, deadline_s: float = READY_LIMIT_S
    ) -> None:
        """Wait for a condition; commands that fail meanwhile count as "not yet"."""
        wait_for(is_so, what, deadline_s=deadline_s, poll_s=0.1, ignore=(Failed, StopIteration))

    def wait_ready(self, nodes: int) -> None:
        """Wait until so many nodes are ready."""
        self.wait(
            lambda: list(self.conditions().values()).count("ready") >= nodes,
            f"{nodes} nodes are ready",
        )

    def up(self, compose: str, *flags: str, limit_s: float = COMMAND_LIMIT_S) -> str:
        """Apply a Compose file, given as text, and wait as the command does."""
        path = self._logs / "compose.yaml"
        path.write_text(compose)
        return self.dray("up", "-f", str(path), *flags, limit_s=limit_s)


def _reap(process: Process | None) -> None:
    """End a daemon, also one that the loss of its host's power has ended already."""
    if process is not None:
        process.kill()
        process.wait(ENDING_LIMIT_S)


@contextlib.contextmanager
def cluster_on(
    lab: Lab, etcd: EtcdCluster, schedulers: Sequence[Host], nodes: Sequence[Host]
) -> Iterator[Cluster]:
    """Give a cluster whose nodes are ready, and end it."""
    cluster = Cluster(lab, etcd)
    try:
        cluster.init(schedulers[0])
        for host in schedulers:
            cluster.start_scheduler(host)
        for host in nodes:
            cluster.start_node(host)
        cluster.wait_ready(len(nodes))
        yield cluster
    except Exception as error:
        error.add_note(cluster.ends_of_logs())
        raise
    finally:
        cluster.end()
