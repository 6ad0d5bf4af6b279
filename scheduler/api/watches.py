"""How does a program follow the cluster? Objects as they are, then every change.

Changes are found by comparing what was sent with what is, whenever the store or the leader's memory
has changed. So a slow reader gets the newest state, never a queue of old ones, and nothing is lost.
A resumed watch goes on from a store revision when this scheduler still has that state; else the
client is told to forget (`is_reset`) and gets everything again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Final

from dray.api.v1 import cluster_pb2
from dray.convert import to_proto
from dray.errors import DrayError, InvalidRequest, Unavailable
from dray.views import (
    Node,
    ObjectChange,
    Project,
    Service,
    Task,
    WatchKind,
    WatchResponse,
)
from scheduler.api.calls import Calls, abort
from scheduler.api.environment import Environment, States, check_header, response_header
from scheduler.api.events import newest_first
from scheduler.api.views import State

__all__ = ["BEAT_S", "CHANGES_MAX", "Watches"]

BEAT_S: Final = 10.0  # at least so often a reply says how far the stream is
CHANGES_MAX: Final = 1_000  # of one reply
_GATHER_S: Final = 0.1  # changes that come together are sent together
_USAGE_S: Final = 5.0
_SETTLING_S: Final = 0.5
_Key = tuple[Any, ...]


class Watches:
    """The watches of one scheduler."""

    def __init__(self, environment: Environment, states: States, calls: Calls) -> None:
        """Serve from `states`, or the leader by `calls`."""
        self._environment = environment
        self._states = states
        self._calls = calls

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Stream objects as they are and then every change."""
        try:
            with self._calls.line("Watch", request, context):
                kinds = _kinds(request)
                snapshot = self._environment.source.snapshot
                check_header(snapshot, request.header.cluster_id, request.header.version)
                leader = self._environment.leader_elsewhere()
                if leader is not None and not request.header.forwarded_by:
                    async for reply in self._calls.stream_of_leader("Watch", request, leader):
                        yield reply
                    raise Unavailable("the leader ended the watch", hint="watch again")
                async for made in self._here(request, kinds):
                    yield to_proto(made, cluster_pb2.WatchResponse)
        except DrayError as error:
            await abort(context, error)

    async def _here(
        self, request: Any, kinds: frozenset[WatchKind]
    ) -> AsyncIterator[WatchResponse]:
        """Yield replies from this scheduler's own state until who leads has changed."""
        await self._states.prepare()
        state = self._states.current()
        sent = dict(_objects(state, kinds, request))
        is_reset = _is_reset(state, request)
        for reply in self._replies(state, [_change(each) for each in sent.values()]):
            yield replace(reply, is_reset=is_reset)
            is_reset = False
        yield WatchResponse(self._header(state), is_reset=is_reset, is_complete=True)
        was_observed = state.memory is not None
        while True:
            is_settling = any(map(_is_settling, sent.values()))
            await self._changed(state, with_usage=request.with_usage, is_settling=is_settling)
            state = self._states.current()
            if (state.memory is not None) != was_observed:
                raise Unavailable("another scheduler leads now", hint="watch again")
            now = dict(_objects(state, kinds, request))
            changes = list(_differences(sent, now))
            sent = now
            if not changes:
                yield WatchResponse(self._header(state))
            for reply in self._replies(state, changes):
                yield reply

    def _replies(self, state: State, changes: list[ObjectChange]) -> Iterator[WatchResponse]:
        """Return changes in replies; only the last says that everything up to it was sent."""
        header = self._header(state)
        for start in range(0, len(changes), CHANGES_MAX):
            yield WatchResponse(header, changes=tuple(changes[start : start + CHANGES_MAX]))

    def _header(self, state: State) -> Any:
        return response_header(
            self._environment, state.snapshot, is_observed=state.memory is not None
        )

    async def _changed(self, state: State, *, with_usage: bool, is_settling: bool) -> None:
        """Wait for a change of the store or of what is observed, at most until the next beat.

        While time alone can make a service converge, time is looked at more often.
        """
        source = self._environment.source
        waits = [asyncio.create_task(source.wait_changed(state.snapshot.revision))]
        if state.memory is not None:
            waits.append(
                asyncio.create_task(
                    self._environment.leadership.wait_memory(state.memory)  # type: ignore[arg-type]
                )
            )
        try:
            timeout_s = _USAGE_S if with_usage else BEAT_S
            timeout_s = min(timeout_s, _SETTLING_S) if is_settling else timeout_s
            done, _ = await asyncio.wait(
                waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                await self._environment.clock.sleep(_GATHER_S)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)


def _is_settling(value: Any) -> bool:
    """Return whether a service is as asked for but for the time that its tasks have run."""
    return isinstance(value, Service) and value.watched_until_unix_s > 0


def _is_reset(state: State, request: Any) -> bool:
    """Return whether a client that resumes must forget what it knows.

    It need not when nothing was written since. What was deleted in between is not kept.
    """
    if not request.HasField("after_revision"):
        return False
    snapshot = state.snapshot
    return (request.generation, request.after_revision) != (
        snapshot.cluster.generation,
        snapshot.revision,
    )


def _kinds(request: Any) -> frozenset[WatchKind]:
    try:
        kinds = frozenset(WatchKind(number) for number in request.kinds)
    except ValueError as error:
        raise InvalidRequest(f"{error}: not known to this version of dray") from error
    if not kinds:
        raise InvalidRequest("a watch names at least one kind", context={"field": "kinds"})
    return kinds


def _objects(state: State, kinds: frozenset[WatchKind], request: Any) -> Iterator[tuple[_Key, Any]]:
    """Yield what is watched, by what names it."""
    project = request.project
    snapshot = state.snapshot
    if WatchKind.PROJECT in kinds:
        for name in sorted(snapshot.projects):
            if not project or name == project:
                yield (WatchKind.PROJECT, name), state.project(name)
    if WatchKind.SERVICE in kinds:
        for key in sorted(snapshot.services):
            if not project or key.project == project:
                yield (WatchKind.SERVICE, key), state.service(snapshot.services[key])
    if WatchKind.TASK in kinds:
        for key in state.keys_of(project):
            for task in state.tasks_of(key, with_usage=request.with_usage):
                yield (WatchKind.TASK, task.slot, task.task_id), task
    if WatchKind.NODE in kinds:
        for record in sorted(snapshot.nodes.values(), key=lambda each: each.name):
            node = state.node(record)
            yield (
                (WatchKind.NODE, record.node_id),
                node if request.with_usage else replace(node, usage=None),
            )
    if WatchKind.EVENT in kinds:
        for event in reversed(newest_first(snapshot.events)):
            if not project or event.subject == project or event.subject.startswith(f"{project}/"):
                yield (WatchKind.EVENT, event.sequence), event


def _differences(before: dict[_Key, Any], now: dict[_Key, Any]) -> Iterator[ObjectChange]:
    """Yield what is new or different, then what is gone. Old events that made room are not."""
    for key, value in now.items():
        if before.get(key) != value:
            yield _change(value)
    for key, value in before.items():
        if key not in now and key[0] is not WatchKind.EVENT:
            yield _gone(value)


def _change(value: Any) -> ObjectChange:
    match value:
        case Project():
            return ObjectChange(project=value)
        case Service():
            return ObjectChange(service=value)
        case Task():
            return ObjectChange(task=value)
        case Node():
            return ObjectChange(node=value)
        case _:
            return ObjectChange(event=value)


def _gone(value: Any) -> ObjectChange:
    """Return the end of an object: with what names it, and its last state."""
    return replace(_change(value), is_deleted=True)
