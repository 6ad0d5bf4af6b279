"""Is the leader's process dead? A follower's own proof, long before the lease runs out.

A follower keeps a TCP connection to the leader's address. When a process dies, its kernel ends the
connection at once; when the address then refuses new ones, twice, nothing listens there any more.
Silence proves nothing (the network may be cut): then the lease's end is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from dray.addresses import HostPort, parse_host_port
from dray.clock import Clock
from dray.errors import InvalidRequest
from dray.model import StoreRevision
from dray.names import SchedulerId
from scheduler.store.mirror import Mirror
from scheduler.store.snapshot import Leader, Snapshot

__all__ = ["REFUSED_REASON", "watch_leader"]

REFUSED_REASON: Final = "its address refuses connections"
CONNECT_S: Final = 2.0
REFUSALS_MIN: Final = 2  # a daemon that restarts within this time is a new life and needs no proof
PAUSE_S: Final = 0.1  # between connections
UNPROVED_PAUSE_S: Final = 1.0  # after an attempt that said nothing
_READ_BYTES: Final = 4_096


async def watch_leader(
    mirror: Mirror,
    scheduler_id: SchedulerId,
    prove_death: Callable[[StoreRevision, str], None],
    clock: Clock,
) -> None:
    """Watch whoever leads until cancelled.

    Args:
        mirror: Shows who leads.
        scheduler_id: This scheduler: it does not watch itself.
        prove_death: Told of a leader that is dead.
        clock: Waits.
    """
    snapshot = await mirror.wait_changed(StoreRevision(-1))
    while True:
        leader = snapshot.leader
        if leader is not None and leader.record.scheduler_id != scheduler_id:
            probing = asyncio.create_task(
                _probe(leader, prove_death, clock), name="watch the leader"
            )
            try:
                snapshot = await _other_leader(mirror, leader, snapshot.revision)
            finally:
                probing.cancel()
                await asyncio.wait({probing})
        else:
            snapshot = await mirror.wait_changed(snapshot.revision)


async def _other_leader(mirror: Mirror, leader: Leader, revision: StoreRevision) -> Snapshot:
    """Wait until the mirror does not show this leader any more."""
    while True:
        snapshot = await mirror.wait_changed(revision)
        if snapshot.leader is None or snapshot.leader.create_revision != leader.create_revision:
            return snapshot
        revision = snapshot.revision


async def _probe(
    leader: Leader, prove_death: Callable[[StoreRevision, str], None], clock: Clock
) -> None:
    """Tell, again and again, when a leader is dead."""
    while True:
        if await _is_dead(leader.record.address, clock):
            prove_death(leader.create_revision, REFUSED_REASON)
            await clock.sleep(UNPROVED_PAUSE_S)


async def _is_dead(address: str, clock: Clock) -> bool:
    """Stay connected while that works; return whether the address then refuses connections."""
    try:
        where = parse_host_port(address)
    except InvalidRequest:
        await clock.sleep(UNPROVED_PAUSE_S)
        return False
    refusals = 0
    while refusals < REFUSALS_MIN:
        try:
            await _stay_connected(where)
        except ConnectionRefusedError:
            refusals += 1
        except (OSError, TimeoutError):
            await clock.sleep(UNPROVED_PAUSE_S)
            return False
        else:
            refusals = 0
            await clock.sleep(PAUSE_S)
            return False
        await clock.sleep(PAUSE_S)
    return True


async def _stay_connected(where: HostPort) -> None:
    """Connect, and return when the other side has ended the connection."""
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        with contextlib.suppress(ConnectionError):
            while await reader.read(_READ_BYTES):
                pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
