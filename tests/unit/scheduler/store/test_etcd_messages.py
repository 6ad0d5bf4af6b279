"""Are the port's values put into etcd's messages, and taken out of them, as etcd means them?"""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dray.errors import (
    DrayError,
    FailedPrecondition,
    InvalidRequest,
    PeerMisbehaved,
    PermissionDenied,
    ResourceExhausted,
)
from dray.model import StoreRevision
from scheduler.store.base import (
    Change,
    Compacted,
    Compare,
    CompareField,
    Delete,
    Item,
    LeaseId,
    LeaseLost,
    Put,
    Txn,
)
from scheduler.store.etcd.errors import Verdict, refusal, verdict
from scheduler.store.etcd.messages import (
    change_of,
    item_of,
    member_of,
    prefix_end,
    range_of_prefix,
    txn_request,
    watch_request,
)
from scheduler.store.etcdpb import etcd_pb2 as pb

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"/a/", b"/a0"),
        (b"a\xff", b"b"),
        (b"\xff\xff", b"\0"),
        (b"", b"\0"),
        (b"\0", b"\1"),
    ],
)
def test_prefix_end(prefix: bytes, end: bytes) -> None:
    """The last byte is raised by one; where that cannot be, the range has no end."""
    assert prefix_end(prefix) == end


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_range_holds_exactly_what_starts_with_the_prefix(prefix: bytes, key: bytes) -> None:
    """A key lies in the range if and only if it starts with the prefix."""
    end = prefix_end(prefix)
    is_inside = prefix <= key and (end == b"\0" or key < end)
    assert is_inside == key.startswith(prefix)


def test_range_of_everything_starts_at_the_first_key() -> None:
    """Etcd refuses an empty key: a zero byte stands for the lowest one."""
    assert range_of_prefix("") == (b"\0", b"\0")


def test_transaction_reads_each_compared_key_once() -> None:
    """So that a conflict can show them, sorted."""
    compares = (
        Compare("/b", CompareField.MOD_REVISION, StoreRevision(7)),
        Compare("/a", CompareField.CREATE_REVISION, StoreRevision(0)),
        Compare("/b", CompareField.CREATE_REVISION, StoreRevision(3)),
    )
    request = txn_request(Txn(compares, (Put("/c", b"v", LeaseId(9)), Delete("/d"))))
    assert [(c.key, c.target, c.WhichOneof("target_union")) for c in request.compare] == [
        (b"/b", pb.Compare.TARGET_MOD, "mod_revision"),
        (b"/a", pb.Compare.TARGET_CREATE, "create_revision"),
        (b"/b", pb.Compare.TARGET_CREATE, "create_revision"),
    ]
    assert [c.mod_revision or c.create_revision for c in request.compare] == [7, 0, 3]
    assert [op.request_range.key for op in request.failure] == [b"/a", b"/b"]
    put, delete = request.success
    assert put.request_put == pb.PutRequest(key=b"/c", value=b"v", lease=9)
    assert delete.request_delete_range == pb.DeleteRangeRequest(key=b"/d")


def test_watch_asks_for_fragments_and_progress() -> None:
    """Without the former a large answer is lost, without the latter an idle watch falls behind."""
    create = watch_request("/a/", 7).create_request
    assert (create.key, create.range_end, create.start_revision) == (b"/a/", b"/a0", 7)
    assert create.fragment
    assert create.progress_notify


def test_items_and_changes() -> None:
    """All fields are carried over; a delete has no item; a key that is no text is shown."""
    kv = pb.KeyValue(key=b"/a", value=b"v", create_revision=2, mod_revision=3, lease=4)
    item = Item("/a", b"v", StoreRevision(2), StoreRevision(3), LeaseId(4))
    assert item_of(kv) == item
    assert change_of(pb.Event(kv=kv)) == Change("/a", item)
    gone = pb.Event(kind=pb.Event.KIND_DELETE, kv=pb.KeyValue(key=b"/a", mod_revision=9))
    assert change_of(gone) == Change("/a", None)
    assert item_of(pb.KeyValue(key=b"/\xff")).key == "/\\xff"


def test_member_shows_its_own_alarms_only() -> None:
    """Every server lists the alarms of all."""
    status = pb.StatusResponse(
        header=pb.ResponseHeader(member_id=5, revision=70),
        version="3.4.23",
        leader=5,
        db_size_bytes=100,
        db_size_in_use_bytes=60,
        errors=["etcdserver: no leader", "memberID:5 alarm:NOSPACE ", "memberID:55 alarm:CORRUPT "],
    )
    member = member_of("10.0.0.1:2379", status)
    assert member.alarms == ("NOSPACE",)
    assert member.is_leader
    assert (member.size_bytes, member.size_in_use_bytes) == (100, 60)


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (Code.UNAVAILABLE, "failed to connect to all addresses; last error: x", Verdict.NOT_DONE),
        (Code.UNAVAILABLE, "etcdserver: no leader", Verdict.NOT_DONE),
        (Code.UNKNOWN, "raft proposal dropped", Verdict.NOT_DONE),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Verdict.NOT_DONE),
        (Code.UNAVAILABLE, "Socket closed", Verdict.LOST),
        (Code.UNAVAILABLE, "etcdserver: request timed out", Verdict.LOST),
        (Code.UNAVAILABLE, "etcdserver: leader changed", Verdict.LOST),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", Verdict.LOST),
        (Code.INTERNAL, "Received RST_STREAM with error code 2", Verdict.LOST),
        (Code.UNKNOWN, "anything", Verdict.LOST),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Verdict.REFUSED),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", Verdict.REFUSED),
    ],
)
def test_what_a_failure_proves(code: grpc.StatusCode, details: str, expected: Verdict) -> None:
    """Only what was turned away before it was proposed counts as not done."""
    assert verdict(code, details) is expected


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", ResourceExhausted),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Compacted),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", LeaseLost),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", PermissionDenied),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", PermissionDenied),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", InvalidRequest),
        (Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", FailedPrecondition),
        (Code.UNIMPLEMENTED, "unknown method", PeerMisbehaved),
    ],
)
def test_refusals_are_errors_of_ours(
    code: grpc.StatusCode, details: str, kind: type[DrayError]
) -> None:
    """Each keeps the server's words."""
    error = refusal(code, details)
    assert type(error) is kind
    assert details in error.message


def test_full_store_names_the_way_out() -> None:
    """The hint says the three steps."""
    hint = refusal(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded").hint
    assert "compact" in hint
    assert "defrag" in hint
    assert "disarm" in hint
