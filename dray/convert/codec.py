"""How does a dataclass of the model become the message of the same name, and back?

For each class a `_Codec` is built once from its type hints and the message's descriptor: one row a
field. Names must agree, so building is also the check that the two sides belong together; what
cannot be derived from a type hint is in the tables below.

Presence: a field of the model whose absence differs from zero (it may be None, or its default is
not zero) is `optional` on the wire and always sent when it has a value; any other is sent unless it
is zero. An absent field gets the model's default; one without a default gets zero, or is refused
where there is no zero (ids, enumerations, messages).
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any, Final, TypeVar, get_args, get_origin

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from dray import views
from dray.addresses import HostPort
from dray.api.v1 import cluster_pb2, node_pb2, spec_pb2, state_pb2, stream_pb2, types_pb2
from dray.convert import fields
from dray.convert.fields import Kind, Problem
from dray.errors import InvalidRequest
from dray.model.values import StringMap
from dray.names import ClusterId, NodeId, RequestId, SchedulerId, TaskId

__all__ = [
    "CONVERTED",
    "VIEWED",
    "from_bytes",
    "from_proto",
    "parse",
    "refuse_unknown_fields",
    "register",
    "to_bytes",
    "to_proto",
]

ModelT = TypeVar("ModelT")
MessageT = TypeVar("MessageT", bound=Message)

# The messages that mirror a class of the model, by its name.
CONVERTED: Final[dict[str, Descriptor]] = {
    **spec_pb2.DESCRIPTOR.message_types_by_name,
    **state_pb2.DESCRIPTOR.message_types_by_name,
}
_VIEW_MESSAGES: Final[dict[str, Descriptor]] = {
    **cluster_pb2.DESCRIPTOR.message_types_by_name,
    **node_pb2.DESCRIPTOR.message_types_by_name,
    **stream_pb2.DESCRIPTOR.message_types_by_name,
    **types_pb2.DESCRIPTOR.message_types_by_name,
    "GossipMember": node_pb2.Member.DESCRIPTOR,
}
# The messages that mirror a class of `dray.views`, by its name.
VIEWED: Final[dict[str, Descriptor]] = {
    name: _VIEW_MESSAGES[name] for name in views.__all__ if name in _VIEW_MESSAGES
}
# Those of other packages, by the name of their class.
_REGISTERED: Final[dict[str, Descriptor]] = {}
_IDS: Final = frozenset({ClusterId, NodeId, RequestId, SchedulerId, TaskId})
_SCALARS: Final = {
    str: fields.STRING,
    bool: fields.BOOL,
    bytes: fields.BYTES,
    float: fields.FLOAT,
}
# Pairs of text that are no map: order counts, or a key may occur twice.
_PAIRS: Final = frozenset({("ContainerSpec", "extra_hosts"), ("Endpoint", "aliases")})
# What an absent field without a default is; ids, enumerations and messages have no zero.
_ZEROS: Final = {str: "", int: 0, float: 0.0, bool: False, bytes: b""}
_DEPTH_MAX: Final = 32  # messages in messages: the contract's deepest has 6


def register(file: FileDescriptor) -> None:
    """Let classes of another package be converted: each has the name of a message of `file`.

    Registering a file again is harmless.
    """
    for name, descriptor in file.message_types_by_name.items():
        assert name not in CONVERTED, name
        assert _REGISTERED.setdefault(name, descriptor) is descriptor, name


def to_bytes(value: object) -> bytes:
    """Return the serialised message that says what `value` says.

    Raises:
        InvalidRequest: As `to_proto`.
    """
    return to_proto(value, _message_class(type(value))).SerializeToString()


def from_bytes(data: bytes, cls: type[ModelT], *, name: str = "") -> ModelT:
    """Return the instance of `cls` that the serialised message says.

    Raises:
        InvalidRequest: As `parse` and `from_proto`.
    """
    return from_proto(parse(data, _message_class(cls)), cls, name=name)


def to_proto(value: object, message_type: type[MessageT]) -> MessageT:
    """Return the message that says what `value` says.

    Args:
        value: An instance of a class of the model.
        message_type: The generated class of the same name.

    Raises:
        InvalidRequest: A value has no form on the wire: a number out of range, text that is none,
            a malformed id, a list of more than `LIST_ITEMS_MAX`. The message names its path.
    """
    codec = _codec(type(value))
    assert codec.descriptor is message_type.DESCRIPTOR, (type(value), message_type)
    try:
        return message_type(**codec.encode(value))
    except Problem as problem:
        raise _invalid(problem, "") from None


def from_proto(message: Message, cls: type[ModelT], *, name: str = "") -> ModelT:
    """Return the instance of `cls` that says what `message` says.

    Fields that this version does not know are ignored: see `refuse_unknown_fields`.

    Args:
        message: A message from a peer, not to be trusted.
        cls: The model's class of the same name.
        name: What the message is to its reader, the beginning of a path in errors: "project".

    Raises:
        InvalidRequest: Something is missing, out of range or unknown. The message and
            `context["field"]` name its path.
    """
    codec = _codec(cls)
    assert codec.descriptor is message.DESCRIPTOR, (cls, message.DESCRIPTOR.full_name)
    try:
        value = codec.decode(message)
    except Problem as problem:
        raise _invalid(problem, name) from None
    assert isinstance(value, cls), type(value)
    return value


def parse(data: bytes, message_type: type[MessageT]) -> MessageT:
    """Return the message in `data`, not yet checked in any other way.

    Raises:
        InvalidRequest: The bytes are no such message.
    """
    try:
        return message_type.FromString(data)
    except DecodeError as error:
        name = message_type.DESCRIPTOR.name
        raise InvalidRequest(f"{len(data)} bytes that are no {name}") from error


def refuse_unknown_fields(message: Message, *, name: str = "") -> None:
    """Refuse a message that holds fields which this version of dray does not know.

    For what users ask: a newer client's wish must not be dropped in silence.

    Raises:
        InvalidRequest: Naming the message and the number of the field.
    """
    try:
        _refuse_unknown(message, _DEPTH_MAX)
    except Problem as problem:
        raise _invalid(
            problem, name, hint="the client is newer than the scheduler; upgrade the schedulers"
        ) from None


def _message_class(cls: type[Any]) -> type[Message]:
    """Return the generated class that mirrors a class.

    Its import costs the command line as much as all of gRPC, and only stores need it.
    """
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(_codec(cls).descriptor)


@dataclass(frozen=True, slots=True)
class _Row:
    """One field: its name on both sides, how it is converted, whether zero is sent, too."""

    name: str
    kind: Kind
    has_presence: bool


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one class of the model is converted.

    Attributes:
        cls: The class.
        descriptor: Its message.
        rows: Its fields.
        by_field: The same, by the field's descriptor (one object a field for good).
        zeros: What fields without a default are when absent.
        required: Fields that may not be absent.
    """

    cls: type[Any]
    descriptor: Descriptor
    rows: tuple[_Row, ...]
    by_field: dict[FieldDescriptor, _Row]
    zeros: dict[str, Any]
    required: tuple[str, ...]

    def encode(self, value: Any) -> dict[str, Any]:
        """Return the arguments of the message's constructor."""
        arguments: dict[str, Any] = {}
        for row in self.rows:
            name = row.name
            item = getattr(value, name)
            if item is None or (not item and not row.has_presence):
                continue
            try:
                arguments[name] = row.kind.encode(item)
            except Problem as problem:
                problem.path.append(name)
                raise
        return arguments

    def decode(self, message: Message) -> Any:
        """Return the class's instance."""
        arguments = dict(self.zeros)
        by_field = self.by_field
        for descriptor, item in message.ListFields():
            row = by_field[descriptor]
            try:
                arguments[row.name] = row.kind.decode(item)
            except Problem as problem:
                problem.path.append(row.name)
                raise
        for name in self.required:
            if name not in arguments:
                raise Problem("is missing", name)
        return self.cls(**arguments)


_CODECS: Final[dict[type[Any], _Codec]] = {}


def _codec(cls: type[Any]) -> _Codec:
    """Return the codec of a class, built on its first use."""
    codec = _CODECS.get(cls)
    if codec is None:
        codec = _CODECS[cls] = _build(cls)
    return codec


def _build(cls: type[Any]) -> _Codec:
    """Build the codec of a class. An assertion fails when model and contract do not agree."""
    descriptor = _descriptor(cls)
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    assert names == [field.name for field in descriptor.fields], (cls, descriptor.full_name)
    rows: list[_Row] = []
    zeros: dict[str, Any] = {}
    required: list[str] = []
    for field, proto in zip(dataclasses.fields(cls), descriptor.fields, strict=True):
        hint, is_optional = _without_none(hints[field.name])
        rows.append(_row(cls, hint, is_optional, proto))
        if field.default is MISSING and field.default_factory is MISSING:
            zero = None if is_optional else _zero(hint)
            if zero is MISSING:
                required.append(field.name)
            else:
                zeros[field.name] = zero
        else:
            _check_default(field.default, proto)
    by_field = dict(zip(descriptor.fields, rows, strict=True))
    return _Codec(cls, descriptor, tuple(rows), by_field, zeros, tuple(required))


def _descriptor(cls: type[Any]) -> Descriptor:
    """Return the message that mirrors a class: by its module first, as two may share a name."""
    if cls is HostPort:
        return types_pb2.Address.DESCRIPTOR
    if _is_view(cls):
        return VIEWED[cls.__name__]
    return CONVERTED.get(cls.__name__) or _REGISTERED[cls.__name__]


def _is_view(cls: type[Any]) -> bool:
    return cls.__module__.startswith("dray.views")


def _row(cls: type[Any], hint: Any, is_optional: bool, proto: FieldDescriptor) -> _Row:
    """Return how one field is converted, after checking that both sides mean the same."""
    kind = _kind(cls, hint, is_optional, proto)
    assert kind.proto_type == proto.type, (cls, proto.full_name)
    is_list = get_origin(hint) is tuple and kind is not fields.STRING_LIST
    assert is_list == proto.is_repeated, (cls, proto.full_name)
    assert proto.has_presence or not is_optional or _has_empty_form(hint), (cls, proto.full_name)
    return _Row(proto.name, kind, proto.has_presence)


def _kind(cls: type[Any], hint: Any, is_optional: bool, proto: FieldDescriptor) -> Kind:
    if hint == StringMap:
        return fields.PAIRS if (cls.__name__, proto.name) in _PAIRS else fields.STRING_MAP
    if get_origin(hint) is tuple:
        item, ellipsis = get_args(hint)
        assert ellipsis is ...
        if is_optional:
            assert item is str, (cls, proto.full_name)
            return fields.STRING_LIST
        return fields.list_kind(_item_kind(item, proto))
    return _item_kind(hint, proto)


def _has_empty_form(hint: Any) -> bool:
    """Return whether zero on the wire is no value of the type, so that it can stand for None."""
    return hint in _IDS or (isinstance(hint, type) and issubclass(hint, enum.Enum))


def _item_kind(hint: Any, proto: FieldDescriptor) -> Kind:
    if hint in _IDS:
        return fields.ID
    hint = getattr(hint, "__supertype__", hint)  # a NewType is its base on the wire
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint is int:
        return fields.int_kind(proto.type)
    if issubclass(hint, enum.Enum):
        _check_enum(hint, proto)
        return fields.enum_kind(hint)
    nested = _codec(hint)
    assert nested.descriptor is proto.message_type, (hint, proto.full_name)
    return Kind(nested.encode, nested.decode, FieldDescriptor.TYPE_MESSAGE)


def _check_enum(members: type[enum.Enum], proto: FieldDescriptor) -> None:
    """Check that both sides have the same names with the same numbers, and 0 for absence."""
    descriptor = proto.enum_type
    assert descriptor is not None, proto.full_name
    assert descriptor.name == members.__name__, (members, proto.full_name)
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    on_wire = {value.name: value.number for value in descriptor.values if value.number}
    in_model = {prefix + member.name: member.value for member in members}
    assert on_wire == in_model, (on_wire, in_model)


def _check_default(default: Any, proto: FieldDescriptor) -> None:
    """Check that an absent field can be told from zero where the model's default is not zero."""
    is_zero = not default or isinstance(default, enum.Enum)  # an absent enumeration is never zero
    assert is_zero or proto.has_presence, proto.full_name


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return a type hint without `| None`, and whether it had it."""
    if isinstance(hint, types.UnionType) or get_origin(hint) is typing.Union:
        (inner,) = (part for part in get_args(hint) if part is not types.NoneType)
        return inner, True
    return hint, False


def _zero(hint: Any) -> Any:
    """Return what an absent field of that type is; MISSING if there is no such value."""
    if hint in _IDS:
        return MISSING
    if get_origin(hint) is tuple:
        return ()
    return _ZEROS.get(getattr(hint, "__supertype__", hint), MISSING)


def _refuse_unknown(message: Message, depth_left: int) -> None:
    unknown = UnknownFieldSet(message)
    if len(unknown):
        what, number = message.DESCRIPTOR.name, unknown[0].field_number
        raise Problem(f"{what} has a field {number} that this version of dray does not know")
    if depth_left == 0:
        raise Problem("messages are nested too deep")
    for descriptor, value in message.ListFields():
        if descriptor.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        for index, item in _items(descriptor, value):
            try:
                _refuse_unknown(item, depth_left - 1)
            except Problem as problem:
                problem.path += [*index, descriptor.name]
                raise


def _items(descriptor: FieldDescriptor, value: Any) -> Iterator[tuple[tuple[str, ...], Message]]:
    if descriptor.is_repeated:
        yield from (((f"[{index}]",), item) for index, item in enumerate(value))
    else:
        yield (), value


def _invalid(problem: Problem, name: str, *, hint: str = "") -> InvalidRequest:
    path = name
    for part in reversed(problem.path):
        path += part if part.startswith("[") or not path else f".{part}"
    text = f"{path}: {problem.text}" if path else problem.text
    return InvalidRequest(text, hint=hint, context={"field": path})
