"""Who else is there? The other members, as rumours about them come in.

The roster applies the rule of `members.precedence`, keeps who is present and who is gone, and says
what changed. What follows from a change (timers, news, effects) is the core's.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dray.model import MEMBERS_MAX, Member, MemberState
from dray.names import NodeId
from node.gossip.core import Address, Rng
from node.gossip.facts import FactStore
from node.gossip.members import (
    LIFE_MAX,
    ProbeOrder,
    Rumour,
    after_rumour,
    is_here,
    precedence,
    sample,
)

__all__ = ["MEMBERS_KNOWN_MAX", "Change", "Roster"]

MEMBERS_KNOWN_MAX: Final = MEMBERS_MAX + MEMBERS_MAX // 4  # present ones, and those remembered
NEXT_TOLD: Final = 2  # on the ring, of those that news goes to: one of two datagrams may be lost


@dataclass(frozen=True, slots=True)
class Change:
    """What a rumour changed. `before` is None for a member that was not known."""

    before: Member | None
    after: Member


class Roster:
    """The other members. They are kept in the store, which views show; here is who counts."""

    def __init__(self, store: FactStore, rng: Rng) -> None:
        self._store = store
        self._rng = rng
        self._present: list[NodeId] = []  # alive, suspect or stalled; sorted
        self._gone_at_s: dict[NodeId, float] = {}  # dead and left, oldest first
        self._order = ProbeOrder(rng, MEMBERS_KNOWN_MAX)
        self._addresses: dict[tuple[str, int], int] = {}  # of those present: how many have it
        self._forgotten: list[NodeId] = []

    @property
    def present(self) -> int:
        """How many others are present."""
        return len(self._present)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how large each part is, and how large it may become."""
        return {
            "members": (len(self._store), MEMBERS_KNOWN_MAX),
            "present": (len(self._present), MEMBERS_KNOWN_MAX),
            "gone": (len(self._gone_at_s), MEMBERS_KNOWN_MAX),
            "order": (len(self._order), MEMBERS_KNOWN_MAX),
        }

    def is_present(self, node_id: NodeId) -> bool:
        """Return whether this other member is present."""
        at = bisect_left(self._present, node_id)
        return at < len(self._present) and self._present[at] == node_id

    def next_target(self) -> Member | None:
        """Return whose turn to be probed it is, or None when nobody is present."""
        node_id = self._order.next(self._present, self.is_present)
        return self._store.member(node_id) if node_id is not None else None

    def sample(self, count: int, but: NodeId | None = None) -> list[Member]:
        """Return up to `count` present members in random order, never `but`."""
        chosen = sample(self._rng, self._present, count, but=but)
        members = (self._store.member(node_id) for node_id in chosen)
        return [member for member in members if member is not None]

    def to_tell(self, me: NodeId, count: int) -> list[Member]:
        """Return whom this node tells news: the next living members on the ring, others at random.

        Random choices alone leave somebody out in one update of ten at 64 nodes, who then waits
        for a digest. The ring leaves nobody out: whoever knows tells its next ones. At least one of
        `count` is random, so that news is everywhere soon.
        """
        chosen: list[Member] = []
        next_count = min(NEXT_TOLD, count - 1)
        for node_id in self.present_from(me):
            if len(chosen) >= next_count:
                break
            member = self._store.member(node_id)
            if member is not None and member.state is MemberState.ALIVE:
                chosen.append(member)
        told = {member.node_id for member in chosen}
        chosen += [member for member in self.sample(count) if member.node_id not in told]
        return chosen[:count]

    def random_dead(self) -> Member | None:
        """Return one of those that died without leaving, or None."""
        members = (self._store.member(node_id) for node_id in sorted(self._gone_at_s))
        dead = [m for m in members if m is not None and m.state is MemberState.DEAD]
        return dead[self._rng.randrange(len(dead))] if dead else None

    def present_from(self, node_id: NodeId) -> Iterator[NodeId]:
        """Yield the other present members once, in the order of the ring that follows an id."""
        at = bisect_left(self._present, node_id)
        for step in range(len(self._present)):
            found = self._present[(at + step) % len(self._present)]
            if found != node_id:
                yield found

    def present_before(self, node_id: NodeId) -> Iterator[NodeId]:
        """Yield the other present members once, in the order of the ring that leads to an id."""
        at = bisect_left(self._present, node_id)
        for step in range(1, len(self._present) + 1):
            found = self._present[(at - step) % len(self._present)]
            if found != node_id:
                yield found

    def is_address_present(self, address: Address) -> bool:
        """Return whether a present member has this address."""
        return (address.host, address.port) in self._addresses

    def take_forgotten(self) -> list[NodeId]:
        """Return who was forgotten since this was last asked."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def expect(self, node_id: NodeId) -> None:
        """Make room for what is to be said of a member that may not be known."""
        if self._store.member(node_id) is None and len(self._store) < MEMBERS_KNOWN_MAX:
            member = Member(node_id, "", "", 0, 0, 0, MemberState.LEFT)
            self._store.put_member(member)
            self._gone_at_s[node_id] = 0.0

    def believe(self, rumour: Rumour, now_s: float, *, is_direct: bool) -> Change | None:
        """Take a rumour about another member if it is news; return what it changed.

        About a member that is not known only one that says where it is counts.
        """
        known = self._store.member(rumour.node_id)
        if known is None:
            if rumour.address is None or not self._has_room():
                return None
            host, port = rumour.address.host, rumour.address.port
            after = Member(
                rumour.node_id,
                rumour.name,
                host,
                port,
                rumour.life,
                rumour.incarnation,
                rumour.state,
                state_since_s=now_s,
            )
        elif precedence(rumour) > precedence(known):
            after = after_rumour(known, rumour, now_s, is_direct=is_direct)
        else:
            return None
        self._store.put_member(after)
        self._sort_in(known, after, now_s)
        return Change(known, after)

    def adopt(self, me: NodeId) -> None:
        """Take over the members of the store, all of them present, as the others of `me`."""
        assert not self._present, "nobody is known yet"
        self._present = sorted(node_id for node_id in self._store if node_id != me)
        for node_id in self._present:
            member = self._store.member(node_id)
            assert member is not None, "the store has what it lists"
            self._count_address((member.address, member.gossip_port), 1)

    def forget_gone(self, before_s: float) -> None:
        """Forget the members that went before this time, with all their facts."""
        for node_id in [node_id for node_id, at_s in self._gone_at_s.items() if at_s < before_s]:
            member = self._store.member(node_id)
            if member is not None and member.life < LIFE_MAX:  # who was removed stays so
                self._forget(node_id)

    def _sort_in(self, before: Member | None, after: Member, now_s: float) -> None:
        node_id = after.node_id
        for member, count in ((before, -1), (after, 1)):
            if member is not None and is_here(member):
                self._count_address((member.address, member.gossip_port), count)
        was_here = before is not None and is_here(before)
        if is_here(after) and not was_here:
            insort(self._present, node_id)
            self._order.add(node_id)
            self._gone_at_s.pop(node_id, None)
        elif not is_here(after):
            if was_here:
                del self._present[bisect_left(self._present, node_id)]
            self._gone_at_s.setdefault(node_id, now_s)

    def _count_address(self, address: tuple[str, int], count: int) -> None:
        count += self._addresses.get(address, 0)
        if count:
            self._addresses[address] = count
        else:
            del self._addresses[address]

    def _has_room(self) -> bool:
        """Return whether one more member can be present; who is gone longest makes room."""
        if len(self._present) + 1 >= MEMBERS_MAX:
            return False
        if len(self._store) >= MEMBERS_KNOWN_MAX:
            self._forget(next(iter(self._gone_at_s)))
        return True

    def _forget(self, node_id: NodeId) -> None:
        del self._gone_at_s[node_id]
        self._forgotten.append(node_id)
        self._store.forget_member(node_id)
