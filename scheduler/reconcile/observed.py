"""What do nodes report? Observed state in the leader's memory; what is absent is *unknown*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dray.model import AttemptReport, Fault, NodeCondition, NodeInfo, NodeUsage
from dray.names import NodeId, TaskId

__all__ = ["NodeObservation", "Observed"]


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """What the leader holds a node to be, and what the node said of itself.

    Attributes:
        condition: By the table of DESIGN section 5.
        since_unix_s: When it entered the condition.
        info: Its last Hello; None: it has not connected in this term.
        usage: Its last report; None: none yet.
        faults: Flags beside the condition.
        is_leaving: It said that it leaves for good, and waits for its tasks to move.
        has_all_attempts: It has listed all attempts that it knows since its life began.
        volumes: Names of the Docker volumes of the cluster's projects that it has.
        has_all_volumes: It has listed them all in this term.
    """

    condition: NodeCondition
    since_unix_s: float
    info: NodeInfo | None = None
    usage: NodeUsage | None = None
    faults: tuple[Fault, ...] = ()
    is_leaving: bool = False
    has_all_attempts: bool = False
    volumes: frozenset[str] = frozenset()
    has_all_volumes: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that nodes reported in this term.

    Attributes:
        nodes: By node. An absent node is unknown: nothing is concluded from its silence.
        attempts: By task, the newest attempt. An absent task is unknown: neither running nor ended.
    """

    nodes: Mapping[NodeId, NodeObservation] = field(default_factory=dict)
    attempts: Mapping[TaskId, AttemptReport] = field(default_factory=dict)
