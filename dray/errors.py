"""Which failures does dray report, and what does each tell its reader to do?

Three kinds of trouble are kept apart:

1. A *bug* (a broken invariant) is an `assert` or an `InternalError`. Nobody handles it but a
   daemon's supervisor.
2. An *expected outcome* (does not fit, conflicts, was not found in a plan) is a returned value,
   never an exception.
3. The *environment* failed or a request cannot be carried out: a `DrayError`, raised by adapters
   and at the edges.

A message names the object, says what is wrong with it, and ends with the next step (`hint`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "AlreadyExists",
    "AmbiguousWrite",
    "DeadlineExceeded",
    "DrayError",
    "ErrorCode",
    "FailedPrecondition",
    "InternalError",
    "InvalidRequest",
    "NotFound",
    "NotLeader",
    "PeerMisbehaved",
    "PermissionDenied",
    "ResourceExhausted",
    "RevisionConflict",
    "Unavailable",
    "Unimplemented",
]


class ErrorCode(enum.Enum):
    """Kind of a failure; the value is the gRPC status code that carries it (1:1, both ways)."""

    CANCELLED = 1
    INTERNAL = 13
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class DrayError(Exception):
    """A failure that a caller can read, sort and act on.

    Attributes:
        message: What is wrong, naming the object.
        code: The kind of failure.
        retryable: Whether the same call may succeed later without anybody changing anything.
        hint: The next step, or an empty string.
        context: Further facts by name (`node_id`, `field`, `revision` …), all text.
    """

    code: ErrorCode = ErrorCode.INTERNAL
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        retryable: bool | None = None,
        hint: str = "",
        context: Mapping[str, str] | None = None,
    ) -> None:
        """Make an error; `code` and `retryable` default to those of the class."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context: Mapping[str, str] = MappingProxyType(dict(context or {}))
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        """Return the message and, after it, the hint."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __repr__(self) -> str:
        """Return the class, the code and the message, for logs and test failures."""
        return f"{type(self).__name__}({self.code.name}, {self.message!r})"


class InvalidRequest(DrayError):
    """What was asked is malformed or contradicts itself.

    Nothing was changed; a retry fails again.
    """

    code = ErrorCode.INVALID_ARGUMENT


class NotFound(DrayError):
    """The named object does not exist. Nothing was changed."""

    code = ErrorCode.NOT_FOUND


class AlreadyExists(DrayError):
    """The name, subnet or address is taken by another object. Nothing was changed."""

    code = ErrorCode.ALREADY_EXISTS


class FailedPrecondition(DrayError):
    """The cluster is not in a state that allows this.

    Nothing was changed; the hint says what to do first.
    """

    code = ErrorCode.FAILED_PRECONDITION


class RevisionConflict(DrayError):
    """The object changed since the caller read it (`if_revision`).

    Nothing was changed; read again, decide again.
    """

    code = ErrorCode.ABORTED


class NotLeader(DrayError):
    """Only the leader can answer this. `context["leader"]` holds its address when it is known."""

    code = ErrorCode.FAILED_PRECONDITION
    retryable = True


class PermissionDenied(DrayError):
    """The caller is known and may not do this. Nothing was changed."""

    code = ErrorCode.PERMISSION_DENIED


class ResourceExhausted(DrayError):
    """A limit was reached. The message names the limit, its unit and its value.

    Nothing was changed.
    """

    code = ErrorCode.RESOURCE_EXHAUSTED


class Unavailable(DrayError):
    """A peer could not be reached, and the request was provably not carried out.

    A retry may succeed.
    """

    code = ErrorCode.UNAVAILABLE
    retryable = True


class DeadlineExceeded(DrayError):
    """No answer came in time. Reads: nothing happened. Writes raise `AmbiguousWrite` instead."""

    code = ErrorCode.DEADLINE_EXCEEDED
    retryable = True


class AmbiguousWrite(DrayError):
    """A write was sent and its answer was lost: it may or may not have been applied.

    Never retried blindly: the caller reads first, or repeats a write that is idempotent through its
    compares.
    """

    code = ErrorCode.DATA_LOSS


class PeerMisbehaved(DrayError):
    """A peer sent something that the protocol does not allow. The connection to it is given up."""

    code = ErrorCode.DATA_LOSS


class Unimplemented(DrayError):
    """This version of dray knows the request and cannot carry it out. Nothing was changed."""

    code = ErrorCode.UNIMPLEMENTED


class InternalError(DrayError):
    """A bug in dray: an invariant does not hold.

    The supervisor logs it and restarts the loop from a fresh snapshot.
    """

    code = ErrorCode.INTERNAL
