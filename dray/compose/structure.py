"""Does a tree have the structure that the table of keys demands?

Every difference is reported, each with its place: unknown keys with what was probably meant, values
of a wrong type, missing keys, values outside a choice or a range.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dray.compose.keys import COMPOSE
from dray.compose.kinds import NAME_PATTERN, Kind
from dray.compose.tree import Keys, Map, Mark, Problems, Seq, plain

__all__ = ["check_section", "check_structure", "did_you_mean", "type_name"]

_NAME = re.compile(NAME_PATTERN)
_TYPE_WORDS: Final = {
    "text": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "nothing",
}
_CAST_FORMS: Final = ("count", "flag", "float", "integer", "opt out")
_CUTOFF: Final = 0.7  # how alike two keys must be to be taken for a slip
_COMPARED_MAX: Final = 200  # known words that a wrong one is compared with
_SHOWN_LENGTH: Final = 40


def check_structure(tree: Any, problems: Problems) -> None:
    """Add to `problems` every place where a file's tree differs from the table of keys."""
    _check(tree, COMPOSE, (), getattr(tree, "mark", None), problems)


def check_section(tree: Map, section: str, problems: Problems) -> bool:
    """Check one top-level section alone; return whether it is sound."""
    assert COMPOSE.fields is not None
    before = problems.unsettled
    mark = tree.mark_of(section)
    _check(tree[section], COMPOSE.fields[section], (section,), mark, problems)
    return problems.unsettled == before


def type_name(value: object) -> str:
    """Return what people call the type of a value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{str(value).lower()}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int | float):
        return f"the number {value}"
    text = str(value)
    return f"the text {text[:_SHOWN_LENGTH] + '…' if len(text) > _SHOWN_LENGTH else text!r}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word that is most like `word`, or nothing."""
    meant = _nearest(word, known)
    return f"did you mean {meant!r}?" if meant else ""


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like `word`, or nothing."""
    wanted = word.lower().replace("-", "_").replace(" ", "_")[:64]
    alike = (each for each in known if abs(len(each) - len(wanted)) <= len(wanted) // 2)
    chosen = itertools.islice(alike, _COMPARED_MAX)
    by_form = {each.lower().replace("-", "_"): each for each in chosen}
    close = difflib.get_close_matches(wanted, by_form, n=1, cutoff=_CUTOFF)
    return by_form[close[0]] if close else ""


def _check(value: Any, kind: Kind, path: Keys, mark: Mark | None, problems: Problems) -> None:
    if isinstance(value, Map) and kind.fields is not None:
        _check_record(value, kind, path, problems)
    elif isinstance(value, Map) and kind.values is not None:
        _check_map(value, kind, path, problems)
    elif isinstance(value, Seq) and kind.items is not None:
        _check_list(value, kind, path, problems)
    elif isinstance(value, Map | Seq) or not _is_scalar(value, kind.scalars):
        problems.add(mark, path, f"must be {_expected(kind)}, not {type_name(value)}")
    else:
        _check_scalar(value, kind, path, mark, problems)


def _expected(kind: Kind) -> str:
    words = []
    if kind.is_mapping:
        words.append("a mapping")
    if kind.items is not None:
        words.append("a list")
    scalars = dict.fromkeys(kind.scalars)
    if kind.form in _CAST_FORMS and len(scalars) > 1:
        del scalars["text"]  # taken because of variables; what they hold must be the other type
    words += [_TYPE_WORDS[name] for name in scalars]
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _is_scalar(value: Any, types: tuple[str, ...]) -> bool:
    if isinstance(value, str):
        return "text" in types
    if value is None:
        return "null" in types
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int) or value.is_integer():
        return "integer" in types or "number" in types
    return "number" in types


def _check_scalar(
    value: Any, kind: Kind, path: Keys, mark: Mark | None, problems: Problems
) -> None:
    if isinstance(value, str):
        if kind.choices and value not in kind.choices:
            allowed = ", ".join(kind.choices[:-1]) + (" or " if kind.choices[1:] else "")
            hint = did_you_mean(value, kind.choices)
            message = f"must be {allowed}{kind.choices[-1]}, not {type_name(value)}"
            problems.add(mark, path, message, hint)
        elif kind.pattern and re.search(kind.pattern, value) is None:
            problems.add(mark, path, f"{value!r} is not a proper {path[-1]}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if kind.minimum is not None and value < kind.minimum:
            problems.add(mark, path, f"must be {kind.minimum} or more, not {value}")
        if kind.maximum is not None and value > kind.maximum:
            problems.add(mark, path, f"must be {kind.maximum} or less, not {value}")


def _check_record(value: Map, kind: Kind, path: Keys, problems: Problems) -> None:
    assert kind.fields is not None
    for key, inner in value.items():
        field = kind.fields.get(key)
        if field is not None:
            _check(inner, field, (*path, key), value.mark_of(key), problems)
        elif not (key.startswith("x-") and kind.extensions) and kind.form != "open":
            _unknown_key(value, key, kind.fields, path, problems)
    for key in kind.required:
        if problems.is_refused((*path, key)):
            problems.refuse(path)  # later stages count on its required keys
        elif key not in value:
            problems.add(value.mark, path, f"lacks the key {key!r}")


def _unknown_key(
    value: Map, key: str, fields: Mapping[str, Kind], path: Keys, problems: Problems
) -> None:
    meant = _nearest(key, fields)
    hint = f"did you mean {meant!r}?" if meant else _elsewhere(key, path)
    if meant:
        if meant not in value:
            problems.doubt((*path, meant))
    elif len(path) > 2:
        problems.doubt(path)  # the key may stand for any that is missing
    problems.add(value.key_mark(key), (*path, key), "is not a known key", hint)


def _elsewhere(key: str, path: Keys) -> str:
    """Return a hint for a key that is known in another place."""
    assert COMPOSE.fields is not None
    services = COMPOSE.fields["services"].values
    assert services is not None
    assert services.fields is not None
    if not path and key in services.fields:
        return "it belongs into a service"
    if len(path) == 2 and path[0] == "services":
        deploy = services.fields["deploy"].fields or {}
        if key in deploy:
            return "it belongs under deploy"
        if key in COMPOSE.fields:
            return "it belongs at the top of the file"
    if not path:
        return "a service belongs under services, an extension starts with x-"
    return ""


def _check_map(value: Map, kind: Kind, path: Keys, problems: Problems) -> None:
    assert kind.values is not None
    for key, inner in value.items():
        if kind.names and _NAME.fullmatch(key) is None:
            message = f"{key[:_SHOWN_LENGTH]!r} is not a proper name"
            hint = "a name may hold letters, digits and . _ -"
            problems.add(value.key_mark(key), (*path, key), message, hint)
            continue
        _check(inner, kind.values, (*path, key), value.mark_of(key), problems)


def _check_list(value: Seq, kind: Kind, path: Keys, problems: Problems) -> None:
    assert kind.items is not None
    seen: set[object] = set()
    for index, inner in enumerate(value):
        _check(inner, kind.items, (*path, index), value.mark_of(index), problems)
        if kind.unique:
            name = repr(plain(inner)) if isinstance(inner, Map | Seq) else inner
            if name in seen:
                problems.add(value.mark_of(index), (*path, index), "is in the list twice")
            seen.add(name)
