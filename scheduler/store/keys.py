"""Where in the store is what? The layout of dray's keys, one function a key, and the way back.

All keys are below `ROOT`. A part that people may choose is quoted, so that a slash in it (the path
of a bind mount, say) never makes another key. Numbers that are listed in order have leading zeros.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from dray.model import ContentKind, ServiceKey, ServiceRevision, SlotKey
from dray.names import NodeId, RequestId, SchedulerId

__all__ = [
    "CLUSTER",
    "EVENT_SLOT_MAX",
    "KEYRING",
    "LEADER",
    "NUMBER_MAX",
    "PORTS",
    "ROOT",
    "Kind",
    "ParsedKey",
    "assignment_key",
    "content_key",
    "cron_key",
    "event_key",
    "job_key",
    "node_key",
    "node_name_key",
    "node_verdict_key",
    "parse_key",
    "prefix_of",
    "project_key",
    "request_key",
    "revision_key",
    "rollout_key",
    "scheduler_key",
    "service_key",
    "subnet_key",
    "vip_key",
    "volume_key",
]

ROOT: Final = "/dray/v1/"
CLUSTER: Final = ROOT + "cluster"
KEYRING: Final = ROOT + "keyring"
LEADER: Final = ROOT + "leader"
PORTS: Final = ROOT + "ports"
"""Which project last published further ports: of two writes that do so at once one is redone."""
NUMBER_MAX: Final = 9_999_999_999  # ten digits: a revision a second lasts for 300 years
EVENT_SLOT_MAX: Final = 99_999  # five digits: the ring of events has 10,000 by default

_DIGITS: Final = 10
_EVENT_DIGITS: Final = 5
_MADE_OF: Final = "-._~:@+="  # kept as they are beside letters and digits; etcd takes any byte


class Kind(enum.Enum):
    """What a key holds; the value is what comes after `ROOT`."""

    CLUSTER = "cluster"
    KEYRING = "keyring"
    LEADER = "leader"
    SCHEDULER = "schedulers"
    PROJECT = "projects"
    SERVICE = "services"
    REVISION = "revisions"
    CONTENT = "contents"
    NODE = "nodes"
    NODE_NAME = "node-names"
    SUBNET = "subnets"
    VIP = "vips"
    PORTS = "ports"
    REQUEST = "requests"
    ASSIGNMENT = "assignments"
    JOB = "status/jobs"
    VOLUME = "status/volumes"
    ROLLOUT = "status/rollouts"
    NODE_VERDICT = "status/nodes"
    CRON = "status/cron"
    EVENT = "events"


# How many parts follow the kind.
_PARTS: Final[dict[Kind, int]] = {
    Kind.CLUSTER: 0,
    Kind.KEYRING: 0,
    Kind.LEADER: 0,
    Kind.SCHEDULER: 1,
    Kind.PROJECT: 1,
    Kind.SERVICE: 2,
    Kind.REVISION: 3,
    Kind.CONTENT: 4,
    Kind.NODE: 1,
    Kind.NODE_NAME: 1,
    Kind.SUBNET: 1,
    Kind.VIP: 1,
    Kind.PORTS: 0,
    Kind.REQUEST: 1,
    Kind.ASSIGNMENT: 1,
    Kind.JOB: 3,
    Kind.VOLUME: 2,
    Kind.ROLLOUT: 2,
    Kind.NODE_VERDICT: 1,
    Kind.CRON: 2,
    Kind.EVENT: 1,
}


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """What a key is about: its kind and its parts in order, as they were before quoting."""

    kind: Kind
    parts: tuple[str, ...] = ()


def prefix_of(kind: Kind, *parts: str) -> str:
    """Return the prefix of all keys of a kind whose first parts are these.

    Args:
        kind: The kind; one that has parts.
        parts: Fewer than the kind has.
    """
    assert len(parts) < _PARTS[kind], (kind, parts)
    return _join(kind, parts) + "/"


def scheduler_key(scheduler_id: SchedulerId) -> str:
    """Return the key that a running scheduler keeps on a lease: its `SchedulerRecord`."""
    return _join(Kind.SCHEDULER, (scheduler_id,))


def project_key(project: str) -> str:
    """Return the key of a project's `ProjectRecord`."""
    return _join(Kind.PROJECT, (project,))


def service_key(service: ServiceKey) -> str:
    """Return the key of a service's newest `ServiceRecord`; it is there while the service is."""
    return _join(Kind.SERVICE, (service.project, service.service))


def revision_key(service: ServiceKey, revision: ServiceRevision) -> str:
    """Return the key of one older, kept `ServiceRecord`, sorted by its number."""
    return _join(Kind.REVISION, (service.project, service.service, _number(revision)))


def content_key(project: str, kind: ContentKind, key: str, digest: bytes) -> str:
    """Return the key of a config's, secret's or credential's `ContentRecord`.

    Args:
        project: Whose it is.
        kind: What it is for.
        key: Key in the Compose file, or the registry's host.
        digest: Of the content: a new content has a new key, and the old one stays while it is used.
    """
    return _join(Kind.CONTENT, (project, kind.name.lower(), key, digest.hex()))


def node_key(node_id: NodeId) -> str:
    """Return the key of a node's `NodeRecord`."""
    return _join(Kind.NODE, (node_id,))


def node_name_key(name: str) -> str:
    """Return the key that says whose a name is: the id of the node."""
    return _join(Kind.NODE_NAME, (name,))


def subnet_key(number: int) -> str:
    """Return the key that says whose a subnet is: the id of the node.

    Args:
        number: Position of the subnet in the cluster's range, from 0.
    """
    return _join(Kind.SUBNET, (_number(number),))


def vip_key(address: str) -> str:
    """Return the key that says whose an address of the services' range is: project/service."""
    return _join(Kind.VIP, (address,))


def request_key(request_id: RequestId) -> str:
    """Return the key of the remembered answer to a call, a `RequestRecord`."""
    return _join(Kind.REQUEST, (request_id,))


def assignment_key(node_id: NodeId) -> str:
    """Return the key of what a node should run, packed by `packing`."""
    return _join(Kind.ASSIGNMENT, (node_id,))


def job_key(slot: SlotKey) -> str:
    """Return the key of the `JobVerdict` about one slot of a job."""
    return _join(Kind.JOB, (slot.project, slot.service, _number(slot.slot)))


def volume_key(project: str, volume: str) -> str:
    """Return the key of the `VolumePin` of one volume."""
    return _join(Kind.VOLUME, (project, volume))


def rollout_key(service: ServiceKey) -> str:
    """Return the key of how a service's rollout stands."""
    return _join(Kind.ROLLOUT, (service.project, service.service))


def node_verdict_key(node_id: NodeId) -> str:
    """Return the key of what the leader has concluded about a node for good."""
    return _join(Kind.NODE_VERDICT, (node_id,))


def cron_key(service: ServiceKey) -> str:
    """Return the key of a service's last tick."""
    return _join(Kind.CRON, (service.project, service.service))


def event_key(slot: int) -> str:
    """Return the key of one slot of the ring of events, an `EventBatch`."""
    assert 0 <= slot <= EVENT_SLOT_MAX, slot
    return _join(Kind.EVENT, (f"{slot:0{_EVENT_DIGITS}d}",))


def parse_key(key: str) -> ParsedKey | None:
    """Return what a key is about; None for one that this version of dray does not know."""
    if not key.startswith(ROOT):
        return None
    words = key[len(ROOT) :].split("/")
    depth = 2 if words[0] == "status" else 1
    kind = _KINDS.get("/".join(words[:depth]))
    parts = tuple(map(unquote, words[depth:]))
    if kind is None or len(parts) != _PARTS[kind] or not all(parts):
        return None
    return ParsedKey(kind, parts)


_KINDS: Final = {kind.value: kind for kind in Kind}


def _join(kind: Kind, parts: tuple[str, ...]) -> str:
    assert all(parts), f"an empty part in a key of {kind.value}"
    return "/".join((ROOT + kind.value, *(quote(part, safe=_MADE_OF) for part in parts)))


def _number(value: int) -> str:
    assert 0 <= value <= NUMBER_MAX, value
    return f"{value:0{_DIGITS}d}"
