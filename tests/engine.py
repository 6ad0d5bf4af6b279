"""Is there a Docker Engine? Runs a command with one: the machine's, or one of its own, then ended.

`python -m tests.engine COMMAND...` sets DOCKER_HOST for the command. An engine of our own keeps its
images in `.dev/engine`, so that the second run is quick, and everything else in a folder of /run.
When it ends, the bridge, packet filter rules and forwarding switch that it brought are taken back.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import ending

MACHINE_SOCKETS: Final = ("/run/docker.sock", "/var/run/docker.sock")
DATA: Final = Path(".dev/engine")
START_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 20.0
LOOK_AGAIN_S: Final = 0.05
LOG_LINES_SHOWN: Final = 20
_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_PR_SET_PDEATHSIG: Final = 1


class EngineError(Exception):
    """No engine could be had; the message says why and what to do."""


def answers(path: str) -> bool:
    """Return whether a Docker Engine answers on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        try:
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return connection.recv(16).startswith(b"HTTP/1.")
        except OSError:
            return False


@contextlib.contextmanager
def engine(host: str | None) -> Iterator[str]:
    """Yield the address of an engine: `host` if it is given, the machine's, or one of our own.

    Raises:
        EngineError: None runs and none could be started.
    """
    if host:
        yield host
        return
    for path in MACHINE_SOCKETS:
        if answers(path):
            yield f"unix://{path}"
            return
    with _own_engine() as path:
        yield f"unix://{path}"


@contextlib.contextmanager
def _own_engine() -> Iterator[str]:
    if os.geteuid() != 0:
        raise EngineError("no Docker Engine runs here, and starting one needs root: use sudo")
    program = shutil.which("dockerd")
    if program is None:
        raise EngineError("no Docker Engine runs here, and dockerd is not installed")
    DATA.mkdir(parents=True, exist_ok=True)
    with (DATA / "lock").open("a") as lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = f"another run uses the engine in {DATA.resolve()}; wait for its end"
            raise EngineError(text) from error
        before = Machine.now()
        folder = Path(tempfile.mkdtemp(prefix="dray-engine-", dir="/run"))
        try:
            with _daemon(program, folder):
                yield f"{folder}/docker.sock"
        finally:
            ending.unmount_below(folder)
            shutil.rmtree(folder, ignore_errors=True)
            before.restore()


@contextlib.contextmanager
def _daemon(program: str, folder: Path) -> Iterator[None]:
    """Run dockerd until the block ends."""
    (folder / "daemon.json").write_text("{}")
    log = folder / "log"
    command = [
        program,
        f"--config-file={folder}/daemon.json",
        f"--data-root={DATA.resolve()}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
        f"--host=unix://{folder}/docker.sock",
    ]
    print("starting a Docker Engine for this run", file=sys.stderr, flush=True)
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the command; the engine ends after it
            preexec_fn=_end_with_parent,
        )
    try:
        deadline_s = time.monotonic() + START_LIMIT_S
        while not answers(f"{folder}/docker.sock"):
            if daemon.poll() is not None or time.monotonic() > deadline_s:
                tail = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
                raise EngineError("dockerd did not start here. It says:\n" + "\n".join(tail))
            time.sleep(LOOK_AGAIN_S)
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(timeout=STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _end_with_parent() -> None:
    """Ask the kernel to end the engine when this runner is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine changes on the machine, as it was before.

    Attributes:
        cgroups: The control groups named after Docker.
        had_bridge: Whether `docker0` was there.
        forwarding: What the kernel's forwarding switch said.
        rules: Every rule, chain and policy, by packet filter program, as its `-save` prints it.
    """

    cgroups: frozenset[Path]
    had_bridge: bool
    forwarding: str
    rules: dict[str, frozenset[tuple[str, str]]]

    @staticmethod
    def now() -> Machine:
        """Return what there is now."""
        programs = [name for name in ("iptables", "ip6tables") if shutil.which(f"{name}-save")]
        return Machine(
            _docker_cgroups(),
            Path("/sys/class/net/docker0").exists(),
            _FORWARDING.read_text().strip(),
            {name: frozenset(_saved(name)) for name in programs},
        )

    def restore(self) -> None:
        """Take back what an engine added since."""
        for program, before in self.rules.items():
            _remove_docker_rules(program, before)
        if not self.had_bridge and Path("/sys/class/net/docker0").exists():
            subprocess.run(["ip", "link", "delete", "docker0"], check=False)
        if _FORWARDING.read_text().strip() != self.forwarding:
            _FORWARDING.write_text(self.forwarding)
        for path in _docker_cgroups() - self.cgroups:
            for folder, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def _docker_cgroups() -> frozenset[Path]:
    """Return Docker's control groups: one in every hierarchy of version 1, or one of version 2."""
    top = Path("/sys/fs/cgroup")
    return frozenset([*top.glob("docker"), *top.glob("*/docker")])


def _saved(program: str) -> list[tuple[str, str]]:
    """Return (table, line) of every policy, chain and rule, counters left out."""
    done = subprocess.run([f"{program}-save"], capture_output=True, text=True, check=False)
    table, found = "", []
    for line in done.stdout.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith((":", "-A")):
            found.append((table, line.partition(" [")[0]))
    return found


def _remove_docker_rules(program: str, before: frozenset[tuple[str, str]]) -> None:
    """Delete Docker's new rules, then its new chains, and put policies back."""
    new = [entry for entry in _saved(program) if entry not in before]
    rules = [(t, line) for t, line in new if line.startswith("-A") and "docker" in line.lower()]
    chains = [(t, line[1:].split()[0]) for t, line in new if line.lower().startswith(":docker")]
    builtin = {(t, line.split()[0]) for t, line in new if line.startswith(":")}
    policies = [(t, line) for t, line in before if (t, line.split()[0]) in builtin]
    if program == "iptables" and not any(t == "filter" for t, _ in before):
        policies.append(("filter", ":FORWARD ACCEPT"))  # the table was not loaded yet
    commands = [[t, "-D", *line.split()[1:]] for t, line in rules]
    commands += [[t, "-F", chain] for t, chain in chains] + [
        [t, "-X", chain] for t, chain in chains
    ]
    commands += [[t, "-P", *line[1:].split()[:2]] for t, line in policies]
    for table, *words in commands:
        subprocess.run([program, "-t", table, *words], check=False, capture_output=True)


def _run(command: list[str], host: str) -> int:
    """Run a command to its end; an interrupt reaches it, and this waits for it."""
    child = subprocess.Popen(command, env={**os.environ, "DOCKER_HOST": host})

    def pass_on(number: int, _frame: object) -> None:
        child.send_signal(number)

    # A terminal's Ctrl-C reaches the child by itself; it must only not end this process first.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, pass_on)
    status = child.wait()
    return status if status >= 0 else 128 - status


def main(command: list[str]) -> int:
    """Run the command with an engine; return its exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    try:
        with engine(os.environ.get("DOCKER_HOST")) as host:
            return _run(command, host)
    except EngineError as error:
        print(f"dray: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
