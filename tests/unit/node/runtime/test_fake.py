"""Do the levers of the fake engine do what simulations need of them?"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from dray.errors import DeadlineExceeded, Unavailable
from dray.model import ContainerSpec, Health, ImageOptions, SlotKey
from dray.names import ClusterId, TaskId
from node.runtime.base import (
    Container,
    ContainerIdentity,
    ContainerNetwork,
    ContainerRequest,
    ContainerState,
    Created,
    LogQuery,
    LogStream,
    Refusal,
    Refused,
    Runtime,
    RuntimeEventKind,
    Started,
)
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import Call, FakeEngine, FakeProgram

CLUSTER = ClusterId("cluster")


def engine() -> FakeEngine:
    """Return an engine with one image and a clock that counts."""
    seconds = itertools.count(1000)
    return FakeEngine(lambda: float(next(seconds)), images=["web:1"])


def request(name: str, address: str = "") -> ContainerRequest:
    """Return a request for a container that runs until it is ended."""
    identity = ContainerIdentity(CLUSTER, TaskId(name), 1, SlotKey("shop", "web", 1))
    spec = ContainerSpec(ImageOptions("web:1"))
    network = ContainerNetwork("bridge", address) if address else ContainerNetwork()
    return ContainerRequest(name, identity, spec, network)


async def running(runtime: Runtime, name: str = "web-1", address: str = "") -> str:
    """Make and start a container; return its id."""
    made = await runtime.create(request(name, address))
    assert isinstance(made, Created)
    assert await runtime.start(made.container_id) == Started(made.container_id)
    return made.container_id


async def seen(runtime: Runtime, container_id: str) -> Container:
    """Return a container that exists."""
    found = await runtime.inspect(container_id)
    assert found is not None
    return found


async def test_ids_and_times_are_the_same_in_every_run() -> None:
    """Two engines that are treated alike show the same containers."""
    found = []
    for _ in range(2):
        runtime = FakeRuntime(engine())
        await running(runtime)
        found.append(await runtime.containers(CLUSTER))
    assert found[0] == found[1]


async def test_a_container_can_be_ended_and_killed_for_memory() -> None:
    """An end that the script decides is seen by waits and events."""
    fake = engine()
    runtime = FakeRuntime(fake)
    container_id = await running(runtime)
    async with runtime.events() as events:
        fake.end(container_id, 137, oom_killed=True)
        assert [(await anext(events)).kind for _ in range(2)] == [
            RuntimeEventKind.OOM,
            RuntimeEventKind.DIED,
        ]
    found = await runtime.wait(container_id)
    assert found is not None
    assert (found.exit_code, found.oom_killed) == (137, True)


async def test_health_can_flip() -> None:
    """A change of health is an event, and is seen."""
    fake = engine()
    runtime = FakeRuntime(fake)
    container_id = await running(runtime)
    async with runtime.events() as events:
        for health in (Health.HEALTHY, Health.UNHEALTHY):
            fake.set_health(container_id, health)
            assert (await anext(events)).kind is RuntimeEventKind.HEALTH
            assert (await seen(runtime, container_id)).health is health


@pytest.mark.parametrize("call", list(Call))
async def test_the_next_call_can_be_refused(call: Call) -> None:
    """A scripted refusal is given once, to the call that it is for."""
    fake = engine()
    runtime = FakeRuntime(fake)
    refusal = Refused(Refusal.DISK_FULL, "no space", retryable=True)
    fake.refuse(call, refusal)

    async def tried(name: str) -> list[object]:
        pulled = await runtime.pull(ImageOptions("web:1"))
        made = await runtime.create(request(name))
        if isinstance(made, Refused):
            return [pulled, made]
        return [pulled, made, await runtime.start(made.container_id)]

    assert (await tried("web-1")).count(refusal) == 1
    assert (await tried("web-2")).count(refusal) == 0


@pytest.mark.parametrize(("silent", "error"), [(False, Unavailable), (True, DeadlineExceeded)])
async def test_an_engine_can_be_away_or_silent(silent: bool, error: type[Exception]) -> None:
    """Calls fail in the port's way; containers run on, and end unheard."""
    fake = engine()
    runtime = FakeRuntime(fake)
    container_id = await running(runtime)
    async with runtime.events() as events:
        if silent:
            fake.fall_silent()
        else:
            fake.go_away()
        with pytest.raises(error):
            await runtime.inspect(container_id)
        fake.end(container_id, 1)
        fake.come_back()
        assert (await anext(events)).kind is RuntimeEventKind.RECONNECTED
    assert (await seen(runtime, container_id)).exit_code == 1


async def test_followed_logs_break_with_the_engine() -> None:
    """Who follows output hears that the engine went away, and can go on where it stopped."""
    fake = engine()
    runtime = FakeRuntime(fake)
    container_id = await running(runtime)
    fake.write_log(container_id, LogStream.STDOUT, b"one")
    async with runtime.logs(container_id, LogQuery(follow=True)) as lines:
        first = await anext(lines)
        fake.go_away()
        with pytest.raises(Unavailable):
            await anext(lines)
    fake.come_back()
    fake.write_log(container_id, LogStream.STDERR, b"two")
    query = LogQuery(since_unix_ns=first.unix_ns)
    async with runtime.logs(container_id, query) as lines:
        assert [line.data async for line in lines] == [b"two"]


async def test_only_live_restore_keeps_containers_over_a_restart() -> None:
    """Without it a restarted engine has ended what ran."""
    for live_restore, state in ((True, ContainerState.RUNNING), (False, ContainerState.EXITED)):
        fake = engine()
        fake.live_restore = live_restore
        runtime = FakeRuntime(fake)
        container_id = await running(runtime)
        fake.go_away()
        fake.come_back()
        assert (await seen(runtime, container_id)).state is state


async def test_a_reboot_ends_everything_and_loses_nothing() -> None:
    """After power loss containers have ended, images and volumes are there."""
    fake = engine()
    fake.volumes["data"] = "local"
    runtime = FakeRuntime(fake)
    container_id = await running(runtime)
    fake.reboot()
    found = await seen(runtime, container_id)
    assert (found.state, found.exit_code) == (ContainerState.EXITED, 255)
    assert await runtime.volume_exists("data")


async def test_an_address_serves_one_running_container() -> None:
    """A second container with the address starts only when the first has ended."""
    fake = engine()
    runtime = FakeRuntime(fake)
    first = await running(runtime, "web-1", "10.0.0.2")
    made = await runtime.create(request("web-2", "10.0.0.2"))
    assert isinstance(made, Created)
    refused = await runtime.start(made.container_id)
    assert isinstance(refused, Refused)
    assert refused.refusal is Refusal.ADDRESS_TAKEN
    fake.end(first, 0)
    assert await runtime.start(made.container_id) == Started(made.container_id)
    assert (await seen(runtime, made.container_id)).ipv4_address == "10.0.0.2"


async def test_programs_take_their_time() -> None:
    """A program ends after its seconds of the loop's time."""
    fake = engine()
    fake.default_program = FakeProgram(exit_code=9, runs_s=0.02)
    runtime = FakeRuntime(fake)
    container_id = await running(runtime)
    assert (await seen(runtime, container_id)).state is ContainerState.RUNNING
    async with asyncio.timeout(5):
        found = await runtime.wait(container_id)
    assert found is not None
    assert found.exit_code == 9
