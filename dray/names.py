"""Which names and ids are allowed, and how are they written?

Names that people choose (projects, services, nodes, networks …) become DNS labels, so they follow
RFC 1123: lower-case letters, digits and hyphens, 1 to 63 characters, no hyphen at either end.
Compose allows underscores and dots in the names of services; those are kept as they are and mapped
to a label by `dns_label`.

Ids are 128 random bits, written as 26 lower-case base-32 characters (RFC 4648 alphabet) and sent as
16 bytes. This module draws no randomness: an `IdFactory` is passed to whoever needs new ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NewType, Protocol

from dray.errors import InvalidRequest

__all__ = [
    "DNS_LABEL_LENGTH_MAX",
    "ID_BYTES",
    "ID_LENGTH",
    "ClusterId",
    "IdFactory",
    "NodeId",
    "RandomIds",
    "RequestId",
    "SchedulerId",
    "TaskId",
    "check_label",
    "check_service_name",
    "dns_label",
    "id_bytes",
    "id_text",
    "is_id",
    "slot_name",
]

ClusterId = NewType("ClusterId", str)
NodeId = NewType("NodeId", str)
TaskId = NewType("TaskId", str)
SchedulerId = NewType("SchedulerId", str)
RequestId = NewType("RequestId", str)

DNS_LABEL_LENGTH_MAX: Final = 63  # RFC 1035, section 2.3.4
ID_BYTES: Final = 16  # 128 bits: no two ids of a cluster meet by chance
ID_LENGTH: Final = 26  # ceil(128 / 5) base-32 characters

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SERVICE = re.compile(r"[a-zA-Z0-9._-]+")  # the Compose Specification's pattern of service names
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_TO_PYTHONS_BASE_32: Final = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
# Two characters at a time; ids are made and read by the million.
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
_PAIR_SHIFTS: Final = tuple(range(120, -1, -10))
_ID = re.compile(r"[a-z2-7]{25}[aeimquy4]")  # the last character carries 3 bits: 128 = 25 * 5 + 3


class IdFactory(Protocol):
    """Where new ids come from: an argument of all that makes tasks, so that tests decide them."""

    def new(self) -> str:
        """Return an id that was not returned before."""
        ...


class RandomIds:
    """An `IdFactory` over a source of random bits.

    A seeded generator in tests, `secrets.randbits` in daemons.
    """

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        """Draw the bits of every id from `random_bits(count)`, an integer of `count` bits."""
        self._random_bits = random_bits

    def new(self) -> str:
        """Return a new id in its text form."""
        return id_text(self._random_bits(ID_BYTES * 8).to_bytes(ID_BYTES, "big"))


def id_text(raw: bytes) -> str:
    """Return the text form of a 16-byte id.

    Raises:
        InvalidRequest: `raw` is not 16 bytes long.
    """
    if len(raw) != ID_BYTES:
        raise InvalidRequest(f"an id has {ID_BYTES} bytes, this one has {len(raw)}")
    value = (
        int.from_bytes(raw, "big") << 2
    )  # 128 = 25 * 5 + 3 bits: the last character has two more
    return "".join([_PAIRS[value >> shift & 1023] for shift in _PAIR_SHIFTS])


def id_bytes(text: str) -> bytes:
    """Return the 16 bytes of an id in its text form.

    Raises:
        InvalidRequest: `text` is not the text form of an id.
    """
    if not is_id(text):
        raise InvalidRequest(
            f"{text[: ID_LENGTH * 2]!r} is not an id: one has {ID_LENGTH} characters of a-z and 2-7"
        )
    return (int(text.translate(_TO_PYTHONS_BASE_32), 32) >> 2).to_bytes(ID_BYTES, "big")


def is_id(text: str) -> bool:
    """Return whether `text` is the text form of an id; every id has exactly one."""
    return _ID.fullmatch(text) is not None


def check_label(name: str, what: str) -> str:
    """Return `name` if it is a DNS label.

    Args:
        name: The name to check.
        what: What is being named, for the message: "project", "node" …

    Raises:
        InvalidRequest: With what is wrong and a name that would do.
    """
    if _LABEL.fullmatch(name) is not None:
        return name
    shown = name if len(name) <= DNS_LABEL_LENGTH_MAX else name[:DNS_LABEL_LENGTH_MAX] + "…"
    if len(name) > DNS_LABEL_LENGTH_MAX:
        problem = f"has {len(name)} characters, {DNS_LABEL_LENGTH_MAX} are the most"
    elif not name:
        problem = "is empty"
    else:
        problem = "may hold only a-z, 0-9 and hyphens, and no hyphen at either end"
    suggestion = dns_label(name)
    hint = (
        f"{suggestion!r} would do" if suggestion and suggestion != name else "choose another name"
    )
    raise InvalidRequest(f"{what} name {shown!r} {problem}", hint=hint, context={"name": shown})


def check_service_name(name: str) -> str:
    """Return `name` if Compose allows it for a service and it maps to a DNS label.

    Raises:
        InvalidRequest: With what is wrong.
    """
    shown = name if len(name) <= DNS_LABEL_LENGTH_MAX else name[:DNS_LABEL_LENGTH_MAX] + "…"
    if len(name) > DNS_LABEL_LENGTH_MAX:
        problem = f"has {len(name)} characters, {DNS_LABEL_LENGTH_MAX} are the most"
    elif _SERVICE.fullmatch(name) is None:
        problem = "may hold only letters, digits, '._-'"
    elif not dns_label(name):
        problem = "has no letter or digit"
    else:
        return name
    raise InvalidRequest(
        f"service name {shown!r} {problem}", hint="rename the service", context={"name": shown}
    )


def dns_label(name: str) -> str:
    """Return the DNS label that stands for `name`.

    Lower case, other characters as hyphens, cut to 63.

    The empty string when nothing is left. Two names can map to one label; who keeps names unique
    compares labels.
    """
    label = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    return label[:DNS_LABEL_LENGTH_MAX].rstrip("-")


def slot_name(service: str, slot: int) -> str:
    """Return how a slot is written for people: `web.1`."""
    return f"{service}.{slot}"
