"""What can happen to a task, as its machine is told? Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dray.model import Health
from node.runtime.base import Refused

__all__ = [
    "ContainerCreated",
    "ContainerEnded",
    "ContainerGone",
    "ContainerStarted",
    "ContainerStopped",
    "DeadlinePassed",
    "Event",
    "HealthSeen",
    "HookFailed",
    "ImageReady",
    "Now",
    "StepFailed",
    "StepRefused",
    "WaitOver",
    "Wanted",
]


@dataclass(frozen=True, slots=True)
class Now:
    """The time on both clocks: `at_s` is monotonic and decides, `unix_s` is for people."""

    at_s: float
    unix_s: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """The assignment says whether the task should run; a task that was to end stays so."""

    is_wanted: bool


@dataclass(frozen=True, slots=True)
class WaitOver:
    """What PENDING or a back-off waited for is there."""


@dataclass(frozen=True, slots=True)
class ImageReady:
    """The image is on the node."""

    image_digest: str


@dataclass(frozen=True, slots=True)
class ContainerCreated:
    """The container exists; its addresses are taken."""

    container_id: str
    address: str = ""
    address6: str = ""


@dataclass(frozen=True, slots=True)
class ContainerStarted:
    """It was started, and its start hooks ran."""

    started_unix_s: float
    health: Health = Health.NONE


@dataclass(frozen=True, slots=True)
class HookFailed:
    """A command that runs after the start failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class ContainerEnded:
    """It ended by itself.

    Attributes:
        exit_code: Exit status; None: not known.
        oom_killed: The kernel killed it for memory.
        error: What Docker says went wrong.
        is_reboot: It ended because the machine went down: no fault of its own.
        remark: What else is known that may be the cause.
    """

    exit_code: int | None
    oom_killed: bool = False
    error: str = ""
    is_reboot: bool = False
    remark: str = ""


@dataclass(frozen=True, slots=True)
class ContainerGone:
    """It is not there any more, and dray did not remove it."""

    is_reboot: bool = False


@dataclass(frozen=True, slots=True)
class HealthSeen:
    """What its check says now."""

    health: Health


@dataclass(frozen=True, slots=True)
class ContainerStopped:
    """It has ended as it was told to, or was not there."""


@dataclass(frozen=True, slots=True)
class StepRefused:
    """The engine, the network or a volume said no to this attempt."""

    refused: Refused


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The machine could not carry out the step (Docker away …): nothing is said of the task."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Starting took too long."""


Event: TypeAlias = (
    Wanted
    | WaitOver
    | ImageReady
    | ContainerCreated
    | ContainerStarted
    | HookFailed
    | ContainerEnded
    | ContainerGone
    | HealthSeen
    | ContainerStopped
    | StepRefused
    | StepFailed
    | DeadlinePassed
)
