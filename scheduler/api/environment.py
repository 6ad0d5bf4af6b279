"""What does every call of the users' API work with? The scheduler around it, and its state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from dray.clock import Clock
from dray.errors import FailedPrecondition, InvalidRequest
from dray.log import Logger
from dray.names import ID_BYTES, IdFactory, SchedulerId, id_text
from dray.views import ResponseHeader
from scheduler.api.index import TaskIndex
from scheduler.api.ports import LeaderInfo, Leadership, RelayBroker, SnapshotSource
from scheduler.api.sealing import NO_SEALER, Sealer
from scheduler.api.views import State
from scheduler.placement import PlacementRules
from scheduler.store.base import Store
from scheduler.store.snapshot import Snapshot

__all__ = ["WARNINGS_MAX", "Answer", "Environment", "States", "check_header", "response_header"]

WARNINGS_MAX: Final = 100
_VERSION_PARTS_MAX: Final = 4
_NODES_AT_ONCE: Final = 20  # of 330 tasks each: 10 ms
_TASKS_AT_ONCE: Final = 10_000  # counting them takes 10 ms
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Environment:
    """The scheduler around the API.

    Attributes:
        scheduler_id: This scheduler.
        version: Its version of dray.
        store: Where writes go.
        source: What is stored, as its mirror has it.
        leadership: Who leads, and what is known when it is this one.
        relays: Ways to nodes.
        clock: The time.
        log: Gets one line a call.
        ids: Makes ids of tasks that a plan would create.
        random_bytes: Draws salts and keys.
        sealer: Seals secrets in the store.
        rules: What the operator said of placement; None: nothing.
    """

    scheduler_id: SchedulerId
    version: str
    store: Store
    source: SnapshotSource
    leadership: Leadership
    relays: RelayBroker
    clock: Clock
    log: Logger
    ids: IdFactory
    random_bytes: Callable[[int], bytes]
    sealer: Sealer = NO_SEALER
    rules: PlacementRules | None = None

    @property
    def leads(self) -> bool:
        """Whether this scheduler leads."""
        return self.leadership.memory() is not None

    def leader_elsewhere(self) -> LeaderInfo | None:
        """Return who leads, when it is another scheduler than this one."""
        leader = self.leadership.leader()
        return None if leader is None or leader.scheduler_id == self.scheduler_id else leader


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call answers.

    Attributes:
        reply: A class of `dray.views`, its header still to be put in.
        state: What it is made from.
        warnings: For the user.
    """

    reply: Any
    state: State
    warnings: tuple[str, ...] = ()


class States:
    """Makes the `State` of a call; the index of tasks is kept from call to call."""

    def __init__(self, environment: Environment) -> None:
        """Start without an index."""
        self._environment = environment
        self._index = TaskIndex()

    def current(self) -> State:
        """Return the state as it is now. It is for use before the caller waits for anything.

        Raises:
            Unavailable: This scheduler has not read the store yet.
        """
        snapshot = self._environment.source.snapshot
        self._index.update(snapshot)
        environment = self._environment
        now_unix_s = environment.clock.unix_s()
        return State(snapshot, self._index, environment.leadership.memory(), now_unix_s)

    async def prepare(self) -> None:
        """Take in what has changed in so many assignments that it must be done bit by bit.

        After a start, or an election, `current` would hold the event loop for seconds.
        """
        while True:
            snapshot = self._environment.source.snapshot
            behind = self._index.behind(snapshot)
            if len(behind) <= _NODES_AT_ONCE:
                return
            self._index.update(snapshot, behind[:_NODES_AT_ONCE])
            await asyncio.sleep(0)

    async def beside(self, state: State, work: Callable[[State], T]) -> T:
        """Return what `work` makes of a state; of a large one in a thread, on a copy of its index.

        The event loop also answers nodes' pings: it must not wait for a count of a million tasks.
        """
        if state.index.tasks <= _TASKS_AT_ONCE:
            return work(state)
        return await asyncio.to_thread(work, self.kept(state))

    def kept(self, state: State) -> State:
        """Return a state that stays as it is, for the further pages of a list."""
        return replace(state, index=self._index.copy())


def response_header(
    environment: Environment,
    snapshot: Snapshot,
    *,
    is_observed: bool,
    warnings: tuple[str, ...] = (),
) -> ResponseHeader:
    """Return what a reply begins with."""
    return ResponseHeader(
        snapshot.cluster.cluster_id,
        snapshot.cluster.generation,
        snapshot.revision,
        environment.scheduler_id,
        is_observed,
        warnings[:WARNINGS_MAX],
    )


def check_header(snapshot: Snapshot, cluster_id: bytes, version: str) -> None:
    """Refuse a caller that means another cluster, or is older than the cluster takes.

    Raises:
        FailedPrecondition: It is one of the two.
        InvalidRequest: The cluster's id is malformed.
    """
    if cluster_id:
        if len(cluster_id) != ID_BYTES:
            raise InvalidRequest("header.cluster_id has 16 bytes or none")
        meant = id_text(cluster_id)
        if meant != snapshot.cluster.cluster_id:
            raise FailedPrecondition(
                f"this is cluster {snapshot.cluster.cluster_id}, not {meant}",
                hint="name a scheduler of the cluster that you mean with --host",
            )
    least = snapshot.cluster.min_version
    if version and least and _ordered(version) < _ordered(least):
        raise FailedPrecondition(
            f"dray {version} is older than {least}, the oldest that this cluster takes",
            hint="upgrade the client",
        )


def _ordered(version: str) -> tuple[int, ...]:
    """Return the numbers at the beginning of a version: "0.3.1.dev0" is (0, 3, 1)."""
    numbers = []
    for part in version.split(".")[:_VERSION_PARTS_MAX]:
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
