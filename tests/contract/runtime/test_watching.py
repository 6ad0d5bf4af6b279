"""Does every runtime tell what happens, outlast its engine's absence, and end cleanly?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from dray.errors import Unavailable
from dray.model import Health, Healthcheck, HealthcheckKind
from node.runtime.base import (
    ContainerState,
    LogQuery,
    Runtime,
    RuntimeEvent,
    RuntimeEventKind,
)
from tests.contract.runtime import rig as rigs
from tests.contract.runtime.rig import Program, Rig, created, ended, running

CANCEL_AFTER_S = 0.02
FIRST_LOOK_S = 0.5  # after so long a wait has looked once and really waits


async def _until(events: AsyncIterator[RuntimeEvent], kind: RuntimeEventKind) -> list[RuntimeEvent]:
    """Return the events up to the first of a kind."""
    found = []
    async with asyncio.timeout(20):
        async for event in events:
            found.append(event)
            if event.kind is kind:
                break
    return found


async def test_events_tell_a_containers_life_from_now_on(rig: Rig) -> None:
    """Made, started, died, removed: in order, with id and identity; older ones are not told."""
    async with rig.runtime() as runtime:
        older = await created(runtime, rig.request(rigs.ENDS))
        async with runtime.events() as events:
            request = rig.request(rigs.ENDS, attempt=2)
            container_id = (await ended(runtime, request)).container_id
            await runtime.remove(container_id)
            told = await _until(events, RuntimeEventKind.REMOVED)
        assert [event.kind for event in told] == [
            RuntimeEventKind.CREATED,
            RuntimeEventKind.STARTED,
            RuntimeEventKind.DIED,
            RuntimeEventKind.REMOVED,
        ]
        assert {event.container_id for event in told} == {container_id} != {older}
        assert {event.identity for event in told} == {request.identity}
        assert all(event.unix_s > 1_000_000_000 for event in told)


async def test_two_may_listen_at_once(rig: Rig) -> None:
    """Every listener hears everything."""
    async with rig.runtime() as runtime, runtime.events() as first, runtime.events() as second:
        await ended(runtime, rig.request(rigs.ENDS))
        heard = [await _until(each, RuntimeEventKind.DIED) for each in (first, second)]
        assert heard[0] == heard[1]


@pytest.mark.parametrize(
    ("check", "health"), [(rigs.ENDS, Health.HEALTHY), (rigs.FAILS, Health.UNHEALTHY)]
)
async def test_health_comes_from_the_check(rig: Rig, check: Program, health: Health) -> None:
    """The health of a container follows its check, and an event says that it changed."""
    async with rig.runtime() as runtime, runtime.events() as events:
        test = Healthcheck(HealthcheckKind.EXEC, check.command, interval_s=0.2, retries=2)
        container_id = await running(runtime, rig.request(healthcheck=test))
        before = await runtime.inspect(container_id)
        assert before is not None
        assert before.health in (Health.STARTING, health)
        await _until(events, RuntimeEventKind.HEALTH)
        after = await runtime.inspect(container_id)
        assert after is not None
        assert after.health is health


async def test_without_a_check_there_is_no_health(rig: Rig) -> None:
    """A container without a check is neither healthy nor unhealthy."""
    async with rig.runtime() as runtime:
        found = await runtime.inspect(await running(runtime, rig.request()))
        assert found is not None
        assert found.health is Health.NONE


async def test_usage_is_told_for_what_runs(rig: Rig) -> None:
    """Running containers have memory, processor time and processes; others are left out."""
    async with rig.runtime() as runtime:
        alive = await running(runtime, rig.request())
        over = (await ended(runtime, rig.request(rigs.ENDS))).container_id
        used = await runtime.usage((alive, over, "0" * 64))
        assert [usage.container_id for usage in used] == [alive]
        assert used[0].cpu_total_ns > 0
        assert used[0].memory_bytes > 0
        assert used[0].pids >= 1


async def test_an_engine_that_is_away_raises_unavailable(rig: Rig) -> None:
    """Every call says that the engine is away, and works again when it is back."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        await rig.go_away()
        for call in (
            runtime.info(),
            runtime.inspect(container_id),
            runtime.wait(container_id),
            runtime.stop(container_id, signal="", grace_s=0),
            runtime.containers(rig.cluster_id),
            runtime.create(rig.request()),
            runtime.start(container_id),
            _first_line(runtime, container_id),
        ):
            with pytest.raises(Unavailable):
                await call
        with pytest.raises(Unavailable):
            async with runtime.events():
                pytest.fail("events of an engine that is away")
        await rig.come_back()
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.state is ContainerState.RUNNING


async def _first_line(runtime: Runtime, container_id: str) -> None:
    async with runtime.logs(container_id, LogQuery()) as lines:
        async for _ in lines:
            return


async def test_events_and_waits_outlast_the_engines_absence(rig: Rig) -> None:
    """Containers run on; a listener gets RECONNECTED, and a wait gets its container."""
    async with rig.runtime() as runtime, runtime.events() as events:
        container_id = await running(runtime, rig.request())
        before = await runtime.inspect(container_id)
        assert before is not None
        waiting = asyncio.create_task(runtime.wait(container_id))
        done, _ = await asyncio.wait({waiting}, timeout=FIRST_LOOK_S)
        assert not done
        await rig.go_away()
        await rig.come_back()
        assert (await _until(events, RuntimeEventKind.RECONNECTED))[-1].container_id == ""
        after = await runtime.inspect(container_id)
        assert after is not None
        assert (after.pid, after.started_unix_s) == (before.pid, before.started_unix_s)
        assert not waiting.done()
        await runtime.stop(container_id, signal="SIGKILL", grace_s=10)
        async with asyncio.timeout(10):
            found = await waiting
        assert found is not None
        assert found.exit_code == 137
        assert (await _until(events, RuntimeEventKind.DIED))[-1].container_id == container_id


async def test_close_ends_streams_and_leaves_containers(rig: Rig) -> None:
    """Closed twice: listeners end, no thread is left, the containers run on."""
    async with rig.runtime() as watcher:
        threads = set(threading.enumerate())
        runtime = rig.connect()
        container_id = await running(runtime, rig.request())
        async with runtime.events() as events:
            await runtime.close()
            async with asyncio.timeout(10):
                assert [event async for event in events] == []
        await runtime.close()
        assert set(threading.enumerate()) - threads == set(), "threads of the closed runtime"
        with pytest.raises(Unavailable):
            await runtime.inspect(container_id)
        found = await watcher.inspect(container_id)
        assert found is not None
        assert found.state is ContainerState.RUNNING


async def test_a_cancelled_wait_leaves_nothing(rig: Rig) -> None:
    """Who gives up waiting can ask again, and the container is untouched."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(CANCEL_AFTER_S):
                await runtime.wait(container_id)
        await runtime.stop(container_id, signal="SIGKILL", grace_s=10)
        found = await runtime.wait(container_id)
        assert found is not None
        assert found.exit_code == 137


async def test_info_says_what_the_engine_is(rig: Rig) -> None:
    """The engine names its platform and that containers outlive it."""
    async with rig.runtime() as runtime:
        info = await runtime.info()
        assert info.version
        assert info.os == "linux"
        assert info.architecture in ("amd64", "arm64")
        assert info.data_root.startswith("/")
        assert info.live_restore
        assert info.cgroup_version in (1, 2)
