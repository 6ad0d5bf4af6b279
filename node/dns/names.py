"""How are names of the zone written, and which address does a reverse name stand for?

A name is a tuple of labels, lower case, the host's own first, without the root: ("web", "shop",
"dray", "internal"). Labels are text of one character a byte (Latin-1), so that every name of the
wire has one form; a label with a dot in it is no name of ours.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from dray.names import dns_label

__all__ = [
    "NODE",
    "TASKS",
    "ZONE",
    "ZONE_LABELS",
    "Labels",
    "below_zone",
    "labels_of",
    "node_name",
    "reverse_address",
    "service_name",
    "service_texts",
    "slot_name",
    "text_of",
]

Labels = tuple[str, ...]

ZONE: Final = "dray.internal"
ZONE_LABELS: Final[Labels] = ("dray", "internal")
NODE: Final = "node"  # names of nodes are below it; a project of this name loses its short names
TASKS: Final = "tasks"  # before a service's name: all its replicas, also where it has a VIP
_V4_LABELS: Final = 4
_V6_LABELS: Final = 32


def labels_of(text: str) -> Labels:
    """Return the labels of a name as people write it; a dot at its end does not matter."""
    return tuple(label for label in text.lower().rstrip(".").split(".") if label)


def text_of(labels: Labels) -> str:
    """Return an absolute name, the dot at its end included."""
    return ".".join(labels) + "."


def below_zone(labels: Labels) -> Labels | None:
    """Return what comes before the zone's own labels, or None for a name outside of the zone."""
    return labels[:-2] if labels[-2:] == ZONE_LABELS else None


def service_texts(service: str) -> frozenset[str]:
    """Return how a service is called in its project: as the file writes it, and as a DNS label."""
    return frozenset((service.lower(), dns_label(service)))


def service_name(project: str, service: str) -> Labels:
    """Return the full name of a service."""
    return (dns_label(service), project, *ZONE_LABELS)


def slot_name(project: str, service: str, slot: int) -> Labels:
    """Return the full name of one slot."""
    return (str(slot), dns_label(service), project, *ZONE_LABELS)


def node_name(name: str) -> Labels:
    """Return the full name of a node."""
    return (name, NODE, *ZONE_LABELS)


def reverse_address(labels: Labels) -> str | None:
    """Return the address that a name below in-addr.arpa or ip6.arpa stands for, or None."""
    parts = labels[-3::-1]
    if labels[-2:] == ("in-addr", "arpa") and len(parts) == _V4_LABELS:
        text = ".".join(parts)
    elif labels[-2:] == ("ip6", "arpa") and len(parts) == _V6_LABELS:
        text = ":".join("".join(parts[at : at + 4]) for at in range(0, _V6_LABELS, 4))
    else:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
