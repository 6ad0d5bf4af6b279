"""Do schedulers over a real etcd lead one at a time, whatever befalls the leader or the store?"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dray.addresses import parse_host_port
from dray.client import Client
from dray.model import (
    Assignment,
    ClusterRecord,
    Epoch,
    NodeCondition,
    ProjectSpec,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    StoreRevision,
    TaskAssignment,
)
from scheduler.store.base import Committed, Put, Store, Txn
from scheduler.store.codec import decode_as, encode
from scheduler.store.etcd import EtcdStore
from scheduler.store.keys import CLUSTER, LEADER, assignment_key, node_key
from tests.builders import CLUSTER_ID, a_node, a_service, an_info, node_id, task_id
from tests.lab.etcd import EtcdCluster
from tests.lab.process import Process, spawn
from tests.scheduler_process import Schedulers, init_cluster
from tests.sim_node import SimNode, running_nodes

DEADLINE_S = 30.0
TAKE_OVER_S = 6.0  # issue: a new leader plans after that at most when the leader was killed
NODES = 3


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Lend an etcd of one member, empty."""
    with EtcdCluster(1, tmp_path) as cluster:
        yield cluster


@pytest.fixture
def start(etcd: EtcdCluster, tmp_path: Path) -> Iterator[Callable[[int, int], Schedulers]]:
    """Make a cluster and so many schedulers with leases of so many seconds; they end with it."""
    with contextlib.ExitStack() as stack:

        def started(count: int, lease_ttl_s: int) -> Schedulers:
            init_cluster(etcd)
            schedulers = Schedulers(etcd, tmp_path, count, lease_ttl_s=lease_ttl_s)
            return stack.enter_context(schedulers)

        yield started


def a_project(replicas: int, name: str = "shop") -> ProjectSpec:
    """Return a project of one service."""
    return ProjectSpec(name, services=(a_service(replicas=replicas),))


async def until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> float:
    """Wait until something holds, and return the seconds that it took."""
    start_s = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - start_s < deadline_s, f"waited {deadline_s:g} s until {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - start_s


def running(nodes: Sequence[SimNode], service: str = "web", project: str = "shop") -> int:
    """Return how many tasks of a service run on all nodes together."""
    tasks = [task for node in nodes for task in node.tasks.values()]
    return sum(task.slot.service_key == ServiceKey(project, service) for task in tasks)


async def ready(client: Client) -> None:
    """Wait until all nodes are held to be ready."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            counts = (await client.get_status()).nodes
            if [(each.condition, each.count) for each in counts] == [(NodeCondition.READY, NODES)]:
                return
            await asyncio.sleep(0.05)


async def test_what_is_asked_runs_and_survives_the_leaders_death(
    start: Callable[[int, int], Schedulers],
) -> None:
    """Replicas are placed apart; the leader is killed; the next one plans in time, once each.

    The lease lasts 5 s. The follower has proof of the death: the address refuses connections.
    """
    schedulers = await asyncio.to_thread(start, 2, 5)
    leader = await asyncio.to_thread(schedulers.leader)
    infos = [an_info(number) for number in range(1, NODES + 1)]
    async with (
        running_nodes(infos, schedulers.addresses) as nodes,
        Client(schedulers.addresses) as client,
    ):
        await ready(client)
        await client.apply_project(a_project(3))
        await until(lambda: running(nodes) == 3, "three replicas run")
        assert all(running([node]) < 3 for node in nodes)
        before = {task for node in nodes for task in node.tasks}
        leader.running().kill()
        start_s = time.monotonic()
        await client.apply_project(a_project(5))
        await until(lambda: running(nodes) == 5, "the new leader plans")
        assert time.monotonic() - start_s <= TAKE_OVER_S
        after = {task for node in nodes for task in node.tasks}
        assert before <= after, "a task was replaced by the change of leaders"
        assert not [task for node in nodes for task in node.ended]


async def test_a_leader_that_stops_hands_over_at_once(
    start: Callable[[int, int], Schedulers],
) -> None:
    """SIGTERM gives the key back: nobody waits for the lease of 20 s."""
    both = await asyncio.to_thread(start, 2, 20)
    leader = await asyncio.to_thread(both.leader)
    leader.running().terminate()
    (other,) = (each for each in both.all if each is not leader)
    await until(lambda: bool(other.told("leading")), "the other one leads", 10.0)
    assert await asyncio.to_thread(leader.running().wait, 10.0) == 0


async def test_a_restored_store_stops_nothing_and_is_told(
    etcd: EtcdCluster, tmp_path: Path, start: Callable[[int, int], Schedulers]
) -> None:
    """Etcd goes back to a backup from before a scale-up: no task ends, nobody leads, the log says.

    After `dray init --restored` the cluster goes on with a higher generation.
    """
    schedulers = await asyncio.to_thread(start, 1, 2)
    (one,) = schedulers.all
    await asyncio.to_thread(schedulers.leader)
    infos = [an_info(number) for number in range(1, NODES + 1)]
    backup = tmp_path / "backup.db"
    async with (
        running_nodes(infos, schedulers.addresses) as nodes,
        Client(schedulers.addresses) as client,
    ):
        await client.apply_project(a_project(2))
        await until(lambda: running(nodes) == 2, "two replicas run")
        await asyncio.to_thread(etcd.snapshot_save, backup)
        await client.apply_project(a_project(4))
        await until(lambda: running(nodes) == 4, "four replicas run")
        await asyncio.to_thread(etcd.snapshot_restore, backup)
        event = "this scheduler may not lead"
        await until(lambda: bool(one.told(event)), "the operator is told")
        (line, *_) = await asyncio.to_thread(one.told, event)
        assert "--restored" in line["hint"]
        assert running(nodes) == 4
        await asyncio.to_thread(init_cluster, etcd, "--restored")
        await until(lambda: one.told("leading")[-1]["epoch"].startswith("2/"), "it leads again")
        assert not [task for node in nodes for task in node.ended], "a task ended"


class StoppedLeader:
    """The leader of `stopped_leader`, as a process."""

    def __init__(self, etcd: EtcdCluster, folder: Path, ttl_s: int, *, has_fence: bool) -> None:
        flags = () if has_fence else ("--without-fence",)
        arguments = [
            *(sys.executable, "-m", "tests.integration.stopped_leader"),
            *(etcd.members[0].endpoint, str(folder), str(ttl_s), *flags),
        ]
        self.process: Process = spawn(arguments, stdout=subprocess.PIPE)

    def line(self) -> str:
        """Return the next line that is no log line."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline().decode():
            if not line.startswith(("{", "20")):
                return line.strip()
        raise AssertionError("the leader ended")

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()


async def _with_a_task_to_stop(store: Store) -> StoreRevision:
    """Store a task of a service that nobody asks for, and return the revision of its key."""
    task = TaskAssignment(task_id(1), SlotKey("gone", "web", 1), ServiceRevision(1), Epoch(1, 1))
    stored = Assignment(CLUSTER_ID, node_id(1), Epoch(1, 1), StoreRevision(0), (task,))
    puts = (
        Put(CLUSTER, encode(ClusterRecord(CLUSTER_ID))),
        Put(node_key(node_id(1)), encode(a_node(1))),
        Put(assignment_key(node_id(1)), encode(stored)),
    )
    outcome = await store.commit(Txn((), puts))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def _stopped_past_its_lease(
    etcd: EtcdCluster, folder: Path, *, has_fence: bool
) -> tuple[str, bool]:
    """Stop a leader between snapshot and commit until its lease is over; return how it ended.

    Returns:
        What the commit came to, and whether the store was changed by it.
    """
    store = EtcdStore([parse_host_port(etcd.members[0].endpoint)], None)
    try:
        revision = await _with_a_task_to_stop(store)
        leader = await asyncio.to_thread(StoppedLeader, etcd, folder, 2, has_fence=has_fence)
        try:
            async with asyncio.timeout(DEADLINE_S):
                assert await asyncio.to_thread(leader.line) == "leading"
                assert await asyncio.to_thread(leader.line) == "stopping"
                while (await store.get(LEADER)).item is not None:
                    await asyncio.sleep(0.05)
                leader.process.resume()
                while not (ended := await asyncio.to_thread(leader.line)).startswith("ended"):
                    pass  # it may be elected again before its old commit is answered
        finally:
            await asyncio.to_thread(leader.end)
        item = (await store.get(assignment_key(node_id(1)))).item
        assert item is not None
        (task,) = decode_as(item, Assignment).tasks
        assert task.stop == (item.mod_revision != revision)
        return ended, item.mod_revision != revision
    finally:
        await store.close()


async def test_a_leader_that_slept_through_its_lease_cannot_write(
    etcd: EtcdCluster, tmp_path: Path
) -> None:
    """SIGSTOP past the lease between snapshot and commit: the commit is fenced off."""
    assert await _stopped_past_its_lease(etcd, tmp_path / "leader", has_fence=True) == (
        "ended Conflict",
        False,
    )


async def test_without_the_fence_it_could(etcd: EtcdCluster, tmp_path: Path) -> None:
    """The same leader without the fence writes: so the test before this one can fail."""
    assert await _stopped_past_its_lease(etcd, tmp_path / "leader", has_fence=False) == (
        "ended Committed",
        True,
    )
