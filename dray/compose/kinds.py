"""What may a value of a Compose file be? The vocabulary that `dray.compose.keys` is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

__all__ = ["NAME_PATTERN", "Kind", "either", "list_of", "map_of", "record", "scalar"]

NAME_PATTERN: Final = r"[a-zA-Z0-9._-]+"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be: scalars of some types, a list, a mapping, or several of these.

    Attributes:
        scalars: Allowed scalar types: "text", "number", "integer", "boolean", "null".
        items: What the items of a list are; None: no list.
        unique: Whether a list may not hold an item twice.
        fields: The known keys of a mapping; None: it has no fixed keys.
        values: What a mapping holds under keys the file chooses; None: no such keys.
        names: Whether chosen keys must match `NAME_PATTERN`.
        required: Keys that must be there.
        extensions: Whether keys that start with "x-" are taken as well.
        choices: The only allowed texts; empty: any.
        pattern: What a text must contain, as a regular expression; empty: anything.
        minimum: The least number; None: any.
        maximum: The greatest number; None: any.
        form: How the value is printed, see `dray.compose.shape`; empty: as it is.
        always: Keys that are printed even if nothing was said, with an empty mapping.
        keep: Whether the value is printed though it is zero, false or empty.
    """

    scalars: tuple[str, ...] = ()
    items: Kind | None = None
    unique: bool = False
    fields: Mapping[str, Kind] | None = None
    values: Kind | None = None
    names: bool = False
    required: tuple[str, ...] = ()
    extensions: bool = True
    choices: tuple[str, ...] = ()
    pattern: str = ""
    minimum: int | None = None
    maximum: int | None = None
    form: str = ""
    always: tuple[str, ...] = field(default=())
    keep: bool = False

    @property
    def is_mapping(self) -> bool:
        """Whether a mapping is allowed."""
        return self.fields is not None or self.values is not None


def scalar(*types: str, form: str = "text", **more: object) -> Kind:
    """Return a kind of scalars of these types."""
    return replace(Kind(types, form=form), **more)  # type: ignore[arg-type]


def list_of(items: Kind, *, unique: bool = False) -> Kind:
    """Return a kind of lists."""
    return Kind(items=items, unique=unique)


def map_of(values: Kind, *, names: bool = False, form: str = "") -> Kind:
    """Return a kind of mappings whose keys the file chooses."""
    return Kind(values=values, names=names, form=form)


def record(fields: Mapping[str, Kind], *required: str, **more: object) -> Kind:
    """Return a kind of mappings with known keys."""
    return replace(Kind(fields=fields, required=required), **more)  # type: ignore[arg-type]


def either(*options: Kind, form: str = "") -> Kind:
    """Return kinds of different types as one; later ones add to earlier ones."""
    joined = options[0]
    for option in options[1:]:
        joined = replace(
            joined,
            scalars=joined.scalars + option.scalars,
            items=joined.items or option.items,
            unique=joined.unique or option.unique,
            fields=joined.fields if joined.fields is not None else option.fields,
            values=joined.values or option.values,
            names=joined.names or option.names,
            required=joined.required or option.required,
            extensions=joined.extensions and option.extensions,
            choices=joined.choices or option.choices,
            always=joined.always or option.always,
        )
    return replace(joined, form=form)
