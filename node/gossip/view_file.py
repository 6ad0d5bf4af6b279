"""Where were the others when this daemon last ran? A file of addresses to join by after a restart.

It is a hint, not state: a file that is missing, damaged or of another cluster is none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dray.addresses import is_ip
from dray.errors import Unavailable
from dray.names import ClusterId
from node.gossip.core import Address

__all__ = ["ADDRESSES_MAX", "read_addresses", "write_addresses"]

ADDRESSES_MAX: Final = 256  # of those present; any one of them suffices
FILE_BYTES_MAX: Final = 65_536


def read_addresses(path: Path, cluster_id: ClusterId) -> tuple[Address, ...]:
    """Return the addresses that a file holds; none when it is not of this cluster, or unusable."""
    try:
        with path.open("rb") as stream:
            held = json.loads(stream.read(FILE_BYTES_MAX + 1))
        if held["cluster_id"] != cluster_id:
            return ()
        pairs = [(host, port) for host, port in held["members"]]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(
        Address(host, port)
        for host, port in pairs[:ADDRESSES_MAX]
        if isinstance(host, str) and is_ip(host) and type(port) is int and 0 < port < 65_536
    )


def write_addresses(path: Path, cluster_id: ClusterId, addresses: Iterable[Address]) -> None:
    """Replace the file in one step. It is not forced to the disk: losing it costs a slower start.

    Raises:
        Unavailable: It cannot be written. The earlier one stays.
    """
    members = [[address.host, address.port] for address in list(addresses)[:ADDRESSES_MAX]]
    text = json.dumps({"cluster_id": cluster_id, "members": members})
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text(text)
        os.replace(beside, path)
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}") from error
