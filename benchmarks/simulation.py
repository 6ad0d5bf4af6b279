"""Does the control plane keep its promises in thousands of worlds, and how long does a world take?

`python -m benchmarks.simulation [--seeds 10000] [--first 0] [--jobs 2]` runs the worlds of
`tests/simulation/scheduler_world.py` one after the other, in so many processes. Prints JSON: how
many were run, which were broken and how, and the CPU time of one. A broken one is run again alone
with `./dev.sh test --layer simulation -- --seed N -k scheduler_seeds`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from tests.simulation.scheduler_world import FAULTS_UNTIL_S, broken_in

SHOWN_MAX: Final = 20  # broken seeds that are printed with what is broken
SENTENCE_LENGTH_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Run:
    """One world: its seed, what was broken in it, and its CPU time."""

    seed: int
    broken: tuple[str, ...]
    cpu_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worlds; return 1 if any was broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    asked = parser.parse_args(arguments)
    seeds = range(asked.first, asked.first + asked.seeds)
    start_s = time.monotonic()
    with multiprocessing.Pool(asked.jobs) as pool:
        runs = list(pool.imap_unordered(run_seed, seeds, chunksize=4))
    broken = sorted((run for run in runs if run.broken), key=lambda run: run.seed)
    cpu_s = [run.cpu_s for run in runs]
    report = {
        "seeds": len(runs),
        "broken": len(broken),
        "worlds": [asdict(run) for run in broken[:SHOWN_MAX]],
        "cpu_s_median": round(statistics.median(cpu_s), 3),
        "cpu_s_max": round(max(cpu_s), 3),
        "virtual_s_with_faults": FAULTS_UNTIL_S,
        "duration_s": round(time.monotonic() - start_s, 1),
        "jobs": asked.jobs,
    }
    print(json.dumps(report, indent=2))
    return 1 if broken else 0


def run_seed(seed: int) -> Run:
    """Run one world."""
    start_s = time.process_time()
    broken, _ = broken_in(seed)
    shown = tuple(sentence[:SENTENCE_LENGTH_MAX] for sentence in broken[:SHOWN_MAX])
    return Run(seed, shown, round(time.process_time() - start_s, 3))


if __name__ == "__main__":
    raise SystemExit(main())
