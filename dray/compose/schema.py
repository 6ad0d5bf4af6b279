"""What does an editor need to complete and check a Compose file with `x-dray`? A JSON Schema.

Generated from the table of keys, the words of `x-dray` and the table of treatments, which give the
descriptions. It is of draft 2020-12, and describes a file as it is written: before
interpolation and merging, in short and long forms.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from dray.compose.keys import COMPOSE
from dray.compose.kinds import NAME_PATTERN
from dray.compose.kinds import Kind as KeyKind
from dray.compose.place import Path
from dray.compose.treatment import AVAILABLE, Executor, Row, Treatment, row_of
from dray.compose.xdray import KEY
from dray.compose.xdray_table import LISTS_MAX, PROJECT_WORDS, SERVICE_WORDS, VERSION, Kind, Word

__all__ = ["DIALECT", "Schema", "compose_schema", "remark"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Schema: TypeAlias = "dict[str, Json]"

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TYPES: Final = {
    "text": "string",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "null": "null",
}
_EXTENSIONS: Final[Schema] = {"^x-": True}
# What a file says with a variable is known after interpolation only.
_VARIABLE: Final[Schema] = {"type": "string", "pattern": "\\$"}


def compose_schema(available: frozenset[Executor] = AVAILABLE) -> Schema:
    """Return the schema of a Compose file as dray takes it.

    Args:
        available: The executors that there are; what others carry out is marked.
    """
    maker = _Maker(available)
    return {
        "$schema": DIALECT,
        "$id": f"urn:dray:compose:{VERSION}",
        "title": "Compose file for dray",
        **maker.of(COMPOSE, ()),
    }


def remark(row: Row, available: frozenset[Executor] = AVAILABLE) -> str:
    """Return how a key is treated, as a sentence."""
    if row.treatment is Treatment.MEANINGLESS:
        return f"Has no effect: {row.reason}."
    if row.treatment is Treatment.REFUSED:
        return f"Refused: {row.reason}; {row.instead}."
    missing = [each.name for each in row.executors if each not in available]
    said = row.reason if row.reason.endswith(".") else f"{row.reason}." if row.reason else ""
    said = said[:1].upper() + said[1:]
    if missing:
        return f"{said} Refused until there is: {', '.join(missing)}.".strip()
    return f"{said} Carried out by: {', '.join(each.name for each in row.executors)}.".strip()


class _Maker:
    """Turns kinds and words into schemas, with the treatment as description."""

    def __init__(self, available: frozenset[Executor]) -> None:
        self.available = available

    def of(self, kind: KeyKind, path: Path) -> Schema:
        """Return the schema of what may stand at a path of a file."""
        types = [_TYPES[each] for each in kind.scalars]
        schema: Schema = {}
        if kind.items is not None:
            types.append("array")
            schema["items"] = self.of(kind.items, (*path, 0))
            if kind.unique:
                schema["uniqueItems"] = True
        if kind.is_mapping:
            types.append("object")
            schema |= self.mapping(kind, path)
        if types:
            known: list[Json] = list(dict.fromkeys(types))
            schema["type"] = known[0] if len(known) == 1 else known
        _add_limits(schema, kind)
        return schema

    def mapping(self, kind: KeyKind, path: Path) -> Schema:
        """Return the part of a schema that is about keys."""
        schema: Schema = {}
        if kind.fields is not None:
            fields = sorted(kind.fields.items())
            properties: Schema = {
                name: self.described(self.of(inner, (*path, name)), (*path, name))
                for name, inner in fields
            }
            schema["properties"] = properties | self.extension(path)
        if kind.extensions:
            schema["patternProperties"] = dict(_EXTENSIONS)
        if kind.required:
            schema["required"] = list(kind.required)
        if kind.values is None:
            schema["additionalProperties"] = False
        else:
            schema["additionalProperties"] = self.of(kind.values, (*path, "*"))
            if kind.names:
                schema["propertyNames"] = {"pattern": f"^({NAME_PATTERN}|x-.*)$"}
        return schema

    def described(self, schema: Schema, path: Path) -> Schema:
        """Return a key's schema with how it is treated."""
        row = row_of(path)
        if row is None:
            return schema
        return {"description": remark(row, self.available), **schema}

    def extension(self, path: Path) -> Schema:
        """Return `x-dray` where a file can have it: at the top and in services."""
        words = {0: PROJECT_WORDS, 2: SERVICE_WORDS}.get(len(path))
        if words is None or path[:1] not in ((), ("services",)):
            return {}
        below = (*path, KEY)
        return {KEY: self.described(self.words(words, below), below)}

    def words(self, words: tuple[Word, ...], path: Path) -> Schema:
        """Return the schema of a mapping of `x-dray`."""
        schema: Schema = {
            "type": "object",
            "properties": {
                word.name: self.described(self.word(word, (*path, word.name)), (*path, word.name))
                for word in words
            },
            "additionalProperties": False,
        }
        required: list[Json] = [word.name for word in words if word.required]
        return schema | ({"required": required} if required else {})

    def word(self, word: Word, path: Path) -> Schema:
        """Return the schema of one word's value."""
        match word.kind:
            case Kind.FLAG:
                return {"anyOf": [{"type": "boolean"}, dict(_VARIABLE)]}
            case Kind.WHOLE | Kind.NUMBER:
                name = "integer" if word.kind is Kind.WHOLE else "number"
                number: Schema = {"type": name, "minimum": word.low, "maximum": word.high}
                return {"anyOf": [number, dict(_VARIABLE)]}
            case Kind.TEXT:
                return {"type": "string", "minLength": 1}
            case Kind.CHOICE:
                return {"anyOf": [{"enum": list(word.choices)}, dict(_VARIABLE)]}
            case Kind.SIZE:
                return {"type": ["string", "integer"], "minimum": 0}
            case Kind.TEXTS:
                return {"type": "array", "items": {"type": "string"}, "maxItems": LISTS_MAX}
            case Kind.LABELS:
                return {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "number", "boolean"]},
                }
            case Kind.MAPPING:
                return self.words(word.words, path)
            case Kind.TEXT_OR_MAPPING:
                return {"anyOf": [{"type": "string"}, self.words(word.words, path)]}
            case Kind.RULES:
                one: Schema = {"anyOf": [{"type": "string"}, self.words(word.words, (*path, 0))]}
                return {"type": "array", "items": one, "maxItems": LISTS_MAX}


def _add_limits(schema: Schema, kind: KeyKind) -> None:
    """Add what texts and numbers are bounded by."""
    if kind.choices:
        schema["if"] = {"type": "string"}
        schema["then"] = {"anyOf": [{"enum": list(kind.choices)}, dict(_VARIABLE)]}
    elif kind.pattern:
        schema["if"] = {"type": "string"}
        schema["then"] = {"anyOf": [{"pattern": f"^({kind.pattern})$"}, dict(_VARIABLE)]}
    if kind.minimum is not None:
        schema["minimum"] = kind.minimum
    if kind.maximum is not None:
        schema["maximum"] = kind.maximum
