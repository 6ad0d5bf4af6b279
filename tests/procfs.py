"""What does /proc say about processes? Small readers that take a vanished process for none."""

from __future__ import annotations

import os
from pathlib import Path


def pids() -> set[int]:
    """Return the ids of all processes that this PID namespace shows."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def start(pid: int) -> str:
    """Return a process's start time in clock ticks since boot, or "" when it is gone."""
    fields = stat(pid)
    return fields[19] if fields else ""


def is_running(pid: int) -> bool:
    """Return whether a process exists and is more than a zombie."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def command(pid: int) -> str:
    """Return the start of a process's command line, or "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200].strip()
    except OSError:
        return ""


def variable(pid: int, name: str) -> str | None:
    """Return a variable of the environment that a process started with, if we may read it."""
    prefix = f"{name}=".encode()
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    found = [entry for entry in entries if entry.startswith(prefix)]
    return found[0].removeprefix(prefix).decode(errors="replace") if found else None


def descends(pid: int, ancestor: int) -> bool:
    """Return whether a process lies below another one."""
    while pid > 1:
        fields = stat(pid)
        if not fields:
            return False
        pid = int(fields[1])
        if pid == ancestor:
            return True
    return False


def descendants(top: int) -> set[int]:
    """Return every process below another one."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        fields = stat(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    waiting = [top]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting.extend(below)
    return found
