"""Does every runtime make, start, end and remove containers as the port says?"""

from __future__ import annotations

import asyncio

import pytest

from dray.errors import InvalidRequest
from dray.model import BindOptions, Health, ImageOptions, Mount, MountKind, SlotKey
from dray.names import ClusterId, TaskId, id_text
from node.runtime.base import (
    ContainerIdentity,
    ContainerNetwork,
    ContainerState,
    HostPort,
    LogQuery,
    Refusal,
    Refused,
    Runtime,
    Started,
)
from tests.contract.runtime import rig as rigs
from tests.contract.runtime.rig import Program, Rig, created, ended, running


async def test_a_container_goes_from_created_to_running_to_ended(rig: Rig) -> None:
    """What `inspect` shows follows create, start and stop."""
    async with rig.runtime() as runtime:
        request = rig.request(rigs.SLEEPS)
        container_id = await created(runtime, request)
        made = await runtime.inspect(container_id)
        assert made is not None
        assert (made.state, made.pid, made.exit_code) == (ContainerState.CREATED, 0, None)
        assert (made.started_unix_s, made.finished_unix_s) == (0.0, 0.0)
        assert made.name == request.name
        assert await runtime.inspect(request.name) == made
        assert made.image_digest.startswith("sha256:")

        assert await runtime.start(container_id) == Started(container_id)
        alive = await runtime.inspect(container_id)
        assert alive is not None
        assert alive.state is ContainerState.RUNNING
        assert alive.pid > 0
        assert alive.started_unix_s > 0
        assert alive.exit_code is None

        await runtime.stop(container_id, signal="", grace_s=0)
        over = await runtime.inspect(container_id)
        assert over is not None
        assert (over.state, over.exit_code, over.pid) == (ContainerState.EXITED, 137, 0)
        assert over.finished_unix_s >= over.started_unix_s


@pytest.mark.parametrize(("program", "status"), [(rigs.ENDS, 0), (rigs.FAILS, 1), (rigs.PRINTS, 3)])
async def test_wait_returns_the_exit_status(rig: Rig, program: Program, status: int) -> None:
    """A container that ends by itself is returned with its status and no error."""
    async with rig.runtime() as runtime:
        found = await ended(runtime, rig.request(program))
        assert (found.state, found.exit_code) == (ContainerState.EXITED, status)
        assert (found.error, found.oom_killed) == ("", False)


async def test_wait_returns_at_once_for_what_has_ended(rig: Rig) -> None:
    """Waiting again for an ended container gives the same container."""
    async with rig.runtime() as runtime:
        found = await ended(runtime, rig.request(rigs.ENDS))
        assert await runtime.wait(found.container_id) == found


async def test_wait_gives_none_for_what_is_removed_meanwhile(rig: Rig) -> None:
    """Who waits for a container that was never started hears of its removal."""
    async with rig.runtime() as runtime:
        container_id = await created(runtime, rig.request())
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waiting = group.create_task(runtime.wait(container_id))
            await asyncio.sleep(0)
            await runtime.remove(container_id)
        assert waiting.result() is None


async def test_what_does_not_exist_is_none_or_fine(rig: Rig) -> None:
    """A container that is gone: none to look at, refused to start, nothing to stop or remove."""
    async with rig.runtime() as runtime:
        gone = "0" * 64
        assert await runtime.inspect(gone) is None
        assert await runtime.wait(gone) is None
        refused = await runtime.start(gone)
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.NOT_FOUND
        await runtime.stop(gone, signal="", grace_s=1)
        await runtime.remove(gone)


async def test_calls_may_be_repeated(rig: Rig) -> None:
    """Start, stop and remove do no harm the second time."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        before = await runtime.inspect(container_id)
        assert await runtime.start(container_id) == Started(container_id)
        assert await runtime.inspect(container_id) == before
        for _ in range(2):
            await runtime.stop(container_id, signal="SIGKILL", grace_s=5)
        for _ in range(2):
            await runtime.remove(container_id)
        assert await runtime.inspect(container_id) is None


async def test_no_container_runs_twice(rig: Rig) -> None:
    """Starting one that has ended leaves it as it is."""
    async with rig.runtime() as runtime:
        found = await ended(runtime, rig.request(rigs.PRINTS))
        assert await runtime.start(found.container_id) == Started(found.container_id)
        assert await runtime.inspect(found.container_id) == found


async def test_stop_leaves_alone_what_never_ran(rig: Rig) -> None:
    """A created container stays created when it is stopped."""
    async with rig.runtime() as runtime:
        container_id = await created(runtime, rig.request())
        await runtime.stop(container_id, signal="", grace_s=1)
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.state is ContainerState.CREATED


async def _ready(container_id: str, runtime: Runtime) -> None:
    """Wait until the program has set its traps."""
    query = LogQuery(follow=True)
    async with asyncio.timeout(10), runtime.logs(container_id, query) as lines:
        async for line in lines:
            assert line.data == b"ready"
            return


async def test_stop_waits_for_what_heeds_the_signal(rig: Rig) -> None:
    """A program that handles the signal ends in its own way, long before the grace period."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(rigs.OBEYS))
        await _ready(container_id, runtime)
        async with asyncio.timeout(15):
            await runtime.stop(container_id, signal="", grace_s=30)
        found = await runtime.inspect(container_id)
        assert found is not None
        assert (found.state, found.exit_code) == (ContainerState.EXITED, 5)


async def test_stop_kills_what_ignores_the_signal(rig: Rig) -> None:
    """A program that ignores the signal is killed after the grace period, not before."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(rigs.SLEEPS))
        clock = asyncio.get_running_loop().time
        begin_s = clock()
        await runtime.stop(container_id, signal="SIGTERM", grace_s=0.3)
        assert clock() - begin_s >= 0.3
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.exit_code == 137


async def test_an_unknown_signal_is_an_invalid_request(rig: Rig) -> None:
    """A signal that does not exist is the caller's mistake, and the container runs on."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request())
        with pytest.raises(InvalidRequest, match="SIGNOPE"):
            await runtime.stop(container_id, signal="SIGNOPE", grace_s=1)
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.state is ContainerState.RUNNING


async def test_remove_kills_what_runs(rig: Rig) -> None:
    """Removing a running container ends it."""
    async with rig.runtime() as runtime:
        container_id = await running(runtime, rig.request(rigs.SLEEPS))
        await runtime.remove(container_id)
        assert await runtime.inspect(container_id) is None


async def test_containers_are_adopted_by_their_labels(rig: Rig) -> None:
    """A new adapter finds all containers of its cluster, in any state, and no others."""
    async with rig.runtime() as runtime:
        first = await created(runtime, rig.request(name=f"{rig.name()}-b", attempt=7))
        second = await running(runtime, rig.request(name=f"{rig.name()}-a"))
        third = (await ended(runtime, rig.request(rigs.ENDS))).container_id
    async with rig.runtime() as again:
        found = await again.containers(rig.cluster_id)
        assert {container.container_id for container in found} == {first, second, third}
        assert [c.name for c in found] == sorted(c.name for c in found)
        by_id = {container.container_id: container for container in found}
        assert by_id[first].identity == ContainerIdentity(
            rig.cluster_id, TaskId(id_text(b"t" * 16)), 7, SlotKey("shop", "web", 3)
        )
        assert by_id[second].state is ContainerState.RUNNING
        assert by_id[third].exit_code == 0
        assert by_id[second] == await again.inspect(second)
        assert await again.containers(rig.cluster_id, but={first, third}) == (by_id[second],)
        assert await again.containers(ClusterId(id_text(b"x" * 16))) == ()
        assert await again.running(rig.cluster_id) == {second: Health.NONE}
        assert await again.running(ClusterId(id_text(b"x" * 16))) == {}


async def test_a_taken_name_is_refused_and_can_be_tried_again(rig: Rig) -> None:
    """Two containers never have one name; once the first is gone the name is free."""
    async with rig.runtime() as runtime:
        request = rig.request()
        container_id = await created(runtime, request)
        refused = await runtime.create(request)
        assert isinstance(refused, Refused)
        assert (refused.refusal, refused.retryable) == (Refusal.NAME_TAKEN, True)
        await runtime.remove(container_id)
        await created(runtime, request)


async def test_a_missing_image_is_refused_and_not_fetched(rig: Rig) -> None:
    """Create never goes to a registry, and leaves nothing behind."""
    async with rig.runtime() as runtime:
        request = rig.request(image=ImageOptions(await rig.offer_image()))
        refused = await runtime.create(request)
        assert isinstance(refused, Refused)
        assert (refused.refusal, refused.retryable) == (Refusal.IMAGE_NOT_FOUND, False)
        assert await runtime.containers(rig.cluster_id) == ()


async def test_an_image_of_another_platform_is_refused(rig: Rig) -> None:
    """An image that is here for another platform than asked for is not run."""
    async with rig.runtime() as runtime:
        image = ImageOptions(rigs.IMAGE, platform="linux/s390x")
        refused = await runtime.create(rig.request(image=image))
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.WRONG_PLATFORM


@pytest.mark.parametrize(
    ("program", "refusal"),
    [(rigs.ABSENT, Refusal.COMMAND_NOT_FOUND), (rigs.UNFIT, Refusal.COMMAND_NOT_EXECUTABLE)],
)
async def test_a_command_that_cannot_run_is_refused_at_start(
    rig: Rig, program: Program, refusal: Refusal
) -> None:
    """The start is refused, and the container stays created and says why."""
    async with rig.runtime() as runtime:
        container_id = await created(runtime, rig.request(program))
        refused = await runtime.start(container_id)
        assert isinstance(refused, Refused)
        assert (refused.refusal, refused.retryable) == (refusal, False)
        assert "\n" not in refused.message
        found = await runtime.inspect(container_id)
        assert found is not None
        assert found.state is ContainerState.CREATED
        assert found.error


async def test_a_missing_mount_source_is_refused(rig: Rig) -> None:
    """A bind whose source is missing and shall not be made is refused by its name."""
    async with rig.runtime() as runtime:
        bind = BindOptions(create_host_path=False)
        mount = Mount(MountKind.BIND, "/absent/source", "/data", bind=bind)
        refused = await runtime.create(rig.request(mounts=(mount,)))
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.MOUNT_MISSING
        assert "/absent/source" in refused.message


async def test_a_missing_network_is_refused_at_start(rig: Rig) -> None:
    """The network is looked for at the start, so that one which is made again serves."""
    async with rig.runtime() as runtime:
        request = rig.request(network=ContainerNetwork("absent-network"))
        refused = await runtime.start(await created(runtime, request))
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.NETWORK_MISSING


async def test_a_taken_port_is_refused_and_can_be_tried_again(rig: Rig) -> None:
    """A port of the node serves one container; it is free again when that one is gone."""
    async with rig.runtime() as runtime:
        network = ContainerNetwork("bridge", ports=(HostPort(80, 18080, host_ip="127.0.0.1"),))
        first = await running(runtime, rig.request(network=network))
        second = await created(runtime, rig.request(network=network))
        refused = await runtime.start(second)
        assert isinstance(refused, Refused)
        assert (refused.refusal, refused.retryable) == (Refusal.PORT_TAKEN, True)
        await runtime.remove(first)
        assert await runtime.start(second) == Started(second)


async def test_what_the_engine_cannot_be_told_is_refused(rig: Rig) -> None:
    """A request that the engine would misread is refused before anything is made."""
    async with rig.runtime() as runtime:
        network = ContainerNetwork("host", ports=(HostPort(80, 18081),))
        refused = await runtime.create(rig.request(network=network))
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.INVALID
        assert await runtime.containers(rig.cluster_id) == ()


async def test_twenty_containers_start_and_end_at_once(rig: Rig) -> None:
    """More calls and waits than the adapter has threads make no trouble."""
    async with rig.runtime() as runtime:
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            tasks = [group.create_task(ended(runtime, rig.request(rigs.PRINTS))) for _ in range(20)]
        assert [task.result().exit_code for task in tasks] == [3] * 20
