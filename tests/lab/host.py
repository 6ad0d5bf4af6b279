"""What can be done to one host of the lab?"""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.lab import engine, network
from tests.lab.errors import LabError
from tests.lab.inside import ENGINE_ENDED, LAYERED, OWN_DISK
from tests.lab.network import Direction
from tests.lab.process import (
    ALL_NAMESPACES,
    SYSTEM_PATH,
    Place,
    Process,
    program_environment,
    run,
    spawn,
    start_helper,
)
from tests.lab.specs import HostSpec
from tests.lab.state import ProcessId
from tests.lab.wait import wait_for

if TYPE_CHECKING:
    import docker

    from tests.lab.lab import Lab

ENGINE_DEADLINE_S = 60.0
LOG_TAIL_BYTES = 3000


class Host:
    """One machine of the lab. It keeps its address, name and disk over power loss."""

    def __init__(self, lab: "Lab", index: int) -> None:
        """Refer to the host with this index (from 1) of a lab; use `Lab.host`."""
        self.lab = lab
        self.index = index
        self.name = f"host{index}"
        self.address = str(network.host_address(lab.number, index))
        self.directory = lab.directory / self.name
        self._keeper: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        """Name the host, its lab and its address."""
        return f"<{self.name} of lab {self.lab.id}, {self.address}>"

    # --- where things are ---

    @property
    def docker_socket(self) -> Path:
        """The engine's socket, usable from outside (inside it is /run/docker.sock)."""
        return self.directory / "run" / "docker.sock"

    @property
    def docker_url(self) -> str:
        """The engine's address for the docker SDK and for DOCKER_HOST, usable from outside."""
        return f"unix://{self.docker_socket}"

    @functools.cached_property
    def docker(self) -> "docker.DockerClient":
        """A client of this host's engine, closed with the lab."""
        import docker  # half a second: `lab exec` shall not wait for it

        return docker.DockerClient(base_url=self.docker_url, timeout=60)

    @property
    def disk(self) -> Path:
        """The directory that holds the host's disk."""
        return self.directory / "disk"

    def outside_path(self, inside: str | os.PathLike[str]) -> Path:
        """Return where a file of the host is seen from outside, also while the power is off.

        Files outside the host's own directories (/run, /etc, /var/lib, /var/log) are the machine's.
        Of a layered directory only what the host itself has written is there.
        """
        path = Path(inside)
        if path.is_relative_to("/run"):
            return self.directory / path.relative_to("/")
        for own in OWN_DISK:
            if path.is_relative_to(own):
                return self.disk / own.lstrip("/") / "data" / path.relative_to(own)
        for layer in LAYERED:
            if path.is_relative_to(layer):
                return self.disk / layer.lstrip("/") / "upper" / path.relative_to(layer)
        return path

    # --- what it is ---

    def is_on(self) -> bool:
        """Return whether the host has power."""
        process = self.lab.record().hosts.get(self.index)
        return process is not None and process.is_alive

    @property
    def init_pid(self) -> int:
        """The machine's number of the host's first process.

        Raises:
            LabError: The host is off.
        """
        process = self.lab.record().hosts.get(self.index)
        if process is None or not process.is_alive:
            raise LabError(f"{self.name} is off: boot it first")
        return process.pid

    def engine_pid(self) -> int | None:
        """Return the machine's number of the dockerd process, None while there is none."""
        init = self.init_pid
        for pid in self.lab.cgroups.processes(self.name, "sys"):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/stat").read_text()
                if "(dockerd)" in status and int(status.rpartition(")")[2].split()[1]) == init:
                    return pid
        return None

    def own_processes(self) -> set[int]:
        """Return the ids of its init and engine, not those of containers and their shims."""
        pids = self.lab.cgroups.processes(self.name, "sys")
        return {pid for pid in pids if not _command(pid).startswith("containerd-shim")}

    def place(self) -> Place:
        """Return where programs of this host run, for `spawn` and `run`."""
        groups = tuple(self.lab.cgroups.directories(self.name, "user"))
        return Place(self.init_pid, ALL_NAMESPACES, groups)

    # --- running programs ---

    def exec(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin_text: str | None = None,
        check: bool = True,
        timeout_s: float = 60.0,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host to its end; see `tests.lab.process.run`."""
        return run(
            argv,
            self.place(),
            stdin_text=stdin_text,
            check=check,
            timeout_s=timeout_s,
            environment=environment,
            cwd=cwd,
        )

    def popen(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        tied: bool = True,
        session: bool = True,
    ) -> Process:
        """Start a program on the host; see `tests.lab.process.spawn`."""
        return spawn(
            argv,
            self.place(),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            environment=environment,
            cwd=cwd,
            tied=tied,
            session=session,
        )

    # --- the network ---

    def cut(
        self, direction: str | Direction = Direction.BOTH, peers: Sequence["Host"] | None = None
    ) -> None:
        """Cut the host off, on top of the cuts there are.

        Args:
            direction: "both"; "out" (it is not heard, but hears) or "in" (it hears nothing, but is
                heard).
            peers: From these hosts only; None is from everyone, the switch too.
        """
        with self.lab.changed_cuts() as record:
            indexes = None if peers is None else [peer.index for peer in peers]
            record.cuts = record.cuts.cut(self.index, Direction(direction), indexes)

    def heal(self) -> None:
        """Undo every cut that this host has a part in."""
        with self.lab.changed_cuts() as record:
            record.cuts = record.cuts.heal(self.index)

    def link_flap(self) -> None:
        """Take the host's carrier away and give it back, each time until the host has seen it."""
        for up in (False, True):
            self.lab.switch.set_link(self.index, up=up)
            wait_for(
                lambda wanted=up: self._has_carrier() is wanted,  # type: ignore[misc]
                f"the carrier of {self.name} is {'up' if up else 'down'}",
                deadline_s=10,
            )

    def _has_carrier(self) -> bool:
        return '"LOWER_UP"' in network.tool(
            self.init_pid, ["ip", "-j", "link", "show", "dev", "eth0"]
        )

    # --- power ---

    def boot(self) -> None:
        """Power the host on and wait until its engine answers; one that is on is left alone.

        The disk is kept, /run is empty, the network namespace is new, name and addresses are the
        same.
        """
        if self.is_on():
            return
        groups = self.lab.cgroups
        groups.kill(self.name)
        groups.create(self.name, inner=True)
        for leaf in ("sys", "user"):
            groups.create(self.name, leaf)
        self._prepare_directory()
        with open(self.directory / "host.log", "ab") as log:
            helper = start_helper(
                "host",
                self._spec(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                environment=program_environment(),
                new_session=True,
            )
        self._keeper = helper.popen
        with self.lab.changed_cuts() as record:
            record.hosts[self.index] = ProcessId.of(helper.pid)
            record.cuts = record.cuts.power(self.index, on=True)
        self.lab.switch.plug(self.index, helper.pid)
        self.start_engine()
        self._load_images()

    def power_off(self) -> None:
        """Cut the power: the link falls silent first, so no peer is told; then everything dies."""
        with self.lab.changed_cuts() as record:
            record.cuts = record.cuts.power(self.index, on=False)
        process = self.lab.record().hosts.get(self.index)
        if process is not None and process.is_alive:
            os.kill(
                process.pid, signal.SIGKILL
            )  # PID 1 of its namespace: the kernel kills the rest
        self.lab.cgroups.kill(self.name)
        with self.lab.state.change(self.lab.id) as record:
            record.hosts[self.index] = None
        self.reap()
        self.lab.cgroups.remove(self.name)
        self.lab.switch.unplug(self.index)

    def reap(self) -> None:
        """Collect the ended keeper process, and let go of the engine's client."""
        if self._keeper is not None:
            self._keeper.wait()
            self._keeper = None
        if client := self.__dict__.pop("docker", None):
            client.close()

    def _prepare_directory(self) -> None:
        """Wipe /run and write the few files a host has of its own in /etc."""
        shutil.rmtree(self.directory / "run", ignore_errors=True)
        (self.directory / "run" / "lock").mkdir(parents=True)
        etc = self.directory / "etc"
        etc.mkdir(exist_ok=True)
        neighbours = range(1, max(len(self.lab.record().hosts), self.index) + 1)
        names = [
            f"{network.host_address(self.lab.number, index)} host{index}" for index in neighbours
        ]
        files = {
            "hostname": self.name,
            "hosts": "\n".join(["127.0.0.1 localhost", "::1 localhost", *names]),
            # Nobody answers there, and its kernel says so at once.
            "resolv.conf": f"nameserver {network.switch_address(self.lab.number)}",
            "machine-id": uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{self.lab.id}").hex,
        }
        for name, text in files.items():
            (etc / name).write_text(text + "\n")
        trusted = {"insecure-registries": [str(network.subnet(self.lab.number))]}
        settings = {**engine.DEFAULTS, **trusted, **self.lab.record().engine}
        (self.directory / "daemon.json").write_text(json.dumps(settings, indent=1) + "\n")

    def _spec(self) -> HostSpec:
        record, groups = self.lab.record(), self.lab.cgroups
        policy = "DROP" if record.forward_drop else "ACCEPT"
        return {
            "name": self.name,
            "directory": str(self.directory),
            "cgroup_roots": groups.directories(self.name),
            "cgroup_leaves": groups.directories(self.name, "sys"),
            "cgroup_mounts": groups.mounts(),
            "cgroup_links": groups.links(),
            # The engine sets the policy DROP itself if it is the one that switches forwarding on.
            "ip_forward": not record.forward_drop,
            "boot_id": str(uuid.uuid4()),
            "commands": [["iptables", "-P", "FORWARD", policy]],
            "engine": ["dockerd"],
            "path": SYSTEM_PATH,
        }

    # --- the engine ---

    def start_engine(self) -> None:
        """Start the engine and wait until it answers; one that runs is left alone.

        Raises:
            LabError: It does not answer in time; the message ends with its log.
        """
        ended = self.directory / ENGINE_ENDED
        if self.engine_pid() is None:
            ended.unlink(missing_ok=True)
            os.kill(self.init_pid, signal.SIGUSR1)
        try:
            wait_for(
                lambda: engine.answers(self.docker_socket) or ended.exists(),
                f"the engine of {self.name} answers",
                deadline_s=ENGINE_DEADLINE_S,
            )
        except LabError as err:
            raise LabError(f"{err}:\n{self.engine_log()}") from err
        if ended.exists():
            raise LabError(f"the engine of {self.name} has ended:\n{self.engine_log()}")

    def stop_engine(self) -> None:
        """Ask the engine to end and wait until it has; its containers run on (live-restore)."""
        self._end_engine(signal.SIGTERM)

    def kill_engine(self) -> None:
        """Kill the engine and wait until it has gone; its containers run on."""
        self._end_engine(signal.SIGKILL)

    def _end_engine(self, number: int) -> None:
        if pid := self.engine_pid():
            os.kill(pid, number)
            wait_for(
                lambda: self.engine_pid() is None,
                f"the engine of {self.name} has ended",
                deadline_s=30,
            )

    def engine_log(self) -> str:
        """Return the end of the engine's log."""
        try:
            return (self.directory / "dockerd.log").read_text(errors="replace")[-LOG_TAIL_BYTES:]
        except FileNotFoundError:
            return "(no log)"

    def _load_images(self) -> None:
        """Load the lab's images at the first boot."""
        archive, marker = self.lab.record().archive, self.directory / "loaded"
        if archive and not marker.exists():
            self.load_images(Path(archive))
            marker.touch()

    def load_images(self, archive: Path) -> None:
        """Load an archive of images into the engine."""
        with open(archive, "rb") as file:
            self.docker.images.load(file)


def _command(pid: int) -> str:
    """Return the name of a process's program, "" if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
