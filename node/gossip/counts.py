"""What does a core count, for metrics and for people who ask why?"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counts"]


@dataclass(slots=True)
class Counts:
    """What was dropped or done, since the start.

    Attributes:
        junk: Datagrams and messages that nobody's encoder wrote.
        foreign: Of another cluster.
        own: That bear this node's id: a clone, or a loop; or that say it was removed.
        stale: Of an older life of their sender, or of one that there is no room for.
        probes: Members probed.
        unanswered: Of those, neither directly nor through helpers.
        suspicions: Raised by this node's own probes.
        refutations: Of suspicions of this node.
        deaths: Declared by this node.
        stalls: Declared by this node.
        false_alarms: Members that this node held dead and that came back in the same life.
        syncs: Begun by this node.
        pulls: Begun by this node.
    """

    junk: int = 0
    foreign: int = 0
    own: int = 0
    stale: int = 0
    probes: int = 0
    unanswered: int = 0
    suspicions: int = 0
    refutations: int = 0
    deaths: int = 0
    stalls: int = 0
    false_alarms: int = 0
    syncs: int = 0
    pulls: int = 0
