"""How fast and how right is gossip? Prints JSON.

    python -m benchmarks.gossip lab [--sizes N…] [--repeats 6] [--only NAME…] [--kinds dray serf]
    python -m benchmarks.gossip worlds [--seeds 10000] [--first 0]
    python -m benchmarks.gossip large [--nodes 1000] [--parts memory rest join changes]
    python -m benchmarks.gossip scenes [--sizes N…] [--scenes NAME…] [--runs 20]
    python -m benchmarks.gossip fuzz [--inputs 1000000] [--first 0]
    python -m benchmarks.gossip thread
    python -m benchmarks.gossip report FILE… [--table FILE]

`lab` (as root) runs the product's daemon and Serf one after the other in the same namespaces, size
by size: run it on a quiet machine. Without Serf it measures ours alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

from benchmarks.gossip.daemons import Dray, Kind, Serf, cluster
from benchmarks.gossip.fuzz import fuzz
from benchmarks.gossip.netlab import netlab
from benchmarks.gossip.report import merged, table
from benchmarks.gossip.scenarios import SCENARIOS, Plan
from benchmarks.gossip.scenes import SCENES, scenes
from benchmarks.gossip.simulated import PARTS, large, worlds
from benchmarks.gossip.thread import lateness
from benchmarks.told import about

SIZES = (3, 8, 32, 64)
MEASURED = ("lab", "worlds", "large", "scenes", "fuzz", "thread")


def lab(sizes: list[int], kinds: list[Kind], only: list[str], plan: Plan) -> list[object]:
    """Run scenarios at each size with each kind of daemon; return the figures.

    When it is ended before, those are returned that there are.
    """
    found: list[object] = []
    with contextlib.suppress(SystemExit):
        _run(sizes, kinds, only, plan, found)
    return found


def _run(
    sizes: list[int], kinds: list[Kind], only: list[str], plan: Plan, found: list[object]
) -> None:
    for size in sizes:
        with netlab(size) as where:
            for kind in kinds:
                with cluster(kind, where) as running:
                    for name in only or SCENARIOS:
                        rng = random.Random(f"{size}/{name}")
                        figures = SCENARIOS[name](running, rng, plan)
                        figures["load"] = round(os.getloadavg()[0], 1)
                        found.append({"kind": kind.name, "size": size, "what": name, **figures})
                        print(json.dumps(found[-1]), file=sys.stderr, flush=True)


def _kinds(names: list[str]) -> list[Kind]:
    """Return the kinds of daemon to run; Serf only where it is installed (`apt install serf`)."""
    serf = shutil.which("serf")
    if "serf" in names and serf is None:
        print("there is no serf on PATH: ours alone", file=sys.stderr)
    made: list[Kind] = [Dray()] if "dray" in names else []
    return [*made, *([Serf(serf)] if serf and "serf" in names else [])]


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=(*MEASURED, "report"))
    parser.add_argument("files", type=Path, nargs="*", help="for `report`: outputs of the others")
    parser.add_argument("--table", type=Path, help="for `report`: where the table goes")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--only", nargs="+", choices=sorted(SCENARIOS), default=[])
    parser.add_argument("--kinds", nargs="+", choices=("dray", "serf"), default=("dray", "serf"))
    for field in dataclasses.fields(Plan):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(field.default), default=field.default)
    parser.add_argument("--scenes", nargs="+", choices=sorted(SCENES), default=[])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=1_000)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is taken away
    if given.what == "report":
        report = merged(given.files)
        if given.table is not None:
            given.table.write_text(table(report))
        json.dump(report, sys.stdout, indent=1)
    else:
        json.dump({**about("gossip"), given.what: _measured(given)}, sys.stdout, indent=1)
    print()


def _measured(given: argparse.Namespace) -> object:
    """Return the figures that were asked for."""
    match given.what:
        case "lab":
            names = [field.name for field in dataclasses.fields(Plan)]
            plan = Plan(**{name: getattr(given, name) for name in names})
            return lab(list(given.sizes), _kinds(given.kinds), given.only, plan)
        case "worlds":
            return worlds(given.first, given.seeds)
        case "scenes":
            return scenes(given.sizes, given.scenes, given.runs)
        case "fuzz":
            return fuzz(given.inputs, given.first)
        case "large":
            return large(given.nodes, given.parts)
        case _:
            return lateness()


if __name__ == "__main__":
    main()
