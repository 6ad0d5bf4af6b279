"""How fast and how right is gossip? Prints JSON.

    python -m benchmarks.gossip lab [--sizes N…] [--repeats 6] [--only NAME…] [--serf PATH]
    python -m benchmarks.gossip worlds [--seeds 10000]
    python -m benchmarks.gossip large [--nodes 1000]
    python -m benchmarks.gossip thread

`lab` (as root) runs the product's daemon and Serf one after the other in the same namespaces, size
by size: run it on a quiet machine. Without Serf it measures ours alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys

from benchmarks.gossip.daemons import Dray, Kind, Serf, cluster
from benchmarks.gossip.netlab import netlab
from benchmarks.gossip.scenarios import SCENARIOS
from benchmarks.gossip.simulated import large, worlds
from benchmarks.gossip.thread import lateness

SIZES = (3, 8, 32, 64)


def lab(sizes: list[int], repeats: int, only: list[str], serf: str | None) -> list[object]:
    """Run scenarios at each size with each kind of daemon; return the figures."""
    found: list[object] = []
    kinds: list[Kind] = [Dray(), *([Serf(serf)] if serf else [])]
    for size in sizes:
        with netlab(size) as where:
            for kind in kinds:
                with cluster(kind, where) as running:
                    for name in only or SCENARIOS:
                        rng = random.Random(f"{size}/{name}")
                        figures = SCENARIOS[name](running, rng, repeats)
                        found.append({"kind": kind.name, "size": size, "what": name, **figures})
                        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("lab", "worlds", "large", "thread"))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=sorted(SCENARIOS), default=[])
    parser.add_argument("--serf", default=shutil.which("serf"))
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=1_000)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is taken away
    figures: object
    if given.what == "lab":
        figures = lab(list(given.sizes), given.repeats, given.only, given.serf)
    elif given.what == "worlds":
        figures = worlds(given.seeds)
    elif given.what == "large":
        figures = large(given.nodes)
    else:
        figures = lateness()
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    about = {
        "command": " ".join(["python -m benchmarks.gossip", *sys.argv[1:]]),
        "commit": commit,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
    }
    json.dump({**about, given.what: figures}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
