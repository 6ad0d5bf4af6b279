"""Does a value satisfy a JSON Schema? The keywords of draft 2020-12 that our own schemas use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["violations"]

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_SILENT: Final = frozenset({"$schema", "$id", "title", "description"})
_HANDLED: Final = frozenset(
    {
        *("type", "enum", "anyOf", "if", "then", "pattern", "minLength", "minimum", "maximum"),
        *("properties", "patternProperties", "additionalProperties", "propertyNames", "required"),
        *("items", "uniqueItems", "maxItems"),
    }
)


def violations(value: Any, schema: Any, path: str = "$") -> Iterator[str]:
    """Yield what in a value the schema forbids, with its path.

    An unknown keyword is an error of the test: it would be ignored in silence.
    """
    if schema is True:
        return
    if schema is False:
        yield f"{path}: is not allowed"
        return
    unknown = set(schema) - _HANDLED - _SILENT
    assert not unknown, unknown
    yield from _general(value, schema, path)
    if isinstance(value, dict):
        yield from _mapping(value, schema, path)
    elif isinstance(value, list):
        yield from _list(value, schema, path)
    elif isinstance(value, str):
        if "pattern" in schema and re.search(schema["pattern"], value) is None:
            yield f"{path}: {value!r} does not match {schema['pattern']}"
        if len(value) < schema.get("minLength", 0):
            yield f"{path}: is too short"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(value, schema, path)


def _number(value: float, schema: dict[str, Any], path: str) -> Iterator[str]:
    if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value} is out of bounds"


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float) and name == "integer":
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _general(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    types = schema.get("type", [])
    names = [types] if isinstance(types, str) else types
    if names and not any(_is(value, name) for name in names):
        yield f"{path}: {value!r} is not {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "anyOf" in schema and all(any(violations(value, each, path)) for each in schema["anyOf"]):
        yield f"{path}: {value!r} fits nothing that is allowed"
    if "if" in schema and not any(violations(value, schema["if"], path)):
        yield from violations(value, schema["then"], path)


def _mapping(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    for key in schema.get("required", []):
        if key not in value:
            yield f"{path}: has no {key}"
    for key, inner in value.items():
        below = f"{path}.{key}"
        if "propertyNames" in schema:
            yield from violations(key, schema["propertyNames"], below)
        matched = [
            each
            for pattern, each in schema.get("patternProperties", {}).items()
            if re.search(pattern, key)
        ]
        if key in schema.get("properties", {}):
            matched.append(schema["properties"][key])
        for each in matched or [schema.get("additionalProperties", True)]:
            yield from violations(inner, each, below)


def _list(value: list[Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    if len(value) > schema.get("maxItems", len(value)):
        yield f"{path}: has too many items"
    if schema.get("uniqueItems") and any(item in value[:i] for i, item in enumerate(value)):
        yield f"{path}: has an item twice"
    for index, item in enumerate(value):
        yield from violations(item, schema.get("items", True), f"{path}[{index}]")
