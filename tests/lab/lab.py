"""How does a lab come up, what does it consist of, and how does it go without a trace?"""

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO

from tests.lab import network
from tests.lab.audit import Traces
from tests.lab.cgroups import CgroupTree
from tests.lab.errors import LabError, LabUnavailable
from tests.lab.host import Host
from tests.lab.images import ALL, Image, image_archive
from tests.lab.network import HOSTS_MAX, Cuts, Switch
from tests.lab.process import (
    Place,
    Process,
    program_environment,
    program_path,
    run,
    spawn,
    start_helper,
)
from tests.lab.state import ProcessId, Record, State, machine_boot_id

PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "iptables": "iptables",
    "dockerd": "docker.io",
    "containerd": "docker.io or containerd",
    "runc": "docker.io or runc",
}
TRACES_DEADLINE_S = 5.0
SWITCH_SYSCTLS = {
    # Nothing listens on the switch: whoever asks (a resolver, a registry) shall be refused at
    # once each
    # time, or he waits out his own timeout.
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/ip_forward": "0",
    # Frames between hosts are the bridge's business, not that of the switch's iptables.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
}


def problems(state: State) -> list[str]:
    """Return everything this machine lacks for a lab, as sentences; nothing if it lacks nothing."""
    if os.geteuid() != 0:
        return ["the lab needs root: it makes namespaces, cgroups and mounts"]
    found = [
        f"{name} is missing: install the package {package}"
        for name, package in PROGRAMS.items()
        if shutil.which(name, path=program_path()) is None
    ]
    found += CgroupTree("probe").problems()
    if _filesystem_of(state.root) in ("overlay", "aufs"):
        found.append(
            f"{state.root} is on an overlay file system, on which Docker cannot stack its own: "
            "set DRAY_LAB_DIR to a directory on a disk (a volume, in a container)"
        )
    if any(
        state.root.is_relative_to(path)
        for path in ("/run", "/etc", "/var/lib", "/var/log", "/proc", "/sys")
    ):
        found.append(
            f"{state.root} is in a directory that hosts have of their own: "
            "set DRAY_LAB_DIR to another"
        )
    return found


def _filesystem_of(path: Path) -> str:
    """Return the type of the file system that a path is, or would be, on."""
    best, kind = -1, ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), right.split()[0]
    return kind


class Lab:
    """Some hosts, each with a Docker engine, on one switch.

    Use `Lab.up(3)`, as a context manager or with `down`. A lab whose process dies without `down` is
    swept away by the next `up` of anybody.
    """

    def __init__(self, state: State, lab_id: str) -> None:
        """Refer to a lab that is there; use `Lab.up` or `Lab.attach`."""
        self.state = state
        self.id = lab_id
        self.number = state.read(lab_id).number
        self.directory = state.directory(lab_id)
        self.cgroups = CgroupTree(lab_id)
        self._hosts: dict[int, Host] = {}
        self._switch_holder: subprocess.Popen[bytes] | None = None

    # --- coming and going ---

    @classmethod
    def up(
        cls,
        hosts: int,
        *,
        images: Sequence[Image] = ALL,
        engine: Mapping[str, object] | None = None,
        forward_drop: bool = True,
        keep: bool = False,
        directory: Path | None = None,
    ) -> "Lab":
        """Sweep away abandoned labs, make a new one and return when every host's engine answers.

        Args:
            hosts: How many, 1 to HOSTS_MAX.
            images: Images that every host has; made locally.
            engine: Settings added to each engine's daemon.json, or replacing those of
                `engine.DEFAULTS`.
            forward_drop: Hosts start with the FORWARD policy DROP, like freshly installed ones;
                with False it is ACCEPT, which hides missing rules.
            keep: The lab stays after this process, until `down`.
            directory: The state directory; the usual one if None.

        Raises:
            LabUnavailable: This machine cannot hold a lab; the message says what is missing.
            LabError: Something else failed; nothing is left of the lab.
        """
        if not 1 <= hosts <= HOSTS_MAX:
            raise LabError(f"a lab has 1 to {HOSTS_MAX} hosts, not {hosts}")
        state = State(directory)
        if missing := problems(state):
            raise LabUnavailable("no lab can be made here:\n- " + "\n- ".join(missing))
        cls.sweep(directory)
        archive = str(image_archive(images)) if images else ""
        with state.locked():
            lab_id, number = state.new_name()
            owner = None if keep else ProcessId.of(os.getpid())
            record = Record(
                lab_id, number, machine_boot_id(), owner, archive, dict(engine or {}), forward_drop
            )
            state.write(record)
        lab = cls(state, lab_id)
        try:
            lab._start_switch()
            lab.add_hosts(hosts)
        except BaseException:
            with contextlib.suppress(LabError):
                lab.down()
            raise
        if not keep:
            atexit.register(lab._down_at_exit)
        return lab

    @classmethod
    def attach(cls, lab_id: str, directory: Path | None = None) -> "Lab":
        """Return a lab that another process has made."""
        return cls(State(directory), lab_id)

    @classmethod
    def live(cls, directory: Path | None = None) -> list["Lab"]:
        """Return all labs of this machine that are not abandoned."""
        state = State(directory)
        return [cls(state, record.id) for record in state.records() if not record.is_abandoned]

    @classmethod
    def sweep(cls, directory: Path | None = None) -> list[str]:
        """Remove every lab whose owner is dead, and return their ids."""
        state = State(directory)
        if not state.root.exists():
            return []
        state.remove_strays()
        abandoned = [record.id for record in state.records() if record.is_abandoned]
        for lab_id in abandoned:
            with contextlib.suppress(LabError):  # someone else has swept it in the meantime
                cls(state, lab_id).down()
        return abandoned

    def down(self) -> None:
        """End the lab and remove everything that it made; a lab that is gone already is left alone.

        Raises:
            LabError: Something is left; the message lists it.
        """
        atexit.unregister(self._down_at_exit)
        if not self.directory.exists() and not self.cgroups.left():
            return
        traces = Traces.of(self.number, self.directory, self.cgroups)
        self.cgroups.kill()
        for host in self._hosts.values():
            host.reap()
        if self._switch_holder is not None:
            self._switch_holder.wait()
            self._switch_holder = None
        self.cgroups.remove()
        with self.state.locked():
            shutil.rmtree(self.directory, ignore_errors=True)
        end = time.monotonic() + TRACES_DEADLINE_S
        while (left := traces.remaining()) and time.monotonic() < end:
            time.sleep(0.02)
        if left:
            raise LabError(
                f"lab {self.id} left something behind:\n- " + "\n- ".join(sorted(set(left)))
            )

    def _down_at_exit(self) -> None:
        self.down()

    def __enter__(self) -> "Lab":
        """Return the lab itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the lab down."""
        self.down()

    def traces(self) -> Traces:
        """Return everything by which this lab can be recognised on the machine."""
        return Traces.of(self.number, self.directory, self.cgroups)

    def _start_switch(self) -> None:
        self.cgroups.create("switch")
        helper = start_helper(
            "switch",
            {"cgroups": self.cgroups.directories("switch"), "sysctls": SWITCH_SYSCTLS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            environment=program_environment(),
            new_session=True,
        )
        self._switch_holder = helper.popen
        with self.state.change(self.id) as record:
            record.switch = ProcessId.of(helper.pid)
        self.switch.set_up()

    # --- hosts ---

    def record(self) -> Record:
        """Return what is stored about the lab."""
        return self.state.read(self.id)

    @property
    def hosts(self) -> list[Host]:
        """All hosts, also those without power."""
        return [self.host(index) for index in sorted(self.record().hosts)]

    def host(self, index: int) -> Host:
        """Return one host (index from 1).

        Raises:
            LabError: The lab has no such host.
        """
        if index not in self._hosts:
            known = sorted(self.record().hosts)
            if index not in known:
                raise LabError(
                    f"lab {self.id} has no host {index}, but {', '.join(map(str, known)) or 'none'}"
                )
            self._hosts[index] = Host(self, index)
        return self._hosts[index]

    def add_hosts(self, count: int) -> list[Host]:
        """Add some hosts, boot them all at the same time, and return them."""
        with self.state.change(self.id) as record:
            first = max(record.hosts, default=0) + 1
            record.hosts.update(dict.fromkeys(range(first, first + count)))
        added = [self.host(index) for index in range(first, first + count)]
        with ThreadPoolExecutor(max_workers=count) as pool:
            for outcome in [pool.submit(host.boot) for host in added]:
                outcome.result()
        return added

    def mend(self) -> None:
        """Undo all cuts, power every host on and start every engine."""
        record = self.record()
        if record.cuts.one_way:
            with self.changed_cuts() as record:
                record.cuts = Cuts(dark=record.cuts.dark)
        for host in self.hosts:
            host.boot()
            host.start_engine()

    def own_processes(self) -> set[int]:
        """Return the ids of the processes that are the lab; containers and programs are not."""
        found = self.cgroups.processes("switch")
        for index in self.record().hosts:
            found |= self.host(index).own_processes()
        return found

    # --- the switch: an outside client's place ---

    @functools.cached_property
    def switch(self) -> Switch:
        """The lab's switch.

        Raises:
            LabError: The process that holds it is gone.
        """
        holder = self.record().switch
        if holder is None or not holder.is_alive:
            raise LabError(f"lab {self.id} has lost its switch: take it down")
        return Switch(holder.pid, self.number)

    @property
    def switch_address(self) -> str:
        """The address of the switch, by which hosts reach what runs on it."""
        return str(network.switch_address(self.number))

    @property
    def subnet(self) -> str:
        """The hosts' subnet."""
        return str(network.subnet(self.number))

    def switch_place(self) -> Place:
        """Return the place of an outside client: the machine, with the switch's network."""
        return Place(self.switch.pid, ("net",), tuple(self.cgroups.directories("switch")))

    def switch_exec(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin_text: str | None = None,
        check: bool = True,
        timeout_s: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as an outside client to its end; see `tests.lab.process.run`."""
        return run(
            argv,
            self.switch_place(),
            stdin_text=stdin_text,
            check=check,
            timeout_s=timeout_s,
            environment=environment,
        )

    def switch_popen(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        session: bool = True,
    ) -> Process:
        """Start a program as an outside client; see `tests.lab.process.spawn`."""
        return spawn(
            argv,
            self.switch_place(),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            environment=environment,
            session=session,
        )

    @contextlib.contextmanager
    def changed_cuts(self) -> Iterator[Record]:
        """Yield the record for a change of its cuts, and make the switch follow."""
        with self.state.change(self.id) as record:
            yield record
            self.switch.apply(record.cuts)
