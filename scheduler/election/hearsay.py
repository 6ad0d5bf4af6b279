"""What do nodes say of the last leader's host? Proof of its death, from those that probe it.

A node says Hello with what its own probes find of the host of the leader that it last knew. A host
whose kernel refuses proves that its node daemon is gone, and no more; one that is silent to
`WITNESSES_MIN` nodes is down, and the scheduler on it. A wrong proof costs an election.
"""

from __future__ import annotations

from typing import Final

from dray.model import NO_EPOCH, Epoch, ReachKind, StoreRevision, WitnessEvidence
from dray.names import NodeId
from scheduler.election.election import Election
from scheduler.store.mirror import Mirror

__all__ = ["WITNESSES_MIN", "Hearsay"]

WITNESSES_MIN: Final = 2  # as for a node: one may be cut off itself


class Hearsay:
    """Collects what nodes say, and tells the election."""

    def __init__(self, election: Election, mirror: Mirror) -> None:
        """Start without a witness.

        Args:
            election: Told of epochs and proofs.
            mirror: Shows who leads.
        """
        self._election = election
        self._mirror = mirror
        self._epoch = NO_EPOCH
        self._silent_to: set[NodeId] = set()

    def hear(self, node_id: NodeId, evidence: WitnessEvidence, epoch: Epoch) -> None:
        """Take what a node has seen of the host of the leader of an epoch."""
        self._election.meet(epoch)
        leader = self._mirror.snapshot.leader if self._mirror.revision else None
        if leader is None or self._election.is_leading:
            return
        if epoch != Epoch(leader.record.generation, leader.create_revision):
            return
        if epoch != self._epoch:
            self._epoch = epoch
            self._silent_to.clear()
        if evidence.reach is ReachKind.SILENT and not evidence.cut_off:
            self._silent_to.add(node_id)
        else:
            self._silent_to.discard(node_id)
        if len(self._silent_to) >= WITNESSES_MIN:
            reason = f"its host is silent to {len(self._silent_to)} nodes"
            self._election.prove_death(StoreRevision(epoch.create_revision), reason)
