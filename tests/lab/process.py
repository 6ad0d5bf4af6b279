"""How does the lab start programs, in a host or beside it, and keep hold of them?"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.lab.errors import LabError
from tests.lab.specs import HostSpec, RunSpec, SwitchSpec
from tests.lab.wait import wait_for

INSIDE = Path(__file__).with_name("inside.py")
ALL_NAMESPACES = ("cgroup", "ipc", "uts", "net", "pid", "mnt")
HELPER_DEADLINE_S = 60.0
PAUSE_DEADLINE_S = 10.0
OUTPUT_SHOWN_CHARACTERS = 2000
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def program_path() -> str:
    """Return the search path for programs: the caller's, and the system directories it may lack."""
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".lstrip(":")


def program_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the caller's environment less what points a program at the machine's services."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("DOCKER_", "ETCD", "CONTAINERD_", "NOTIFY_SOCKET", "XDG_RUNTIME_DIR")
        )
    }
    return {**kept, "PATH": program_path(), **(extra or {})}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program runs.

    Attributes:
        pid: A process that is there already; 0 for the machine itself.
        namespaces: Which of that process's namespaces to enter.
        cgroups: The cgroup to join, one directory for each hierarchy.
    """

    pid: int = 0
    namespaces: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()


MACHINE = Place()


@dataclass(slots=True)
class Helper:
    """A started helper program and what it has reported."""

    popen: subprocess.Popen[bytes]
    pid: int
    reports: list[str] = field(default_factory=list)


def start_helper(
    role: str,
    spec: HostSpec | SwitchSpec | RunSpec,
    *,
    stdin: int | IO[bytes] | None,
    stdout: int | IO[bytes] | None,
    stderr: int | IO[bytes] | None,
    environment: Mapping[str, str],
    new_session: bool = False,
) -> Helper:
    """Start inside.py and wait until it reports that it is ready.

    Raises:
        LabError: It reported a failure, or ended without a word; nothing of it is left running.
    """
    report_read, report_write = os.pipe()
    spec_read, spec_write = os.pipe()
    with open(report_read, "rb", buffering=0) as reports:
        try:
            with open(spec_write, "w", encoding="utf-8") as file:
                file.write(json.dumps(spec))  # a few kB: the pipe holds them until they are read
            popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(INSIDE), role, str(report_write), str(spec_read)],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(report_write, spec_read),
                env=dict(environment),
                start_new_session=new_session,
            )
        finally:
            os.close(report_write)
            os.close(spec_read)
        lines = _read_reports(reports)
    pids = [int(line.removeprefix("pid ")) for line in lines if line.startswith("pid ")]
    errors = [line.removeprefix("error ") for line in lines if line.startswith("error ")]
    if errors or "ready" not in lines or not pids:
        with contextlib.suppress(ProcessLookupError):
            if pids:
                os.kill(pids[0], signal.SIGKILL)
        popen.kill()
        popen.wait()
        for pipe in (popen.stdin, popen.stdout, popen.stderr):
            if pipe is not None:
                pipe.close()
        raise LabError(
            "; ".join(errors) or f"the helper ended without a report (exit code {popen.returncode})"
        )
    return Helper(popen, pids[0], lines)


def _read_reports(reports: IO[bytes]) -> list[str]:
    """Return the lines that a helper reports until it closes the pipe or the deadline passes."""
    end = time.monotonic() + HELPER_DEADLINE_S
    text = b""
    while (left_s := end - time.monotonic()) > 0 and select.select([reports], [], [], left_s)[0]:
        chunk = reports.read(4096)
        if not chunk:
            return text.decode().splitlines()
        text += chunk
    return [
        *text.decode().splitlines(),
        f"error the helper was not ready within {HELPER_DEADLINE_S:g} s",
    ]


def _is_stopped(pid: int) -> bool:
    """Return whether all threads of a process are stopped."""
    states = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            states.append(path.read_text().rpartition(")")[2].split()[0])
    return all(state in ("T", "t", "X", "Z") for state in states)


class Process:
    """A program started by the lab: like `subprocess.Popen`, but `pid` is the program's real one.

    It ends when this process (not merely this thread) ends, unless started with `tied=False`.
    """

    def __init__(self, argv: Sequence[str], helper: Helper) -> None:
        """Wrap a helper that runs `argv`; use `spawn`."""
        self.argv = list(argv)
        self.pid = helper.pid
        self._popen = helper.popen
        try:
            self._pidfd: int | None = os.pidfd_open(helper.pid)
        except ProcessLookupError:
            self._pidfd = None  # ended already

    @property
    def own_pids(self) -> set[int]:
        """The program and its supervisor."""
        return {self.pid, self._popen.pid}

    @property
    def stdin(self) -> IO[bytes] | None:
        """The program's standard input, if it is a pipe."""
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """The program's standard output, if it is a pipe."""
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        """The program's standard error, if it is a pipe."""
        return self._popen.stderr

    @property
    def returncode(self) -> int | None:
        """The exit code as of the last poll or wait: negative for a signal, None if it ran."""
        return self._popen.returncode

    @property
    def is_running(self) -> bool:
        """Whether the program has not ended (a stopped one has not)."""
        return self.poll() is None

    def poll(self) -> int | None:
        """Return the exit code if the program has ended, else None."""
        self._forget_if(self._popen.poll() is not None)
        return self._popen.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end and return the exit code (raises subprocess.TimeoutExpired)."""
        code = self._popen.wait(timeout_s)
        self._forget_if(True)
        return code

    def communicate(
        self, data: bytes | None = None, timeout_s: float | None = None
    ) -> tuple[bytes, bytes]:
        """Feed and read the pipes until the end (raises subprocess.TimeoutExpired)."""
        out, err = self._popen.communicate(data, timeout_s)
        self._forget_if(True)
        return out or b"", err or b""

    def send_signal(self, number: int) -> None:
        """Send a signal to the program itself; to one that has ended already, nothing."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def pause(self) -> None:
        """Send SIGSTOP: its kernel goes on answering for it, it does not.

        Returns when no thread of it runs any more: on a busy machine that takes a moment.
        """
        self.send_signal(signal.SIGSTOP)
        wait_for(
            lambda: not self.is_running or _is_stopped(self.pid),
            f"process {self.pid} has stopped",
            deadline_s=PAUSE_DEADLINE_S,
            poll_s=0.002,
        )

    def resume(self) -> None:
        """Send SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def end(self, grace_s: float = 5.0) -> int:
        """Terminate the program, kill it after the grace, and return its exit code."""
        self.resume()
        self.terminate()
        try:
            return self.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()

    def _forget_if(self, ended: bool) -> None:
        if ended and self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    place: Place = MACHINE,
    *,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    tied: bool = True,
    session: bool = True,
) -> Process:
    """Start a program in a place.

    Args:
        argv: The program and its arguments.
        place: Where it runs.
        stdin: As for `subprocess.Popen`; likewise `stdout` and `stderr`.
        stdout: See `stdin`.
        stderr: See `stdin`.
        environment: Added to the caller's environment.
        cwd: Its working directory; the caller's if None, `/` where that does not exist.
        tied: Kill it when this process dies.
        session: Give it a session of its own; False leaves it on the caller's terminal.

    Raises:
        LabError: The program could not be started.
    """
    words = [os.fspath(word) for word in argv]
    spec: RunSpec = {
        "argv": words,
        "cwd": os.fspath(cwd) if cwd is not None else os.getcwd(),
        "cgroups": list(place.cgroups),
        "target_pid": place.pid,
        "namespaces": list(place.namespaces),
        "owner_pid": os.getpid() if tied else 0,
        "session": session,
    }
    helper = start_helper(
        "run",
        spec,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        environment=program_environment(environment),
    )
    return Process(words, helper)


def run(
    argv: Sequence[str | os.PathLike[str]],
    place: Place = MACHINE,
    *,
    stdin_text: str | None = None,
    check: bool = True,
    timeout_s: float = 60.0,
    environment: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program in a place to its end and return its output as text.

    Raises:
        LabError: It could not be started, did not end in time (it is killed), or failed while
        `check` is set.
    """
    process = spawn(
        argv,
        place,
        stdin=subprocess.PIPE if stdin_text is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        environment=environment,
        cwd=cwd,
    )
    shown = " ".join(process.argv)
    try:
        out, err = process.communicate(
            stdin_text.encode() if stdin_text is not None else None, timeout_s
        )
    except subprocess.TimeoutExpired as expired:
        process.kill()
        process.communicate()
        raise LabError(f"{shown}: did not end in {timeout_s} s and was killed") from expired
    result = subprocess.CompletedProcess(
        process.argv, process.wait(), out.decode(errors="replace"), err.decode(errors="replace")
    )
    if check and result.returncode:
        said = (result.stderr or result.stdout).strip()[-OUTPUT_SHOWN_CHARACTERS:]
        raise LabError(f"{shown}: exit code {result.returncode}: {said}")
    return result
