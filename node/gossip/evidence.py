"""What do this node's own probes find of others? The evidence that the leader judges by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dray.model import ReachKind
from dray.names import NodeId

__all__ = ["Evidence", "Finding"]

RECENT_S: Final = 60.0  # so long the return of somebody is evidence as well


@dataclass(frozen=True, slots=True)
class Finding:
    """What came back from one member.

    Attributes:
        life: Life of the member that was probed.
        reach: What came back, always the same `since_s`.
        since_s: Monotonic time of the first such finding.
        at_s: Of the latest.
    """

    life: int
    reach: ReachKind
    since_s: float
    at_s: float

    def is_told(self, now_s: float) -> bool:
        """Return whether it is news to anybody: not reached, or reached again lately."""
        return self.reach is not ReachKind.ANSWERED or now_s - self.since_s < RECENT_S


class Evidence:
    """The newest finding of each member that was probed. Hearsay never enters."""

    def __init__(self) -> None:
        self._findings: dict[NodeId, Finding] = {}
        self.number = 0  # of changes, so far

    def __len__(self) -> int:
        return len(self._findings)

    def note(self, node_id: NodeId, life: int, reach: ReachKind, now_s: float) -> bool:
        """Take a finding; return whether it differs from the one before."""
        old = self._findings.get(node_id)
        is_same = old is not None and (old.life, old.reach) == (life, reach)
        since_s = old.since_s if old is not None and is_same else now_s
        self._findings[node_id] = Finding(life, reach, since_s, now_s)
        was_fine = old is None or old.reach is ReachKind.ANSWERED
        if is_same or (was_fine and reach is ReachKind.ANSWERED):
            return False
        self.number += 1
        return True

    def of(self, node_id: NodeId, life: int) -> Finding | None:
        """Return the finding about one life of a member, or None."""
        finding = self._findings.get(node_id)
        return finding if finding is not None and finding.life == life else None

    def forget(self, node_id: NodeId) -> None:
        """Forget a member."""
        self._findings.pop(node_id, None)
