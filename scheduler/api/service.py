"""Which calls does the users' API have, and who answers each? The servicer of `ClusterService`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from dray.api.v1 import cluster_pb2
from scheduler.api.calls import Calls, ChannelMaker, Unary
from scheduler.api.commits import Commits
from scheduler.api.environment import Environment, States
from scheduler.api.explain import Explaining
from scheduler.api.nodes_asked import NodeQuestions
from scheduler.api.preview import Previews
from scheduler.api.reads import Reads
from scheduler.api.streams import Streams
from scheduler.api.watches import Watches
from scheduler.api.writing import Writing

__all__ = ["SERVICE_NAME", "ClusterService"]

SERVICE_NAME: Final = "dray.api.v1.ClusterService"


class ClusterService:
    """The users' API of one scheduler: make it, add it to a server, close it when that ended."""

    def __init__(self, environment: Environment, channel_to: ChannelMaker) -> None:
        """Serve in `environment`; open channels to other schedulers by `channel_to`."""
        states = States(environment)
        commits = Commits(environment.store, environment.source, clock=environment.clock)
        self._calls = Calls(environment, states, channel_to)
        self._unary = _unary_calls(environment, states, commits)
        self._streams = Streams(environment, states, self._calls)
        self._watches = Watches(environment, states, self._calls)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register all calls with a server that is not started yet."""
        handlers = {call.method: self._unary_handler(call) for call in self._unary}
        handlers["Watch"] = _handler(
            grpc.unary_stream_rpc_method_handler, self._watches.watch, "Watch"
        )
        handlers["StreamLogs"] = _handler(
            grpc.unary_stream_rpc_method_handler, self._streams.stream_logs, "StreamLogs"
        )
        handlers["Exec"] = _handler(
            grpc.stream_stream_rpc_method_handler, self._streams.exec, "Exec"
        )
        handlers["CopyToTask"] = _handler(
            grpc.stream_unary_rpc_method_handler, self._streams.copy_to_task, "CopyToTask"
        )
        handlers["CopyFromTask"] = _handler(
            grpc.unary_stream_rpc_method_handler, self._streams.copy_from_task, "CopyFromTask"
        )
        generic = grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)
        server.add_generic_rpc_handlers((generic,))

    async def close(self) -> None:
        """End the channels to other schedulers."""
        await self._calls.close()

    def _unary_handler(self, call: Unary) -> Any:
        async def answer(request: Message, context: Any) -> Message:
            return await self._calls.unary(call, request, context)

        return _handler(grpc.unary_unary_rpc_method_handler, answer, call.method)


def _handler(make: Callable[..., Any], behaviour: Callable[..., Any], method: str) -> Any:
    request_type: type[Message] = getattr(cluster_pb2, f"{method}Request")
    return make(
        behaviour,
        request_deserializer=request_type.FromString,
        response_serializer=_serialized,
    )


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _unary_calls(environment: Environment, states: States, commits: Commits) -> tuple[Unary, ...]:
    """Return every call with one request and one reply."""
    reads = Reads(environment, states)
    previews = Previews(environment)
    writing = Writing(environment, states, commits, previews)
    explaining = Explaining(environment, states, previews)
    questions = NodeQuestions(environment, states)
    return (
        Unary("GetClusterInfo", reads.get_cluster_info),
        Unary("GetStatus", reads.get_status, is_observed=True),
        Unary("RotateGossipKey", writing.rotate_gossip_key),
        Unary("ApplyProject", writing.apply_project),
        Unary("GetProject", reads.get_project, is_observed=True),
        Unary("ListProjects", reads.list_projects, is_observed=True),
        Unary("RemoveProject", writing.remove_project),
        Unary("GetService", reads.get_service, is_observed=True),
        Unary("ListServices", reads.list_services, is_observed=True),
        Unary("ScaleServices", writing.scale_services),
        Unary("RestartServices", writing.restart_services),
        Unary("ListRevisions", reads.list_revisions),
        Unary("DiffRevisions", reads.diff_revisions),
        Unary("RevertService", writing.revert_service),
        Unary("ExplainService", explaining.explain_service, is_observed=True),
        Unary("GetTask", reads.get_task, is_observed=True),
        Unary("ListTasks", reads.list_tasks, is_observed=True),
        Unary("GetNode", reads.get_node, is_observed=True),
        Unary("ListNodes", reads.list_nodes, is_observed=True),
        Unary("UpdateNode", writing.update_node),
        Unary("RemoveNode", writing.remove_node, is_observed=True),
        Unary("RemoveOrphans", writing.remove_orphans, is_observed=True, needs_leader=True),
        Unary("ListMembers", questions.list_members, is_observed=True, needs_leader=True),
        Unary("PlanRebalance", explaining.plan_rebalance, is_observed=True, needs_leader=True),
        Unary("ListEvents", reads.list_events),
        Unary("ExplainDns", questions.explain_dns, is_observed=True, needs_leader=True),
    )
