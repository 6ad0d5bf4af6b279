"""What is a node held to be? The table of DESIGN section 5, as one pure function.

`node_condition(stream, evidence, now_s)` goes through the rows from the top; the first that matches
wins. It knows three things: the node's own stream to the leader, what the nodes with a live stream
(the *reporters*) found when they probed it, and how long the leader has been able to tell.

Rules of the reading, where the table leaves them open:

- Findings about an earlier life of the node do not count, nor do those of nodes that have no live
  stream. A node is no reporter about itself.
- *Isolated* needs `need` witnesses for 10 s, and more of them than peers that hear the node: two
  machines that are deaf themselves must not empty all others.
- A node without a stream in this term may have died before the term began, so the rows of a lost
  stream hold for it as well. Only silence that nobody can compare with anything (no witness has
  ever heard of the node since its own start) is left to the last row.
- Where nobody has enough to say, the answer is UNKNOWN: nothing is concluded.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dray.model import NodeCondition, ReachKind

__all__ = [
    "ABSENT_AFTER_S",
    "AGENT_DOWN_S",
    "HOLD_S",
    "ISOLATED_AFTER_S",
    "STALLED_S",
    "WITNESSES_NEEDED",
    "Evidence",
    "Finding",
    "Stream",
    "StreamKind",
    "node_condition",
]

WITNESSES_NEEDED: Final = 2  # or all reporters, when there are fewer
ISOLATED_AFTER_S: Final = 10.0
STALLED_S: Final = 20.0  # then it is down
AGENT_DOWN_S: Final = 30.0  # then it is down; an upgrade of the daemon takes less
HOLD_S: Final = 15.0  # with few reporters: it may be the leader that is cut off
ABSENT_AFTER_S: Final = 60.0


class StreamKind(enum.Enum):
    """What is with a node's stream to the leader."""

    UP = 1
    LOST = 2
    """It was up in this term; it ended, or no ping was answered."""
    NONE = 3
    """It was not up in this term."""
    LEFT = 4
    """The node said that it leaves for good, and the stream ended."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A node's stream: what is with it, and since when on the leader's monotonic clock."""

    kind: StreamKind
    since_s: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What one reporter's own probes of the node's current life found.

    Attributes:
        reach: What came back.
        since_s: Since when that has been so, on the leader's monotonic clock.
        has_met: The reporter has heard from the node in its own life.
    """

    reach: ReachKind
    since_s: float
    has_met: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that can be said about a node by others. Times are on the leader's monotonic clock.

    Attributes:
        reporters: Other nodes with a live stream.
        findings: At most one of each reporter.
        may_judge: The leader is past its warm-up: it judges nobody before.
        few_since_s: Since when reporters have been fewer than half of the nodes that were lately
            ready; None: they are not.
        half_since_s: Since when at least half of the registered nodes have been connected; None:
            they are not.
    """

    reporters: int
    findings: tuple[Finding, ...] = ()
    may_judge: bool = True
    few_since_s: float | None = None
    half_since_s: float | None = None


def node_condition(stream: Stream, evidence: Evidence, now_s: float) -> NodeCondition:
    """Return what a node is held to be.

    Args:
        stream: Its stream.
        evidence: What others say.
        now_s: The leader's monotonic clock.
    """
    assert len(evidence.findings) <= evidence.reporters, evidence
    if stream.kind is StreamKind.UP:
        is_isolated = evidence.may_judge and _is_isolated(evidence, now_s)
        return NodeCondition.ISOLATED if is_isolated else NodeCondition.READY
    if stream.kind is StreamKind.LEFT:
        return NodeCondition.DOWN
    if not evidence.may_judge or evidence.reporters == 0 or _holds(evidence, now_s):
        return NodeCondition.UNKNOWN
    reaches = {finding.reach for finding in evidence.findings}
    if ReachKind.ANSWERED in reaches:
        return NodeCondition.UNREACHABLE
    if ReachKind.ACCEPTED in reaches:
        is_over = _is_over(stream, evidence, ReachKind.ACCEPTED, STALLED_S, now_s)
        return NodeCondition.DOWN if is_over else NodeCondition.STALLED
    if ReachKind.REFUSED in reaches:
        is_over = _is_over(stream, evidence, ReachKind.REFUSED, AGENT_DOWN_S, now_s)
        return NodeCondition.DOWN if is_over else NodeCondition.AGENT_DOWN
    return _of_silence(stream, evidence, now_s)


def _need(evidence: Evidence) -> int:
    return min(WITNESSES_NEEDED, evidence.reporters)


def _is_isolated(evidence: Evidence, now_s: float) -> bool:
    """Return whether enough peers have not reached a node with a live stream for long enough."""
    heard = sum(finding.reach is ReachKind.ANSWERED for finding in evidence.findings)
    missed = _count_since(_missing(evidence.findings), now_s - ISOLATED_AFTER_S)
    return missed >= max(1, _need(evidence)) and missed > heard


def _holds(evidence: Evidence, now_s: float) -> bool:
    """Return whether it may be the leader that is cut off."""
    return evidence.few_since_s is not None and now_s - evidence.few_since_s < HOLD_S


def _is_over(
    stream: Stream, evidence: Evidence, reach: ReachKind, limit_s: float, now_s: float
) -> bool:
    """Return whether a kernel has answered alone for too long, and enough peers miss the rest.

    The time runs from the later of the stream's loss and the oldest such finding.
    """
    found = [finding.since_s for finding in evidence.findings if finding.reach is reach]
    is_late = now_s - max(stream.since_s, min(found)) >= limit_s
    return is_late and len(evidence.findings) >= _need(evidence)  # nobody hears it: all miss it


def _of_silence(stream: Stream, evidence: Evidence, now_s: float) -> NodeCondition:
    """Return what silence means: enough witnesses, and somebody who has known the node."""
    has_met = any(finding.has_met for finding in evidence.findings)
    if len(evidence.findings) >= _need(evidence) and (has_met or stream.kind is StreamKind.LOST):
        return NodeCondition.DOWN
    is_unseen = stream.kind is StreamKind.NONE and not has_met
    has_waited = (
        evidence.half_since_s is not None and now_s - evidence.half_since_s >= ABSENT_AFTER_S
    )
    return NodeCondition.DOWN if is_unseen and has_waited else NodeCondition.UNKNOWN


def _missing(findings: Iterable[Finding]) -> Iterable[Finding]:
    return (finding for finding in findings if finding.reach is not ReachKind.ANSWERED)


def _count_since(findings: Iterable[Finding], latest_s: float) -> int:
    return sum(finding.since_s <= latest_s for finding in findings)
