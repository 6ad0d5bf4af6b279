"""How does the core say what is to be done: datagrams with news on them, and timers?

One outbox is shared by the parts of a core. It collects the effects of an event, in order, and
signs, fills and bounds everything that is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dray.model import Member, MemberState
from node.gossip.core import (
    DATAGRAM_BYTES_MAX,
    Address,
    AnswerStream,
    Effect,
    MemberChanged,
    SendDatagram,
)
from node.gossip.datagrams import encode, encode_rumour
from node.gossip.facts import FactStore
from node.gossip.identity import Identity
from node.gossip.members import rumour_of
from node.gossip.messages import Gossip, Message, cluster_tag
from node.gossip.parameters import Parameters
from node.gossip.roster import Roster
from node.gossip.spread import SpreadQueue, sends_max
from node.gossip.timers import Timers

__all__ = ["Outbox", "address_of"]

SEQUENCES: Final = 2**32


def address_of(member: Member) -> Address:
    """Return where a member's gossip listens."""
    return Address(member.address, member.gossip_port)


class Outbox:
    """The effects of the event that is being handled, and what they are made with."""

    def __init__(
        self, identity: Identity, parameters: Parameters, store: FactStore, roster: Roster
    ) -> None:
        self.identity = identity
        self.parameters = parameters
        self.queue = SpreadQueue()
        self.timers = Timers()
        self.tag = cluster_tag(identity.cluster_id)
        self._store = store
        self._roster = roster
        self._sequence = 0
        self._effects: list[Effect] = []
        self._is_member_changed = False

    def take(self) -> tuple[list[Effect], bool]:
        """Return the effects since the last call, and whether a member changed among them."""
        effects, self._effects = self._effects, []
        is_changed, self._is_member_changed = self._is_member_changed, False
        return effects, is_changed

    def add(self, effect: Effect) -> None:
        """Add an effect."""
        self._is_member_changed |= isinstance(effect, MemberChanged)
        self._effects.append(effect)

    def arm(self, kind: str, about: str, at_s: float) -> None:
        """Arm a timer; an earlier one of the same kind and member no longer counts."""
        self._effects.append(self.timers.arm_for(kind, about, at_s))

    def next_sequence(self) -> int:
        """Return the number of a new request."""
        self._sequence = (self._sequence + 1) % SEQUENCES
        return self._sequence

    def me(self) -> Member:
        """Return this node as a member."""
        me = self._store.member(self.identity.node_id)
        assert me is not None, "a node is always a member of its own view"
        return me

    def compose(self, message: Message, items: Iterable[bytes] = ()) -> bytes:
        """Return a signed message without news."""
        sender = self.identity.sender(self.me().incarnation)
        return encode(self.tag, sender, self._store.digest, message, items)

    def room_bytes(self) -> int:
        """Return how many bytes of items fit a datagram that carries nothing else."""
        return DATAGRAM_BYTES_MAX - len(self.compose(Gossip()))

    def send(self, to: Address, message: Message, items: Iterable[bytes] = ()) -> None:
        """Send a message with `items`, and as much news as fits beside them."""
        data = self.compose(message, items)
        if len(self.queue):
            times_max = sends_max(self._roster.present + 1, self.parameters.spread_factor)
            news = self.queue.take(DATAGRAM_BYTES_MAX - len(data), times_max)
            data += b"".join(news)
        assert len(data) <= DATAGRAM_BYTES_MAX, "items are chosen to fit"
        self._effects.append(SendDatagram(to, data))

    def send_to_member(
        self, member: Member, message: Message, items: tuple[bytes, ...] = ()
    ) -> None:
        """Send to a member and, if we do not hold it to be alive, tell it so: it may refute."""
        self.send(address_of(member), message, self._with_state(member) + items)

    def compose_to_member(self, member: Member, message: Message) -> bytes:
        """Return a message for a stream to a member, with what it is held to be."""
        return self.compose(message, self._with_state(member))

    def answer(self, stream_id: int, message: Message, items: Iterable[bytes] = ()) -> None:
        """Answer a peer's request on a stream."""
        self._effects.append(AnswerStream(stream_id, self.compose(message, items)))

    def _with_state(self, member: Member) -> tuple[bytes, ...]:
        if member.state is MemberState.ALIVE:
            return ()
        return (encode_rumour(rumour_of(member)),)
