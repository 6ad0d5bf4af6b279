"""What does this node publish about itself, and does it stay within its limits?

Only a node writes its own facts, so it alone numbers them: one counter for all its writes of a
life. It is also the one who knows what does *not* hold any more: a deleted fact that turns up again
somewhere (its tombstone is long forgotten) is deleted anew as soon as its owner meets it.
"""

from __future__ import annotations

from typing import Final

from dray.model import FACTS_BYTES_MAX, Fact, FactKey, FactVersion
from dray.names import NodeId
from node.gossip.core import FactRefused, PublishFact
from node.gossip.facts import FactStore, Merge, fact_bytes
from node.gossip.packing import FACT_NAME_BYTES_MAX, FACT_VALUE_BYTES_MAX

__all__ = ["OwnFacts"]

VERSION_MAX: Final = 2**63 - 1


class OwnFacts:
    """The writer of one node's facts, in one life."""

    def __init__(self, store: FactStore, node_id: NodeId, life: int) -> None:
        self._store = store
        self._node_id = node_id
        self._life = life
        self._version = 0

    def key(self, name: str) -> FactKey:
        """Return the key of this node's fact of that name."""
        return FactKey(self._node_id, name)

    def adopt(self) -> None:
        """Go on behind what the store has of this node."""
        facts = self._store.facts_of(self._node_id).facts.values()
        self._version = max((fact.version.version for fact in facts), default=self._version)

    def publish(self, command: PublishFact, now_s: float) -> Fact | FactRefused | None:
        """Write a fact; return it to be spread, None if nothing changes, or why not."""
        known = self._store.facts_of(self._node_id)
        old = known.facts.get(command.name)
        old_value = old.value if old is not None else None
        if old_value == command.value:
            return None
        old_bytes = fact_bytes(command.name, old_value) if old_value is not None else 0
        reason = _refusal(command, known.size_bytes - old_bytes)
        if reason:
            return FactRefused(command.name, reason)
        return self._write(command.name, command.value, self._version + 1, now_s)

    def defend(self, fact: Fact, now_s: float) -> Fact | None:
        """Meet a fact of this node that is newer than what it has: say anew what holds."""
        version = fact.version
        if version.life != self._life or version.version >= VERSION_MAX:
            return None  # written by another daemon with this id, or a lie: cannot be outranked
        old = self._store.facts_of(self._node_id).facts.get(fact.key.name)
        value = old.value if old is not None else None
        return self._write(fact.key.name, value, max(self._version, version.version) + 1, now_s)

    def _write(self, name: str, value: bytes | None, version: int, now_s: float) -> Fact:
        self._version = version
        fact = Fact(FactKey(self._node_id, name), FactVersion(self._life, version), value)
        merged = self._store.merge(fact, now_s)
        assert merged is Merge.TAKEN, f"a node's own new value was {merged.name}"
        return fact


def _refusal(command: PublishFact, others_bytes: int) -> str:
    """Return which limit a publication would break, or an empty text."""
    name_bytes = len(command.name.encode())
    if not 0 < name_bytes <= FACT_NAME_BYTES_MAX:
        return f"its name has {name_bytes} bytes, allowed are 1 to {FACT_NAME_BYTES_MAX}"
    if command.value is None:
        return ""
    if len(command.value) > FACT_VALUE_BYTES_MAX:
        return f"its value has {len(command.value)} bytes, {FACT_VALUE_BYTES_MAX} are the most"
    total_bytes = others_bytes + fact_bytes(command.name, command.value)
    if total_bytes > FACTS_BYTES_MAX:
        return f"all facts would take {total_bytes} bytes, {FACTS_BYTES_MAX} are the most"
    return ""
