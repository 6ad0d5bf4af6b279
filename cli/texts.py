"""How are times, sizes, states and shares written for people and for programs? Pure functions."""

from __future__ import annotations

import datetime
import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dray.model import NodeCapacity

__all__ = [
    "age",
    "bytes_text",
    "counted",
    "cpus",
    "instant",
    "plain_capacity",
    "reserved_texts",
    "word",
]

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEPS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def word(value: enum.Enum | None) -> str:
    """Return an enumeration's value as users write it: lower case; empty for None."""
    return "" if value is None else value.name.lower()


def instant(unix_s: float) -> str:
    """Return a moment as ISO 8601 in UTC, to the millisecond; empty for 0: not known."""
    if not unix_s:
        return ""
    moment = datetime.datetime.fromtimestamp(unix_s, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(unix_s: float, now_s: float) -> str:
    """Return how long ago a moment was, in one unit: "5 s", "3 h"; empty for 0: not known."""
    if not unix_s:
        return ""
    passed_s = max(0.0, now_s - unix_s)
    for step_s, unit in _STEPS:
        if passed_s >= step_s:
            return f"{passed_s / step_s:.0f} {unit}"
    return "0 s"


def bytes_text(size: int) -> str:
    """Return a size with three digits at most: "512 MiB"."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    digits = 0 if unit == 0 or value >= 100 else 1
    return f"{value:.{digits}f} {_UNITS[unit]}"


def cpus(millis: int) -> str:
    """Return thousandths of a CPU as CPUs: "0.5"."""
    return f"{millis / 1000:.3f}".rstrip("0").rstrip(".") or "0"


def reserved_texts(part: NodeCapacity | None, whole: NodeCapacity | None) -> tuple[str, str]:
    """Return what is taken of CPU and memory: "1.5 of 4", "2.0 GiB of 8.0 GiB"."""
    if whole is None:
        return "unknown", "unknown"
    cpu_millis, memory_bytes = (part.cpu_millis, part.memory_bytes) if part else (0, 0)
    memory = f"{bytes_text(memory_bytes)} of {bytes_text(whole.memory_bytes)}"
    return f"{cpus(cpu_millis)} of {cpus(whole.cpu_millis)}", memory


def plain_capacity(capacity: NodeCapacity | None) -> dict[str, object] | None:
    """Return amounts for programs; None: unknown."""
    if capacity is None:
        return None
    return {
        "cpu_millis": capacity.cpu_millis,
        "memory_bytes": capacity.memory_bytes,
        "disk_bytes": capacity.disk_bytes,
        "pids": capacity.pids,
        "gpus": len(capacity.gpus),
        "tasks_max": capacity.tasks_max,
    }


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 task", "2 tasks"."""
    return f"{number} {noun}{'s' * (number != 1)}"
