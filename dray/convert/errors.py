"""How does a `DrayError` travel in a refused call, and become the same error at the other end?

The gRPC status carries code and message; an `ErrorDetail` in the trailing metadata carries the
rest. A peer that sends no detail, or a newer one, still gives a `DrayError` of the right code.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from dray import errors
from dray.api.v1 import types_pb2
from dray.errors import DrayError, ErrorCode

__all__ = [
    "ERROR_DETAIL_BYTES_MAX",
    "ERROR_DETAIL_KEY",
    "error_from_proto",
    "error_to_proto",
]

ERROR_DETAIL_KEY: Final = "dray-error-bin"  # gRPC sends keys that end in -bin as bytes
ERROR_DETAIL_BYTES_MAX: Final = 4_096  # gRPC refuses more than 8 KiB of metadata in all
_MESSAGE_LENGTH_MAX: Final = 500  # characters, at most 4 bytes each
_HINT_LENGTH_MAX: Final = 250
_CLASSES: Final[dict[str, type[DrayError]]] = {
    name: cls
    for name, cls in vars(errors).items()
    if isinstance(cls, type) and issubclass(cls, DrayError)
}


def error_to_proto(error: DrayError) -> types_pb2.ErrorDetail:
    """Return the detail of an error, at most `ERROR_DETAIL_BYTES_MAX` when serialised.

    Long texts are cut, and the context ends where it would not fit any more.
    """
    name = next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _CLASSES)
    detail = types_pb2.ErrorDetail(
        name=name,
        message=_text(error.message, _MESSAGE_LENGTH_MAX),
        hint=_text(error.hint, _HINT_LENGTH_MAX),
        retryable=error.retryable,
    )
    for key, value in error.context.items():
        pair = detail.context.add()
        pair.key, pair.value = _text(key, _HINT_LENGTH_MAX), _text(value, _MESSAGE_LENGTH_MAX)
        if detail.ByteSize() > ERROR_DETAIL_BYTES_MAX:
            del detail.context[-1]
            break
    return detail


def error_from_proto(code: int, message: str, detail: bytes | None) -> DrayError:
    """Return the error that a peer reported. Never raises: junk gives a plain `DrayError`.

    Args:
        code: The call's gRPC status code.
        message: The call's status message.
        detail: The serialised `ErrorDetail` from the trailing metadata, or None.
    """
    error_code = ErrorCode(code) if code in _KNOWN_CODES else ErrorCode.INTERNAL
    parsed = types_pb2.ErrorDetail()
    if detail is not None and len(detail) <= ERROR_DETAIL_BYTES_MAX:
        try:
            parsed.ParseFromString(detail)
        except DecodeError:
            parsed.Clear()
    cls = _CLASSES.get(parsed.name, DrayError)
    return cls(
        parsed.message or message,
        code=error_code,
        retryable=parsed.retryable if parsed.name else error_code is ErrorCode.UNAVAILABLE,
        hint=parsed.hint,
        context={pair.key: pair.value for pair in parsed.context},
    )


_KNOWN_CODES: Final = frozenset(code.value for code in ErrorCode)


def _text(text: str, length_max: int) -> str:
    clean = text.encode(errors="replace").decode()
    return clean if len(clean) <= length_max else clean[: length_max - 1] + "…"
