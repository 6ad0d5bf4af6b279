"""What there is of dray, working on several Docker hosts of one machine.

`python -m tests.demo [--keep] [--hosts N]` is what `./dev.sh demo` runs. Exits with 1 when a step
does not hold, and leaves nothing behind either way (unless --keep).
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dray.compose import Loaded, LoadRequest, load
from dray.errors import DrayError
from dray.files import DiskFiles
from dray.model import NodeCapacity, NodeRecord, ProjectSpec
from dray.names import ClusterId, NodeId, RandomIds, slot_name
from node.runtime.base import ContainerState, LogQuery
from node.runtime.docker import DockerRuntime
from tests.demo.cluster import DemoCluster, DemoError, DemoNode, Round
from tests.lab import Host, Lab, LabError

COMPOSE_FILE = Path(__file__).parent / "compose.yaml"
CAPACITY = NodeCapacity(cpu_millis=1000, memory_bytes=512 * 1024**2)  # what we say a host has
HOSTS_MAX = 9


class Demo:
    """The steps, told as they happen."""

    def __init__(self, hosts: list[Host], console: Console) -> None:
        """Make the cluster of these hosts; nothing runs yet."""
        self._console = console
        self._step = 0
        ids = RandomIds(secrets.randbits)
        cluster_id = ClusterId(ids.new())
        self._hosts: dict[NodeId, Host] = dict(
            zip(sorted(NodeId(ids.new()) for _ in hosts), hosts, strict=True)
        )
        nodes = {
            node_id: DemoNode(
                NodeRecord(node_id, cluster_id, host.name, ""),
                DockerRuntime(host.docker_socket),
                CAPACITY,
            )
            for node_id, host in self._hosts.items()
        }
        self._cluster = DemoCluster(cluster_id, nodes, ids)

    def say(self, what: str, text: str) -> None:
        """Print one numbered line."""
        self._step += 1
        self._console.print(
            f"[bold]{self._step:>2}[/]  [cyan]{what:<14}[/]  {text}", highlight=False
        )

    async def run(self, *, keep: bool) -> None:
        """Show everything, in order; with `keep`, stop before the project is removed."""
        try:
            project = self._load()
            await self._bring_up(project)
            await self._crash()
            await self._lose_a_host()
            if not keep:
                await self._remove(project)
        finally:
            for node in self._cluster.nodes.values():
                await node.runtime.close()

    def _load(self) -> ProjectSpec:
        result = load(LoadRequest(files=(str(COMPOSE_FILE),)), DiskFiles())
        if not isinstance(result, Loaded):
            raise DemoError("; ".join(str(problem) for problem in result.problems))
        wanted = sum(service.mode.replicas for service in result.project.services)
        names = ", ".join(service.name for service in result.project.services)
        self.say("a project", f"tests/demo/compose.yaml asks for {names}: {wanted} replicas")
        return result.project

    async def _bring_up(self, project: ProjectSpec) -> None:
        self._cluster.apply(project)
        began_s = time.monotonic()
        rounds = await self._cluster.settle()
        self.say("a plan", _numbers(rounds[0]))
        self.say("placement", self._places(rounds[0]))
        await self._show(f"up in {time.monotonic() - began_s:.1f} s")
        for _, container in await self._cluster.containers():
            if container.state is not ContainerState.RUNNING:
                raise DemoError(f"{container.name} does not run: {container.error}")
        await self._show_output()

    async def _show_output(self) -> None:
        """Show the first line that one container wrote."""
        node_id, container = next(
            item for item in await self._cluster.containers() if ".worker." in item[1].name
        )
        runtime = self._cluster.nodes[node_id].runtime
        async with runtime.logs(container.container_id, LogQuery(follow=True)) as lines:
            first = await anext(lines)
        self.say("logs", f"{container.name.split('.')[1]} says: {first.data.decode()}")

    async def _crash(self) -> None:
        """Kill a container behind dray's back: what is observed says so."""
        node_id, container = (await self._cluster.containers())[0]
        runtime = self._cluster.nodes[node_id].runtime
        await runtime.stop(container.container_id, signal="SIGKILL", grace_s=0.0)
        ended = await runtime.wait(container.container_id)
        if ended is None or ended.exit_code != 137:
            raise DemoError(f"a killed container shows exit code {ended and ended.exit_code}")
        await self._cluster.next_attempt(node_id, ended)
        self.say("a crash", f"{_short(container.name)} was killed, exit code 137: attempt 2 runs")

    async def _lose_a_host(self) -> None:
        """Cut the power of the host with the fewest tasks, and say so to the planner."""
        candidates = [item for item in self._cluster.nodes.items() if item[1].tasks]
        node_id, node = min(candidates, key=lambda item: len(item[1].tasks))
        lost = [slot_name(t.slot.service, t.slot.slot) for t in node.tasks.values()]
        await asyncio.to_thread(self._hosts[node_id].power_off)
        node.is_down = True
        began_s = time.monotonic()
        self.say("a power cut", f"{node.record.name} is off, and with it {', '.join(lost)}")
        rounds = await self._cluster.settle()
        self.say("placement", self._places(rounds[0]))
        running = [
            container
            for _, container in await self._cluster.containers()
            if container.state is ContainerState.RUNNING
        ]
        wanted = sum(record.spec.mode.replicas for record in self._cluster.services.values())
        if len(running) != wanted:
            raise DemoError(f"{len(running)} containers run, {wanted} are wanted")
        await self._show(f"whole again in {time.monotonic() - began_s:.1f} s")

    async def _remove(self, project: ProjectSpec) -> None:
        self._cluster.apply(ProjectSpec(project.name))
        await self._cluster.settle()
        left = await self._cluster.containers()
        if left:
            raise DemoError(f"{len(left)} containers are left")
        self.say("down", "0 containers left")

    async def _show(self, text: str) -> None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("SLOT", "NODE", "STATE", "TASK", "ATTEMPT"):
            table.add_column(heading)
        for node_id, container in await self._cluster.containers():
            identity = container.identity
            if identity is None:
                continue
            table.add_row(
                slot_name(identity.slot.service, identity.slot.slot),
                self._cluster.nodes[node_id].record.name,
                container.state.name.lower(),
                identity.task_id[:8],
                str(identity.attempt),
            )
        self.say("containers", text)
        self._console.print()
        self._console.print(table)
        self._console.print()

    def _places(self, done: Round) -> str:
        if done.placement.unplaced:
            raise DemoError(f"no node for {done.placement.unplaced}")
        return ", ".join(
            f"{slot_name(each.slot.service, each.slot.slot)} → "
            f"{self._cluster.nodes[each.node_id].record.name}"
            for each in done.placement.placed
        )


def _short(name: str) -> str:
    return ".".join(name.split(".")[1:3])


def _numbers(done: Round) -> str:
    fields = done.plan.fields()
    return ", ".join(f"{fields[key]} {key}" for key in ("created", "moved", "stopped", "forgotten"))


def main() -> int:
    """Run the demo and return the exit code."""
    summary = (__doc__ or "").split("\n", maxsplit=1)[0]
    parser = argparse.ArgumentParser(prog="./dev.sh demo", description=summary)
    parser.add_argument("--keep", action="store_true", help="leave hosts and containers up")
    parser.add_argument("--hosts", type=int, default=3, help="hosts, 2 to 9 (default 3)")
    options = parser.parse_args()
    if not 2 <= options.hosts <= HOSTS_MAX:
        parser.error(f"--hosts takes 2 to {HOSTS_MAX}")
    console = Console(soft_wrap=True)
    began_s = time.monotonic()
    try:
        lab = Lab.up(options.hosts, keep=options.keep)
        try:
            demo = Demo(lab.hosts, console)
            boot_s = time.monotonic() - began_s
            demo.say("machines", f"{options.hosts} hosts, a Docker Engine each, in {boot_s:.1f} s")
            asyncio.run(demo.run(keep=options.keep))
        finally:
            if not options.keep:
                lab.down()
    except (DemoError, DrayError, LabError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    kept = "; ./dev.sh lab down ends it" if options.keep else ", nothing left behind"
    console.print(f"\nDone in {time.monotonic() - began_s:.1f} s{kept}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
