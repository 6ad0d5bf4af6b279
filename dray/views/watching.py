"""What does a watch bring, and what has happened?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dray.model import Event
from dray.views.header import NO_HEADER, ResponseHeader
from dray.views.nodes import Node
from dray.views.projects import Project, Service
from dray.views.tasks import Task

__all__ = ["ListEventsResponse", "ObjectChange", "WatchKind", "WatchResponse"]


class WatchKind(enum.Enum):
    """What kind of object a watch is about."""

    PROJECT = 1
    SERVICE = 2
    TASK = 3
    NODE = 4
    EVENT = 5


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One object as it is now, or its end: then only what names it is set. Exactly one is set."""

    is_deleted: bool = False
    project: Project | None = None
    service: Service | None = None
    task: Task | None = None
    node: Node | None = None
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class WatchResponse:
    """Objects and their changes, and how far the stream is.

    Attributes:
        header: Its `store_revision` is the one to resume after.
        is_reset: Forget all that is known: everything is sent again.
        is_complete: All objects as they are have been sent; changes follow.
        changes: In their order, at most 1,000.
    """

    header: ResponseHeader = NO_HEADER
    is_reset: bool = False
    is_complete: bool = False
    changes: tuple[ObjectChange, ...] = ()


@dataclass(frozen=True, slots=True)
class ListEventsResponse:
    """Events, newest first."""

    header: ResponseHeader = NO_HEADER
    events: tuple[Event, ...] = ()
    next_page_token: str = ""
