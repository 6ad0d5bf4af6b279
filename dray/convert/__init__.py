"""Model to protobuf and back: the only package that knows both.

    message = to_proto(spec, spec_pb2.ServiceSpec)
    spec = from_proto(message, ServiceSpec)

Total: every field of every message in `spec.proto` and `state.proto` has a field of the same name
in `dray.model`, and the other way round; a test walks both. What a peer sent is not trusted:
malformed input raises `InvalidRequest` with the path of the field, and nothing else.
"""

from dray.convert.codec import (
    CONVERTED,
    from_bytes,
    from_proto,
    parse,
    refuse_unknown_fields,
    register,
    to_bytes,
    to_proto,
)
from dray.convert.errors import (
    ERROR_DETAIL_BYTES_MAX,
    ERROR_DETAIL_KEY,
    error_from_proto,
    error_to_proto,
)
from dray.convert.wire import (
    CHUNK_BYTES_MAX,
    CONTENT_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PAGE_ITEMS_MAX,
    SERVICE_SPEC_BYTES_MAX,
    WIRE_MINOR,
)

__all__ = [
    "CHUNK_BYTES_MAX",
    "CONTENT_BYTES_MAX",
    "CONVERTED",
    "ERROR_DETAIL_BYTES_MAX",
    "ERROR_DETAIL_KEY",
    "MESSAGE_BYTES_MAX",
    "PAGE_ITEMS_MAX",
    "SERVICE_SPEC_BYTES_MAX",
    "WIRE_MINOR",
    "error_from_proto",
    "error_to_proto",
    "from_bytes",
    "from_proto",
    "parse",
    "refuse_unknown_fields",
    "register",
    "to_bytes",
    "to_proto",
]
