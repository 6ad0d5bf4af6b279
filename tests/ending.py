"""How does a run end what it started, also what left its process tree, or what a killed run left?

Every process of a run carries the run's mark in its environment, and its folder a file with it. The
mark names the runner's PID namespace, pid and start time: a later run sees that the runner is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests import procfs

RUN_VARIABLE: Final = "DRAY_TEST_RUN"
FOLDER_PREFIX: Final = "dray-test-"
MARK_FILE: Final = "mark"
SEPARATOR: Final = "-"
INTERRUPT_GRACE_S: Final = 20.0
TERM_GRACE_S: Final = 5.0
KILL_GRACE_S: Final = 5.0
REAP_PERIOD_S: Final = 0.05
LOOK_AGAIN_S: Final = 0.02
_PR_SET_CHILD_SUBREAPER: Final = 36


def new_mark() -> str:
    """Return the mark of a run whose runner is this process."""
    parts = (_pid_namespace(), str(os.getpid()), procfs.start(os.getpid()), secrets.token_hex(4))
    return SEPARATOR.join(parts)


def _pid_namespace() -> str:
    """Return the number of this process's PID namespace, in which pids have their meaning."""
    return os.readlink("/proc/self/ns/pid").strip("pid:[]")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none escapes."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Reaper:
    """Takes the exit status of adopted orphans, for as long as the block lasts.

    The first process of a PID namespace cannot end while a zombie of it waits for a parent outside,
    and such a parent are we.

    Attributes:
        own: Children whose status somebody else here waits for; change it under `lock`.
        lock: Held while children are looked at, and to be held from starting one to adding it.
    """

    def __init__(self) -> None:
        self.own: set[int] = set()
        self.lock = threading.Lock()
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def __enter__(self) -> Reaper:
        """Start reaping."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reaping."""
        self._is_done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_done.wait(REAP_PERIOD_S):
            with self.lock, contextlib.suppress(ChildProcessError):
                options = os.WEXITED | os.WNOHANG | os.WNOWAIT  # look without taking
                while (ended := os.waitid(os.P_ALL, 0, options)) and ended.si_pid not in self.own:
                    os.waitpid(ended.si_pid, os.WNOHANG)


def end_politely(child: subprocess.Popen[bytes]) -> None:
    """Interrupt a child, so that pytest takes its fixtures down; then end its process group."""
    steps = (
        (os.kill, signal.SIGINT, INTERRUPT_GRACE_S),
        (os.killpg, signal.SIGTERM, TERM_GRACE_S),
        (os.killpg, signal.SIGKILL, KILL_GRACE_S),
    )
    for send, number, grace_s in steps:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=grace_s)
            return


def end_all(mark: str, *, keep: set[int], grace_s: float = 0.0) -> list[str]:
    """End every descendant of this process and every process with the mark; return their texts.

    Args:
        mark: The run's mark.
        keep: Processes that are still wanted, with everything below them.
        grace_s: What ends by itself within this time is not left over.
    """
    deadline_s = time.monotonic() + grace_s
    while any(map(procfs.is_running, _ours(mark, keep))) and time.monotonic() < deadline_s:
        time.sleep(LOOK_AGAIN_S)
    return _end(_ours(mark, keep))


def _ours(mark: str, keep: set[int]) -> set[int]:
    """Return this run's processes, less the wanted ones and this one."""
    pids = {pid for pid, found in _marks() if found == mark} | procfs.descendants(os.getpid())
    for wanted in keep:
        pids -= procfs.descendants(wanted) | {wanted}
    return pids - {os.getpid()}


def end_stale() -> list[str]:
    """End the processes of runs whose runner is gone; return a text for each."""
    return _end({pid for pid, mark in _marks() if _is_stale(mark)})


def make_folder(mark: str) -> Path:
    """Make the folder of a run's temporary files; short, because sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    (folder / MARK_FILE).write_text(mark)
    return folder


def remove_folder(folder: Path) -> list[str]:
    """Unmount what is mounted below a run's folder and remove it; return the mount points."""
    points = unmount_below(folder)
    if not _mounted_below(folder):
        shutil.rmtree(folder, ignore_errors=True)
    return points


def remove_stale_folders() -> list[str]:
    """Remove the folders of runs whose runner is gone; return a text for each."""
    marks = Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*/{MARK_FILE}")
    stale = [
        path.parent for path in marks if os.access(path, os.R_OK) and _is_stale(path.read_text())
    ]
    for folder in stale:
        remove_folder(folder)
    return [str(folder) for folder in stale]


def unmount_below(folder: Path) -> list[str]:
    """Unmount what is mounted below a folder, innermost first; return the mount points."""
    points = _mounted_below(folder)
    for point in points:
        subprocess.run(["umount", "-l", point], check=False)
    return points


def _mounted_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return sorted((p for p in points if p.startswith(f"{folder}/")), key=len, reverse=True)


def _end(pids: set[int]) -> list[str]:
    texts = [f"{pid} {procfs.command(pid)}" for pid in sorted(pids) if procfs.is_running(pid)]
    for number, grace_s in ((signal.SIGTERM, TERM_GRACE_S), (signal.SIGKILL, KILL_GRACE_S)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline_s = time.monotonic() + grace_s
        while any(procfs.is_running(pid) for pid in pids) and time.monotonic() < deadline_s:
            _reap(pids)
            time.sleep(LOOK_AGAIN_S)
    _reap(pids)
    return texts


def _reap(pids: set[int]) -> None:
    """Take the exit status of children that nobody else waits for."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _marks() -> Iterator[tuple[int, str]]:
    """Yield pid and mark of every process that carries one and that we may read."""
    for pid in procfs.pids():
        mark = procfs.variable(pid, RUN_VARIABLE)
        if mark is not None:
            yield pid, mark


def _is_stale(mark: str) -> bool:
    """Return whether a mark's runner is gone; one of another PID namespace cannot be judged."""
    namespace, pid, start, *_ = [*mark.split(SEPARATOR), "", "", ""]
    if namespace != _pid_namespace() or not pid.isdigit():
        return False
    return procfs.start(int(pid)) != start
