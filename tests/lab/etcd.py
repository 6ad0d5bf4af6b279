"""How do tests get an etcd cluster whose members they may kill, stop and bring back?"""

import functools
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.lab.errors import LabError, LabUnavailable
from tests.lab.ports import free_ports
from tests.lab.process import MACHINE, Place, Process, program_path, run, spawn
from tests.lab.wait import wait_for

if TYPE_CHECKING:
    from tests.lab.host import Host

HOST_CLIENT_PORT = 2379
HOST_PEER_PORT = 2380
HEALTHY_DEADLINE_S = 30.0
LOG_TAIL_BYTES = 2000


@functools.cache
def etcd_options() -> str:
    """Return what the installed etcd says about its options.

    Raises:
        LabUnavailable: There is no etcd, or no etcdctl.
    """
    for name, package in {"etcd": "etcd-server", "etcdctl": "etcd-client"}.items():
        if shutil.which(name, path=program_path()) is None:
            raise LabUnavailable(f"{name} is missing: install the package {package}")
    result = run(["etcd", "--help"], check=False)
    return result.stdout + result.stderr


@dataclass(slots=True)
class Member:
    """One member of a cluster.

    Attributes:
        index: From 0.
        name: Its name in the cluster.
        endpoint: `address:port` for clients.
        peer_url: For the other members.
        data: Its data directory, as it sees it.
        host: Where it runs; None is this machine.
        process: The running etcd; None before the start and after an end.
    """

    index: int
    name: str
    endpoint: str
    peer_url: str
    data: Path
    host: "Host | None" = None
    process: Process | None = None

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended (a paused one has not)."""
        return self.process is not None and self.process.is_running

    def place(self) -> Place:
        """Return where it runs."""
        return MACHINE if self.host is None else self.host.place()

    def outside_data(self) -> Path:
        """Return its data directory as this process sees it."""
        return self.data if self.host is None else self.host.outside_path(self.data)


class EtcdCluster:
    """A cluster of etcd servers, on the loopback address or on hosts of the lab.

    Every server ends when this process does, however it ends.
    """

    def __init__(
        self,
        size: int,
        directory: Path,
        *,
        hosts: "Sequence[Host] | None" = None,
        extra_args: Sequence[str] = (),
        client_scheme: str = "http",
        client_args: Sequence[str] = (),
        client_environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a cluster; `start` starts it.

        Args:
            size: How many members.
            directory: Where data and logs go. On hosts the data is in /var/lib/etcd of each.
            hosts: The hosts to run on, one member each; None is the loopback address of this
                machine.
            extra_args: Added to each server's arguments (TLS, limits, ...).
            client_scheme: "https" when `extra_args` give the servers certificates.
            client_args: Added to each etcdctl call (--cacert, ...).
            client_environment: Added to etcdctl's environment (ETCDCTL_USER, ...).
        """
        if hosts is not None and len(hosts) != size:
            raise LabError(f"{size} members need {size} hosts, not {len(hosts)}")
        self.directory = directory
        self.extra_args = list(extra_args)
        self.client_scheme = client_scheme
        self.client_args = list(client_args)
        self.client_environment = dict(client_environment or {})
        self._generation = 0
        self.members = self._on_loopback(size) if hosts is None else self._on_hosts(hosts)

    def _on_loopback(self, size: int) -> list[Member]:
        ports = free_ports(2 * size)
        return [
            Member(
                index=i,
                name=f"etcd{i + 1}",
                endpoint=f"127.0.0.1:{ports[2 * i]}",
                peer_url=f"http://127.0.0.1:{ports[2 * i + 1]}",
                data=self.directory / f"etcd{i + 1}.data",
            )
            for i in range(size)
        ]

    def _on_hosts(self, hosts: "Sequence[Host]") -> list[Member]:
        return [
            Member(
                index=i,
                name=host.name,
                endpoint=f"{host.address}:{HOST_CLIENT_PORT}",
                peer_url=f"http://{host.address}:{HOST_PEER_PORT}",
                data=Path("/var/lib/etcd") / self.directory.name,
                host=host,
            )
            for i, host in enumerate(hosts)
        ]

    @property
    def endpoints(self) -> list[str]:
        """The clients' addresses of all members, `address:port`, also of those that do not run."""
        return [member.endpoint for member in self.members]

    # --- the servers ---

    def start(self) -> "EtcdCluster":
        """Start every member that does not run, and wait until the cluster is healthy."""
        for member in self.members:
            if not member.is_running:
                self._launch(member)
        self.wait_healthy()
        return self

    def _launch(self, member: Member) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        token = f"{self.directory.name}-{self._generation}"
        peers = ",".join(f"{other.name}={other.peer_url}" for other in self.members)
        client_url = f"{self.client_scheme}://{member.endpoint}"
        arguments = [
            *("--name", member.name, "--data-dir", str(member.data)),
            *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
            *(
                "--listen-peer-urls",
                member.peer_url,
                "--initial-advertise-peer-urls",
                member.peer_url,
            ),
            *("--initial-cluster", peers, "--initial-cluster-token", token),
            *("--initial-cluster-state", "new", "--logger", "zap"),
        ]
        options = etcd_options()
        if "--pre-vote" in options:
            arguments.append("--pre-vote=true")  # or a healed member forces an election
        if "--unsafe-no-fsync" in options and member.host is None:
            arguments.append("--unsafe-no-fsync=true")  # a killed process loses nothing by it
        member.outside_data().parent.mkdir(parents=True, exist_ok=True)
        with open(self._log(member), "ab") as log:
            member.process = spawn(
                ["etcd", *arguments, *self.extra_args],
                member.place(),
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def _log(self, member: Member) -> Path:
        return self.directory / f"{member.name}.log"

    def kill(self, index: int) -> None:
        """Kill one member (SIGKILL) and wait until it has gone."""
        if process := self.members[index].process:
            process.kill()
            process.wait()

    def restart(self, index: int) -> None:
        """End one member if it runs, start it on its data, and wait until it is healthy."""
        member = self.members[index]
        if member.process is not None:
            member.process.end()
        self._launch(member)
        self.wait_healthy()

    def pause(self, index: int) -> None:
        """Stop one member (SIGSTOP): it hangs, but its kernel goes on accepting connections."""
        self._running(index).pause()

    def resume(self, index: int) -> None:
        """Let a paused member go on."""
        self._running(index).resume()

    def _running(self, index: int) -> Process:
        member = self.members[index]
        if member.process is None or not member.is_running:
            raise LabError(f"etcd member {member.name} does not run")
        return member.process

    def mend(self) -> None:
        """Resume what is paused, start what has ended, and wait until all is healthy."""
        for member in self.members:
            if member.process is not None:
                member.process.resume()
        self.start()

    def own_processes(self) -> set[int]:
        """Return the ids of the members' processes and of their supervisors."""
        processes = [member.process for member in self.members if member.process is not None]
        return {pid for process in processes for pid in process.own_pids}

    def stop(self) -> None:
        """End every member."""
        for member in self.members:
            if member.process is not None:
                member.process.kill()
        for member in self.members:
            if member.process is not None:
                member.process.wait()
                member.process = None

    def __enter__(self) -> "EtcdCluster":
        """Start the cluster."""
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every member."""
        self.stop()

    # --- asking it ---

    def etcdctl(
        self,
        *arguments: str,
        endpoints: Sequence[str] | None = None,
        check: bool = True,
        timeout_s: float = 20.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run etcdctl against these endpoints (all, if None) and return its output."""
        urls = ",".join(f"{self.client_scheme}://{end}" for end in endpoints or self.endpoints)
        host = self.members[0].host
        place = MACHINE if host is None else host.lab.switch_place()
        argv = ["etcdctl", f"--endpoints={urls}", *self.client_args, *arguments]
        environment = {"ETCDCTL_API": "3", **self.client_environment}
        return run(argv, place, check=check, timeout_s=timeout_s, environment=environment)

    def _leader_seen_by(self, member: Member) -> int:
        """Return the id of the leader that a member knows, 0 if it knows or says none."""
        result = self.etcdctl(
            *("--dial-timeout=1s", "--command-timeout=1s", "endpoint", "status", "-w", "json"),
            endpoints=[member.endpoint],
            check=False,
        )
        if result.returncode or not result.stdout.strip():
            return 0
        return int(json.loads(result.stdout)[0]["Status"].get("leader", 0))

    def _id_of(self, member: Member) -> int:
        result = self.etcdctl(
            *("--command-timeout=1s", "endpoint", "status", "-w", "json"),
            endpoints=[member.endpoint],
            check=False,
        )
        if result.returncode or not result.stdout.strip():
            return 0
        return int(json.loads(result.stdout)[0]["Status"]["header"]["member_id"])

    def leader(self) -> int | None:
        """Return the index of the leading member; None if no running member knows one that runs."""
        running = [member for member in self.members if member.is_running]
        known = [seen for member in running if (seen := self._leader_seen_by(member))]
        for member in running:
            if known and self._id_of(member) == known[0]:
                return member.index
        return None

    def health(self) -> dict[int, bool]:
        """Return for each member whether it serves a linearizable read now."""
        return {member.index: self._is_healthy(member) for member in self.members}

    def _is_healthy(self, member: Member) -> bool:
        if not member.is_running:
            return False
        result = self.etcdctl(
            *("--dial-timeout=1s", "--command-timeout=2s", "endpoint", "health"),
            endpoints=[member.endpoint],
            check=False,
        )
        return result.returncode == 0

    def wait_healthy(self, deadline_s: float = HEALTHY_DEADLINE_S) -> None:
        """Wait until every running member serves reads.

        Raises:
            LabError: It took longer; the message ends with the members' logs.
        """
        try:
            wait_for(
                lambda: all(
                    self._is_healthy(member) for member in self.members if member.is_running
                ),
                "etcd is healthy",
                deadline_s=deadline_s,
                poll_s=0.05,
            )
        except LabError as err:
            logs = "\n".join(self._log(m).read_text()[-LOG_TAIL_BYTES:] for m in self.members)
            raise LabError(f"{err}:\n{logs}") from err

    # --- backup ---

    def snapshot_save(self, path: Path, index: int = 0) -> None:
        """Save a snapshot of one member's database."""
        self.etcdctl("snapshot", "save", str(path), endpoints=[self.members[index].endpoint])

    def snapshot_restore(self, path: Path) -> None:
        """Replace every member's data by a snapshot, as a new cluster, and start it.

        The store revision goes back to the snapshot's: a client that has seen more must notice.
        """
        self.stop()
        self._generation += 1
        peers = ",".join(f"{other.name}={other.peer_url}" for other in self.members)
        for member in self.members:
            # Where the server runs: on a host the directory is a layer, which nobody may change
            # from outside while it is mounted.
            run(["rm", "-rf", str(member.data)], member.place())
            run(
                [
                    *("etcdctl", "snapshot", "restore", str(path), "--name", member.name),
                    *("--data-dir", str(member.data), "--initial-cluster", peers),
                    *("--initial-cluster-token", f"{self.directory.name}-{self._generation}"),
                    *("--initial-advertise-peer-urls", member.peer_url),
                ],
                member.place(),
                environment={"ETCDCTL_API": "3"},
            )
        self.start()
