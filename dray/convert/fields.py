"""How is a value of each kind that the model uses written to a protobuf field, and read back?

A *kind* is a pair of functions: `encode` turns a model value into what a message's constructor
takes, `decode` turns what a message holds into a model value. Both raise `Problem` for a value that
cannot be converted; whoever calls them adds where it stands.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from dray.errors import InvalidRequest
from dray.names import ID_BYTES, id_bytes, id_text

__all__ = [
    "BOOL",
    "BYTES",
    "FLOAT",
    "ID",
    "LIST_ITEMS_MAX",
    "PAIRS",
    "STRING",
    "STRING_LIST",
    "STRING_MAP",
    "Kind",
    "Problem",
    "enum_kind",
    "int_kind",
    "list_kind",
]

LIST_ITEMS_MAX: Final = 10_000  # items of one list: above every documented limit of the contract
IDS_KEPT: Final = 1_024  # ids lately converted: a task is named twice, a node by all of its tasks

_INT_BITS: Final = {FieldDescriptor.TYPE_INT32: 32, FieldDescriptor.TYPE_INT64: 64}


class Problem(Exception):
    """A value cannot be converted.

    Attributes:
        text: What is wrong with it, to follow the field's path.
        path: Where it stands, innermost first: field names and "[index]".
    """

    def __init__(self, text: str, *path: str) -> None:
        """Say what is wrong; the path grows while the exception rises."""
        super().__init__(text)
        self.text = text
        self.path: list[str] = list(path)


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one kind are converted.

    Attributes:
        encode: Model value to constructor argument.
        decode: Message value to model value.
        proto_type: Type that the protobuf field must have.
    """

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    proto_type: int


def int_kind(proto_type: int) -> Kind:
    """Return the kind of whole numbers that fit into the given protobuf type."""
    assert proto_type in _INT_BITS, proto_type
    bits = _INT_BITS[proto_type]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def encode(value: int) -> int:
        if not low <= value <= high:
            raise Problem(f"{value} does not fit into {bits} bits")
        return value

    return Kind(encode, int, proto_type)


def enum_kind(members: type[enum.Enum]) -> Kind:
    """Return the kind of an enumeration; the model's values are the numbers on the wire."""
    by_number = {member.value: member for member in members}

    def encode(value: enum.Enum) -> int:
        return int(value.value)

    def decode(number: int) -> enum.Enum:
        if number not in by_number:
            raise Problem(f"{number} is not known to this version of dray")
        return by_number[number]

    return Kind(encode, decode, FieldDescriptor.TYPE_ENUM)


def list_kind(item: Kind) -> Kind:
    """Return the kind of a tuple of items of one kind."""

    def convert_each(convert: Callable[[Any], Any], values: Any) -> list[Any]:
        _check_length(values)
        done: list[Any] = []
        try:
            for value in values:
                done.append(convert(value))  # noqa: PERF401 - its length is the index of a problem
        except Problem as problem:
            problem.path.append(f"[{len(done)}]")
            raise
        return done

    def encode(values: Any) -> list[Any]:
        return convert_each(item.encode, values)

    def decode(values: Any) -> tuple[Any, ...]:
        return tuple(convert_each(item.decode, values))

    return Kind(encode, decode, item.proto_type)


def _encode_text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Problem("holds half of a surrogate pair, which is not text") from None
    return text


def _encode_float(number: float) -> float:
    if not math.isfinite(number):
        raise Problem(f"{number} is not a finite number")
    return float(number)


@functools.lru_cache(maxsize=IDS_KEPT)
def _encode_id(text: str) -> bytes:
    try:
        return id_bytes(text)
    except InvalidRequest as error:
        raise Problem(error.message) from None


@functools.lru_cache(maxsize=IDS_KEPT)
def _decode_id(raw: bytes) -> str:
    if len(raw) != ID_BYTES:
        raise Problem(f"an id has {ID_BYTES} bytes, this one has {len(raw)}")
    return id_text(raw)


def _encode_pairs(pairs: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    _check_length(pairs)
    return [{"key": _encode_text(key), "value": _encode_text(value)} for key, value in pairs]


def _decode_pairs(pairs: Any) -> tuple[tuple[str, str], ...]:
    _check_length(pairs)
    return tuple((pair.key, pair.value) for pair in pairs)


def _decode_map(pairs: Any) -> tuple[tuple[str, str], ...]:
    values = sorted(_decode_pairs(pairs))
    for (key, _), (following, _) in pairwise(values):
        if key == following:
            raise Problem(f"the key {key[:100]!r} occurs twice")
    return tuple(values)


def _encode_string_list(items: tuple[str, ...]) -> dict[str, list[str]]:
    return {"items": list_kind(STRING).encode(items)}


def _decode_string_list(message: Any) -> tuple[str, ...]:
    _check_length(message.items)
    return tuple(message.items)


def _check_length(values: Any) -> None:
    if len(values) > LIST_ITEMS_MAX:
        raise Problem(f"has {len(values)} items, {LIST_ITEMS_MAX} are the most")


STRING: Final = Kind(_encode_text, str, FieldDescriptor.TYPE_STRING)
BOOL: Final = Kind(bool, bool, FieldDescriptor.TYPE_BOOL)
BYTES: Final = Kind(bytes, bytes, FieldDescriptor.TYPE_BYTES)
FLOAT: Final = Kind(_encode_float, _encode_float, FieldDescriptor.TYPE_DOUBLE)
ID: Final = Kind(_encode_id, _decode_id, FieldDescriptor.TYPE_BYTES)
# Pairs in an order that means something, keys perhaps more than once; and maps, sorted by key.
PAIRS: Final = Kind(_encode_pairs, _decode_pairs, FieldDescriptor.TYPE_MESSAGE)
STRING_MAP: Final = Kind(_encode_pairs, _decode_map, FieldDescriptor.TYPE_MESSAGE)
# A list that may be absent, which is not the same as an empty one.
STRING_LIST: Final = Kind(_encode_string_list, _decode_string_list, FieldDescriptor.TYPE_MESSAGE)
