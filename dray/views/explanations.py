"""Why is a service not as it should be?"""

from __future__ import annotations

from dataclasses import dataclass

from dray.model import AttemptReport, SlotKey
from dray.names import TaskId
from dray.views.header import NO_HEADER, ResponseHeader
from dray.views.projects import PendingExplanation, Service
from dray.views.streams import LogLine

__all__ = ["ExplainServiceResponse", "RestartExplanation"]


@dataclass(frozen=True, slots=True)
class RestartExplanation:
    """Why a slot's task does not stay up.

    Attributes:
        slot: The slot.
        task_id: The task.
        node: Name of its node.
        attempts: The last attempts, newest first, at most 10.
        log_lines: Last log lines of the newest attempt that ended.
    """

    slot: SlotKey
    task_id: TaskId
    node: str = ""
    attempts: tuple[AttemptReport, ...] = ()
    log_lines: tuple[LogLine, ...] = ()


@dataclass(frozen=True, slots=True)
class ExplainServiceResponse:
    """Why a service is not as it should be.

    Attributes:
        header: Who answers.
        service: How it is.
        pending: Slots without a task, grouped by the same reasons.
        restarting: Slots whose tasks do not stay up.
    """

    header: ResponseHeader = NO_HEADER
    service: Service | None = None
    pending: tuple[PendingExplanation, ...] = ()
    restarting: tuple[RestartExplanation, ...] = ()
