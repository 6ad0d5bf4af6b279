"""What do `up`, `scale`, `diff` and their like say has changed, or would change? Pure views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cli.texts import counted, word
from cli.views import Table

if TYPE_CHECKING:
    from dray.views import PendingExplanation, PlannedAction, ServiceChange, SpecChange

__all__ = ["ChangesView", "DiffView", "PlanView", "change_lines", "pending_lines", "plain_pending"]

VALUE_SHOWN_MAX: Final = 60  # characters of one value in a line for people


def change_lines(project: str, changes: Sequence[ServiceChange]) -> list[str]:
    """Return one line a service that a write changed, and those below it for each difference."""
    lines: list[str] = []
    for change in changes:
        revision = f" (revision {change.revision})" if change.revision else ""
        lines.append(f"{project}/{change.service} {word(change.kind)}{revision}")
        lines += [f"    {_difference(each)}" for each in change.changes]
    return lines


def _difference(change: SpecChange) -> str:
    after = _short(change.after) if change.after else "(not set)"
    before = f"{_short(change.before)} → " if change.before else ""
    return f"{change.path}: {before}{after}{' *' if change.replaces_tasks else ''}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= VALUE_SHOWN_MAX else f"{line[: VALUE_SHOWN_MAX - 1]}…"


def pending_lines(pending: Sequence[PendingExplanation]) -> list[str]:
    """Return why slots are pending: the summary, nodes by reason, and what would help."""
    lines: list[str] = []
    for each in pending:
        slots = ", ".join(f"{slot.service}.{slot.slot}" for slot in each.slots[:10])
        more = f" and {len(each.slots) - 10} more" if len(each.slots) > 10 else ""
        lines.append(f"{slots}{more}: {each.summary}")
        lines += [
            f"    {count.text or counted(count.nodes, 'node') + f': {count.reason}'}"
            for count in each.refusals
        ]
        if each.smallest_change:
            lines.append(f"    would fit: {each.smallest_change}")
    return lines


def plain_pending(pending: Sequence[PendingExplanation]) -> list[dict[str, object]]:
    """Return the same for programs, one object a group of slots."""
    return [
        {
            "slots": [f"{slot.project}/{slot.service}.{slot.slot}" for slot in each.slots],
            "summary": each.summary,
            "refusals": [
                {"reason": count.reason, "nodes": count.nodes, "text": count.text}
                for count in each.refusals
            ],
            "nodes": [{"node": node.node, "reasons": list(node.reasons)} for node in each.nodes],
            "smallest_change": each.smallest_change,
        }
        for each in pending
    ]


def _plain_changes(changes: Sequence[SpecChange]) -> list[dict[str, object]]:
    return [
        {
            "path": each.path,
            "before": each.before,
            "after": each.after,
            "replaces_tasks": each.replaces_tasks,
        }
        for each in changes
    ]


@dataclass(frozen=True, slots=True)
class ChangesView:
    """What a write did to services of a project."""

    project: str
    revision: int
    changes: Sequence[ServiceChange]

    def table(self) -> Table:
        """Return one row a service."""
        return Table(
            ("SERVICE", "CHANGE", "REVISION"),
            tuple(
                (f"{self.project}/{each.service}", word(each.kind), str(each.revision or ""))
                for each in self.changes
            ),
        )

    def plain(self) -> object:
        """Return an object with one entry a service."""
        return {
            "project": self.project,
            "revision": self.revision,
            "services": [
                {
                    "service": each.service,
                    "change": word(each.kind),
                    "revision": each.revision,
                    "old_revision": each.old_revision,
                    "changes": _plain_changes(each.changes),
                }
                for each in self.changes
            ],
        }


@dataclass(frozen=True, slots=True)
class PlanView:
    """What the leader would do."""

    actions: Sequence[PlannedAction]
    unplaced: Sequence[PendingExplanation] = ()

    def table(self) -> Table:
        """Return one row an action."""
        return Table(
            ("SLOT", "ACTION", "FROM", "TO", "REASON"),
            tuple(
                (
                    f"{each.slot.project}/{each.slot.service}.{each.slot.slot}",
                    word(each.kind),
                    each.from_node,
                    each.to_node,
                    each.reason,
                )
                for each in self.actions
            ),
        )

    def plain(self) -> object:
        """Return an object with the actions and the slots for which there is no room."""
        return {
            "actions": [
                {
                    "project": each.slot.project,
                    "service": each.slot.service,
                    "slot": each.slot.slot,
                    "action": word(each.kind),
                    "from": each.from_node,
                    "to": each.to_node,
                    "reason": each.reason,
                }
                for each in self.actions
            ],
            "unplaced": plain_pending(self.unplaced),
        }


@dataclass(frozen=True, slots=True)
class DiffView:
    """What differs between two revisions of a service."""

    from_revision: int
    to_revision: int
    changes: Sequence[SpecChange]

    def table(self) -> Table:
        """Return one row a difference."""
        return Table(
            ("WHAT", f"REVISION {self.from_revision}", f"REVISION {self.to_revision}", "TASKS"),
            tuple(
                (
                    each.path,
                    each.before,
                    each.after,
                    "replaced" if each.replaces_tasks else "kept",
                )
                for each in self.changes
            ),
        )

    def plain(self) -> object:
        """Return an object with the revisions and the differences."""
        return {
            "from_revision": self.from_revision,
            "to_revision": self.to_revision,
            "changes": _plain_changes(self.changes),
        }
