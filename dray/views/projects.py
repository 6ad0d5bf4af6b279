"""What does a cluster say of projects and services, and of changes to them?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dray.model import ProjectSpec, ServiceRecord, SlotKey
from dray.views.header import NO_HEADER, ResponseHeader
from dray.views.slots import SlotStateCount

__all__ = [
    "ApplyProjectResponse",
    "ChangeKind",
    "DiffRevisionsResponse",
    "GetProjectResponse",
    "GetServiceResponse",
    "ListProjectsResponse",
    "ListRevisionsResponse",
    "ListServicesResponse",
    "NodeRefusal",
    "PendingExplanation",
    "PlannedAction",
    "PlannedActionKind",
    "Project",
    "RefusalCount",
    "RemoveProjectResponse",
    "RestartServicesResponse",
    "RevertServiceResponse",
    "Rollout",
    "RolloutState",
    "ScaleServicesResponse",
    "Service",
    "ServiceChange",
    "SpecChange",
]


class ChangeKind(enum.Enum):
    """What happened to a service."""

    UNCHANGED = 1
    CREATED = 2
    UPDATED = 3
    """It changed, its running tasks stay."""
    REPLACED = 4
    """It changed, its running tasks are replaced."""
    REMOVED = 5
    KEPT = 6
    """It is not in the file any more and stays."""


@dataclass(frozen=True, slots=True)
class SpecChange:
    """One difference between two specs.

    Attributes:
        path: In the words of the Compose file: "deploy.replicas", "environment.TOKEN".
        before: Its value before, for people; empty: it was not set. Secrets are never shown.
        after: Its value after.
        replaces_tasks: It replaces running tasks.
    """

    path: str
    before: str = ""
    after: str = ""
    replaces_tasks: bool = False


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """What a write did to one service.

    Attributes:
        service: Its name.
        kind: What happened.
        revision: Its revision afterwards.
        old_revision: Its revision before; 0: none.
        changes: What differs, at most 100.
    """

    service: str
    kind: ChangeKind
    revision: int = 0
    old_revision: int = 0
    changes: tuple[SpecChange, ...] = ()


class PlannedActionKind(enum.Enum):
    """What a planned action does."""

    CREATE = 1
    STOP = 2
    MOVE = 3


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One action of a plan: which node the slot has and gets (empty: none), by name, and why."""

    kind: PlannedActionKind
    slot: SlotKey
    from_node: str = ""
    to_node: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How many nodes were refused for one reason: a constant phrase, and a sentence on it."""

    reason: str
    nodes: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class NodeRefusal:
    """Everything that stands against one node, with the numbers."""

    node: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingExplanation:
    """Why slots are pending.

    Attributes:
        slots: The slots.
        summary: One sentence in the words of the Compose file.
        refusals: How many nodes were refused for what; each counts once, for its first reason.
        nodes: What each node lacks, nearest first, at most 100.
        smallest_change: The smallest change that would let one more run; empty: none was found.
    """

    slots: tuple[SlotKey, ...] = ()
    summary: str = ""
    refusals: tuple[RefusalCount, ...] = ()
    nodes: tuple[NodeRefusal, ...] = ()
    smallest_change: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """A project at a glance.

    Attributes:
        name: Its name.
        revision: Store revision of its last change, for `if_revision`.
        created_unix_s: When it was first applied.
        updated_unix_s: When it was last applied.
        services: Number of services.
        slots: Number of slots in each state that occurs.
        is_removing: It goes when its last task has ended.
    """

    name: str
    revision: int = 0
    created_unix_s: float = 0.0
    updated_unix_s: float = 0.0
    services: int = 0
    slots: tuple[SlotStateCount, ...] = ()
    is_removing: bool = False


class RolloutState(enum.Enum):
    """How far a rollout is."""

    RUNNING = 1
    PAUSED = 2
    """It stopped after failures, as its policy says, and waits for an operator."""
    ROLLING_BACK = 3
    COMPLETED = 4
    ROLLED_BACK = 5


@dataclass(frozen=True, slots=True)
class Rollout:
    """The replacement of tasks of one revision by those of another.

    Attributes:
        state: How far.
        from_revision: Revision that is replaced.
        to_revision: Revision that replaces it.
        updated: Slots that have the new revision and are well.
        total: Slots in all.
        failed: New tasks that failed.
        started_unix_s: When it began.
        message: One sentence on how it stands, or why it stopped.
    """

    state: RolloutState
    from_revision: int = 0
    to_revision: int = 0
    updated: int = 0
    total: int = 0
    failed: int = 0
    started_unix_s: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A service: what was asked and how it is.

    Attributes:
        record: The revision asked for.
        slots: Number of slots in each state that occurs.
        desired: Slots asked for; of a global service, nodes that fit.
        is_converged: Every slot runs the newest revision and is healthy, or, where nothing checks
            that, has run for the update's monitoring time, and no rollout is under way; of a job,
            every slot is completed.
        rollout: The replacement of its tasks; None: there never was one.
        problems: Why slots are not as asked for, most frequent first, at most 10.
        watched_until_unix_s: It is as asked but for the time that its tasks must have run: when
            that is over, by the scheduler's clock. 0: something else is missing, or nothing.
    """

    record: ServiceRecord
    slots: tuple[SlotStateCount, ...] = ()
    desired: int = 0
    is_converged: bool = False
    rollout: Rollout | None = None
    problems: tuple[str, ...] = ()
    watched_until_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ApplyProjectResponse:
    """What was done, or would be.

    Attributes:
        header: Who answers.
        revision: The project's revision afterwards.
        services: One entry a service that the project has or had.
        actions: With `dry_run`: what the leader would do, as of now.
        unplaced: With `dry_run`: slots for which there is no room.
        is_repeated: The same `request_id` had been carried out before: this is its result.
    """

    header: ResponseHeader = NO_HEADER
    revision: int = 0
    services: tuple[ServiceChange, ...] = ()
    actions: tuple[PlannedAction, ...] = ()
    unplaced: tuple[PendingExplanation, ...] = ()
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class GetProjectResponse:
    """One project: how it is, and what was asked for it. Contents of secrets are empty."""

    header: ResponseHeader = NO_HEADER
    project: Project | None = None
    spec: ProjectSpec | None = None


@dataclass(frozen=True, slots=True)
class ListProjectsResponse:
    """Projects by name; an empty token: this is the last page."""

    header: ResponseHeader = NO_HEADER
    projects: tuple[Project, ...] = ()
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class RemoveProjectResponse:
    """What the removal does: how many tasks are being stopped, which volumes are removed."""

    header: ResponseHeader = NO_HEADER
    tasks: int = 0
    volumes: tuple[str, ...] = ()
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class GetServiceResponse:
    """One service."""

    header: ResponseHeader = NO_HEADER
    service: Service | None = None


@dataclass(frozen=True, slots=True)
class ListServicesResponse:
    """Services by project and name."""

    header: ResponseHeader = NO_HEADER
    services: tuple[Service, ...] = ()
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class ScaleServicesResponse:
    """What scaling did: the project's revision afterwards, and one entry a service."""

    header: ResponseHeader = NO_HEADER
    revision: int = 0
    services: tuple[ServiceChange, ...] = ()
    actions: tuple[PlannedAction, ...] = ()
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class RestartServicesResponse:
    """What the restart did: the project's revision afterwards, and one entry a service."""

    header: ResponseHeader = NO_HEADER
    revision: int = 0
    services: tuple[ServiceChange, ...] = ()
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class ListRevisionsResponse:
    """A service's kept revisions, newest first."""

    header: ResponseHeader = NO_HEADER
    revisions: tuple[ServiceRecord, ...] = ()
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class DiffRevisionsResponse:
    """What differs between two revisions of a service, by path."""

    header: ResponseHeader = NO_HEADER
    from_revision: int = 0
    to_revision: int = 0
    changes: tuple[SpecChange, ...] = ()


@dataclass(frozen=True, slots=True)
class RevertServiceResponse:
    """What the revert did; `service.revision` is a new number."""

    header: ResponseHeader = NO_HEADER
    service: ServiceChange | None = None
    actions: tuple[PlannedAction, ...] = ()
    is_repeated: bool = False
