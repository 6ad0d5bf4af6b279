"""How are nodes of a class used? What an operator writes, as placement's rules.

A class is the value of the nodes' label `class`. Its rules are words of a name and a value:
`cpu:200% memory:120% reserve_cpus:0.5 reserve_memory:1g reserve_disk:10g reserve_pids:500`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dray.errors import DrayError, InvalidRequest
from dray.model import ResourceReservations, StringMap
from dray.units import parse_bytes, parse_cpus
from scheduler.placement import NodeClass

__all__ = ["node_classes"]

PERCENT_MIN: Final = 100
PERCENT_MAX: Final = 1000
"""Beyond ten times what a node has, a misspelt number is likelier than a wish."""

PIDS_MAX: Final = 4_194_304
"""The kernel's own limit (PID_MAX_LIMIT)."""

_NAMES: Final = "cpu, memory, reserve_cpus, reserve_memory, reserve_disk, reserve_pids"


def node_classes(told: StringMap) -> tuple[NodeClass, ...]:
    """Return the classes that are told of, in order.

    Args:
        told: The rules of each class, by its name.

    Raises:
        InvalidRequest: A rule that there is not, is there twice, or has a value out of bounds; the
            message names the class, the rule and what is allowed.
    """
    return tuple(_class(name, text) for name, text in told)


def _class(name: str, text: str) -> NodeClass:
    made = NodeClass(name)
    seen: set[str] = set()
    for word in text.split():
        rule, colon, value = word.partition(":")
        if not colon or not value:
            raise InvalidRequest(f"node class {name}: {word!r} is not RULE:VALUE, as cpu:200%")
        if rule in seen:
            raise InvalidRequest(f"node class {name}: {rule} is there twice")
        seen.add(rule)
        try:
            made = _with(made, rule, value)
        except DrayError as error:
            raise InvalidRequest(f"node class {name}: {rule}: {error}") from error
    return made


def _with(made: NodeClass, rule: str, value: str) -> NodeClass:
    """Return the class with one more rule."""
    reserve = made.reserve
    match rule:
        case "cpu":
            return replace(made, cpu_percent=_percent(value))
        case "memory":
            return replace(made, memory_percent=_percent(value))
        case "reserve_cpus":
            return replace(made, reserve=replace(reserve, cpu_millis=parse_cpus(value)))
        case "reserve_memory":
            return replace(made, reserve=replace(reserve, memory_bytes=parse_bytes(value)))
        case "reserve_disk":
            return replace(made, reserve=replace(reserve, disk_bytes=parse_bytes(value)))
        case "reserve_pids":
            return replace(made, reserve=_with_pids(reserve, value))
        case _:
            raise InvalidRequest(f"there is no such rule; there are {_NAMES}")


def _percent(text: str) -> int:
    number = text.removesuffix("%")
    if not (number.isascii() and number.isdecimal() and len(number) <= len(str(PERCENT_MAX))):
        raise InvalidRequest(f"{text!r} is not a whole number of per cent, as 150%")
    percent = int(number)
    if not PERCENT_MIN <= percent <= PERCENT_MAX:
        raise InvalidRequest(
            f"{percent}% is not from {PERCENT_MIN}% (all that there is) to {PERCENT_MAX}%; "
            "to give out less, reserve some"
        )
    return percent


def _with_pids(reserve: ResourceReservations, text: str) -> ResourceReservations:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(PIDS_MAX))):
        raise InvalidRequest(f"{text!r} is not a whole number")
    if int(text) > PIDS_MAX:
        raise InvalidRequest(f"{text} is more than {PIDS_MAX}, the kernel's limit")
    return replace(reserve, pids=int(text))
