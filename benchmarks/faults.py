"""Does a cluster do what the table of conditions says, fault by fault? JSON.

`python -m benchmarks.faults [--only WORD…] [--away-s N] [--skip-small]` (as root) acts out faults
on five hosts of the lab (etcd and schedulers on three of them) with 20 replicas, then some of them
on clusters of two and three hosts. Every step is looked at through the engines, the nodes' DNS and
the command. Ends with 1 when a step did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import docker.errors
import requests

from benchmarks.told import about
from tests.e2e.acts import ACTS, SMALL_ACTS, all_that_decides_is_away
from tests.e2e.cluster import Failed
from tests.e2e.scene import Scene, Step, as_plain, scene_on
from tests.lab.errors import LabError

HOSTS: Final = 5
CONTROL: Final = 3
REPLICAS: Final = 20
# How an act may end when the cluster is not what it expects; anything else is a mistake in an act.
FAILURES: Final = (
    AssertionError,
    Failed,
    LabError,
    OSError,
    subprocess.SubprocessError,
    docker.errors.DockerException,
    requests.exceptions.RequestException,
)
SMALL_REPLICAS: Final = 6


def run_act(scene: Scene, name: str, act: Callable[[Scene], None]) -> dict[str, Any]:
    """Act one fault out, and bring the cluster back to what it was."""
    print(f"- {name}", file=sys.stderr, flush=True)
    scene.steps = []
    began_s = time.monotonic()
    try:
        scene.spread()
        act(scene)
        scene.settle()
    except FAILURES as error:  # the other faults are still worth acting out
        scene.steps.append(Step("it could be acted out", holds=False, note=str(error)[:500]))
        print(f"  FAIL {error}"[:500], file=sys.stderr, flush=True)
        with contextlib.suppress(*FAILURES):
            scene.settle()
    return {
        "fault": name,
        "holds": all(step.holds for step in scene.steps),
        "took_s": round(time.monotonic() - began_s, 1),
        "steps": as_plain(scene.steps),
    }


def on_five(only: list[str], away_s: float) -> list[dict[str, Any]]:
    """Act out what the table says on five hosts."""
    acts = dict(ACTS)
    acts["all_that_decides_is_away"] = lambda scene: all_that_decides_is_away(scene, away_s)
    wanted = [name for name in acts if not only or any(word in name for word in only)]
    if not wanted:
        return []
    found: list[dict[str, Any]] = []
    with (
        contextlib.suppress(KeyboardInterrupt),  # what was seen until then counts
        scene_on(HOSTS, CONTROL, CONTROL, REPLICAS, "five hosts") as scene,
    ):
        found.extend(run_act(scene, name, acts[name]) for name in wanted)
    return found


def on_few(only: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Act out faults on small clusters."""
    found: dict[str, list[dict[str, Any]]] = {}
    for label, (hosts, control, acts) in SMALL_ACTS.items():
        wanted = [act for act in acts if not only or any(w in act.__name__ for w in only)]
        if wanted:
            with scene_on(hosts, control, control, SMALL_REPLICAS, label) as scene:
                found[label] = [run_act(scene, act.__name__, act) for act in wanted]
    return found


def main() -> int:
    """Act out, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="parts of names")
    parser.add_argument("--away-s", type=float, default=300.0, help="of all that decides")
    parser.add_argument("--skip-small", action="store_true")
    parser.add_argument("--skip-five", action="store_true")
    given = parser.parse_args()
    told = about("faults")
    five = [] if given.skip_five else on_five(given.only, given.away_s)
    few = {} if given.skip_small else on_few(given.only)
    print(json.dumps({**told, "five hosts": five, **few}, indent=2, ensure_ascii=False))
    every = [*five, *(each for acts in few.values() for each in acts)]
    return 0 if every and all(each["holds"] for each in every) else 1


if __name__ == "__main__":
    sys.exit(main())
