"""Is a node held to be what the table of DESIGN section 5 says, line by line?"""

from __future__ import annotations

import pytest

from dray.model import NodeCondition, ReachKind
from scheduler.nodes.conditions import (
    ABSENT_AFTER_S,
    AGENT_DOWN_S,
    HOLD_S,
    ISOLATED_AFTER_S,
    STALLED_S,
    Evidence,
    Finding,
    Stream,
    StreamKind,
    node_condition,
)

NOW_S = 1000.0
UP = Stream(StreamKind.UP, 0.0)
LOST = Stream(StreamKind.LOST, NOW_S - 1.0)
NONE = Stream(StreamKind.NONE, 0.0)
LEFT = Stream(StreamKind.LEFT, NOW_S)
LONG_LOST = Stream(StreamKind.LOST, 0.0)

A, S, R, T = ReachKind.ANSWERED, ReachKind.SILENT, ReachKind.REFUSED, ReachKind.ACCEPTED
C = NodeCondition


def found(*reaches: ReachKind, for_s: float = 0.5, has_met: bool = True) -> tuple[Finding, ...]:
    """Return one finding of each reporter, all of the same age."""
    return tuple(Finding(reach, NOW_S - for_s, has_met) for reach in reaches)


def said(reporters: int, *findings: Finding, may_judge: bool = True) -> Evidence:
    """Return evidence of a leader that may judge and is not cut off."""
    return Evidence(reporters, findings, may_judge, half_since_s=NOW_S - 1.0)


ROWS = {
    # a live stream
    "up": (UP, said(5), C.READY),
    "up, alone": (UP, said(0), C.READY),
    "up, missed by two for long": (UP, said(5, *found(S, S, for_s=ISOLATED_AFTER_S)), C.ISOLATED),
    "up, missed by two, not yet": (UP, said(5, *found(S, S, for_s=9.9)), C.READY),
    "up, missed by one of many": (UP, said(5, *found(S, for_s=60)), C.READY),
    "up, missed by the only one": (UP, said(1, *found(S, for_s=60)), C.ISOLATED),
    "up, refused counts as missed": (UP, said(2, *found(R, T, for_s=60)), C.ISOLATED),
    "up, more hear it": (UP, said(5, *found(S, S, A, A, for_s=60)), C.READY),
    "up, fewer hear it": (UP, said(5, *found(S, S, A, for_s=60)), C.ISOLATED),
    "up, a new leader judges nobody": (
        UP,
        said(5, *found(S, S, for_s=60), may_judge=False),
        C.READY,
    ),
    # a lost stream
    "lost, no reporters": (LOST, said(0), C.UNKNOWN),
    "lost, heard by one": (LOST, said(5, *found(A)), C.UNREACHABLE),
    "lost, heard by one of three": (LOST, said(5, *found(S, S, A)), C.UNREACHABLE),
    "lost, its kernel accepts": (LOST, said(5, *found(T, S)), C.STALLED),
    "lost, its kernel accepts, refuses others": (LOST, said(5, *found(T, R)), C.STALLED),
    "lost, its kernel refuses": (LOST, said(5, *found(R, S)), C.AGENT_DOWN),
    "lost, silent to two": (LOST, said(5, *found(S, S)), C.DOWN),
    "lost, silent to one of many": (LOST, said(5, *found(S)), C.UNKNOWN),
    "lost, silent to the only one": (LOST, said(1, *found(S)), C.DOWN),
    "lost, nobody has an opinion": (LOST, said(5), C.UNKNOWN),
    "lost, a new leader judges nobody": (LOST, said(5, *found(S, S), may_judge=False), C.UNKNOWN),
    # … for long
    "stalled for long": (LONG_LOST, said(5, *found(T, T, for_s=STALLED_S)), C.DOWN),
    "stalled, not yet": (LONG_LOST, said(5, *found(T, T, for_s=19.9)), C.STALLED),
    "stalled for long, lost just now": (LOST, said(5, *found(T, T, for_s=60)), C.STALLED),
    "stalled for long, one witness": (LONG_LOST, said(5, *found(T, for_s=60)), C.STALLED),
    "agent down for long": (LONG_LOST, said(5, *found(R, R, for_s=AGENT_DOWN_S)), C.DOWN),
    "agent down, not yet": (LONG_LOST, said(5, *found(R, R, for_s=29.9)), C.AGENT_DOWN),
    "agent down for long, heard": (LONG_LOST, said(5, *found(R, R, A, for_s=60)), C.UNREACHABLE),
    # no stream in this term
    "none, silent, was known": (NONE, said(5, *found(S, S)), C.DOWN),
    "none, heard": (NONE, said(5, *found(A)), C.UNREACHABLE),
    "none, silent, never met": (NONE, said(5, *found(S, S, has_met=False)), C.UNKNOWN),
    "none, nobody knows it": (NONE, said(5), C.UNKNOWN),
    # said goodbye for good
    "left": (LEFT, said(5), C.DOWN),
    "left, alone": (LEFT, said(0), C.DOWN),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_table(name: str) -> None:
    """Every row gives its condition, and those above it come first."""
    stream, evidence, expected = ROWS[name]
    assert node_condition(stream, evidence, NOW_S) is expected


@pytest.mark.parametrize(
    ("half_for_s", "has_met", "expected"),
    [
        (ABSENT_AFTER_S, False, C.DOWN),
        (ABSENT_AFTER_S - 0.1, False, C.UNKNOWN),
        (None, False, C.UNKNOWN),
    ],
)
@pytest.mark.parametrize("reaches", [(), (S,), (S, S)])
def test_a_node_that_nobody_has_seen_since_its_boot_is_absent_after_a_minute(
    half_for_s: float | None, has_met: bool, expected: NodeCondition, reaches: tuple[ReachKind, ...]
) -> None:
    """The last row needs half of the nodes connected for 60 s, and no peer that ever met it."""
    half_since_s = None if half_for_s is None else NOW_S - half_for_s
    evidence = Evidence(5, found(*reaches, has_met=has_met), half_since_s=half_since_s)
    assert node_condition(NONE, evidence, NOW_S) is expected
    if not reaches:
        assert node_condition(LOST, evidence, NOW_S) is C.UNKNOWN


@pytest.mark.parametrize("stream", [LOST, LONG_LOST, NONE], ids=["lost", "long lost", "none"])
@pytest.mark.parametrize("reach", [S, R, T])
def test_with_few_reporters_nobody_is_judged_for_15_s(stream: Stream, reach: ReachKind) -> None:
    """It may be the leader that is cut off: it holds, then judges as ever."""
    findings = found(reach, reach, for_s=500)
    held = Evidence(2, findings, few_since_s=NOW_S - HOLD_S + 0.1)
    assert node_condition(stream, held, NOW_S) is C.UNKNOWN
    over = Evidence(2, findings, few_since_s=NOW_S - HOLD_S)
    plain = Evidence(2, findings)
    assert node_condition(stream, over, NOW_S) is node_condition(stream, plain, NOW_S)
