"""What is on this machine that a test could leave behind? Snapshots to compare before and after.

Every thing is a `Thing`: its kind, an identity that is never reused, and a description for people.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import procfs

ENGINE_TIMEOUT_S: Final = 5.0
SESSION_VARIABLE: Final = "DRAY_TEST_SESSION"


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing that a test can leave behind; equal when kind and identity are.

    Attributes:
        kind: Process, thread, container, network namespace, interface, mount or cgroup.
        identity: Tells it from every other thing of its kind, also later ones.
        text: What to show.
    """

    kind: str
    identity: str
    text: str = field(compare=False)

    def __str__(self) -> str:
        """Return kind and description."""
        return f"{self.kind} {self.text}"


class Processes:
    """The processes that this pytest run started, also those that left its process tree.

    A process is ours when it descends from this one or carries our mark in its environment. A
    process that was seen once and is not ours is not looked at again, which keeps a look at 300
    processes below a millisecond.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.foreign: set[int] = set()

    def things(self) -> set[Thing]:
        """Return our processes but for this one and zombies."""
        me = os.getpid()
        pids = procfs.pids()
        self.foreign &= pids
        found: set[Thing] = set()
        for pid in sorted(pids - self.foreign - {me}):
            fields = procfs.stat(pid)
            if not fields:
                continue
            if not self._is_ours(pid, me):
                self.foreign.add(pid)
            elif fields[0] != "Z":
                text = f"{pid} {procfs.command(pid)}"
                found.add(Thing("process", f"{pid}:{fields[19]}", text))
        return found

    def _is_ours(self, pid: int, me: int) -> bool:
        return procfs.variable(pid, SESSION_VARIABLE) == self.mark or procfs.descends(pid, me)


def threads() -> set[Thing]:
    """Return the Python threads of this process, but for the one that gRPC keeps for its life."""
    return {
        Thing("thread", f"{thread.ident}:{id(thread)}", f"{thread.name!r} {_target(thread)}")
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
        and not thread.name.endswith("(_poll_wrapper)")  # dray.tls keeps it on purpose
    }


def interfaces() -> set[Thing]:
    """Return the network interfaces of the namespace that this process is in."""
    return {Thing("interface", f"{index}:{name}", name) for index, name in socket.if_nameindex()}


def namespaces() -> set[Thing]:
    """Return the network namespaces that have a name."""
    folder = Path("/run/netns")
    names = os.listdir(folder) if folder.is_dir() else []
    return {Thing("network namespace", name, f"{folder}/{name}") for name in names}


def mounts() -> set[Thing]:
    """Return the mounts of this process's mount namespace."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        number, _, _, _, point, *_ = line.split()
        found.add(Thing("mount", f"{number}:{point}", point))
    return found


def cgroups() -> set[Thing]:
    """Return the control groups, of every hierarchy, whose name says that they are ours."""
    top = Path("/sys/fs/cgroup")
    levels = [top, *(path for path in _folders(top) if (path / "cgroup.procs").exists())]
    return {
        Thing("cgroup", str(path), str(path))
        for level in levels
        for path in _folders(level)
        if path.name.startswith("dray")
    }


def cgroup_processes(path: Path) -> set[int]:
    """Return the processes in a control group and in those below it."""
    found: set[int] = set()
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):  # it went in the meantime
            found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
    return found


def containers(sockets: Iterable[str]) -> set[Thing]:
    """Return the containers, also stopped ones, of every engine that answers."""
    found = set()
    for path in sorted(set(sockets)):
        for container in _get(path, "/containers/json?all=1"):
            text = f"{container['Id'][:12]} {container['Names'][:1]} {container['Image']} on {path}"
            found.add(Thing("container", f"{path}:{container['Id']}", text))
    return found


class _EngineConnection(http.client.HTTPConnection):
    """HTTP to an engine's Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ENGINE_TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        """Connect to the Unix socket in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ENGINE_TIMEOUT_S)
        self.sock.connect(self.path)


def _get(path: str, url: str) -> list[dict[str, str]]:
    """Return the engine's answer, or nothing when no engine answers at all."""
    connection = _EngineConnection(path)
    try:
        connection.request("GET", url)
        answer = json.loads(connection.getresponse().read())
    except OSError:
        return []
    finally:
        connection.close()
    assert isinstance(answer, list), answer
    return answer


def _folders(path: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(path) if entry.is_dir()]
    except OSError:
        return []


def _target(thread: threading.Thread) -> str:
    """Return `path:line` of what a thread runs, as far as Python knows it."""
    target = getattr(thread, "_target", None)
    code = getattr(target, "__code__", None)
    return f"running {code.co_filename}:{code.co_firstlineno}" if code else ""
