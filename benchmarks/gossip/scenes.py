"""How are the times and errors of gossip distributed, over many seeds? Virtual time, real encoding.

The lab shows what real sockets do, a few times; here each scene is run with every seed, so that
stragglers and rare errors are seen. A scene begins with a cluster that knows itself.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Final

from dray.model import FactKey, MemberState
from node.gossip.core import PublishFact, RanLate
from tests.simulation.gossip_cluster import GossipCluster, node_id_of
from tests.simulation.large import large_cluster
from tests.simulation.world import LinkQuality

__all__ = ["SCENES", "scenes"]

LIMIT_S: Final = 90.0
STEP_S: Final = 0.05
LOSS_S: Final = 110.0
PAUSES_S: Final = 90.0
PAUSED: Final = 4
STARVED_S: Final = 5.0  # before the cut
LATE_S: Final = 0.08  # more than suspends verdicts
LATE_SHARE: Final = 0.12  # of the nodes, each `STEP_S`: each is late 2.4 times a second
UPDATES: Final = 10  # in each run
UPDATE_GAP_S: Final = 0.2  # so that the news before is still being told, as in a busy cluster
UPDATE_LOSS: Final = 0.01
GOOD: Final = LinkQuality()

Scene = Callable[[GossipCluster, random.Random], dict[str, float | None]]


def _hold(
    cluster: GossipCluster, observers: Sequence[str], about: Sequence[str], states: set[MemberState]
) -> bool:
    """Return whether all observers hold all of these to be in one of these states."""
    for observer in observers:
        view = cluster.view(observer)
        for name in about:
            member = view.member(node_id_of(name))
            if name != observer and (member is None or member.state not in states):
                return False
    return True


def _until(cluster: GossipCluster, condition: Callable[[], bool]) -> float | None:
    """Let time pass until a condition holds; return how long that took, or None."""
    begin_s = cluster.world.now_s
    while not condition():
        if cluster.world.now_s - begin_s > LIMIT_S:
            return None
        cluster.world.run_for(STEP_S)
    return round(cluster.world.now_s - begin_s, 2)


def _deaths(cluster: GossipCluster) -> int:
    return sum(cluster.core(name).counted()["deaths"] for name in cluster.running())


def _gone(cluster: GossipCluster, victims: list[str], *, is_power: bool) -> float | None:
    for name in victims:
        end = cluster.world.crash if is_power else cluster.world.kill
        end(cluster.host(name))
    others = cluster.running()
    return _until(cluster, lambda: _hold(cluster, others, victims, {MemberState.DEAD}))


def kill(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Kill one process: all of the others know."""
    return {"all_s": _gone(cluster, rng.sample(cluster.names, 1), is_power=False)}


def power(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Cut the power of one machine: all of the others know."""
    return {"all_s": _gone(cluster, rng.sample(cluster.names, 1), is_power=True)}


def starved(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Cut the power of one machine while the loops of all others run late again and again."""

    def run_late() -> bool:
        for name in cluster.running():
            if rng.random() < LATE_SHARE:
                cluster.command(name, RanLate(LATE_S))
        return False

    until_s = cluster.world.now_s + STARVED_S
    _until(cluster, lambda: run_late() or cluster.world.now_s >= until_s)
    victims = rng.sample(cluster.names, 1)
    cluster.world.crash(cluster.host(victims[0]))
    others, dead = cluster.running(), {MemberState.DEAD}
    return {"all_s": _until(cluster, lambda: run_late() or _hold(cluster, others, victims, dead))}


def tenth(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Kill a tenth of the processes at once."""
    victims = rng.sample(cluster.names, max(2, len(cluster.names) // 10))
    return {"all_s": _gone(cluster, victims, is_power=False)}


def partition(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Cut the halves apart until every pair has noticed, and 5 s more; then mend it."""
    names = cluster.names
    rng.shuffle(names)
    sides = names[: len(names) // 2], names[len(names) // 2 :]
    parted_s = _part(cluster, *sides)
    cluster.world.run_for(5.0)
    return {"all_pairs_s": parted_s, "healed_s": _heal(cluster)}


def partitions(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Do so five times with 3 s in between: what the fifth takes."""
    names = cluster.names
    rng.shuffle(names)
    found: dict[str, float | None] = {}
    for _ in range(5):
        parted_s = _part(cluster, names[: len(names) // 2], names[len(names) // 2 :])
        found = {"all_pairs_s": parted_s, "healed_s": _heal(cluster)}
        cluster.world.run_for(3.0)
    return found


def _part(cluster: GossipCluster, one: Sequence[str], other: Sequence[str]) -> float | None:
    a, b = ([cluster.host(name) for name in side] for side in (one, other))
    cluster.world.cut(a, b)
    cluster.world.cut(b, a)
    dead = {MemberState.DEAD}
    return _until(
        cluster, lambda: _hold(cluster, one, other, dead) and _hold(cluster, other, one, dead)
    )


def _heal(cluster: GossipCluster) -> float | None:
    cluster.world.heal()
    names = cluster.names
    return _until(cluster, lambda: _hold(cluster, names, names, {MemberState.ALIVE}))


def loss(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Lose a quarter of all packets; everybody lives."""
    cluster.world.quality = LinkQuality(loss=0.25)
    cluster.world.run_for(LOSS_S)
    return {"false_deaths": _deaths(cluster)}


def pauses(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Stop four processes for 2, 4, 8 and 12 s at a time."""
    stopped = [cluster.host(name) for name in rng.sample(cluster.names, PAUSED)]
    found: dict[str, float | None] = {}
    for pause_s, run_s in ((2.0, 0.2), (4.0, 1.0), (8.0, 0.2), (12.0, 1.0)):
        before = _deaths(cluster)
        for _ in range(round(PAUSES_S / (pause_s + run_s))):
            for host in stopped:
                cluster.world.pause(host)
            cluster.world.run_for(pause_s)
            for host in stopped:
                cluster.world.resume(host)
            cluster.world.run_for(run_s)
        found[f"false_deaths_{pause_s:g}_s"] = _deaths(cluster) - before
        cluster.world.run_for(5.0)
    return found


def update(cluster: GossipCluster, rng: random.Random) -> dict[str, float | None]:
    """Publish small facts one after the other, with 1 % loss: everybody has the slowest of them."""
    cluster.world.quality = LinkQuality(loss=UPDATE_LOSS)
    took: list[float | None] = []
    for number in range(UPDATES):
        took.append(_told(cluster, rng.choice(cluster.names), str(number).encode()))
        cluster.world.run_for(UPDATE_GAP_S + rng.random() * UPDATE_GAP_S)
    return {
        "slowest_s": None if None in took else max(value for value in took if value is not None)
    }


def _told(cluster: GossipCluster, publisher: str, value: bytes) -> float | None:
    cluster.command(publisher, PublishFact("node:benchmark", value))
    key = FactKey(node_id_of(publisher), "node:benchmark")

    def is_known() -> bool:
        facts = (cluster.view(name).fact(key) for name in cluster.names)
        return all(fact is not None and fact.value == value for fact in facts)

    return _until(cluster, is_known)


SCENES: Final[dict[str, Scene]] = {
    "kill": kill,
    "power": power,
    "starved": starved,
    "tenth": tenth,
    "partition": partition,
    "partitions": partitions,
    "loss": loss,
    "pauses": pauses,
    "update": update,
}


def scenes(sizes: Sequence[int], names: Sequence[str], runs: int) -> list[dict[str, object]]:
    """Run each scene with so many seeds at each size; return how its figures are distributed."""
    found: list[dict[str, object]] = []
    for size in sizes:
        for name in names or SCENES:
            figures: dict[str, list[float | None]] = {}
            for seed in range(runs):
                cluster = large_cluster(size, seed)
                rng = random.Random(f"{name}/{size}/{seed}")
                cluster.world.run_for(2.0 + rng.random())
                for what, value in SCENES[name](cluster, rng).items():
                    figures.setdefault(what, []).append(value)
            told = {what: _distribution(values) for what, values in figures.items()}
            found.append({"scene": name, "size": size, **told})
            print(found[-1], file=sys.stderr, flush=True)
    return found


def _distribution(values: list[float | None]) -> dict[str, float]:
    known = sorted(value for value in values if value is not None)
    told: dict[str, float] = {"runs": len(values), "never": len(values) - len(known)}
    if known:
        told |= {
            "median": round(statistics.median(known), 2),
            "p90": known[max(0, round(0.9 * len(known)) - 1)],
            "p99": known[max(0, round(0.99 * len(known)) - 1)],
            "max": known[-1],
            "sum": round(sum(known), 2),
        }
    return told
