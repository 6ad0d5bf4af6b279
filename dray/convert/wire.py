"""Which numbers does the wire contract fix? The table of proto/README.md, in code.

Sender and receiver both keep them: a sender never makes what is larger, a receiver refuses it.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CHUNK_BYTES_MAX",
    "CONTENT_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "PAGE_ITEMS_MAX",
    "SERVICE_SPEC_BYTES_MAX",
    "WIRE_MINOR",
]

WIRE_MINOR: Final = 1  # raised with every addition that a peer may want to know of before using it
MESSAGE_BYTES_MAX: Final = 4_194_304  # gRPC's own default of what a receiver takes
PAGE_ITEMS_MAX: Final = 1_000  # items of one page: about 1 MiB of tasks, well below a message
CHUNK_BYTES_MAX: Final = 65_536  # a piece of output, log line or archive: flow control stays fine
CONTENT_BYTES_MAX: Final = 500_000  # a config or secret, as Docker limits them
SERVICE_SPEC_BYTES_MAX: Final = 262_144  # a service: 15 of the largest share one message
