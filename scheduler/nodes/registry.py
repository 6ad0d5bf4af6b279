"""May a node connect, and as which entry of the registry? Admission and registration, pure.

`refusal` looks at what a Hello claims; `registration` finds the node's entry, or makes the
transaction that registers it: its id, its name and a free subnet, each created only if absent, so
that two schedulers never give one away twice. A conflict means: a newer snapshot, then again.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from dray.errors import InvalidRequest
from dray.model import ClusterRecord, Epoch, NodeRecord, StoreRevision, string_map
from dray.names import check_label
from scheduler.nodes.messages import Hello, Refused, RefusedReason
from scheduler.nodes.subnets import subnet6_of, subnet_count, subnet_of
from scheduler.store.base import Compare, CompareField, Put, Txn
from scheduler.store.codec import encode
from scheduler.store.keys import node_key, node_name_key, subnet_key
from scheduler.store.snapshot import Snapshot

__all__ = ["Registration", "refusal", "registration"]

_RETRY_S: Final = 30.0  # what an operator must change is not asked for more often
_ABSENT: Final = StoreRevision(0)


@dataclass(frozen=True, slots=True)
class Registration:
    """A node's entry, and how it comes to be there.

    Attributes:
        record: The entry.
        txn: What is to be written for it to be there; None: it is.
        subnet: The position of the subnet that a new entry takes; None: the entry is not new.
    """

    record: NodeRecord
    txn: Txn | None = None
    subnet: int | None = None


def refusal(hello: Hello, cluster: ClusterRecord, epoch: Epoch, version: str) -> Refused | None:
    """Return why a node may not connect, as far as its Hello says; None: it may.

    Args:
        hello: What it says.
        cluster: The cluster that this scheduler serves.
        epoch: This leader's term.
        version: This scheduler's version of dray.
    """
    name = hello.info.name
    if hello.cluster_id and hello.cluster_id != cluster.cluster_id:
        return Refused(
            RefusedReason.WRONG_CLUSTER,
            f"{name} belongs to cluster {hello.cluster_id}, this is {cluster.cluster_id}: "
            "point it at its own schedulers, or empty its data folder to join this one",
        )
    if hello.generation > cluster.generation or (hello.epoch is not None and hello.epoch > epoch):
        return Refused(
            RefusedReason.OLD_EPOCH,
            f"{name} has seen a newer term than this scheduler's {epoch.generation}/"
            f"{epoch.create_revision}: another one leads, or the store was restored from a backup",
            retry_after_s=1.0,
        )
    if _version(hello.info.version) < _version(cluster.min_version):
        return Refused(
            RefusedReason.TOO_OLD,
            f"{name} has dray {hello.info.version}, the cluster needs {cluster.min_version}: "
            "upgrade the node",
            _RETRY_S,
        )
    if _version(version) < _version(hello.min_version):
        return Refused(
            RefusedReason.LEADER_TOO_OLD,
            f"the leader has dray {version}, {name} needs {hello.min_version}: "
            "upgrade the schedulers",
            _RETRY_S,
        )
    return None


def registration(
    hello: Hello,
    snapshot: Snapshot,
    now_unix_s: float,
    *,
    taken: Collection[int] = frozenset(),
) -> Registration | Refused:
    """Return a node's entry in the registry, made anew if it asks for that.

    Labels of its command line that the registry has no value for are added to it.

    Args:
        hello: What the node says; not refused by `refusal`.
        snapshot: The store.
        now_unix_s: Wall clock.
        taken: Subnets that others are about to get, by position. Without them nodes that join
            together would all ask for the first free one, and all but one would ask again.
    """
    info = hello.info
    record = snapshot.nodes.get(info.node_id)
    if record is not None:
        labels = string_map({**dict(info.labels), **dict(record.labels)})
        if labels == record.labels:
            return Registration(record)
        key = node_key(info.node_id)
        compare = Compare(key, CompareField.MOD_REVISION, snapshot.mod_revisions[key])
        renewed = replace(record, labels=labels)
        return Registration(renewed, Txn((compare,), (Put(key, encode(renewed)),)))
    if not hello.is_new:
        return Refused(
            RefusedReason.NOT_REGISTERED,
            f"{info.name} ({info.node_id}) is not registered in this cluster: it was removed, or "
            "the store is another one; empty its data folder to join as a new node",
            _RETRY_S,
        )
    return _new(hello, snapshot, now_unix_s, taken)


def _new(
    hello: Hello, snapshot: Snapshot, now_unix_s: float, taken: Collection[int]
) -> Registration | Refused:
    info, cluster = hello.info, snapshot.cluster
    try:
        check_label(info.name, "node")
    except InvalidRequest as error:
        return Refused(RefusedReason.PROTOCOL, str(error), _RETRY_S)
    owner = snapshot.node_names.get(info.name)
    if owner is not None:
        return Refused(
            RefusedReason.NAME_TAKEN,
            f"the name {info.name} belongs to node {owner}: choose another --name, or remove that "
            "node first",
            _RETRY_S,
        )
    numbers = range(subnet_count(cluster))
    free = next((n for n in numbers if n not in snapshot.subnets and n not in taken), None)
    if free is None or len(snapshot.nodes) >= cluster.limits.nodes_max:
        limit = min(subnet_count(cluster), cluster.limits.nodes_max)
        return Refused(
            RefusedReason.CLUSTER_FULL,
            f"the cluster has room for {limit} nodes: remove nodes that are gone for good",
            _RETRY_S,
        )
    record = NodeRecord(
        info.node_id,
        cluster.cluster_id,
        info.name,
        subnet_of(cluster, free),
        subnet6_of(cluster, free),
        labels=info.labels,
        created_unix_s=now_unix_s,
    )
    puts = (
        Put(node_key(info.node_id), encode(record)),
        Put(node_name_key(info.name), encode(info.node_id)),
        Put(subnet_key(free), encode(info.node_id)),
    )
    compares = tuple(Compare(put.key, CompareField.CREATE_REVISION, _ABSENT) for put in puts)
    return Registration(record, Txn(compares, puts), free)


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with; what is none counts as 0."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
