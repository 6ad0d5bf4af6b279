"""How long does one redraw of `dray top` take with 2,000 tasks on 100 nodes?

`python -m benchmarks.top [--tasks N] [--nodes N] [--runs N]` prints JSON; no cluster is needed.

- *redraw*: sorting, laying out and writing one screen of 120 × 50 to a terminal's stream;
- *fold*: taking a new state of every task, as after each of the nodes' reports.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from typing import Final

from rich.console import Console

from benchmarks.told import about
from cli.topscreen import screen
from cli.topview import TopState
from dray.model import (
    AttemptReport,
    AttemptState,
    Health,
    NodeCapacity,
    NodeCondition,
    NodeInfo,
    NodeRecord,
    NodeUsage,
    Platform,
    TaskUsage,
)
from dray.views import Node, ObjectChange, SlotState, Task
from tests.builders import CLUSTER_ID, GIB, a_slot, node_id, task_id

COLUMNS: Final = 120
LINES: Final = 50
REDRAW_BUDGET_MS: Final = 100.0
NOW_S: Final = 1_700_000_000.0


def a_node(number: int) -> Node:
    """Return a node of eight CPUs."""
    name = f"n{number}"
    record = NodeRecord(node_id(number), CLUSTER_ID, name, f"10.192.{number * 2 % 256}.0/23")
    info = NodeInfo(
        node_id(number),
        name,
        1,
        "boot",
        "0.1.0",
        "192.0.2.1",
        7401,
        Platform(),
        "20.10",
        NodeCapacity(8000, 32 * GIB),
    )
    usage = NodeUsage(37 * number % 8000, GIB)
    return Node(record, NodeCondition.READY, info=info, usage=usage, tasks=20)


def a_task(number: int, nodes: int, turn: int) -> Task:
    """Return a task that runs; what it uses differs from turn to turn."""
    used = TaskUsage(task_id(number), (number * 7919 + turn * 31) % 900, GIB)
    observed = AttemptReport(
        task_id(number), 1, AttemptState.RUNNING, Health.HEALTHY, since_unix_s=NOW_S - number
    )
    return Task(
        a_slot(number),
        SlotState.RUNNING,
        task_id(number),
        node_id(number % nodes + 1),
        f"n{number % nodes + 1}",
        image="nginx",
        observed=observed,
        usage=used,
    )


def timed_ms(runs: int, act: Callable[[int], None]) -> list[float]:
    """Return how long each call took; the first warms up and does not count."""
    found = []
    for turn in range(runs + 1):
        began_s = time.perf_counter()
        act(turn)
        found.append((time.perf_counter() - began_s) * 1000)
    return found[1:]


def main() -> int:
    """Measure, print, and fail when the redraw is over its budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--runs", type=int, default=31)
    given = parser.parse_args()
    state = TopState()
    state.is_known = True
    state.fold(ObjectChange(node=a_node(number + 1)) for number in range(given.nodes))
    turns = [
        [ObjectChange(task=a_task(number + 1, given.nodes, turn)) for number in range(given.tasks)]
        for turn in range(2)
    ]
    state.fold(turns[0])
    console = Console(
        file=io.StringIO(), force_terminal=True, width=COLUMNS, height=LINES, color_system="256"
    )
    times = {
        "fold_ms": timed_ms(given.runs, lambda turn: state.fold(turns[turn % 2])),
        "redraw_ms": timed_ms(
            given.runs,
            lambda _: console.print(screen(state, lines=LINES, now_s=NOW_S, has_keys=True)),
        ),
    }
    shown = {
        name: {"median": round(statistics.median(each), 2), "worst": round(max(each), 2)}
        for name, each in times.items()
    }
    result = {**about("top"), "tasks": given.tasks, "nodes": given.nodes, **shown}
    print(json.dumps(result, indent=2))
    return 0 if statistics.median(times["redraw_ms"]) <= REDRAW_BUDGET_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
