"""How long does the command line take to start? Prints JSON.

`python -m benchmarks.cli_start [--runs N]`

Each command runs in fresh processes, beside the bare interpreter in the same rounds, so that the
machine's noise falls on all alike. `over_interpreter_ms` is what dray itself costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Final

from benchmarks.told import about

HELP_BUDGET_MS: Final = 150.0
COMMANDS: Final = {
    "interpreter": ["-c", "pass"],
    "argparse": ["-c", "import argparse"],
    "help": ["-m", "cli", "--help"],
    "verb help": ["-m", "cli", "config", "--help"],
    "version": ["-m", "cli", "version"],
    "version json": ["-m", "cli", "version", "--format", "json"],
}


def run_ms(arguments: list[str]) -> float:
    """Return how long one fresh process took."""
    start_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start_s) * 1000


def measure(runs: int) -> dict[str, list[float]]:
    """Return the times of each command; the first round warms the caches and does not count."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(runs + 1):
        for name, arguments in COMMANDS.items():
            took_ms = run_ms(arguments)
            if number:
                times[name].append(took_ms)
    return times


def report(times: dict[str, list[float]]) -> dict[str, object]:
    """Return medians, extremes and what each costs beside the bare interpreter."""
    base_ms = statistics.median(times["interpreter"])
    shown = {
        name: {
            "median_ms": round(statistics.median(each), 1),
            "best_ms": round(min(each), 1),
            "worst_ms": round(max(each), 1),
            "over_interpreter_ms": round(statistics.median(each) - base_ms, 1),
        }
        for name, each in times.items()
    }
    return {
        **about("cli_start"),
        "runs": len(times["help"]),
        "commands": shown,
        "help_budget_ms": HELP_BUDGET_MS,
        "help_is_within_budget": statistics.median(times["help"]) < HELP_BUDGET_MS,
    }


def main() -> int:
    """Measure, print, and fail when the help is over its budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=21, help="processes of each command")
    result = report(measure(parser.parse_args().runs))
    print(json.dumps(result, indent=2))
    return 0 if result["help_is_within_budget"] else 1


if __name__ == "__main__":
    sys.exit(main())
