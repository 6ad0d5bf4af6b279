"""What does the name server have to know, and what has it done? Values of both processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dray.addresses import HostPort
from node.dns.limits import BURST, RATE_PER_S
from node.dns.zone import ZoneConfig

__all__ = ["DEADLINE_S", "SOCKETS_PER_ADDRESS", "ServerConfig", "ServerCounts"]

SOCKETS_PER_ADDRESS: Final = 16
DEADLINE_S: Final = 4.0  # for all servers together; clients ask again meanwhile and join the wait


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What the name server has to know.

    Attributes:
        zone: What the zone has to know.
        listen: Addresses to listen on, UDP and TCP: the node's own on its bridge.
        client_ranges: The node's own subnets, CIDR: who else may ask but the machine itself.
        sockets_per_address: UDP sockets that clients are spread over.
        upstream_deadline_s: How long a question upstream may wait, over all servers.
        rates: How many queries that no ready answer fits a client may make: a second, and at once.
    """

    zone: ZoneConfig
    listen: tuple[HostPort, ...]
    client_ranges: tuple[str, ...] = ()
    sockets_per_address: int = SOCKETS_PER_ADDRESS
    upstream_deadline_s: float = DEADLINE_S
    rates: tuple[float, float] = (RATE_PER_S, BURST)


@dataclass(slots=True)
class ServerCounts:
    """What the server has done since its start.

    Attributes:
        received: Datagrams and TCP queries.
        ready: Answered from the cache of ready answers.
        resolved: Answered by the zone, or refused.
        forwarded: Handed to the upstream servers, those that were known included.
        limited: Dropped since the client asked too many odd things.
        malformed: No queries.
        strangers: From outside of the node.
        unsent: Answers that the kernel did not take.
    """

    received: int = 0
    ready: int = 0
    resolved: int = 0
    forwarded: int = 0
    limited: int = 0
    malformed: int = 0
    strangers: int = 0
    unsent: int = 0
