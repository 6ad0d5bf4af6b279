"""Does everything that goes wrong on a node end in a named state, with a reason, and leave nothing?

One engine for all: the faulty tasks run at once, so that the slowest of them is what it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dray.clock import SystemClock
from dray.errors import DrayError
from dray.log import get_logger
from dray.model import (
    AttemptReport,
    AttemptState,
    BindOptions,
    DeviceMapping,
    FaultKind,
    Healthcheck,
    HealthcheckKind,
    Hook,
    ImageOptions,
    Mount,
    MountKind,
    ProjectParts,
    PublishedPort,
    PublishMode,
    PullPolicy,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    TaskAssignment,
    TaskSpecEntry,
    VolumeSpec,
)
from node.agent.faults import Faults
from node.resources.machine import MachineWatch
from node.runtime.docker import DockerRuntime
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine
from tests.lab import BUSYBOX, Host
from tests.lab.images import Image, image_archive
from tests.lab.registry import Registry
from tests.node_agent import Rig, a_task, an_entry

S = AttemptState
NEVER = RestartPolicy(RestartCondition.NONE)
IMAGE = ImageOptions(BUSYBOX.reference)
OBEYS = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.02; done")
SILENCE_MAX_S = 1.0
# For another processor, as it says; its program is one for none.
FOREIGN = Image("dray-test/foreign:1", files={"/bin/other": "?"}, architecture="arm64")
HELD_PORT = 18_090
ABSENT_PORT = 18_091  # nobody listens
SILENT_PORT = 18_092  # takes connections and says nothing
SILENT = f"""
import socket, time
server = socket.create_server(("127.0.0.1", {SILENT_PORT}))
print("ready", flush=True)
kept = []
while True:
    kept.append(server.accept())
"""


pytestmark = pytest.mark.timeout(300)  # of each, on a busy machine


@pytest.fixture(scope="module")
def machine(
    engine_host: tuple[Host, Registry], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Host, Registry]:
    """Give the host an image that the registry alone has, and one of another platform."""
    host, registry = engine_host
    registry.push(host.docker, BUSYBOX.reference)
    host.docker.images.remove(registry.reference(BUSYBOX.reference))
    host.load_images(image_archive((FOREIGN,), tmp_path_factory.mktemp("images")))
    return host, registry


def a_rig(folder: Path, host: Host) -> Rig:
    """Return a node on a host's engine that gives up on silent registries soon."""
    rig = Rig(
        folder,
        lambda: DockerRuntime(host.docker_socket, pull_silence_max_s=SILENCE_MAX_S),
        network="bridge",
    )
    rig.wait_s = 120.0
    return rig


@pytest.fixture
def rig(machine: tuple[Host, Registry], tmp_path: Path) -> Rig:
    """Lend a node on the host."""
    return a_rig(tmp_path / "node", machine[0])


def left(host: Host) -> dict[str, set[str]]:
    """Return what a task could leave with an engine; the suite's guard watches the machine."""
    api = host.docker.api
    return {
        "containers": {each["Names"][0] for each in api.containers(all=True)},
        "volumes": {each["Name"] for each in api.volumes()["Volumes"] or ()},
        "networks": {each["Name"] for each in api.networks()},
    }


@dataclass(frozen=True)
class Fault:
    """What is wrong with a task, and how that must end.

    Attributes:
        changes: Its entry's.
        state: How its attempt ends, or where it waits.
        words: Parts of the reason.
    """

    changes: dict[str, Any]
    state: AttemptState
    words: tuple[str, ...]
    restart: RestartPolicy = field(default=NEVER)


def faults(registry: Registry) -> dict[str, Fault]:
    """Return all faults by the name of their service."""
    check = Healthcheck(HealthcheckKind.EXEC, ("false",), interval_s=0.1, timeout_s=5.0, retries=1)
    hungry = ("sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done")
    memory = ResourceLimits(memory_bytes=8 * 1024**2, memory_swap_bytes=8 * 1024**2)
    absent = Mount(MountKind.BIND, "/absent", "/mnt", bind=BindOptions(create_host_path=False))
    here, there = BUSYBOX.reference, registry.reference(BUSYBOX.reference)

    def image(reference: str, policy: PullPolicy = PullPolicy.MISSING, platform: str = "") -> Any:
        return {"image": ImageOptions(reference, platform, policy)}

    refusing, silent = (f"127.0.0.1:{port}/web:1" for port in (ABSENT_PORT, SILENT_PORT))
    crash = {"command": ("sh", "-c", "exit 3")}
    loop = RestartPolicy(RestartCondition.ON_FAILURE, delay_s=0.05, attempts_max=2)
    device = {"devices": (DeviceMapping("/dev/absent", "/dev/absent"),)}
    return {
        "crash": Fault(crash, S.FAILED, ("exit code 3",)),
        "loop": Fault(crash, S.FAILED, ("exit code 3", "restarted 2 times", "limit"), loop),
        "memory": Fault({"command": hungry, "limits": memory}, S.FAILED, ("out of memory",)),
        "command": Fault({"command": ("/absent",)}, S.REJECTED, ("/absent",)),
        "program": Fault({"command": ("/etc/passwd",)}, S.REJECTED, ("permission denied",)),
        "no-image": Fault(
            image("dray-test/nope:1", PullPolicy.NEVER), S.REJECTED, ("dray-test/nope:1", "never")
        ),
        "no-tag": Fault(
            image(registry.reference("nope:1")), S.REJECTED, (registry.reference("nope:1"),)
        ),
        "platform": Fault(
            image(here, PullPolicy.NEVER, "linux/s390x"), S.REJECTED, ("amd64", "s390x")
        ),
        "foreign": Fault(
            image(FOREIGN.reference), S.REJECTED, ("linux/arm64", "node is linux/amd64")
        ),
        "foreign-asked": Fault(
            {
                **image(FOREIGN.reference, platform="linux/arm64"),
                "command": ("/bin/other",),
            },
            S.FAILED,
            ("exit code", "image is linux/arm64, node is linux/amd64"),
        ),
        "platform-pulled": Fault(
            image(there, platform="linux/s390x"), S.REJECTED, ("platform", there)
        ),
        "refusing": Fault(image(refusing), S.REJECTED, (refusing, "connection refused")),
        "silent": Fault(image(silent), S.REJECTED, (silent, "no word from the registry")),
        "port": Fault(
            {"ports": (PublishedPort(80, HELD_PORT, mode=PublishMode.HOST),)},
            S.STARTING,
            (str(HELD_PORT),),
        ),
        "mount": Fault({"mounts": (absent,)}, S.REJECTED, ("/absent",)),
        "volume": Fault(
            {"mounts": (Mount(MountKind.VOLUME, "data", "/data"),)},
            S.REJECTED,
            ("shop_data", "not on this node"),
        ),
        "device": Fault(device, S.REJECTED, ("/dev/absent",)),
        "hook": Fault(
            {"post_start": (Hook(("sh", "-c", "echo no luck; exit 4")),)},
            S.FAILED,
            ("exit code 4: no luck",),
        ),
        "unhealthy": Fault({"healthcheck": check}, S.FAILED, ("health check failed",)),
        "small": Fault({"limits": ResourceLimits(memory_bytes=1024)}, S.REJECTED, ("memory",)),
    }


@pytest.fixture
def silent_registry(machine: tuple[Host, Registry]) -> Iterator[None]:
    """Run a registry on the host that takes connections and says nothing."""
    host, _ = machine
    process = host.popen([sys.executable, "-c", SILENT], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.usefixtures("silent_registry")
async def test_every_fault_has_a_state_and_a_reason_and_leaves_nothing(
    machine: tuple[Host, Registry], rig: Rig
) -> None:
    """A user reads why; once the tasks are unlisted, the engine is as it was before."""
    host, registry = machine
    before = await asyncio.to_thread(left, host)
    known = faults(registry)
    tasks = {name: a_task(number, name) for number, name in enumerate(known, 2)}
    entries = [_entry(name, fault) for name, fault in known.items()]
    held = an_entry(
        "holds",
        image=IMAGE,
        command=OBEYS,
        ports=(PublishedPort(80, HELD_PORT, mode=PublishMode.HOST),),
    )
    parts = ProjectParts("shop", volumes=(VolumeSpec("data", "shop_data"),))
    holder = a_task(1, "holds")
    async with rig.daemon():
        await rig.assign(holder, entries=(held,), parts=parts)
        await rig.reached(S.RUNNING)
        await rig.assign(holder, *tasks.values(), entries=(held, *entries), parts=parts)
        for name, fault in known.items():
            report = await _ended(rig, tasks[name], fault)
            assert all(word in report.reason for word in fault.words), (name, report)
        assert (await rig.reached(S.RUNNING)).attempt == 1
        await rig.assign()
        for number in range(1, len(tasks) + 2):
            await rig.gone(number)
        assert await asyncio.to_thread(left, host) == before


def _entry(name: str, fault: Fault) -> TaskSpecEntry:
    given = {"image": IMAGE, "command": OBEYS, "restart": fault.restart, **fault.changes}
    return an_entry(name, **given)


async def _ended(rig: Rig, task: TaskAssignment, fault: Fault) -> AttemptReport:
    """Wait until a task is where its fault leads, with something to say."""

    def report() -> AttemptReport | None:
        return rig.agent.book.reports.get(task.task_id)

    def holds() -> bool:
        found = report()
        return (
            found is not None
            and found.state is fault.state
            and bool(found.reason)
            and not found.next_attempt_unix_s
        )

    await rig.until(holds, f"{task.slot.service} is {fault.state.name}")
    found = report()
    assert found is not None
    return found


async def test_a_stop_signal_that_is_ignored_ends_in_a_kill(
    machine: tuple[Host, Registry], rig: Rig
) -> None:
    """The grace period is kept to, and the task is stopped, not failed."""
    host, _ = machine
    entry = an_entry(image=IMAGE, command=("sh", "-c", "trap '' TERM; sleep 1000"))
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,))
        report = await rig.reached(S.RUNNING)
        await rig.assign(a_task(1, stop=True), entries=(entry,))
        await rig.reached(S.STOPPED)
        ended = await asyncio.to_thread(host.docker.containers.get, report.container_id)
        assert ended.attrs["State"]["ExitCode"] == 137
        await rig.assign()
        await rig.gone()


@pytest.fixture
def small_disk(machine: tuple[Host, Registry]) -> Iterator[tuple[Host, Registry]]:
    """Give the host's engine a small disk of its own for its data."""
    host, _ = machine
    host.stop_engine()
    host.exec(["mount", "-t", "tmpfs", "-o", "size=24m", "small", "/var/lib/docker"])
    host.start_engine()
    try:
        archive = host.lab.record().archive
        assert archive is not None
        host.load_images(Path(archive))
        yield machine
    finally:
        host.stop_engine()
        host.exec(["umount", "-l", "/var/lib/docker"])
        host.start_engine()


async def test_a_full_disk_of_the_engine_is_waited_for(
    small_disk: tuple[Host, Registry], rig: Rig
) -> None:
    """What runs goes on; what cannot start says why, and starts once there is room."""
    host, registry = small_disk
    pulled = ImageOptions(registry.reference(BUSYBOX.reference), pull_policy=PullPolicy.ALWAYS)
    entries = (
        an_entry(image=IMAGE, command=OBEYS),
        an_entry("pulled", image=pulled, command=OBEYS),
    )
    async with rig.daemon():
        await rig.assign(a_task(1), entries=entries)
        before = await rig.reached(S.RUNNING)
        fill = "dd if=/dev/zero of=/var/lib/docker/fill bs=64k; test -s /var/lib/docker/fill"
        await asyncio.to_thread(host.exec, ["sh", "-c", fill])
        tasks = (a_task(1), a_task(2), a_task(3, "pulled"))
        await rig.assign(*tasks, entries=entries)
        assert "no space left on device" in (await rig.reason(2)).reason
        assert "no space left on device" in (await rig.reason(3)).reason
        await asyncio.to_thread(host.exec, ["rm", "/var/lib/docker/fill"])
        await rig.reached(S.RUNNING, 2)
        await rig.reached(S.RUNNING, 3)
        after = await rig.reached(S.RUNNING)
        assert (after.attempt, after.container_id) == (1, before.container_id)
        await rig.assign()
        for number in (1, 2, 3):
            await rig.gone(number)


@pytest.fixture
def small_rig(machine: tuple[Host, Registry], tmp_path: Path) -> Iterator[Rig]:
    """Lend a node whose own disk has 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", folder], check=True)
    yield a_rig(folder / "node", machine[0])
    subprocess.run(["umount", folder], check=True)


def filled(rig: Rig) -> Path:
    """Fill a node's own disk; return the file that does."""
    fill = rig.folder.parent / "fill"
    with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return fill


async def test_a_full_disk_of_the_node_is_waited_for(
    machine: tuple[Host, Registry], small_rig: Rig
) -> None:
    """What runs goes on; a new assignment is refused with the reason; room is all it needs."""
    host, _ = machine
    rig = small_rig
    entry = an_entry(image=IMAGE, command=OBEYS)
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,))
        before = await rig.reached(S.RUNNING)
        fill = await asyncio.to_thread(filled, rig)
        with pytest.raises(DrayError, match="No space left on device"):
            await rig.assign(a_task(1), a_task(2), entries=(entry,))
        container = await asyncio.to_thread(host.docker.containers.get, before.container_id)
        await asyncio.to_thread(container.kill)
        assert "No space left on device" in (await rig.reason()).reason
        assert not rig.running.done()
        await asyncio.to_thread(fill.unlink)
        assert await rig.assign(a_task(1), a_task(2), entries=(entry,)) is None
        await rig.reached(S.RUNNING, 2)
        await rig.reached(S.RUNNING, attempt=2)
        await rig.assign()
        for number in (1, 2):
            await rig.gone(number)


@pytest.fixture
def short_disk(tmp_path: Path) -> Iterator[Path]:
    """Lend a disk of 1 MiB and 16 files."""
    folder = tmp_path / "short"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=16", "short", folder], check=True
    )
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_disk_that_runs_short_is_a_fault_until_there_is_room(short_disk: Path) -> None:
    """Room and files apart, each with the disk's name."""
    clock = SystemClock()
    faults = Faults(clock, get_logger("faults"))
    runtime = FakeRuntime(FakeEngine(clock.unix_s))
    watch = MachineWatch(runtime, dict, faults, clock, short_disk)

    async def told() -> dict[FaultKind, str]:
        await watch.measure()
        found = {fault.kind: fault.message for fault in faults.all()}
        return {kind: text for kind, text in found.items() if str(short_disk) in text}

    def touch_all() -> None:
        for number in range(15):  # the folder itself is one
            (short_disk / str(number)).touch()

    def unlink_all() -> None:
        for file in short_disk.iterdir():
            file.unlink()

    assert await told() == {}
    await asyncio.to_thread(touch_all)
    assert (await told()).keys() == {FaultKind.INODES_LOW}
    await asyncio.to_thread(unlink_all)
    await asyncio.to_thread((short_disk / "large").write_bytes, b"x" * (1024 * 1000))
    assert (await told()).keys() == {FaultKind.DISK_FULL}
    await asyncio.to_thread(unlink_all)
    assert await told() == {}
