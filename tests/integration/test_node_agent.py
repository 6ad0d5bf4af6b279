"""Does the agent do on a real Docker Engine what it does on the fake one?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import docker.errors
import pytest

from dray.model import (
    AttemptState,
    ImageOptions,
    Mount,
    MountKind,
    ProjectParts,
    PublishedPort,
    PublishMode,
    RestartCondition,
    RestartPolicy,
    VolumeSpec,
)
from node.agent.agent import Agent
from node.runtime.docker import DockerRuntime
from tests.lab import BUSYBOX, Host
from tests.node_agent import CLUSTER, Rig, a_task, an_entry

S = AttemptState
NEVER = RestartPolicy(RestartCondition.NONE)
IMAGE = ImageOptions(BUSYBOX.reference)
OBEYS = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.02; done")
ADOPTED_WITHIN_S = 2.0
TASKS = 8


@pytest.fixture
def rig(host: Host, tmp_path: Path) -> Iterator[Rig]:
    """Lend a node on the engine of a lab host; what it leaves there is removed."""
    rig = Rig(tmp_path / "node", lambda: DockerRuntime(host.docker_socket), network="bridge")
    rig.wait_s = 60.0
    try:
        yield rig
    finally:
        host.start_engine()
        for container in host.docker.containers.list(all=True):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
        for volume in host.docker.volumes.list():
            volume.remove(force=True)


def on_host(host: Host) -> dict[str, str]:
    """Return the ids and start times of the containers that run on a host, by name."""
    found = host.docker.containers.list(filters={"label": f"dray.cluster-id={CLUSTER}"})
    return {str(each.name): f"{each.id} {each.attrs['State']['StartedAt']}" for each in found}


def left_on_host(host: Host) -> int:
    """Return how many containers of the cluster there are, running or not."""
    return len(host.docker.containers.list(all=True))


async def test_a_daemon_that_is_killed_adopts_its_containers(rig: Rig, host: Host) -> None:
    """None is started again, and all are known within two seconds of the new daemon's start."""
    tasks = [a_task(number) for number in range(1, TASKS + 1)]
    entry = an_entry(image=IMAGE, command=OBEYS)
    async with rig.daemon():
        await rig.assign(*tasks, entries=(entry,))
        for number in range(1, TASKS + 1):
            await rig.reached(S.RUNNING, number)
    before = await asyncio.to_thread(on_host, host)
    assert len(before) == TASKS
    began_s = time.monotonic()
    async with rig.daemon():
        for number in range(1, TASKS + 1):
            assert (await rig.reached(S.RUNNING, number)).attempt == 1
        took_s = time.monotonic() - began_s
        assert await asyncio.to_thread(on_host, host) == before
        assert took_s < ADOPTED_WITHIN_S
        await rig.assign()
        for number in range(1, TASKS + 1):
            await rig.gone(number)
        assert await asyncio.to_thread(left_on_host, host) == 0


async def test_an_engine_that_is_killed_is_no_death(rig: Rig, host: Host) -> None:
    """With live-restore the containers go on, and so do their attempts."""
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(an_entry(image=IMAGE, command=OBEYS),))
        report = await rig.reached(S.RUNNING)
        await asyncio.to_thread(host.kill_engine)
        await rig.assign(a_task(1), a_task(2), entries=(an_entry(image=IMAGE, command=OBEYS),))
        assert "Docker" in (await rig.reason(2)).reason
        await asyncio.to_thread(host.start_engine)
        await rig.reached(S.RUNNING, 2)
        after = await rig.reached(S.RUNNING)
        assert (after.attempt, after.container_id) == (1, report.container_id)


async def test_a_port_that_is_taken_is_waited_for(rig: Rig) -> None:
    """The second task says what it lacks, and starts when the first has ended."""
    port = PublishedPort(80, 18_080, mode=PublishMode.HOST)
    entry = an_entry(image=IMAGE, command=OBEYS, ports=(port,))
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,))
        await rig.reached(S.RUNNING)
        await rig.assign(a_task(1), a_task(2), entries=(entry,))
        assert "18080" in (await rig.reason(2)).reason
        await rig.assign(a_task(1, stop=True), a_task(2), entries=(entry,))
        await rig.reached(S.STOPPED)
        await rig.reached(S.RUNNING, 2)


async def test_a_crash_loop_is_counted_and_leaves_nothing_behind(rig: Rig, host: Host) -> None:
    """Attempts grow, the last two containers stay for their output, and go with the task."""
    entry = an_entry(image=IMAGE, command=("sh", "-c", "echo oh no; exit 1"))
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,))
        report = await rig.reached(S.FAILED, attempt=4)
        assert report.restarts >= 3
        assert await asyncio.to_thread(left_on_host, host) <= 3
        await rig.assign()
        await rig.gone()
        assert await asyncio.to_thread(left_on_host, host) == 0


async def test_a_volume_outlives_its_task(rig: Rig, host: Host) -> None:
    """It is made when the leader allows it, with labels that say whose it is."""
    mounts = (Mount(MountKind.VOLUME, "data", "/data"),)
    entry = an_entry(image=IMAGE, command=OBEYS, mounts=mounts)
    parts = ProjectParts(
        "shop", volumes=(VolumeSpec("data", "shop_data"),), creatable_volumes=("shop_data",)
    )
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,), parts=parts)
        await rig.reached(S.RUNNING)
        await rig.assign()
        await rig.gone()
        volume = await asyncio.to_thread(host.docker.volumes.get, "shop_data")
        assert volume.attrs["Labels"]["dray.volume"] == "data"


async def handled(agent: Agent) -> None:
    """Wait until the removal of volumes that was asked for has been looked at."""
    async with asyncio.timeout(60):
        while agent.removals.is_busy:
            await asyncio.sleep(0.01)


async def test_volumes_go_with_their_project_when_nothing_needs_them(rig: Rig, host: Host) -> None:
    """Those of a running task and those of others stay, whatever the leader names."""
    mounts = (Mount(MountKind.VOLUME, "data", "/data"),)
    entry = an_entry(image=IMAGE, command=OBEYS, mounts=mounts)
    parts = ProjectParts(
        "shop", volumes=(VolumeSpec("data", "shop_data"),), creatable_volumes=("shop_data",)
    )

    def names() -> set[str]:
        return {str(each.name) for each in host.docker.volumes.list()}

    await asyncio.to_thread(host.docker.volumes.create, "foreign")
    async with rig.daemon() as agent:
        await rig.assign(a_task(1), entries=(entry,), parts=parts)
        await rig.reached(S.RUNNING)
        agent.removals.ask("shop", ("shop_data", "foreign"))
        await handled(agent)
        assert await asyncio.to_thread(names) == {"shop_data", "foreign"}
        await rig.assign()
        await rig.gone()
        agent.removals.ask("shop", ("shop_data", "foreign"))
        await handled(agent)
        assert await asyncio.to_thread(names) == {"foreign"}
