"""Who turns the node's share into running containers? The agent: all tasks of one node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from dray.clock import Clock
from dray.errors import DeadlineExceeded, Unavailable
from dray.log import Logger
from dray.model import (
    Assignment,
    AttemptState,
    Health,
    ProjectParts,
    ServiceKey,
    TaskSpecEntry,
)
from dray.names import ClusterId, NodeId, TaskId
from node.agent.adoption import adopted, is_newer, newest_containers, on_this_clock
from node.agent.assign import (
    Accepted,
    Held,
    NotAccepted,
    Share,
    accept,
    change_to,
    unmet,
)
from node.agent.book import Book, Signal
from node.agent.contents import ContentFiles
from node.agent.disk import Disk
from node.agent.logs import Followed
from node.agent.platforms import Platforms
from node.agent.publication import service_facts
from node.agent.removals import VolumeRemovals
from node.agent.requests import Work, unexplained_work
from node.agent.runner import TaskRunner
from node.agent.steps import Steps
from node.agent.tasks import HealthSeen, TaskState, Wanted
from node.discovery import has_ready
from node.dns.resolver import TTL_S
from node.ports import Discovery, NodeNetwork
from node.runtime.base import (
    Container,
    ContainerState,
    PullProgress,
    Runtime,
    RuntimeEvent,
    RuntimeEventKind,
)
from node.runtime.platforms import read_emulated

__all__ = ["Agent", "AgentParts", "AgentSettings"]

GLANCE_EVERY_S: Final = 30.0  # s between two looks at what runs, in case an event was lost
ENGINE_AGAIN_S: Final = 0.5
# How long clients use what they know after the last name server and table have changed: answers
# for their TTL, and connections that are being made meanwhile.
_ANSWERS_HELD_S: Final = TTL_S + 0.5
_PUBLISH_PAUSE_S: Final = 0.01  # s: what happens meanwhile is one publication
_SPECS_AHEAD_MAX: Final = 2_000  # revisions that are kept of what a stream has carried
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the agent is told once.

    Attributes:
        node_id: The node.
        node_name: Its name.
        address: IP address by which peers reach it.
        restart_wait_s: How long it waits for a leader before it starts from disk.
    """

    node_id: NodeId
    node_name: str
    address: str
    restart_wait_s: float = 10.0


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What the agent acts on."""

    disk: Disk
    runtime: Runtime
    network: NodeNetwork
    discovery: Discovery
    contents: ContentFiles
    clock: Clock
    log: Logger
    emulated: Callable[[], frozenset[str] | None] = read_emulated
    """Returns whose programs the kernel emulates, None if it does not tell; blocks."""


class Agent:
    """All tasks of one node. `load` first, then `run`; the session calls the rest."""

    def __init__(self, settings: AgentSettings, parts: AgentParts) -> None:
        """Make an agent that knows nothing yet."""
        self._settings = settings
        self._parts = parts
        self._clock = parts.clock
        self.book = Book(parts.clock, parts.log, parts.disk.write_tasks)
        self.share: Share | None = None
        self.cluster_id: ClusterId | None = None
        self.pulls: dict[str, PullProgress] = {}
        self.volumes_changed = Signal()
        self.removals = VolumeRemovals(
            parts.runtime, self.book, parts.log, self.volumes_changed.send
        )
        self.followed = Followed()
        self._steps = Steps(
            parts.runtime,
            parts.network,
            parts.contents,
            self,
            self,
            parts.clock,
            self.volumes_changed.send,
            self.followed.read_out,
            Platforms(parts.runtime, parts.emulated),
        )
        self._specs_ahead: dict[tuple[ServiceKey, int], TaskSpecEntry] = {}
        self._runners: dict[TaskId, TaskRunner] = {}
        self._group: asyncio.TaskGroup | None = None
        self._ended: set[str] = set()  # containers whose end the engine has not told yet
        self._published: dict[ServiceKey, object] = {}
        self._is_reboot = False
        self._joined = Signal()
        self._confirmed = asyncio.Event()
        self._may_start_from_disk = asyncio.Event()

    # ---- from the disk ---------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what the former daemon left; called once, before everything else.

        Raises:
            DrayError: The disk cannot be read, or holds what this version does not understand.
        """
        disk = self._parts.disk
        found = await asyncio.to_thread(disk.read_tasks)
        boot_id = await asyncio.to_thread(disk.boot_id)
        self._is_reboot = bool(found.boot_id) and found.boot_id != boot_id
        self.share = await asyncio.to_thread(disk.read_share)
        if self.share is not None:
            self.cluster_id = self.share.assignment.cluster_id
            self.book.set_rules(self.share)
        self.book.load(found.states, found.orphans, boot_id)

    def join(self, cluster_id: ClusterId) -> None:
        """Learn which cluster the node belongs to."""
        assert self.cluster_id in (None, cluster_id), (self.cluster_id, cluster_id)
        self.cluster_id = cluster_id
        self._joined.send()

    # ---- what the leader says --------------------------------------------------------------------

    def new_stream(self) -> None:
        """Forget what an earlier stream carried ahead."""
        self._specs_ahead.clear()

    def hold_specs(self, entries: Iterable[TaskSpecEntry]) -> None:
        """Keep what this stream has carried: the leader does not send it on it again."""
        for entry in entries:
            self._specs_ahead[(entry.service, entry.service_revision)] = entry
        while len(self._specs_ahead) > _SPECS_AHEAD_MAX:  # a new stream carries the oldest again
            del self._specs_ahead[next(iter(self._specs_ahead))]

    async def take(
        self, assignment: Assignment, projects: Iterable[ProjectParts]
    ) -> NotAccepted | None:
        """Carry out an assignment from now on, once it is on the disk; None: it was accepted.

        Raises:
            DrayError: The disk does not take it; the former one stands.
        """
        cluster_id = self.cluster_id or assignment.cluster_id
        held = Held(
            cluster_id, self._settings.node_id, self.share, tuple(self._specs_ahead.values())
        )
        answer = accept(held, assignment, projects)
        self.hold_specs(assignment.specs)
        if isinstance(answer, NotAccepted):
            return answer
        await self._begin(answer)
        self._confirm()
        return None

    async def _begin(self, accepted: Accepted) -> None:
        before, share = self.share, accepted.share
        self.book.set_rules(share)
        change = change_to(share, before, self.book.states, self.book.orphans)
        if frozenset(change.orphans) != self.book.orphans:
            self.book.orphans = frozenset(change.orphans)
            self.book.changed.send()
            await self.book.flushed()  # first: without it the new share would mean stopping them
        if before != share:
            await asyncio.to_thread(self._parts.disk.write_share, share)
        self.share = share
        # Again: adoption may have found containers meanwhile that were not written down.
        change = change_to(share, before, self.book.states, self.book.orphans)
        self.book.orphans = frozenset(change.orphans)
        for task in change.start:
            self.book.add(TaskState(task.task_id, task.slot, since_unix_s=self._clock.unix_s()))
            self._spawn(task.task_id)
        for task_id in change.stop:
            if task_id in self.book.states:
                self.book.apply(task_id, Wanted(False))
        for task_id in (*change.stop, *change.forget):
            self._poke(task_id)
        self.book.changed.send()

    def _confirm(self) -> None:
        self._confirmed.set()
        self._may_start_from_disk.set()

    async def remove_orphans(self, task_ids: Iterable[TaskId]) -> None:
        """End and remove orphans whose loss an operator has accepted; others are kept."""
        accepted = self.book.orphans & frozenset(task_ids)
        self.book.orphans -= accepted
        for task_id in accepted:
            self.book.apply(task_id, Wanted(False))
            self._poke(task_id)

    # ---- what tasks ask --------------------------------------------------------------------------

    def work(self, state: TaskState) -> Work:
        """Return what a task's newest attempt runs."""
        assert self.cluster_id is not None
        name = self._settings.node_name
        if self.share is not None:
            task = self.share.tasks.get(state.task_id)
            if task is not None:
                parts = self.share.parts(task.slot.project)
                entry = self.share.entry(task)
                return Work(self.cluster_id, name, task, entry, parts, state.attempt)
        return unexplained_work(self.cluster_id, name, state.task_id, state.slot, state.attempt)

    def is_listed(self, task_id: TaskId) -> bool:
        """Return whether the node's share lists a task."""
        return self.share is None or task_id in self.share.tasks

    async def may_start(self, task_id: TaskId) -> None:
        """Return once the node may begin an attempt of a task."""
        while self.share is None or task_id not in self.share.tasks:
            number = self.book.changed.number
            self.book.note(task_id, "waits for an assignment that says what it runs")
            await self.book.changed.wait(number)
        entry = self.work(self.book.states[task_id]).entry
        needs_leader = entry.is_job or entry.singleton
        gate = self._confirmed if needs_leader else self._may_start_from_disk
        if not gate.is_set():
            what = "its cluster's leader" if needs_leader else "a leader, or the wait after a start"
            self.book.note(task_id, f"waits for {what}")
            await gate.wait()
        while True:
            number = self.book.changed.number
            slot = self.book.states[task_id].slot
            reason = unmet(entry.depends_on, slot.project, self.book.by_service())
            if not reason:
                return
            self.book.note(task_id, reason)
            await self.book.changed.wait(number)

    def progress(self, reference: str, progress: PullProgress | None) -> None:
        """Note how far an image is."""
        if progress is None:
            self.pulls.pop(reference, None)
        else:
            self.pulls[reference] = progress

    def lender(self, service: ServiceKey) -> str | None:
        """Return the container id of a running task of a service."""
        for state in self.book.by_service().get(service, ()):
            if state.state is AttemptState.RUNNING:
                return state.container_id
        return None

    async def withdrawn(self, service: ServiceKey) -> bool:
        """Publish what has changed, and return when nobody sends new work to what was withdrawn.

        That is when it has spread, and clients have dropped the addresses that they had from the
        name servers. Where no other endpoint is ready they stay, so there is nothing to wait for.

        Returns:
            Whether another endpoint of the service takes work.
        """
        discovery = self._parts.discovery
        self._publish()
        await discovery.withdrawn(service)
        if not has_ready(discovery.view().endpoints(service)):
            return False
        await self._clock.sleep(_ANSWERS_HELD_S)
        return True

    def process_ended(self, container_id: str) -> None:
        """Publish at once that a container serves nothing any more; the engine will say so too."""
        self._ended.add(container_id)
        self._publish()

    # ---- running ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Adopt what runs, then keep all tasks going. Starts anew after a failure."""
        number = 0
        while self.cluster_id is None:
            number = await self._joined.wait(number)
        self._runners.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.book.run(), name="tasks to disk")
            await self._adopt()
            self._group = group
            try:
                for task_id in self.book.states:
                    self._spawn(task_id)
                group.create_task(self._follow_events(), name="events")
                group.create_task(self._follow_book(), name="publication")
                group.create_task(self._sweep(), name="sweep")
                group.create_task(self._open_gate(), name="gate")
                group.create_task(self.removals.run(self.cluster_id), name="volumes")
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    async def _open_gate(self) -> None:
        await self._clock.sleep(self._settings.restart_wait_s)
        self._may_start_from_disk.set()

    def _spawn(self, task_id: TaskId) -> None:
        if self._group is None or task_id in self._runners:
            return
        runner = TaskRunner(task_id, self.book, self._steps, self, self._clock)
        self._runners[task_id] = runner
        self._group.create_task(self._run_task(runner), name=f"task {task_id}")

    async def _run_task(self, runner: TaskRunner) -> None:
        try:
            await runner.run()
        finally:
            self._runners.pop(runner.task_id, None)

    def _poke(self, task_id: TaskId) -> None:
        if task_id in self._runners:
            self._runners[task_id].poke()

    async def _adopt(self) -> None:
        """Take over the containers that run, once the engine shows them."""
        assert self.cluster_id is not None
        running = await self._once_there(self._parts.runtime.running)
        well = self._as_known(running)
        others = partial(self._parts.runtime.containers, but=well)
        found = newest_containers(await self._once_there(others))
        now = self.book.now()
        for task_id in {*self.book.states, *found.newest}:
            known = self.book.states.get(task_id)
            container = found.newest.get(task_id)
            state: TaskState | None
            if known is not None and known.container_id in well and not is_newer(container, known):
                state = on_this_clock(known, now)
            else:
                state = adopted(
                    known, container, self.book.rules(task_id), now, is_reboot=self._is_reboot
                )
            assert state is not None, task_id
            if known is None:
                self._add_unknown(state)
            else:
                self.book.put(state)
            if state.address and state.container_id:
                await self._parts.network.adopt(task_id, state.address, state.address6)
        self._is_reboot = False
        await self._parts.contents.keep_only(frozenset(self.book.states))
        count = sum(bool(state.container_id) for state in self.book.states.values())
        self._parts.log.info("containers adopted", count=count)

    def _as_known(self, running: Mapping[str, Health]) -> frozenset[str]:
        """Return the containers that run and are as healthy as they are known to be."""
        return frozenset(
            state.container_id
            for state in self.book.states.values()
            if state.state is AttemptState.RUNNING
            and running.get(state.container_id) is state.health
        )

    def _add_unknown(self, state: TaskState) -> None:
        """Take a container that was never written down: the share explains it, or nobody does."""
        self.book.add(state)
        if self.share is None or not self.is_listed(state.task_id):
            self.book.orphans |= {state.task_id}

    async def _once_there(self, ask: Callable[[ClusterId], Awaitable[_T]]) -> _T:
        """Return what the engine says of the cluster's containers, however long that takes."""
        assert self.cluster_id is not None
        delay_s = 0.2
        while True:
            try:
                return await ask(self.cluster_id)
            except (Unavailable, DeadlineExceeded) as error:
                self._parts.log.warning("docker is away", error=str(error))
            await self._clock.sleep(delay_s)
            delay_s = min(2 * delay_s, 5.0)

    # ---- what the engine tells -------------------------------------------------------------------

    async def _follow_events(self) -> None:
        while True:
            try:
                async with self._parts.runtime.events() as events:
                    await self._look_at_all()
                    async for event in events:
                        await self._look(event)
                return  # the runtime was closed
            except (Unavailable, DeadlineExceeded):
                await self._clock.sleep(ENGINE_AGAIN_S)

    async def _look(self, event: RuntimeEvent) -> None:
        try:
            if event.kind is RuntimeEventKind.RECONNECTED:
                await self._look_at_all()
            elif event.kind is RuntimeEventKind.HEALTH:
                found = await self._parts.runtime.inspect(event.container_id)
                if found is not None:
                    self._see_health(found)
        except (Unavailable, DeadlineExceeded):
            return  # its return is an event of its own

    def _see_health(self, container: Container) -> None:
        if container.identity is None:
            return
        state = self.book.states.get(container.identity.task_id)
        if (
            state is not None
            and state.container_id == container.container_id
            and container.state is ContainerState.RUNNING
            and self.book.apply(state.task_id, HealthSeen(container.health)).state
            is not state.state
        ):
            self._poke(state.task_id)

    async def _look_at_all(self) -> None:
        """See the health of all tasks, and remove containers that no task needs any more."""
        assert self.cluster_id is not None
        running = await self._parts.runtime.running(self.cluster_id)
        if started_again := self._ended & running.keys():  # by hand
            self._ended -= started_again
            self.book.changed.send()
        others = await self._parts.runtime.containers(self.cluster_id, but=self._as_known(running))
        for container in others:
            self._see_health(container)
            identity = container.identity
            assert identity is not None, container
            kept = self.book.states.get(identity.task_id)
            if kept is not None and identity.attempt < kept.attempt - 1:
                await self._parts.runtime.remove(container.container_id)

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(GLANCE_EVERY_S)
            try:
                await self._glance()
            except (Unavailable, DeadlineExceeded) as error:
                self._parts.log.warning("docker is away", error=str(error))

    async def _glance(self) -> None:
        """Compare what runs with what is known; look closer only where they differ."""
        assert self.cluster_id is not None
        before = self.book.states.values()
        known = {each.container_id: each for each in before if each.state is AttemptState.RUNNING}
        running = await self._parts.runtime.running(self.cluster_id)
        for container_id in known.keys() - running.keys():
            self._poke(known[container_id].task_id)  # its watch begins anew, and looks
        is_news = running.keys() - known.keys() or any(
            each.health is not running.get(container_id, each.health)
            for container_id, each in known.items()
        )
        if is_news:
            await self._look_at_all()

    # ---- what peers are told ---------------------------------------------------------------------

    async def _follow_book(self) -> None:
        number = -1
        while True:
            await self.book.changed.wait(number)
            await self._clock.sleep(_PUBLISH_PAUSE_S)
            number = self.book.changed.number
            self._publish()

    def _publish(self) -> None:
        if self.share is None:
            return
        states = tuple(self.book.states.values())
        self._ended &= {state.container_id for state in states}
        serving = [state for state in states if state.container_id not in self._ended]
        facts = service_facts(self.share, serving, self._settings.address)
        discovery = self._parts.discovery
        for service in self._published.keys() - facts.keys():
            discovery.publish_service(service, None)
            del self._published[service]
        for service, fact in facts.items():
            if self._published.get(service) != fact:
                discovery.publish_service(service, fact)
                self._published[service] = fact

    @property
    def container_ids(self) -> Mapping[TaskId, str]:
        """The containers that run, by task."""
        return {
            state.task_id: state.container_id
            for state in self.book.states.values()
            if state.container_id and not state.is_ended
        }
