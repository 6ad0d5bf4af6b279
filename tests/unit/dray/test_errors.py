"""Does every failure carry what its reader needs: code, retry advice, hint and facts?"""

from __future__ import annotations

import grpc
import pytest

from dray import errors
from dray.errors import DrayError, ErrorCode, InvalidRequest, NotLeader, Unavailable

_CLASSES = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, DrayError)
]


def test_codes_are_those_of_grpc() -> None:
    """Each code has the name and number of a gRPC status, so that it survives the wire."""
    statuses = {status.name: status.value[0] for status in grpc.StatusCode}
    assert {code.name: code.value for code in ErrorCode}.items() <= statuses.items()


@pytest.mark.parametrize("kind", _CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_says_when_it_happens(kind: type[DrayError]) -> None:
    """Each class is public, documented, and has a code of its own."""
    assert kind.__name__ in errors.__all__
    assert kind.__doc__
    assert isinstance(kind.code, ErrorCode)
    assert kind("x").code is kind.code


def test_only_what_may_heal_by_itself_is_retryable() -> None:
    """Exactly the failures that pass without anybody acting invite a retry."""
    retryable = {kind.__name__ for kind in _CLASSES if kind.retryable}
    assert retryable == {"NotLeader", "Unavailable", "DeadlineExceeded"}


def test_the_text_ends_with_the_next_step() -> None:
    """The hint follows the message; without one there are no brackets."""
    assert str(InvalidRequest("web has no image", hint="name one")) == "web has no image (name one)"
    assert str(InvalidRequest("web has no image")) == "web has no image"
    assert repr(InvalidRequest("no")) == "InvalidRequest(INVALID_ARGUMENT, 'no')"


def test_one_error_can_differ_from_its_class() -> None:
    """Code and retry advice of one error do not leak into its class."""
    error = Unavailable("x", code=ErrorCode.ABORTED, retryable=False)
    assert (error.code, error.retryable) == (ErrorCode.ABORTED, False)
    assert (Unavailable.code, Unavailable.retryable) == (ErrorCode.UNAVAILABLE, True)


def test_context_is_a_copy_that_nobody_changes() -> None:
    """The facts are those at the raise, whatever the caller does to its dict later."""
    facts = {"leader": "10.0.0.1:7400"}
    error = NotLeader("not the leader", context=facts)
    facts["leader"] = "other"
    assert error.context["leader"] == "10.0.0.1:7400"
    with pytest.raises(TypeError):
        error.context["leader"] = "other"  # type: ignore[index]
