"""What does this node know of the cluster, and how do two pieces of knowledge merge?

`FactStore` holds members and facts and makes `View`s of them, the `FactView` that DNS, the network
and the leader's reports read. A view never changes; views share what did not change between them.

Rules of merging facts
- Of two values of one fact the greater (life, version) wins. Two different values with one version
  (nobody honest writes them) are ordered by their bytes, so that all nodes choose the same one.
- A fact of a newer life deletes all facts of older lives of its node; one of an older life than is
  known is refused. So merging is commutative, associative and idempotent.
- A deleted fact leaves a tombstone, dropped after a while. A copy that outlived it somewhere is
  deleted anew by its owner, who learns of it when it meets it (`simple`).
- Facts of nodes that are no members are refused; a member that is forgotten takes its facts along.

Digests: each present member contributes a 64-bit hash of itself and of its facts (not of
tombstones), combined by xor, so that they are kept up to date one change at a time.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dray.model import (
    FACTS_BYTES_MAX,
    EndpointView,
    Fact,
    FactKey,
    FactVersion,
    Member,
    MemberState,
    ServiceFacts,
    ServiceKey,
)
from dray.names import NodeId, id_bytes
from node.gossip.members import is_daemon_down, is_here, precedence
from node.gossip.messages import BUCKETS
from node.gossip.packing import (
    FACT_NAME_BYTES_MAX,
    FACT_VALUE_BYTES_MAX,
    service_of_fact,
    unpack_service,
)
from node.gossip.shards import ShardMap
from node.gossip.wire import CACHE_ITEMS_MAX, Malformed

__all__ = [
    "HISTORY_CHANGES_MAX",
    "NO_FACTS",
    "TOMBSTONES_MAX",
    "FactStore",
    "Merge",
    "NodeFacts",
    "View",
    "bucket_of",
    "fact_bytes",
    "fact_hash",
    "name_hash",
]

HISTORY_CHANGES_MAX: Final = 256  # changes that `changed_since` reaches back
TOMBSTONES_MAX: Final = 512  # of one node; the oldest go first
# A receiver takes twice what a node may publish: an addition can arrive before the deletion that
# made room for it.
RECEIVED_BYTES_MAX: Final = 2 * FACTS_BYTES_MAX
FACTS_PER_NODE_MAX: Final = 2_048  # living ones; as many as there could be of 32 bytes each

_Published = dict[NodeId, ServiceFacts]
_GONE: Final = (MemberState.DEAD, MemberState.LEFT)


class Merge(enum.Enum):
    """What came of merging a fact."""

    TAKEN = 1
    KNOWN = 2
    """The same value, or a newer one, was there already."""
    REFUSED = 3
    """Beyond a limit, or of a node that is no member."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """All facts of one node.

    Attributes:
        life: Life that they are of; 0: none were seen.
        facts: By name; with tombstones.
        digest: Xor of the hashes of the living ones.
        size_bytes: Names and values of the living ones.
        living: How many are not tombstones.
    """

    life: int
    facts: dict[str, Fact]
    digest: int
    size_bytes: int
    living: int


NO_FACTS: Final = NodeFacts(0, {}, 0, 0, 0)


@functools.lru_cache(CACHE_ITEMS_MAX)
def bucket_of(node_id: NodeId) -> int:
    """Return which of the digests a member belongs to."""
    return id_bytes(node_id)[0] * BUCKETS // 256


def name_hash(name: str) -> int:
    """Return the 64-bit hash by which a sync names a fact of a given node."""
    return _hash64(name.encode())


def fact_hash(fact: Fact) -> int:
    """Return what a living fact contributes to its node's digest."""
    return _hash64(
        fact.key.node_id.encode(),
        fact.key.name.encode(),
        b"%d.%d" % (fact.version.life, fact.version.version),
        fact.value or b"",
    )


def fact_bytes(name: str, value: bytes) -> int:
    """Return what a fact counts towards `FACTS_BYTES_MAX`."""
    return len(name.encode()) + len(value)


def _member_hash(member: Member) -> int:
    return _version_hash(member.node_id, member.life, member.incarnation)


@functools.lru_cache(CACHE_ITEMS_MAX)
def _version_hash(node_id: NodeId, life: int, incarnation: int) -> int:
    return _hash64(node_id.encode(), b"%d.%d" % (life, incarnation))


def _hash64(*parts: bytes) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return int.from_bytes(digest.digest(), "big")


def _precedence(fact: Fact) -> tuple[FactVersion, bool, bytes]:
    return (fact.version, fact.value is None, fact.value or b"")


@dataclass(frozen=True, slots=True)
class View:
    """A `FactView`: what was known at one moment.

    `_history` holds (sequence, services) of the latest changes, oldest first; `_complete_from` is
    the sequence from which on nothing is missing in it.
    """

    _sequence: int
    _members: ShardMap[NodeId, Member]
    _facts: ShardMap[NodeId, NodeFacts]
    _services: ShardMap[ServiceKey, _Published]
    _history: tuple[tuple[int, frozenset[ServiceKey]], ...]
    _complete_from: int

    @property
    def sequence(self) -> int:
        """Number of the view on this node."""
        return self._sequence

    def members(self) -> Iterator[Member]:
        """Yield every known member by node id. O(members log members)."""
        for node_id in sorted(self._members):
            member = self._members.get(node_id)
            assert member is not None, "a map that never changes has what it lists"
            yield member

    def member(self, node_id: NodeId) -> Member | None:
        """Return one member, or None."""
        return self._members.get(node_id)

    def services(self) -> Iterator[ServiceKey]:
        """Yield the services that any node publishes, in order."""
        yield from sorted(self._services)

    def service(self, service: ServiceKey) -> ServiceFacts | None:
        """Return what is known of a service as a whole, or None."""
        published = self._services.get(service)
        if published is None:
            return None
        best: ServiceFacts | None = None
        best_rank = (False, 0)
        for node_id in sorted(published):
            facts = published[node_id]
            rank = (self._is_usable(node_id), facts.service_revision)
            if best is None or rank > best_rank:
                best, best_rank = facts, rank
        assert best is not None, "a service is listed while a node publishes it"
        endpoints = tuple(found.endpoint for found in self.endpoints(service))
        return dataclasses.replace(best, endpoints=endpoints)

    def _is_usable(self, node_id: NodeId) -> bool:
        member = self._members.get(node_id)
        return member is not None and member.state not in _GONE

    def endpoints(self, service: ServiceKey) -> tuple[EndpointView, ...]:
        """Return all known endpoints of a service by (slot, node id, task id)."""
        found: list[EndpointView] = []
        for node_id, facts in (self._services.get(service) or {}).items():
            member = self._members.get(node_id)
            assert member is not None, "only members have facts"
            about = (node_id, member.state, is_daemon_down(member))
            found += [EndpointView(endpoint, *about) for endpoint in facts.endpoints]
        found.sort(key=lambda e: (e.endpoint.slot, e.node_id, e.endpoint.task_id))
        return tuple(found)

    def fact(self, key: FactKey) -> Fact | None:
        """Return one fact, or None if it is unknown or deleted."""
        fact = (self._facts.get(key.node_id) or NO_FACTS).facts.get(key.name)
        return fact if fact is not None and fact.value is not None else None

    def changed_since(self, sequence: int) -> frozenset[ServiceKey] | None:
        """Return which services to look at again after view `sequence`; None: all of them."""
        if sequence < self._complete_from or sequence > self._sequence:
            return None
        changed: set[ServiceKey] = set()
        for at, services in reversed(self._history):
            if at <= sequence:
                break
            changed |= services
        return frozenset(changed)


class FactStore:
    """Members and facts as they are now, and the view of them."""

    def __init__(self, first_sequence: int = 0) -> None:
        """Make an empty store.

        Args:
            first_sequence: Number of its first view: above those of a store that it replaces.
        """
        self._members: ShardMap[NodeId, Member] = ShardMap()
        self._facts: ShardMap[NodeId, NodeFacts] = ShardMap()
        self._services: ShardMap[ServiceKey, _Published] = ShardMap()
        self._history: tuple[tuple[int, frozenset[ServiceKey]], ...] = ()
        self._complete_from = first_sequence
        self._sequence = first_sequence
        self._view: View | None = None
        self._changed_keys: set[FactKey] = set()
        self._tombstones: dict[FactKey, float] = {}
        self.bucket_digests: list[int] = [0] * BUCKETS
        self.digest = 0  # the xor of them all
        self.unreadable_facts = 0

    # ---- reading

    def view(self) -> View:
        """Return the view of now; the same object until something changes."""
        if self._view is None:
            self._view = View(
                self._sequence,
                self._members,
                self._facts,
                self._services,
                self._history,
                self._complete_from,
            )
        return self._view

    @property
    def sequence(self) -> int:
        """Number of the view of now."""
        return self._sequence

    @property
    def tombstones(self) -> int:
        """How many deleted facts are still remembered."""
        return len(self._tombstones)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._members)

    def member(self, node_id: NodeId) -> Member | None:
        """Return a member, or None."""
        return self._members.get(node_id)

    def facts_of(self, node_id: NodeId) -> NodeFacts:
        """Return the facts of a node."""
        return self._facts.get(node_id) or NO_FACTS

    def take_changed_keys(self) -> tuple[FactKey, ...]:
        """Return the facts that changed since this was last asked, in order."""
        keys = tuple(sorted(self._changed_keys))
        self._changed_keys.clear()
        return keys

    # ---- members

    def adopt(self, other: FactStore) -> None:
        """Take over the members and facts of another store. Nothing is copied."""
        assert not len(self._facts), "facts would be lost"
        self._members = other._members
        self._facts = other._facts
        self._services = other._services
        self.bucket_digests = list(other.bucket_digests)
        self.digest = other.digest
        self._record(set())

    def put_member(self, member: Member) -> None:
        """Set what is known of a member. A newer life than its facts' deletes them."""
        before = self._members.get(member.node_id)
        if before == member:
            return
        touched: set[ServiceKey] = set()
        if before is not None and precedence(before) == precedence(member):
            self._members = self._members.with_item(member.node_id, member)
            if is_daemon_down(before) is not is_daemon_down(member):
                touched = self._services_on(member.node_id)
        else:
            touched = self._services_on(member.node_id)
            self._uncount(before)
            self._members = self._members.with_item(member.node_id, member)
            if self.facts_of(member.node_id).life < member.life:
                self._drop_facts(member.node_id)
            self._count(member)
        self._record(touched)

    def forget_member(self, node_id: NodeId) -> None:
        """Delete a member and all its facts."""
        member = self._members.get(node_id)
        if member is None:
            return
        self._uncount(member)
        touched = self._drop_facts(node_id)
        self._members = self._members.without(node_id)
        self._record(touched)

    # ---- facts

    def merge(self, fact: Fact, now_s: float) -> Merge:
        """Take a fact if it is newer than what is known. `now_s` dates a tombstone."""
        node_id, name = fact.key.node_id, fact.key.name
        member = self._members.get(node_id)
        if member is None or not _is_allowed(fact):
            return Merge.REFUSED
        known = self.facts_of(node_id)
        if fact.version.life < max(member.life, known.life):
            return Merge.KNOWN
        is_new_life = fact.version.life > known.life
        old = None if is_new_life else known.facts.get(name)
        if old is not None and _precedence(old) >= _precedence(fact):
            return Merge.KNOWN
        new = _with_fact(NO_FACTS if is_new_life else known, old, fact)
        if new.size_bytes > RECEIVED_BYTES_MAX or new.living > FACTS_PER_NODE_MAX:
            return Merge.REFUSED
        self._uncount(member)
        touched = self._drop_facts(node_id) if is_new_life else set()
        self._facts = self._facts.with_item(node_id, new)
        touched |= self._index(fact)
        self._changed_keys.add(fact.key)
        self._note_tombstone(fact, now_s)
        self._count(member)
        self._record(touched)
        return Merge.TAKEN

    def drop_tombstones(self, before_s: float) -> None:
        """Forget the deletions that were merged before this time."""
        for key in [key for key, at_s in self._tombstones.items() if at_s < before_s]:
            self._drop_tombstone(key)

    # ---- inside

    def _count(self, member: Member | None) -> None:
        """Add (or, as xor is its own inverse, take away) what a member contributes to a digest."""
        if member is not None and is_here(member):
            contribution = _member_hash(member) ^ self.facts_of(member.node_id).digest
            self.bucket_digests[bucket_of(member.node_id)] ^= contribution
            self.digest ^= contribution

    _uncount = _count

    def _services_on(self, node_id: NodeId) -> set[ServiceKey]:
        """Return the services that a node publishes."""
        found: set[ServiceKey] = set()
        for name in self.facts_of(node_id).facts:
            service = service_of_fact(name)
            if service is not None and node_id in (self._services.get(service) or {}):
                found.add(service)
        return found

    def _drop_facts(self, node_id: NodeId) -> set[ServiceKey]:
        """Delete all facts of a node; return the services that it published."""
        touched = self._services_on(node_id)
        for service in touched:
            self._publish(service, node_id, None)
        for fact in self.facts_of(node_id).facts.values():
            self._changed_keys.add(fact.key)
            self._tombstones.pop(fact.key, None)
        self._facts = self._facts.without(node_id)
        return touched

    def _index(self, fact: Fact) -> set[ServiceKey]:
        """Take over what a fact says of a service; return the services that changed."""
        service = service_of_fact(fact.key.name)
        if service is None:
            return set()
        facts = None if fact.value is None else unpack_service(service, fact.value)
        if isinstance(facts, Malformed):
            self.unreadable_facts += 1
            facts = None
        if (self._services.get(service) or {}).get(fact.key.node_id) == facts:
            return set()
        self._publish(service, fact.key.node_id, facts)
        return {service}

    def _publish(self, service: ServiceKey, node_id: NodeId, facts: ServiceFacts | None) -> None:
        published = dict(self._services.get(service) or {})
        published.pop(node_id, None)
        if facts is not None:
            published[node_id] = facts
        if published:
            self._services = self._services.with_item(service, published)
        else:
            self._services = self._services.without(service)

    def _note_tombstone(self, fact: Fact, now_s: float) -> None:
        self._tombstones.pop(fact.key, None)
        if fact.value is not None:
            return
        self._tombstones[fact.key] = now_s
        facts = self.facts_of(fact.key.node_id)
        if len(facts.facts) - facts.living > TOMBSTONES_MAX:
            own = (key for key in self._tombstones if key.node_id == fact.key.node_id)
            self._drop_tombstone(next(own))

    def _drop_tombstone(self, key: FactKey) -> None:
        """Forget one deletion; no digest has it, so none changes."""
        del self._tombstones[key]
        known = self.facts_of(key.node_id)
        facts = {name: fact for name, fact in known.facts.items() if name != key.name}
        new = NodeFacts(known.life, facts, known.digest, known.size_bytes, known.living)
        self._facts = self._facts.with_item(key.node_id, new)
        self._record(set())

    def _record(self, services: set[ServiceKey]) -> None:
        """Number the change, and remember which services it touched."""
        self._sequence += 1
        self._view = None
        if services:
            self._history = (*self._history, (self._sequence, frozenset(services)))
        if len(self._history) > HISTORY_CHANGES_MAX:
            self._complete_from = self._history[0][0]
            self._history = self._history[1:]


def _is_allowed(fact: Fact) -> bool:
    return (
        0 < len(fact.key.name.encode()) <= FACT_NAME_BYTES_MAX
        and len(fact.value or b"") <= FACT_VALUE_BYTES_MAX
    )


def _with_fact(known: NodeFacts, old: Fact | None, new: Fact) -> NodeFacts:
    """Return `known` with `new` in the place of `old`, sums included."""
    digest, size_bytes, living = known.digest, known.size_bytes, known.living
    if old is not None and old.value is not None:
        digest ^= fact_hash(old)
        size_bytes -= fact_bytes(old.key.name, old.value)
        living -= 1
    if new.value is not None:
        digest ^= fact_hash(new)
        size_bytes += fact_bytes(new.key.name, new.value)
        living += 1
    facts = {**known.facts, new.key.name: new}
    return NodeFacts(new.version.life, facts, digest, size_bytes, living)
