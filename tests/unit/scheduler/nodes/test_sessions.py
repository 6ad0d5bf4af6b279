"""Does the leader answer on its nodes' streams as node.proto says? The machine, without sockets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dray.model import (
    Assignment,
    AttemptReport,
    AttemptState,
    ClusterRecord,
    FaultKind,
    NodeCondition,
    ReachKind,
    StoreRevision,
    WitnessEvidence,
)
from dray.names import NodeId, SchedulerId
from scheduler.nodes.messages import (
    AttemptReports,
    EvidenceReport,
    Goodbye,
    GoodbyeKind,
    Hello,
    NodeConfig,
    Ping,
    Pong,
    Refused,
    RefusedReason,
    Resync,
    Up,
    Welcome,
)
from scheduler.nodes.observations import ConditionChange, Observations
from scheduler.nodes.sessions import (
    LATE_S,
    PONG_WITHIN_S,
    TICK_S,
    Assigned,
    Changed,
    Closed,
    Effect,
    EndStream,
    Judged,
    Opened,
    Push,
    Received,
    Sessions,
    Share,
    Tell,
    Ticked,
)
from tests.builders import (
    CLUSTER_ID,
    EPOCH,
    a_node,
    a_slot,
    a_task,
    an_id,
    an_info,
    node_id,
    task_id,
)

STARTED_S = 100.0


def a_welcome(number: int) -> Welcome:
    """Return the welcome of node n1, n2 …."""
    config = NodeConfig(a_node(number))
    return Welcome(ClusterRecord(CLUSTER_ID), config, SchedulerId(an_id(1)), "0.1.0")


def a_share(number: int, revision: int, *tasks: int) -> Share:
    """Return what a node should run, as of a revision of the store."""
    listed = tuple(a_task(task, a_slot(task)) for task in tasks)
    return Share(Assignment(CLUSTER_ID, node_id(number), EPOCH, StoreRevision(revision), listed))


@dataclass
class Term:
    """A term with a clock that the test moves."""

    nodes: int = 3
    now_s: float = STARTED_S
    observations: Observations = field(default_factory=lambda: Observations(STARTED_S))

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.observations, STARTED_S)

    def open(
        self, number: int, stream: int, life: int = 1, share: Share | None = None
    ) -> list[Effect]:
        """Let a node connect."""
        hello = Hello(an_info(number, life=life))
        return self.sessions.handle(Opened(stream, hello, a_welcome(number), share), self.now_s)

    def say(self, stream: int, message: Up) -> list[Effect]:
        """Let a node say something."""
        return self.sessions.handle(Received(stream, message), self.now_s)

    def miss(self, stream: int, number: int, reach: ReachKind = ReachKind.SILENT) -> None:
        """Let a node not reach another one."""
        reporter = self.sessions._node_of[stream]
        evidence = WitnessEvidence(reporter, node_id(number), 1, reach, 0.0, 1.0)
        self.say(stream, EvidenceReport(False, (evidence,)))

    def tick(self, duration_s: float = TICK_S) -> list[Effect]:
        """Let time pass in one step."""
        self.now_s += duration_s
        registered = frozenset(map(node_id, range(1, self.nodes + 1)))
        return self.sessions.handle(Ticked(registered, self.now_s + 1e6), self.now_s)

    def run(self, duration_s: float) -> list[Effect]:
        """Let time pass in steps of a tick."""
        effects: list[Effect] = []
        for _ in range(round(duration_s / TICK_S)):
            effects += self.tick()
        return effects

    def condition(self, number: int) -> NodeCondition:
        """Return what a node is held to be."""
        return self.observations.observed().nodes[node_id(number)].condition


def settled() -> Term:
    """Return a term with three ready nodes, past its warm-up."""
    term = Term()
    for number in (1, 2, 3):
        term.open(number, number)
    term.run(4.0)
    assert all(term.condition(number) is NodeCondition.READY for number in (1, 2, 3))
    return term


def test_a_node_is_welcomed_and_told_what_the_store_holds() -> None:
    """Welcome comes first, then the assignment; without one nothing is pushed."""
    term = Term()
    share = a_share(1, 5, 1)
    assert term.open(1, 7, share=share) == [
        Tell(7, a_welcome(1)),
        Push(7, share),
        Changed(node_id(1)),
    ]
    assert term.open(2, 8) == [Tell(8, a_welcome(2)), Changed(node_id(2))]


def test_nodes_with_a_stream_are_known_by_id_and_by_who_comes_next() -> None:
    """Also after one was replaced by its later life, and one has gone."""
    term = Term(4)
    for stream, number in enumerate((3, 1, 4, 2), start=1):
        term.open(number, stream)
    term.open(1, 9, life=2)
    term.sessions.handle(Closed(3), term.now_s)
    assert term.sessions.nodes() == [node_id(1), node_id(2), node_id(3)]
    assert list(term.sessions.after(node_id(2))) == [node_id(3), node_id(1)]
    assert list(term.sessions.after(node_id(4))) == [node_id(1), node_id(2), node_id(3)]


def test_what_was_dispatched_while_a_node_was_away_reaches_it() -> None:
    """The newest version counts, also when the mirror that is read on connecting is behind."""
    term = Term()
    new, old = a_share(1, 9, 1, 2), a_share(1, 5, 1)
    assert term.sessions.handle(Assigned(node_id(1), new), 0.0) == []
    assert Push(1, new) in term.open(1, 1, share=old)
    assert term.sessions.handle(Assigned(node_id(1), old), 0.0) == [Push(1, new)]


def test_of_two_streams_of_a_node_the_higher_life_stands() -> None:
    """The lower one is refused as a clone and noted; an equal one is the node's next try."""
    term = Term()
    term.open(1, 1, life=5)
    refused = term.open(1, 2, life=4)
    assert [type(effect) for effect in refused] == [EndStream]
    assert isinstance(refused[0], EndStream)
    assert refused[0].stream == 2
    assert isinstance(refused[0].message, Refused)
    assert refused[0].message.reason is RefusedReason.CLONE
    term.tick()
    faults = term.observations.observed().nodes[node_id(1)].faults
    assert [fault.kind for fault in faults] == [FaultKind.CLONE]
    assert term.open(1, 3, life=5)[0] == EndStream(1)
    assert isinstance(term.open(1, 4, life=6)[0], EndStream)
    assert term.sessions.stream_of(node_id(1)) == 4
    assert term.say(3, AttemptReports(True)) == []


def test_a_lower_life_may_connect_when_the_higher_one_is_gone() -> None:
    """Only a stream that is up keeps another one out."""
    term = Term()
    term.open(1, 1, life=5)
    term.sessions.handle(Closed(1), term.now_s)
    assert isinstance(term.open(1, 2, life=4)[0], Tell)


def test_a_suspect_is_pinged_and_lost_after_a_second_of_silence() -> None:
    """One report is enough to ask; the answer decides."""
    term = settled()
    term.miss(2, 1)
    assert term.tick() == [Tell(1, Ping(1))]
    term.say(1, Pong(1))
    asked_again = [effect for effect in term.run(0.9) if isinstance(effect, Tell)]
    assert asked_again == []
    assert term.run(0.3)[0] == Tell(1, Ping(2))
    term.say(1, Pong(2))
    assert term.condition(1) is NodeCondition.READY
    term.miss(3, 1)
    term.run(2 * PONG_WITHIN_S + 0.5)
    assert term.condition(1) is NodeCondition.DOWN
    assert term.sessions.stream_of(node_id(1)) is None
    term.say(1, Pong(99))
    term.tick()
    assert term.condition(1) is NodeCondition.READY


def test_a_stopped_node_is_down_within_seconds() -> None:
    """Witnesses agree, the stream does not answer: down after a second, not after keep-alives."""
    term = settled()
    term.miss(2, 1)
    term.miss(3, 1)
    effects = term.run(1.3)
    change = ConditionChange(node_id(1), NodeCondition.READY, NodeCondition.DOWN)
    assert Judged((change,)) in effects


def test_a_leader_that_was_asleep_gives_time_again() -> None:
    """Answers may be waiting to be read when its own clock has jumped."""
    term = settled()
    term.miss(2, 1)
    term.miss(3, 1)
    assert term.tick() == [Tell(1, Ping(1))]
    term.tick(4.0 + LATE_S)
    assert term.condition(1) is NodeCondition.READY
    term.say(1, Pong(1))
    term.run(1.0)
    assert term.condition(1) is NodeCondition.READY


def test_a_new_leader_judges_nobody_at_first() -> None:
    """Three seconds and half of the nodes, or fifteen."""
    term = Term(nodes=5)
    for number in (2, 3):
        term.open(number, number)
        term.miss(number, 1)
    term.run(14.5)
    assert term.condition(1) is NodeCondition.UNKNOWN
    term.run(1.0)
    assert term.condition(1) is NodeCondition.DOWN


def test_a_leader_that_is_cut_off_from_most_nodes_holds_back() -> None:
    """Nodes that were not known to be down when the term began count as lately ready."""
    nodes = tuple(map(node_id, range(1, 11)))
    term = Term(10, observations=Observations(STARTED_S, expected=nodes))
    term.open(2, 2)
    term.miss(2, 1)
    term.run(14.5)
    assert term.condition(1) is NodeCondition.UNKNOWN


def test_a_restart_ends_the_stream_and_says_nothing_else() -> None:
    """The leader ends it at once, and judges by evidence as ever."""
    term = settled()
    assert term.say(1, Goodbye(GoodbyeKind.RESTART)) == [EndStream(1)]
    term.sessions.handle(Closed(1), term.now_s)
    term.miss(2, 1, ReachKind.REFUSED)
    term.miss(3, 1, ReachKind.REFUSED)
    term.run(20.0)
    assert term.condition(1) is NodeCondition.AGENT_DOWN
    term.run(15.0)
    assert term.condition(1) is NodeCondition.DOWN


def test_a_node_that_leaves_waits_until_it_has_nothing_to_run() -> None:
    """It is to be emptied first; then its stream is ended, and it is down at once."""
    term = settled()
    share = a_share(1, 5, 1)
    term.sessions.handle(Assigned(node_id(1), share), term.now_s)
    term.say(1, Goodbye(GoodbyeKind.SHUTDOWN, 30.0))
    assert term.observations.observed().nodes[node_id(1)].is_leaving
    assert EndStream(1) not in term.run(1.0)
    term.sessions.handle(Assigned(node_id(1), a_share(1, 6)), term.now_s)
    assert EndStream(1) in term.tick()
    term.sessions.handle(Closed(1), term.now_s)
    term.tick()
    assert term.condition(1) is NodeCondition.DOWN


def test_the_end_of_a_stream_says_nothing() -> None:
    """What was reported stays; the node is unreachable while a peer hears it."""
    term = settled()
    report = AttemptReport(task_id(1), 1, AttemptState.RUNNING)
    assert term.say(1, AttemptReports(True, (report,))) == [Changed(node_id(1))]
    term.miss(2, 1, ReachKind.ANSWERED)
    term.sessions.handle(Closed(1), term.now_s)
    term.run(30.0)
    assert term.condition(1) is NodeCondition.UNREACHABLE
    assert term.observations.observed().attempts[task_id(1)] == report


def test_a_second_hello_ends_the_stream() -> None:
    """The protocol allows one."""
    term = settled()
    effects = term.say(1, Hello(an_info(1)))
    assert isinstance(effects[0], EndStream)
    assert effects[0].message is not None
    assert effects[0].message.reason is RefusedReason.PROTOCOL


def test_what_is_said_about_an_earlier_life_does_not_count() -> None:
    """A node that has started again is not dead because its last life was."""
    term = settled()
    term.miss(2, 1)
    term.miss(3, 1)
    term.open(1, 9, life=2)
    term.run(30.0)
    assert term.condition(1) is NodeCondition.READY


def reports(term: Term, number: int = 1) -> set[tuple[str, int, str]]:
    """Return the attempts that are known."""
    return {
        (attempt.task_id, attempt.attempt, attempt.state.name)
        for attempt in term.observations.observed().attempts.values()
    }


def test_a_node_that_reports_changes_of_nothing_is_asked_for_everything_once() -> None:
    """What it ran before is unknown until it says so; then its changes are enough."""
    term = Term()
    term.open(1, 1)
    part = AttemptReports(False, (AttemptReport(task_id(1), 1, AttemptState.RUNNING),))
    (asked, changed) = term.say(1, part)
    assert isinstance(asked, Tell)
    assert isinstance(asked.message, Resync)
    assert changed == Changed(node_id(1))
    assert term.say(1, part) == []
    term.say(1, replace(part, is_complete=True))
    term.open(1, 2, life=2)
    assert isinstance(term.say(2, part)[0], Tell), "another life says everything anew"


def test_reports_only_grow_and_complete_ones_replace() -> None:
    """A late report is dropped; what a complete one does not list does not exist."""
    term = settled()
    running = AttemptReport(task_id(1), 2, AttemptState.RUNNING)
    other = AttemptReport(task_id(2), 1, AttemptState.RUNNING)
    term.say(1, AttemptReports(False, (running, other)))
    term.say(1, AttemptReports(False, (replace(running, attempt=1, state=AttemptState.FAILED),)))
    assert reports(term) == {(task_id(1), 2, "RUNNING"), (task_id(2), 1, "RUNNING")}
    before = term.observations.observed()
    assert term.say(1, AttemptReports(True, (other,))) == [Changed(node_id(1))]
    assert reports(term) == {(task_id(2), 1, "RUNNING")}
    assert set(before.attempts) == {task_id(1), task_id(2)}
    term.say(1, AttemptReports(False, forgotten=(task_id(2),)))
    assert reports(term) == set()


def test_a_node_that_is_removed_is_told_so_and_forgotten() -> None:
    """Its stream ends with the reason; one that has just joined is waited for."""
    term = settled()
    term.open(4, 4)
    term.tick()
    assert term.sessions.stream_of(node_id(4)) == 4
    term.nodes = 2
    ended = [effect for effect in term.tick() if isinstance(effect, EndStream)]
    assert [effect.stream for effect in ended] == [3]
    assert ended[0].message is not None
    assert ended[0].message.reason is RefusedReason.REMOVED
    assert node_id(3) not in term.observations.observed().nodes
    assert term.sessions.handle(Closed(3), term.now_s) == []
    assert EndStream(3) not in term.tick()


def test_a_removed_node_leaves_nothing_behind() -> None:
    """Its reports and what it found of others go with it."""
    term = settled()
    term.say(1, AttemptReports(True, (AttemptReport(task_id(1), 1, AttemptState.RUNNING),)))
    term.miss(1, 2)
    term.observations.forget(NodeId(node_id(1)))
    assert reports(term) == set()
    assert term.observations.evidence() == ()
