"""What is concluded for good beside the services? Nodes, what was left behind, what is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dray.model import NodeCondition
from scheduler.reconcile.actions import (
    AssignmentDrop,
    ProjectDrop,
    Verdict,
    VerdictChange,
    VerdictDrop,
    VerdictPut,
)
from scheduler.reconcile.situation import Situation
from scheduler.store.keys import (
    assignment_key,
    job_key,
    node_verdict_key,
    project_key,
    rollout_key,
    volume_key,
)
from scheduler.store.records import JobVerdict, NodeVerdict, RolloutVerdict, VolumePin

__all__ = ["loose_ends", "verdict_key"]

_GONE: Final = "what it is about is gone"


def loose_ends(situation: Situation) -> list[VerdictChange]:
    """Return what is to be stored about nodes, and what is stored and no longer needed."""
    return [
        *_nodes(situation),
        *_assignments(situation),
        *_rollouts(situation),
    ]


def verdict_key(change: VerdictChange) -> str:
    """Return the key of the store that a change writes or removes."""
    match change:
        case AssignmentDrop(node_id):
            return assignment_key(node_id)
        case ProjectDrop(project):
            return project_key(project)
        case VerdictPut(verdict) | VerdictDrop(verdict):
            return _key_of(verdict)


def _key_of(verdict: Verdict) -> str:
    match verdict:
        case JobVerdict():
            return job_key(verdict.slot)
        case NodeVerdict():
            return node_verdict_key(verdict.node_id)
        case RolloutVerdict():
            return rollout_key(verdict.service)
        case VolumePin():
            return volume_key(verdict.project, verdict.volume)


def _nodes(situation: Situation) -> Iterable[VerdictChange]:
    """Yield since when nodes are down: a new leader holds back for those that were not."""
    stored = situation.snapshot.node_verdicts
    for node_id in sorted(situation.snapshot.nodes):
        node, verdict = situation.node(node_id), stored.get(node_id)
        if node is None:
            continue
        if node.condition is NodeCondition.DOWN and verdict is None:
            yield VerdictPut(NodeVerdict(node_id, node.since_unix_s), "node down")
        elif node.condition is NodeCondition.READY and verdict is not None:
            yield VerdictDrop(verdict, "node is back")
    for node_id in sorted(stored):
        if not situation.is_registered(node_id):
            yield VerdictDrop(stored[node_id], _GONE)


def _assignments(situation: Situation) -> Iterable[VerdictChange]:
    for node_id, assignment in sorted(situation.snapshot.assignments.items()):
        if not assignment.tasks and not situation.is_registered(node_id):
            yield AssignmentDrop(node_id, "node removed")


def _rollouts(situation: Situation) -> Iterable[VerdictChange]:
    services = situation.snapshot.services
    for key, rollout in sorted(situation.snapshot.rollouts.items()):
        if key not in services:
            yield VerdictDrop(rollout, _GONE)
    for slot, verdict in sorted(situation.snapshot.job_verdicts.items()):
        if slot.service_key not in services:
            yield VerdictDrop(verdict, _GONE)
