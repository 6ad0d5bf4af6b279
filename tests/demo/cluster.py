"""How do the parts work together before there are daemons? One round at a time, by hand.

Each round is the leader's and the nodes' in one: look, reconcile, place, carry out. The decisions
are the product's own pure code; what it decides is carried out on real Docker Engines through the
product's `Runtime`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dray.model import (
    Assignment,
    AttemptReport,
    AttemptState,
    ClusterRecord,
    Epoch,
    NodeCapacity,
    NodeCondition,
    NodeRecord,
    ProjectSpec,
    ServiceKey,
    ServiceRecord,
    ServiceRevision,
    SlotKey,
    StoreRevision,
    TaskAssignment,
)
from dray.names import ClusterId, IdFactory, NodeId, RequestId, TaskId, slot_name
from node.runtime.base import (
    Container,
    ContainerIdentity,
    ContainerRequest,
    ContainerState,
    Refused,
    Runtime,
)
from scheduler.placement import (
    ClusterView,
    PlacementNode,
    PlacementResult,
    RunningShare,
    TaskGroup,
    cluster_view,
    place,
)
from scheduler.reconcile import (
    CreateTask,
    ForgetTask,
    MoveTask,
    NodeObservation,
    Observed,
    Plan,
    StopTask,
    reconcile,
)
from scheduler.store.snapshot import Snapshot

__all__ = ["DemoCluster", "DemoError", "DemoNode", "Round"]

EPOCH = Epoch(1, 1)


class DemoError(Exception):
    """A step of the demo did not hold; the message says which and why."""


@dataclass(slots=True)
class DemoNode:
    """One host: its registry entry, its engine, and what it should run."""

    record: NodeRecord
    runtime: Runtime
    capacity: NodeCapacity
    tasks: dict[TaskId, TaskAssignment] = field(default_factory=dict)
    is_down: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """What one round decided: the plan, and where its new tasks went."""

    plan: Plan
    placement: PlacementResult


class DemoCluster:
    """Some nodes, one project, and the state in between."""

    def __init__(
        self, cluster_id: ClusterId, nodes: Mapping[NodeId, DemoNode], ids: IdFactory
    ) -> None:
        """Start with nothing asked for and nothing assigned."""
        self.cluster_id = cluster_id
        self.nodes = nodes
        self.services: dict[ServiceKey, ServiceRecord] = {}
        self._ids = ids
        self._revision = 1

    def apply(self, project: ProjectSpec) -> None:
        """Ask for a project; a service that changed gets the next revision."""
        wanted = {ServiceKey(project.name, spec.name): spec for spec in project.services}
        for key, spec in wanted.items():
            old = self.services.get(key)
            if old is None or old.spec != spec:
                number = ServiceRevision(old.revision + 1 if old else 1)
                request_id = RequestId(self._ids.new())
                self.services[key] = ServiceRecord(project.name, spec, number, 0.0, request_id)
        for key in [key for key in self.services if key not in wanted]:
            del self.services[key]

    async def round(self) -> Round:
        """Look, decide, and carry out what was decided.

        Raises:
            DemoError: An engine refused something.
        """
        observed = await self._observe()
        plan = reconcile(self._snapshot(), observed, 0.0, self._ids)
        for action in plan.actions:
            if isinstance(action, StopTask):
                await self._stop(action.node_id, action.task_id)
            elif isinstance(action, ForgetTask):
                await self._forget(action.node_id, action.task_id)
        placement = place(self._view(), self._groups(plan))
        await self._start_all(plan, placement)
        return Round(plan, placement)

    async def settle(self, rounds_max: int = 5) -> list[Round]:
        """Run rounds until one has nothing to do.

        Raises:
            DemoError: It did not come to rest within `rounds_max`.
        """
        rounds: list[Round] = []
        for _ in range(rounds_max):
            latest = await self.round()
            if not latest.plan.actions:
                return rounds
            rounds.append(latest)
        raise DemoError(f"no rest after {rounds_max} rounds: {rounds[-1].plan.actions}")

    async def next_attempt(self, node_id: NodeId, ended: Container) -> None:
        """Run a task again after its container ended, as its node's restart rule will."""
        assert ended.identity is not None
        node = self.nodes[node_id]
        await node.runtime.remove(ended.container_id)
        task = node.tasks[ended.identity.task_id]
        await self._run_attempt(node_id, task, ended.identity.attempt + 1)

    async def containers(self) -> list[tuple[NodeId, Container]]:
        """Return the containers of all nodes that are up, by slot."""
        found = [
            (node_id, container)
            for node_id, node in self.nodes.items()
            if not node.is_down
            for container in await node.runtime.containers(self.cluster_id)
        ]
        return sorted(found, key=lambda item: item[1].name)

    def _snapshot(self) -> Snapshot:
        revision = StoreRevision(self._revision)
        return Snapshot(
            ClusterRecord(self.cluster_id),
            revision,
            services=dict(self.services),
            nodes={node_id: node.record for node_id, node in self.nodes.items()},
            assignments={
                node_id: Assignment(
                    self.cluster_id, node_id, EPOCH, revision, tuple(node.tasks.values())
                )
                for node_id, node in self.nodes.items()
            },
        )

    async def _observe(self) -> Observed:
        attempts = {}
        for _, container in await self.containers():
            if container.identity is not None:
                attempts[container.identity.task_id] = _report(container)
        conditions = {
            node_id: NodeObservation(
                NodeCondition.DOWN if node.is_down else NodeCondition.READY, 0.0
            )
            for node_id, node in self.nodes.items()
        }
        return Observed(conditions, attempts)

    def _view_node(self, node_id: NodeId, node: DemoNode) -> PlacementNode:
        shares = tuple(
            RunningShare(
                task.slot.service_key,
                1,
                self.services[task.slot.service_key].spec.task.reservations,
            )
            for task in node.tasks.values()
            if task.slot.service_key in self.services
        )
        return PlacementNode(
            node_id, node.record.name, node.capacity, not node.is_down, running=shares
        )

    def _view(self) -> ClusterView:
        return cluster_view(
            [self._view_node(node_id, node) for node_id, node in self.nodes.items()]
        )

    def _groups(self, plan: Plan) -> tuple[TaskGroup, ...]:
        slots: dict[ServiceKey, list[SlotKey]] = {}
        for action in plan.actions:
            if isinstance(action, CreateTask | MoveTask):
                slots.setdefault(action.slot.service_key, []).append(action.slot)
        return tuple(
            TaskGroup(
                key, self.services[key].spec, tuple(found), self.services[key].spec.mode.replicas
            )
            for key, found in slots.items()
        )

    async def _start_all(self, plan: Plan, placement: PlacementResult) -> None:
        """Start what was placed; of a moved task the old one is given up first."""
        where = {placed.slot: placed.node_id for placed in placement.placed}
        begun = [
            action
            for action in plan.actions
            if isinstance(action, CreateTask | MoveTask) and action.slot in where
        ]
        for action in begun:
            if isinstance(action, MoveTask):
                await self._stop(action.old_node_id, action.old_task_id)
        async with asyncio.TaskGroup() as group:
            for action in begun:
                group.create_task(self._start(where[action.slot], action))

    async def _start(self, node_id: NodeId, action: CreateTask | MoveTask) -> None:
        task = TaskAssignment(action.task_id, action.slot, action.service_revision, EPOCH)
        self.nodes[node_id].tasks[task.task_id] = task
        await self._run_attempt(node_id, task, 1)

    async def _run_attempt(self, node_id: NodeId, task: TaskAssignment, attempt: int) -> None:
        node = self.nodes[node_id]
        name = slot_name(task.slot.service, task.slot.slot)
        request = ContainerRequest(
            name=f"{task.slot.project}.{name}.{task.task_id[:8]}.{attempt}",
            identity=ContainerIdentity(self.cluster_id, task.task_id, attempt, task.slot),
            spec=self.services[task.slot.service_key].spec.task.container,
            hostname=name.replace(".", "-"),
        )
        created = await node.runtime.create(request)
        if isinstance(created, Refused):
            raise DemoError(f"{name} on {node.record.name}: {created.message}")
        started = await node.runtime.start(created.container_id)
        if isinstance(started, Refused):
            raise DemoError(f"{name} on {node.record.name}: {started.message}")

    async def _stop(self, node_id: NodeId, task_id: TaskId) -> None:
        """Mark a task as ending and, where its node is up, end its container."""
        node = self.nodes[node_id]
        node.tasks[task_id] = replace(node.tasks[task_id], stop=True)
        for container in await self._of(node, task_id):
            await node.runtime.stop(container.container_id, signal="", grace_s=2.0)

    async def _forget(self, node_id: NodeId, task_id: TaskId) -> None:
        node = self.nodes[node_id]
        del node.tasks[task_id]
        for container in await self._of(node, task_id):
            await node.runtime.remove(container.container_id)

    async def _of(self, node: DemoNode, task_id: TaskId) -> list[Container]:
        if node.is_down:
            return []
        containers = await node.runtime.containers(self.cluster_id)
        return [each for each in containers if each.identity and each.identity.task_id == task_id]


def _report(container: Container) -> AttemptReport:
    assert container.identity is not None
    ended = container.state is ContainerState.EXITED
    state = AttemptState.STOPPED if ended else AttemptState.RUNNING
    return AttemptReport(
        container.identity.task_id,
        container.identity.attempt,
        state,
        container.health,
        container_id=container.container_id,
        exit_code=container.exit_code,
    )
