"""Which cgroups does a lab own, on cgroup v1 and on cgroup v2, and who is in them?

A lab owns one subtree of the same name in every hierarchy: `dray-lab-ID/hostN/{sys,user}` and
`dray-lab-ID/switch`. A host lives in a cgroup namespace whose root is its own `hostN`, so Docker's
containers appear below that without Docker knowing.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError, LabUnavailable
from tests.lab.specs import CgroupMount

PREFIX = "dray-lab-"
CONTROLLERS_V2 = ("cpu", "cpuset", "io", "memory", "pids")
END_DEADLINE_S = 10.0
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy of the machine."""

    point: Path
    version: int
    options: str
    read_only: bool

    @property
    def has_cpuset(self) -> bool:
        """Whether a new cgroup must be given processors before a process may join (v1)."""
        return self.version == 1 and "cpuset" in self.options.split(",")

    def as_mount(self) -> CgroupMount:
        """Return how a host mounts this hierarchy for itself."""
        if self.version == 2:
            return {"point": str(self.point), "fstype": "cgroup2", "options": ""}
        kept = [
            word
            for word in self.options.split(",")
            if word not in ("rw", "ro", "xattr", "noprefix")
        ]
        if any(word.startswith("name=") for word in kept):
            kept.insert(0, "none")
        return {"point": str(self.point), "fstype": "cgroup", "options": ",".join(kept)}


def parse_mountinfo(text: str) -> list[Hierarchy]:
    """Return the cgroup hierarchies in the text of /proc/self/mountinfo, each mount point once."""
    found: dict[Path, Hierarchy] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (fstype, _, super_options) = left.split(), right.split()[:3]
        point = Path(fields[4])
        if fstype in ("cgroup", "cgroup2") and point.is_relative_to("/sys/fs/cgroup"):
            read_only = "ro" in fields[5].split(",") or "ro" in super_options.split(",")
            found[point] = Hierarchy(
                point, 2 if fstype == "cgroup2" else 1, super_options, read_only
            )
    return list(found.values())


class CgroupTree:
    """The subtree of one lab in every hierarchy."""

    def __init__(self, lab_id: str, hierarchies: list[Hierarchy] | None = None) -> None:
        """Look at the machine's hierarchies; create nothing yet."""
        if hierarchies is None:
            hierarchies = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
        self.hierarchies = hierarchies
        self.name = PREFIX + lab_id

    def problems(self) -> list[str]:
        """Return why no lab can be made with these hierarchies, as sentences."""
        if not self.hierarchies:
            return [
                "no cgroup hierarchy is mounted below /sys/fs/cgroup: mount it "
                "(mount -t cgroup2 cgroup2 /sys/fs/cgroup), or bind the machine's into a chroot "
                "with --rbind"
            ]
        return [
            f"the cgroup hierarchy {hierarchy.point} is read-only: start this container privileged"
            for hierarchy in self.hierarchies
            if hierarchy.read_only
        ]

    def mounts(self) -> list[CgroupMount]:
        """Return how a host mounts the hierarchies, outermost first."""
        return [
            hierarchy.as_mount() for hierarchy in sorted(self.hierarchies, key=lambda h: h.point)
        ]

    def links(self) -> dict[str, str]:
        """Return the symbolic links among the mount points (`cpu` for `cpu,cpuacct`)."""
        top = Path("/sys/fs/cgroup")
        return {str(entry): os.readlink(entry) for entry in top.iterdir() if entry.is_symlink()}

    def directories(self, *parts: str) -> list[str]:
        """Return the paths of one cgroup of the lab in every hierarchy."""
        return [str(hierarchy.point.joinpath(self.name, *parts)) for hierarchy in self.hierarchies]

    def create(self, *parts: str, inner: bool = False) -> None:
        """Create one cgroup of the lab in every hierarchy, its parents first.

        Args:
            parts: The path below the lab's own cgroup.
            inner: Children of it will use controllers (cgroup v2: such a cgroup holds no
                processes).
        """
        for hierarchy in self.hierarchies:
            path = hierarchy.point
            self._delegate(hierarchy, path)
            steps = (self.name, *parts)
            for depth, part in enumerate(steps, start=1):
                path = path / part
                path.mkdir(exist_ok=True)
                if hierarchy.has_cpuset:
                    self._give_processors(path)
                if depth < len(steps) or inner:
                    self._delegate(hierarchy, path)

    @staticmethod
    def _give_processors(path: Path) -> None:
        """Give a new cgroup its parent's processors and memory nodes; its children follow."""
        (path / "cgroup.clone_children").write_text("1")
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (path / name).read_text().strip():
                (path / name).write_text((path.parent / name).read_text())

    def _delegate(self, hierarchy: Hierarchy, path: Path) -> None:
        """Switch the controllers on for the children of a cgroup v2 directory."""
        if hierarchy.version != 2 or len(self.hierarchies) > 1:  # hybrid: the controllers are in v1
            return
        offered = (path / "cgroup.controllers").read_text().split()
        active = (path / "cgroup.subtree_control").read_text().split()
        wanted = [name for name in CONTROLLERS_V2 if name in offered and name not in active]
        if not wanted:
            return
        try:
            (path / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
        except OSError as err:
            raise LabUnavailable(
                f"cannot pass the controllers {', '.join(wanted)} on from {path} "
                f"({err.strerror}): that cgroup "
                "holds processes itself; start this container with the machine's cgroup namespace "
                "(--cgroupns=host), or move its processes into a cgroup of their own"
            ) from err

    def processes(self, *parts: str) -> set[int]:
        """Return the ids of all processes in one cgroup of the lab and below it."""
        return {
            int(line)
            for top in self.directories(*parts)
            for directory in _walk(Path(top))
            for line in _lines(directory / "cgroup.procs")
        }

    def kill(self, *parts: str, deadline_s: float = END_DEADLINE_S) -> None:
        """Kill every process in one cgroup of the lab and below it, and wait until they have gone.

        Raises:
            LabError: Processes are still there after the deadline (seconds).
        """
        end = time.monotonic() + deadline_s
        while pids := self.processes(*parts):
            self._thaw(*parts)  # a frozen process of cgroup v1 does not even die
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                raise LabError(
                    f"processes {sorted(pids)} of {self.name} did not end in {deadline_s} s"
                )
            time.sleep(POLL_S)

    def _thaw(self, *parts: str) -> None:
        for hierarchy in self.hierarchies:
            if "freezer" in hierarchy.options.split(","):
                for directory in _walk(hierarchy.point.joinpath(self.name, *parts)):
                    with contextlib.suppress(OSError):
                        (directory / "freezer.state").write_text("THAWED")

    def remove(self, *parts: str, deadline_s: float = END_DEADLINE_S) -> None:
        """Remove one cgroup of the lab and all below it.

        The kernel empties a cgroup a little after its last process has gone, so this tries again.

        Raises:
            LabError: A cgroup is still there after the deadline (seconds).
        """
        end = time.monotonic() + deadline_s
        for top in map(Path, self.directories(*parts)):
            while top.exists():
                for directory in reversed(list(_walk(top))):
                    with contextlib.suppress(OSError):
                        directory.rmdir()
                if time.monotonic() > end:
                    raise LabError(
                        f"cgroup {top} cannot be removed: it holds {sorted(self.processes(*parts))}"
                    )
                if top.exists():
                    time.sleep(POLL_S)

    def left(self) -> list[str]:
        """Return the lab's cgroups that exist."""
        return [directory for directory in self.directories() if os.path.isdir(directory)]


def lab_ids(hierarchies: list[Hierarchy]) -> set[str]:
    """Return the ids of all labs that have a cgroup on this machine."""
    return {
        entry.name.removeprefix(PREFIX)
        for hierarchy in hierarchies
        for entry in hierarchy.point.glob(f"{PREFIX}*")
    }


def _walk(top: Path) -> Iterator[Path]:
    """Yield a directory and all directories below it, parents first."""
    for directory, _, _ in os.walk(top):
        yield Path(directory)


def _lines(path: Path) -> list[str]:
    """Return the lines of a small file that may vanish at any moment."""
    try:
        return path.read_text().split()
    except OSError:
        return []
