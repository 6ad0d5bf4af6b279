"""How do tests run schedulers as processes, and break them? On loopback, over a real etcd."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dray.addresses import HostPort
from tests.lab.etcd import EtcdCluster
from tests.lab.ports import free_ports
from tests.lab.process import Process, run, spawn
from tests.lab.wait import wait_for

__all__ = ["SchedulerProcess", "Schedulers", "init_cluster"]

DRAY = (sys.executable, "-m", "cli")
INIT_DEADLINE_S = 30.0


def init_cluster(etcd: EtcdCluster, *arguments: str) -> None:
    """Make a cluster in an etcd, or whatever `dray init` does with these arguments."""
    run([*DRAY, "init", "--etcd", _urls(etcd), *arguments], timeout_s=INIT_DEADLINE_S)


def _urls(etcd: EtcdCluster) -> str:
    return ",".join(f"http://{member.endpoint}" for member in etcd.members)


class SchedulerProcess:
    """One `dray scheduler run`.

    Attributes:
        address: Where it serves.
        metrics: Where it shows its numbers.
        process: The process; None before the start.
    """

    def __init__(self, etcd: EtcdCluster, folder: Path, number: int, lease_ttl_s: int) -> None:
        ports = free_ports(2)
        self.address = HostPort("127.0.0.1", ports[0])
        self.metrics = HostPort("127.0.0.1", ports[1])
        self.process: Process | None = None
        self._folder = folder / f"scheduler{number}"
        self._arguments = [
            *DRAY,
            "scheduler",
            "run",
            "--etcd",
            _urls(etcd),
            "--listen",
            str(self.address),
            "--advertise",
            str(self.address),
            "--metrics-listen",
            str(self.metrics),
            "--data",
            str(self._folder / "data"),
            "--lease-ttl-s",
            str(lease_ttl_s),
        ]

    def start(self) -> None:
        """Start it; its log is kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self.process = spawn(self._arguments, stdout=log, stderr=log)

    def log(self) -> list[dict[str, Any]]:
        """Return its log lines so far."""
        lines = (self._folder / "log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [line for line in self.log() if line["event"] == event]

    def running(self) -> Process:
        """Return the process."""
        assert self.process is not None
        return self.process


class Schedulers:
    """Some schedulers of one cluster; all of them end with the block."""

    def __init__(
        self, etcd: EtcdCluster, folder: Path, count: int, *, lease_ttl_s: int = 5
    ) -> None:
        self.all = [SchedulerProcess(etcd, folder, n, lease_ttl_s) for n in range(count)]

    @property
    def addresses(self) -> list[HostPort]:
        """Where they serve."""
        return [each.address for each in self.all]

    def __enter__(self) -> Self:
        for each in self.all:
            each.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self.all:
            if each.process is not None:
                each.process.kill()
                each.process.wait()

    def leader(self, deadline_s: float = 20.0) -> SchedulerProcess:
        """Wait until one leads, and return it: the one that said so last."""
        found = wait_for(self._leading, deadline_s=deadline_s, what="no scheduler leads")
        assert found is not None
        return found

    def _leading(self) -> SchedulerProcess | None:
        """Return who has the highest term of those that have not said that it is over.

        One that was killed has not said so, and appends to its log when it is started again.
        """
        found: dict[tuple[int, ...], SchedulerProcess] = {}
        for each in self.all:
            if each.process is None or not each.process.is_running:
                continue
            ours = [line for line in each.log() if line["event"].startswith("leading")]
            if ours and ours[-1]["event"] == "leading":
                found[tuple(map(int, ours[-1]["epoch"].split("/")))] = each
        return found[max(found)] if found else None
