"""How does a value of the store become bytes, and back? One table: a kind of key, a class.

Protobuf for all but assignments (`packing`), so that what is stored follows the wire's rules of
compatibility (proto/README.md). Values in, values out: protobuf is only the form of the bytes here.

A value that cannot be read is never skipped, see `DamagedValue`: who reads it stops and says which
key it is.
"""

from __future__ import annotations

from typing import Final, TypeAlias, TypeVar

from dray.convert import from_bytes, register, to_bytes
from dray.errors import InvalidRequest
from dray.model import Assignment, ClusterRecord, NodeRecord, ServiceRecord
from scheduler.store import records
from scheduler.store.base import Item
from scheduler.store.keys import Kind, ParsedKey, parse_key
from scheduler.store.packing import DamagedValue, pack_assignment, unpack_assignment
from scheduler.store.v1 import records_pb2

__all__ = ["CLASSES", "TEXT_KINDS", "DamagedValue", "Stored", "decode", "decode_as", "encode"]

register(records_pb2.DESCRIPTOR)

Stored: TypeAlias = (
    Assignment
    | ClusterRecord
    | NodeRecord
    | ServiceRecord
    | records.ContentRecord
    | records.CronVerdict
    | records.EventBatch
    | records.JobVerdict
    | records.KeyringRecord
    | records.LeaderRecord
    | records.NodeVerdict
    | records.ProjectRecord
    | records.RequestRecord
    | records.RolloutVerdict
    | records.SchedulerRecord
    | records.VolumePin
    | str
)
"""What a key may hold; text is an id, or `project/service`, in the index keys."""

_StoredT = TypeVar("_StoredT")

CLASSES: Final[dict[Kind, type]] = {
    Kind.CLUSTER: ClusterRecord,
    Kind.KEYRING: records.KeyringRecord,
    Kind.LEADER: records.LeaderRecord,
    Kind.SCHEDULER: records.SchedulerRecord,
    Kind.PROJECT: records.ProjectRecord,
    Kind.SERVICE: ServiceRecord,
    Kind.REVISION: ServiceRecord,
    Kind.CONTENT: records.ContentRecord,
    Kind.NODE: NodeRecord,
    Kind.REQUEST: records.RequestRecord,
    Kind.ASSIGNMENT: Assignment,
    Kind.JOB: records.JobVerdict,
    Kind.VOLUME: records.VolumePin,
    Kind.ROLLOUT: records.RolloutVerdict,
    Kind.NODE_VERDICT: records.NodeVerdict,
    Kind.CRON: records.CronVerdict,
    Kind.EVENT: records.EventBatch,
}
TEXT_KINDS: Final = frozenset({Kind.NODE_NAME, Kind.SUBNET, Kind.VIP, Kind.PORTS})


def encode(value: Stored) -> bytes:
    """Return the stored form of a value.

    Raises:
        InvalidRequest: A field has no form on the wire: a number out of range, a malformed id.
    """
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Assignment):
        return pack_assignment(value)
    return to_bytes(value)


def decode(item: Item) -> tuple[ParsedKey, Stored] | None:
    """Return what an item is about and what it holds; None for a key of a newer version.

    Raises:
        DamagedValue: The value cannot be read; the message names the key.
    """
    key = parse_key(item.key)
    if key is None:
        return None
    if key.kind in TEXT_KINDS:
        return key, decode_as(item, str)
    cls = CLASSES.get(key.kind)
    return None if cls is None else (key, decode_as(item, cls))


def decode_as(item: Item, cls: type[_StoredT]) -> _StoredT:
    """Return what an item holds.

    Args:
        item: An item of a key whose values are of that class.
        cls: The class.

    Raises:
        DamagedValue: The value cannot be read; the message names the key.
    """
    value: object
    try:
        if cls is str:
            value = item.value.decode()
        elif cls is Assignment:
            value = unpack_assignment(item.value, item.mod_revision)
        else:
            value = from_bytes(item.value, cls)
    except (DamagedValue, InvalidRequest, UnicodeDecodeError) as error:
        raise DamagedValue(
            f"the value of {item.key} (revision {item.mod_revision}) cannot be read: {error}",
            hint="it was damaged, or written by a newer version of dray; nothing was changed",
            context={"key": item.key},
        ) from error
    assert isinstance(value, cls), type(value)
    return value
