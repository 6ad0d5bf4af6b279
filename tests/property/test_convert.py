"""Does every value of the model survive the wire, and does junk never do more than be refused?"""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from contextlib import suppress
from types import NoneType, UnionType

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from dray import model
from dray.api.v1 import spec_pb2, state_pb2
from dray.convert import (
    CONVERTED,
    error_from_proto,
    from_proto,
    parse,
    refuse_unknown_fields,
    to_proto,
)
from dray.errors import DrayError, InvalidRequest
from dray.names import ClusterId, NodeId, RequestId, SchedulerId, TaskId, id_text

IDS = {ClusterId, NodeId, RequestId, SchedulerId, TaskId}
# Pairs that may repeat a key: everything else of that type is a map.
PAIRS = {(model.ContainerSpec, "extra_hosts"), (model.Endpoint, "aliases")}
TEXT = st.text(max_size=8)
MESSAGES: dict[str, type[Message]] = {
    name: getattr(spec_pb2 if hasattr(spec_pb2, name) else state_pb2, name) for name in CONVERTED
}
CLASSES: dict[str, type[object]] = {name: getattr(model, name) for name in CONVERTED}


@functools.cache
def values_of(name: str) -> st.SearchStrategy[object]:
    """Return a strategy of instances of a class of the model, made from its type hints alone."""
    cls: typing.Any = CLASSES[name]
    hints = typing.get_type_hints(cls)
    protos = CONVERTED[name].fields_by_name
    fields = {
        field.name: _field(cls, hints[field.name], protos[field.name])
        for field in dataclasses.fields(cls)
    }
    return st.builds(cls, **fields)


def _field(cls: type, hint: typing.Any, proto: FieldDescriptor) -> st.SearchStrategy[object]:
    if typing.get_origin(hint) in (UnionType, typing.Union):
        (inner,) = (part for part in typing.get_args(hint) if part is not NoneType)
        return st.none() | _field(cls, inner, proto)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if typing.get_origin(item) is not tuple:
            return st.lists(_item(item, proto), max_size=2).map(tuple)
        if (cls, proto.name) in PAIRS:
            return st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
        return st.dictionaries(TEXT, TEXT, max_size=3).map(
            lambda found: tuple(sorted(found.items()))
        )
    return _item(hint, proto)


def _item(hint: typing.Any, proto: FieldDescriptor) -> st.SearchStrategy[object]:
    if hint in IDS:
        return st.binary(min_size=16, max_size=16).map(id_text)
    hint = getattr(hint, "__supertype__", hint)
    if dataclasses.is_dataclass(hint):
        return values_of(typing.cast("type", hint).__name__)
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    bound = 2**31 if proto.type == FieldDescriptor.TYPE_INT32 else 2**63
    scalars: dict[object, st.SearchStrategy[object]] = {
        str: TEXT,
        bool: st.booleans(),
        bytes: st.binary(max_size=8),
        float: st.floats(allow_nan=False, allow_infinity=False),
        int: st.integers(-bound, bound - 1) | st.integers(-2, 2),
    }
    return scalars[hint]


@pytest.mark.parametrize("name", sorted(CONVERTED))
@settings(max_examples=10)
@given(data=st.data())
def test_what_is_sent_is_what_arrives(name: str, data: st.DataObject) -> None:
    """Model to message to bytes to message to model is the identity, for every class."""
    cls = CLASSES[name]
    value: object = data.draw(values_of(name))
    sent = to_proto(value, MESSAGES[name])
    arrived = parse(sent.SerializeToString(), MESSAGES[name])
    assert from_proto(arrived, cls) == value
    refuse_unknown_fields(arrived)


@settings(max_examples=15)
@given(data=st.data())
def test_equal_values_have_equal_bytes(data: st.DataObject) -> None:
    """What is read and written again has the same bytes: digests of specs can be compared."""
    value: object = data.draw(values_of("ProjectSpec"))
    sent = to_proto(value, spec_pb2.ProjectSpec).SerializeToString(deterministic=True)
    again = from_proto(parse(sent, spec_pb2.ProjectSpec), model.ProjectSpec)
    assert to_proto(again, spec_pb2.ProjectSpec).SerializeToString(deterministic=True) == sent


def _damaged(data: st.DataObject, valid: bytes) -> bytes:
    """Return a message with some of its bytes changed, or cut."""
    damaged = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        if damaged:
            position = data.draw(st.integers(0, len(damaged) - 1))
            damaged[position] = data.draw(st.integers(0, 255))
    return bytes(damaged[: data.draw(st.integers(0, len(damaged)))])


@pytest.mark.parametrize("name", sorted(CONVERTED))
@settings(max_examples=10)
@given(data=st.data())
def test_a_damaged_message_is_read_or_refused(name: str, data: st.DataObject) -> None:
    """Damaged bytes give a value of the class that can be sent again, or an InvalidRequest."""
    cls = CLASSES[name]
    valid = to_proto(data.draw(values_of(name)), MESSAGES[name]).SerializeToString()
    with suppress(InvalidRequest):
        value = from_proto(parse(_damaged(data, valid), MESSAGES[name]), cls)
        assert from_proto(to_proto(value, MESSAGES[name]), cls) == value


@settings(max_examples=10)
@given(junk=st.binary(max_size=64), name=st.sampled_from(sorted(CONVERTED)))
def test_junk_is_read_or_refused(junk: bytes, name: str) -> None:
    """Random bytes raise nothing but InvalidRequest."""
    with suppress(InvalidRequest):
        message = parse(junk, MESSAGES[name])
        assert isinstance(from_proto(message, CLASSES[name]), CLASSES[name])
        refuse_unknown_fields(message)


@given(st.integers(-1, 20), st.text(), st.none() | st.binary())
def test_any_refusal_becomes_an_error(code: int, message: str, detail: bytes | None) -> None:
    """Whatever a stranger sends as an error's detail, the caller gets a DrayError."""
    assert isinstance(error_from_proto(code, message, detail), DrayError)
