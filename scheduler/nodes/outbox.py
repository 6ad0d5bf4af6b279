"""What is sent to a node next? One stream's unsent messages, with at most one assignment.

The latest assignment wins: one that was not sent yet is replaced. What tasks run is sent once a
stream; revisions that do not fit into a message together with the assignment go ahead of it.
Messages that grow with the cluster's changes replace each other by kind, the others are bounded.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from dray.model import (
    Assignment,
    ProjectParts,
    ServiceKey,
    ServiceRevision,
    TaskSpecEntry,
)
from scheduler.nodes.messages import AssignmentPush, Down, NodeConfig, Resync, SpecPush, Welcome

__all__ = ["PUSH_SPECS_MAX", "UNSENT_MESSAGES_MAX", "Outbox"]

UNSENT_MESSAGES_MAX: Final = 256  # relays and pings of a node that does not read; more end it
PUSH_SPECS_MAX: Final = 12  # of at most 256 KiB each: below the 4 MiB of a message

_SpecKey = tuple[ServiceKey, ServiceRevision]


class Outbox:
    """Unsent messages of one stream, in the order in which they are to be sent."""

    def __init__(self) -> None:
        """Start empty: nothing was sent on the stream yet."""
        self._small: deque[Down] = deque()
        self._assignment: Assignment | None = None
        self._projects: tuple[ProjectParts, ...] = ()
        self._carried: set[_SpecKey] = set()
        self._pushed: tuple[Assignment, tuple[ProjectParts, ...]] | None = None

    def __bool__(self) -> bool:
        """Return whether there is anything to send."""
        return bool(self._small) or self._assignment is not None

    def put(self, message: Down) -> bool:
        """Add a message; an unsent one of a kind that is whole each time is replaced.

        Returns:
            False: there are `UNSENT_MESSAGES_MAX` already, the node does not read. Nothing changed.
        """
        if isinstance(message, NodeConfig | Resync):
            self._small = deque(each for each in self._small if type(each) is not type(message))
        if len(self._small) >= UNSENT_MESSAGES_MAX:
            return False
        if isinstance(message, Welcome):
            self._small.appendleft(message)
        else:
            self._small.append(message)
        return True

    def put_assignment(self, assignment: Assignment, projects: tuple[ProjectParts, ...]) -> None:
        """Replace the unsent assignment; one that the stream has carried already is no news.

        Args:
            assignment: Its `specs` hold every revision that its tasks run.
            projects: One for each project with a task in it.
        """
        pushed = self._pushed
        if pushed is not None and assignment.version < pushed[0].version:
            return  # an older one, out of order
        if pushed == (assignment, projects):
            self._assignment, self._projects = None, ()
            return
        self._assignment, self._projects = assignment, projects

    def take(self) -> Down | None:
        """Return the next message and hold it to be sent; None: there is none."""
        if self._small:
            return self._small.popleft()
        if self._assignment is None:
            return None
        needed = {(task.slot.service_key, task.service_revision) for task in self._assignment.tasks}
        missing = [
            spec
            for spec in self._assignment.specs
            if _key(spec) in needed and _key(spec) not in self._carried
        ]
        if len(missing) > PUSH_SPECS_MAX:
            ahead = tuple(missing[:PUSH_SPECS_MAX])
            self._carried.update(map(_key, ahead))
            return SpecPush(ahead)
        assignment, projects = self._assignment, self._projects
        self._assignment, self._projects = None, ()
        self._pushed = (assignment, projects)
        # The node forgets what no task refers to; so is it forgotten here.
        self._carried = needed & (self._carried | set(map(_key, missing)))
        return AssignmentPush(_with_specs(assignment, tuple(missing)), projects)


def _key(spec: TaskSpecEntry) -> _SpecKey:
    return spec.service, spec.service_revision


def _with_specs(assignment: Assignment, specs: tuple[TaskSpecEntry, ...]) -> Assignment:
    return Assignment(
        assignment.cluster_id,
        assignment.node_id,
        assignment.epoch,
        assignment.mod_revision,
        assignment.tasks,
        specs,
    )
