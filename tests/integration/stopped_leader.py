"""A leader that stops itself between its snapshot and its commit: run as a program by a test.

    python -m tests.integration.stopped_leader ADDRESS:PORT FOLDER TTL_S [--without-fence]

It says "leading", plans a round, and sends itself SIGSTOP when the first assignment is about to be
written. Continued, it commits and says how that ended. Without the fence its transactions compare
everything but the leader key: it shows what the fence is for.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from dray.addresses import HostPort, parse_host_port
from dray.clock import SystemClock
from dray.log import get_logger
from dray.names import RandomIds
from scheduler.election.election import Candidate, Election, LeaderTerm
from scheduler.election.memory import EpochMemory
from scheduler.loops.round import Rounds
from scheduler.metrics import Metrics
from scheduler.nodes.streams import NodeStreams
from scheduler.store.base import Committed, Conflict, Txn
from scheduler.store.etcd import EtcdStore
from scheduler.store.keys import LEADER, Kind, prefix_of
from scheduler.store.mirror import Mirror

CLOCK = SystemClock()
LOG = get_logger("stopped leader")
IDS = RandomIds(secrets.randbits)


class StoppingStore:
    """A store whose first write of an assignment is preceded by a long sleep of the process."""

    def __init__(self, store: EtcdStore, *, has_fence: bool) -> None:
        self._store = store
        self._has_fence = has_fence
        self._is_first = True
        self._commit: asyncio.Task[Committed | Conflict] | None = None

    def __getattr__(self, name: str) -> Any:
        """Do everything else as the store does."""
        return getattr(self._store, name)

    async def commit(self, txn: Txn) -> Committed | Conflict:
        """Stop before the first write of an assignment, and say how it ended."""
        writes = [each.key for each in txn.operations]
        is_assignment = any(key.startswith(prefix_of(Kind.ASSIGNMENT)) for key in writes)
        if not self._is_first or not is_assignment:
            return await self._store.commit(txn)
        self._is_first = False
        if not self._has_fence:
            kept = tuple(each for each in txn.compares if each.key != LEADER)
            txn = replace(txn, compares=kept)
        print("stopping", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        # It is on its way: that the term is found to be over meanwhile does not call it back.
        self._commit = asyncio.create_task(self._finish(txn))
        return await asyncio.shield(self._commit)

    async def _finish(self, txn: Txn) -> Committed | Conflict:
        outcome = await self._store.commit(txn)
        print(f"ended {type(outcome).__name__}", flush=True)
        return outcome


async def main(endpoint: HostPort, folder: Path, ttl_s: int, *, has_fence: bool) -> None:
    """Campaign, lead, stop, and wait to be killed."""
    store = StoppingStore(EtcdStore([endpoint], None), has_fence=has_fence)
    election_store = EtcdStore([endpoint], None)
    memory = EpochMemory.open(folder, IDS)
    mirror = Mirror(store, clock=CLOCK, rng=random.Random(), log=LOG)
    election = Election(
        Candidate(memory.scheduler_id, HostPort("127.0.0.1", 1), "0"),
        store=election_store,
        mirror=mirror,
        memory=memory,
        ttl_s=ttl_s,
        clock=CLOCK,
        log=LOG,
    )

    async def lead(term: LeaderTerm) -> None:
        print("leading", flush=True)
        streams = NodeStreams(
            term.epoch,
            clock=CLOCK,
            log=LOG,
            registered=lambda: frozenset(mirror.snapshot.nodes),
        )
        rounds = Rounds(
            term,
            store=store,
            mirror=mirror,
            streams=streams,
            executor=ThreadPoolExecutor(1),
            ids=IDS,
            leader_name="stopped",
            on_news=lambda _status: None,
            metrics=Metrics(),
            clock=CLOCK,
            log=LOG,
        )
        await rounds.run()

    async with asyncio.TaskGroup() as group:
        group.create_task(mirror.run())
        group.create_task(election.run(lead))


if __name__ == "__main__":
    asyncio.run(
        main(
            parse_host_port(sys.argv[1]),
            Path(sys.argv[2]),
            int(sys.argv[3]),
            has_fence="--without-fence" not in sys.argv,
        )
    )
