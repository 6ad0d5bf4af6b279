"""What does a watch lose when etcd fails, ours and that of `etcd3`? Prints JSON.

`python -m benchmarks.store_faults [--only FAULT…] [--repeats N]` (as root: three hosts of the lab)

Two clients follow one prefix, connected to the same server: ours (a list, then a watch, the list
again when the store says that it must be), and `etcd3` (`benchmarks.etcd3_peer`). A third one
writes numbered keys, each once, through another server where there is one. In the middle comes the
fault. At the end what the followers hold is compared with what is stored: *lost* keys are missing,
or are held and not stored; *doubled* ones came twice with one revision. `gap_s` is the longest time
without news; the writer's own is beside it, since nobody hears what is not written.

    python -m benchmarks.store_faults follow|write PREFIX ADDRESS:PORT…

are the programs that it starts, in the network of the lab's switch.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.etcd3_peer import installed
from benchmarks.told import about, etcd_version
from dray.addresses import parse_host_port
from dray.errors import AmbiguousWrite, DrayError
from scheduler.store.base import Compacted, Put, Txn
from scheduler.store.etcd import EtcdStore
from tests.lab import Lab
from tests.lab.errors import LabError
from tests.lab.etcd import EtcdCluster
from tests.lab.process import Process, spawn
from tests.lab.wait import wait_for

BEAT_S: Final = 0.004  # between two writes
BEFORE_S: Final = 1.0  # of writing before and after a fault
LASTS_S: Final = 9.0  # how long a fault lasts: longer than it takes to notice silence
SETTLE_S: Final = 20.0  # for followers to catch up
PAUSE_S: Final = 0.05
SERVERS: Final = 3
QUOTA_BYTES: Final = 16 * 1_048_576
LAST: Final = "end"


# ---- the programs


async def follow(prefix: str, addresses: Sequence[str]) -> None:
    """Print what a mirror of the prefix hears: changes, and whole listings."""
    store = EtcdStore([parse_host_port(each) for each in addresses], None, insecure=True)
    try:
        while True:
            try:
                await _follow(store, prefix)
            except Compacted as error:
                _say(listed_again=str(error))
            except DrayError as error:
                _say(trouble=str(error))
                await asyncio.sleep(PAUSE_S)
    finally:
        await store.close()


async def _follow(store: EtcdStore, prefix: str) -> None:
    listing = await store.list(prefix)
    _say(listing=[item.key for item in listing.items], ready=True)
    async with store.watch(prefix, after=listing.revision) as watch:
        async for changes in watch:
            for change in changes.changes:
                _say(key=change.key, at=changes.revision)


async def write(prefix: str, addresses: Sequence[str]) -> None:
    """Write numbered keys until a line comes; then the last one, and say what was told of them."""
    store = EtcdStore([parse_host_port(each) for each in addresses], None, insecure=True)
    asked = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    told: Counter[str] = Counter()
    gap_s, last_s = 0.0, time.monotonic()
    _say(ready=True)
    for number in itertools.count():
        is_last = asked.done()
        try:
            key = LAST if is_last else f"{number:08}"
            await store.commit(Txn((), (Put(f"{prefix}{key}", b"v" * 32),)))
            told["committed"] += 1
            gap_s, last_s = max(gap_s, time.monotonic() - last_s), time.monotonic()
            if is_last:
                break
        except AmbiguousWrite:
            told["ambiguous"] += 1
        except DrayError:
            told["refused"] += 1
        await asyncio.sleep(BEAT_S)
    items = (await store.list(prefix)).items
    _say(told=dict(told), gap_s=gap_s, stored=[item.key for item in items])
    await store.close()


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


# ---- who runs them


class Listener:
    """A program whose lines are read as they come."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"{"):  # the others are log lines
                self.lines.append((time.monotonic(), json.loads(line)))

    def has(self, name: str) -> bool:
        """Return whether a line with that field has come."""
        return any(name in line for _, line in self.lines)

    def heard(self, key: str) -> bool:
        """Return whether a key has come, as a change or in a listing."""
        return any(
            key == line.get("key") or key in line.get("listing", ()) for _, line in self.lines
        )

    def end(self) -> None:
        """Kill it, also while it is stopped."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class World:
    """A cluster of etcd and the place where its clients run."""

    def __init__(self, etcd: EtcdCluster, lab: Lab | None, folder: Path) -> None:
        self.etcd = etcd
        self.lab = lab
        self.folder = folder
        self.followers: list[Listener] = []

    def start(self, *words: str, environment: dict[str, str] | None = None) -> Listener:
        """Start a program beside the switch, or on this machine."""
        argv = [sys.executable, "-m", *words]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": Path.cwd()}
        place = () if self.lab is None else (self.lab.switch_place(),)
        return Listener(spawn(argv, *place, environment=environment, **pipes))  # type: ignore[arg-type]

    @property
    def others(self) -> list[int]:
        """The members that the followers are not connected to."""
        return [member.index for member in self.etcd.members[1:]]


Fault = Callable[[World], None]


def server_killed(world: World) -> None:
    """SIGKILL of the followers' server; it comes back."""
    world.etcd.kill(0)
    time.sleep(LASTS_S / 3)
    world.etcd.mend()


def all_killed(world: World) -> None:
    """SIGKILL of every server; they come back."""
    for member in world.etcd.members:
        world.etcd.kill(member.index)
    time.sleep(LASTS_S / 3)
    world.etcd.mend()


def restarted(world: World) -> None:
    """Every server is ended and started, one after the other."""
    for member in world.etcd.members:
        world.etcd.restart(member.index)


def stopped(world: World) -> None:
    """SIGSTOP of the followers' server: its kernel goes on accepting."""
    world.etcd.pause(0)
    time.sleep(LASTS_S)
    world.etcd.resume(0)


def black_holed(world: World) -> None:
    """Nothing goes to or comes from the followers' server, without an error."""
    host = world.etcd.members[0].host
    assert host is not None
    host.cut()
    time.sleep(LASTS_S)
    host.heal()


def cut_from_peers(world: World) -> None:
    """The followers' server is reached by them, and by no other server."""
    host = world.etcd.members[0].host
    assert host is not None
    assert world.lab is not None
    host.cut(peers=[each for each in world.lab.hosts if each is not host])
    time.sleep(LASTS_S)
    host.heal()


def compacted_while_behind(world: World) -> None:
    """The followers sleep, their server dies, and what they have not seen is forgotten."""
    for follower in world.followers:
        follower.process.pause()
    world.etcd.kill(0)
    if not world.others:
        world.etcd.mend()
    time.sleep(LASTS_S / 2)  # an election, and then writes that nobody hears
    ends = [world.etcd.members[index].endpoint for index in world.others or (0,)]
    status = world.etcd.etcdctl("endpoint", "status", "-w", "json", endpoints=ends[:1]).stdout
    revision = json.loads(status)[0]["Status"]["header"]["revision"]
    world.etcd.etcdctl("compact", str(revision), endpoints=ends[:1])
    world.etcd.mend()
    for follower in world.followers:
        follower.process.resume()


def quota_full(world: World) -> None:
    """The database is filled until writes are refused; then room is made again."""
    value = "v" * 1_000_000
    path = world.folder / "large"
    path.write_text(value)
    for number in range(2 * QUOTA_BYTES // len(value)):
        done = _put_file(world, f"/fill/{number}", path)
        if not done:
            break
    time.sleep(BEFORE_S)
    world.etcd.etcdctl("del", "--prefix", "/fill/", check=False)
    status = world.etcd.etcdctl("endpoint", "status", "-w", "json").stdout
    revision = max(each["Status"]["header"]["revision"] for each in json.loads(status))
    world.etcd.etcdctl("compact", str(revision))
    world.etcd.etcdctl("defrag")
    world.etcd.etcdctl("alarm", "disarm")


def _put_file(world: World, key: str, path: Path) -> bool:
    ends = ",".join(f"http://{end}" for end in world.etcd.endpoints)
    argv = ["sh", "-c", f"etcdctl --endpoints={ends} put {key} < {path}"]
    place = () if world.lab is None else (world.lab.switch_place(),)
    process = spawn(
        argv,
        *place,
        environment={"ETCDCTL_API": "3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return process.wait(30) == 0


def restored(world: World) -> None:
    """Every server is replaced by a snapshot from before the last writes."""
    path = world.folder / f"{time.monotonic_ns()}.db"
    world.etcd.snapshot_save(path)
    time.sleep(BEFORE_S)
    world.etcd.snapshot_restore(path)


FAULTS: Final[dict[str, Fault]] = {
    "server killed": server_killed,
    "all killed": all_killed,
    "restarted": restarted,
    "SIGSTOP": stopped,
    "black-holed": black_holed,
    "cut from its peers": cut_from_peers,
    "compacted while behind": compacted_while_behind,
    "quota full": quota_full,
    "restored from a snapshot": restored,
}
NEED_HOSTS: Final = frozenset({"black-holed", "cut from its peers"})


def once(world: World, fault: Fault, peer: dict[str, str] | None) -> dict[str, Any]:
    """Let one fault happen; return what each follower made of it.

    Args:
        world: Where.
        fault: What happens.
        peer: The environment in which `etcd3` can be imported; None: it is left out.
    """
    prefix = f"/faults/{time.monotonic_ns()}/"
    ends = list(world.etcd.endpoints)
    turned = ends[1:] + ends[:1]
    followers = {"ours": world.start("benchmarks.store_faults", "follow", prefix, *ends)}
    if peer is not None:
        words = ("benchmarks.etcd3_peer", "watch", *ends[0].rsplit(":", 1), prefix)
        followers["etcd3"] = world.start(*words, environment=peer)
    world.followers = list(followers.values())
    writer = world.start("benchmarks.store_faults", "write", prefix, *turned)
    try:
        for each in (*world.followers, writer):
            wait_for(lambda each=each: each.has("ready"), "a client is ready", deadline_s=60)  # type: ignore[misc]
        time.sleep(BEFORE_S)
        fault(world)
        time.sleep(BEFORE_S)
        assert writer.process.stdin is not None
        writer.process.stdin.write(b"\n")
        writer.process.stdin.flush()
        wait_for(lambda: writer.has("told"), "the writer is done", deadline_s=120)
        done = writer.lines[-1][1]
        _await_end(world.followers, prefix + LAST)
    finally:
        for each in (*world.followers, writer):
            each.end()
        world.etcd.mend()
    stored = set(done["stored"])
    return {
        "written": done["told"],
        "writer_gap_s": round(done["gap_s"], 2),
        **{name: _held(follower, stored) for name, follower in followers.items()},
    }


def _await_end(followers: Sequence[Listener], key: str) -> None:
    """Wait until followers have heard the last key, ours longest; what is missing then is lost."""
    deadline_s = SETTLE_S
    for follower in followers:
        with contextlib.suppress(LabError):
            wait_for(
                lambda follower=follower: follower.heard(key),  # type: ignore[misc]
                "the last key",
                deadline_s=deadline_s,
            )
        deadline_s = SETTLE_S / 4


def _held(follower: Listener, stored: set[str]) -> dict[str, Any]:
    """Return how what a follower holds differs from what is stored."""
    held: set[str] = set()
    events: Counter[tuple[str, int]] = Counter()
    listings = 0
    for _, line in follower.lines:
        if "listing" in line:
            held, listings = set(line["listing"]), listings + 1
            events.clear()  # a listing begins anew: after a restore numbers are used again
        elif "key" in line:
            held.add(line["key"])
            events[(line["key"], line["at"])] += 1
    times = [at_s for at_s, line in follower.lines if "key" in line or "listing" in line]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return {
        "lost": len(stored ^ held),
        "doubled": sum(count - 1 for count in events.values()),
        "gap_s": round(max(gaps, default=0.0), 2),
        "listings": listings,
        "ended": [line["ended"] for _, line in follower.lines if "ended" in line],
    }


# ---- all of them


@contextlib.contextmanager
def on_hosts(folder: Path) -> Iterator[World]:
    """Run three servers on three hosts of the lab."""
    arguments = [f"--quota-backend-bytes={QUOTA_BYTES}"]
    with (
        Lab.up(SERVERS, images=()) as lab,
        EtcdCluster(SERVERS, folder, hosts=lab.hosts, extra_args=arguments) as etcd,
    ):
        yield World(etcd, lab, folder)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[World]:
    """Run one server on this machine."""
    arguments = [f"--quota-backend-bytes={QUOTA_BYTES}"]
    with EtcdCluster(1, folder, extra_args=arguments) as etcd:
        yield World(etcd, None, folder)


def measure(only: Sequence[str], servers: Sequence[int], repeats: int) -> dict[str, Any]:
    """Let every fault happen; a cluster of its own for each."""
    found: dict[str, Any] = {"1 server": {}, "3 servers": {}}
    with tempfile.TemporaryDirectory(prefix="dray-faults-") as folder:
        peer = installed(Path(folder) / "etcd3")
        for name, fault in FAULTS.items():
            if only and name not in only:
                continue
            for count, size, made in ((1, "1 server", alone), (3, "3 servers", on_hosts)):
                if count not in servers or (count == 1 and name in NEED_HOSTS):
                    continue
                runs = []
                for number in range(repeats):
                    with made(Path(folder) / f"{name} {size} {number}".replace(" ", "-")) as world:
                        runs.append(once(world, fault, peer))
                    print(
                        json.dumps({name: runs[-1], "servers": size}), file=sys.stderr, flush=True
                    )
                found[size][name] = runs if repeats > 1 else runs[0]
    return found


def main() -> None:
    """Measure, or be one of the programs."""
    if sys.argv[1:2] in (["follow"], ["write"]):
        program = follow if sys.argv[1] == "follow" else write
        asyncio.run(program(sys.argv[2], sys.argv[3:]))
        return
    parser = argparse.ArgumentParser(prog="benchmarks.store_faults")
    parser.add_argument("--only", nargs="*", default=[], choices=list(FAULTS))
    parser.add_argument("--servers", nargs="*", type=int, default=[1, 3], choices=[1, 3])
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    shown = {
        **about("store_faults"),
        "etcd": etcd_version(),
        "peer": "etcd3 0.12.0 with stubs generated again",
        **measure(given.only, given.servers, max(1, given.repeats)),
    }
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
