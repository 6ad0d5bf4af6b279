"""How fast does a node start containers, beside `docker run`, and what does its daemon cost?

`python -m benchmarks.node` prints JSON. Needs root: lab hosts with Docker Engines of their own.

- *start*: so many containers from an assignment to RUNNING, by the agent; and the same ones by
  `docker run -d`, eight at a time, on the same engine in the same run, by turns.
- *daemon*: a whole `dray node run` with 0 and more and more containers: from `dray up` to all
  running (beside `docker run` in the same run), CPU while nothing happens (share of one core),
  memory of all its processes (PSS), and, after SIGKILL, from a new process' start to knowing all;
  what users of it wait for: `dray exec` to the prompt, `dray cp` of 50 MiB both ways.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from benchmarks.node import daemon, start
from benchmarks.told import about
from dray.log import LogLevel, configure


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.node")
    parser.add_argument("--containers", type=int, default=100, help="of a turn; 0: leave it out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--daemon", type=int, nargs="*", default=[20, 500], metavar="CONTAINERS")
    parser.add_argument("--idle-s", type=float, default=30.0)
    arguments = parser.parse_args()
    configure(level=LogLevel.ERROR)
    result: dict[str, Any] = about("node")
    if arguments.containers:
        result["start"] = start.measure(arguments.containers, arguments.repeats)
    if arguments.daemon:
        result["daemon"] = daemon.measure(arguments.daemon, arguments.idle_s)
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
