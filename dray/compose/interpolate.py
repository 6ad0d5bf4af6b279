"""How is `${NAME:-default}` replaced, and what type has the result?

`$NAME`, `${NAME}`, and with an operator: `-` and `:-` (a default), `?` and `:?` (an error), `+` and
`:+` (a replacement); with a colon an empty value counts as unset. Operands are interpolated in
turn, `$$` is a dollar sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from dray.compose.tree import Keys, Map, Mark, Problems, Seq

__all__ = [
    "BadTemplate",
    "boolean_of",
    "float_of",
    "integer_of",
    "interpolate_tree",
    "substitute",
]

Lookup = Callable[[str], str | None]

NESTING_MAX: Final = 32  # operands inside operands
RESULT_LENGTH_MAX: Final = 1_048_576  # characters of one value: as much as a whole file

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]{1,2})?", re.ASCII)
_FLOAT_LENGTH_MAX: Final = 64  # characters; no honest number is longer
_OPERATOR = re.compile(r":?[-+?]")


class BadTemplate(Exception):
    """A template cannot be replaced: malformed, or a required variable is missing.

    Attributes:
        message: What is wrong.
        hint: What to do.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        """Say what is wrong and what to do."""
        super().__init__(message)
        self.message = message
        self.hint = hint


def substitute(template: str, lookup: Lookup, unset: set[str] | None = None, depth: int = 0) -> str:
    """Return a text with its variables replaced.

    Args:
        template: The text.
        lookup: Returns a variable's value, or None if it is not set.
        unset: Gathers the names of variables that were replaced by nothing.
        depth: How many operands this one is inside of.

    Raises:
        BadTemplate: It is malformed, or a variable marked with `?` is missing.
    """
    if "$" not in template:
        return template
    if depth > NESTING_MAX:
        raise BadTemplate(f"nests variables more than {NESTING_MAX} deep")
    parts: list[str] = []
    length = position = 0
    while (dollar := template.find("$", position)) >= 0:
        parts.append(template[position:dollar])
        text, position = _variable(template, dollar, lookup, unset, depth)
        parts.append(text)
        length += len(text)
        if length > RESULT_LENGTH_MAX:
            raise BadTemplate(f"grows beyond {RESULT_LENGTH_MAX:,} characters")
    parts.append(template[position:])
    return "".join(parts)


def _variable(
    template: str, dollar: int, lookup: Lookup, unset: set[str] | None, depth: int
) -> tuple[str, int]:
    """Return what the text at a dollar sign becomes, and where it ends."""
    start = dollar + 1
    following = template[start : start + 1]
    if following == "$":
        return "$", start + 1
    if following == "{":
        return _braced(template, start + 1, lookup, unset, depth)
    name = _NAME.match(template, start)
    if name is None:
        return "$", start
    value = lookup(name[0])
    if value is None and unset is not None:
        unset.add(name[0])
    return value or "", name.end()


def _braced(
    template: str, start: int, lookup: Lookup, unset: set[str] | None, depth: int
) -> tuple[str, int]:
    shown = template if len(template) <= 80 else template[:80] + "…"
    bad = BadTemplate(f"{shown!r} has a malformed variable", "a plain dollar sign is written $$")
    match = _NAME.match(template, start)
    if match is None:
        raise bad
    name, position = match[0], match.end()
    value = lookup(name)
    if template[position : position + 1] == "}":
        if value is None and unset is not None:
            unset.add(name)
        return value or "", position + 1
    operator = _OPERATOR.match(template, position)
    end = _closing(template, start) if operator else -1
    if operator is None or end < 0:
        raise bad
    operand = template[operator.end() : end]
    is_given = value is not None and (value != "" or operator[0][0] != ":")
    kind = operator[0][-1]
    if kind == "+":
        return (substitute(operand, lookup, unset, depth + 1) if is_given else value or ""), end + 1
    if is_given:
        return value or "", end + 1
    text = substitute(operand, lookup, unset, depth + 1)
    if kind == "-":
        return text, end + 1
    reason = f": {text}" if text else ""
    raise BadTemplate(
        f"required variable {name} is missing a value{reason}", "set it, or put it in .env"
    )


def _closing(template: str, start: int) -> int:
    """Return the index of the brace that closes the one before `start`, on the same line.

    Braces inside are counted; if they do not balance, the last one of the line closes.
    """
    line_end = template.find("\n", start)
    limit = len(template) if line_end < 0 else line_end
    level = 1
    for index in range(start, limit):
        if template[index] == "{":
            level += 1
        elif template[index] == "}":
            level -= 1
            if level == 0:
                return index
    return template.rfind("}", start, limit)


def boolean_of(text: str) -> bool | None:
    """Return the boolean that a text stands for where Compose expects one, or None."""
    lowered = text.lower()
    if lowered in ("true", "y", "yes", "on"):
        return True
    if lowered in ("false", "n", "no", "off"):
        return False
    return None


def integer_of(text: str) -> int | None:
    """Return the whole number of 64 bits that a text is in decimal, or None."""
    if re.fullmatch(r"[+-]?[0-9]{1,19}", text, re.ASCII) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return None


def float_of(text: str) -> float | None:
    """Return the finite number that a text is in decimal, or None."""
    return float(text) if _FLOAT.fullmatch(text) and len(text) <= _FLOAT_LENGTH_MAX else None


_EXPECTED: Final[Mapping[str, tuple[Callable[[str], object], str]]] = {
    "integer": (integer_of, "a whole number"),
    "float": (float_of, "a number"),
    "boolean": (boolean_of, "true or false"),
}

_SERVICE_CASTS: Final = {
    "integer": (
        "cpu_count cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares oom_score_adj "
        "pids_limit scale deploy.replicas deploy.update_config.parallelism "
        "deploy.rollback_config.parallelism deploy.restart_policy.max_attempts "
        "deploy.placement.max_replicas_per_node healthcheck.retries ports.*.target ulimits.* "
        "ulimits.*.hard ulimits.*.soft"
    ),
    "float": (
        "cpu_percent cpus deploy.update_config.max_failure_ratio "
        "deploy.rollback_config.max_failure_ratio"
    ),
    "boolean": (
        "init depends_on.*.required depends_on.*.restart healthcheck.disable oom_kill_disable "
        "privileged read_only stdin_open tty volumes.*.read_only volumes.*.volume.nocopy"
    ),
}
_OTHER_CASTS: Final = (
    "networks.*.external networks.*.internal networks.*.attachable networks.*.enable_ipv4 "
    "networks.*.enable_ipv6 volumes.*.external secrets.*.external configs.*.external"
)

_Casts = dict[str, Any]


def _cast_tree() -> _Casts:
    """Return the casts as nested mappings: key, `*` for any key or item, "" for the cast here."""
    paths = {
        f"services.*.{path}": kind for kind, text in _SERVICE_CASTS.items() for path in text.split()
    }
    paths |= dict.fromkeys(_OTHER_CASTS.split(), "boolean")
    root: _Casts = {}
    for path, kind in paths.items():
        node = root
        for part in path.split("."):
            node = node.setdefault(part, {})
        node[""] = kind
    return root


_CASTS: Final = _cast_tree()


class _Walk:
    """One pass over a file's tree."""

    def __init__(self, lookup: Lookup, problems: Problems, unset: dict[str, Mark | None]) -> None:
        self._lookup = lookup
        self._problems = problems
        self._unset = unset

    def visit(self, tree: Any, path: Keys, casts: _Casts | None) -> None:
        if isinstance(tree, Map):
            for key, value in tree.items():
                inner = (casts.get(key) or casts.get("*")) if casts and key else None
                if isinstance(value, str):
                    tree[key] = self._text(value, (*path, key), tree.mark_of(key), inner)
                elif isinstance(value, (Map, Seq)):
                    self.visit(value, (*path, key), inner)
        elif isinstance(tree, Seq):
            inner = casts.get("*") if casts else None
            for index, value in enumerate(tree):
                if isinstance(value, str):
                    tree[index] = self._text(value, (*path, index), tree.mark_of(index), inner)
                elif isinstance(value, (Map, Seq)):
                    self.visit(value, (*path, index), inner)

    def _text(self, text: str, path: Keys, mark: Mark | None, casts: _Casts | None) -> Any:
        if "$" in text:
            unset: set[str] = set()
            try:
                text = substitute(text, self._lookup, unset)
            except BadTemplate as error:
                self._problems.add(mark, path, error.message, error.hint)
                return text
            for name in unset:
                self._unset.setdefault(name, mark)
        kind = casts.get("") if casts else None
        if kind is None:
            return text
        cast, expected = _EXPECTED[kind]
        value = cast(text)
        if value is None:
            self._problems.add(mark, path, f"{_short(text)!r} is not {expected}")
            return text
        return value


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"


def interpolate_tree(
    tree: Any, lookup: Lookup, problems: Problems, unset: dict[str, Mark | None]
) -> None:
    """Replace variables in every text value of a tree, and cast those that must not stay text.

    Args:
        tree: A file's content; changed in place. Keys are never touched.
        lookup: Returns a variable's value, or None if it is not set.
        problems: Gathers malformed templates, missing variables and failed casts.
        unset: Gathers variables without a value or default, and where they were used first.
    """
    _Walk(lookup, problems, unset).visit(tree, (), _CASTS)
