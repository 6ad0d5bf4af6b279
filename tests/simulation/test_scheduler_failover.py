"""How long is a slot without a task when machines are lost? Virtual seconds, whole control planes.

Times of the simulation are those of the product's own timers; sockets and disks cost nothing, and
gossip's detection of a silent peer is taken to last 1.5 s to 2 s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from tests.simulation.scheduler_loop import VirtualLoop, run_virtual
from tests.simulation.scheduler_node import SimNode
from tests.simulation.scheduler_world import SchedulerWorld

CUT_AT_S = 15.0
LIMIT_S = 60.0
SEEDS = range(12)


async def settled(world: SchedulerWorld) -> SimNode:
    """Bring two services to run; return the node with the most of their tasks."""
    world.begin()
    for name in ("web", "api"):
        world.at(3.0, functools.partial(world.apply, name, 3))
    await world.until(CUT_AT_S)
    assert world.checker.not_as_asked() == []
    return max(world.nodes.values(), key=lambda node: len(node.running()))


def replaced_after_s(seed: int, befall: Callable[[SchedulerWorld, SimNode], None]) -> float:
    """Return how long after a fault every slot runs again somewhere.

    Args:
        seed: Of the world: where things run, and every latency.
        befall: What happens to the node with the most tasks.
    """

    async def main(loop: VirtualLoop) -> float:
        world = SchedulerWorld(seed, loop)
        befall(world, await settled(world))
        assert world.checker.not_as_asked() != []
        while world.checker.not_as_asked() and world.now_s() < CUT_AT_S + LIMIT_S:
            await world.until(world.now_s() + 0.05, 0.05)
        world.end()
        assert world.broken == []
        return world.now_s() - CUT_AT_S

    return run_virtual(main)


@pytest.mark.parametrize("number", SEEDS)
def test_a_power_cut_of_a_worker(number: int) -> None:
    """Its replicas run elsewhere within four seconds: detection, one plan, one start."""
    assert replaced_after_s(number, lambda _, node: node.power_off()) < 4.0


@pytest.mark.parametrize("number", SEEDS)
def test_a_power_cut_of_the_leaders_host(number: int) -> None:
    """The lease runs out, another scheduler waits for the nodes and judges: twelve seconds."""

    def befall(world: SchedulerWorld, node: SimNode) -> None:
        leader = next(each for each in world.schedulers if each.is_leading)
        node.power_off()
        world.kill(leader)
        if len(world.schedulers) == 1:  # its service manager starts it again
            world.at(world.now_s() + 2.0, leader.start)

    assert replaced_after_s(number, befall) < 12.0


@pytest.mark.parametrize("number", SEEDS)
def test_a_restart_of_a_daemon_moves_nothing(number: int) -> None:
    """Its containers go on, nobody takes their place, and the node is ready again."""

    async def main(loop: VirtualLoop) -> None:
        world = SchedulerWorld(number, loop)
        node = await settled(world)
        before = {run.task.task_id for run in node.running()}
        node.kill_daemon()
        await world.until(CUT_AT_S + 8.0)
        node.start_daemon()
        await world.until(CUT_AT_S + 12.0)
        after = {run.task.task_id for run in node.running()}
        wrong = world.checker.not_as_asked()
        world.end()
        assert world.broken == wrong == []
        assert after == before

    run_virtual(main)
