"""Which numbers does the gossip protocol run on, and what does each cost?"""

from __future__ import annotations

from dataclasses import dataclass

from dray.errors import InvalidRequest

__all__ = ["Parameters"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The tunable numbers of the protocol; equal on all nodes of a cluster.

    A member that dies is suspected on average 0.6 · `probe_period_s` + `probe_verdict_s` later, and
    dead `suspicion_s` after that: 4.5 s by default, whatever the number of members.

    Attributes:
        probe_period_s: One member is probed in each. Longer: slower detection, less traffic.
        probe_timeout_s: After this long without an answer helpers are asked. Below the slowest
            round trip every probe asks them.
        probe_verdict_s: After this long without any answer the member is suspected; above twice
            `probe_timeout_s`, or helpers have no time to answer, and below `probe_period_s`.
        helpers: How many are asked. 0: one lost datagram is a suspicion.
        suspicion_s: How long a suspect may refute. Below about 2 s a busy machine is buried alive.
        gossip_period_s: News that waits is sent this often, to `gossip_fanout` members.
        gossip_fanout: See `gossip_period_s`; 0: news rides on probes only.
        spread_factor: News is sent `spread_factor` · ⌈log10(members + 1)⌉ times. Below 2 much is
            left to digests.
        join_period_s: Seeds are asked this often until one answers.
        heal_period_s: This often one dead member and one seed are pinged: how soon a partition
            heals.
        sync_after_s: How long digests may differ before a sync; covers news that is on its way.
        sync_period_s: A node starts at most one sync in each: bounds the traffic when views never
            become equal.
        gone_keep_s: Dead and left members are forgotten after this long.
        tombstone_keep_s: So are deletions of facts; above any usual partition, or deleted facts
            reappear for a moment.
    """

    probe_period_s: float = 1.0
    probe_timeout_s: float = 0.3
    probe_verdict_s: float = 0.9
    helpers: int = 3
    suspicion_s: float = 3.0
    gossip_period_s: float = 0.2
    gossip_fanout: int = 3
    spread_factor: int = 4
    join_period_s: float = 1.0
    heal_period_s: float = 5.0
    sync_after_s: float = 0.6
    sync_period_s: float = 0.5
    gone_keep_s: float = 3_600.0
    tombstone_keep_s: float = 600.0

    def __post_init__(self) -> None:
        """Check every bound.

        Raises:
            InvalidRequest: Naming the number and its bound.
        """
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidRequest(f"gossip {name} is {value:g}, allowed is {low:g} to {high:g}")
        if not 2 * self.probe_timeout_s < self.probe_verdict_s < self.probe_period_s:
            raise InvalidRequest(
                "gossip needs 2 · probe_timeout_s < probe_verdict_s < probe_period_s",
                hint=f"{self.probe_timeout_s:g}, {self.probe_verdict_s:g}, {self.probe_period_s:g}",
            )


_BOUNDS = (
    ("probe_period_s", 0.05, 60.0),
    ("probe_timeout_s", 0.01, 30.0),
    ("probe_verdict_s", 0.02, 60.0),
    ("helpers", 0, 8),
    ("suspicion_s", 0.1, 600.0),
    ("gossip_period_s", 0.02, 60.0),
    ("gossip_fanout", 0, 16),
    ("spread_factor", 1, 16),
    ("join_period_s", 0.05, 60.0),
    ("heal_period_s", 0.1, 600.0),
    ("sync_after_s", 0.0, 60.0),
    ("sync_period_s", 0.05, 60.0),
    ("gone_keep_s", 1.0, 604_800.0),
    ("tombstone_keep_s", 1.0, 604_800.0),
)
