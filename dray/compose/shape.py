"""How does a normalised tree look in the shape that the official tool prints?

Values get their final types: sizes as bytes in text, durations like "1m30s", labels as a mapping of
texts. What is zero, false or empty is left out, as the official tool does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dray.compose.interpolate import boolean_of, float_of, integer_of
from dray.compose.keys import COMPOSE
from dray.compose.kinds import Kind
from dray.compose.short import BadShort, split_command
from dray.compose.tree import Keys, Map, Mark, Problems, Seq, clone
from dray.compose.yaml_scalars import scalar_text
from dray.errors import DrayError
from dray.units import parse_bytes, parse_duration

__all__ = ["duration_text", "json_view", "shape", "yaml_view"]

_Former: TypeAlias = Callable[[Any], Any]
_OMIT: Final = object()


class _BadValue(Exception):
    """A value cannot get its final type; the text says why."""


@dataclass(frozen=True, slots=True)
class _Context:
    problems: Problems
    keep_templates: bool

    def refuse(self, mark: Mark | None, path: Keys, message: str, hint: str = "") -> None:
        self.problems.add(mark, path, message, hint)


def shape(tree: Map, problems: Problems, *, keep_templates: bool = False) -> Map:
    """Return a tree in its printed shape; extensions (x-…) are kept everywhere.

    Args:
        tree: A normalised tree.
        problems: Gathers values that cannot get their final type.
        keep_templates: Leave values with a variable in them as they are.
    """
    result = _record(tree, COMPOSE, (), _Context(problems, keep_templates))
    result.setdefault("services", Map(None))
    return result


def _shape(value: Any, kind: Kind, path: Keys, mark: Mark | None, context: _Context) -> Any:
    """Return a value's printed shape, or `_OMIT`."""
    former = _FORMERS.get(kind.form)
    if former is not None:
        if value is None and kind.form not in _NULLABLE:
            return _OMIT
        try:
            shaped = former(value)
        except (_BadValue, DrayError) as error:
            if context.keep_templates and "$" in str(value):
                return value
            hint = error.hint if isinstance(error, DrayError) else ""
            context.refuse(mark, path, error.args[0], hint)
            return _OMIT
    elif kind.form == "unprinted" or value is None:
        return _OMIT
    elif isinstance(value, Map):
        if kind.fields is not None:
            return _record(value, kind, path, context)
        shaped = _map(value, kind, path, context)
    elif isinstance(value, Seq):
        shaped = _list(value, kind, path, context)
    else:
        shaped = value
    if not kind.keep and (shaped is _OMIT or not shaped or (kind.form, shaped) == ("bytes", "0")):
        return _OMIT
    return shaped


def _record(value: Map, kind: Kind, path: Keys, context: _Context) -> Map:
    assert kind.fields is not None
    result = Map(value.mark)
    for key in sorted(value):
        field = kind.fields.get(key)
        if field is None:
            if key.startswith("x-"):
                result.take(key, value)
            continue
        shaped = _shape(value[key], field, (*path, key), value.mark_of(key), context)
        if shaped is not _OMIT:
            name = key.capitalize() if kind.form == "capitals" else key
            result.put(name, shaped, value.marks.get(key), value.key_marks.get(key))
    for key in kind.always:
        if key not in result:
            inner = kind.fields[key]
            is_null = "null" in inner.scalars
            result[key] = None if is_null else _record(Map(None), inner, (), context)
    return result


def _map(value: Map, kind: Kind, path: Keys, context: _Context) -> Map:
    assert kind.values is not None
    result = Map(value.mark)
    for key in sorted(value):
        inner = value[key]
        shaped = _shape(inner, kind.values, (*path, key), value.mark_of(key), context)
        if shaped is _OMIT:
            shaped = None
        result.put(key, shaped, value.marks.get(key), value.key_marks.get(key))
    return result


def _list(value: Seq, kind: Kind, path: Keys, context: _Context) -> Seq:
    assert kind.items is not None
    result = Seq(value.mark)
    for index, inner in enumerate(value):
        shaped = _shape(inner, kind.items, (*path, index), value.mark_of(index), context)
        result.add("" if shaped is _OMIT else shaped, value.marks[index])
    return result


# ---- scalars -------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return scalar_text(value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    flag = boolean_of(value) if isinstance(value, str) else None
    if flag is None:
        raise _BadValue(f"{scalar_text(value)!r} is not true or false")
    return flag


def _opt_out(value: Any) -> Any:
    return False if not _flag(value) else _OMIT


def _integer(value: Any) -> int:
    number = integer_of(value) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise _BadValue(f"{scalar_text(value)!r} is not a whole number")
    if not -(2**63) <= number < 2**63:
        raise _BadValue(f"{number} is outside -2^63 to 2^63-1")
    return number


def _count(value: Any) -> int:
    number = _integer(value)
    if number < 0:
        raise _BadValue(f"must be 0 or more, not {number}")
    return number


def _device_count(value: Any) -> int:
    if isinstance(value, str) and value.lower() == "all":
        return -1
    return _integer(value)


def _float(value: Any) -> float | int:
    number = float_of(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _BadValue(f"{scalar_text(value)!r} is not a number")
    return _single(float(number))


def _single(number: float) -> float | int:
    """Return the shortest number that is the same in single precision, as the official tool has."""
    try:
        packed = struct.pack("<f", number)
    except OverflowError:
        raise _BadValue(f"{number} is too large") from None
    for digits in range(1, 10):
        short = float(f"{number:.{digits}g}")
        if struct.pack("<f", short) == packed:
            return int(short) if short.is_integer() and abs(short) < 2**53 else short
    return number


def _bytes(value: Any) -> str:
    if isinstance(value, str) and value[:1] == "-" and value[1:].isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and -(2**63) <= value < 0:
        return str(value)
    return str(parse_bytes(value if isinstance(value, int) else scalar_text(value)))


def _duration(value: Any) -> Any:
    return duration_text(round(parse_duration(scalar_text(value)) * 1_000_000_000))


def duration_text(duration_ns: int) -> str:
    """Return a duration as the official tool prints it: "1m30s", "1h0m0s", "500ms", "0s"."""
    if duration_ns < 1_000_000_000:
        for unit, unit_ns in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if duration_ns >= unit_ns:
                whole, rest = divmod(duration_ns, unit_ns)
                return f"{_decimal(whole, rest, unit_ns)}{unit}"
        return "0s"
    minutes, rest_ns = divmod(duration_ns, 60_000_000_000)
    seconds, fraction_ns = divmod(rest_ns, 1_000_000_000)
    text = f"{_decimal(seconds, fraction_ns, 1_000_000_000)}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(whole: int, rest: int, one: int) -> str:
    digits = len(str(one)) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0").rstrip(".") if rest else str(whole)


def _mode(value: Any) -> str:
    if isinstance(value, str):
        try:
            number = int(value, 8)
        except ValueError:
            raise _BadValue(f"{value!r} is not a mode in octal digits") from None
    else:
        number = _integer(value)
    return f"0{number:o}"


def _ulimit(value: Any) -> Any:
    if not isinstance(value, Map):
        return _integer(value) or Map(None)
    result = Map(value.mark)
    for key in ("hard", "soft"):
        if key in value and (number := _integer(value[key])):
            result.put(key, number, value.marks.get(key), value.key_marks.get(key))
    return result


# ---- lists and mappings of texts -----------------------------------------------------------------


def _texts(value: Any) -> Seq:
    if isinstance(value, Seq):
        return value
    result = Seq(None)
    result.add(scalar_text(value), None)
    return result


def _command(value: Any) -> Any:
    if value is None or isinstance(value, Seq):
        return value
    result = Seq(None)
    try:
        for word in split_command(scalar_text(value)):
            result.add(word, None)
    except BadShort as error:
        raise _BadValue(str(error)) from None
    return result


def _test(value: Any) -> Seq:
    if isinstance(value, Seq):
        return value
    result = Seq(None)
    for word in ("CMD-SHELL", scalar_text(value)):
        result.add(word, None)
    return result


def _pairs_of(value: Any, unset: str | None, *, strict: bool = False) -> Map:
    """Return `KEY=value` items or a mapping as a mapping of texts."""
    result = Map(getattr(value, "mark", None))
    if isinstance(value, Map):
        for key in sorted(value):
            inner = value[key]
            text = unset if inner is None else scalar_text(inner)
            result.put(key, text, value.marks.get(key), value.key_marks.get(key))
        return result
    for index, item in enumerate(value):
        key, separator, text = scalar_text(item).partition("=")
        if strict and key[-1:].isspace():
            raise _BadValue(f"variable {key!r} ends with a space")
        mark = value.marks[index]
        result.put(key, text if separator else unset, mark, mark)
    return result


def _variables(value: Any) -> Map:
    return _pairs_of(value, None, strict=True)


def _pairs(value: Any) -> Map:
    return _pairs_of(value, "")


def _lists(value: Map) -> Map:
    result = Map(value.mark)
    for key in sorted(value):
        inner = value[key]
        items = Seq(value.marks.get(key))
        for each in inner if isinstance(inner, Seq) else [inner]:
            items.add(scalar_text(each), value.marks.get(key))
        result.put(key, items, value.marks.get(key), value.key_marks.get(key))
    return result


def _hosts(value: Any) -> Seq:
    """Return `HOST=ADDRESS` texts, sorted."""
    hosts: list[tuple[str, str, Mark | None]] = []
    if isinstance(value, Map):
        for host, addresses in value.items():
            texts = addresses if isinstance(addresses, Seq) else [addresses or ""]
            hosts += [(host, scalar_text(each), value.mark_of(host)) for each in texts]
    else:
        for index, item in enumerate(value):
            separator = "=" if "=" in item else ":"
            host, found, rest = item.partition(separator)
            if not found:
                raise _BadValue(f"{item!r} lacks an address")
            hosts += [(host, address, value.mark_of(index)) for address in rest.split(",")]
    result = Seq(getattr(value, "mark", None))
    for host, address, mark in sorted(hosts, key=lambda each: each[:2]):
        if not host or ":" in host or "=" in host:
            raise _BadValue(f"{host!r} is not a proper host name")
        is_bracketed = len(address) > 2 and address[0] == "[" and address[-1] == "]"
        result.add(f"{host}={address[1:-1] if is_bracketed else address}", mark)
    return result


def _ssh(value: Any) -> Seq:
    result = Seq(getattr(value, "mark", None))
    for key, path in _pairs_of(value, "").items():
        if not path and key != "default":
            raise _BadValue(f"{key!r} names no key file: write {key}=PATH")
        result.add(f"{key}={path}" if path else key, None)
    return result


def _copy(value: Any) -> Any:
    return clone(value)


_NULLABLE: Final = frozenset({"command"})
_FORMERS: Final[Mapping[str, _Former]] = {
    "bytes": _bytes,
    "command": _command,
    "count": _count,
    "device count": _device_count,
    "duration": _duration,
    "flag": _flag,
    "float": _float,
    "hosts": _hosts,
    "integer": _integer,
    "labels": _pairs,
    "lists": _lists,
    "mode": _mode,
    "opt out": _opt_out,
    "options": _pairs,
    "pairs": _pairs,
    "ssh": _ssh,
    "test": _test,
    "text": _text,
    "texts": _texts,
    "ulimit": _ulimit,
    "variables": _variables,
}


# ---- views ---------------------------------------------------------------------------------------

_PRINTED_EXTENSION: Final = "x-dray"  # dray's own words are part of what is printed
_UNPRINTED_SECTION: Final = "models"  # the official tool's JSON leaves it out


def json_view(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as the official tool prints it in JSON.

    Extensions are shown at the top only, but for dray's own.
    """
    return {
        key: value if key.startswith("x-") else _without_extensions(value, (key,))
        for key, value in config.items()
        if key != _UNPRINTED_SECTION
    }


def _without_extensions(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        is_chosen = _has_chosen_keys(path)
        return {
            key: _without_extensions(inner, (*path, key))
            for key, inner in value.items()
            if is_chosen or not key.startswith("x-") or key == _PRINTED_EXTENSION
        }
    if isinstance(value, list):
        return [_without_extensions(inner, (*path, "")) for inner in value]
    return value


def _has_chosen_keys(path: tuple[str, ...]) -> bool:
    """Return whether the file chooses the keys of the mapping at a path."""
    kind: Kind | None = COMPOSE
    for key in path:
        if kind is None:
            return True
        fields = kind.fields or {}
        kind = kind.items if key == "" else fields.get(key, kind.values)
    return kind is None or kind.fields is None


def yaml_view(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as the official tool prints it in YAML: what is not set is left out."""
    result: dict[str, Any] = _trimmed(config)
    return result


def _trimmed(value: Any) -> Any:
    if isinstance(value, Mapping):
        result = {}
        for key, inner in value.items():
            if key in ("command", "entrypoint") and inner is None:
                continue
            if key in ("ipam", "resources", "placement") and inner == {}:
                continue
            if key == "exec" and inner == {"command": None}:
                continue
            name = key.lower() if key in ("Path", "Rate", "Weight") else key
            result[name] = _trimmed(inner)
        return result
    if isinstance(value, list):
        return [_trimmed(inner) for inner in value]
    return value
