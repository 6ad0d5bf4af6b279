"""How well does placement pack, beside the other schedulers? Prints JSON, and tables on stderr.

`python -m benchmarks.placement [--nodes CSV --pods CSV] [--mix SEED COUNT] [--dlrm CSV]
[--compaction SEEDS] [--speed]`

What is given is measured; `--only` and `--policies` choose among it. Every policy meets the same
tasks in the same order, one at a time, without look-ahead and without moving anything.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.placement.compaction import measure_compaction
from benchmarks.placement.measure import (
    BOUND,
    MIXES,
    Options,
    Report,
    measure_dlrm,
    measure_gpu_mix,
    measure_identical,
    measure_mix,
    measure_openb,
)
from benchmarks.placement.policies import POLICIES
from benchmarks.placement.rounds import measure_rounds
from benchmarks.placement.speed import measure_speed
from benchmarks.placement.table import markdown_table

SECTIONS = ("openb", "rounds", "gpu", "identical", "mix", "dlrm")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.placement", description=__doc__)
    parser.add_argument("--nodes", type=Path, help="openb's node list")
    parser.add_argument("--pods", type=Path, help="openb's pod list")
    parser.add_argument("--mix", nargs=2, type=int, metavar=("SEED", "COUNT"))
    parser.add_argument("--dlrm", type=Path, help="the trace with arrivals and departures")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--variants", nargs="+", choices=MIXES, default=["default"])
    parser.add_argument("--seeds", type=int, default=10, help="runs of each mix on GPU nodes")
    parser.add_argument("--speed", action="store_true", help="how fast the core alone decides")
    parser.add_argument("--compaction", type=int, metavar="SEEDS", help="nodes that moves free")
    parser.add_argument("--repeats", type=int, default=2, help="runs of policies that draw lots")
    parser.add_argument("--write", type=Path, help="write JSON there, and the table beside it")
    return parser.parse_args(arguments)


def measured(asked: argparse.Namespace) -> Report:
    """Return every section that was asked for and for which there is input."""
    options = Options(tuple(asked.policies), asked.repeats, asked.seeds)
    report: Report = {}

    def section(name: str, measure: Callable[[], Report]) -> None:
        start_s = time.perf_counter()
        report.update(measure())
        took_s = time.perf_counter() - start_s
        sys.stderr.write(f"{name}: {took_s:.0f} s\n")

    has_openb = asked.nodes is not None and asked.pods is not None
    if "openb" in asked.only and has_openb:
        section("openb", lambda: measure_openb(asked.nodes, asked.pods, options))
    if "rounds" in asked.only and has_openb:
        section("rounds", lambda: measure_rounds(asked.nodes, asked.pods))
    if "mix" in asked.only and asked.mix:
        section("mix", lambda: measure_mix(asked.mix[0], asked.mix[1], options))
    if "identical" in asked.only and has_openb:
        section("identical", lambda: measure_identical(asked.nodes, asked.pods, options))
    if "dlrm" in asked.only and asked.dlrm is not None:
        section("dlrm", lambda: measure_dlrm(asked.dlrm, options))
    if "gpu" in asked.only and has_openb:
        for name in asked.variants:
            section(name, partial(measure_gpu_mix, asked.nodes, asked.pods, name, options))
    if asked.compaction:
        section("compaction", lambda: measure_compaction(asked.compaction))
    if asked.speed:
        section("speed", measure_speed)
    return report


def about(arguments: list[str]) -> dict[str, str]:
    """Return how, where and when this was measured; of files, the names only."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    words = [Path(word).name if os.sep in word else word for word in arguments]
    return {
        "command": " ".join(["python -m benchmarks.placement", *words]),
        "commit": commit.stdout.strip(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def write(path: Path, sections: Report, origin: dict[str, str]) -> None:
    """Write these sections into the file, and the table of all its sections beside it.

    Sections and policies that are there already and were not measured now stay as they are.
    """
    kept = json.loads(path.read_text()) if path.exists() else {"about": {}, "results": {}}
    for section, policies in sections.items():
        kept["about"][section] = origin
        merged = {**kept["results"].get(section, {}), **policies}
        ordered = [name for name in (BOUND, *POLICIES) if name in merged]
        kept["results"][section] = {name: merged[name] for name in ordered or merged}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    path.with_suffix(".md").write_text(tables(kept["results"]))


def tables(results: Report) -> str:
    """Return the tournament of all policies as a table, and each other section as one."""
    tournament = {name: each for name, each in results.items() if each.keys() & {BOUND, *POLICIES}}
    others = [{name: each} for name, each in results.items() if name not in tournament]
    made = [markdown_table(tournament)] if tournament else []
    return "\n".join([*made, *(markdown_table(each, "what") for each in others)])


def main(arguments: list[str]) -> int:
    """Measure, print, and write where asked."""
    asked = parse(arguments)
    sections = measured(asked)
    if not sections:
        sys.stderr.write(
            "nothing to measure: give --nodes and --pods, --mix, --dlrm, --compaction or --speed\n"
        )
        return 2
    sys.stdout.write(json.dumps({"about": about(arguments), "results": sections}, indent=1) + "\n")
    sys.stderr.write(tables(sections))
    if asked.write is not None:
        write(asked.write, sections, about(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
