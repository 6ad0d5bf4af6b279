"""Does a cluster do what the table of conditions says, fault by fault? JSON.

`python -m benchmarks.faults [--only WORD…] [--on LABEL] [--away-s N] [--into FILE]` (as root) acts
out faults on five hosts of the lab (etcd and schedulers on three of them) with 20 replicas, then
some of them on clusters of two and three hosts. Every step is looked at through the engines, the
nodes' DNS and the command. Each row says its own commit, day and load; with `--into` it replaces
the row of its fault in a file of results as soon as it is known, so that the table may be acted out
in several sittings. Ends with 1 when a step did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import docker.errors
import requests

from benchmarks.told import about
from tests.e2e.acts import ACTS, SMALL_ACTS, all_that_decides_is_away
from tests.e2e.cluster import Failed
from tests.e2e.scene import Scene, Step, as_plain, scene_on
from tests.lab.errors import LabError


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """A cluster: its name in the results, hosts, those with scheduler and etcd, and replicas."""

    label: str
    hosts: int
    control: int
    replicas: int


Acts = Mapping[str, Callable[[Scene], None]]
FIVE: Final = Setting("five hosts", 5, 3, 20)
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


Row = dict[str, Any]


def run_act(scene: Scene, label: str, name: str, act: Callable[[Scene], None]) -> Row:
    """Act one fault out, and bring the cluster back to what it was."""
    print(f"- {name}", file=sys.stderr, flush=True)
    told = about("faults")
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
        "on": label,
        "holds": all(step.holds for step in scene.steps),
        "took_s": round(time.monotonic() - began_s, 1),
        **{key: told[key] for key in ("commit", "date", "load")},
        "steps": as_plain(scene.steps),
    }


def wanted_acts(only: Sequence[str], on: str, away_s: float) -> Iterator[tuple[Setting, Acts]]:
    """Give each cluster that is needed, with what is acted out on it."""

    def away(scene: Scene) -> None:
        all_that_decides_is_away(scene, away_s)

    five = {**ACTS, all_that_decides_is_away.__name__: away}
    settings: list[tuple[Setting, Acts]] = [(FIVE, five)]
    for label, (hosts, control, acts) in SMALL_ACTS.items():
        small = {act.__name__: act for act in acts}
        settings.append((Setting(label, hosts, control, SMALL_REPLICAS), small))
    for setting, acts_by_name in settings:
        names = [name for name in acts_by_name if not only or any(word in name for word in only)]
        if names and on in setting.label:
            yield setting, {name: acts_by_name[name] for name in names}


def act_out(chosen: Iterable[tuple[Setting, Acts]], keep: Callable[[Row], None]) -> None:
    """Act out what was chosen; every row is kept at once."""
    for setting, acts in chosen:
        hosts, control = setting.hosts, setting.control
        with scene_on(hosts, control, control, setting.replicas, setting.label) as scene:
            for name, act in acts.items():
                keep(run_act(scene, setting.label, name, act))


def merged(rows: Sequence[Row], row: Row) -> list[Row]:
    """Return rows with one replaced or added: one a fault and cluster, sorted."""
    key = (row["on"], row["fault"])
    kept = [each for each in rows if (each["on"], each["fault"]) != key]
    return sorted([*kept, row], key=lambda each: (each["on"], each["fault"]))


def kept_in(path: Path) -> list[Row]:
    """Return the rows of a file of results, or none."""
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text())["faults"]
    return rows


def main() -> int:
    """Act out, keep and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="parts of names")
    parser.add_argument("--on", default="", metavar="LABEL", help="two, three or five hosts")
    parser.add_argument("--away-s", type=float, default=300.0, help="of all that decides")
    parser.add_argument("--into", type=Path, metavar="FILE", help="results that rows go into")
    given = parser.parse_args()
    told = about("faults")
    told["command"] = "python -m benchmarks.faults --into FILE"
    told = {key: told[key] for key in ("benchmark", "command", "machine", "kernel", "python")}
    found: list[Row] = []

    def keep(row: Row) -> None:
        found.append(row)
        if given.into is not None:
            rows = merged(kept_in(given.into), row)
            given.into.write_text(as_json({**told, "faults": rows}))

    with contextlib.suppress(KeyboardInterrupt):  # what was seen until then counts
        act_out(wanted_acts(given.only, given.on, given.away_s), keep)
    print(as_json({**told, "faults": found}), end="")
    return 0 if found and all(row["holds"] for row in found) else 1


def as_json(value: object) -> str:
    """Return a result as the files of results are written."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
