"""When is what was asked for so? A fold of what a watch tells, and the verbs' way to wait for it.

`Progress` is pure: changes in, a verdict and lines for the person out.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cli.arguments import duration_s
from cli.changes import ChangesView, change_lines
from cli.exits import ExitCode
from cli.settings import OutputFormat
from cli.texts import word
from dray.errors import Unavailable
from dray.views import (
    ChangeKind,
    ObjectChange,
    RolloutState,
    Service,
    SlotState,
    WatchKind,
)

if TYPE_CHECKING:
    from cli.context import Context
    from dray.client import Client

__all__ = ["Outcome", "Progress", "Standing", "add_waiting", "finish"]

WAIT_DEFAULT: Final = "5m"
PROBLEMS_SHOWN_MAX: Final = 3  # of one service when the wait is over


class Outcome(enum.Enum):
    """What became of what was asked for."""

    PENDING = 1
    CONVERGED = 2
    ROLLED_BACK = 3
    PAUSED = 4
    """A rollout stopped after failures and waits for an operator."""


_ENDED: Final = {
    RolloutState.ROLLED_BACK: Outcome.ROLLED_BACK,
    RolloutState.ROLLING_BACK: Outcome.PENDING,
    RolloutState.PAUSED: Outcome.PAUSED,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How one service stands.

    Attributes:
        service: Its name.
        done: Slots that are as asked for, at most `desired`.
        desired: Slots asked for.
        text: The slots by state, or what became of them.
        watched_until_unix_s: Only time is missing: when it is over. 0: more than that, or nothing.
        problem: What keeps it from going on; "" when nothing is known to.
        outcome: What became of it.
    """

    service: str
    done: int
    desired: int
    text: str
    problem: str
    outcome: Outcome
    watched_until_unix_s: float = 0.0


_FROM_PORT: Final = re.compile(r":\d+->")
_DONE: Final = frozenset({SlotState.RUNNING, SlotState.COMPLETED})


class Progress:
    """What is known of the services that are waited for."""

    def __init__(self, wanted: Mapping[str, int]) -> None:
        """Wait for these services, by name, to converge at these revisions or newer ones."""
        self._wanted = dict(wanted)
        self._services: dict[str, Service] = {}
        self._told: dict[str, str] = {}

    def fold(self, changes: Iterable[ObjectChange]) -> list[str]:
        """Take changes; return a line for every service that stands otherwise than before."""
        lines: list[str] = []
        for change in changes:
            service = change.service
            if service is None or service.record.spec.name not in self._wanted:
                continue
            name = service.record.spec.name
            self._services[name] = service
            line = _line(service)
            alike = _FROM_PORT.sub("", line)  # each try of a connection has another one
            if self._told.get(name) != alike:
                self._told[name] = alike
                lines.append(line)
        return lines

    def forget(self) -> None:
        """Forget all: it is told again."""
        self._services.clear()

    def outcome(self) -> Outcome:
        """Return what became of it; the worst of what has ended counts."""
        found = [self._outcome_of(name, revision) for name, revision in self._wanted.items()]
        for outcome in (Outcome.ROLLED_BACK, Outcome.PAUSED):
            if outcome in found and Outcome.PENDING not in found:
                return outcome
        return Outcome.PENDING if Outcome.PENDING in found else Outcome.CONVERGED

    def _outcome_of(self, name: str, revision: int) -> Outcome:
        service = self._services.get(name)
        if service is None:
            return Outcome.PENDING
        rollout = service.rollout
        if rollout is not None and rollout.to_revision >= revision and rollout.state in _ENDED:
            # Nothing may be left to take back while the earlier revision has yet to come up.
            is_back = rollout.state is not RolloutState.ROLLED_BACK or _done(service) == _all(
                service
            )
            return _ENDED[rollout.state] if is_back else Outcome.PENDING
        if service.is_converged and service.record.revision >= revision:
            return Outcome.CONVERGED
        return Outcome.PENDING

    def standings(self) -> list[Standing]:
        """Return how each service stands, by name."""
        return [
            self._standing(name, revision, self._services.get(name))
            for name, revision in sorted(self._wanted.items())
        ]

    def _standing(self, name: str, revision: int, service: Service | None) -> Standing:
        if service is None:
            return Standing(name, 0, 0, "waits", "", Outcome.PENDING)
        return Standing(
            name,
            min(_done(service), service.desired),
            service.desired,
            _text(service),
            _problem(service),
            self._outcome_of(name, revision),
            service.watched_until_unix_s,
        )

    def warnings(self) -> list[str]:
        """Return what is wrong beside services that are as asked for."""
        return [
            f"{name}: {problem}"
            for name in sorted(self._wanted)
            for problem in (self._services[name].problems if name in self._services else ())
        ]

    def failures(self) -> list[str]:
        """Return what became of rollouts that failed, and why."""
        found = [(name, self._services.get(name)) for name in sorted(self._wanted)]
        return [
            f"{name}: {service.rollout.message}"
            for name, service in found
            if service is not None and service.rollout is not None and service.rollout.message
        ]

    def blocked(self) -> str:
        """Return the first service that is not so."""
        return next(
            (each.service for each in self.standings() if each.outcome is not Outcome.CONVERGED),
            "",
        )

    def problems(self) -> list[str]:
        """Return what keeps services from being so, for the person."""
        lines: list[str] = []
        for name in sorted(self._wanted):
            service = self._services.get(name)
            if service is None or service.is_converged:
                continue
            found = service.problems[:PROBLEMS_SHOWN_MAX] or ("it is not what was asked for yet",)
            lines += [f"{name}: {problem}" for problem in found]
        return lines


def _done(service: Service) -> int:
    return sum(each.count for each in service.slots if each.state in _DONE)


def _all(service: Service) -> int:
    return sum(each.count for each in service.slots)


def _line(service: Service) -> str:
    problem = _problem(service)
    return f"{service.record.spec.name}: {_text(service)}{f'; {problem}' if problem else ''}"


def _text(service: Service) -> str:
    counts = ", ".join(f"{each.count} {word(each.state)}" for each in service.slots)
    rollout = service.rollout
    note = f"; {rollout.message}" if rollout is not None and rollout.message else ""
    if service.is_converged:
        return f"converged, {counts or 'nothing to run'}{note}"
    if service.watched_until_unix_s:
        # Nothing is left to do: what is waited for must be said, or it looks like idleness.
        return f"{counts}, watched for {service.record.spec.update.monitor_s:g} s{note}"
    return f"{counts or 'no slots yet'} of {service.desired}{note}"


def _problem(service: Service) -> str:
    """Return the most frequent problem of a service that is not as asked for; or ""."""
    return service.problems[0] if service.problems and not service.is_converged else ""


def add_waiting(parser: argparse.ArgumentParser) -> None:
    """Add how long a verb waits for what it began."""
    parser.add_argument(
        "-d", "--detach", action="store_true", help="do not wait until it is as asked for"
    )
    parser.add_argument(
        "--timeout",
        type=duration_s,
        default=duration_s(WAIT_DEFAULT),
        metavar="DURATION",
        help=f"how long to wait; what was begun goes on after it (default: {WAIT_DEFAULT})",
    )


async def finish(
    client: Client, context: Context, given: argparse.Namespace, project: str, view: ChangesView
) -> ExitCode:
    """Show what a write did, and wait for it unless told not to.

    Args:
        client: The cluster.
        context: Where to write.
        given: The flags of `add_waiting`.
        project: Whose services are waited for.
        view: What the write did.
    """
    is_plain = context.settings.output_format not in (None, OutputFormat.TABLE)
    if is_plain:
        context.show(view)
    else:
        for line in change_lines(project, view.changes):
            print(line, file=context.out, flush=True)
    wanted = {
        each.service: each.revision
        for each in view.changes
        if each.kind not in (ChangeKind.REMOVED, ChangeKind.KEPT)
    }
    if given.detach or not wanted:
        return ExitCode.CONVERGED
    return await _wait(client, context, project, Progress(wanted), given.timeout)


async def _wait(
    client: Client, context: Context, project: str, progress: Progress, limit_s: float
) -> ExitCode:
    from cli.progress import shown_progress

    try:
        async with asyncio.timeout(limit_s):
            with shown_progress(context, progress) as show:
                outcome = await _until_ended(client, project, progress, show)
        return _end(context, progress, outcome)
    except TimeoutError:
        pass
    except asyncio.CancelledError:
        context.warn(f"what was applied goes on without us; see `dray ps -p {project}`")
        raise
    for line in progress.problems():
        context.warn(line)
    see = f"dray explain {project}/{progress.blocked()}"
    context.warn(f"not as asked for after {limit_s:g} s; it goes on (see `{see}`)")
    return ExitCode.TIMED_OUT


async def _until_ended(
    client: Client, project: str, progress: Progress, show: Callable[[list[str]], None]
) -> Outcome:
    async for reply in client.watch([WatchKind.SERVICE], project):
        if reply.is_reset:
            progress.forget()
        show(progress.fold(reply.changes))
        if (outcome := progress.outcome()) is not Outcome.PENDING:
            return outcome
    raise Unavailable("the cluster ended its news of the project")


def _end(context: Context, progress: Progress, outcome: Outcome) -> ExitCode:
    if outcome is Outcome.CONVERGED:
        for line in progress.warnings():
            context.warn(f"warning: {line}")
        return ExitCode.CONVERGED
    for line in progress.failures():
        context.warn(line)
    if outcome is Outcome.ROLLED_BACK:
        context.warn("rolled back: the new revision failed, and the one before it is back")
        return ExitCode.ROLLED_BACK
    context.warn("the rollout is paused after failures; mend it and apply again, or `dray revert`")
    return ExitCode.REFUSED
