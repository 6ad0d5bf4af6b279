"""Are echoes asked for and recognised as RFC 792 says?"""

from __future__ import annotations

import struct

import pytest

from node.network.echo import echo_request, echoed_by

ADDRESSES = bytes([10, 192, 4, 1, 10, 192, 2, 1])


def packet(icmp: bytes, options: bytes = b"") -> bytes:
    """Return an IPv4 packet from 10.192.4.1."""
    length = 5 + len(options) // 4
    return bytes([0x40 | length]) + bytes(11) + ADDRESSES + options + icmp


@pytest.mark.parametrize(("identifier", "sequence"), [(0, 0), (1, 2), (0xFFFF, 0xFFFF)])
def test_requests_add_up(identifier: int, sequence: int) -> None:
    """The checksum makes the ones' complement sum of the message all ones."""
    total = sum(struct.unpack("!4H", echo_request(identifier, sequence)))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


@pytest.mark.parametrize(
    ("received", "who"),
    [
        (packet(struct.pack("!BBHHH", 0, 0, 0, 7, 1)), "10.192.4.1"),
        (packet(struct.pack("!BBHHH", 0, 0, 0, 7, 1) + b"more", b"\0\0\0\0"), "10.192.4.1"),
        (packet(struct.pack("!BBHHH", 0, 0, 0, 8, 1)), ""),
        (packet(struct.pack("!BBHHH", 8, 0, 0, 7, 1)), ""),
        (packet(b"\0\0\0"), ""),
        (b"", ""),
        (b"\x40" + bytes(40), ""),
    ],
    ids=["reply", "options", "anothers", "request", "short", "empty", "malformed"],
)
def test_who_answered(received: bytes, who: str) -> None:
    """Only replies to our own requests count; anything else that arrives is passed over."""
    assert echoed_by(received, 7) == who
