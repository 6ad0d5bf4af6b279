"""Does what is stored come back as it was, and does damage never do more than be refused?"""

from __future__ import annotations

import dataclasses
import enum
import typing
from contextlib import suppress

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from dray.model import (
    Assignment,
    ContentKind,
    Epoch,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    StoreRevision,
    TaskAssignment,
)
from dray.names import ClusterId, NodeId, RequestId, SchedulerId, TaskId, id_text
from scheduler.store import keys, records
from scheduler.store.base import Item
from scheduler.store.codec import CLASSES, DamagedValue, Stored, decode, decode_as, encode
from scheduler.store.keys import Kind, parse_key
from scheduler.store.packing import pack_assignment, unpack_assignment
from scheduler.store.v1 import records_pb2
from tests.property.test_convert import values_of as model_values

IDS = st.binary(min_size=16, max_size=16).map(id_text)
NAMES = st.sampled_from(["shop", "web", "a", "b-1", "W.x_y"])
PARTS = st.text(min_size=1, max_size=8)
EPOCHS = st.builds(Epoch, st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1))
TASKS = st.builds(
    TaskAssignment,
    IDS.map(TaskId),
    st.builds(SlotKey, NAMES, NAMES, st.integers(0, 2**32 - 1)),
    st.integers(0, 2**63 - 1).map(ServiceRevision),
    EPOCHS | st.just(Epoch(1, 7)),
    st.booleans(),
    st.just(()) | st.lists(PARTS, max_size=3).map(tuple),
)


@st.composite
def assignments(draw: st.DrawFn) -> Assignment:
    """Return a strategy of assignments with sorted tasks."""
    tasks = sorted(draw(st.lists(TASKS, max_size=20)), key=lambda task: (task.slot, task.task_id))
    return Assignment(
        draw(IDS.map(ClusterId)),
        draw(IDS.map(NodeId)),
        draw(EPOCHS),
        StoreRevision(7),
        tuple(tasks),
    )


def record_values(cls: typing.Any) -> st.SearchStrategy[typing.Any]:
    """Return a strategy of a class of `records`, made from its type hints."""
    hints = typing.get_type_hints(cls)
    fields = records_pb2.DESCRIPTOR.message_types_by_name[cls.__name__].fields_by_name
    return st.builds(
        cls,
        **{
            field.name: _field(hints[field.name], fields[field.name])
            for field in dataclasses.fields(cls)
        },
    )


def _field(hint: typing.Any, proto: FieldDescriptor) -> st.SearchStrategy[typing.Any]:
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        return st.none() | _field(arguments[0], proto)
    if typing.get_origin(hint) is tuple:
        return st.lists(_field(arguments[0], proto), max_size=2).map(tuple)
    if hint in (ClusterId, NodeId, RequestId, SchedulerId, TaskId):
        return IDS
    hint = getattr(hint, "__supertype__", hint)
    if dataclasses.is_dataclass(hint):
        is_record = hint.__module__ == records.__name__
        name = typing.cast("type", hint).__name__
        return record_values(hint) if is_record else model_values(name)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    bound = 2**31 if proto.type == FieldDescriptor.TYPE_INT32 else 2**63
    scalars: dict[object, st.SearchStrategy[typing.Any]] = {
        str: st.text(max_size=8),
        bool: st.booleans(),
        bytes: st.binary(max_size=8),
        float: st.floats(allow_nan=False, allow_infinity=False),
        int: st.integers(-bound, bound - 1),
    }
    return scalars[hint]


def stored(key: str, value: Stored) -> Item:
    """Return the item that holds a value."""
    return Item(key, encode(value), StoreRevision(3), StoreRevision(7))


@given(assignments())
def test_an_assignment_comes_back_as_it_was(assignment: Assignment) -> None:
    """Packing and unpacking is the identity; the mod revision is the key's."""
    assert unpack_assignment(pack_assignment(assignment), StoreRevision(7)) == assignment


@given(assignment=assignments(), data=st.data())
def test_a_damaged_assignment_is_read_or_refused(
    assignment: Assignment, data: st.DataObject
) -> None:
    """Cut or changed bytes raise nothing but DamagedValue; what is read can be stored again."""
    damaged = bytearray(pack_assignment(assignment))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with suppress(DamagedValue):
        read = unpack_assignment(cut, StoreRevision(7))
        assert isinstance(read, Assignment)


@pytest.mark.parametrize("kind", sorted(CLASSES, key=str))
@settings(max_examples=8)
@given(data=st.data())
def test_every_kind_of_value_comes_back_as_it_was(kind: Kind, data: st.DataObject) -> None:
    """Encoding and decoding is the identity for the class of every kind of key."""
    cls = CLASSES[kind]
    value: Stored
    if cls is Assignment:
        value = data.draw(assignments())
    elif cls.__module__ == records.__name__:
        value = data.draw(record_values(cls))
    else:
        value = typing.cast("Stored", data.draw(model_values(cls.__name__)))
    assert decode_as(stored("/dray/v1/x", value), cls) == value


def test_records_and_messages_mirror_each_other() -> None:
    """Every class of `records` has a message and the other way round."""
    assert set(records.__all__) == set(records_pb2.DESCRIPTOR.message_types_by_name)


@given(
    project=PARTS,
    service=PARTS,
    number=st.integers(0, keys.NUMBER_MAX),
    digest=st.binary(min_size=1, max_size=4),
)
def test_every_key_is_read_back(project: str, service: str, number: int, digest: bytes) -> None:
    """A key says what it is about, whatever names people choose."""
    key = ServiceKey(project, service)
    padded = f"{number:010d}"
    expected = {
        keys.project_key(project): (Kind.PROJECT, (project,)),
        keys.service_key(key): (Kind.SERVICE, (project, service)),
        keys.revision_key(key, ServiceRevision(number)): (
            Kind.REVISION,
            (project, service, padded),
        ),
        keys.content_key(project, ContentKind.SECRET, service, digest): (
            Kind.CONTENT,
            (project, "secret", service, digest.hex()),
        ),
        keys.job_key(SlotKey(project, service, number)): (Kind.JOB, (project, service, padded)),
        keys.volume_key(project, service): (Kind.VOLUME, (project, service)),
        keys.rollout_key(key): (Kind.ROLLOUT, (project, service)),
        keys.cron_key(key): (Kind.CRON, (project, service)),
        keys.vip_key(project): (Kind.VIP, (project,)),
        keys.node_name_key(project): (Kind.NODE_NAME, (project,)),
        keys.subnet_key(number): (Kind.SUBNET, (padded,)),
    }
    for text, (kind, parts) in expected.items():
        parsed = parse_key(text)
        assert parsed is not None
        assert (parsed.kind, parsed.parts) == (kind, parts)
    assert len(expected) == 11


@given(NAMES, PARTS, PARTS)
def test_a_prefix_holds_exactly_its_own_keys(project: str, service: str, other: str) -> None:
    """No project's prefix is the beginning of another project's keys."""
    prefix = keys.prefix_of(Kind.SERVICE, project)
    assert keys.service_key(ServiceKey(project, service)).startswith(prefix)
    is_same = keys.service_key(ServiceKey(other, service)).startswith(prefix)
    assert is_same == (other == project)


@given(st.text(max_size=40))
def test_a_key_of_nobody_is_about_nothing(text: str) -> None:
    """Random text below the root and elsewhere never raises."""
    assert parse_key(text) is None or text.startswith(keys.ROOT)
    parsed = parse_key(keys.ROOT + text)
    assert parsed is None or all(parsed.parts)


def test_a_key_of_a_newer_version_is_left_alone() -> None:
    """What is not known is not decoded; what is known and damaged is refused with its key."""
    item = Item("/dray/v1/wonders/1", b"\xff", StoreRevision(1), StoreRevision(1))
    assert decode(item) is None
    with pytest.raises(DamagedValue, match="/dray/v1/cluster"):
        decode(dataclasses.replace(item, key=keys.CLUSTER))


def test_a_full_node_takes_less_than_30_kb() -> None:
    """328 tasks, the share of a node among 6,100 with 2,000,000 tasks, take 30 bytes each."""
    tasks = [
        TaskAssignment(
            TaskId(id_text(number.to_bytes(16, "big"))),
            SlotKey("shop", f"service-{number % 40}", number),
            ServiceRevision(3),
            Epoch(1, 12_345),
        )
        for number in range(328)
    ]
    tasks.sort(key=lambda task: task.slot)
    node_id = NodeId(id_text(bytes(16)))
    packed = pack_assignment(
        Assignment(ClusterId(node_id), node_id, Epoch(1, 1), StoreRevision(1), tuple(tasks))
    )
    assert len(packed) < 328 * 36
