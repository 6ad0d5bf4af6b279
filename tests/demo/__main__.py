"""A newcomer's first minutes with dray, on a machine of its own, each step checked.

`python -m tests.demo [--keep]` is what `./dev.sh demo` runs: one host of the lab with a Docker
Engine, `dray dev` on it, and then nothing but the command that users have. Exits with 1 when a step
does not hold, and leaves nothing behind either way (unless --keep).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from tests.lab import Host, Lab, LabError
from tests.lab.process import Process
from tests.lab.wait import wait_for

FOLDER: Final = Path(__file__).parent
COMPOSE_FILE: Final = FOLDER / "compose.yaml"
DRAY: Final = (sys.executable, "-P", "-m", "cli")
DATA: Final = "/var/lib/dray-demo"  # on the host's own disk
DEV_LIMIT_S: Final = 60.0
STEP_LIMIT_S: Final = 60.0
REPLICAS: Final = 3
ASKED_MAX: Final = 60  # requests until every replica has answered one


class DemoError(Exception):
    """A step did not hold; the message says which and what was seen."""


class Demo:
    """The steps, told as they happen."""

    def __init__(self, host: Host, console: Console) -> None:
        """Show them on a host that runs nothing yet."""
        self._host = host
        self._console = console

    def run(self, *, keep: bool) -> None:
        """Show everything, in order; with `keep`, stop before anything is removed.

        Raises:
            DemoError: A step did not hold.
        """
        dev = self._start(tied=not keep)
        try:
            self._bring_up()
            self._find_by_name()
            self._kill_one()
            self._scale()
            if not keep:
                self._remove()
        except DemoError as error:
            raise DemoError(f"{error}\n{self._ends_of_logs()}") from error
        finally:
            if not keep:
                dev.end(grace_s=30.0)

    def dray(self, *arguments: str, is_shown: bool = True, limit_s: float = STEP_LIMIT_S) -> str:
        """Run the command as a user of the host would, show it, and return what it printed."""
        if is_shown:
            self._console.print(f"[bold green]$[/] [bold]dray {' '.join(arguments)}[/]")
        merged = ["sh", "-c", 'exec "$@" 2>&1', "sh"] if is_shown else []
        done = self._host.exec(
            [*merged, *DRAY, *arguments],
            check=False,
            timeout_s=limit_s,
            environment={"DOCKER_HOST": "unix:///run/docker.sock"},
            cwd=FOLDER,
        )
        if done.returncode:
            raise DemoError(
                f"dray {' '.join(arguments)} ended with {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )
        if is_shown:
            self._console.print(done.stdout.rstrip(), highlight=False, markup=False)
            self._console.print()
        return done.stdout

    def tasks(self, service: str) -> list[dict[str, Any]]:
        """Return the slots of a service, as scripts see them."""
        shown = self.dray("ps", "-p", "demo", service, "--format", "json", is_shown=False)
        found: list[dict[str, Any]] = json.loads(shown)
        return found

    def say(self, text: str) -> None:
        """Say what comes next."""
        self._console.print(f"[cyan]# {text}[/]", highlight=False)

    def _start(self, *, tied: bool) -> Process:
        self.say("a whole cluster on one machine: etcd, a scheduler, a node")
        self._console.print("[bold green]$[/] [bold]dray dev &[/]")
        log = (self._host.lab.directory / "dev.log").open("w+b")
        dev = self._host.popen(
            [*DRAY, "dev", "--data", DATA, "--docker-host", "unix:///run/docker.sock"],
            stdout=log,
            stderr=subprocess.STDOUT,
            tied=tied,
        )

        def is_up() -> bool:
            log.seek(0)
            return b"Ctrl-C" in log.read() or not dev.is_running

        wait_for(is_up, "`dray dev` is up", deadline_s=DEV_LIMIT_S)
        log.seek(0)
        text = log.read().decode()
        if not dev.is_running:
            raise DemoError(f"`dray dev` ended:\n{text}\n{self._ends_of_logs()}")
        self._console.print(text, highlight=False, markup=False)
        return dev

    def _bring_up(self) -> None:
        self.say("an ordinary Compose file: web with 3 replicas, a client, a job")
        self.dray("up", "--build", "-f", "compose.yaml", "--timeout", "60s")
        self.dray("ps", "-p", "demo")
        states = [task["state"] for task in self.tasks("web")]
        _expect(states == ["running"] * REPLICAS, f"web is {states}")
        job = [task["state"] for task in self.tasks("migrate")]
        _expect(job == ["completed"], f"migrate is {job}")

    def _find_by_name(self) -> None:
        self.say("every container finds every service by its name; all replicas answer")
        self.dray("dns", "web", "--project", "demo", "--service", "client")
        names = self._answering()
        _expect(len(names) == REPLICAS, f"only {sorted(names)} answered")
        self._console.print(f"{len(names)} replicas answered: {', '.join(sorted(names))}\n")

    def _answering(self) -> set[str]:
        """Return the replicas that answer the client, by their host names."""
        names: set[str] = set()
        for _ in range(ASKED_MAX):
            if len(names) == REPLICAS:
                break
            command = ("wget", "-q", "-O", "-", "http://web/cgi-bin/who")
            answer = self.dray("exec", "-T", "demo/client", *command, is_shown=not names)
            names.add(answer.split()[0])
        return names

    def _kill_one(self) -> None:
        victim = self.tasks("web")[0]
        self.say(f"a container dies: web.{victim['slot']} is killed behind dray's back")
        label = f"dray.task-id={victim['task_id']}"
        found = self._host.docker.containers.list(filters={"label": label})
        _expect(len(found) == 1, f"{len(found)} containers have the label {label}")
        found[0].kill()
        began_s = time.monotonic()
        wait_for(
            lambda: self._is_back(victim), "the killed one runs again", deadline_s=STEP_LIMIT_S
        )
        self.dray("ps", "-p", "demo", "web")
        self._console.print(f"back after {time.monotonic() - began_s:.1f} s\n", highlight=False)

    def _is_back(self, victim: dict[str, Any]) -> bool:
        now = next(task for task in self.tasks("web") if task["slot"] == victim["slot"])
        has_grown = (now["attempt"] or 0) > victim["attempt"]
        return bool(has_grown and now["state"] == "running" and now["health"] == "healthy")

    def _scale(self) -> None:
        self.say("more replicas, without touching those that run")
        before = {task["task_id"] for task in self.tasks("web")}
        self.dray("scale", "demo/web=5")
        after = self.tasks("web")
        states = [task["state"] for task in after]
        _expect(states == ["running"] * 5, f"web is {states}")
        _expect(before <= {task["task_id"] for task in after}, "a task was replaced")
        self.dray("status")

    def _remove(self) -> None:
        self.say("and down again")
        self.dray("down", "-p", "demo")
        left = self._host.docker.containers.list(all=True)
        _expect(not left, f"{len(left)} containers are left")

    def _ends_of_logs(self) -> str:
        """Return the last lines of what the daemons logged, for whoever looks for the cause."""
        command = ["sh", "-c", f"tail -n 15 {DATA}/log/*.log"]
        return self._host.exec(command, check=False).stdout


def _expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise DemoError(what)


def _summary() -> str:
    return (__doc__ or "").split("\n", maxsplit=1)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="./dev.sh demo", description=_summary())
    parser.add_argument("--keep", action="store_true", help="leave the host and all on it up")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True)
    began_s = time.monotonic()
    try:
        _run(console, keep=options.keep)
    except (DemoError, LabError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    end = "; it goes on:" if options.keep else ", nothing left behind."
    console.print(f"\nDone in {time.monotonic() - began_s:.1f} s{end}")
    if options.keep:
        console.print("  ./dev.sh lab exec 1 -- .venv/bin/dray ps    talks to it")
        console.print("  ./dev.sh lab down                           ends it")
    return 0


def _run(console: Console, *, keep: bool) -> None:
    lab = Lab.up(1, keep=keep)
    down: Callable[[], None] = (lambda: None) if keep else lab.down
    try:
        Demo(lab.hosts[0], console).run(keep=keep)
    finally:
        down()


if __name__ == "__main__":
    sys.exit(main())
