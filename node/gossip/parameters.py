"""Which numbers does the gossip protocol run on, and what does each cost?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dray.errors import InvalidRequest

__all__ = ["Parameters", "suspicion_timeout_s"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The tunable numbers of the protocol; equal on all nodes of a cluster.

    A member that dies is probed after 0.6 · `probe_period_s` on average, suspected 0.4 to 0.9 s
    later, and dead `suspicion_s` + 0.4 s after that: about 2.7 s, whatever the number of members.
    node/gossip/README.md has the formula, the bound and the danger of each.

    Attributes:
        probe_period_s: One member is probed in each. Longer: slower detection, less traffic.
        probe_timeout_min_s: Least time after which helpers are asked; the time itself follows the
            member's round trips. Too low: a busy machine's every pause asks them.
        probe_timeout_max_s: Greatest such time, before it is scaled by local health.
        verdict_factor: The member is suspected after this many timeouts without any answer.
        helpers: How many are asked. 0: a few lost datagrams are a suspicion.
        parallel_probes: How many members are probed in a period while several are suspect.
        witnesses: How many of the ring's next members check a suspicion at once. Below 3 a death
            waits for the long suspicion.
        confirmations: How many of them must agree for the shortest suspicion.
        suspicion_s: Shortest time that a suspect has to refute. Below 1 s a busy machine is buried
            alive.
        suspicion_factor: The longest is this many times that; who is no witness waits as long.
        verify_pings: How often a witness pings, each `verify_gap_s`. Below 3 loss is taken for
            death.
        verify_gap_s: See `verify_pings`.
        last_chances: Pings before a verdict, each `last_chance_gap_s`.
        last_chance_gap_s: See `last_chances`.
        contact_s: Who was heard directly within this time is not declared dead.
        reach_timeout_s: How long a kernel has to answer a connect.
        refused_s: Shortest suspicion when two kernels' answers say that nobody listens.
        stalled_check_s: How often the witnesses look at a stalled member.
        stalled_s: How long a member may be stalled before it is dead.
        health_max: Highest local health score; probes wait 1 + score times as long.
        gossip_period_s: News that waits is sent this often, to `gossip_fanout` members.
        gossip_fanout: See `gossip_period_s`; 0: news rides on probes only.
        spread_factor: News is sent `spread_factor` · ⌈log10(members + 1)⌉ times. Below 2 much is
            left to digests.
        join_period_s: Seeds are asked this often until one answers.
        heal_period_s: This often one dead member and one absent seed are pinged: how soon a
            partition heals.
        sync_after_s: How long digests may differ before a sync; covers news that is on its way.
        sync_period_s: A node starts at most one sync in each: bounds the traffic when views never
            become equal.
        sync_busy_s: The same while news is being told, of which most arrives by itself.
        pull_timeout_s: How long an answer on a stream may take.
        gone_keep_s: Dead and left members are forgotten after this long.
        tombstone_keep_s: So are deletions of facts; above any usual partition, or deleted facts
            reappear for a moment.
    """

    probe_period_s: float = 1.0
    probe_timeout_min_s: float = 0.12
    probe_timeout_max_s: float = 0.5
    verdict_factor: float = 3.0
    helpers: int = 3
    parallel_probes: int = 4
    witnesses: int = 7
    confirmations: int = 3
    suspicion_s: float = 1.2
    suspicion_factor: float = 4.0
    verify_pings: int = 4
    verify_gap_s: float = 0.15
    last_chances: int = 3
    last_chance_gap_s: float = 0.12
    contact_s: float = 1.0
    reach_timeout_s: float = 0.5
    refused_s: float = 0.6
    stalled_check_s: float = 1.0
    stalled_s: float = 30.0
    health_max: int = 8
    gossip_period_s: float = 0.2
    gossip_fanout: int = 3
    spread_factor: int = 4
    join_period_s: float = 1.0
    heal_period_s: float = 2.0
    sync_after_s: float = 0.6
    sync_period_s: float = 0.5
    sync_busy_s: float = 2.0
    pull_timeout_s: float = 5.0
    gone_keep_s: float = 3_600.0
    tombstone_keep_s: float = 600.0

    def __post_init__(self) -> None:
        """Check every bound.

        Raises:
            InvalidRequest: Naming the number and its bound.
        """
        for name, low, high in BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidRequest(f"gossip {name} is {value:g}, allowed is {low:g} to {high:g}")
        if self.probe_timeout_min_s > self.probe_timeout_max_s:
            raise InvalidRequest(
                "gossip needs probe_timeout_min_s <= probe_timeout_max_s",
                hint=f"{self.probe_timeout_min_s:g}, {self.probe_timeout_max_s:g}",
            )
        if self.confirmations > self.witnesses:
            raise InvalidRequest(
                "gossip needs confirmations <= witnesses",
                hint=f"{self.confirmations}, {self.witnesses}",
            )


BOUNDS = (
    ("probe_period_s", 0.05, 60.0),
    ("probe_timeout_min_s", 0.01, 30.0),
    ("probe_timeout_max_s", 0.01, 30.0),
    ("verdict_factor", 1.5, 10.0),
    ("helpers", 0, 8),
    ("parallel_probes", 1, 16),
    ("witnesses", 1, 32),
    ("confirmations", 1, 8),
    ("suspicion_s", 0.1, 600.0),
    ("suspicion_factor", 1.0, 20.0),
    ("verify_pings", 1, 16),
    ("verify_gap_s", 0.01, 10.0),
    ("last_chances", 0, 16),
    ("last_chance_gap_s", 0.01, 10.0),
    ("contact_s", 0.0, 60.0),
    ("reach_timeout_s", 0.05, 10.0),
    ("refused_s", 0.0, 60.0),
    ("stalled_check_s", 0.1, 60.0),
    ("stalled_s", 1.0, 600.0),
    ("health_max", 0, 32),
    ("gossip_period_s", 0.02, 60.0),
    ("gossip_fanout", 0, 16),
    ("spread_factor", 1, 16),
    ("join_period_s", 0.05, 60.0),
    ("heal_period_s", 0.1, 600.0),
    ("sync_after_s", 0.0, 60.0),
    ("sync_period_s", 0.05, 60.0),
    ("sync_busy_s", 0.0, 60.0),
    ("pull_timeout_s", 0.1, 60.0),
    ("gone_keep_s", 1.0, 604_800.0),
    ("tombstone_keep_s", 1.0, 604_800.0),
)


def suspicion_timeout_s(parameters: Parameters, confirmed: int, needed: int) -> float:
    """Return how long after its beginning a suspicion ends, in seconds.

    Shrinks from the longest to the shortest time as witnesses agree, the first of them counting
    most: longest - (longest - shortest) · log(confirmed + 1) / log(needed + 1).

    Args:
        parameters: The shortest time, and the factor of the longest.
        confirmed: How many agree beside the first accuser, >= 0.
        needed: How many must for the shortest time; 0: there is nobody to agree.

    Source: Lifeguard (arXiv 1707.00788), LHA-Suspicion.
    """
    shortest_s = parameters.suspicion_s
    longest_s = shortest_s * parameters.suspicion_factor
    if needed < 1:
        return min(longest_s, 2 * shortest_s)
    share = math.log(min(confirmed, needed) + 1) / math.log(needed + 1)
    return longest_s - (longest_s - shortest_s) * share
