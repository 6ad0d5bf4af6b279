"""Is nobody judged for more than what is known, whatever is reported?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dray.model import NodeCondition, ReachKind
from scheduler.nodes.conditions import (
    WITNESSES_NEEDED,
    Evidence,
    Finding,
    Stream,
    StreamKind,
    node_condition,
)

NOW_S = 1_000.0
TIMES = st.floats(0.0, NOW_S)
STREAMS = st.builds(Stream, st.sampled_from(StreamKind), TIMES)
FINDINGS = st.builds(Finding, st.sampled_from(ReachKind), TIMES, st.booleans())


@st.composite
def evidence(draw: st.DrawFn) -> Evidence:
    """Draw what others say: at most one finding of each reporter."""
    findings = tuple(draw(st.lists(FINDINGS, max_size=5)))
    return Evidence(
        draw(st.integers(len(findings), 8)),
        findings,
        draw(st.booleans()),
        draw(st.none() | TIMES),
        draw(st.none() | TIMES),
    )


@given(STREAMS, evidence())
def test_down_is_never_guessed(stream: Stream, said: Evidence) -> None:
    """A node is down only when it left, or nobody hears it and enough of those asked miss it."""
    if node_condition(stream, said, NOW_S) is not NodeCondition.DOWN:
        return
    if stream.kind is StreamKind.LEFT:
        return
    assert stream.kind is not StreamKind.UP
    assert said.may_judge
    assert said.reporters > 0
    assert all(finding.reach is not ReachKind.ANSWERED for finding in said.findings)
    enough = len(said.findings) >= min(WITNESSES_NEEDED, said.reporters)
    is_absent = stream.kind is StreamKind.NONE and not any(f.has_met for f in said.findings)
    assert enough or is_absent


@given(STREAMS, evidence())
def test_a_live_stream_is_never_lost(stream: Stream, said: Evidence) -> None:
    """With its stream up a node is ready or isolated, without it neither."""
    condition = node_condition(stream, said, NOW_S)
    up = {NodeCondition.READY, NodeCondition.ISOLATED}
    assert (condition in up) is (stream.kind is StreamKind.UP)


@given(STREAMS, evidence(), st.randoms(use_true_random=False))
def test_who_reported_first_does_not_matter(
    stream: Stream, said: Evidence, random: st.DataObject
) -> None:
    """The order of findings changes nothing."""
    findings = list(said.findings)
    random.shuffle(findings)  # type: ignore[attr-defined]  # a random.Random
    shuffled = Evidence(
        said.reporters, tuple(findings), said.may_judge, said.few_since_s, said.half_since_s
    )
    assert node_condition(stream, shuffled, NOW_S) is node_condition(stream, said, NOW_S)


@given(STREAMS, evidence(), st.floats(0.0, 100.0))
def test_one_peer_that_hears_it_keeps_a_node_from_being_down(
    stream: Stream, said: Evidence, for_s: float
) -> None:
    """Whatever all others say, for however long."""
    heard = Finding(ReachKind.ANSWERED, NOW_S - for_s)
    more = Evidence(
        said.reporters + 1,
        (*said.findings, heard),
        said.may_judge,
        said.few_since_s,
        said.half_since_s,
    )
    is_down = node_condition(stream, more, NOW_S) is NodeCondition.DOWN
    assert is_down is (stream.kind is StreamKind.LEFT)
