"""How long does a Compose file take to load, and how much memory? Prints JSON.

`python -m benchmarks.compose [--runs N] [--services N] [--corpus FOLDER]`

A generated project, in CPU time of one process; beside it, in the same rounds, what PyYAML alone
needs to parse the same text. A corpus is a folder with `cases.json` and `cases/`; it is loaded
whole, once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from dray.compose import LoadRequest, load
from dray.compose.canonical import canonicalise
from dray.files import DiskFiles

BUDGET_MS: Final = 100.0  # of a file with 100 services
SERVICE: Final = """
  s{number}:
    image: registry.example.org/team/app-{number}:1.{number}
    environment: {{LOG_LEVEL: info, PORT: "8080", PEER: "${{PEER:-none}}"}}
    ports: ["{port}:8080"]
    labels: [team=a, tier=backend]
    volumes: ["data:/data", "./conf:/etc/app:ro"]
    networks: [front, back]
    healthcheck: {{test: "curl -f localhost:8080", interval: 5s, retries: 3}}
    deploy:
      replicas: 3
      resources: {{limits: {{cpus: "0.5", memory: 50M}}}}
      update_config: {{parallelism: 1, order: start-first}}
"""
TAIL: Final = "\nvolumes: {data: }\nnetworks: {front: , back: {internal: true}}\n"


class OneFile:
    """A file system with one file."""

    def __init__(self, content: bytes) -> None:
        """Take its content."""
        self._content = content

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return the content of the Compose file; there is no other."""
        return self._content[: bytes_max + 1] if path == "/p/compose.yaml" else None

    def exists(self, path: str) -> bool:
        """Return whether it is the Compose file."""
        return path == "/p/compose.yaml"


def project_text(services: int) -> str:
    """Return a project with as many services."""
    each = (SERVICE.format(number=number, port=10_000 + number) for number in range(services))
    return "services:" + "".join(each) + TAIL


def cpu_ms(task: Callable[[], object]) -> float:
    """Return how much CPU a task took."""
    start_s = time.process_time()
    task()
    return (time.process_time() - start_s) * 1000


def measure(text: str, runs: int) -> dict[str, list[float]]:
    """Return the times of each task; the first round warms up and does not count."""
    request, files = LoadRequest(("/p/compose.yaml",)), OneFile(text.encode())
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tasks: dict[str, Callable[[], object]] = {
        "parse only (PyYAML)": lambda: yaml.load(text, Loader=loader),  # noqa: S506 - a safe loader
        "canonicalise": lambda: canonicalise(request, files),
        "load": lambda: load(request, files),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(runs + 1):
        for name, task in tasks.items():
            took_ms = cpu_ms(task)
            if number:
                times[name].append(took_ms)
    return times


def measure_corpus(folder: Path) -> dict[str, object]:
    """Return how long all files of a corpus take in one process, and its peak memory."""
    names = [case["file"] for case in json.loads((folder / "cases.json").read_text())]
    files = DiskFiles()

    def load_all() -> None:
        for name in names:
            path = str(folder / "cases" / name)
            load(LoadRequest((path,), project_name="sample", profiles=("*",)), files)

    took_ms = cpu_ms(load_all)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"files": len(names), "cpu_ms": round(took_ms), "peak_mib": round(peak_kib / 1024)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    text = project_text(given.services)
    times = measure(text, given.runs)
    shown: dict[str, object] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "services": given.services,
        "text_bytes": len(text),
        "budget_ms": BUDGET_MS,
        "cpu_ms": {
            name: {"median": round(statistics.median(each), 1), "best": round(min(each), 1)}
            for name, each in times.items()
        },
    }
    if given.corpus:
        shown["corpus"] = measure_corpus(given.corpus)
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
