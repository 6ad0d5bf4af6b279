"""When was each member last heard directly, and how long do its answers take?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dray.names import NodeId

__all__ = ["Contact", "Contacts"]

RTT_GAIN: Final = 1 / 8  # RFC 6298, section 2
VARIANCE_GAIN: Final = 1 / 4
VARIANCES: Final = 8  # twice TCP's: an early question costs four datagrams, not a whole window


@dataclass(slots=True)
class Contact:
    """What this node saw of one member in one life of it.

    Attributes:
        last_s: When anything last came directly from it; None: never.
        answered_s: When it last answered a probe by datagram.
        rtt_s: Smoothed round trip of probes; None: not measured.
        variance_s: Smoothed deviation of it.
        missed: Direct probes by datagram without an answer, since the last answer.
        streamed: Answers on a stream since the last one by datagram.
    """

    last_s: float | None = None
    answered_s: float = float("-inf")
    rtt_s: float | None = None
    variance_s: float = 0.0
    missed: int = 0
    streamed: int = 0

    def note_answer(self, rtt_s: float, now_s: float) -> None:
        """Take the answer to a probe."""
        self.last_s = self.answered_s = now_s
        self.missed = self.streamed = 0
        if self.rtt_s is None:
            self.rtt_s, self.variance_s = rtt_s, rtt_s / 2
            return
        self.variance_s += (abs(self.rtt_s - rtt_s) - self.variance_s) * VARIANCE_GAIN
        self.rtt_s += (rtt_s - self.rtt_s) * RTT_GAIN


class Contacts:
    """The contacts of all members that are known."""

    def __init__(self) -> None:
        self._contacts: dict[NodeId, Contact] = {}
        self._all = Contact()  # of everybody together, for who was not measured yet

    def __len__(self) -> int:
        return len(self._contacts)

    def of(self, node_id: NodeId) -> Contact:
        """Return a member's contact; the caller forgets it with the member."""
        contact = self._contacts.get(node_id)
        if contact is None:
            contact = self._contacts[node_id] = Contact()
        return contact

    def note_answer(self, node_id: NodeId, rtt_s: float, now_s: float) -> Contact:
        """Take the answer to a probe; return the member's contact."""
        self._all.note_answer(rtt_s, now_s)
        contact = self.of(node_id)
        contact.note_answer(rtt_s, now_s)
        return contact

    def timeout_s(self, node_id: NodeId, low_s: float, high_s: float) -> float:
        """Return how long to wait for a member's answer, within limits.

        Who was not measured yet gets twice what the others take; in the middle without others.
        """
        contact, factor = self.of(node_id), 1
        if contact.rtt_s is None:
            contact, factor = self._all, 2
        if contact.rtt_s is None:
            return (low_s + high_s) / 2
        usual_s = contact.rtt_s + VARIANCES * contact.variance_s
        return max(low_s, min(high_s, factor * usual_s))

    def items(self) -> list[tuple[NodeId, Contact]]:
        """Return all of them, by node id."""
        return sorted(self._contacts.items())

    def heard_within(self, node_id: NodeId, duration_s: float, now_s: float) -> bool:
        """Return whether something came directly from it in that time."""
        contact = self._contacts.get(node_id)
        return (
            contact is not None
            and contact.last_s is not None
            and now_s - contact.last_s < duration_s
        )

    def forget(self, node_id: NodeId) -> None:
        """Forget a member, or all that was seen of its older life."""
        self._contacts.pop(node_id, None)
