"""What do the nodes say, and what is held of them? The leader's memory of one term.

Everything in it comes from nodes' streams and is sent again by every new stream; nothing is stored.
A node's newest attempts are kept by task; (attempt, state) only grows, so a late report of an
earlier state is dropped. The end of a stream says nothing: reports stay as they were, and the
node's condition says how much they are worth.

Times are on the leader's monotonic clock (`now_s`), but for `since_unix_s`, which people read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dray.model import (
    AttemptReport,
    Epoch,
    Fault,
    FaultKind,
    NodeCondition,
    NodeInfo,
    NodeUsage,
    ReachKind,
    StoreRevision,
    TaskUsage,
    WitnessEvidence,
)
from dray.names import NodeId, TaskId
from dray.views import Orphan
from scheduler.nodes.conditions import (
    Evidence,
    Finding,
    Stream,
    StreamKind,
    node_condition,
)
from scheduler.nodes.messages import (
    AssignmentResult,
    AttemptReports,
    EvidenceReport,
    FaultReport,
    Goodbye,
    GoodbyeKind,
    Hello,
    NodeVolume,
    OrphanReport,
    PullProgress,
    Up,
    UsageReport,
    VolumeReport,
)
from scheduler.nodes.shards import Shards
from scheduler.reconcile.observed import NodeObservation, Observed

__all__ = [
    "EARLIER_MAX",
    "JUDGE_EARLIEST_S",
    "JUDGE_LATEST_S",
    "LATELY_S",
    "ConditionChange",
    "Observations",
]

JUDGE_EARLIEST_S: Final = 3.0  # a new leader judges nobody before, and only with half of the nodes
JUDGE_LATEST_S: Final = 15.0
EARLIER_MAX: Final = 9  # former attempts of one task that are remembered, beside its newest
LATELY_S: Final = 60.0  # how long a node counts as lately ready
_LOST: Final = frozenset({StreamKind.LOST, StreamKind.NONE})


@dataclass(frozen=True, slots=True)
class ConditionChange:
    """A node is held to be something else than before."""

    node_id: NodeId
    before: NodeCondition
    after: NodeCondition


@dataclass(frozen=True, slots=True)
class _Found:
    """One reporter's finding about one target."""

    said: WitnessEvidence
    since_s: float


@dataclass(slots=True)
class _Node:
    """What is known of one node in this term."""

    stream: Stream
    condition: NodeCondition = NodeCondition.UNKNOWN
    since_unix_s: float = 0.0
    ready_at_s: float | None = None
    life: int = 0
    hello: Hello | None = None
    info: NodeInfo | None = None
    usage: NodeUsage | None = None
    task_usage: dict[TaskId, TaskUsage] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    clone: Fault | None = None
    goodbye: Goodbye | None = None
    held: tuple[Epoch, StoreRevision] | None = None
    refused: str = ""
    tasks: set[TaskId] = field(default_factory=set)
    has_all: bool = False
    orphans: tuple[Orphan, ...] = ()
    volumes: dict[str, NodeVolume] = field(default_factory=dict)
    has_all_volumes: bool = False
    pulls: tuple[PullProgress, ...] = ()
    seen: NodeObservation | None = None
    """What `observed` makes of it; None: something has changed since."""

    @property
    def is_leaving(self) -> bool:
        """Whether it said that it leaves for good."""
        return self.goodbye is not None and self.goodbye.kind is GoodbyeKind.SHUTDOWN

    def observation(self) -> NodeObservation:
        """Return what planning sees of it."""
        if self.seen is None:
            self.seen = NodeObservation(
                self.condition,
                self.since_unix_s,
                self.info,
                self.usage,
                self.faults if self.clone is None else (*self.faults, self.clone),
                is_leaving=self.is_leaving,
                has_all_attempts=self.has_all,
                volumes=frozenset(self.volumes),
                has_all_volumes=self.has_all_volumes,
            )
        return self.seen


class Observations:
    """The memory. One writer: the loop that reads the streams."""

    def __init__(self, started_s: float, expected: Iterable[NodeId] = ()) -> None:
        """Start a term.

        Args:
            started_s: When it began.
            expected: Registered nodes that were not held to be down when it began: until they have
                had time to connect they count as lately ready, so that a leader that is cut off
                from most of them holds back.
        """
        self._started_s = started_s
        self._expected = frozenset(expected)
        self._nodes: dict[NodeId, _Node] = {}
        self._up: set[NodeId] = set()
        # Ready, with a live stream, missed by nobody: nearly all nodes, nearly always. Whatever
        # befalls one takes it out, so that a judgement looks at the others only.
        self._settled: set[NodeId] = set()
        self._attempts: Shards[TaskId, AttemptReport] = Shards()
        self._usage: Shards[TaskId, TaskUsage] = Shards()
        self._earlier: dict[TaskId, tuple[AttemptReport, ...]] = {}
        self._findings: dict[NodeId, dict[NodeId, _Found]] = {}
        self._missed: dict[NodeId, set[NodeId]] = {}  # by target: who does not reach it
        self._may_judge = False
        self._few_since_s: float | None = None
        self._half_since_s: float | None = None

    # ---- streams

    def connected(self, hello: Hello, now_s: float) -> None:
        """Note a node's new stream; a new life begins without what the last one said."""
        node = self._node(hello.info.node_id)
        if hello.info.life != node.life:
            node.clone, node.has_all, node.refused = None, False, ""
        node.stream, node.seen = Stream(StreamKind.UP, now_s), None
        self._up.add(hello.info.node_id)
        node.life, node.hello, node.info = hello.info.life, hello, hello.info
        node.goodbye, node.held = None, hello.held
        self._forget_reporter(hello.info.node_id)

    def lost(self, node_id: NodeId, now_s: float) -> None:
        """Note that a node's stream ended or does not answer; whether it left for good counts."""
        node = self._node(node_id)
        if node.stream.kind is not StreamKind.UP:
            return
        node.stream = Stream(StreamKind.LEFT if node.is_leaving else StreamKind.LOST, now_s)
        self._up.discard(node_id)
        self._unsettle(node_id, now_s)

    def answered(self, node_id: NodeId, now_s: float) -> None:
        """Note that a stream that was taken for lost, and is still open, carries messages."""
        node = self._node(node_id)
        if node.stream.kind is StreamKind.LOST:
            node.stream = Stream(StreamKind.UP, now_s)
            self._up.add(node_id)

    def is_up(self, node_id: NodeId) -> bool:
        """Return whether a node's stream is up."""
        return node_id in self._up

    def leaving(self) -> list[NodeId]:
        """Return the nodes that said that they leave for good, and are still connected, by id."""
        return sorted(
            node_id
            for node_id, node in self._nodes.items()
            if node.is_leaving and node_id in self._up
        )

    def has_all(self, node_id: NodeId) -> bool:
        """Return whether a node has reported everything that it runs, in its current life."""
        node = self._nodes.get(node_id)
        return node is not None and node.has_all

    def life(self, node_id: NodeId) -> int:
        """Return a node's life as its last stream named it; 0: it had none."""
        node = self._nodes.get(node_id)
        return node.life if node else 0

    def info(self, node_id: NodeId) -> NodeInfo | None:
        """Return what a node last said of itself in this term, or None."""
        node = self._nodes.get(node_id)
        return node.info if node else None

    def note_clone(self, node_id: NodeId, message: str, now_unix_s: float) -> None:
        """Note that another daemon claims a node's id; stays until the node's next life."""
        node = self._node(node_id)
        if node.clone is None:
            node.seen = None
            node.clone = Fault(FaultKind.CLONE, now_unix_s, message)

    def forget(self, node_id: NodeId) -> None:
        """Forget a node that was removed from the registry."""
        node = self._nodes.pop(node_id, None)
        self._up.discard(node_id)
        self._settled.discard(node_id)
        for task_id in node.tasks if node else ():
            self._drop_attempt(task_id)
        self._findings.pop(node_id, None)
        self._missed.pop(node_id, None)
        self._forget_reporter(node_id)

    # ---- reports

    def take(self, node_id: NodeId, message: Up, now_s: float) -> bool:
        """Take a report of a node whose stream is up.

        Returns:
            Whether a round should look at it: tasks, faults, volumes or capacity changed.
        """
        node = self._node(node_id)
        if not isinstance(message, EvidenceReport):
            node.seen = None
        match message:
            case AttemptReports():
                return self._take_attempts(node, message)
            case UsageReport():
                return self._take_usage(node, message)
            case FaultReport():
                has_changed = node.faults != message.faults
                node.faults = message.faults
                return has_changed
            case EvidenceReport():
                self._take_evidence(node_id, message, now_s)
                return False
            case Goodbye():
                node.goodbye = message
                return True
            case AssignmentResult():
                return self._take_result(node, message)
            case OrphanReport():
                node.orphans = message.orphans
                return False
            case VolumeReport():
                return self._take_volumes(node, message)
            case _:
                return False

    def suspects(self) -> list[NodeId]:
        """Return the nodes with a live stream that some reporter does not reach, by id."""
        return sorted(
            node_id
            for node_id in self._missed
            if self.is_up(node_id)
            and any(each.said.reach is not ReachKind.ANSWERED for each in self._current(node_id))
        )

    # ---- judgement

    def judge(
        self, registered: Collection[NodeId], now_s: float, now_unix_s: float
    ) -> tuple[ConditionChange, ...]:
        """Judge every registered node anew; return whose condition changed, by id."""
        known = frozenset(registered)
        self._note_times(known, now_s)
        changes = []
        for node_id in sorted(known - self._settled):
            node = self._node(node_id)
            after = self._judged(node_id, node, now_s)
            if after is NodeCondition.READY:
                node.ready_at_s = now_s
                if node_id not in self._missed:
                    self._settled.add(node_id)
            if after is not node.condition:
                changes.append(ConditionChange(node_id, node.condition, after))
                node.condition, node.since_unix_s, node.seen = after, now_unix_s, None
        return tuple(changes)

    def observed(self) -> Observed:
        """Return what reconciling needs, as of now; later reports do not show in it."""
        nodes = {node_id: node.seen or node.observation() for node_id, node in self._nodes.items()}
        return Observed(nodes, self._attempts.view())

    def usage(self) -> Mapping[TaskId, TaskUsage]:
        """Return what tasks use, as of now; an absent task is unknown."""
        return self._usage.view()

    def earlier(self) -> dict[TaskId, tuple[AttemptReport, ...]]:
        """Return the attempts that were followed by another one, newest first, as of now.

        Of a task that has restarted in this term; at most `EARLIER_MAX` each.
        """
        return dict(self._earlier)

    def evidence(self) -> tuple[WitnessEvidence, ...]:
        """Return what reporters do not reach, as of their reports; by target, then reporter."""
        return tuple(
            self._findings[target][reporter].said
            for target in sorted(self._missed)
            for reporter in sorted(self._missed[target])
        )

    def orphans(self) -> dict[NodeId, tuple[Orphan, ...]]:
        """Return the containers that no assignment explains, of the nodes that have any."""
        return {node_id: node.orphans for node_id, node in self._nodes.items() if node.orphans}

    def volumes(self, node_id: NodeId) -> tuple[NodeVolume, ...]:
        """Return the named volumes that a node reported, by name."""
        node = self._nodes.get(node_id)
        return tuple(node.volumes[name] for name in sorted(node.volumes)) if node else ()

    def pulls(self, node_id: NodeId) -> tuple[PullProgress, ...]:
        """Return the images that a node is fetching."""
        node = self._nodes.get(node_id)
        return node.pulls if node else ()

    def held(self, node_id: NodeId) -> tuple[Epoch, StoreRevision] | None:
        """Return the version of the assignment that a node says it carries out, or None."""
        node = self._nodes.get(node_id)
        return node.held if node else None

    def refusal(self, node_id: NodeId) -> str:
        """Return why a node refused its last assignment; empty: it did not."""
        node = self._nodes.get(node_id)
        return node.refused if node else ""

    # ---- inside

    def _node(self, node_id: NodeId) -> _Node:
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = _Node(Stream(StreamKind.NONE, self._started_s))
        return node

    def _take_attempts(self, node: _Node, message: AttemptReports) -> bool:
        has_changed = message.is_complete and not node.has_all
        node.pulls = message.pulls
        listed = {report.task_id for report in message.attempts}
        gone = set(message.forgotten)
        if message.is_complete:
            node.has_all = True
            gone |= node.tasks - listed
        for task_id in gone:
            has_changed |= task_id in node.tasks
            node.tasks.discard(task_id)
            self._drop_attempt(task_id)
        for report in message.attempts:
            last = self._attempts.get(report.task_id)
            if last is not None and (report.attempt, report.state) < (last.attempt, last.state):
                continue
            node.tasks.add(report.task_id)
            if report != last:
                if last is not None and last.attempt < report.attempt:
                    self._note_earlier(last)
                self._attempts.put(report.task_id, report)
                has_changed = True
        return has_changed

    def _note_earlier(self, last: AttemptReport) -> None:
        """Keep an attempt that another one has followed: why it ended explains the restart."""
        earlier = (last, *self._earlier.get(last.task_id, ()))
        self._earlier[last.task_id] = earlier[:EARLIER_MAX]

    def _drop_attempt(self, task_id: TaskId) -> None:
        self._attempts.drop(task_id)
        self._earlier.pop(task_id, None)
        self._usage.drop(task_id)

    def _take_usage(self, node: _Node, message: UsageReport) -> bool:
        node.usage = message.node or node.usage
        if message.is_complete:
            for task_id in set(node.task_usage) - {each.task_id for each in message.tasks}:
                del node.task_usage[task_id]
                self._usage.drop(task_id)
        for usage in message.tasks:
            if usage.task_id in node.tasks:
                node.task_usage[usage.task_id] = usage
                self._usage.put(usage.task_id, usage)
        if node.info is None or message.capacity in (None, node.info.capacity):
            return False
        assert message.capacity is not None
        node.info = replace(node.info, capacity=message.capacity)
        return True

    def _take_evidence(self, reporter: NodeId, message: EvidenceReport, now_s: float) -> None:
        if message.is_complete:
            self._forget_reporter(reporter)
        for each in message.evidence:
            if each.target == reporter:
                continue
            found = _Found(each, now_s - each.since_s)
            self._findings.setdefault(each.target, {})[reporter] = found
            if each.reach is ReachKind.ANSWERED:
                self._unmiss(each.target, reporter)
            else:
                self._missed.setdefault(each.target, set()).add(reporter)
                self._unsettle(each.target, now_s)

    def _take_result(self, node: _Node, message: AssignmentResult) -> bool:
        if message.is_accepted:
            node.held, node.refused = (message.epoch, message.mod_revision), ""
            return False
        has_changed = node.refused != message.reason
        node.refused = message.reason
        return has_changed

    def _take_volumes(self, node: _Node, message: VolumeReport) -> bool:
        before = (set(node.volumes), node.has_all_volumes)
        node.has_all_volumes |= message.is_complete
        if message.is_complete:
            node.volumes = {}
        for name in message.gone:
            node.volumes.pop(name, None)
        node.volumes |= {volume.name: volume for volume in message.volumes}
        return (set(node.volumes), node.has_all_volumes) != before

    def _forget_reporter(self, reporter: NodeId) -> None:
        for target in [target for target, by in self._findings.items() if reporter in by]:
            del self._findings[target][reporter]
            self._unmiss(target, reporter)
            if not self._findings[target]:
                del self._findings[target]

    def _unsettle(self, node_id: NodeId, now_s: float) -> None:
        """Have a node judged again; it was ready until now."""
        if node_id in self._settled:
            self._settled.discard(node_id)
            self._nodes[node_id].ready_at_s = now_s

    def _unmiss(self, target: NodeId, reporter: NodeId) -> None:
        missed_by = self._missed.get(target, set())
        missed_by.discard(reporter)
        if not missed_by:
            self._missed.pop(target, None)

    def _current(self, target: NodeId) -> list[_Found]:
        """Return what reporters with a live stream found of a node's newest life."""
        found = [
            each
            for reporter, each in self._findings.get(target, {}).items()
            if self.is_up(reporter)
        ]
        life = max([self.life(target), *(each.said.target_life for each in found)])
        return [each for each in found if each.said.target_life == life]

    def _note_times(self, registered: frozenset[NodeId], now_s: float) -> None:
        """Note since when reporters are few, and since when half of the nodes are connected."""
        age_s, up = now_s - self._started_s, len(self._up)
        has_half = 2 * up >= len(registered)
        self._may_judge |= age_s >= JUDGE_LATEST_S or (age_s >= JUDGE_EARLIEST_S and has_half)
        if not has_half:
            self._half_since_s = None
        elif self._half_since_s is None:
            self._half_since_s = now_s
        is_few = 2 * up < self._lately_ready(registered, now_s)
        if not is_few:
            self._few_since_s = None
        elif self._few_since_s is None:
            self._few_since_s = now_s

    def _lately_ready(self, registered: frozenset[NodeId], now_s: float) -> int:
        is_early = now_s - self._started_s <= LATELY_S
        left = 0
        for node_id in registered - self._settled:
            node = self._nodes.get(node_id)
            ready_at_s = None if node is None else node.ready_at_s
            is_lately = ready_at_s is not None and now_s - ready_at_s <= LATELY_S
            left += is_lately or (is_early and node_id in self._expected)
        return len(registered & self._settled) + left

    def _judged(self, node_id: NodeId, node: _Node, now_s: float) -> NodeCondition:
        is_up, up = node_id in self._up, len(self._up)
        if is_up and node_id not in self._missed:
            return NodeCondition.READY
        findings = tuple(
            Finding(each.said.reach, each.since_s, each.said.last_contact_s is not None)
            for each in self._current(node_id)
        )
        evidence = Evidence(
            up - is_up, findings, self._may_judge, self._few_since_s, self._half_since_s
        )
        after = node_condition(node.stream, evidence, now_s)
        was_down = node.condition is NodeCondition.DOWN and node.stream.kind in _LOST
        if was_down and after is NodeCondition.UNKNOWN:
            return NodeCondition.DOWN  # its peers have forgotten it; a verdict is not taken back
        return after
