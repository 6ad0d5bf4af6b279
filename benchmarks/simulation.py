"""Does the control plane keep its promises in thousands of worlds, and how long does a world take?

`python -m benchmarks.simulation [--seeds 10000] [--first 0] [--jobs 2] [--runs FILE]` runs the
worlds of `tests/simulation/scheduler_world.py` one after the other, in so many processes. Prints
JSON: how many were run, which were broken and how, the longest time that a slot was without a task
though it could have had one, and the CPU time of a world. A broken one is run again alone with
`./dev.sh test --layer simulation -- --seed N -k scheduler_seeds`. `--runs` keeps what each world
came to, a line each, so that a long run may be made in parts: those that are in the file are not
run again, and all of them are reported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.simulation.scheduler_gaps import MISSING_MAX_S
from tests.simulation.scheduler_world import FAULTS_UNTIL_S, world_of

SHOWN_MAX: Final = 20  # broken seeds that are printed with what is broken
SENTENCE_LENGTH_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Run:
    """One world.

    Attributes:
        seed: Its seed.
        broken: What was broken in it.
        cpu_s: Its CPU time.
        missing_s: Longest time that a slot was without a task though it could have had one.
        commits: Transactions of schedulers that were applied.
        displaced: Tasks that were told to make room for a higher priority.
    """

    seed: int
    broken: tuple[str, ...]
    cpu_s: float
    missing_s: float
    commits: int
    displaced: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worlds; return 1 if any was broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--runs", type=Path, help="where each world's outcome is kept")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    asked = parser.parse_args(arguments)
    start_s = time.monotonic()
    runs = _kept(asked.runs)
    known = {run.seed for run in runs}
    seeds = [each for each in range(asked.first, asked.first + asked.seeds) if each not in known]
    with multiprocessing.Pool(asked.jobs) as pool:
        for run in pool.imap_unordered(run_seed, seeds, chunksize=4):
            runs.append(run)
            _keep(asked.runs, run)
    broken = sorted((run for run in runs if run.broken), key=lambda run: run.seed)
    cpu_s = [run.cpu_s for run in runs]
    report = {
        "seeds": len(runs),
        "broken": len(broken),
        "worlds": [asdict(run) for run in broken[:SHOWN_MAX]],
        "missing_s_max": round(max(run.missing_s for run in runs), 1),
        "missing_s_bound": MISSING_MAX_S,
        "commits": sum(run.commits for run in runs),
        "displaced": sum(run.displaced for run in runs),
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
    world = world_of(seed)
    shown = tuple(sentence[:SENTENCE_LENGTH_MAX] for sentence in world.broken[:SHOWN_MAX])
    cpu_s, checker = round(time.process_time() - start_s, 3), world.checker
    missing_s = round(checker.gaps.longest_s, 1)
    return Run(seed, shown, cpu_s, missing_s, checker.commits, checker.displaced)


def _kept(path: Path | None) -> list[Run]:
    """Return the worlds that were run before."""
    if path is None or not path.exists():
        return []
    return [Run(**json.loads(line)) for line in path.read_text().splitlines()]


def _keep(path: Path | None, run: Run) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
