"""What does a cluster say of tasks?"""

from __future__ import annotations

from dataclasses import dataclass

from dray.model import AttemptReport, Epoch, SlotKey, TaskUsage
from dray.names import NodeId, TaskId
from dray.views.header import NO_HEADER, ResponseHeader
from dray.views.slots import SlotState

__all__ = ["GetTaskResponse", "ListTasksResponse", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """A slot and the task that it has.

    Attributes:
        slot: The slot.
        state: How the slot is.
        task_id: Its task; None: it has none yet, and the fields about a task are empty too.
        node_id: The task's node.
        node_name: Name of that node.
        service_revision: The task's revision of the service.
        epoch: Term of the leader that placed it.
        image: The image, as the file names it.
        observed: What its node reports; None: unknown.
        reason: Why it is in this state, one sentence; empty: nothing to say.
        is_stopping: It is told to stop.
        usage: What it uses, when asked for; None: not asked for, or unknown.
    """

    slot: SlotKey
    state: SlotState
    task_id: TaskId | None = None
    node_id: NodeId | None = None
    node_name: str = ""
    service_revision: int = 0
    epoch: Epoch | None = None
    image: str = ""
    observed: AttemptReport | None = None
    reason: str = ""
    is_stopping: bool = False
    usage: TaskUsage | None = None


@dataclass(frozen=True, slots=True)
class GetTaskResponse:
    """One task."""

    header: ResponseHeader = NO_HEADER
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class ListTasksResponse:
    """Tasks by slot, with slots that have none yet."""

    header: ResponseHeader = NO_HEADER
    tasks: tuple[Task, ...] = ()
    next_page_token: str = ""
