"""Does everything hold? Runs the layers in order, prints a line for each and a plain final count.

`python -m tests.layers [--fast] [--layer NAME]... [-- PYTEST ARGUMENTS]`

Static layers run two at a time; the others one after another, since they share the machine. What
a layer starts and does not end is ended here and fails it. A layer that runs no test fails, and so
does a skipped test that `[tool.dray.skips]` of pyproject.toml does not list.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tests import ending
from tests.lab import Lab

PYTHON: Final = sys.executable
BIN: Final = Path(sys.executable).parent
STATIC_AT_ONCE: Final = 2
SOURCES: Final = ("dray", "scheduler", "node", "cli", "proto", "tests", "benchmarks")
SCRIPTS: Final = ("dev.sh", ".ci/run", ".ci/fresh")
ENDING_GRACE_S: Final = 3.0
# Locked itself: every user may, no file is left over, and systems in chroots share it with us.
MACHINE_LOCK: Final = Path("/sys/fs/cgroup")
MACHINE_LOCK_WAIT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        name: What a summary line and `--layer` call it.
        command: What to run; for a layer of tests the folder, see `is_pytest`.
        limit_s: After this long it is ended and has failed.
        is_pytest: Whether it counts tests, or is one check that passes or fails.
        is_static: Whether it may run beside other layers.
        is_fast: Whether `--fast` runs it.
        needs_root: Whether it makes namespaces and engines.
    """

    name: str
    command: Callable[[], list[str]]
    limit_s: float = 300.0
    is_pytest: bool = False
    is_static: bool = False
    is_fast: bool = False
    needs_root: bool = False


@dataclass(slots=True)
class Outcome:
    """What one layer did: counts, lines to show under its summary, and its output if it failed."""

    layer: Layer
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    output: str = ""

    def fail(self, note: str) -> None:
        """Count one failure more and say why."""
        self.failed += 1
        self.notes.append(note)

    def line(self) -> str:
        """Return the summary line."""
        return (
            f"{self.layer.name:<15} {self.passed:>5} passed {self.failed:>4} failed "
            f"{self.skipped:>4} skipped {self.seconds:>8.1f} s"
        )


def _static(name: str, *command: str) -> Layer:
    return Layer(name, lambda: list(command), is_static=True, is_fast=True)


def _mypy() -> list[str]:
    present = [name for name in SOURCES if any(Path(name).rglob("*.py"))]
    return [str(BIN / "mypy"), "--no-error-summary", *present]


def _tests(name: str, limit_s: float, *, fast: bool = False, root: bool = False) -> Layer:
    return Layer(
        name,
        lambda: [PYTHON, "-m", "pytest", "-q", f"tests/{name}"],
        limit_s=limit_s,
        is_pytest=True,
        is_static=name == "house",
        is_fast=fast,
        needs_root=root,
    )


LAYERS: Final = (
    _static("format", str(BIN / "ruff"), "format", "--check", "--quiet", "--diff", "."),
    _static("lint", str(BIN / "ruff"), "check", "--quiet", "--output-format=concise", "."),
    Layer("types", _mypy, is_static=True, is_fast=True),
    _static("imports", PYTHON, "-m", "tests.imports"),
    # Lint, format, compatibility with the baseline, and the generated code.
    _static("proto", PYTHON, "proto/generate.py", "--check"),
    _static("shell", "shellcheck", "--severity=style", *SCRIPTS),
    _tests("house", 300, fast=True),
    _tests("unit", 180, fast=True),
    _tests("property", 300, fast=True),
    _tests("simulation", 600),
    _tests("contract", 600, root=True),
    _tests("integration", 1200, root=True),
    _tests("e2e", 1800, root=True),
)


class Run:
    """One run of some layers, with everything it starts marked, and ended.

    Attributes:
        extra: Arguments passed on to pytest.
        mark: Tells this run's processes from any other's.
        folder: Temporary files of everything that runs; removed at the end.
    """

    def __init__(self, extra: list[str]) -> None:
        self.extra = extra
        self.mark = ending.new_mark()
        self.folder = ending.make_folder(self.mark)
        self.is_stopped = False
        self.reaper = ending.Reaper()
        self.environment = {
            **os.environ,
            ending.RUN_VARIABLE: self.mark,
            "TMPDIR": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            # Compiled modules: once a run, for the hundreds of processes that tests start, and not
            # in the tree, where its owner could not replace what root has written.
            "PYTHONPYCACHEPREFIX": str(self.folder / "compiled"),
        }
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.running: set[subprocess.Popen[bytes]] = set()

    def layer(self, layer: Layer) -> Outcome:
        """Run one layer to its end."""
        outcome = Outcome(layer)
        report = self.folder / f"{layer.name}.json"
        command = self._command(layer, report)
        log = self.folder / f"{layer.name}.log"
        start_s = time.monotonic()
        status = self._wait(layer, command, log, outcome)
        outcome.seconds = time.monotonic() - start_s
        outcome.output = log.read_text(errors="replace") if log.exists() else ""
        if layer.is_pytest:
            _count(outcome, report, status)
        elif status == 0:
            outcome.passed = 1
        elif not outcome.failed:
            outcome.failed = 1
        return outcome

    def _command(self, layer: Layer, report: Path) -> list[str]:
        command = layer.command()
        if layer.is_pytest:
            command += ["--report-file", str(report), "--basetemp", f"{self.folder}/{layer.name}"]
            command += self.extra
        if layer.needs_root and os.geteuid() != 0:
            kept = ",".join((ending.RUN_VARIABLE, "TMPDIR", "CI", "PATH", "PYTHONPYCACHEPREFIX"))
            command = ["sudo", "-n", f"--preserve-env={kept}", *command]
        return command

    def _wait(self, layer: Layer, command: list[str], log: Path, outcome: Outcome) -> int:
        """Return the exit status; note a program that is missing or too slow as a failure."""
        if self.is_stopped:
            outcome.fail("not started: the run was stopped")
            return 1
        with log.open("wb") as output:
            try:
                child = self._start(command, output)
            except FileNotFoundError:
                outcome.fail(f"{command[0]} is not installed")
                return 127
        try:
            return child.wait(timeout=layer.limit_s)
        except subprocess.TimeoutExpired:
            outcome.fail(f"ended after its limit of {layer.limit_s:g} s")
            ending.end_politely(child)
            return child.wait()
        except KeyboardInterrupt:
            ending.end_politely(child)
            raise
        finally:
            self.running.discard(child)
            self.reaper.own.discard(child.pid)

    def _start(self, command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        with self.reaper.lock:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
            self.reaper.own.add(child.pid)
            self.running.add(child)
        return child

    def stop(self) -> None:
        """End everything, and start nothing more."""
        self.is_stopped = True
        for child in list(self.running):
            ending.end_politely(child)
        ending.end_all(self.mark, keep=set())

    def end_left_over(self) -> list[str]:
        """End what still runs although its layer has ended; return a line for each."""
        wanted = {child.pid for child in list(self.running)}
        return ending.end_all(self.mark, keep=wanted, grace_s=ENDING_GRACE_S)


def _count(outcome: Outcome, report: Path, status: int) -> None:
    """Take the counts that tests/report.py wrote."""
    if not report.exists():
        if not outcome.failed:
            outcome.fail(f"pytest ended with status {status} before it could count")
        return
    counts = json.loads(report.read_text())
    outcome.passed += counts["passed"]
    outcome.failed += len(counts["failed"])
    outcome.skipped += len(counts["skipped"])
    outcome.notes += sorted(counts["skipped"].values())
    if status == int(_NO_TESTS) or outcome.passed + outcome.failed == 0:
        outcome.fail("it ran no test")
    elif status and not outcome.failed:
        outcome.fail(f"pytest ended with status {status}")


_NO_TESTS: Final = 5


def _show(outcome: Outcome) -> None:
    print(outcome.line(), flush=True)
    for note in outcome.notes:
        print(f"  {note}", flush=True)
    if outcome.failed:
        print(_framed(outcome), flush=True)


def _framed(outcome: Outcome) -> str:
    name = outcome.layer.name
    return f"--- {name}: output\n{outcome.output.rstrip()}\n--- {name}: end of output"


def run_layers(run: Run, layers: list[Layer]) -> Iterator[Outcome]:
    """Yield the outcome of every layer, in order, each as soon as it and those before it ended."""
    static = [layer for layer in layers if layer.is_static]
    with ThreadPoolExecutor(STATIC_AT_ONCE) as pool:
        try:
            yield from pool.map(run.layer, static)
        except BaseException:
            run.stop()  # or the pool would wait for what still runs
            raise
    left = run.end_left_over()
    assert not left, f"the static layers left running: {left}"
    for layer in (layer for layer in layers if not layer.is_static):
        outcome = run.layer(layer)
        for text in run.end_left_over():
            outcome.fail(f"left running, now ended: {text}")
        yield outcome


@contextlib.contextmanager
def machine_lock(layers: list[Layer]) -> Iterator[None]:
    """Let only one run at a time make namespaces, engines and control groups on this machine."""
    is_inside_a_run = ending.RUN_VARIABLE in os.environ  # whose runner holds the lock
    if is_inside_a_run or not any(layer.needs_root for layer in layers):
        yield
        return
    lock = os.open(MACHINE_LOCK, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline_s = time.monotonic() + MACHINE_LOCK_WAIT_S
        is_told = False
        while not _locked(lock):
            if not is_told:
                print(f"waiting for another run of the tests ({MACHINE_LOCK})", flush=True)
                is_told = True
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{MACHINE_LOCK} is still held after {MACHINE_LOCK_WAIT_S:g} s")
            time.sleep(0.5)
        yield
    finally:
        os.close(lock)


def sweep_labs(layers: list[Layer]) -> list[str]:
    """Take down labs whose owner was killed; return a text for each."""
    if os.geteuid() != 0 or not any(layer.needs_root for layer in layers):
        return []
    return [f"lab {lab_id}" for lab_id in Lab.sweep()]


def _locked(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _options(arguments: list[str]) -> tuple[list[Layer], list[str]]:
    own, _, extra = _split(arguments)
    parser = argparse.ArgumentParser(prog="./dev.sh test", description="Run the layers.")
    names = [layer.name for layer in LAYERS]
    parser.add_argument("--layer", action="append", choices=names, help="only this; repeatable")
    parser.add_argument("--fast", action="store_true", help="static layers, unit and property")
    parser.add_argument("--static", action="store_true", help="static layers only")
    options = parser.parse_args(own)
    chosen = [
        layer
        for layer in LAYERS
        if (not options.layer or layer.name in options.layer)
        and (not options.fast or layer.is_fast)
        and (not options.static or layer.is_static)
    ]
    return chosen, extra


def _split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    if "--" not in arguments:
        return arguments, "", []
    at = arguments.index("--")
    return arguments[:at], "--", arguments[at + 1 :]


def _interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(arguments: list[str]) -> int:
    """Run what the arguments choose; return the exit status."""
    layers, extra = _options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    ending.adopt_orphans()
    for text in ending.end_stale() + ending.remove_stale_folders() + sweep_labs(layers):
        print(f"left by an earlier run, now ended: {text}", flush=True)
    run = Run(extra)
    outcomes: list[Outcome] = []
    status = 130
    try:
        with machine_lock(layers), run.reaper:
            for outcome in run_layers(run, layers):
                outcomes.append(outcome)
                _show(outcome)
        status = int(any(outcome.failed for outcome in outcomes) or not outcomes)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # once is enough: let it end what it started
        run.stop()
        sweep_labs(layers)
        for text in ending.remove_folder(run.folder):
            print(f"unmounted {text}", flush=True)
    passed, failed = sum(o.passed for o in outcomes), sum(o.failed for o in outcomes)
    skipped = sum(o.skipped for o in outcomes)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
