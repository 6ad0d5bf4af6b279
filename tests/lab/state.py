"""Which labs live on this machine, who owns them, and what must another process know about one?

Each lab has a directory below the state directory, with a record in it. A record whose owner is
dead is a lab to sweep away. All changes are made under a lock on the state directory itself, which
vanishes with the last lab.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.cgroups import lab_ids, parse_mountinfo
from tests.lab.errors import LabError
from tests.lab.network import LABS_MAX, Cuts

DEFAULT_STATE_DIRECTORY = Path("/var/tmp/dray-lab")  # noqa: S108 - made with mode 0700, and its owner is checked
RECORD = "lab.json"


def state_directory() -> Path:
    """Return where labs keep their state: DRAY_LAB_DIR, or the default."""
    return Path(os.environ.get("DRAY_LAB_DIR", DEFAULT_STATE_DIRECTORY))


def process_start(pid: int) -> int | None:
    """Return the start time of a live process in clock ticks since boot, None if there is none.

    A process id alone says nothing after a while: the number is given out again.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, fields = text.rpartition(")")[2].split()[0], text.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(fields[19])


def machine_boot_id() -> str:
    """Return the id of the machine's current boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, told apart from a later one with the same number."""

    pid: int
    start: int

    @staticmethod
    def of(pid: int) -> "ProcessId":
        """Return the identity of a live process.

        Raises:
            LabError: It has ended.
        """
        start = process_start(pid)
        if start is None:
            raise LabError(f"process {pid} has ended")
        return ProcessId(pid, start)

    @property
    def is_alive(self) -> bool:
        """Whether this very process is there and no zombie."""
        return process_start(self.pid) == self.start


@dataclass(slots=True)
class Record:
    """What is stored about one lab.

    Attributes:
        id: Short random name, part of the names of everything the lab makes.
        number: Which subnet it has.
        boot_id: The machine's boot it was made in; nothing of it lives on in another one.
        owner: The process it belongs to; None for a lab that stays up until someone takes it down.
        archive: The images that each host loads at its first boot; "" for none.
        engine: What is added to each engine's daemon.json.
        forward_drop: Whether hosts start with the FORWARD policy DROP, like freshly installed ones.
        switch: The process that holds the switch.
        hosts: The first process of each host, by index; None while the power is off.
        cuts: Every cut in force.
    """

    id: str
    number: int
    boot_id: str
    owner: ProcessId | None
    archive: str
    engine: dict[str, object]
    forward_drop: bool
    switch: ProcessId | None = None
    hosts: dict[int, ProcessId | None] = field(default_factory=dict)
    cuts: Cuts = field(default_factory=Cuts)

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody will ever take this lab down."""
        if self.boot_id != machine_boot_id():
            return True
        return self.owner is not None and not self.owner.is_alive

    def to_json(self) -> str:
        """Return the record as text."""
        document = dataclasses.asdict(self)
        document["cuts"] = {"one_way": sorted(self.cuts.one_way), "dark": sorted(self.cuts.dark)}
        return json.dumps(document, indent=1)

    @staticmethod
    def from_json(text: str) -> "Record":
        """Return the record that `to_json` wrote."""
        document = json.loads(text)
        cuts = document.pop("cuts")
        hosts = document.pop("hosts")
        processes = {key: document.pop(key) for key in ("owner", "switch")}
        return Record(
            **document,
            owner=ProcessId(**processes["owner"]) if processes["owner"] else None,
            switch=ProcessId(**processes["switch"]) if processes["switch"] else None,
            hosts={int(key): ProcessId(**value) if value else None for key, value in hosts.items()},
            cuts=Cuts(frozenset((a, b) for a, b in cuts["one_way"]), frozenset(cuts["dark"])),
        )


class State:
    """The state directory."""

    def __init__(self, root: Path | None = None) -> None:
        """Use the given directory, or the usual one; create nothing yet."""
        self.root = root or state_directory()

    def directory(self, lab_id: str) -> Path:
        """Return the directory of one lab."""
        return self.root / lab_id

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of all labs; remove the state directory afterwards if nothing is in it."""
        while True:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_uid != os.geteuid():
                    raise LabError(
                        f"{self.root} belongs to someone else: remove it, or set DRAY_LAB_DIR"
                    )
                # Whoever held the lock before may have removed the directory: then ours locks
                # nothing.
                if not self.root.exists() or self.root.stat().st_ino != os.fstat(descriptor).st_ino:
                    continue
                yield
                with contextlib.suppress(OSError):
                    self.root.rmdir()
                return
            finally:
                os.close(descriptor)

    def records(self) -> list[Record]:
        """Return all labs, oldest number first."""
        found = []
        for path in self.root.glob(f"*/{RECORD}"):
            with contextlib.suppress(FileNotFoundError):
                found.append(Record.from_json(path.read_text()))
        return sorted(found, key=lambda record: record.number)

    def remove_strays(self) -> None:
        """Remove directories without a record: their maker died before it could write one."""
        with self.locked():
            for entry in self.root.iterdir():
                if entry.is_dir() and not (entry / RECORD).exists():
                    shutil.rmtree(entry, ignore_errors=True)

    def read(self, lab_id: str) -> Record:
        """Return one lab's record.

        Raises:
            LabError: There is no such lab.
        """
        try:
            return Record.from_json((self.directory(lab_id) / RECORD).read_text())
        except FileNotFoundError as err:
            raise LabError(f"there is no lab {lab_id}") from err

    def write(self, record: Record) -> None:
        """Store one lab's record; call it with the lock held."""
        path = self.directory(record.id) / RECORD
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(record.to_json())
        temporary.rename(path)

    @contextlib.contextmanager
    def change(self, lab_id: str) -> Iterator[Record]:
        """Yield one lab's record under the lock, and store it unless an exception passes."""
        with self.locked():
            record = self.read(lab_id)
            yield record
            self.write(record)

    def new_name(self) -> tuple[str, int]:
        """Return an id and a number that no lab on this machine has; call it with the lock held.

        Raises:
            LabError: All numbers are taken.
        """
        records = self.records()
        cgroup_names = lab_ids(parse_mountinfo(Path("/proc/self/mountinfo").read_text()))
        taken = {record.id for record in records} | cgroup_names
        lab_id = next(name for name in iter(lambda: secrets.token_hex(2), "") if name not in taken)
        free = sorted(set(range(LABS_MAX)) - {record.number for record in records})
        if not free:
            raise LabError(f"{LABS_MAX} labs are up: take some down")
        return lab_id, free[0]
