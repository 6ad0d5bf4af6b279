"""Does the agent keep its share running, on the fake engine, whatever happens to it?"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
from pathlib import Path

import pytest

from dray.model import (
    Assignment,
    AttemptState,
    ContentKind,
    ContentRef,
    Dependency,
    DependencyCondition,
    Epoch,
    FileMount,
    Health,
    Healthcheck,
    HealthcheckKind,
    Hook,
    ImageOptions,
    Mount,
    MountKind,
    NetworkMode,
    ProjectParts,
    RestartCondition,
    RestartPolicy,
    StoreRevision,
    VolumeSpec,
)
from node.agent.assign import Refusing
from node.agent.contents import Content
from node.runtime.base import ContainerState, Refusal, Refused
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import Call, FakeEngine, FakeProgram
from tests.node_agent import CLUSTER, EPOCH, IMAGE, NODE, Rig, a_task, an_entry, task_id

S = AttemptState
CRASHES = ("crash",)
ENDS = ("end",)
FAILS_HOOK = ("hook",)
PROGRAMS: dict[tuple[str, ...], FakeProgram] = {
    CRASHES: FakeProgram(exit_code=3),
    ENDS: FakeProgram(exit_code=0),
    FAILS_HOOK: FakeProgram(exit_code=2),
}


class FakeRig(Rig):
    """A machine with the fake engine and one image."""

    def __init__(self, folder: Path) -> None:
        seconds = itertools.count(1_700_000_000)
        self.engine = FakeEngine(lambda: float(next(seconds)), images=[IMAGE], programs=PROGRAMS)
        super().__init__(folder, lambda: FakeRuntime(self.engine))


@pytest.fixture
def rig(tmp_path: Path) -> FakeRig:
    """Return a machine."""
    return FakeRig(tmp_path / "node")


def running(rig: FakeRig) -> list[str]:
    """Return the names of the containers that run."""
    return sorted(c.seen().name for c in rig.engine.containers.values() if c.is_running)


async def test_an_assigned_task_runs_and_is_published(rig: FakeRig) -> None:
    """From the assignment to a running container, a report and an endpoint."""
    async with rig.daemon():
        assert await rig.assign(a_task(1), a_task(2)) is None
        report = await rig.reached(S.RUNNING)
        await rig.reached(S.RUNNING, 2)
        assert report.container_id
        assert report.image_digest
        assert len(running(rig)) == 2
        await rig.published(1, 2)


async def test_a_stopped_task_ends_and_is_forgotten(rig: FakeRig) -> None:
    """Told to stop: it ends and stays listed; unlisted: nothing is left of it."""
    async with rig.daemon():
        await rig.assign(a_task(1))
        await rig.reached(S.RUNNING)
        await rig.assign(a_task(1, stop=True))
        await rig.reached(S.STOPPED)
        assert running(rig) == []
        await rig.published()
        await rig.assign()
        await rig.gone()
        assert not rig.engine.containers


async def test_a_task_that_was_moved_away_is_stopped(rig: FakeRig) -> None:
    """A present assignment without it means stop."""
    async with rig.daemon():
        await rig.assign(a_task(1), a_task(2))
        await rig.reached(S.RUNNING)
        await rig.reached(S.RUNNING, 2)
        await rig.assign(a_task(2))
        await rig.gone()
        assert len(rig.engine.containers) == 1


async def test_a_daemon_that_is_killed_adopts_what_runs(rig: FakeRig) -> None:
    """No container is restarted, none is doubled, and the same attempt goes on."""
    async with rig.daemon():
        await rig.assign(a_task(1), a_task(2))
        before = await rig.reached(S.RUNNING)
        await rig.reached(S.RUNNING, 2)
    async with rig.daemon():
        after = await rig.reached(S.RUNNING)
        assert (after.container_id, after.attempt) == (before.container_id, 1)
        assert len(running(rig)) == 2
        await rig.assign()
        await rig.gone()
        await rig.gone(2)


async def test_what_crashes_is_restarted_with_its_number_kept(rig: FakeRig) -> None:
    """A crash loop is visible; old containers do not pile up; a new daemon counts on."""
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(an_entry(command=CRASHES),))
        report = await rig.reached(S.FAILED, attempt=4)
        assert report.restarts >= 3
        assert "exit code 3" in report.reason
        assert len(rig.engine.containers) <= 3
    async with rig.daemon():
        await rig.reached(S.FAILED, attempt=report.attempt + 1)


async def test_a_task_whose_policy_says_so_stays_ended(rig: FakeRig) -> None:
    """What completed is reported once and kept for its output until it is unlisted."""
    never = RestartPolicy(RestartCondition.NONE)
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(an_entry(command=ENDS, restart=never),))
        report = await rig.reached(S.COMPLETED)
        assert (report.exit_code, report.next_attempt_unix_s) == (0, 0.0)
        assert len(rig.engine.containers) == 1
    async with rig.daemon():
        assert (await rig.reached(S.COMPLETED)).attempt == 1
        await rig.assign()
        await rig.gone()
        assert not rig.engine.containers


@pytest.mark.parametrize("call", list(Call))
async def test_a_refusal_rejects_the_attempt_with_its_words(rig: FakeRig, call: Call) -> None:
    """The reason is the engine's, and the next attempt succeeds when it is gone."""
    rig.engine.refuse(call, Refused(Refusal.DISK_FULL, "no space left on device"))
    async with rig.daemon():
        entry = an_entry(restart=RestartPolicy(delay_s=0.5))
        await rig.assign(a_task(1), entries=(entry,))
        assert (await rig.reached(S.REJECTED)).reason.endswith("no space left on device")
        await rig.reached(S.RUNNING, attempt=2)


async def test_an_image_that_does_not_exist_ends_in_a_reason(rig: FakeRig) -> None:
    """Nothing is left of an attempt that never ran."""
    async with rig.daemon():
        entry = an_entry(image=ImageOptions("nope:1"), restart=RestartPolicy(RestartCondition.NONE))
        await rig.assign(a_task(1), entries=(entry,))
        report = await rig.reached(S.REJECTED)
        assert "nope:1" in report.reason
        assert not rig.engine.containers


async def test_an_image_of_another_platform_is_refused_before_it_runs(rig: FakeRig) -> None:
    """The reason names both platforms; an emulator of the kernel's is enough to try it."""
    rig.engine.registry["web:arm"] = "linux/arm64"
    never = RestartPolicy(RestartCondition.NONE)
    entry = an_entry(image=ImageOptions("web:arm"), restart=never)
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,))
        reason = (await rig.reached(S.REJECTED)).reason
        assert "web:arm is linux/arm64, node is linux/amd64" in reason
        assert not rig.engine.containers
        rig.emulated = frozenset({"arm64"})
        await rig.assign(a_task(2), entries=(entry,))
        await rig.reached(S.RUNNING, 2)


@pytest.mark.parametrize("platform", ["", "linux/arm64"], ids=["unsaid", "asked"])
async def test_a_foreign_image_that_fails_says_so(rig: FakeRig, platform: str) -> None:
    """What was asked for is tried, and so is what the kernel may run without telling."""
    rig.engine.registry["web:arm"] = "linux/arm64"
    rig.emulated = frozenset() if platform else None
    entry = an_entry(
        image=ImageOptions("web:arm", platform),
        command=CRASHES,
        restart=RestartPolicy(RestartCondition.NONE),
    )
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,))
        report = await rig.reached(S.FAILED)
        assert "exit code 3: image is linux/arm64, node is linux/amd64" in report.reason


async def test_docker_away_is_waited_for(rig: FakeRig) -> None:
    """Nothing is declared dead; the steps go on when it is back."""
    async with rig.daemon():
        await rig.assign(a_task(1))
        await rig.reached(S.RUNNING)
        rig.engine.go_away()
        await rig.assign(a_task(1), a_task(2))
        assert (await rig.reason(2)).state is S.PULLING
        running_one = rig.report(1)
        assert running_one is not None
        assert running_one.state is S.RUNNING
        rig.engine.come_back()
        await rig.reached(S.RUNNING, 2)
        assert (await rig.reached(S.RUNNING)).attempt == 1


async def test_a_machine_that_was_restarted_starts_from_disk_after_the_wait(rig: FakeRig) -> None:
    """Without a leader the tasks come back by themselves; jobs wait for one."""
    job = an_entry("job", is_job=True)
    tasks = (a_task(1), a_task(2, "job"))
    async with rig.daemon():
        await rig.assign(*tasks, entries=(an_entry(), job))
        await rig.reached(S.RUNNING)
        await rig.reached(S.RUNNING, 2)
    rig.engine.reboot()
    async with rig.daemon():
        report = await rig.reached(S.RUNNING, attempt=2)
        assert report.attempt == 2
        await rig.until(
            lambda: bool((r := rig.report(2)) and "leader" in r.reason), "the job waits"
        )
        assert len(running(rig)) == 1
        await rig.assign(*tasks, entries=(an_entry(), job))
        await rig.reached(S.RUNNING, 2, attempt=2)


async def test_what_moved_away_meanwhile_is_not_started(rig: FakeRig) -> None:
    """A leader that answers within the wait decides."""
    rig.restart_wait_s = 600.0
    async with rig.daemon():
        await rig.assign(a_task(1), a_task(2))
        await rig.reached(S.RUNNING)
        await rig.reached(S.RUNNING, 2)
    rig.engine.reboot()
    async with rig.daemon():
        await rig.until(
            lambda: bool((r := rig.report(1)) and "waits for a leader" in r.reason), "it waits"
        )
        assert running(rig) == []
        await rig.assign(a_task(2))
        await rig.reached(S.RUNNING, 2, attempt=2)
        await rig.gone()
        assert len(running(rig)) == 1


async def test_tasks_wait_for_what_they_depend_on_here(rig: FakeRig) -> None:
    """A dependency that is healthy, then the dependant; the reason says what it waits for."""
    check = Healthcheck(HealthcheckKind.EXEC, ("check",), interval_s=60.0, start_period_s=60.0)
    db = an_entry("db", healthcheck=check)
    web = an_entry(depends_on=(Dependency("db", DependencyCondition.HEALTHY),))
    async with rig.daemon():
        await rig.assign(a_task(1), a_task(2, "db"), entries=(web, db))
        found = await rig.reached(S.RUNNING, 2)
        waiting = await rig.reason()
        assert (waiting.state, waiting.reason) == (S.PENDING, "waits for db to be healthy")
        rig.engine.set_health(found.container_id, Health.HEALTHY)
        await rig.reached(S.RUNNING)
        rig.engine.set_health(found.container_id, Health.UNHEALTHY)
        await rig.reached(S.RUNNING, 2, attempt=2)


async def test_a_failed_start_hook_fails_the_attempt(rig: FakeRig) -> None:
    """Its container is ended, and the reason names the command."""
    entry = an_entry(post_start=(Hook(FAILS_HOOK),), restart=RestartPolicy(RestartCondition.NONE))
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,))
        report = await rig.reached(S.FAILED)
        assert "post_start `hook` ended with exit code 2" in report.reason
        assert running(rig) == []


async def test_a_volume_is_made_only_when_the_leader_allows_it(rig: FakeRig) -> None:
    """An unknown volume is never silently new."""
    mounts = (Mount(MountKind.VOLUME, "data", "/data"),)
    entry = an_entry(mounts=mounts, restart=RestartPolicy(RestartCondition.NONE))
    spec = VolumeSpec("data", "shop_data")
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry,), parts=ProjectParts("shop", volumes=(spec,)))
        report = await rig.reached(S.REJECTED)
        assert "volume shop_data is not on this node" in report.reason
        assert not rig.engine.volumes
        parts = ProjectParts("shop", volumes=(spec,), creatable_volumes=("shop_data",))
        await rig.assign(a_task(2), entries=(entry,), parts=parts)
        await rig.reached(S.RUNNING, 2)
        assert "shop_data" in rig.engine.volumes


async def test_configs_and_secrets_become_files_and_are_checked(rig: FakeRig) -> None:
    """Content that is another one than the assignment says is not used; files go with the task."""
    secret = Content(b"hunter2", salt=b"salt")
    ref = ContentRef(
        ContentKind.SECRET, "key", "shop_key", hashlib.sha256(b"salthunter2").digest(), 7
    )
    entry = an_entry(secrets=(FileMount("key", "/run/secrets/key", mode=0o400),))
    rig.leader.contents["key"] = Content(b"other")
    async with rig.daemon():
        parts = ProjectParts("shop", contents=(ref,))
        await rig.assign(a_task(1), entries=(entry,), parts=parts)
        assert "another one" in (await rig.reason()).reason
        rig.leader.contents["key"] = secret
        await rig.reached(S.RUNNING)
        folder = rig.folder / "run" / "secrets" / task_id(1)
        assert await asyncio.to_thread((folder / "0").read_bytes) == b"hunter2"
        assert (await asyncio.to_thread((folder / "0").stat)).st_mode & 0o777 == 0o400
        await rig.assign(a_task(1, stop=True), entries=(entry,), parts=parts)
        await rig.reached(S.STOPPED)
        await rig.assign()
        await rig.gone()
        assert not await asyncio.to_thread(folder.exists)


async def test_a_lent_network_stack_waits_for_its_owner(rig: FakeRig) -> None:
    """`network_mode: service:…` attaches to the container of that service on this node."""
    lender = an_entry("db")
    entry = an_entry(network_mode=NetworkMode.SERVICE, network_mode_target="db")
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(entry, lender))
        assert "no container of db runs" in (await rig.reason()).reason
        await rig.assign(a_task(1), a_task(2, "db"), entries=(entry, lender))
        await rig.reached(S.RUNNING)


async def test_orphans_of_a_restore_are_kept_until_their_loss_is_accepted(
    rig: FakeRig,
) -> None:
    """Tasks that a restored cluster does not know run on, also over a restart of the daemon."""
    async with rig.daemon() as agent:
        await rig.assign(a_task(1), a_task(2))
        await rig.reached(S.RUNNING)
        await rig.reached(S.RUNNING, 2)
        await rig.assign(a_task(2), epoch=Epoch(2, 1))
        assert agent.book.orphans == {task_id(1)}
    async with rig.daemon() as agent:
        await rig.reached(S.RUNNING)
        assert len(running(rig)) == 2
        assert agent.book.orphans == {task_id(1)}
        await agent.remove_orphans([task_id(1), task_id(2)])
        await rig.gone()
        assert len(running(rig)) == 1


async def test_a_container_that_nobody_can_explain_is_an_orphan(rig: FakeRig) -> None:
    """A node that lost its files stops nothing."""
    async with rig.daemon():
        await rig.assign(a_task(1))
        await rig.reached(S.RUNNING)
    await asyncio.to_thread(rig.lose_files)
    async with rig.daemon() as agent:
        await rig.assign()
        await rig.reached(S.RUNNING)
        assert agent.book.orphans == {task_id(1)}
        assert len(running(rig)) == 1


@pytest.mark.parametrize("turns", range(0, 24, 2))
async def test_an_assignment_may_come_while_containers_are_adopted(
    rig: FakeRig, turns: int
) -> None:
    """Of tasks that are not on the disk either one makes the state first; none is an orphan."""
    async with rig.daemon():
        await rig.assign(a_task(1), a_task(2))
        await rig.reached(S.RUNNING)
        before = await rig.reached(S.RUNNING, 2)
    await asyncio.to_thread((rig.folder / "tasks.json").unlink)
    async with rig.daemon() as agent:
        for _ in range(turns):
            await asyncio.sleep(0)
        await rig.assign(a_task(1), a_task(2), a_task(3))
        await rig.reached(S.RUNNING)
        after = await rig.reached(S.RUNNING, 2)
        await rig.reached(S.RUNNING, 3)
        assert (after.attempt, after.container_id) == (1, before.container_id)
        assert not agent.book.orphans
        assert len(running(rig)) == 3


async def test_events_that_are_lost_cost_a_delay(
    rig: FakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end and a change of health that the engine never tells are found by looking."""
    monkeypatch.setattr("node.agent.agent.GLANCE_EVERY_S", 0.05)
    async with rig.daemon():
        await rig.assign(a_task(1), a_task(2))
        await rig.reached(S.RUNNING)
        await rig.reached(S.RUNNING, 2)
        first, second = rig.engine.containers.values()
        with monkeypatch.context() as mute:
            mute.setattr(rig.engine, "emit", lambda *_: None)
            rig.engine.end(first.container_id, 1)
            rig.engine.set_health(second.container_id, Health.HEALTHY)
            await rig.until(lambda: rig.agent.book.reports[task_id(1)].attempt == 2, "looked at")
        ill = task_id(2)
        await rig.until(lambda: rig.agent.book.reports[ill].health is Health.HEALTHY, "healthy")


async def test_what_nobody_can_explain_is_not_begun_again(rig: FakeRig) -> None:
    """Its container ends: the agent goes on, and begins it anew once an assignment lists it."""
    async with rig.daemon():
        await rig.assign(a_task(1))
        await rig.reached(S.RUNNING)
    await asyncio.to_thread(rig.lose_files)
    async with rig.daemon():
        await rig.assign()
        (container,) = (each for each in rig.engine.containers.values() if each.is_running)
        rig.engine.end(container.seen().container_id, 1)
        assert "says what it runs" in (await rig.reached(S.PENDING)).reason
        await rig.assign(a_task(1))
        assert (await rig.reached(S.RUNNING)).attempt == 2


async def test_a_refused_assignment_changes_nothing(rig: FakeRig) -> None:
    """The former one stands, and the answer says why."""
    async with rig.daemon():
        await rig.assign(a_task(1))
        await rig.reached(S.RUNNING)
        refused = await rig.assign(epoch=Epoch(1, 4))
        assert refused is not None
        assert "the node holds" in refused.reason
        assert len(running(rig)) == 1


async def test_a_container_that_somebody_removed_comes_back(rig: FakeRig) -> None:
    """The attempt has failed with that reason, and the next one runs."""
    async with rig.daemon():
        await rig.assign(a_task(1), entries=(an_entry(restart=RestartPolicy(delay_s=0.3)),))
        report = await rig.reached(S.RUNNING)
        rig.engine.remove(rig.engine.containers[report.container_id])
        assert "removed by somebody else" in (await rig.reached(S.FAILED)).reason
        await rig.reached(S.RUNNING, attempt=2)
        states = [c.seen().state for c in rig.engine.containers.values()]
        assert states == [ContainerState.RUNNING]


async def test_a_revision_is_kept_for_as_long_as_the_stream_lasts(rig: FakeRig) -> None:
    """A rollback refers to what the stream carried long before; a new stream carries it again."""
    async with rig.daemon() as agent:
        await rig.assign(a_task(1))
        await rig.reached(S.RUNNING)
        await rig.assign()
        await rig.gone()
        bare = Assignment(CLUSTER, NODE, EPOCH, StoreRevision(50), (a_task(2),))
        assert await agent.take(bare, []) is None
        await rig.reached(S.RUNNING, 2)
        rig.revision = 54
        await rig.assign()
        agent.new_stream()
        refused = await agent.take(dataclasses.replace(bare, mod_revision=StoreRevision(60)), [])
        assert refused is not None
        assert refused.kind is Refusing.SPEC_MISSING


async def test_an_end_that_the_engine_has_not_told_is_published_at_once(rig: FakeRig) -> None:
    """A process that is gone serves nothing; if its container runs after all, it does again."""
    async with rig.daemon() as agent:
        await rig.assign(a_task(1), a_task(2))
        report = await rig.reached(S.RUNNING)
        await rig.published(1, 2)
        agent.process_ended(report.container_id)
        await rig.published(2)
        assert (await rig.reached(S.RUNNING)).attempt == 1
        rig.engine.go_away()
        rig.engine.come_back()
        await rig.published(1, 2)
