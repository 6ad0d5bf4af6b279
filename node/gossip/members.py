"""Which of two rumours about a member wins, and who is probed next?

A rumour says what a member is, as of one (life, incarnation). Of two about one member the higher
(life, incarnation, state) wins, where LEFT outranks DEAD, then come STALLED, SUSPECT and ALIVE.
That is a total order, so rumours can arrive in any order, twice or not at all, and whoever has
heard the same set of them believes the same. Only the member itself raises its incarnation: to
refute. A restart is a new life and outranks everything about the old one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dray.model import Member, MemberState, ReachKind
from dray.names import NodeId
from node.gossip.core import Address, Rng

__all__ = [
    "INCARNATION_MAX",
    "LIFE_MAX",
    "SPREAD_STATES",
    "ProbeOrder",
    "Rumour",
    "after_rumour",
    "announced",
    "is_here",
    "precedence",
    "rumour_of",
    "sample",
]

LIFE_MAX: Final = 2**63 - 1
INCARNATION_MAX: Final = 2**32 - 1

SPREAD_STATES: Final = (
    MemberState.ALIVE,
    MemberState.SUSPECT,
    MemberState.STALLED,
    MemberState.DEAD,
    MemberState.LEFT,
)
_RANK: Final = {state: rank for rank, state in enumerate(SPREAD_STATES)}
_HERE: Final = frozenset((MemberState.ALIVE, MemberState.SUSPECT, MemberState.STALLED))


@dataclass(frozen=True, slots=True)
class Rumour:
    """What is said of a member.

    Attributes:
        node_id: The member.
        life: Life that it is about, 1 to `LIFE_MAX`.
        incarnation: Incarnation that it is about, 0 to `INCARNATION_MAX`.
        state: One of `SPREAD_STATES`.
        name: The member's name, with ALIVE; else empty.
        address: Where its gossip listens, with ALIVE; else None.
        accuser: With SUSPECT, STALLED and DEAD: who says so, first hand; None: hearsay.
        reach: What the accuser's probes found.
    """

    node_id: NodeId
    life: int
    incarnation: int
    state: MemberState
    name: str = ""
    address: Address | None = None
    accuser: NodeId | None = None
    reach: ReachKind | None = None


def precedence(about: Rumour | Member) -> tuple[int, int, int]:
    """Return what orders two claims about one member: the greater wins."""
    return (about.life, about.incarnation, _RANK[about.state])


def is_here(member: Member) -> bool:
    """Return whether a member counts as present: it is probed, helps, and is in the digest."""
    return member.state in _HERE


def rumour_of(member: Member, *, as_alive: bool = False) -> Rumour:
    """Return what we would say of a member.

    With `as_alive` a suspicion is left out: whoever does not know the member learns where it is.
    """
    if member.state is MemberState.ALIVE or (as_alive and is_here(member)):
        return Rumour(
            member.node_id,
            member.life,
            member.incarnation,
            MemberState.ALIVE,
            member.name,
            Address(member.address, member.gossip_port),
        )
    return Rumour(
        member.node_id,
        member.life,
        member.incarnation,
        member.state,
        accuser=member.heard_from,
        reach=member.heard_reach,
    )


def is_daemon_down(member: Member) -> bool:
    """Return whether a dead member's kernel was found to run on without its daemon.

    This node's own finding counts, and what was said of it where it has none.
    """
    own = member.seen if member.seen is not ReachKind.ANSWERED else None
    return member.state is MemberState.DEAD and (own or member.heard_reach) is ReachKind.REFUSED


def announced(member: Member) -> tuple[MemberState, int, str, int]:
    """Return what of a member is announced (`MemberChanged`) when it changes."""
    return (member.state, member.life, member.address, member.gossip_port)


def after_rumour(known: Member, rumour: Rumour, now_s: float, *, is_direct: bool) -> Member:
    """Return a member as it is after a rumour that outranks what was known.

    `is_direct`: the member said so itself, so that what others said of it stays as it was.
    """
    is_new_state = rumour.state is not known.state
    member = dataclasses.replace(
        known,
        life=rumour.life,
        incarnation=rumour.incarnation,
        state=rumour.state,
        heard_state=known.heard_state if is_direct else rumour.state,
        heard_from=rumour.accuser,
        heard_reach=rumour.reach,
        state_since_s=now_s if is_new_state else known.state_since_s,
    )
    if rumour.address is not None:
        host, port = rumour.address.host, rumour.address.port
        member = dataclasses.replace(member, name=rumour.name, address=host, gossip_port=port)
    if known.state is MemberState.DEAD and is_here(member):
        member = dataclasses.replace(member, flaps=known.flaps + 1)
    if rumour.life > known.life:
        member = dataclasses.replace(
            member, seen=None, seen_at_s=0.0, last_contact_at_s=None, rtt_s=None
        )
    return member


def sample(rng: Rng, items: Sequence[NodeId], count: int, *, but: NodeId | None) -> list[NodeId]:
    """Return up to `count` different items, never `but`, in random order. Costs O(count)."""
    chosen: list[NodeId] = []
    swapped: dict[int, int] = {}
    end = len(items)
    while end > 0 and len(chosen) < count:
        at = rng.randrange(end)
        end -= 1
        item = items[swapped.get(at, at)]
        swapped[at] = swapped.get(end, end)
        if item != but:
            chosen.append(item)
    return chosen


class ProbeOrder:
    """Whose turn it is: everybody once a round, in an order drawn anew for every round.

    A member that appears takes a random place in the rest of the round, so that the longest time
    between two probes of one member is two rounds. A round has at most `places_max` places.
    """

    def __init__(self, rng: Rng, places_max: int) -> None:
        self._rng = rng
        self._places_max = places_max
        self._left: list[NodeId] = []

    def __len__(self) -> int:
        return len(self._left)

    def add(self, node_id: NodeId) -> None:
        """Give a new member a place in the current round."""
        if len(self._left) < self._places_max and node_id not in self._left:
            self._left.insert(self._rng.randrange(len(self._left) + 1), node_id)

    def next(self, present: Sequence[NodeId], is_wanted: Callable[[NodeId], bool]) -> NodeId | None:
        """Return the next member to probe, or None when nobody is wanted.

        Args:
            present: Who the next round consists of, when this one is at its end; no duplicates.
            is_wanted: Whether a member is (still) to be probed.
        """
        for _ in range(2):
            while self._left:
                node_id = self._left.pop()
                if is_wanted(node_id):
                    return node_id
            self._left = sample(self._rng, present, len(present), but=None)
        return None
