"""Do the values that a cluster answers with agree with the contract, field by field?"""

from __future__ import annotations

import dataclasses
import enum

import pytest

from dray import views
from dray.addresses import HostPort
from dray.api.v1 import cluster_pb2, node_pb2
from dray.convert import codec, from_proto, parse, to_proto
from dray.errors import InvalidRequest
from dray.model import Epoch, MemberState, SlotKey
from dray.names import NodeId, SchedulerId, TaskId
from tests.builders import an_id

CLASSES = {name: getattr(views, name) for name in views.__all__}
DATACLASSES = {
    name: cls for name, cls in CLASSES.items() if isinstance(cls, type) and issubclass(cls, object)
}
VALUES = {name: cls for name, cls in DATACLASSES.items() if dataclasses.is_dataclass(cls)}
SLOT = SlotKey("shop", "web", 1)


def test_every_reply_of_the_contract_has_a_class() -> None:
    """No reply of the users' API is left out, but streams whose parts are values by themselves."""
    replies = {
        method.output_type.name
        for method in cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"].methods
    }
    # A header and a part: the client hands on the part.
    parts = {"ExecResponse", "CopyFromTaskResponse"}
    assert replies - parts <= set(VALUES)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_every_field_is_on_both_sides(name: str) -> None:
    """Fields have the same names in the same order, and types that hold the same values."""
    built = codec._build(VALUES[name])
    assert [row.name for row in built.rows] == [f.name for f in codec.VIEWED[name].fields]


def test_every_enumeration_is_a_plain_one() -> None:
    """Enumerations keep the contract's numbers, which the codec checks, and leave out zero."""
    enums = [cls for cls in DATACLASSES.values() if issubclass(cls, enum.Enum)]
    assert enums
    assert all(member.value for cls in enums for member in cls)


def test_ids_that_may_be_absent_are_none() -> None:
    """An empty id or enumeration of a view is None, and a set one comes back as it was."""
    task = views.Task(SLOT, views.SlotState.PENDING)
    message = to_proto(task, cluster_pb2.Task)
    assert message.task_id == b""
    assert from_proto(parse(message.SerializeToString(), cluster_pb2.Task), views.Task) == task
    leader = views.LeaderStatus(
        SchedulerId(an_id(1)), Epoch(1, 7), HostPort("10.0.0.1", 7400), NodeId(an_id(2)), 3.5
    )
    sent = to_proto(leader, cluster_pb2.LeaderStatus)
    assert from_proto(sent, views.LeaderStatus) == leader
    member = views.GossipMember(NodeId(an_id(3)), state=MemberState.DEAD)
    assert from_proto(to_proto(member, node_pb2.Member), views.GossipMember) == member


def test_a_malformed_reply_is_refused_with_its_path() -> None:
    """What a scheduler sent is not trusted: an id of the wrong length names its place."""
    message = cluster_pb2.ListTasksResponse()
    message.tasks.add(state=cluster_pb2.SLOT_STATE_RUNNING, task_id=b"short").slot.CopyFrom(
        to_proto(views.Task(SLOT, views.SlotState.RUNNING, TaskId(an_id(1))), cluster_pb2.Task).slot
    )
    with pytest.raises(InvalidRequest, match=r"tasks\[0\]\.task_id"):
        from_proto(message, views.ListTasksResponse)
