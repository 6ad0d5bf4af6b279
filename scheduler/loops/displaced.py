"""Which tasks end so that others of higher priority get their room?

Placement says on which node, of which service, and how many. Here it is decided which ones: those
that do not run first, then the highest slots. They are told to stop like any other task, with what
grace they have; a later round gives the room to the slot that it was made for, because placement
takes higher priorities first, and their own slots wait for room elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from dray.model import AttemptState, ServiceKey, TaskAssignment
from dray.names import NodeId
from scheduler.placement import Eviction
from scheduler.reconcile import ActionReason, Observed, StopTask
from scheduler.store.snapshot import Snapshot

__all__ = ["displaced"]


def displaced(
    snapshot: Snapshot, observed: Observed, evictions: Iterable[Eviction]
) -> list[StopTask]:
    """Return the ends of the tasks that make room.

    Args:
        snapshot: What the plan was made from.
        observed: What it was made from.
        evictions: What placement asks for.
    """
    counts: dict[tuple[NodeId, ServiceKey], int] = defaultdict(int)
    for eviction in evictions:
        counts[eviction.node_id, eviction.service] += eviction.count
    stops: list[StopTask] = []
    for (node_id, service), count in counts.items():
        assignment = snapshot.assignments.get(node_id)
        tasks = [] if assignment is None else assignment.tasks
        victims = [task for task in tasks if task.slot.service_key == service and not task.stop]
        victims.sort(key=lambda task: (_runs(observed, task), -task.slot.slot))
        stops += [
            StopTask(task.slot, task.task_id, node_id, ActionReason.DISPLACED)
            for task in victims[:count]
        ]
    return stops


def _runs(observed: Observed, task: TaskAssignment) -> bool:
    attempt = observed.attempts.get(task.task_id)
    return attempt is not None and attempt.state is AttemptState.RUNNING
