"""What happens to a cluster of daemons, and how soon do they know? One function a scenario."""

from __future__ import annotations

import random
import signal
import statistics
from collections.abc import Callable
from functools import partial

from benchmarks.gossip.daemons import Cluster

__all__ = ["SCENARIOS", "Figures", "Scenario"]

Figures = dict[str, object]
Scenario = Callable[[Cluster, random.Random, int], Figures]

GONE = {"dead", "left"}
LIMIT_S = 90.0
LOSS_PERCENT = 25
LOSS_S = 110.0
PAUSE_S = 90.0
PARTED_S = 60.0
STEADY_S = 60.0
UPDATES = 40


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


def kill(cluster: Cluster, rng: random.Random, repeats: int) -> Figures:
    """Kill one daemon: when the first and when all of the others know; then start it again."""
    return _deaths(cluster, rng, repeats, 1, is_silent=False)


def kill_tenth(cluster: Cluster, rng: random.Random, repeats: int) -> Figures:
    """Kill a tenth of the daemons at once."""
    count = max(2, cluster.lab.size // 10)
    return _deaths(cluster, rng, repeats, count, is_silent=False)


def silence(cluster: Cluster, rng: random.Random, repeats: int) -> Figures:
    """Drop everything to and from one machine, as when its power is cut."""
    return _deaths(cluster, rng, repeats, 1, is_silent=True)


def _deaths(
    cluster: Cluster, rng: random.Random, repeats: int, count: int, *, is_silent: bool
) -> Figures:
    first: list[float | None] = []
    last: list[float | None] = []
    back: list[float | None] = []
    for _ in range(repeats):
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


def loss(cluster: Cluster, rng: random.Random, repeats: int) -> Figures:
    """Lose a quarter of all packets for two minutes; everybody lives."""
    cluster.heard.clear()
    cluster.lab.lose(LOSS_PERCENT)
    cluster.read(LOSS_S)
    cluster.lab.rules()
    return {"percent": LOSS_PERCENT, "seconds": LOSS_S, **_false_alarms(cluster)}


def pauses(cluster: Cluster, rng: random.Random, repeats: int) -> Figures:
    """Stop four daemons (or one in three) again and again, for 4 s and then for 12 s at a time."""
    stopped = list(range(1, 1 + min(4, max(1, cluster.lab.size // 3))))
    found: Figures = {}
    for pause_s in (4.0, 12.0):
        cluster.heard.clear()
        for _ in range(round(PAUSE_S / (pause_s + 1.0))):
            for index in stopped:
                cluster.signal(index, signal.SIGSTOP)
            cluster.read(pause_s)
            for index in stopped:
                cluster.signal(index, signal.SIGCONT)
            cluster.read(1.0)
        found[f"{pause_s:g}_s"] = _false_alarms(cluster)
        cluster.until(
            lambda: cluster.all_hold(cluster.running, cluster.running, {"alive"}), LIMIT_S
        )
    return found


def _false_alarms(cluster: Cluster) -> Figures:
    counted = dict.fromkeys(("suspect", "stalled", "dead"), 0)
    for heard in cluster.heard:
        if heard.what in counted:
            counted[heard.what] += 1
    members = {heard.about for heard in cluster.heard if heard.what == "dead"}
    return {**counted, "members_dead": len(members)}


def partition(cluster: Cluster, rng: random.Random, repeats: int) -> Figures:
    """Cut the halves apart for a minute, then mend it."""
    half = (cluster.lab.size + 1) // 2
    sides = list(range(half)), list(range(half, cluster.lab.size))
    parted: list[float | None] = []
    healed: list[float | None] = []
    for _ in range(repeats):
        cluster.lab.part()
        took_s = cluster.until(
            lambda: (
                cluster.all_hold(sides[0], sides[1], GONE)
                and cluster.all_hold(sides[1], sides[0], GONE)
            ),
            LIMIT_S,
        )
        parted.append(took_s)
        cluster.read(max(0.0, PARTED_S - (took_s or LIMIT_S)))
        cluster.lab.rules()
        everybody = cluster.running
        healed.append(
            cluster.until(partial(cluster.all_hold, everybody, everybody, {"alive"}), LIMIT_S)
        )
        cluster.read(3.0)
    return {"all_pairs_s": spread(parted), "healed_s": spread(healed)}


def update(cluster: Cluster, rng: random.Random, repeats: int) -> Figures:
    """Spread small updates one after the other: from the publisher's own word to the last one's."""
    took: list[float | None] = []
    for number in range(UPDATES):
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


def steady(cluster: Cluster, rng: random.Random, repeats: int) -> Figures:
    """Let nothing happen: what a daemon costs."""
    cluster.read(5.0)
    before, cpu_s = cluster.lab.traffic(), cluster.cpu_s()
    cluster.read(STEADY_S)
    after, cpu_s = cluster.lab.traffic(), cluster.cpu_s() - cpu_s
    pairs = list(zip(before, after, strict=True))
    size = cluster.lab.size
    sent_bytes = sum(b.sent_bytes - a.sent_bytes for a, b in pairs)
    sent = sum(b.sent_packets - a.sent_packets for a, b in pairs)
    return {
        "bytes_per_s": round(sent_bytes / size / STEADY_S, 1),
        "packets_per_s": round(sent / size / STEADY_S, 2),
        "cpu_percent": round(100.0 * cpu_s / size / STEADY_S, 3),
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
    "partition": partition,
}
