"""What happens to a cluster of daemons, and how soon do they know? One function a scenario."""

from __future__ import annotations

import dataclasses
import random
import signal
import statistics
from collections.abc import Callable
from functools import partial

from benchmarks.gossip.daemons import Cluster
from benchmarks.gossip.netlab import starved

__all__ = ["SCENARIOS", "Figures", "Plan", "Scenario"]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything: how often deaths and partitions, how many updates, and for how long.

    Attributes:
        repeats: Deaths and partitions.
        updates: Told one after the other.
        parted_s: How long a partition lasts at least; it ends when every pair has noticed.
        loss_s: How long packets are lost.
        pause_s: How long each kind of pause and starvation goes on.
        steady_s: How long nothing happens.
    """

    repeats: int = 6
    updates: int = 200
    parted_s: float = 60.0
    loss_s: float = 110.0
    pause_s: float = 90.0
    steady_s: float = 60.0


Figures = dict[str, object]
Scenario = Callable[[Cluster, random.Random, Plan], Figures]

GONE = {"dead", "left"}
LIMIT_S = 90.0
LOSS_PERCENT = 25
# Seconds stopped, seconds running in between.
PAUSES = ((2.0, 0.2), (4.0, 1.0), (8.0, 0.2), (12.0, 1.0))
# Milliseconds of processor time, of so many, for the starved daemons and a process that only burns.
STARVED = ((1, 100), (2, 1_000))


def spread(values: list[float | None]) -> Figures:
    """Return median, extremes and how many there are; None: it never came."""
    known = [value for value in values if value is not None]
    if not known:
        return {"runs": len(values), "never": len(values)}
    return {
        "median": round(statistics.median(known), 2),
        "min": round(min(known), 2),
        "max": round(max(known), 2),
        "runs": len(values),
        "never": len(values) - len(known),
    }


def kill(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Kill one daemon: when the first and when all of the others know; then start it again."""
    return _deaths(cluster, rng, plan, 1, is_silent=False)


def kill_tenth(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Kill a tenth of the daemons at once."""
    count = max(2, cluster.lab.size // 10)
    return _deaths(cluster, rng, plan, count, is_silent=False)


def silence(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Drop everything to and from one machine, as when its power is cut."""
    return _deaths(cluster, rng, plan, 1, is_silent=True)


def _deaths(
    cluster: Cluster, rng: random.Random, plan: Plan, count: int, *, is_silent: bool
) -> Figures:
    first: list[float | None] = []
    last: list[float | None] = []
    back: list[float | None] = []
    for _ in range(plan.repeats):
        cluster.read(rng.random() * 2)
        victims = rng.sample(range(1, cluster.lab.size), count)
        others = [index for index in cluster.running if index not in victims]
        if is_silent:
            cluster.lab.silence(victims[0])
        else:
            for index in victims:
                cluster.end(index)
        names = {f"n{index}" for index in victims}
        cluster.heard.clear()

        def is_known(names: set[str] = names, others: list[int] = others) -> bool:
            said = (h for h in cluster.heard if h.about in names and h.what in GONE)
            return any(h.observer in others for h in said)

        found_s = cluster.until(is_known, LIMIT_S)
        more_s = cluster.until(partial(cluster.all_hold, others, victims, GONE), LIMIT_S)
        first.append(found_s)
        last.append(None if found_s is None or more_s is None else found_s + more_s)
        if is_silent:
            cluster.lab.rules()
        else:
            for index in victims:
                cluster.start(index)
        everybody = cluster.running
        back.append(
            cluster.until(partial(cluster.all_hold, everybody, everybody, {"alive"}), LIMIT_S)
        )
        cluster.read(2.0)
    return {"first_s": spread(first), "all_s": spread(last), "back_s": spread(back)}


def loss(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Lose a quarter of all packets for two minutes; everybody lives."""
    cluster.heard.clear()
    cluster.lab.lose(LOSS_PERCENT)
    cluster.read(plan.loss_s)
    cluster.lab.rules()
    return {"percent": LOSS_PERCENT, "seconds": plan.loss_s, **_false_alarms(cluster)}


def _victims(cluster: Cluster) -> list[int]:
    """Return whom pauses and starvation befall: four daemons, or one in three."""
    return list(range(1, 1 + min(4, max(1, cluster.lab.size // 3))))


def _settle(cluster: Cluster) -> None:
    cluster.until(lambda: cluster.all_hold(cluster.running, cluster.running, {"alive"}), LIMIT_S)
    cluster.read(3.0)


def pauses(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Stop four daemons again and again, for 2, 4, 8 and 12 s at a time."""
    stopped = _victims(cluster)
    found: Figures = {"stopped": len(stopped), "seconds": plan.pause_s}
    for pause_s, run_s in PAUSES:
        cluster.heard.clear()
        for _ in range(round(plan.pause_s / (pause_s + run_s))):
            for index in stopped:
                cluster.signal(index, signal.SIGSTOP)
            cluster.read(pause_s)
            for index in stopped:
                cluster.signal(index, signal.SIGCONT)
            cluster.read(run_s)
        found[f"{pause_s:g}_s_then_{run_s:g}_s"] = _false_alarms(cluster)
        _settle(cluster)
    return found


def starvation(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Give four daemons, beside one process that only burns, a sliver of a processor together."""
    victims = _victims(cluster)
    found: Figures = {"starved": len(victims), "seconds": plan.pause_s}
    for run_ms, of_ms in STARVED:
        cluster.heard.clear()
        with starved([cluster.pid(index) for index in victims], run_ms, of_ms):
            cluster.read(plan.pause_s)
        found[f"{run_ms}_ms_of_{of_ms}_ms"] = _false_alarms(cluster)
        _settle(cluster)
    return found


def _false_alarms(cluster: Cluster) -> Figures:
    counted = dict.fromkeys(("suspect", "stalled", "dead"), 0)
    for heard in cluster.heard:
        if heard.what in counted:
            counted[heard.what] += 1
    members = {heard.about for heard in cluster.heard if heard.what == "dead"}
    flaps = sum(heard.what == "alive" for heard in cluster.heard)
    return {**counted, "members_dead": len(members), "back_alive": flaps}


def partition(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Cut the halves apart for a while, then mend it."""
    half = (cluster.lab.size + 1) // 2
    sides = list(range(half)), list(range(half, cluster.lab.size))
    parted: list[float | None] = []
    healed: list[float | None] = []
    for _ in range(plan.repeats):
        cluster.lab.part()
        took_s = cluster.until(
            lambda: (
                cluster.all_hold(sides[0], sides[1], GONE)
                and cluster.all_hold(sides[1], sides[0], GONE)
            ),
            LIMIT_S,
        )
        parted.append(took_s)
        cluster.read(max(0.0, plan.parted_s - (took_s or LIMIT_S)))
        cluster.lab.rules()
        everybody = cluster.running
        healed.append(
            cluster.until(partial(cluster.all_hold, everybody, everybody, {"alive"}), LIMIT_S)
        )
        cluster.read(3.0)
    return {"all_pairs_s": spread(parted), "healed_s": spread(healed)}


def update(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Spread small updates one after the other: from the publisher's own word to the last one's."""
    took: list[float | None] = []
    for number in range(plan.updates):
        value = f"u{number}"
        cluster.heard.clear()
        cluster.publish(rng.randrange(cluster.lab.size), value)

        def told(value: str = value) -> dict[int, float]:
            return {
                h.observer: h.at_s for h in cluster.heard if (h.what, h.about) == ("fact", value)
            }

        done_s = cluster.until(lambda t=told: len(t()) == cluster.lab.size, LIMIT_S)  # type: ignore[misc]
        times = sorted(told().values())
        took.append(None if done_s is None else times[-1] - times[0])
        cluster.read(0.2)
    known = sorted(value for value in took if value is not None)
    found = spread(took)
    if known:
        found["p99"] = round(known[max(0, round(0.99 * len(known)) - 1)], 2)
    return {"last_s": found}


def steady(cluster: Cluster, rng: random.Random, plan: Plan) -> Figures:
    """Let nothing happen: what a daemon costs."""
    cluster.read(5.0)
    before, cpu_s = cluster.lab.traffic(), cluster.cpu_s()
    cluster.read(plan.steady_s)
    after, cpu_s = cluster.lab.traffic(), cluster.cpu_s() - cpu_s
    pairs = list(zip(before, after, strict=True))
    size = cluster.lab.size
    sent_bytes = sum(b.sent_bytes - a.sent_bytes for a, b in pairs)
    sent = sum(b.sent_packets - a.sent_packets for a, b in pairs)
    received_bytes = sum(b.received_bytes - a.received_bytes for a, b in pairs)
    received = sum(b.received_packets - a.received_packets for a, b in pairs)
    return {
        "sent_bytes_per_s": round(sent_bytes / size / plan.steady_s, 1),
        "sent_packets_per_s": round(sent / size / plan.steady_s, 2),
        "received_bytes_per_s": round(received_bytes / size / plan.steady_s, 1),
        "received_packets_per_s": round(received / size / plan.steady_s, 2),
        "cpu_percent": round(100.0 * cpu_s / size / plan.steady_s, 3),
        "anonymous_mib": round(cluster.memory_bytes() / 2**20, 1),
    }


SCENARIOS: dict[str, Scenario] = {
    "steady": steady,
    "kill": kill,
    "kill_tenth": kill_tenth,
    "silence": silence,
    "update": update,
    "loss": loss,
    "pauses": pauses,
    "starvation": starvation,
    "partition": partition,
}
