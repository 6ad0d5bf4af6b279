"""What does `dray top` show? A fold of what a watch tells, and the rows that fit; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from cli.texts import age, bytes_text, cpus, word
from cli.views import Table

if TYPE_CHECKING:
    from dray.model import SlotKey
    from dray.views import Node, ObjectChange, Task

__all__ = ["TopState"]

K = TypeVar("K")
V = TypeVar("V")

ROWS_MIN: Final = 3  # of each table, however small the terminal
_BAR: Final = 10  # characters


class TopState:
    """Nodes and tasks as they are now."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._nodes: dict[str, Node] = {}
        self._tasks: dict[SlotKey, Task] = {}

    def fold(self, changes: Iterable[ObjectChange], *, is_reset: bool = False) -> None:
        """Take changes in their order."""
        if is_reset:
            self._nodes.clear()
            self._tasks.clear()
        for change in changes:
            if change.node is not None:
                _put(self._nodes, change.node.record.node_id, change.node, change.is_deleted)
            if change.task is not None:
                _put(self._tasks, change.task.slot, change.task, change.is_deleted)

    def headline(self) -> str:
        """Return the cluster in one line."""
        ready = sum(node.condition.name == "READY" for node in self._nodes.values())
        running = sum(task.state.name == "RUNNING" for task in self._tasks.values())
        return f"{ready} of {len(self._nodes)} nodes ready, {running} of {len(self._tasks)} running"

    def nodes(self, rows_max: int) -> Table:
        """Return the nodes by name, at most so many rows; those that are not well come first."""
        found = sorted(self._nodes.values(), key=lambda node: (_is_well(node), node.record.name))
        return Table(
            ("NODE", "CONDITION", "CPU", "MEMORY", "TASKS"),
            tuple(_node_row(node) for node in found[: max(ROWS_MIN, rows_max)]),
        )

    def tasks(self, rows_max: int, now_s: float) -> Table:
        """Return the tasks, those that are not well first, then by CPU, at most so many rows."""
        found = sorted(self._tasks.values(), key=_task_order)
        return Table(
            ("SLOT", "STATE", "NODE", "CPU", "MEMORY", "SINCE"),
            tuple(_task_row(task, now_s) for task in found[: max(ROWS_MIN, rows_max)]),
        )


def _put(known: dict[K, V], key: K, value: V, is_deleted: bool) -> None:
    if is_deleted:
        known.pop(key, None)
    else:
        known[key] = value


def _is_well(node: Node) -> bool:
    return node.condition.name == "READY" and not node.faults


def _node_row(node: Node) -> tuple[str, ...]:
    info, usage = node.info, node.usage
    faults = "".join(f", {word(fault.kind)}" for fault in node.faults)
    condition = f"{word(node.condition)}{faults}"
    if info is None or usage is None:
        return (node.record.name, condition, "unknown", "unknown", str(node.tasks))
    capacity = info.capacity
    return (
        node.record.name,
        condition,
        f"{_bar(usage.cpu_millis, capacity.cpu_millis)} {cpus(usage.cpu_millis)}",
        f"{_bar(usage.memory_bytes, capacity.memory_bytes)} {bytes_text(usage.memory_bytes)}",
        str(node.tasks),
    )


def _bar(part: int, whole: int) -> str:
    share = min(1.0, part / whole) if whole else 0.0
    filled = round(share * _BAR)
    return "█" * filled + "░" * (_BAR - filled)


def _task_order(task: Task) -> tuple[bool, int, SlotKey]:
    used = task.usage.cpu_millis if task.usage else 0
    return (task.state.name in ("RUNNING", "COMPLETED"), -used, task.slot)


def _task_row(task: Task, now_s: float) -> tuple[str, ...]:
    slot, usage = task.slot, task.usage
    since = age(task.observed.since_unix_s, now_s) if task.observed else ""
    return (
        f"{slot.project}/{slot.service}.{slot.slot}",
        word(task.state),
        task.node_name,
        f"{usage.cpu_millis / 10:.1f} %" if usage else "",
        bytes_text(usage.memory_bytes) if usage else "",
        since,
    )
