"""How does a stream of changed keys become a `Snapshot`, at a cost that grows with the changes?

A `View` holds one table for each mapping of `Snapshot`. A change touches its own entry. A snapshot
shares the tables; a table that changes after it was shared is copied first, so that taking one
costs a copy of what has changed since the last one, and nothing else (10,000 entries: 0.1 ms).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from dray.model import (
    Assignment,
    ClusterRecord,
    GossipKey,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    StoreRevision,
)
from dray.names import NodeId, SchedulerId
from scheduler.store.base import Change, Item
from scheduler.store.codec import DamagedValue, Stored, decode
from scheduler.store.keys import Kind, ParsedKey, parse_key
from scheduler.store.records import KeyringRecord, LeaderRecord
from scheduler.store.snapshot import Leader, Snapshot, VolumeKey

__all__ = ["Decoded", "View", "decode_change"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One change, read: what the key is about, its item, and what that holds.

    Attributes:
        key: What it is about.
        item: The item; None: it was deleted.
        value: What it holds; None: it was deleted, or nobody wants the value in memory.
    """

    key: ParsedKey
    name: str
    item: Item | None
    value: Stored | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """Where one kind of key goes: which mapping, under which key, and what of its value."""

    table: str
    key: Callable[[tuple[str, ...]], object]
    value: Callable[[Any], object] = lambda value: value


def _service(parts: tuple[str, ...]) -> ServiceKey:
    return ServiceKey(parts[0], parts[1])


_ROWS: Final[dict[Kind, _Row]] = {
    Kind.SERVICE: _Row("services", _service),
    Kind.REVISION: _Row(
        "revisions", lambda parts: (_service(parts), ServiceRevision(int(parts[2])))
    ),
    Kind.NODE: _Row("nodes", lambda parts: NodeId(parts[0])),
    Kind.ASSIGNMENT: _Row("assignments", lambda parts: NodeId(parts[0])),
    Kind.VOLUME: _Row("volume_pins", lambda parts: VolumeKey(parts[0], parts[1])),
    Kind.JOB: _Row("job_verdicts", lambda parts: SlotKey(parts[0], parts[1], int(parts[2]))),
    Kind.ROLLOUT: _Row("rollouts", _service),
    Kind.PROJECT: _Row("projects", lambda parts: parts[0]),
    Kind.SCHEDULER: _Row("schedulers", lambda parts: SchedulerId(parts[0])),
    Kind.NODE_NAME: _Row("node_names", lambda parts: parts[0], NodeId),
    Kind.SUBNET: _Row("subnets", lambda parts: int(parts[0]), NodeId),
    Kind.VIP: _Row("vips", lambda parts: parts[0], lambda text: ServiceKey(*text.split("/", 1))),
    Kind.NODE_VERDICT: _Row("node_verdicts", lambda parts: NodeId(parts[0])),
    Kind.CRON: _Row("cron_verdicts", _service),
    Kind.EVENT: _Row("events", lambda parts: int(parts[0]), lambda batch: batch.events),
}
_TABLES: Final = ("contents", "mod_revisions", *(row.table for row in _ROWS.values()))


def decode_change(change: Change) -> Decoded | None:
    """Return what a change says; None for a key that this version of dray does not know.

    Raises:
        DamagedValue: The value cannot be read, or is about something else than its key.
    """
    key = parse_key(change.key)
    if key is None:
        return None
    if change.item is None or key.kind is Kind.REQUEST:
        return Decoded(key, change.key, change.item)
    found = decode(change.item)
    if found is None:
        return None
    value = found[1]
    if isinstance(value, Assignment) and value.node_id != key.parts[0]:
        raise DamagedValue(f"{change.key} holds the assignment of node {value.node_id}")
    return Decoded(key, change.key, change.item, value)


class View:
    """Everything below the root, as tables that grow with each change."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._tables: dict[str, dict[Any, Any]] = {name: {} for name in _TABLES}
        self._shared: set[str] = set()
        self._cluster: ClusterRecord | None = None
        self._keyring: tuple[GossipKey, ...] = ()
        self._leader: Leader | None = None
        self._snapshot: Snapshot | None = None

    @property
    def has_cluster(self) -> bool:
        """Whether there is a cluster record: `dray init` was run."""
        return self._cluster is not None

    def apply(self, changes: Iterable[Decoded]) -> None:
        """Take in changes of one revision, or of a listing."""
        self._snapshot = None
        for change in changes:
            self._note_revision(change)
            match change.key.kind:
                case Kind.CLUSTER:
                    assert change.value is None or isinstance(change.value, ClusterRecord)
                    self._cluster = change.value
                case Kind.KEYRING:
                    is_there = isinstance(change.value, KeyringRecord)
                    self._keyring = change.value.keys if is_there else ()  # type: ignore[union-attr]
                case Kind.LEADER:
                    self._leader = _leader(change)
                case Kind.REQUEST | Kind.PORTS:
                    pass
                case Kind.CONTENT:
                    self._set("contents", change.name, change, lambda record: record.ref)
                case kind:
                    row = _ROWS[kind]
                    self._set(row.table, row.key(change.key.parts), change, row.value)

    def snapshot(self, revision: StoreRevision) -> Snapshot:
        """Return everything as it is now; it does not change any more.

        Args:
            revision: The store revision that the tables are at.
        """
        assert self._cluster is not None, "no cluster record"
        if self._snapshot is not None and self._snapshot.revision == revision:
            return self._snapshot
        self._shared = set(_TABLES)
        self._snapshot = Snapshot(
            cluster=self._cluster,
            revision=revision,
            keyring=self._keyring,
            leader=self._leader,
            **self._tables,
        )
        return self._snapshot

    def _note_revision(self, change: Decoded) -> None:
        table = self._own("mod_revisions")
        if change.item is None:
            table.pop(change.name, None)
        else:
            table[change.name] = change.item.mod_revision

    def _set(
        self, name: str, key: object, change: Decoded, value_of: Callable[[Any], object]
    ) -> None:
        table = self._own(name)
        if change.item is None:
            table.pop(key, None)
        else:
            table[key] = value_of(change.value)

    def _own(self, name: str) -> dict[Any, Any]:
        """Return a table that no snapshot shares."""
        if name in self._shared:
            self._shared.discard(name)
            self._tables[name] = self._tables[name].copy()
        return self._tables[name]


def _leader(change: Decoded) -> Leader | None:
    if change.item is None:
        return None
    assert isinstance(change.value, LeaderRecord)
    return Leader(change.value, change.item.create_revision)


assert {field.name for field in dataclasses.fields(Snapshot)} == {
    "cluster",
    "revision",
    "keyring",
    "leader",
    *_TABLES,
}, "a part of Snapshot has no table"
