"""Why is a service not as it was asked to be?"""

from __future__ import annotations

import asyncio
from typing import Final

from dray.api.v1 import cluster_pb2
from dray.errors import DrayError, InvalidRequest, NotLeader
from dray.model import ServiceKey
from dray.views import (
    ExplainServiceResponse,
    LogLine,
    LogLines,
    LogQuery,
    PendingExplanation,
    RebalanceGoal,
    RestartExplanation,
    SlotState,
    Task,
)
from scheduler.api.environment import Answer, Environment, States
from scheduler.api.preview import Previews
from scheduler.api.reads import known_service
from scheduler.api.views import State
from scheduler.placement import MoveGoal

__all__ = ["Explaining"]

LOG_LINES_DEFAULT: Final = 10
LOG_LINES_MAX: Final = 100
LOG_S: Final = 3.0  # for the last lines of one task; without them the rest is still told
ATTEMPTS_MAX: Final = 10
RESTARTING_MAX: Final = 10  # tasks whose lines are read
MOVES_DEFAULT: Final = 100
MOVES_MAX: Final = 10_000
_GOALS: Final = {
    RebalanceGoal.EVEN.value: MoveGoal.REBALANCE,
    RebalanceGoal.COMPACT.value: MoveGoal.COMPACT,
}
_TROUBLED: Final = frozenset({SlotState.FAILED, SlotState.UNHEALTHY})


class Explaining:
    """The calls that say why."""

    def __init__(self, environment: Environment, states: States, previews: Previews) -> None:
        """Answer from `states` and from what `previews` would do."""
        self._previews = previews
        self._environment = environment
        self._states = states

    async def explain_service(self, request: cluster_pb2.ExplainServiceRequest) -> Answer:
        """Say why a service is not as it was asked to be."""
        wanted = request.log_lines_max if request.HasField("log_lines_max") else LOG_LINES_DEFAULT
        if not 0 <= wanted <= LOG_LINES_MAX:
            raise InvalidRequest(
                f"log_lines_max is {wanted}; it must be from 0 to {LOG_LINES_MAX}",
                context={"field": "log_lines_max"},
            )
        state = self._states.current()
        record = known_service(state, request.project, request.service)
        key = ServiceKey(request.project, request.service)
        service = state.service(record)
        tasks = state.tasks_of(key)
        planned = await self._previews.of(state.memory, state.snapshot, key)
        pending = planned.unplaced or _vacant(tasks)
        troubled = [task for task in tasks if _is_troubled(task)][:RESTARTING_MAX]
        restarting = [await self._restart(state, task, wanted) for task in troubled]
        reply = ExplainServiceResponse(
            service=service, pending=pending, restarting=tuple(restarting)
        )
        return Answer(reply, state, planned.warnings)

    async def _restart(self, state: State, task: Task, lines_max: int) -> RestartExplanation:
        """Return what is known of a task that does not stay up."""
        assert task.task_id is not None
        lines = await self._last_lines(task, lines_max) if lines_max else ()
        earlier = state.memory.earlier.get(task.task_id, ()) if state.memory else ()
        attempts = (*((task.observed,) if task.observed else ()), *earlier)[:ATTEMPTS_MAX]
        return RestartExplanation(task.slot, task.task_id, task.node_name, attempts, lines)

    async def _last_lines(self, task: Task, lines_max: int) -> tuple[LogLine, ...]:
        """Return the last lines of a task; none when its node does not give them in time."""
        assert task.node_id is not None
        query = LogQuery(task.slot.project, (task.slot.service,), (task.slot.slot,), tail=lines_max)
        found: list[LogLine] = []
        try:
            async with (
                asyncio.timeout(LOG_S),
                self._environment.relays.open(task.node_id, query) as relay,
            ):
                async for message in relay.output():
                    if isinstance(message, LogLines):
                        found += [each for each in message.lines if each.task_id == task.task_id]
        except (DrayError, TimeoutError):
            return tuple(found[-lines_max:])
        return tuple(found[-lines_max:])

    async def plan_rebalance(self, request: cluster_pb2.PlanRebalanceRequest) -> Answer:
        """Say which few moves would even out the nodes, or empty some."""
        goal = _GOALS.get(request.goal)
        if goal is None:
            raise InvalidRequest(
                f"goal {request.goal} is not known to this version of dray",
                context={"field": "goal"},
            )
        moves_max = request.moves_max if request.HasField("moves_max") else MOVES_DEFAULT
        if not 1 <= moves_max <= MOVES_MAX:
            raise InvalidRequest(
                f"moves_max is {moves_max}; it must be from 1 to {MOVES_MAX}",
                context={"field": "moves_max"},
            )
        state = self._states.current()
        if state.memory is None:
            raise NotLeader("there is no leader to plan with", hint="try again in a moment")
        reply = await self._previews.moves(state.memory, state.snapshot, goal, moves_max)
        return Answer(reply, state)


def _is_troubled(task: Task) -> bool:
    """Return whether a task does not stay up, or is not well."""
    restarts = task.observed.restarts if task.observed else 0
    return task.task_id is not None and (task.state in _TROUBLED or restarts > 0)


def _vacant(tasks: list[Task]) -> tuple[PendingExplanation, ...]:
    """Return slots that have no task, grouped by the reason that the last round gave."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        if task.state is SlotState.PENDING:
            groups.setdefault(task.reason, []).append(task)
    return tuple(
        PendingExplanation(tuple(task.slot for task in group), reason)
        for reason, group in groups.items()
    )
