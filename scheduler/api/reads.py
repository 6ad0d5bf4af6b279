"""What does each reading call answer? One function a call: a request and the state give a reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from dray.addresses import HostPort, parse_host_port
from dray.api.v1 import cluster_pb2
from dray.compose.diff import diff_projects
from dray.convert import WIRE_MINOR, to_bytes
from dray.errors import InvalidRequest, NotFound
from dray.model import (
    Event,
    EventKind,
    EventLevel,
    ProjectSpec,
    ServiceKey,
    ServiceRecord,
    ServiceRevision,
    SlotKey,
)
from dray.names import ID_BYTES, NodeId, TaskId, id_text
from dray.views import (
    DiffRevisionsResponse,
    EtcdStatus,
    GetClusterInfoResponse,
    GetNodeResponse,
    GetProjectResponse,
    GetServiceResponse,
    GetStatusResponse,
    GetTaskResponse,
    LeaderStatus,
    ListEventsResponse,
    ListNodesResponse,
    ListProjectsResponse,
    ListRevisionsResponse,
    ListServicesResponse,
    ListTasksResponse,
    SchedulerStatus,
    SlotStateCount,
)
from scheduler.api.environment import Answer, Environment, States
from scheduler.api.events import newest_first
from scheduler.api.index import HeldTask
from scheduler.api.node_writes import find_node
from scheduler.api.paging import Page, Pages
from scheduler.api.ports import LeaderInfo
from scheduler.api.views import State
from scheduler.api.writes import CHANGES_MAX, project_spec, revisions_of, spec_changes
from scheduler.store.base import StoreMember

__all__ = ["Reads", "known_project", "known_service"]

COUNTED_AT_ONCE_MAX: Final = 10_000  # tasks that are counted anew for every status: 50 ms
COUNTS_KEPT_S: Final = 5.0  # how old the counts of more tasks may be: 2,000,000 take seconds
STATUS_LISTED_MAX: Final = 16  # schedulers, and servers of etcd, in a status


class Reads:
    """The reading calls of one scheduler."""

    def __init__(self, environment: Environment, states: States) -> None:
        """Answer from `states`."""
        self._environment = environment
        self._states = states
        self._pages = Pages(environment.scheduler_id, states, environment.clock)
        self._counting = asyncio.Lock()
        self._counts: tuple[float, bool, tuple[SlotStateCount, ...]] | None = None

    # --- the cluster ---

    async def get_cluster_info(self, request: cluster_pb2.GetClusterInfoRequest) -> Answer:
        """Say which cluster this is."""
        state = self._states.current()
        version = self._environment.version
        return Answer(
            GetClusterInfoResponse(
                cluster=state.snapshot.cluster, version=version, wire_minor=WIRE_MINOR
            ),
            state,
        )

    async def get_status(self, request: cluster_pb2.GetStatusRequest) -> Answer:
        """Say how the cluster is."""
        store = await self._environment.store.status()
        state = self._states.current()
        leader = self._environment.leadership.leader()
        memory = state.memory
        reply = GetStatusResponse(
            leader=_leader_status(leader),
            schedulers=_schedulers(state, leader),
            etcd=tuple(map(_etcd_status, store.members[:STATUS_LISTED_MAX])),
            nodes=state.condition_counts(),
            slots=await self._slot_counts(state),
            last_round=memory.last_round if memory else None,
            orphans=sum(map(len, memory.orphans.values())) if memory else 0,
        )
        return Answer(reply, state)

    async def _slot_counts(self, state: State) -> tuple[SlotStateCount, ...]:
        """Return the number of slots in each state; of a large cluster as it was lately."""
        if state.index.tasks <= COUNTED_AT_ONCE_MAX:
            return state.slot_counts()
        async with self._counting:
            clock, kept = self._environment.clock, self._counts
            is_observed = state.memory is not None
            is_new = kept is not None and clock.monotonic_s() - kept[0] <= COUNTS_KEPT_S
            if kept is not None and is_new and kept[1] is is_observed:
                return kept[2]
            counts = await self._states.beside(state, State.slot_counts)
            self._counts = (clock.monotonic_s(), is_observed, counts)
            return counts

    # --- projects and services ---

    async def get_project(self, request: cluster_pb2.GetProjectRequest) -> Answer:
        """Return one project."""
        state = self._states.current()
        known_project(state, request.project)
        spec = project_spec(state.snapshot, request.project)
        reply = GetProjectResponse(project=state.project(request.project), spec=spec)
        return Answer(reply, state)

    async def list_projects(self, request: cluster_pb2.ListProjectsRequest) -> Answer:
        """Return projects by name."""
        page = self._page(request, lambda state: sorted(state.snapshot.projects))
        projects = await self._states.beside(
            page.state, lambda state: tuple(map(state.project, page.items))
        )
        return Answer(
            ListProjectsResponse(projects=projects, next_page_token=page.next_token), page.state
        )

    async def get_service(self, request: cluster_pb2.GetServiceRequest) -> Answer:
        """Return one service with its newest revision, or a kept one."""
        state = self._states.current()
        record = known_service(state, request.project, request.service)
        if request.HasField("revision"):
            record = _kept_revision(state, record, request.revision)
        return Answer(GetServiceResponse(service=state.service(record)), state)

    async def list_services(self, request: cluster_pb2.ListServicesRequest) -> Answer:
        """Return services by project and name."""
        project = request.project

        def keys(state: State) -> list[ServiceKey]:
            services = state.snapshot.services
            return sorted(key for key in services if not project or key.project == project)

        def size(state: State, key: ServiceKey) -> int:
            return len(to_bytes(state.snapshot.services[key]))

        page = self._page(request, keys, size)
        services = page.state.snapshot.services
        found = tuple(page.state.service(services[key]) for key in page.items)
        return Answer(
            ListServicesResponse(services=found, next_page_token=page.next_token), page.state
        )

    async def list_revisions(self, request: cluster_pb2.ListRevisionsRequest) -> Answer:
        """Return a service's kept revisions, newest first."""

        def kept(state: State) -> list[ServiceRecord]:
            newest = known_service(state, request.project, request.service)
            return revisions_of(state.snapshot, newest)

        page = self._page(request, kept, lambda _, record: len(to_bytes(record)))
        return Answer(
            ListRevisionsResponse(revisions=page.items, next_page_token=page.next_token),
            page.state,
        )

    async def diff_revisions(self, request: cluster_pb2.DiffRevisionsRequest) -> Answer:
        """Say what differs between two revisions of a service."""
        state = self._states.current()
        newest = known_service(state, request.project, request.service)
        to = newest
        if request.HasField("to_revision"):
            to = _kept_revision(state, newest, request.to_revision)
        older = [
            each for each in revisions_of(state.snapshot, newest) if each.revision < to.revision
        ]
        if request.HasField("from_revision"):
            before = _kept_revision(state, newest, request.from_revision)
        elif older:
            before = older[0]
        else:
            raise NotFound(
                f"no kept revision of {request.project}/{request.service} is older than "
                f"{to.revision}",
                hint="see `dray history`",
            )
        diff = diff_projects(
            ProjectSpec(request.project, (before.spec,)), ProjectSpec(request.project, (to.spec,))
        )
        changes = [
            change for each in diff.services for change in spec_changes(each.changes, each.effect)
        ]
        reply = DiffRevisionsResponse(
            from_revision=before.revision,
            to_revision=to.revision,
            changes=tuple(changes[:CHANGES_MAX]),
        )
        return Answer(reply, state)

    # --- tasks ---

    async def get_task(self, request: cluster_pb2.GetTaskRequest) -> Answer:
        """Return one task."""
        if len(request.task_id) != ID_BYTES:
            raise InvalidRequest("task_id has 16 bytes", context={"field": "task_id"})
        state = self._states.current()
        task_id = TaskId(id_text(request.task_id))
        held = state.index.task(task_id)
        if held is None:
            raise NotFound(f"there is no task {task_id}", hint="see `dray ps`")
        return Answer(GetTaskResponse(task=state.task(held, with_usage=True)), state)

    async def list_tasks(self, request: cluster_pb2.ListTasksRequest) -> Answer:
        """Return tasks by slot."""
        page = self._page(request, lambda state: _tasks(state, request))
        usage = request.with_usage
        tasks = tuple(page.state.task_of(each, with_usage=usage) for each in page.items)
        return Answer(ListTasksResponse(tasks=tasks, next_page_token=page.next_token), page.state)

    # --- nodes ---

    async def get_node(self, request: cluster_pb2.GetNodeRequest) -> Answer:
        """Return one node."""
        state = self._states.current()
        record = find_node(state.snapshot, request.node)
        memory = state.memory
        evidence = memory.evidence if memory else ()
        reply = GetNodeResponse(
            node=state.node(record),
            orphans=memory.orphans.get(record.node_id, ()) if memory else (),
            evidence=tuple(each for each in evidence if each.target == record.node_id),
        )
        return Answer(reply, state)

    async def list_nodes(self, request: cluster_pb2.ListNodesRequest) -> Answer:
        """Return nodes by name."""

        def ids(state: State) -> list[NodeId]:
            nodes = state.snapshot.nodes
            return sorted(nodes, key=lambda node_id: (nodes[node_id].name, node_id))

        page = self._page(request, ids)
        nodes = page.state.snapshot.nodes
        found = tuple(page.state.node(nodes[node_id]) for node_id in page.items)
        return Answer(ListNodesResponse(nodes=found, next_page_token=page.next_token), page.state)

    # --- events ---

    async def list_events(self, request: cluster_pb2.ListEventsRequest) -> Answer:
        """Return events, newest first."""
        page = self._page(request, lambda state: list(_events(state, request)))
        return Answer(
            ListEventsResponse(events=page.items, next_page_token=page.next_token), page.state
        )

    def _page(
        self,
        request: Any,
        items_of: Callable[[State], Iterable[Any]],
        size_of: Callable[[State, Any], int] | None = None,
    ) -> Page[Any]:
        return self._pages.page(request.page.items_max, request.page.page_token, items_of, size_of)


def _leader_status(leader: LeaderInfo | None) -> LeaderStatus | None:
    if leader is None:
        return None
    return LeaderStatus(
        leader.scheduler_id, leader.epoch, leader.address, leader.node_id, leader.since_unix_s
    )


def _schedulers(state: State, leader: LeaderInfo | None) -> tuple[SchedulerStatus, ...]:
    found = [
        SchedulerStatus(
            record.scheduler_id,
            _address(record.address),
            record.version,
            leader is not None and leader.scheduler_id == record.scheduler_id,
        )
        for record in state.snapshot.schedulers.values()
    ]
    if leader is not None and all(each.scheduler_id != leader.scheduler_id for each in found):
        found.append(SchedulerStatus(leader.scheduler_id, leader.address, leader.version, True))
    found.sort(key=lambda each: str(each.address))
    return tuple(found[:STATUS_LISTED_MAX])


def _address(text: str) -> HostPort | None:
    return parse_host_port(text) if text else None


def _etcd_status(member: StoreMember) -> EtcdStatus:
    problems = [member.problem] if member.problem else []
    problems += [
        "etcd is out of space and refuses writes: free some with `etcdctl defrag` and "
        "`etcdctl alarm disarm`"
        if alarm == "NOSPACE"
        else f"etcd raises the alarm {alarm}: see `etcdctl alarm list`"
        for alarm in member.alarms
    ]
    return EtcdStatus(
        member.address,
        member.healthy and not member.alarms,
        member.is_leader,
        member.version,
        member.size_bytes,
        member.size_in_use_bytes,
        0,
        tuple(problems),
    )


def known_project(state: State, name: str) -> None:
    """Check that there is a project.

    Raises:
        NotFound: There is none.
    """
    if name not in state.snapshot.projects:
        raise NotFound(f"there is no project {name[:100]!r}", hint="see `dray ls`")


def known_service(state: State, project: str, service: str) -> ServiceRecord:
    """Return a service that is asked for.

    Raises:
        NotFound: There is none; the hint names those of its project.
    """
    known_project(state, project)
    record = state.snapshot.services.get(ServiceKey(project, service))
    if record is None:
        names = [key.service for key in state.snapshot.services if key.project == project]
        raise NotFound(
            f"there is no service {service[:100]!r} in project {project}",
            hint=f"it has: {', '.join(sorted(names)) or 'none'}",
        )
    return record


def _kept_revision(state: State, newest: ServiceRecord, number: int) -> ServiceRecord:
    if number == newest.revision:
        return newest
    key = ServiceKey(newest.project, newest.spec.name)
    record = state.snapshot.revisions.get((key, ServiceRevision(number)))
    if record is None:
        kept = ", ".join(
            str(each.revision) for each in reversed(revisions_of(state.snapshot, newest))
        )
        raise NotFound(
            f"service {key.project}/{key.service} has no revision {number}", hint=f"it has: {kept}"
        )
    return record


def _tasks(state: State, request: cluster_pb2.ListTasksRequest) -> Iterator[HeldTask | SlotKey]:
    """Yield the tasks of a list and slots without one; what a page has of them is looked at."""
    if request.project:
        known_project(state, request.project)
    for name in request.services:
        if request.project and not any(k.service == name for k in state.keys_of(request.project)):
            known_service(state, request.project, name)
    node_id = find_node(state.snapshot, request.node).node_id if request.node else None
    for key in state.keys_of(request.project):
        if request.services and key.service not in request.services:
            continue
        for each in state.slots_of(key, with_ended=request.with_ended):
            if node_id is None or (isinstance(each, HeldTask) and each.node_id == node_id):
                yield each


def _events(state: State, request: cluster_pb2.ListEventsRequest) -> Iterator[Event]:
    try:
        kinds = {EventKind(number) for number in request.kinds if number}
        least = EventLevel(request.level_min or EventLevel.INFO.value)
    except ValueError as error:
        raise InvalidRequest(f"{error}: not known to this version of dray") from error
    subjects = _subjects(state, request)
    for event in newest_first(state.snapshot.events):
        is_wanted = (
            (not kinds or event.kind in kinds)
            and event.level.value >= least.value
            and (not request.HasField("since_unix_s") or event.unix_s >= request.since_unix_s)
            and (subjects is None or subjects(event.subject))
        )
        if is_wanted:
            yield event


def _subjects(state: State, request: cluster_pb2.ListEventsRequest) -> Callable[[str], bool] | None:
    """Return which subjects are asked for; None: all."""
    if request.node:
        name = find_node(state.snapshot, request.node).name
        return lambda subject: subject == f"node {name}"
    if request.service and not request.project:
        raise InvalidRequest("a service needs its project", context={"field": "project"})
    if request.service:
        prefix = f"{request.project}/{request.service}"
        return lambda subject: subject == prefix or subject.startswith(f"{prefix}.")
    if request.project:
        project = request.project
        return lambda subject: subject == project or subject.startswith(f"{project}/")
    return None
