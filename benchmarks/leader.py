"""How long does nobody plan, and nobody may write, when the leader dies? Prints JSON.

`python -m benchmarks.leader [--runs 10]`

Three etcd servers, three schedulers and three nodes that run nothing, on loopback. The leading
scheduler is killed (SIGKILL), alone, or together with the etcd server that leads: as if they were
on one host. At the same moment more replicas are asked for.

- `planned_s`: from the kill until the nodes were told of the new replicas by the next leader.
- `leads_s`: from the kill until the next leader says in its log that it leads.
- `user_gap_s`: the longest time between two writes that a user got through, through the client
  library; a write is on its way at every moment.
- `etcd_gap_s`: the same for bare puts to etcd through the store's client, side by side. What users
  are refused beyond that is dray's own doing.

At the end etcd is restored from a snapshot that was made before the last thing that was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.told import about, etcd_version
from dray.addresses import HostPort, parse_host_port
from dray.client import Client, ClientLimits
from dray.errors import DrayError
from dray.model import ProjectSpec
from scheduler.store.base import Put, Txn
from scheduler.store.etcd import EtcdLimits, EtcdStore
from tests.builders import a_service, an_info
from tests.lab.etcd import EtcdCluster
from tests.lab.wait import wait_for
from tests.scheduler_process import SchedulerProcess, Schedulers, init_cluster
from tests.sim_node import SimNode, running_nodes

MEMBERS: Final = 3
NODES: Final = 3
DEADLINE_S: Final = 60.0
POLL_S: Final = 0.01
BEAT_S: Final = 0.02  # between two writes of one prober
SETTLE_S: Final = 3.0  # all connections are back, and the new leader judges nodes
BARS: Final = {"etcd_leader_elsewhere": 6.0, "etcd_leader_killed_too": 9.0}


class Prober:
    """Writes again and again; knows the longest time without a success."""

    def __init__(self, write: Callable[[int], Awaitable[object]]) -> None:
        self._write = write
        self._last_s = time.monotonic()
        self._count = 0
        self.longest_s = 0.0
        self.refusals = 0

    def begin(self) -> None:
        """Forget what was before."""
        self._last_s, self.longest_s, self.refusals = time.monotonic(), 0.0, 0

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            self._count += 1
            try:
                await self._write(self._count)
            except DrayError:
                self.refusals += 1
            else:
                now_s = time.monotonic()
                self.longest_s = max(self.longest_s, now_s - self._last_s)
                self._last_s = now_s
            await asyncio.sleep(BEAT_S)


class Rig:
    """The cluster, and who writes to it."""

    def __init__(
        self,
        etcd: EtcdCluster,
        schedulers: Schedulers,
        nodes: Sequence[SimNode],
        client: Client,
        users: Prober,
        puts: Prober,
    ) -> None:
        self.etcd = etcd
        self.schedulers = schedulers
        self.nodes = nodes
        self.client = client
        self.users = users
        self.puts = puts
        self.replicas = 0

    async def ask(self, more: int) -> None:
        """Ask for more replicas."""
        self.replicas += more
        project = ProjectSpec("shop", services=(a_service(replicas=self.replicas),))
        await self.client.apply_project(project)

    async def until_told(self) -> None:
        """Wait until the nodes run as many tasks as were asked for."""
        async with asyncio.timeout(DEADLINE_S):
            while self.running() != self.replicas:
                await asyncio.sleep(POLL_S)

    def running(self) -> int:
        """Return how many tasks of the service run."""
        tasks = (task for node in self.nodes for task in node.tasks.values())
        return sum(task.slot.service == "web" for task in tasks)


@contextlib.asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """Run a cluster until the block ends."""
    with EtcdCluster(MEMBERS, folder) as etcd:
        await asyncio.to_thread(init_cluster, etcd)
        with Schedulers(etcd, folder, MEMBERS) as schedulers:
            await asyncio.to_thread(schedulers.leader)
            infos = [an_info(number) for number in range(1, NODES + 1)]
            limits = ClientLimits(call_s=DEADLINE_S, attempt_s=10.0)
            async with (
                running_nodes(infos, schedulers.addresses) as nodes,
                Client(schedulers.addresses, limits=limits) as client,
                Client(schedulers.addresses, limits=limits) as user,
                _store([parse_host_port(each) for each in etcd.endpoints]) as store,
                asyncio.TaskGroup() as group,
            ):
                users, puts = Prober(_user_write(user)), Prober(_put(store))
                probing = [group.create_task(each.run()) for each in (users, puts)]
                made = Rig(etcd, schedulers, nodes, client, users, puts)
                await made.ask(NODES)
                await made.until_told()
                yield made
                for each in probing:
                    each.cancel()


@contextlib.asynccontextmanager
async def _store(addresses: Sequence[HostPort]) -> AsyncIterator[EtcdStore]:
    limits = EtcdLimits(call_s=2.0, attempt_s=1.0, write_s=1.0, connect_s=1.0)
    store = EtcdStore(addresses, None, limits=limits)
    try:
        yield store
    finally:
        await store.close()


def _user_write(client: Client) -> Callable[[int], Awaitable[object]]:
    async def write(number: int) -> None:
        spec = a_service("probe", replicas=0, image=f"probe:{number}")
        await client.apply_project(ProjectSpec("probe", services=(spec,)))

    return write


def _put(store: EtcdStore) -> Callable[[int], Awaitable[object]]:
    async def write(number: int) -> None:
        await store.commit(Txn((), (Put("/probe", str(number).encode()),)))

    return write


async def one_death(made: Rig, *, with_etcds_leader: bool) -> dict[str, float]:
    """Kill the leader, and return what it cost; everything runs again afterwards."""
    leader = await asyncio.to_thread(made.schedulers.leader)
    victim = await asyncio.to_thread(made.etcd.leader) if with_etcds_leader else None
    others = [each for each in made.schedulers.all if each is not leader]
    led = sum(len(each.told("leading")) for each in others)
    for prober in (made.users, made.puts):
        prober.begin()
    leader.running().kill()
    if victim is not None:
        made.etcd.kill(victim)
    start_s = time.monotonic()
    asking = asyncio.create_task(made.ask(NODES))
    leads_s = await asyncio.to_thread(_led, others, led, start_s)
    await made.until_told()
    planned_s = time.monotonic() - start_s
    await asking
    await asyncio.sleep(SETTLE_S)
    found = {
        "planned_s": planned_s,
        "leads_s": leads_s,
        "user_gap_s": made.users.longest_s,
        "etcd_gap_s": made.puts.longest_s,
        "refusals": float(made.users.refusals),
        "ended_tasks": float(sum(len(node.ended) for node in made.nodes)),
    }
    await asyncio.to_thread(_mend, made, leader, victim)
    await asyncio.sleep(SETTLE_S)
    return found


def _led(others: Sequence[SchedulerProcess], before: int, start_s: float) -> float:
    """Wait until one of the others leads; return the seconds since the start."""

    def leads() -> bool:
        return sum(len(each.told("leading")) for each in others) > before

    wait_for(leads, "a new leader", deadline_s=DEADLINE_S, poll_s=POLL_S)
    return time.monotonic() - start_s


def _mend(made: Rig, leader: SchedulerProcess, victim: int | None) -> None:
    leader.running().wait()
    if victim is not None:
        made.etcd.restart(victim)
    leader.start()


async def restored(made: Rig, folder: Path) -> dict[str, float]:
    """Restore etcd from a snapshot; return when the operator was told, and what ended."""
    await asyncio.to_thread(made.etcd.snapshot_save, folder / "backup.db")
    await made.ask(NODES)
    await made.until_told()
    ended = sum(len(node.ended) for node in made.nodes)
    event = "this scheduler may not lead"
    start_s = time.monotonic()
    await asyncio.to_thread(made.etcd.snapshot_restore, folder / "backup.db")
    serves_s = time.monotonic() - start_s

    def told() -> bool:
        return any(each.told(event) for each in made.schedulers.all)

    await asyncio.to_thread(wait_for, told, "the operator is told", deadline_s=DEADLINE_S)
    told_s = time.monotonic() - start_s
    await asyncio.sleep(SETTLE_S)
    return {
        "etcd_was_away_s": round(serves_s, 2),
        "operator_told_s": round(told_s, 2),
        "tasks_that_ended": float(sum(len(node.ended) for node in made.nodes) - ended),
        "tasks_that_run": float(made.running()),
        "tasks_that_ran": float(made.replicas),
    }


async def measure(runs: int) -> dict[str, Any]:
    """Let leaders die; return the figures."""
    deaths: dict[str, list[dict[str, float]]] = {name: [] for name in BARS}
    with tempfile.TemporaryDirectory(prefix="dray-leader-") as folder:
        async with rig(Path(folder)) as made:
            for _ in range(runs):
                for name in BARS:
                    is_host = name == "etcd_leader_killed_too"
                    deaths[name].append(await one_death(made, with_etcds_leader=is_host))
            backup = await restored(made, Path(folder))
    return {
        **{
            name: {
                **{key: _spread([each[key] for each in found]) for key in found[0]},
                "bar_s": BARS[name],
                "within_bar": sum(each["planned_s"] <= BARS[name] for each in found),
                "runs": len(found),
            }
            for name, found in deaths.items()
        },
        "restored_from_snapshot": backup,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.leader")
    parser.add_argument("--runs", type=int, default=10, help="deaths of each kind")
    runs = max(1, parser.parse_args().runs)
    shown = {
        **about("leader"),
        "etcd": etcd_version(),
        **asyncio.run(measure(runs)),
        "load_after": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
