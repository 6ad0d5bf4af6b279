"""Does every way in which a call can fail become an error that says what to do?"""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from dray.addresses import HostPort
from dray.client.channels import ClientLimits, dray_error
from dray.convert import ERROR_DETAIL_KEY, error_to_proto
from dray.errors import (
    DeadlineExceeded,
    DrayError,
    ErrorCode,
    InternalError,
    RevisionConflict,
    Unavailable,
)

HOST = HostPort("10.0.0.1", 7400)


def failure(code: grpc.StatusCode, text: str, detail: bytes | None = None) -> AioRpcError:
    """Return how gRPC tells of a failed call."""
    pairs = () if detail is None else ((ERROR_DETAIL_KEY, detail),)
    return AioRpcError(code, Metadata(), Metadata(*pairs), text)


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded, True),
        (grpc.StatusCode.UNKNOWN, InternalError, False),
        (grpc.StatusCode.UNIMPLEMENTED, DrayError, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, DrayError, False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_grpc_itself_says_names_the_scheduler(
    code: grpc.StatusCode, kind: type[DrayError], retryable: bool
) -> None:
    """Failures without a detail are of the right kind; those of one scheduler name it."""
    error = dray_error(failure(code, "went wrong"), HOST)
    assert isinstance(error, kind)
    assert error.retryable is retryable
    if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        assert str(HOST) in error.message


def test_what_a_scheduler_says_is_told_as_it_is() -> None:
    """A refusal with a detail is the error that the scheduler raised, with all it knows."""
    meant = RevisionConflict("it has changed", hint="read it again", context={"revision": "7"})
    detail = error_to_proto(meant).SerializeToString()
    error = dray_error(failure(grpc.StatusCode.ABORTED, "it has changed", detail), HOST)
    assert isinstance(error, RevisionConflict)
    assert (error.code, error.hint, error.context["revision"]) == (
        ErrorCode.ABORTED,
        "read it again",
        "7",
    )


def test_limits_fit_into_one_another() -> None:
    """An attempt that may take longer than its call is a bug of whoever wrote it down."""
    with pytest.raises(AssertionError):
        ClientLimits(call_s=1.0, attempt_s=2.0)
