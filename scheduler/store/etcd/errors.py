"""What does a failed call to etcd prove: not carried out, lost, or refused? Pure.

etcd sends its own errors as gRPC statuses whose text is part of its API. The text is looked at
where the code alone does not say whether a request was carried out; a text that is not known counts
as the less certain case.
"""

from __future__ import annotations

import enum
from typing import Final

import grpc

from dray.errors import (
    DrayError,
    FailedPrecondition,
    InvalidRequest,
    PeerMisbehaved,
    PermissionDenied,
    ResourceExhausted,
)
from scheduler.store.base import Compacted, LeaseLost

__all__ = ["Verdict", "refusal", "verdict"]


class Verdict(enum.Enum):
    """What is known of a request whose call failed."""

    NOT_DONE = 1  # it never left, or was turned away unread: it may be sent again, anywhere
    LOST = 2  # the connection or the time ran out: it may have been carried out
    REFUSED = 3  # the server's last word


_NOT_DONE_TEXTS: Final = (
    "failed to connect to all addresses",  # gRPC: no connection to send it on
    "etcdserver: no leader",  # turned away at the door (metadata "hasleader")
    "raft proposal dropped",  # no leader at the moment of proposing
    "etcdserver: too many requests",  # turned away at the door
)
_LOST_CODES: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,  # gRPC ends streams of a lost connection with this, too
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DATA_LOSS,
    }
)
_NO_SPACE: Final = "database space exceeded"
_NO_SPACE_HINT: Final = (
    "compact, then run `etcdctl defrag` on every member and `etcdctl alarm disarm`"
)


def verdict(code: grpc.StatusCode, details: str) -> Verdict:
    """Return what a failed call proves about its request."""
    if any(text in details for text in _NOT_DONE_TEXTS):
        return Verdict.NOT_DONE
    return Verdict.LOST if code in _LOST_CODES else Verdict.REFUSED


def refusal(code: grpc.StatusCode, details: str) -> DrayError:
    """Return the error for a refused request; nothing was changed by it."""
    text = f"etcd refused: {details}"
    match code:
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ResourceExhausted(text, hint=_NO_SPACE_HINT if _NO_SPACE in details else "")
        case grpc.StatusCode.OUT_OF_RANGE:
            return Compacted(text, hint="list again, then go on from that revision")
        case grpc.StatusCode.NOT_FOUND if "lease" in details:
            return LeaseLost(text)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDenied(text, hint="check the user and role that etcd was set up with")
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequest(text)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return FailedPrecondition(text)
        case _:
            return PeerMisbehaved(f"{text} ({code.name})")
