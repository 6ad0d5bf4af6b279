"""How do the values of `messages` travel? To node.proto's messages and back.

What a node sent is not trusted: what the contract does not allow raises `InvalidRequest` with the
path of the field. A message that this version does not know is None: a newer node sent it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, assert_never

from dray.addresses import HostPort
from dray.api.v1 import node_pb2, state_pb2, types_pb2
from dray.convert import WIRE_MINOR, from_proto, to_proto
from dray.errors import InvalidRequest
from dray.model import (
    AttemptReport,
    Epoch,
    Fault,
    NodeCapacity,
    NodeInfo,
    NodeUsage,
    StoreRevision,
    TaskUsage,
    WitnessEvidence,
)
from dray.names import ClusterId, TaskId, id_bytes, id_text
from dray.views import Orphan
from scheduler.nodes import messages as m

__all__ = ["cluster_id_of", "message_from_proto", "message_to_proto"]

_LIST_MAX: Final = 10_000
_ModelT = TypeVar("_ModelT")


def cluster_id_of(raw: bytes) -> str:
    """Return the text form of a cluster id; empty for an empty one.

    Raises:
        InvalidRequest: It is neither empty nor an id.
    """
    return id_text(raw) if raw else ""


def message_from_proto(request: node_pb2.SessionRequest) -> m.Up | None:
    """Return what a node says; None for a message that this version does not know.

    Raises:
        InvalidRequest: It is malformed.
    """
    name = request.WhichOneof("message")
    if name is None:
        return None
    read = _READERS[name]
    said = read(getattr(request, name), request)
    assert said is not None, name
    return said


def message_to_proto(
    message: m.Down, cluster_id: ClusterId, epoch: Epoch | None
) -> node_pb2.SessionResponse:
    """Return what is sent to a node.

    Args:
        message: The message.
        cluster_id: The cluster that this scheduler serves.
        epoch: This leader's; None in `NotLeader` and `Refused`.
    """
    response = node_pb2.SessionResponse(cluster_id=id_bytes(cluster_id))
    if epoch is not None:
        response.epoch.CopyFrom(to_proto(epoch, state_pb2.Epoch))
    match message:
        case m.Welcome():
            response.welcome.CopyFrom(_welcome(message))
        case m.NotLeader():
            response.not_leader.SetInParent()
            if message.leader is not None:
                response.not_leader.leader.CopyFrom(_address(message.leader))
            if message.epoch is not None:
                response.not_leader.epoch.CopyFrom(to_proto(message.epoch, state_pb2.Epoch))
        case m.Refused():
            response.refused.reason = node_pb2.RefusedReason.ValueType(message.reason.value)
            response.refused.message = message.message
            response.refused.retry_after_s = message.retry_after_s
        case m.AssignmentPush():
            response.assignment.assignment.CopyFrom(
                to_proto(message.assignment, state_pb2.Assignment)
            )
            response.assignment.projects.extend(
                to_proto(each, state_pb2.ProjectParts) for each in message.projects
            )
        case m.SpecPush():
            response.specs.specs.extend(
                to_proto(each, state_pb2.TaskSpecEntry) for each in message.specs
            )
        case m.Ping():
            response.ping.sequence = message.sequence
        case m.NodeConfig():
            response.config.CopyFrom(_config(message))
        case m.OpenRelay():
            assert isinstance(message.purpose, node_pb2.OpenRelay), message
            response.open_relay.CopyFrom(message.purpose)
            response.open_relay.relay_id = message.relay_id
        case m.Resync():
            response.resync.reason = message.reason
        case m.RemoveOrphans():
            response.remove_orphans.task_ids.extend(map(id_bytes, message.task_ids))
        case m.RemoveVolumes():
            response.remove_volumes.project = message.project
            response.remove_volumes.names.extend(message.names)
        case _:
            assert_never(message)
    return response


# ---- down


def _welcome(message: m.Welcome) -> node_pb2.Welcome:
    return node_pb2.Welcome(
        cluster=to_proto(message.cluster, state_pb2.ClusterRecord),
        config=_config(message.config),
        scheduler_id=id_bytes(message.scheduler_id),
        version=message.version,
        wire_minor=WIRE_MINOR,
        leader_node_id=id_bytes(message.leader_node_id) if message.leader_node_id else b"",
    )


def _config(message: m.NodeConfig) -> node_pb2.NodeConfig:
    return node_pb2.NodeConfig(
        record=to_proto(message.record, state_pb2.NodeRecord),
        keyring=[to_proto(key, state_pb2.GossipKey) for key in message.keyring],
        gossip_seeds=map(_address, message.gossip_seeds),
        schedulers=map(_address, message.schedulers),
        removed_nodes=map(id_bytes, message.removed_nodes),
    )


def _address(address: HostPort) -> types_pb2.Address:
    return types_pb2.Address(host=address.host, port=address.port)


# ---- up


def _hello(message: node_pb2.Hello, request: node_pb2.SessionRequest) -> m.Hello:
    held = None
    if message.HasField("assignment_mod_revision") and message.HasField("assignment_epoch"):
        epoch = from_proto(message.assignment_epoch, Epoch, name="hello.assignment_epoch")
        held = (epoch, StoreRevision(message.assignment_mod_revision))
    return m.Hello(
        from_proto(message.node, NodeInfo, name="hello.node"),
        cluster_id_of(request.cluster_id),
        message.generation,
        message.wire_minor,
        message.min_version,
        _epoch(message, "epoch"),
        held,
        from_proto(message.last_leader, WitnessEvidence, name="hello.last_leader")
        if message.HasField("last_leader")
        else None,
        _epoch(message, "last_leader_epoch"),
        message.is_new,
    )


def _epoch(message: node_pb2.Hello, field: str) -> Epoch | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # both are fields of Hello
        return None
    return from_proto(getattr(message, field), Epoch, name=f"hello.{field}")


def _attempts(message: node_pb2.AttemptReports, _: object) -> m.AttemptReports:
    return m.AttemptReports(
        message.is_complete,
        _each(message.attempts, AttemptReport, "attempts"),
        tuple(map(_task_id, _bounded(message.forgotten_tasks, "attempts.forgotten_tasks"))),
        tuple(
            m.PullProgress(pull.reference, pull.done_bytes, pull.total_bytes)
            for pull in _bounded(message.pulls, "attempts.pulls")
        ),
    )


def _usage(message: node_pb2.UsageReport, _: object) -> m.UsageReport:
    return m.UsageReport(
        message.is_complete,
        from_proto(message.node, NodeUsage, name="usage.node")
        if message.HasField("node")
        else None,
        _each(message.tasks, TaskUsage, "usage.tasks"),
        from_proto(message.capacity, NodeCapacity, name="usage.capacity")
        if message.HasField("capacity")
        else None,
    )


def _faults(message: node_pb2.FaultReport, _: object) -> m.FaultReport:
    return m.FaultReport(_each(message.faults, Fault, "faults"))


def _evidence(message: node_pb2.EvidenceReport, _: object) -> m.EvidenceReport:
    evidence = _each(message.evidence, WitnessEvidence, "evidence")
    return m.EvidenceReport(message.is_complete, evidence)


def _pong(message: node_pb2.Pong, _: object) -> m.Pong:
    return m.Pong(message.sequence)


def _goodbye(message: node_pb2.Goodbye, _: object) -> m.Goodbye:
    kinds = {kind.value: kind for kind in m.GoodbyeKind}
    if message.kind not in kinds:
        raise InvalidRequest(f"goodbye.kind: {message.kind} is not known to this version of dray")
    return m.Goodbye(kinds[message.kind], message.drain_timeout_s)


def _result(message: node_pb2.AssignmentResult, _: object) -> m.AssignmentResult:
    return m.AssignmentResult(
        from_proto(message.epoch, Epoch, name="assignment_result.epoch"),
        StoreRevision(message.mod_revision),
        message.is_accepted,
        message.reason,
    )


def _orphans(message: node_pb2.OrphanReport, _: object) -> m.OrphanReport:
    return m.OrphanReport(_each(message.orphans, Orphan, "orphans"))


def _volumes(message: node_pb2.VolumeReport, _: object) -> m.VolumeReport:
    return m.VolumeReport(
        message.is_complete,
        tuple(
            m.NodeVolume(each.project, each.key, each.name, each.driver, each.created_unix_s)
            for each in _bounded(message.volumes, "volumes")
        ),
        tuple(_bounded(message.gone, "volumes.gone")),
    )


_READERS: Final[dict[str, Callable[[Any, node_pb2.SessionRequest], m.Up]]] = {
    "hello": _hello,
    "attempts": _attempts,
    "usage": _usage,
    "faults": _faults,
    "evidence": _evidence,
    "pong": _pong,
    "goodbye": _goodbye,
    "assignment_result": _result,
    "orphans": _orphans,
    "volumes": _volumes,
}


def _each(values: Any, cls: type[_ModelT], name: str) -> tuple[_ModelT, ...]:
    return tuple(
        from_proto(value, cls, name=f"{name}[{index}]")
        for index, value in enumerate(_bounded(values, name))
    )


def _bounded(values: Any, name: str) -> Iterable[Any]:
    if len(values) > _LIST_MAX:
        raise InvalidRequest(f"{name}: has {len(values)} items, {_LIST_MAX} are the most")
    items: Iterable[Any] = values
    return items


def _task_id(raw: bytes) -> TaskId:
    return TaskId(id_text(raw))
