"""How does a program talk to a cluster? The asyncio client.

    async with Client([HostPort("10.0.0.1", 7400), HostPort("10.0.0.2", 7400)]) as client:
        reply = await client.list_tasks(project="shop")

One method for each call of the users' API. Replies are the values of `dray.views`; a refusal is
raised as the `DrayError` that the scheduler meant. Calls are made again on another scheduler when
one fails (`channels`). Lists come whole, all pages as of one store revision.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.message import Message

from dray import views
from dray.api.v1 import cluster_pb2, node_pb2, spec_pb2, state_pb2, types_pb2
from dray.client.streams import StreamCalls
from dray.convert import PAGE_ITEMS_MAX, from_proto, to_proto
from dray.errors import DrayError, ErrorCode
from dray.names import RequestId, TaskId, id_bytes

if TYPE_CHECKING:
    from dray.model import Availability, EventKind, EventLevel, ProjectSpec, Taint

__all__ = ["LIST_ITEMS_MAX", "Client", "Write"]

LIST_ITEMS_MAX: Final = 1_000_000  # items of one list in memory; more: ask by project or node
_LISTS_MAX: Final = 5  # how often a list is begun again because the store forgot its revision
_LEAVES_S: Final = 0.001  # until a request has left, before its event loop is kept busy
_V = TypeVar("_V")


@dataclasses.dataclass(frozen=True, slots=True)
class Write:
    """How a write is made safe to repeat and safe against others.

    Attributes:
        request_id: The same for every try of one intent, also from another process; None: a new
            one, which covers the tries that the client makes by itself.
        if_revision: Carry it out only if the object still has this revision; 0: it must not exist;
            None: whatever it is now.
        dry_run: Check and plan, change nothing.
    """

    request_id: RequestId | None = None
    if_revision: int | None = None
    dry_run: bool = False


_ANY: Final = Write()


class Client(StreamCalls):
    """A client of one cluster.

    For one event loop. Close it with `close`, or use it as a context.
    """

    # --- the cluster ---

    async def get_cluster_info(self) -> views.GetClusterInfoResponse:
        """Return which cluster this is, its ranges, limits and versions."""
        return await self._ask(cluster_pb2.GetClusterInfoRequest(), views.GetClusterInfoResponse)

    async def get_status(self) -> views.GetStatusResponse:
        """Return how the cluster is: leader, etcd, nodes by condition, the last round."""
        return await self._ask(cluster_pb2.GetStatusRequest(), views.GetStatusResponse)

    async def rotate_gossip_key(self, write: Write = _ANY) -> views.RotateGossipKeyResponse:
        """Replace the primary key of gossip by a new one."""
        request = cluster_pb2.RotateGossipKeyRequest()
        return await self._write(request, write, views.RotateGossipKeyResponse)

    # --- projects ---

    async def apply_project(
        self,
        project: ProjectSpec,
        write: Write = _ANY,
        *,
        remove_absent_services: bool = False,
        registry_credentials: Mapping[str, bytes] | None = None,
        force_replace: bool = False,
    ) -> views.ApplyProjectResponse:
        """Make a project what the given one says, or (`dry_run`) say what that would do.

        Args:
            project: What is asked for, at most 4 MiB with its configs and secrets.
            write: How it is written; `if_revision` is the project's.
            remove_absent_services: Remove services that `project` does not have; else they stay.
            registry_credentials: Entries of Docker's `auths` as JSON, by registry; an empty one is
                forgotten.
            force_replace: Replace tasks that have not changed, too.
        """
        request = cluster_pb2.ApplyProjectRequest(
            project=to_proto(project, spec_pb2.ProjectSpec),
            remove_absent_services=remove_absent_services,
            force_replace=force_replace,
        )
        for registry, auth in sorted((registry_credentials or {}).items()):
            request.registry_credentials.add(registry=registry, auth=auth)
        return await self._write(request, write, views.ApplyProjectResponse)

    async def get_project(self, project: str) -> views.GetProjectResponse:
        """Return one project with what was asked for it; contents of secrets are empty."""
        request = cluster_pb2.GetProjectRequest(project=project)
        return await self._ask(request, views.GetProjectResponse)

    async def list_projects(self) -> views.ListProjectsResponse:
        """Return all projects by name."""
        request = cluster_pb2.ListProjectsRequest()
        return await self._list(request, views.ListProjectsResponse, "projects")

    async def remove_project(
        self, project: str, write: Write = _ANY, *, remove_volumes: bool = False
    ) -> views.RemoveProjectResponse:
        """Stop and remove all of a project; with `remove_volumes` its data, too."""
        request = cluster_pb2.RemoveProjectRequest(project=project, remove_volumes=remove_volumes)
        return await self._write(request, write, views.RemoveProjectResponse)

    # --- services ---

    async def get_service(
        self, project: str, service: str, revision: int | None = None
    ) -> views.GetServiceResponse:
        """Return one service with its newest revision, or a kept one."""
        request = cluster_pb2.GetServiceRequest(project=project, service=service, revision=revision)
        return await self._ask(request, views.GetServiceResponse)

    async def list_services(self, project: str = "") -> views.ListServicesResponse:
        """Return services by project and name; empty: of all projects."""
        request = cluster_pb2.ListServicesRequest(project=project)
        return await self._list(request, views.ListServicesResponse, "services")

    async def scale_services(
        self, project: str, replicas: Mapping[str, int], write: Write = _ANY
    ) -> views.ScaleServicesResponse:
        """Change the number of replicas of services; no task is replaced."""
        request = cluster_pb2.ScaleServicesRequest(project=project)
        for service, number in sorted(replicas.items()):
            request.scales.add(service=service, replicas=number)
        return await self._write(request, write, views.ScaleServicesResponse)

    async def restart_services(
        self, project: str, services: Sequence[str] = (), write: Write = _ANY
    ) -> views.RestartServicesResponse:
        """Replace all tasks of services by new ones of the same spec; none named: of all."""
        request = cluster_pb2.RestartServicesRequest(project=project, services=services)
        return await self._write(request, write, views.RestartServicesResponse)

    async def list_revisions(self, project: str, service: str) -> views.ListRevisionsResponse:
        """Return the kept revisions of a service, newest first."""
        request = cluster_pb2.ListRevisionsRequest(project=project, service=service)
        return await self._list(request, views.ListRevisionsResponse, "revisions")

    async def diff_revisions(
        self,
        project: str,
        service: str,
        from_revision: int | None = None,
        to_revision: int | None = None,
    ) -> views.DiffRevisionsResponse:
        """Return what differs between two revisions; by default the newest and the one before."""
        request = cluster_pb2.DiffRevisionsRequest(
            project=project,
            service=service,
            from_revision=from_revision,
            to_revision=to_revision,
        )
        return await self._ask(request, views.DiffRevisionsResponse)

    async def revert_service(
        self, project: str, service: str, to_revision: int | None = None, write: Write = _ANY
    ) -> views.RevertServiceResponse:
        """Make a new revision with the content of an older one; None: the one before the newest.

        `write.if_revision` is the service's revision number.
        """
        request = cluster_pb2.RevertServiceRequest(
            project=project, service=service, to_revision=to_revision
        )
        return await self._write(request, write, views.RevertServiceResponse)

    async def explain_service(
        self, project: str, service: str, log_lines_max: int | None = None
    ) -> views.ExplainServiceResponse:
        """Return why a service is not as it was asked to be."""
        request = cluster_pb2.ExplainServiceRequest(
            project=project, service=service, log_lines_max=log_lines_max
        )
        return await self._ask(request, views.ExplainServiceResponse)

    # --- tasks ---

    async def get_task(self, task_id: TaskId) -> views.GetTaskResponse:
        """Return one task."""
        request = cluster_pb2.GetTaskRequest(task_id=id_bytes(task_id))
        return await self._ask(request, views.GetTaskResponse)

    async def list_tasks(
        self,
        project: str = "",
        services: Sequence[str] = (),
        *,
        node: str = "",
        with_ended: bool = False,
        with_usage: bool = False,
    ) -> views.ListTasksResponse:
        """Return tasks by slot, with slots that have none yet; empty filters mean all."""
        request = cluster_pb2.ListTasksRequest(
            project=project,
            services=services,
            node=node,
            with_ended=with_ended,
            with_usage=with_usage,
        )
        return await self._list(request, views.ListTasksResponse, "tasks")

    # --- nodes ---

    async def get_node(self, node: str) -> views.GetNodeResponse:
        """Return one node, by its name or id."""
        return await self._ask(cluster_pb2.GetNodeRequest(node=node), views.GetNodeResponse)

    async def list_nodes(self) -> views.ListNodesResponse:
        """Return all nodes by name."""
        request = cluster_pb2.ListNodesRequest()
        return await self._list(request, views.ListNodesResponse, "nodes")

    async def update_node(
        self,
        node: str,
        write: Write = _ANY,
        *,
        labels: Mapping[str, str] | None = None,
        labels_removed: Sequence[str] = (),
        taints: Sequence[Taint] = (),
        taints_removed: Sequence[str] = (),
        availability: Availability | None = None,
    ) -> views.UpdateNodeResponse:
        """Change a node's labels, taints or availability; what is not named stays."""
        request = cluster_pb2.UpdateNodeRequest(
            node=node,
            labels_removed=labels_removed,
            taints=[to_proto(taint, state_pb2.Taint) for taint in taints],
            taints_removed=taints_removed,
        )
        for key, value in sorted((labels or {}).items()):
            request.labels.add(key=key, value=value)
        if availability is not None:
            request.availability = state_pb2.Availability.ValueType(availability.value)
        return await self._write(request, write, views.UpdateNodeResponse)

    async def remove_node(
        self, node: str, write: Write = _ANY, *, force: bool = False
    ) -> views.RemoveNodeResponse:
        """Remove a node for good; `force` also when it is ready or still has tasks."""
        request = cluster_pb2.RemoveNodeRequest(node=node, force=force)
        return await self._write(request, write, views.RemoveNodeResponse)

    async def remove_orphans(
        self, node: str = "", task_ids: Sequence[TaskId] = (), write: Write = _ANY
    ) -> views.RemoveOrphansResponse:
        """Accept the loss of containers that no assignment explains."""
        ids = [id_bytes(task_id) for task_id in task_ids]
        request = cluster_pb2.RemoveOrphansRequest(node=node, task_ids=ids)
        return await self._write(request, write, views.RemoveOrphansResponse)

    async def list_members(self, node: str) -> views.ListMembersResponse:
        """Return the members of gossip as one node sees them."""
        request = cluster_pb2.ListMembersRequest(node=node)
        return await self._ask(request, views.ListMembersResponse)

    async def plan_rebalance(
        self, goal: views.RebalanceGoal, moves_max: int | None = None
    ) -> views.PlanRebalanceResponse:
        """Return which few moves would even out the nodes, or empty some. Changes nothing."""
        request = cluster_pb2.PlanRebalanceRequest(
            goal=cluster_pb2.RebalanceGoal.ValueType(goal.value), moves_max=moves_max
        )
        return await self._ask(request, views.PlanRebalanceResponse)

    # --- what happened, and names ---

    async def list_events(
        self,
        *,
        project: str = "",
        service: str = "",
        node: str = "",
        kinds: Sequence[EventKind] = (),
        level_min: EventLevel | None = None,
        since_unix_s: float | None = None,
        items_max: int = PAGE_ITEMS_MAX,
    ) -> views.ListEventsResponse:
        """Return the newest events that match, newest first, at most one page of them.

        Args:
            project: Events of this project; empty: of all of them, as with those that follow.
            service: Of this service.
            node: Of this node.
            kinds: Of these kinds.
            level_min: No less serious than this; None: any.
            since_unix_s: No older than this.
            items_max: At most so many.
        """
        request = cluster_pb2.ListEventsRequest(
            page=types_pb2.PageRequest(items_max=items_max),
            project=project,
            service=service,
            node=node,
            kinds=[state_pb2.EventKind.ValueType(kind.value) for kind in kinds],
            since_unix_s=since_unix_s,
        )
        if level_min is not None:
            request.level_min = state_pb2.EventLevel.ValueType(level_min.value)
        return await self._ask(request, views.ListEventsResponse)

    async def explain_dns(self, query: views.DnsQuery, node: str = "") -> views.ExplainDnsResponse:
        """Return what a node's DNS answers for a name, and why; empty: any ready node."""
        request = cluster_pb2.ExplainDnsRequest(node=node)
        request.query.CopyFrom(to_proto(query, node_pb2.DnsQuery))
        return await self._ask(request, views.ExplainDnsResponse)

    # --- inside ---

    async def _ask(self, request: Any, reply_class: type[_V], *, is_write: bool = False) -> _V:
        """Make one call; its name is the request's."""
        return from_proto(await self._message(request, is_write=is_write), reply_class)

    async def _message(self, request: Any, *, is_write: bool = False) -> Any:
        """Make one call and return what comes back, of which only the header is looked at."""
        request.header.CopyFrom(self.header())
        method = request.DESCRIPTOR.name.removesuffix("Request")
        reply_type: type[Message] = getattr(cluster_pb2, f"{method}Response")
        message: Any = await self.channels.unary(method, request, reply_type, is_write=is_write)
        if message.HasField("header"):
            self.note(from_proto(message.header, views.ResponseHeader))
        return message

    async def _write(self, request: Any, write: Write, reply_class: type[_V]) -> _V:
        options = types_pb2.WriteOptions(
            request_id=id_bytes(write.request_id or self.ids.new()),
            if_revision=write.if_revision,
            dry_run=write.dry_run,
        )
        request.write.CopyFrom(options)
        return await self._ask(request, reply_class, is_write=True)

    async def _list(self, request: Any, reply_class: type[_V], items: str) -> _V:
        """Return all pages of a list as one reply; begin again when its revision is forgotten."""
        for _ in range(_LISTS_MAX - 1):
            try:
                return await self._pages(request, reply_class, items)
            except DrayError as error:
                if error.code is not ErrorCode.OUT_OF_RANGE:
                    raise
        return await self._pages(request, reply_class, items)

    async def _pages(self, request: Any, reply_class: type[_V], items: str) -> _V:
        """Return all pages as one; while one is read, the scheduler already makes the next."""
        found: list[Any] = []
        request.page.Clear()
        message = await self._message(request)
        while True:
            request.page.page_token = message.next_page_token
            async with self._ahead(request if message.next_page_token else None) as following:
                reply: Any = from_proto(message, reply_class)
                found += getattr(reply, items)
                if len(found) > LIST_ITEMS_MAX:
                    raise DrayError(
                        f"the list has more than {LIST_ITEMS_MAX} items",
                        code=ErrorCode.RESOURCE_EXHAUSTED,
                        hint="ask for one project or node",
                    )
                if following is None:
                    whole: _V = dataclasses.replace(reply, **{items: tuple(found)})
                    return whole
                message = await following

    @contextlib.asynccontextmanager
    async def _ahead(self, request: Any | None) -> AsyncIterator[asyncio.Task[Any] | None]:
        """Make a call while something else is done; None: there is none to make."""
        if request is None:
            yield None
            return
        call = asyncio.create_task(self._message(request), name="next page")
        try:
            await asyncio.sleep(_LEAVES_S)
            yield call
        finally:
            call.cancel()
            await asyncio.wait([call])
