"""Which address does a task get, and when may an address be used again?

A node gives out addresses of its own subnet alone, so no two nodes can collide. The first one is
the gateway's. An address that was given back rests for a while before another task may have it:
somebody may still hold on to an old answer, and must not reach a stranger. When nothing else is
left the rest is cut short, to `REST_MIN_S` at least.

`Pool` is a value; each call returns the next one.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, TypeAlias

from dray.errors import InvalidRequest
from dray.names import TaskId

__all__ = [
    "REST_MIN_S",
    "REST_S",
    "Allocated",
    "NoAddress",
    "Pool",
    "adopt",
    "allocate",
    "empty_pool",
    "gateway",
    "release",
]

REST_S: Final = 120.0  # what a resolver or a connection pool may hold on to an old address
REST_MIN_S: Final = 5.0  # facts and answers of dray's own are gone after two
PREFIX_LENGTH_MIN: Final = 16  # of a node's subnet; 65,533 addresses
PREFIX_LENGTH_MAX: Final = 29  # five addresses
SEARCHED_MAX: Final = 2**16  # addresses; of a longer IPv6 subnet only the first ones are used

_Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"


@dataclass(frozen=True, slots=True)
class Pool:
    """Who holds which address of one subnet.

    Attributes:
        subnet: The node's share of the cluster's range, CIDR.
        held: Address of each task.
        resting: When each address that rests was given back, Unix seconds.
        last: The address given out last; the search goes on behind it. Empty: none yet.
    """

    subnet: str
    held: Mapping[TaskId, str] = field(default_factory=lambda: MappingProxyType({}))
    resting: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    last: str = ""


@dataclass(frozen=True, slots=True)
class Allocated:
    """A task has an address; `pool` is the state from now on."""

    pool: Pool
    address: str


@dataclass(frozen=True, slots=True)
class NoAddress:
    """There is none for the task; nothing was changed.

    Attributes:
        message: Why, and what to do.
        retryable: Whether the same call may succeed later by itself.
        retry_after_s: When an address will have rested; 0: not known.
    """

    message: str
    retryable: bool
    retry_after_s: float = 0.0


def empty_pool(subnet: str) -> Pool:
    """Return a pool of which nothing is given out.

    Raises:
        InvalidRequest: The subnet is malformed, or too small or too large to give out addresses of.
    """
    network = _network(subnet)
    if not PREFIX_LENGTH_MIN <= network.prefixlen <= PREFIX_LENGTH_MAX and network.version == 4:
        raise InvalidRequest(
            f"a node's subnet has a prefix of {PREFIX_LENGTH_MIN} to {PREFIX_LENGTH_MAX} bits, "
            f"{subnet} has {network.prefixlen}"
        )
    return Pool(str(network))


@functools.lru_cache(maxsize=4_096)  # asked for every peer, whenever any of them changes
def gateway(subnet: str) -> str:
    """Return the address of the node itself in its subnet: the first one."""
    return str(_network(subnet)[1])


def allocate(pool: Pool, task_id: TaskId, now_unix_s: float) -> Allocated | NoAddress:
    """Return an address for a task; one that it holds already stays its own.

    Args:
        pool: The state.
        task_id: The task.
        now_unix_s: Wall clock.
    """
    if held := pool.held.get(task_id):
        return Allocated(pool, held)
    found = _next_free(pool, now_unix_s) or _longest_rested(pool, now_unix_s)
    if found is not None:
        return _taken(pool, task_id, found)
    oldest_s = min(pool.resting.values(), default=None)
    if oldest_s is None:
        return NoAddress(
            f"all addresses of {pool.subnet} are taken: the node has as many tasks as it can hold",
            True,
        )
    wait_s = max(0.0, oldest_s + REST_MIN_S - now_unix_s)
    return NoAddress(
        f"all addresses of {pool.subnet} are taken or were until a moment ago: "
        f"the next one is free in {wait_s:.0f} s",
        True,
        wait_s,
    )


def adopt(pool: Pool, task_id: TaskId, address: str) -> Pool:
    """Return the pool in which a running container's task holds the address that it has.

    What the engine says wins over what was remembered: another task loses the address. The pool
    itself, if it says so already: a daemon that starts asks this of every container.
    """
    if not _is_given_out(pool, address) or pool.held.get(task_id) == address:
        return pool
    held = {task: other for task, other in pool.held.items() if other != address}
    held[task_id] = address
    return replace(pool, held=held, resting=_without(pool.resting, address))


def release(pool: Pool, task_id: TaskId, now_unix_s: float) -> Pool:
    """Return the pool in which a task's address rests; a task that holds none is fine."""
    address = pool.held.get(task_id)
    if address is None:
        return pool
    held = {task: other for task, other in pool.held.items() if task != task_id}
    resting = {**pool.resting, address: now_unix_s}
    return replace(pool, held=held, resting=resting)


def _taken(pool: Pool, task_id: TaskId, address: str) -> Allocated:
    held = {**pool.held, task_id: address}
    resting = _without(pool.resting, address)
    return Allocated(replace(pool, held=held, resting=resting, last=address), address)


def _next_free(pool: Pool, now_unix_s: float) -> str | None:
    """Return the first address behind the last one that nobody holds and that has rested."""
    network = _network(pool.subnet)
    base = int(network.network_address)
    tired = (address for address, at_s in pool.resting.items() if now_unix_s < at_s + REST_S)
    taken = {int(ipaddress.ip_address(text)) - base for text in (*pool.held.values(), *tired)}
    # Neither the network's own address, the gateway's nor the broadcast address.
    count = min(network.num_addresses, SEARCHED_MAX) - 3
    start = int(ipaddress.ip_address(pool.last)) - base - 1 if pool.last else 0
    for step in range(count):
        offset = 2 + (start + step) % count
        if offset not in taken:
            return str(network[offset])
    return None


def _longest_rested(pool: Pool, now_unix_s: float) -> str | None:
    ready = [
        (since_s, address)
        for address, since_s in pool.resting.items()
        if since_s + REST_MIN_S <= now_unix_s
    ]
    return min(ready)[1] if ready else None


def _is_given_out(pool: Pool, address: str) -> bool:
    """Return whether an address belongs to the subnet and is not the node's or a reserved one."""
    network = _network(pool.subnet)
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    reserved = {network[0], network[1], network[-1]}
    return number in network and number not in reserved


def _without(resting: Mapping[str, float], address: str) -> Mapping[str, float]:
    return {other: since_s for other, since_s in resting.items() if other != address}


def _network(subnet: str) -> _Network:
    try:
        return ipaddress.ip_network(subnet)
    except ValueError as error:
        raise InvalidRequest(f"{subnet!r} is not a subnet: {error}") from error
