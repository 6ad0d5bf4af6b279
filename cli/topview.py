"""What does `dray top` show? A fold of what a watch tells, and the rows that fit; pure."""

from __future__ import annotations

import enum
import heapq
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from cli.texts import age, bytes_text, cpus, word
from cli.views import Table
from dray.views import SlotState

if TYPE_CHECKING:
    from dray.model import SlotKey
    from dray.views import Node, ObjectChange, Task

__all__ = ["TaskOrder", "TopState"]

K = TypeVar("K")
V = TypeVar("V")

LINES_AROUND: Final = 7  # summary, headings, space and keys
ROWS_MIN: Final = 2  # of each table, however small the terminal
_BAR: Final = 10  # characters
_WELL: Final = frozenset({SlotState.RUNNING, SlotState.COMPLETED})


class TaskOrder(enum.Enum):
    """What tasks are sorted by, behind those that are not well."""

    CPU = "c"
    MEMORY = "m"
    SLOT = "s"


class TopState:
    """Nodes and tasks as they are now.

    Attributes:
        order: What tasks are sorted by.
        is_known: Whether all has been told once.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.order = TaskOrder.CPU
        self.is_known = False
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
        states = Counter(task.state for task in self._tasks.values())
        counts = ", ".join(
            f"{count} {word(state)}" for state, count in sorted(states.items(), key=_by_name)
        )
        return f"{ready} of {len(self._nodes)} nodes ready · {counts or 'no tasks'}"

    def use(self) -> str:
        """Return what all nodes that report use together, in one line."""
        told = [(node.info, node.usage) for node in self._nodes.values()]
        known = [(info.capacity, use) for info, use in told if info is not None and use is not None]
        cpu = sum(use.cpu_millis for _, use in known), sum(all_.cpu_millis for all_, _ in known)
        memory = (
            sum(use.memory_bytes for _, use in known),
            sum(all_.memory_bytes for all_, _ in known),
        )
        return (
            f"CPU {_bar(*cpu)} {cpus(cpu[0])} of {cpus(cpu[1])}   "
            f"memory {_bar(*memory)} {bytes_text(memory[0])} of {bytes_text(memory[1])}"
        )

    def tables(self, lines: int, now_s: float) -> tuple[Table, Table]:
        """Return nodes and tasks, as many rows as fit.

        Args:
            lines: Height of the terminal.
            now_s: The wall clock.
        """
        rows = max(0, lines - LINES_AROUND)
        nodes = self.nodes(max(ROWS_MIN, rows // 3, rows - len(self._tasks)))
        return nodes, self.tasks(max(ROWS_MIN, rows - len(nodes.rows)), now_s)

    def nodes(self, rows_max: int) -> Table:
        """Return the nodes by name, at most so many rows; those that are not well come first."""
        found = sorted(self._nodes.values(), key=lambda node: (_is_well(node), node.record.name))
        return Table(
            ("NODE", "CONDITION", "CPU", "MEMORY", "TASKS"),
            tuple(_node_row(node) for node in found[:rows_max]),
        )

    def tasks(self, rows_max: int, now_s: float) -> Table:
        """Return the tasks, those that are not well first, then in order, at most so many rows."""
        found = heapq.nsmallest(rows_max, self._tasks.values(), key=self._rank)
        return Table(
            ("SLOT", "STATE", "NODE", "CPU", "MEMORY", "SINCE"),
            tuple(_task_row(task, now_s) for task in found),
        )

    def _rank(self, task: Task) -> tuple[bool, int, SlotKey]:
        usage = task.usage
        used = 0
        if usage is not None and self.order is not TaskOrder.SLOT:
            used = usage.cpu_millis if self.order is TaskOrder.CPU else usage.memory_bytes
        return (task.state in _WELL, -used, task.slot)


def _share(part: int, whole: int) -> float:
    """Return which part of a whole is used, 0 to 1; 0 when the whole is not known."""
    return min(1.0, part / whole) if whole else 0.0


def _by_name(counted: tuple[SlotState, int]) -> str:
    return word(counted[0])


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
    availability = word(node.record.availability)
    aside = "" if availability == "active" else f", {availability}"
    condition = f"{word(node.condition)}{aside}{faults}"
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
    filled = round(_share(part, whole) * _BAR)
    return "█" * filled + "░" * (_BAR - filled)


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
