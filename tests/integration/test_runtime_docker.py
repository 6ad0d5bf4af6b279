"""Does the Docker adapter hold with a real engine, where the contract suite does not look?"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import os
import signal
import socket
import tarfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dray.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from dray.model import (
    DeviceMapping,
    ImageOptions,
    Logging,
    PullPolicy,
    ResourceLimits,
)
from node.runtime.base import (
    ContainerNetwork,
    ContainerState,
    LogChunk,
    LogQuery,
    Pulled,
    Refusal,
    Refused,
    RegistryCredentials,
    RuntimeEventKind,
    Started,
)
from node.runtime.docker import SLOW_CALLS_MAX, DockerRuntime
from node.runtime.docker_calls import CALLS_MAX
from node.runtime.fake_engine import FakeProgram
from tests.contract.runtime.rig import (
    ENDS,
    IMAGE,
    OBEYS,
    SLEEPS,
    DockerRig,
    Program,
    created,
    ended,
    running,
)
from tests.lab import Host
from tests.lab.registry import Registry

SILENCE_MAX_S = 1.0
CHILD = FakeProgram()  # these programs run on the real engine only


async def test_a_taken_address_is_refused_until_it_is_free(rig: DockerRig, network: str) -> None:
    """Two containers with one address: the second starts when the first is gone."""
    async with rig.runtime() as runtime:
        attached = ContainerNetwork(network, ipv4_address="10.201.7.9")
        first = await running(runtime, rig.request(network=attached))
        second = await created(runtime, rig.request(network=attached))
        refused = await runtime.start(second)
        assert isinstance(refused, Refused), refused
        assert (refused.refusal, refused.retryable) == (Refusal.ADDRESS_TAKEN, True)
        await runtime.remove(first)
        assert await runtime.start(second) == Started(second)


async def test_a_missing_device_is_refused(rig: DockerRig) -> None:
    """A device that the node does not have is named as such."""
    async with rig.runtime() as runtime:
        device = DeviceMapping("/dev/absent", "/dev/absent")
        refused = await runtime.start(await created(runtime, rig.request(devices=(device,))))
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.DEVICE_MISSING


async def test_a_container_that_needs_too_much_memory_is_told_apart(rig: DockerRig) -> None:
    """The kernel's kill shows as such, with its event."""
    async with rig.runtime() as runtime, runtime.events() as events:
        # A shell variable that doubles until the limit is reached.
        hungry = Program(("sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done"), CHILD)
        limits = ResourceLimits(memory_bytes=8 * 2**20, memory_swap_bytes=8 * 2**20)
        found = await ended(runtime, rig.request(hungry, limits=limits))
        assert (found.exit_code, found.oom_killed) == (137, True)
        async with asyncio.timeout(10):
            async for event in events:
                if event.kind is RuntimeEventKind.OOM:
                    break
        assert event.container_id == found.container_id


# ---- logs ----------------------------------------------------------------------------------------


async def _lines(runtime: DockerRuntime | Any, container_id: str) -> list[LogChunk]:
    async with asyncio.timeout(20), runtime.logs(container_id, LogQuery(follow=True)) as lines:
        return [line async for line in lines]


@pytest.mark.parametrize("tty", [False, True])
async def test_long_lines_come_in_parts_and_whole(rig: DockerRig, tty: bool) -> None:
    """A line of 40,000 bytes arrives byte for byte, with a terminal and without."""
    command = "echo before; head -c 40000 /dev/zero | tr '\\0' x; echo; echo after"
    printer = Program(("busybox", "sh", "-c", command), CHILD)
    async with rig.runtime() as runtime:
        lines = await _lines(runtime, await running(runtime, rig.request(printer, tty=tty)))
        text = b"".join(line.data + (b"" if line.partial else b"\n") for line in lines)
        assert text == b"before\n" + b"x" * 40000 + b"\nafter\n"
        assert [line.partial for line in lines] == [False, True, True, False, False]


async def test_logs_without_a_readable_driver_are_refused(rig: DockerRig) -> None:
    """With the driver `none` there is nothing to read, and that is said."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(ENDS, logging=Logging("none")))
        with pytest.raises(FailedPrecondition, match="log driver"):
            await _lines(runtime, container_id)


async def test_followed_logs_break_with_the_engine_and_go_on(rig: DockerRig) -> None:
    """A killed engine breaks the stream; who asks again since the last line misses nothing."""
    counter = Program(("sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"), CHILD)
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(counter))
        seen: list[LogChunk] = []
        async with runtime.logs(container_id, LogQuery(follow=True)) as lines:
            while len(seen) < 5:
                seen.append(await anext(lines))
            await rig.go_away()
            with pytest.raises(Unavailable):
                seen.extend([line async for line in lines])
        await rig.come_back()
        query = LogQuery(follow=True, since_unix_ns=seen[-1].unix_ns)
        async with asyncio.timeout(20), runtime.logs(container_id, query) as lines:
            async for line in lines:
                seen.append(line)
                if len(seen) >= 30:
                    break
        assert [int(line.data) for line in seen] == list(range(1, len(seen) + 1))


async def test_a_link_is_read_as_such_or_followed(rig: DockerRig) -> None:
    """Copying what it points at takes that, under its own name; a missing path is not found."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder, link = tarfile.TarInfo("release"), tarfile.TarInfo("current")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "release"
        archive.addfile(folder)
        archive.addfile(link)

    async def sent() -> AsyncIterator[bytes]:
        yield buffer.getvalue()

    async with rig.runtime() as runtime:
        container_id = await created(runtime, rig.request())
        await runtime.write_archive(container_id, "/root", sent())
        for follow_link, wanted in ((False, ("current", False)), (True, ("release", True))):
            async with runtime.read_archive(
                container_id, "/root/current", follow_link=follow_link
            ) as chunks:
                data = b"".join([chunk async for chunk in chunks])
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                first = archive.getmembers()[0]
            assert (first.name, first.isdir()) == wanted
        with pytest.raises(NotFound):
            async with runtime.read_archive(container_id, "/absent", follow_link=True) as chunks:
                assert [chunk async for chunk in chunks]


# ---- an engine in trouble ------------------------------------------------------------------------


@pytest.fixture
def abandoned(tmp_path: Path) -> Path:
    """Return the path of a socket that nobody serves any more."""
    path = tmp_path / "abandoned.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop the engine's process in its tracks: connections are accepted, nothing answers."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def engine_pid(host: Host) -> int:
    """Return the process id of a host's engine."""
    pid = await asyncio.to_thread(host.engine_pid)
    assert pid is not None
    return pid


async def test_an_engine_that_does_not_answer_is_a_deadline(rig: DockerRig) -> None:
    """A frozen engine is told apart from one that is away, and works again when it goes on."""
    runtime = DockerRuntime(rig.host.docker_socket, answer_timeout_s=1.0)
    async with rig.runtime() as patient:
        container_id = await running(patient, rig.request())
    try:
        with frozen(await engine_pid(rig.host)):
            for call in (runtime.info(), runtime.inspect(container_id), runtime.wait(container_id)):
                with pytest.raises(DeadlineExceeded):
                    await call
            with pytest.raises(DeadlineExceeded):
                async with runtime.logs(container_id, LogQuery()):
                    pytest.fail("logs of a frozen engine")
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.state is ContainerState.RUNNING
    finally:
        await runtime.close()


async def test_a_start_that_finds_no_room_is_told_so(rig: DockerRig) -> None:
    """Creates and starts wait for others so long and no longer; looks do not wait for them."""
    absent = ImageOptions("dray-test/absent:1")  # the engine makes late what nobody waits for
    runtime = DockerRuntime(rig.host.docker_socket, answer_timeout_s=1.0)
    try:
        await runtime.info()
        with frozen(await engine_pid(rig.host)):
            async with asyncio.timeout(30):
                done = await asyncio.gather(
                    *(runtime.create(rig.request(image=absent)) for _ in range(4 * SLOW_CALLS_MAX)),
                    return_exceptions=True,
                )
        assert {type(each) for each in done} == {DeadlineExceeded}
        assert any("busy with the starts" in str(each) for each in done)
        assert (await runtime.info()).version
    finally:
        await runtime.close()


async def test_close_does_not_wait_for_a_frozen_engine_for_ever(rig: DockerRig) -> None:
    """Closing ends within the answer's timeout and leaves no thread."""
    runtime = DockerRuntime(rig.host.docker_socket, answer_timeout_s=1.0)
    await runtime.info()
    with frozen(await engine_pid(rig.host)):
        calls = [asyncio.create_task(runtime.info()) for _ in range(2 * CALLS_MAX)]
        await asyncio.wait(calls, timeout=0.1)
        async with asyncio.timeout(10):
            await runtime.close()
        done = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in done} <= {DeadlineExceeded, Unavailable}
    assert not any(thread.name.startswith("docker-") for thread in threading.enumerate())


async def test_what_is_no_engine_is_unavailable(tmp_path: Path, abandoned: Path) -> None:
    """No socket, and a socket that nobody serves any more, are an engine that is away."""
    for path in (tmp_path / "absent.sock", abandoned):
        runtime = DockerRuntime(path)
        try:
            with pytest.raises(Unavailable, match=path.name):
                await runtime.info()
            with pytest.raises(Unavailable):
                async with runtime.events():
                    pytest.fail("events of no engine")
        finally:
            await runtime.close()


async def test_hundreds_of_waits_hold_no_threads(rig: DockerRig) -> None:
    """Three hundred waits and stops at once need no more than the pool, and all end."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(SLEEPS))
        before = threading.active_count()
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            waits = [group.create_task(runtime.wait(container_id)) for _ in range(300)]
            await asyncio.wait(waits, timeout=1.0)
            assert threading.active_count() - before <= CALLS_MAX
            assert not any(each.done() for each in waits)
            for _ in range(5):
                group.create_task(runtime.stop(container_id, signal="SIGTERM", grace_s=0.2))
        codes = {each.result().exit_code for each in waits}  # type: ignore[union-attr]
        assert codes == {137}


async def test_a_container_removed_by_others_is_gone(rig: DockerRig) -> None:
    """What somebody removes with Docker's own tool ends waits and stops alike."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(SLEEPS))
        waiting = asyncio.create_task(runtime.wait(container_id))
        stopping = asyncio.create_task(runtime.stop(container_id, signal="SIGTERM", grace_s=30))
        await asyncio.wait({waiting, stopping}, timeout=0.3)
        theirs = await asyncio.to_thread(rig.host.docker.containers.get, container_id)
        remove: Callable[..., None] = theirs.remove
        await asyncio.to_thread(remove, force=True)
        async with asyncio.timeout(10):
            found = await waiting
            await stopping
        assert found is None or found.exit_code == 137
        await runtime.remove(container_id)
        assert await runtime.inspect(container_id) is None


async def test_a_paused_container_can_be_stopped(rig: DockerRig) -> None:
    """Somebody's `docker pause` shows, and does not keep a task from ending."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(OBEYS))
        await asyncio.to_thread(rig.host.docker.api.pause, container_id)
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.state is ContainerState.PAUSED
        async with asyncio.timeout(20):
            await runtime.stop(container_id, signal="", grace_s=1)
        after = await runtime.inspect(container_id)
        assert after is not None
        assert after.state is ContainerState.EXITED


# ---- registries ----------------------------------------------------------------------------------


async def test_a_registry_that_wants_a_password(
    rig: DockerRig, engine_host: tuple[Host, Registry], tmp_path: Path
) -> None:
    """Without, or with wrong credentials the pull is denied; with the right ones it is not."""
    host = engine_host[0]
    credentials = ("dray", "secret")
    closed = Registry(tmp_path, lab=host.lab, credentials=credentials, port=5001)
    reference = await asyncio.to_thread(_pushed, closed, host, rig.name())
    try:
        async with rig.runtime() as runtime:
            image = ImageOptions(reference)
            for given in (None, RegistryCredentials("dray", "wrong")):
                refused = await runtime.pull(image, credentials=given)
                assert isinstance(refused, Refused)
                assert refused.refusal is Refusal.IMAGE_DENIED, refused
            pulled = await runtime.pull(image, credentials=RegistryCredentials(*credentials))
            assert isinstance(pulled, Pulled)
    finally:
        await asyncio.to_thread(closed.stop)


def _pushed(registry: Registry, host: Host, name: str) -> str:
    registry.start()
    reference = registry.push(host.docker, IMAGE, f"{name}:1")
    host.docker.images.remove(reference)
    return reference


async def test_a_registry_that_is_not_there(rig: DockerRig) -> None:
    """A refused connection is the registry's trouble, and may pass."""
    async with rig.runtime() as runtime:
        refused = await runtime.pull(ImageOptions("127.0.0.1:1/web:1"))
        assert isinstance(refused, Refused)
        assert (refused.refusal, refused.retryable) == (Refusal.REGISTRY_UNREACHABLE, True)


async def test_a_registry_that_hangs(rig: DockerRig) -> None:
    """A registry that accepts and says nothing ends as unreachable, the engine being well."""
    silent = await asyncio.to_thread(rig.host.popen, ["busybox", "nc", "-l", "-p", "5999"])
    runtime = DockerRuntime(rig.host.docker_socket, pull_silence_max_s=SILENCE_MAX_S)
    try:
        async with asyncio.timeout(30):
            refused = await runtime.pull(ImageOptions("127.0.0.1:5999/web:1"))
        assert isinstance(refused, Refused)
        assert (refused.refusal, refused.retryable) == (Refusal.REGISTRY_UNREACHABLE, True)
    finally:
        await runtime.close()
        await asyncio.to_thread(silent.end)


async def test_refresh_asks_again_after_its_time(
    rig: DockerRig, engine_host: tuple[Host, Registry], tmp_path: Path
) -> None:
    """The engine itself remembers when an image was refreshed, so a new daemon knows as well."""
    registry = Registry(tmp_path, lab=engine_host[0].lab, port=5002)
    reference = await asyncio.to_thread(_pushed, registry, rig.host, rig.name())
    image = ImageOptions(reference, "", PullPolicy.REFRESH, 3600.0)
    try:
        async with rig.runtime() as runtime:
            first = await runtime.pull(image)
            assert isinstance(first, Pulled)
            again = await runtime.pull(dataclasses.replace(image, pull_refresh_after_s=0.0))
            assert again == dataclasses.replace(first, fetched=False)
    finally:
        await asyncio.to_thread(registry.stop)
    async with rig.runtime() as runtime:
        assert await runtime.pull(image) == dataclasses.replace(first, fetched=False)
        refused = await runtime.pull(dataclasses.replace(image, pull_refresh_after_s=0.0))
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.REGISTRY_UNREACHABLE
