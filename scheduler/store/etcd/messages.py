"""How do the port's values look in etcd's messages, and back? Pure.

Keys are text in the port and bytes in etcd. A foreign key that is not UTF-8 is shown escaped: no
key of ours is one, and it must not end a watch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dray.model import StoreRevision
from scheduler.store.base import (
    Change,
    Compare,
    CompareField,
    Item,
    LeaseId,
    Operation,
    Put,
    StoreMember,
    Txn,
)
from scheduler.store.etcdpb import etcd_pb2 as pb

__all__ = [
    "change_of",
    "item_of",
    "member_of",
    "prefix_end",
    "range_of_prefix",
    "txn_request",
    "watch_request",
]

# etcd says "memberID:10276657743932975437 alarm:NOSPACE" among the errors of its status.
_ALARM: Final = re.compile(r"memberID:(\d+)\s+alarm:(\w+)")


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that start with `prefix`.

    A zero byte, which etcd reads as "no end", when nothing sorts behind the prefix.
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


def range_of_prefix(prefix: str) -> tuple[bytes, bytes]:
    """Return first key and end of the range of a prefix; the empty prefix means every key."""
    key = prefix.encode()
    return key or b"\0", prefix_end(key)


def item_of(kv: pb.KeyValue) -> Item:
    """Return a key and its value as the port has it."""
    return Item(
        kv.key.decode(errors="backslashreplace"),
        kv.value,
        StoreRevision(kv.create_revision),
        StoreRevision(kv.mod_revision),
        LeaseId(kv.lease),
    )


def change_of(event: pb.Event) -> Change:
    """Return one key's change."""
    if event.kind == pb.Event.KIND_DELETE:
        return Change(event.kv.key.decode(errors="backslashreplace"), None)
    item = item_of(event.kv)
    return Change(item.key, item)


def txn_request(txn: Txn) -> pb.TxnRequest:
    """Return the transaction; where a compare does not hold, it reads every compared key."""
    return pb.TxnRequest(
        compare=[_compare(compare) for compare in txn.compares],
        success=[_operation(operation) for operation in txn.operations],
        failure=[_read(key) for key in _keys(txn.compares)],
    )


def _keys(compares: Iterable[Compare]) -> list[bytes]:
    return sorted({compare.key.encode() for compare in compares})


def _compare(compare: Compare) -> pb.Compare:
    message = pb.Compare(key=compare.key.encode(), result=pb.Compare.RESULT_EQUAL)
    match compare.field:
        case CompareField.CREATE_REVISION:
            message.target = pb.Compare.TARGET_CREATE
            message.create_revision = compare.revision
        case CompareField.MOD_REVISION:
            message.target = pb.Compare.TARGET_MOD
            message.mod_revision = compare.revision
    return message


def _operation(operation: Operation) -> pb.RequestOp:
    key = operation.key.encode()
    if isinstance(operation, Put):
        put = pb.PutRequest(key=key, value=operation.value, lease=operation.lease)
        return pb.RequestOp(request_put=put)
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))


def _read(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key))


def watch_request(prefix: str, start_revision: int) -> pb.WatchRequest:
    """Return the request for all changes below a prefix from a revision on."""
    key, range_end = range_of_prefix(prefix)
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=start_revision,
            progress_notify=True,
            fragment=True,
        )
    )


def member_of(address: str, status: pb.StatusResponse) -> StoreMember:
    """Return how one server is, from its own answer."""
    me = status.header.member_id
    alarms = {
        kind for text in status.errors for member, kind in _ALARM.findall(text) if int(member) == me
    }
    return StoreMember(
        address=address,
        healthy=True,
        is_leader=status.leader == me,
        version=status.version,
        size_bytes=status.db_size_bytes,
        size_in_use_bytes=status.db_size_in_use_bytes,
        alarms=tuple(sorted(alarms)),
    )
