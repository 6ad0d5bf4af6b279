"""When may the table that an earlier daemon left be replaced by one of this daemon's own making?

A daemon that starts knows nothing: its gossip has yet to find peers, which takes as long as it
takes on a busy machine. Nothing heard is not the same as nothing there, so the earlier table serves
on until gossip has heard of somebody and has brought nothing new for a while. Only when nobody is
heard for `HANDOVER_MAX_S` does the node go by what it knows itself. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from dray.model import FactView, Member, MemberState
from dray.names import NodeId

__all__ = ["HANDOVER_MAX_S", "QUIET_S", "Handover"]

HANDOVER_MAX_S: Final = 60.0  # a daemon that has not heard of anybody by then is alone
QUIET_S: Final = 2.0  # gossip brings a full state within one; its pieces come one after another


@dataclass(frozen=True, slots=True)
class Handover:
    """How much has been heard since this daemon started.

    Attributes:
        begun_s: When it began, monotonic.
        known: How many members and services the latest view had.
        quiet_since_s: Since when no more of them came, monotonic; None: nobody was heard yet.
        longest_s: When it ends in any case.
    """

    begun_s: float
    known: tuple[int, int] = (0, 0)
    quiet_since_s: float | None = None
    longest_s: float = HANDOVER_MAX_S

    def seen(
        self, view: FactView, own: NodeId, peers: Collection[NodeId], now_s: float
    ) -> Handover:
        """Return the state after a newer view.

        Args:
            view: What gossip knows.
            own: This node.
            peers: Those that it should hear of; without any, its own services are all there is.
            now_s: Monotonic clock.
        """
        members = tuple(view.members())
        known = (len(members), sum(1 for _ in view.services()))
        has_heard = known[1] > 0 if not peers else any(_is_heard(each, own) for each in members)
        if not has_heard or known == self.known:
            return self
        return replace(self, known=known, quiet_since_s=now_s)

    @property
    def ends_s(self) -> float:
        """When it is over if nothing more is heard, monotonic."""
        last_s = self.begun_s + self.longest_s
        return last_s if self.quiet_since_s is None else min(last_s, self.quiet_since_s + QUIET_S)


def _is_heard(member: Member, own: NodeId) -> bool:
    return member.node_id != own and member.state is MemberState.ALIVE
