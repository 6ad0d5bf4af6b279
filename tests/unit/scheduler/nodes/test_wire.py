"""Is what nodes send read as it was meant, and refused in words when it is junk?"""

from __future__ import annotations

from typing import Any

import pytest

from dray.api.v1 import node_pb2, state_pb2
from dray.convert import from_proto
from dray.errors import InvalidRequest
from dray.model import NodeRecord, StoreRevision
from dray.names import id_bytes
from dray.views import Orphan
from scheduler.nodes import messages as m
from scheduler.nodes.wire import message_from_proto, message_to_proto
from tests.builders import CLUSTER_ID, EPOCH, a_node, node_id, task_id

TASK = id_bytes(task_id(1))


def read(**message: Any) -> m.Up | None:
    """Return a message of a node as it is read."""
    return message_from_proto(node_pb2.SessionRequest(**message))


def test_every_kind_of_message_is_read() -> None:
    """Nothing that the contract lets a node say is dropped."""
    oneof = node_pb2.SessionRequest.DESCRIPTOR.oneofs_by_name["message"]
    samples: dict[str, Any] = {
        "hello": None,  # tests/integration/test_node_streams.py
        "attempts": node_pb2.AttemptReports(is_complete=True, forgotten_tasks=[TASK]),
        "usage": node_pb2.UsageReport(is_complete=True),
        "faults": node_pb2.FaultReport(),
        "evidence": node_pb2.EvidenceReport(is_complete=True),
        "pong": node_pb2.Pong(sequence=4),
        "goodbye": node_pb2.Goodbye(kind=2, drain_timeout_s=5),  # type: ignore[arg-type]
        "assignment_result": node_pb2.AssignmentResult(
            epoch=state_pb2.Epoch(generation=1, create_revision=1), mod_revision=9, reason="no"
        ),
        "orphans": node_pb2.OrphanReport(orphans=[node_pb2.Orphan(task_id=TASK)]),
        "volumes": node_pb2.VolumeReport(
            volumes=[node_pb2.NodeVolume(project="shop", key="data", name="shop_data")], gone=["x"]
        ),
    }
    assert set(samples) == {field.name for field in oneof.fields}
    said = {kind: read(**{kind: value}) for kind, value in samples.items() if value is not None}
    assert said == {
        "attempts": m.AttemptReports(True, (), (task_id(1),)),
        "usage": m.UsageReport(True),
        "faults": m.FaultReport(),
        "evidence": m.EvidenceReport(True),
        "pong": m.Pong(4),
        "goodbye": m.Goodbye(m.GoodbyeKind.SHUTDOWN, 5.0),
        "assignment_result": m.AssignmentResult(EPOCH, StoreRevision(9), False, "no"),
        "orphans": m.OrphanReport((Orphan(task_id(1)),)),
        "volumes": m.VolumeReport(False, (m.NodeVolume("shop", "data", "shop_data"),), ("x",)),
    }


def test_a_message_of_a_newer_node_is_skipped() -> None:
    """None: whoever reads it goes on."""
    assert read() is None


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"attempts": node_pb2.AttemptReports(forgotten_tasks=[b"short"])}, "an id has 16 bytes"),
        (
            {"attempts": node_pb2.AttemptReports(forgotten_tasks=[TASK] * 10_001)},
            "attempts.forgotten_tasks: has 10001 items",
        ),
        (
            {"evidence": node_pb2.EvidenceReport(evidence=[state_pb2.WitnessEvidence()])},
            r"evidence\[0\]",
        ),
        ({"goodbye": node_pb2.Goodbye()}, "goodbye.kind"),
        ({"hello": node_pb2.Hello()}, "hello.node"),
    ],
)
def test_junk_is_refused_with_its_place(message: dict[str, Any], named: str) -> None:
    """The path of the field is in the message."""
    with pytest.raises(InvalidRequest, match=named):
        read(**message)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (m.NotLeader(), "not_leader"),
        (m.Refused(m.RefusedReason.CLONE, "why", 3.0), "refused"),
        (m.SpecPush(()), "specs"),
        (m.Ping(7), "ping"),
        (m.NodeConfig(a_node(), removed_nodes=(node_id(9),)), "config"),
        (m.OpenRelay(b"r" * 16, node_pb2.OpenRelay()), "open_relay"),
        (m.Resync("why"), "resync"),
        (m.RemoveOrphans((task_id(1),)), "remove_orphans"),
        (m.RemoveVolumes("shop", ("shop_data",)), "remove_volumes"),
    ],
)
def test_what_is_sent_is_of_its_kind(message: m.Down, kind: str) -> None:
    """Cluster id and epoch are on every message; those of nobody's term have no epoch."""
    epoch = None if kind in ("not_leader", "refused") else EPOCH
    sent = message_to_proto(message, CLUSTER_ID, epoch)
    assert sent.WhichOneof("message") == kind
    assert sent.cluster_id == id_bytes(CLUSTER_ID)
    assert sent.HasField("epoch") is (epoch is not None)


def test_what_a_node_should_know_is_sent_whole() -> None:
    """The entry of the registry arrives as it is."""
    sent = message_to_proto(m.NodeConfig(a_node()), CLUSTER_ID, EPOCH)
    assert from_proto(sent.config.record, NodeRecord) == a_node()
