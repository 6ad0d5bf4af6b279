"""Who leads, and what does the leader know? The answer for the users' API and for nodes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from dray.addresses import parse_host_port
from dray.errors import InvalidRequest, NotLeader
from dray.model import Epoch, NodeCondition, SlotKey
from dray.names import NodeId, SchedulerId, TaskId
from dray.views import RoundStatus
from scheduler.api.ports import LeaderInfo, LeaderMemory
from scheduler.nodes.streams import NodeStreams
from scheduler.store.mirror import Mirror

__all__ = ["SchedulerLeadership"]


class SchedulerLeadership:
    """The `Leadership` of one scheduler. `begin` and `end` say when it leads itself."""

    def __init__(self, mirror: Mirror, scheduler_id: SchedulerId) -> None:
        """Start as one that does not lead.

        Args:
            mirror: Shows who leads.
            scheduler_id: This scheduler.
        """
        self._mirror = mirror
        self._scheduler_id = scheduler_id
        self._streams: NodeStreams | None = None
        self._memory: LeaderMemory | None = None
        self._last_round: RoundStatus | None = None
        self._pending: Mapping[SlotKey, str] = {}
        self._notes: Mapping[str, str] = {}
        self._changed = asyncio.Event()

    def leader(self) -> LeaderInfo | None:
        """Return who leads; None: nobody, as far as this scheduler knows."""
        if not self._mirror.revision:
            return None
        found = self._mirror.snapshot.leader
        if found is None:
            return None
        record = found.record
        is_mine = record.scheduler_id == self._scheduler_id
        if is_mine and self._streams is None:
            return None  # the key of an earlier term or life
        try:
            address = parse_host_port(record.address)
        except InvalidRequest:
            return None  # written by a newer version, in its own way
        return LeaderInfo(
            record.scheduler_id,
            Epoch(record.generation, found.create_revision),
            address,
            record.node_id,
            record.since_unix_s,
            record.version,
        )

    def begin(self, streams: NodeStreams) -> None:
        """Lead from now on."""
        self._streams = streams
        self._last_round = None
        self._pending = {}
        self._notes = {}
        self.refresh()

    def end(self) -> None:
        """Lead no longer."""
        self._streams = None
        self._become(None)

    def refresh(
        self,
        last_round: RoundStatus | None = None,
        pending: Mapping[SlotKey, str] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Take in what was reported, and the last round if there was one.

        Args:
            last_round: The round; None: the one that is known.
            pending: Why slots had no node in it; None: what is known.
            notes: What it left alone or let wait, by subject; None: what is known.
        """
        if self._streams is None:
            return
        self._last_round = last_round or self._last_round
        self._pending = self._pending if pending is None else pending
        self._notes = self._notes if notes is None else notes
        observations = self._streams.observations
        self._become(
            LeaderMemory(
                observations.observed(),
                usage=observations.usage(),
                evidence=observations.evidence(),
                orphans=observations.orphans(),
                pending_reasons=self._pending,
                notes=self._notes,
                earlier=observations.earlier(),
                last_round=self._last_round,
            )
        )

    def conditions(self) -> dict[NodeCondition, int]:
        """Return how many nodes are in each condition; empty while this scheduler does not lead."""
        if self._memory is None:
            return {}
        return Counter(node.condition for node in self._memory.observed.nodes.values())

    def memory(self) -> LeaderMemory | None:
        """Return what this scheduler holds as the leader; None: it does not lead."""
        return self._memory

    async def wait_memory(self, after: LeaderMemory | None) -> LeaderMemory | None:
        """Return `memory()` once it is another object than `after`; None when it leads no more."""
        while self._memory is after:
            await self._changed.wait()
        return self._memory

    async def remove_orphans(self, node_id: NodeId, task_ids: tuple[TaskId, ...]) -> None:
        """Tell a node to end orphans.

        Raises:
            NotLeader: Another scheduler leads.
            Unavailable: The node has no stream.
        """
        if self._streams is None:
            raise NotLeader("another scheduler leads")
        await self._streams.remove_orphans(node_id, task_ids)

    def _become(self, memory: LeaderMemory | None) -> None:
        self._memory = memory
        event, self._changed = self._changed, asyncio.Event()
        event.set()
