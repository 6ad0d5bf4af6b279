"""What do writes of nodes and of the cluster's own keys come to?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dray.errors import FailedPrecondition, InvalidRequest, NotFound
from dray.model import (
    Availability,
    GossipKey,
    NodeCondition,
    NodeRecord,
    SlotKey,
    StoreRevision,
    StringMap,
    Taint,
    string_map,
)
from dray.names import NodeId, is_id
from scheduler.api.edit import Call, Draft, conflict
from scheduler.store.base import Compare, CompareField, Delete, Operation, Put
from scheduler.store.codec import encode
from scheduler.store.keys import (
    KEYRING,
    node_key,
    node_name_key,
    node_verdict_key,
    subnet_key,
)
from scheduler.store.records import KeyringRecord
from scheduler.store.snapshot import Snapshot

__all__ = [
    "KEYS_MAX",
    "LABELS_MAX",
    "NodeChange",
    "find_node",
    "remove_node",
    "rotate_gossip_key",
    "slots_on",
    "update_node",
]

LABELS_MAX: Final = 256  # labels, and taints, of a node
LABEL_LENGTH_MAX: Final = 256  # characters of a label's key or value
KEYS_MAX: Final = 8  # keys of gossip that nodes accept
_KEY_BYTES: Final = 32
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class NodeChange:
    """What is asked for a node; what is empty or None stays as it is."""

    labels: StringMap = ()
    labels_removed: tuple[str, ...] = ()
    taints: tuple[Taint, ...] = ()
    taints_removed: tuple[str, ...] = ()
    availability: Availability | None = None


def find_node(snapshot: Snapshot, name: str) -> NodeRecord:
    """Return a node by its name or id.

    Raises:
        InvalidRequest: Nothing is named.
        NotFound: There is none of that name.
    """
    if not name:
        raise InvalidRequest("no node is named", hint="see `dray node ls`")
    if is_id(name) and NodeId(name) in snapshot.nodes:
        return snapshot.nodes[NodeId(name)]
    owner = snapshot.node_names.get(name)
    if owner is not None and owner in snapshot.nodes:
        return snapshot.nodes[owner]
    for record in snapshot.nodes.values():
        if record.name == name:
            return record
    raise NotFound(f"there is no node {name[:100]!r}", hint="see `dray node ls`")


def update_node(snapshot: Snapshot, name: str, change: NodeChange, call: Call) -> Draft:
    """Change a node's registry entry.

    Raises:
        DrayError: It does not exist, has another revision, or a label is malformed.
    """
    record = find_node(snapshot, name)
    revision = _checked_revision(snapshot, record, call)
    _check_change(change)
    labels = {**dict(record.labels), **dict(change.labels)}
    for key in change.labels_removed:
        labels.pop(key, None)
    replaced = {(taint.key, taint.effect) for taint in change.taints}
    taints = [
        taint
        for taint in record.taints
        if taint.key not in change.taints_removed and (taint.key, taint.effect) not in replaced
    ]
    taints += change.taints
    if max(len(labels), len(taints)) > LABELS_MAX:
        raise InvalidRequest(f"a node has at most {LABELS_MAX} labels and as many taints")
    after = dataclasses.replace(
        record,
        labels=string_map(labels),
        taints=tuple(sorted(taints, key=lambda taint: (taint.key, taint.effect.value))),
        availability=change.availability or record.availability,
    )
    key = node_key(record.node_id)
    compare = Compare(key, CompareField.MOD_REVISION, StoreRevision(revision))
    if after == record:
        return Draft((compare,), (), snapshot, revision=revision)
    nodes = {**snapshot.nodes, record.node_id: after}
    return Draft(
        (compare,),
        (Put(key, encode(after)),),
        dataclasses.replace(snapshot, nodes=nodes),
    )


def remove_node(
    snapshot: Snapshot, name: str, condition: NodeCondition, call: Call, *, force: bool
) -> Draft:
    """Remove a node for good.

    Its assignment stays: the leader, who alone deletes one, plans its slots elsewhere.

    Args:
        snapshot: The store as it is.
        name: Name or id.
        condition: What the leader holds it to be; UNKNOWN without a leader.
        call: The call.
        force: Also when it is not down, or still has tasks.

    Raises:
        FailedPrecondition: It may be alive or has tasks, without `force`.
    """
    record = find_node(snapshot, name)
    revision = _checked_revision(snapshot, record, call)
    if not force and condition is not NodeCondition.DOWN:
        raise FailedPrecondition(
            f"node {record.name} is {condition.name.lower().replace('_', ' ')}, not down",
            hint="stop its daemon first, or use --force: its volumes' data is lost to the cluster",
        )
    tasks = len(slots_on(snapshot, record.node_id))
    if not force and tasks:
        raise FailedPrecondition(
            f"node {record.name} still has {tasks} tasks",
            hint="drain it first, or use --force",
        )
    key = node_key(record.node_id)
    operations: list[Operation] = [Delete(key), Delete(node_verdict_key(record.node_id))]
    if snapshot.node_names.get(record.name) == record.node_id:
        operations.append(Delete(node_name_key(record.name)))
    operations += [
        Delete(subnet_key(number))
        for number, owner in snapshot.subnets.items()
        if owner == record.node_id
    ]
    compare = Compare(key, CompareField.MOD_REVISION, StoreRevision(revision))
    nodes = {key: each for key, each in snapshot.nodes.items() if key != record.node_id}
    return Draft((compare,), tuple(operations), dataclasses.replace(snapshot, nodes=nodes))


def slots_on(snapshot: Snapshot, node_id: NodeId) -> tuple[SlotKey, ...]:
    """Return the slots whose tasks are assigned to a node and not told to stop, sorted."""
    assignment = snapshot.assignments.get(node_id)
    tasks = assignment.tasks if assignment else ()
    return tuple(sorted({task.slot for task in tasks if not task.stop}))


def rotate_gossip_key(
    snapshot: Snapshot, call: Call, random_bytes: Callable[[int], bytes]
) -> Draft:
    """Put a new primary key before the keys of gossip; the oldest goes when there are too many.

    All schedulers hand the ring to nodes whole: a node that has it opens what either key sealed.

    Raises:
        FailedPrecondition: The cluster has no keys.
    """
    if not snapshot.keyring:
        raise FailedPrecondition("the cluster has no gossip key", hint="run `dray init`")
    del call
    key = GossipKey(_next_key_id(snapshot.keyring), random_bytes(_KEY_BYTES), primary=True)
    older = [dataclasses.replace(each, primary=False) for each in snapshot.keyring]
    keyring = (key, *older)[:KEYS_MAX]
    revision = snapshot.mod_revisions.get(KEYRING, StoreRevision(0))
    return Draft(
        (Compare(KEYRING, CompareField.MOD_REVISION, revision),),
        (Put(KEYRING, encode(KeyringRecord(keyring))),),
        dataclasses.replace(snapshot, keyring=keyring),
    )


def _next_key_id(keyring: Sequence[GossipKey]) -> int:
    """Return a number, 0 to 255, that no key has: the one after the primary key's."""
    taken = {key.key_id for key in keyring}
    number = next((key.key_id for key in keyring if key.primary), keyring[0].key_id)
    while number in taken:
        number = (number + 1) % 256
    return number


def _checked_revision(snapshot: Snapshot, record: NodeRecord, call: Call) -> int:
    revision = snapshot.mod_revisions.get(node_key(record.node_id), StoreRevision(0))
    if call.if_revision is not None and call.if_revision != revision:
        raise conflict(f"node {record.name}", call.if_revision, revision)
    return revision


def _check_change(change: NodeChange) -> None:
    for key, value in change.labels:
        if _LABEL_KEY.fullmatch(key) is None or len(key) > LABEL_LENGTH_MAX:
            raise InvalidRequest(
                f"{key[:100]!r} is not the key of a label",
                hint="letters, digits and '._/-' between them",
                context={"field": "labels"},
            )
        if len(value) > LABEL_LENGTH_MAX:
            raise InvalidRequest(
                f"label {key} has {len(value)} characters, {LABEL_LENGTH_MAX} are the most"
            )
    for taint in change.taints:
        if _LABEL_KEY.fullmatch(taint.key) is None or len(taint.key) > LABEL_LENGTH_MAX:
            raise InvalidRequest(f"{taint.key[:100]!r} is not the key of a taint")
