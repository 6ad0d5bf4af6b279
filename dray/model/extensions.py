"""What can be said under `x-dray:` of a service: the things that Compose has no words for."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = [
    "Affinity",
    "AffinityTarget",
    "Autoscale",
    "PackingPolicy",
    "ServiceExtensions",
    "SessionAffinity",
    "TaintEffect",
    "Toleration",
    "VolumeLoss",
]


class PackingPolicy(enum.Enum):
    """Whether placement fills nodes one after another or uses all of them evenly."""

    INHERIT = 1
    """The project's policy; without one, BINPACK."""
    BINPACK = 2
    SPREAD = 3


class AffinityTarget(enum.Enum):
    """What a rule looks at on a node."""

    SERVICE = 1
    """Tasks of the service named `key` ("web" of the same project, "shop/web" of another one)."""
    SERVICE_LABEL = 2
    """Tasks of services whose label `key` is `value`."""
    NODE_LABEL = 3
    """The node's own label `key` is `value`."""


@dataclass(frozen=True, slots=True)
class Affinity:
    """Run near, or away from, something.

    Attributes:
        target: What is looked at.
        key: Service or label name.
        value: Value of the label.
        anti: Away from it rather than near.
        required: Refuse other nodes; else prefer.
        topology: Node label within which things count as near ("zone"); empty: the node itself.
        weight: Strength of a preference, 1 to 100.
    """

    target: AffinityTarget
    key: str
    value: str = ""
    anti: bool = False
    required: bool = False
    topology: str = ""
    weight: int = 50


class TaintEffect(enum.Enum):
    """What a taint keeps away: new tasks, or also those that run."""

    NO_SCHEDULE = 1
    NO_EXECUTE = 2


@dataclass(frozen=True, slots=True)
class Toleration:
    """A node's taint that the service bears; an empty value tolerates any value of the key."""

    key: str
    value: str = ""
    effect: TaintEffect = TaintEffect.NO_SCHEDULE


class VolumeLoss(enum.Enum):
    """What happens to a service whose only volume is on a dead node."""

    WAIT = 1
    """Stay pending until the node is back."""
    ACCEPT = 2
    """Start elsewhere with an empty volume: the data is given up."""


class SessionAffinity(enum.Enum):
    """Whether one client's connections through a VIP go to one replica."""

    NONE = 1
    CLIENT_IP = 2


@dataclass(frozen=True, slots=True)
class Autoscale:
    """Bounds of automatic scaling, and the share of the CPU reservation to aim at, per cent."""

    replicas_min: int
    replicas_max: int
    cpu_percent_target: int


@dataclass(frozen=True, slots=True)
class ServiceExtensions:
    """`x-dray:` of one service.

    Attributes:
        singleton: At most one copy at any time, whatever fails (DESIGN section 5).
        priority: Higher displaces lower when there is no room, -1000 to 1000.
        preempt: Whether it may displace tasks of lower priority.
        policy: How it is packed.
        affinities: Near to and away from what.
        tolerations: Taints it bears.
        volume_loss: What the loss of a node with its volume means.
        session_affinity: Whether clients stick to a replica.
        schedule: Times of a job as five cron fields; empty: run once when applied.
        schedule_timezone: IANA name; empty: UTC.
        unavailable_max: Replicas that may be away or on the move at once for planned work (drain,
            rebalance); None: all, since each one's successor runs first.
        autoscale: Bounds of automatic scaling, or None.
    """

    singleton: bool = False
    priority: int = 0
    preempt: bool = False
    policy: PackingPolicy = PackingPolicy.INHERIT
    affinities: tuple[Affinity, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    volume_loss: VolumeLoss = VolumeLoss.WAIT
    session_affinity: SessionAffinity = SessionAffinity.NONE
    schedule: str = ""
    schedule_timezone: str = ""
    unavailable_max: int | None = None
    autoscale: Autoscale | None = None
