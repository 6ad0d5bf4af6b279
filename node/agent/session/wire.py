"""How do the node's values travel on its stream? To node.proto's messages and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dray.addresses import HostPort
from dray.api.v1 import node_pb2, spec_pb2, state_pb2, types_pb2
from dray.convert import WIRE_MINOR, from_proto, to_proto
from dray.errors import PeerMisbehaved
from dray.model import (
    Assignment,
    AttemptReport,
    ClusterRecord,
    ContentRef,
    Epoch,
    Fault,
    GossipKey,
    NodeCapacity,
    NodeInfo,
    NodeRecord,
    NodeUsage,
    ProjectParts,
    SlotKey,
    TaskSpecEntry,
    TaskUsage,
    WitnessEvidence,
)
from dray.names import ClusterId, NodeId, TaskId, id_bytes, id_text
from node.agent.stored import NodeConfig
from node.runtime.base import PullProgress, Volume
from node.volumes.plan import LABEL_VOLUME_KEY, LABEL_VOLUME_PROJECT

__all__ = [
    "MIN_VERSION",
    "Greeting",
    "address_from_proto",
    "assignment_from_proto",
    "attempts_to_proto",
    "config_from_proto",
    "content_request",
    "evidence_to_proto",
    "faults_to_proto",
    "hello_to_proto",
    "merged",
    "orphans_to_proto",
    "specs_from_proto",
    "usage_to_proto",
    "volumes_to_proto",
    "welcome_from_proto",
]

MIN_VERSION = "0.0.1"  # oldest version of dray that this node can work with


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a node says first.

    Attributes:
        info: Who it is.
        cluster_id: Its cluster; None: it has not joined one yet.
        generation: Generation of the cluster it last knew; 0: none.
        epoch: Highest epoch it has seen; None: none.
        held: The assignment that it holds; None: none.
        last_leader: What its probes find of the host of the leader that it last knew.
        last_leader_epoch: Epoch of that leader.
    """

    info: NodeInfo
    cluster_id: ClusterId | None = None
    generation: int = 0
    epoch: Epoch | None = None
    held: Assignment | None = None
    last_leader: WitnessEvidence | None = None
    last_leader_epoch: Epoch | None = None


def hello_to_proto(greeting: Greeting) -> node_pb2.Hello:
    """Return the first message of a stream."""
    hello = node_pb2.Hello(
        node=to_proto(greeting.info, state_pb2.NodeInfo),
        generation=greeting.generation,
        wire_minor=WIRE_MINOR,
        min_version=MIN_VERSION,
        is_new=greeting.cluster_id is None,
    )
    if greeting.epoch is not None:
        hello.epoch.CopyFrom(to_proto(greeting.epoch, state_pb2.Epoch))
    if greeting.held is not None:
        hello.assignment_mod_revision = greeting.held.mod_revision
        hello.assignment_epoch.CopyFrom(to_proto(greeting.held.epoch, state_pb2.Epoch))
    if greeting.last_leader is not None and greeting.last_leader_epoch is not None:
        hello.last_leader.CopyFrom(to_proto(greeting.last_leader, state_pb2.WitnessEvidence))
        hello.last_leader_epoch.CopyFrom(to_proto(greeting.last_leader_epoch, state_pb2.Epoch))
    return hello


def attempts_to_proto(
    reports: Iterable[AttemptReport],
    *,
    is_complete: bool,
    forgotten: Iterable[TaskId] = (),
    pulls: Iterable[tuple[str, PullProgress]] = (),
) -> node_pb2.AttemptReports:
    """Return what the node knows of its tasks."""
    return node_pb2.AttemptReports(
        is_complete=is_complete,
        attempts=[to_proto(report, state_pb2.AttemptReport) for report in reports],
        forgotten_tasks=[id_bytes(task_id) for task_id in forgotten],
        pulls=[
            node_pb2.PullProgress(
                reference=reference,
                done_bytes=progress.bytes_done,
                total_bytes=progress.bytes_total,
            )
            for reference, progress in pulls
        ],
    )


def usage_to_proto(
    node: NodeUsage | None,
    tasks: Iterable[TaskUsage],
    capacity: NodeCapacity | None,
    *,
    is_complete: bool,
) -> node_pb2.UsageReport:
    """Return what the machine and its tasks use."""
    report = node_pb2.UsageReport(
        is_complete=is_complete, tasks=[to_proto(each, state_pb2.TaskUsage) for each in tasks]
    )
    if node is not None:
        report.node.CopyFrom(to_proto(node, state_pb2.NodeUsage))
    if capacity is not None:
        report.capacity.CopyFrom(to_proto(capacity, spec_pb2.NodeCapacity))
    return report


def faults_to_proto(faults: Iterable[Fault]) -> node_pb2.FaultReport:
    """Return what is wrong with the node."""
    return node_pb2.FaultReport(faults=[to_proto(fault, state_pb2.Fault) for fault in faults])


def evidence_to_proto(evidence: Iterable[WitnessEvidence]) -> node_pb2.EvidenceReport:
    """Return all that the node's own probes found of others."""
    return node_pb2.EvidenceReport(
        is_complete=True,
        evidence=[to_proto(each, state_pb2.WitnessEvidence) for each in evidence],
    )


def orphans_to_proto(
    orphans: Iterable[tuple[TaskId, SlotKey, AttemptReport]],
) -> node_pb2.OrphanReport:
    """Return the containers that no assignment explains."""
    return node_pb2.OrphanReport(
        orphans=[
            node_pb2.Orphan(
                task_id=id_bytes(task_id),
                slot=to_proto(slot, state_pb2.SlotKey),
                attempt=to_proto(report, state_pb2.AttemptReport),
            )
            for task_id, slot, report in orphans
        ]
    )


def volumes_to_proto(volumes: Iterable[Volume]) -> node_pb2.VolumeReport:
    """Return all named volumes of the cluster on the node."""
    report = node_pb2.VolumeReport(is_complete=True)
    for volume in volumes:
        labels = dict(volume.labels)
        report.volumes.append(
            node_pb2.NodeVolume(
                project=labels.get(LABEL_VOLUME_PROJECT, ""),
                key=labels.get(LABEL_VOLUME_KEY, ""),
                name=volume.name,
                driver=volume.driver,
                created_unix_s=volume.created_unix_s,
            )
        )
    return report


def content_request(
    cluster_id: ClusterId, node_id: NodeId, life: int, project: str, ref: ContentRef
) -> node_pb2.GetContentRequest:
    """Return the question for a piece of content."""
    return node_pb2.GetContentRequest(
        cluster_id=id_bytes(cluster_id),
        node_id=id_bytes(node_id),
        life=life,
        project=project,
        content=to_proto(ref, state_pb2.ContentRef),
    )


# ---- down ----------------------------------------------------------------------------------------


def address_from_proto(message: types_pb2.Address) -> HostPort:
    """Return an address.

    Raises:
        PeerMisbehaved: It is none.
    """
    if not message.host or not 1 <= message.port <= 65_535:
        raise PeerMisbehaved(f"{message.host!r}:{message.port} is no address", retryable=True)
    return HostPort(message.host, message.port)


def welcome_from_proto(
    message: node_pb2.Welcome,
) -> tuple[NodeConfig, NodeId | None]:
    """Return what the node should know, and the node that the leader runs on, if any.

    Raises:
        InvalidRequest: It is malformed.
    """
    cluster = from_proto(message.cluster, ClusterRecord, name="welcome.cluster")
    config = config_from_proto(message.config, cluster)
    leader = message.leader_node_id
    return config, NodeId(id_text(leader)) if leader else None


def config_from_proto(message: node_pb2.NodeConfig, cluster: ClusterRecord) -> NodeConfig:
    """Return what the node should know about itself and the cluster.

    Raises:
        InvalidRequest: It is malformed.
    """
    return NodeConfig(
        cluster,
        from_proto(message.record, NodeRecord, name="config.record"),
        tuple(from_proto(key, GossipKey, name="config.keyring") for key in message.keyring),
        tuple(map(address_from_proto, message.gossip_seeds)),
        tuple(map(address_from_proto, message.schedulers)),
        tuple(NodeId(id_text(raw)) for raw in message.removed_nodes),
    )


def assignment_from_proto(
    message: node_pb2.AssignmentPush,
) -> tuple[Assignment, tuple[ProjectParts, ...]]:
    """Return what the node should run.

    Raises:
        InvalidRequest: It is malformed.
    """
    return (
        from_proto(message.assignment, Assignment, name="assignment"),
        tuple(from_proto(parts, ProjectParts, name="projects") for parts in message.projects),
    )


def specs_from_proto(message: node_pb2.SpecPush) -> tuple[TaskSpecEntry, ...]:
    """Return revisions that were sent ahead.

    Raises:
        InvalidRequest: They are malformed.
    """
    return tuple(from_proto(entry, TaskSpecEntry, name="specs") for entry in message.specs)


def merged(old: NodeConfig | None, new: NodeConfig) -> NodeConfig:
    """Return the newer configuration; gossip's seeds, which matter to who joins, stay if unsaid."""
    if old is None or new.gossip_seeds:
        return new
    return replace(new, gossip_seeds=old.gossip_seeds)
