"""Does the users' API hold on real schedulers and a real etcd, also when one of them dies?"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dray.addresses import HostPort, parse_host_port
from dray.client import Client, ClientLimits, SyncClient, Write
from dray.errors import DrayError, RevisionConflict
from dray.names import RequestId
from dray.views import ChangeKind, GetStatusResponse, SlotState
from tests.builders import a_service, an_id
from tests.contract.client.rig import project_of
from tests.lab.etcd import EtcdCluster
from tests.lab.ports import free_port, free_ports
from tests.lab.process import Process, run, spawn
from tests.lab.wait import wait_for

PYTHON = sys.executable
LIMITS = ClientLimits(call_s=20.0, attempt_s=3.0, unreachable_s=10.0)
TOP = Path(__file__).resolve().parents[2]


class Schedulers:
    """Two schedulers of one cluster, as processes."""

    def __init__(self, etcd: EtcdCluster, folder: Path) -> None:
        url = ",".join(f"http://{endpoint}" for endpoint in etcd.endpoints)
        run([PYTHON, "-m", "cli", "init", "--etcd", url, "--if-absent"], environment=_here())
        ports = free_ports(4)
        self.hosts = [HostPort("127.0.0.1", port) for port in ports[:2]]
        self.processes = [
            self._start(url, host, metrics, folder / f"scheduler{number}")
            for number, (host, metrics) in enumerate(zip(self.hosts, ports[2:], strict=True))
        ]

    def _start(self, url: str, host: HostPort, metrics_port: int, folder: Path) -> Process:
        folder.mkdir()
        words = [PYTHON, "-m", "cli", "scheduler", "run", "--etcd", url]
        words += ["--listen", str(host), "--advertise", str(host), "--data", str(folder)]
        words += ["--metrics-listen", f"127.0.0.1:{metrics_port}", "--log-format", "json"]
        with (folder / "log").open("wb") as log:
            return spawn(words, stdout=log, stderr=log, environment=_here())

    def client(self) -> SyncClient:
        """Return a client of both."""
        return SyncClient(self.hosts, limits=LIMITS)

    def leader(self, client: SyncClient) -> HostPort:
        """Wait until there is a leader that answers; return its address."""

        def led() -> HostPort | None:
            status: GetStatusResponse = client.get_status()
            is_known = status.leader is not None and status.header.is_observed
            return status.leader.address if is_known and status.leader else None

        return wait_for(led, "a scheduler leads", ignore=(DrayError,))

    def end(self) -> None:
        """End both."""
        for process in self.processes:
            process.end()


def _here() -> dict[str, str]:
    return {"PYTHONPATH": str(TOP)}


@pytest.fixture
def schedulers(etcd1: EtcdCluster, tmp_path: Path) -> Iterator[Schedulers]:
    """Run two schedulers on a store that may hold what the last test left."""
    made = Schedulers(etcd1, tmp_path)
    try:
        yield made
    finally:
        made.end()


def test_what_is_written_on_one_is_read_on_the_other(schedulers: Schedulers) -> None:
    """Every scheduler serves everything, with the leader's knowledge."""
    with schedulers.client() as both:
        schedulers.leader(both)
        first, second = (SyncClient([host], limits=LIMITS) for host in schedulers.hosts)
        with first, second:
            applied = first.apply_project(project_of(a_service("web", replicas=2), name="one"))
            reply = second.list_tasks("one")
            assert reply.header.is_observed
            assert [task.state for task in reply.tasks] == [SlotState.PENDING] * 2

            def told() -> set[str]:
                return {event.reason for event in second.list_events(project="one").events}

            wait_for(lambda: "service created" in told(), "the first change is an event")
            scaled = second.scale_services("one", {"web": 3}, Write(if_revision=applied.revision))
            with pytest.raises(RevisionConflict):
                first.scale_services("one", {"web": 4}, Write(if_revision=applied.revision))
            assert first.list_projects().projects[0].revision == scaled.revision

            def reasons() -> list[str]:
                return [task.reason for task in first.list_tasks("one").tasks]

            wait_for(
                lambda: len(reasons()) == 3 and all("no nodes" in each for each in reasons()),
                "the leader says why nothing runs",
            )
            wait_for(lambda: "service scaled" in told(), "the second change is an event")
            second.remove_project("one")
            wait_for(
                lambda: not [p for p in first.list_projects().projects if p.name == "one"],
                "the removed project is gone",
            )


def test_a_client_outlives_the_leader(schedulers: Schedulers) -> None:
    """The leader is killed: reads and writes go on through the other one, each once."""
    with schedulers.client() as client:
        leader = schedulers.leader(client)
        client.apply_project(project_of(a_service("web"), name="two"))
        index = schedulers.hosts.index(leader)
        schedulers.processes[index].kill()
        killed_s = time.monotonic()
        request = Write(RequestId(an_id(40)))
        scaled = client.scale_services("two", {"web": 2}, request)
        refused_s = time.monotonic() - killed_s
        assert [each.kind for each in scaled.services] == [ChangeKind.UPDATED]
        assert client.scale_services("two", {"web": 2}, request).is_repeated
        other = schedulers.leader(client)
        assert other != leader
        assert refused_s < 5.0, f"writes were refused for {refused_s:.1f} s"
        history = client.list_revisions("two", "web")
        assert [each.revision for each in history.revisions] == [2, 1]
        client.remove_project("two")


async def test_a_wrong_address_says_what_to_check() -> None:
    """Nobody listens: the client says where, and which setting to look at, in bounded time."""
    port = free_port()
    limits = ClientLimits(call_s=5.0, attempt_s=1.0, unreachable_s=1.0)
    async with Client([parse_host_port(f"127.0.0.1:{port}")], limits=limits) as client:
        with pytest.raises(DrayError, match=f"no scheduler answers at 127.0.0.1:{port}") as caught:
            await client.get_status()
    assert "DRAY_HOST" in caught.value.hint
